%% @doc Method and path to handler. Pure; called by baguette_web_exchange.
%%
%% A handler gets a baguette_web_exchange:exchange() and returns a baguette_web_exchange:answer().
%% In a path '_' stands for one segment, '...' for what is left of it. `open' needs no token.
-module(baguette_web_routes).

-export([all/0, find/2, name/1]).
-export_type([route/0]).

-type route() :: {method(), path(), open | token, module(), Function :: atom()}.
-type method() :: 'GET' | 'POST' | 'DELETE'.
-type path() :: [binary() | '_' | '...'].

%% @doc Every route, in the order in which they are tried.
-spec all() -> [route()].
all() ->
    [
        {'GET', [], open, baguette_web_page_h, page},
        {'GET', [<<"assets">>, '...'], open, baguette_web_page_h, asset},
        {'GET', [<<"healthz">>], open, baguette_web_health_h, alive},
        {'GET', [<<"readyz">>], open, baguette_web_health_h, ready},
        {'GET', [<<"openapi.json">>], open, baguette_web_openapi_h, document},
        {'GET', [<<"metrics">>], token, baguette_web_metrics_h, metrics},
        {'GET', [<<"v1">>, <<"models">>], token, baguette_web_cluster_h, models},
        {'GET', [<<"v1">>, <<"cluster">>], token, baguette_web_cluster_h, cluster},
        {'GET', [<<"v1">>, <<"tree">>], token, baguette_web_tree_h, tree},
        {'GET', [<<"v1">>, <<"stream">>], token, baguette_web_stream_h, stream},
        {'POST', [<<"v1">>, <<"images">>, <<"generations">>], token, baguette_web_images_h, create},
        {'POST', [<<"v1">>, <<"jobs">>], token, baguette_web_jobs_h, create},
        {'GET', [<<"v1">>, <<"jobs">>], token, baguette_web_jobs_h, list},
        {'GET', [<<"v1">>, <<"jobs">>, '_'], token, baguette_web_jobs_h, show},
        {'DELETE', [<<"v1">>, <<"jobs">>, '_'], token, baguette_web_jobs_h, cancel},
        {'GET', [<<"v1">>, <<"jobs">>, '_', <<"events">>], token, baguette_web_jobs_h, events},
        {'GET', [<<"v1">>, <<"jobs">>, '_', <<"images">>, '_'], token, baguette_web_jobs_h, image}
    ].

%% @doc The route of a request; HEAD is asked of GET's.
-spec find(atom() | binary(), [binary()]) ->
    {ok, route()} | not_found | {not_allowed, Allow :: [atom()]}.
find('HEAD', Segments) ->
    find('GET', Segments);
find(Method, Segments) ->
    Here = [Route || Route <- all(), matches(element(2, Route), Segments)],
    case {lists:keyfind(Method, 1, Here), Here} of
        {false, []} -> not_found;
        {false, _} -> {not_allowed, lists:append([allowed(element(1, Route)) || Route <- Here])};
        {Route, _} -> {ok, Route}
    end.

matches(['...'], [_ | _]) -> true;
matches(['_' | Path], [Segment | Segments]) when Segment =/= <<>> -> matches(Path, Segments);
matches([Segment | Path], [Segment | Segments]) -> matches(Path, Segments);
matches([], []) -> true;
matches(_, _) -> false.

allowed('GET') -> ['GET', 'HEAD'];
allowed(Method) -> [Method].

%% @doc A route's path as a metric's label: what a client wrote in it is not in it.
-spec name(route()) -> binary().
name({_, [], _, _, _}) -> <<"/">>;
name({_, Path, _, _, _}) -> iolist_to_binary([[$/, segment(Segment)] || Segment <- Path]).

segment('_') -> <<"_">>;
segment('...') -> <<"...">>;
segment(Segment) -> Segment.
