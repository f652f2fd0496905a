%% @doc What this room counts: answers by route and status, open streams. A table of the
%% supervisor's, written by the connections themselves; read by baguette_web_metrics_h.
-module(baguette_web_counts).

-export([new/0, request/2, stream/1, requests/0, streams/0]).

%% @doc Makes the table; its owner is the caller, baguette_web_sup.
-spec new() -> ok.
new() ->
    ?MODULE = ets:new(?MODULE, [named_table, public, {write_concurrency, true}]),
    ok.

%% @doc One request was answered.
-spec request(Route :: binary(), Status :: 100..599) -> ok.
request(Route, Status) ->
    Key = {request, Route, Status},
    _ = ets:update_counter(?MODULE, Key, 1, {Key, 0}),
    ok.

%% @doc Runs a stream and counts it while it is open.
-spec stream(fun(() -> ok)) -> ok.
stream(Fun) ->
    true = ets:insert(?MODULE, {{stream, self()}}),
    try
        Fun()
    after
        ets:delete(?MODULE, {stream, self()})
    end.

-spec requests() -> [{Route :: binary(), Status :: 100..599, Count :: pos_integer()}].
requests() ->
    lists:sort(ets:select(?MODULE, [{{{request, '$1', '$2'}, '$3'}, [], [{{'$1', '$2', '$3'}}]}])).

%% @doc How many are open. One whose process was killed could not say that it ended.
-spec streams() -> non_neg_integer().
streams() ->
    Pids = ets:select(?MODULE, [{{{stream, '$1'}}, [], ['$1']}]),
    {Open, Killed} = lists:partition(fun is_process_alive/1, Pids),
    lists:foreach(fun(Pid) -> ets:delete(?MODULE, {stream, Pid}) end, Killed),
    length(Open).
