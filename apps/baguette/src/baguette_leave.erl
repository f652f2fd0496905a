%% @doc A node leaves without anybody noticing: takes no more work, finishes what it has, lets
%% others take over what only it holds, says goodbye, and ends. Spawned by the control node of
%% `make leave' (relay/3); bounded in time, and what was not done by then is said.
%%
%% Nothing is asked of a node once its peers have acknowledged that it leaves
%% (baguette_cluster:drain/0), so no call is lost and none is made twice.
-module(baguette_leave).

-export([relay/3]).

-export_type([left/0]).

-define(LOOK_MS, 50).

%% What it still waits for; empty: nothing.
-type left() :: #{generations => pos_integer(), calls => pos_integer(), components => [binary()]}.

%% @doc Messages {baguette_leave, Ref, {leaving, left()} | {finished, left()}}; then the node ends.
-spec relay(pid(), reference(), pos_integer()) -> ok.
relay(Control, Ref, Ms) ->
    Tell = fun(Event) -> Control ! {?MODULE, Ref, Event}, ok end,
    ok = baguette_engine:close(),
    ok = baguette_cluster:drain(),
    Left = wait(Tell, undefined, now_ms() + Ms),
    Tell({finished, Left}),
    init:stop().

wait(Tell, Last, Until) ->
    Left = left(),
    _ = Left =/= Last andalso Tell({leaving, Left}),
    case map_size(Left) =:= 0 orelse now_ms() >= Until of
        true ->
            Left;
        false ->
            receive
            after ?LOOK_MS -> wait(Tell, Left, Until)
            end
    end.

-spec left() -> left().
left() ->
    maps:filter(fun(_, Value) -> Value =/= 0 andalso Value =/= [] end, #{
        generations => length([G || #{state := State} = G <- generations(), is_running(State)]),
        calls => lists:sum([calls(W) || #{kind := expert} = W <- baguette_engine:workers()]),
        components => only_here()
    }).

generations() -> baguette_engine:generations().

is_running(State) -> not lists:member(State, [done, failed, cancelled]).

calls(#{in_flight := InFlight, waiting := Waiting}) -> InFlight + Waiting.

%% Held by nobody else, although somebody else is to hold it.
only_here() ->
    Plan = baguette_cluster:plan(),
    [
        C
     || {C, #{ready := [Node]}} <- lists:sort(maps:to_list(baguette_cluster:components())),
        Node =:= node(),
        maps:get(C, Plan, []) -- [node()] =/= []
    ].

now_ms() -> erlang:monotonic_time(millisecond).
