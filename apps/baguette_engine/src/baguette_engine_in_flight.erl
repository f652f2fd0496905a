%% @doc How many calls of this node's generations are with which node: what makes the next ask go
%% elsewhere. A table with a row per generation that only that generation writes; owned by
%% baguette_engine_sup. Read at every ask. A generation that crashes is forgotten by
%% baguette_engine_admission, which monitors it.
-module(baguette_engine_in_flight).

-export([table/0, show/1, forget/1, with/1]).

-spec table() -> ok.
table() ->
    ?MODULE = ets:new(?MODULE, [named_table, public, {write_concurrency, true}]),
    ok.

%% @doc The calling generation has calls with these nodes now, one entry a call.
-spec show([node()]) -> ok.
show([]) ->
    forget(self());
show(Nodes) ->
    true = ets:insert(?MODULE, {self(), Nodes}),
    ok.

-spec forget(pid()) -> ok.
forget(Pid) ->
    true = ets:delete(?MODULE, Pid),
    ok.

%% @doc Calls by node: the caller's own as given (it knows better than the table), all the others'.
-spec with([node()]) -> #{node() => pos_integer()}.
with(Own) ->
    Others = lists:append([Nodes || {Pid, Nodes} <- ets:tab2list(?MODULE), Pid =/= self()]),
    lists:foldl(fun count/2, #{}, Own ++ Others).

count(Node, Counts) ->
    maps:update_with(Node, fun(N) -> N + 1 end, 1, Counts).
