%% @doc One request and its answer: guarded, routed, handled, counted. Called by
%% baguette_web_connection in the connection's own process, so that a handler that crashes costs
%% one answer.
-module(baguette_web_exchange).

-include_lib("kernel/include/logger.hrl").

-export([answer/2, refusal/2]).
-export_type([exchange/0, answer/0, headers/0, send/0]).

-type headers() :: [{binary(), iodata()}].
-type send() :: fun((iodata()) -> ok).    % exits the process when the client has gone
-type exchange() :: #{
    method := atom() | binary(),
    segments := [binary()],                % of the path, decoded
    query := #{binary() => binary()},
    header := fun((Name :: string()) -> undefined | string()),
    client := binary(),                    % a token's name, peer:ADDRESS or tailnet:USER
    gone := fun(() -> boolean()),          % the client has closed the connection meanwhile
    body := binary()
}.
-type answer() ::
    {json, Status :: 200..599, headers(), jiffy:json_value()}
    | {reply, Status :: 200..599, headers(), iodata()}
    | {problem, baguette_web_problem:problem()}
    | {stream, headers(), fun((send()) -> ok)}.

%% @doc What to send for a request.
-spec answer(baguette_web_request:request(), baguette_web_settings:settings()) ->
    {Status :: 200..599, headers(), iodata() | fun((send()) -> ok)}.
answer(#{target := Target} = Request, Settings) ->
    {Route, Answer} =
        case target(Target) of
            {ok, Segments, Query} -> routed(Request, Segments, Query, Settings);
            error -> {<<"none">>, problem(400, "write path and query as percent-encoded UTF-8")}
        end,
    {Status, Headers, Body} = reply(Answer),
    ok = baguette_web_counts:request(Route, Status),
    More = baguette_web_guard:cors(Request, Settings) ++ policy(Headers, Settings),
    {Status, More ++ Headers, Body}.

policy(Headers, Settings) ->
    case lists:keyfind(<<"content-type">>, 1, Headers) of
        {_, <<"text/html", _/binary>>} ->
            [{<<"content-security-policy">>, baguette_web_guard:page_policy(Settings)}];
        _ ->
            []
    end.

%% @doc What to send for what is no request.
-spec refusal(400..599, iodata()) -> {400..599, headers(), iodata()}.
refusal(Status, Detail) ->
    ok = baguette_web_counts:request(<<"none">>, Status),
    baguette_web_problem:reply(baguette_web_problem:new(Status, Detail)).

target(Target) ->
    [Path | Query] = binary:split(Target, <<"?">>),
    try
        [<<>> | Segments] = binary:split(Path, <<"/">>, [global]),
        Decoded = [decoded(Segment) || Segment <- Segments],
        {ok, trailing(Decoded), query(Query)}
    catch
        error:_ -> error;
        %% uri_string's, of bytes that are no UTF-8
        throw:{error, _, _} -> error
    end.

trailing([<<>>]) -> [];
trailing(Segments) -> Segments.

decoded(Segment) ->
    case uri_string:percent_decode(Segment) of
        Text when is_binary(Text) ->
            Text = unicode:characters_to_binary(Text),
            nomatch = binary:match(Text, [<<0>>, <<"/">>]),
            Text
    end.

query([]) -> #{};
query([Query]) -> maps:from_list([{Key, text(Value)} || {Key, Value} <- dissect(Query)]).

dissect(Query) ->
    Pairs = uri_string:dissect_query(Query),
    true = is_list(Pairs),
    Pairs.

text(true) -> <<>>;
text(Value) -> Value.

routed(#{method := Method} = Request, Segments, Query, Settings) ->
    case baguette_web_routes:find(Method, Segments) of
        {ok, {_, _, Access, Module, Function} = Route} ->
            Answer =
                case baguette_web_guard:check(Access, Request, Settings) of
                    {ok, Client} ->
                        handled(Module, Function, exchange(Request, Segments, Query, Client));
                    {problem, _} = Problem ->
                        Problem
                end,
            {baguette_web_routes:name(Route), Answer};
        Other ->
            {<<"none">>, unrouted(Other, Request, Settings)}
    end.

unrouted(Other, #{method := Method} = Request, Settings) ->
    case {baguette_web_guard:check(open, Request, Settings), Other} of
        {{problem, _} = Problem, _} ->
            Problem;
        {{ok, _}, not_found} ->
            problem(404, "there is nothing at this path; /openapi.json lists what there is");
        {{ok, _}, {not_allowed, Allow}} when Method =:= 'OPTIONS' ->
            {reply, 204, [{<<"allow">>, allow(Allow)}], <<>>};
        {{ok, _}, {not_allowed, Allow}} ->
            {problem,
                baguette_web_problem:new(
                    405,
                    ["this path answers ", allow(Allow), " only"],
                    #{headers => [{<<"allow">>, allow(Allow)}]}
                )}
    end.

allow(Methods) ->
    lists:join(<<", ">>, [atom_to_binary(Method) || Method <- Methods]).

exchange(Request, Segments, Query, Client) ->
    #{method := Method, headers := Headers, gone := Gone, body := Body} = Request,
    #{
        method => Method,
        gone => Gone,
        segments => Segments,
        query => Query,
        header => fun(Name) -> header(Name, Headers) end,
        client => Client,
        body => Body
    }.

header(Name, Headers) ->
    case baguette_web_request:header(list_to_binary(string:lowercase(Name)), Headers) of
        undefined -> undefined;
        Value -> binary_to_list(Value)
    end.

handled(Module, Function, Exchange) ->
    try
        Module:Function(Exchange)
    catch
        Class:Reason:Stack ->
            %% No arguments: a prompt may be among them.
            At = [{M, F} || {M, F, _, _} <- Stack],
            ?LOG_ERROR(
                #{what => handler_crashed, class => Class, reason => name(Reason), at => At},
                #{domain => [baguette, web]}
            ),
            problem(500, "something went wrong here; `make events` on this node says more")
    end.

name(Reason) when is_atom(Reason) -> Reason;
name(Reason) when is_tuple(Reason), is_atom(element(1, Reason)) -> element(1, Reason);
name(_) -> other.

reply({json, Status, Headers, Value}) ->
    {Status, [{<<"content-type">>, <<"application/json">>} | Headers], [jiffy:encode(Value), $\n]};
reply({reply, Status, Headers, Body}) ->
    {Status, Headers, Body};
reply({problem, Problem}) ->
    baguette_web_problem:reply(Problem);
reply({stream, Headers, Fun}) ->
    {200, Headers, Fun}.

problem(Status, Detail) ->
    {problem, baguette_web_problem:new(Status, Detail)}.
