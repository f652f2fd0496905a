%% @doc GET /healthz: does this node answer. GET /readyz: could a picture be drawn now, and if not
%% why, in sentences. Handlers of baguette_web_routes.
-module(baguette_web_health_h).

-export([alive/1, ready/1, stopping/0]).

-define(STOPPING, {?MODULE, stopping}).

%% @doc Alive is who answers.
-spec alive(baguette_web_exchange:exchange()) -> baguette_web_exchange:answer().
alive(_Exchange) ->
    {json, 200, [], #{status => ok}}.

%% @doc Ready is a node that takes requests, in a cluster that holds every expert.
-spec ready(baguette_web_exchange:exchange()) -> baguette_web_exchange:answer().
ready(_Exchange) ->
    case reasons() of
        [] -> {json, 200, [], #{status => ready}};
        Reasons -> {json, 503, [], #{status => not_ready, reasons => Reasons}}
    end.

reasons() ->
    case persistent_term:get(?STOPPING, false) of
        true -> [#{name => stopping, detail => <<"this node is being stopped: ask another">>}];
        false -> baguette_web_view:reasons(baguette_engine:health())
    end.

%% @doc From now on this node is not ready.
-spec stopping() -> ok.
stopping() ->
    persistent_term:put(?STOPPING, true).
