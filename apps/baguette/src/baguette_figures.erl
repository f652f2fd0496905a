%% @doc What every node counts about itself, gathered by one of them: for programs that measure the
%% cluster's own cost (scripts/bench_cluster.py) through baguette:figures/0. Facts only, each since
%% the node's start: who measures asks twice and subtracts. Looking costs a call a node. A trace of
%% where the time of calls goes is gathered the same way, and begins and ends when it is told to.
-module(baguette_figures).

-export([all/0, trace/1]).
%% Called on each node
-export([this/0, trace_this/1]).

%% Many nodes on few cores answer late when they start.
-define(ANSWER_MS, 20000).
-define(WIRE, [send_oct, send_cnt, recv_oct, recv_cnt]).

%% @doc The figures of this node and of everybody it is linked with; of a node that does not answer,
%% only that it did not.
-spec all() -> [map()].
all() ->
    Nodes = [node() | nodes()],
    Answers = erpc:multicall(Nodes, ?MODULE, this, [], ?ANSWER_MS),
    [answered(Node, Answer) || {Node, Answer} <- lists:zip(Nodes, Answers)].

answered(_Node, {ok, Figures}) -> Figures;
answered(Node, {_Class, _Why}) -> #{node => Node, silent => true}.

%% @doc Watch where the time of calls goes on all of these nodes from now on, or what was seen until
%% now (baguette_engine:trace/1). Fails where a node does not answer: a part of it says nothing.
-spec trace(on | off) -> [map()].
trace(What) ->
    Answers = erpc:multicall([node() | nodes()], ?MODULE, trace_this, [What], ?ANSWER_MS),
    lists:map(fun({ok, Trace}) -> Trace end, Answers).

%% @doc The same on this node.
-spec trace_this(on | off) -> map().
trace_this(on) ->
    ok = baguette_engine:trace(on),
    #{node => node()};
trace_this(off) ->
    baguette_engine:trace(off).

%% @doc The figures of this node. `experts' says whom it would ask; `wire' are the distribution's
%% own counters, of the links that are up; `gossip' what the cluster room counts, null where it does
%% not; `members' and `plan' what this node believes, to be held against what the others do.
-spec this() -> map().
this() ->
    Cluster = baguette_cluster:overview(),
    #{
        node => node(),
        silent => false,
        at_ms => erlang:system_time(millisecond),
        joined => joined(Cluster),
        linked => length(linked(Cluster)),
        members => [maps:with([node, link, incarnation], M) || M <- baguette_cluster:nodes()],
        plan => erlang:phash2(baguette_cluster:plan()),
        running => length([G || #{state := How} = G <- baguette_engine:generations(), runs(How)]),
        expected_step_us => baguette_cluster:expected_step_us(),
        experts => baguette_engine:experts(),
        workers => [counted(Worker) || Worker <- baguette_engine:workers()],
        calls => calls(),
        wire => wire(),
        gossip => maps:get(gossip, Cluster, undefined),
        memory_kib => erlang:memory(total) div 1024,
        processes => erlang:system_info(process_count)
    }.

%% It agrees with everybody on a plan and holds what that asks of it.
joined(#{agreed := true, inventory := ok, components := Components}) ->
    Own = fun(Nodes) -> lists:member(node(), Nodes) end,
    lists:all(
        fun(#{planned := Planned, ready := Ready}) -> Own(Ready) orelse not Own(Planned) end,
        maps:values(Components)
    );
joined(_) ->
    false.

linked(#{members := Members}) ->
    [Node || #{node := Node, link := up} <- Members, Node =/= node()].

runs(How) -> not lists:member(How, [done, failed, cancelled]).

counted(Worker) ->
    Names = [
        kind, simulated, state, in_flight, waiting, waiting_bytes, deaths, busy_us, batches, loads,
        unloads, loaded_at_ms
    ],
    maps:with(Names, Worker).

%% What this node's own generations asked of experts, and the payloads' bytes.
calls() ->
    Named = #{
        <<"calls_total">> => sent, <<"ask_bytes_total">> => ask_bytes,
        <<"answer_bytes_total">> => answer_bytes
    },
    maps:from_list([
        {maps:get(Name, Named), Value}
     || #{name := Name, samples := [{[], Value}]} <- baguette_engine:metrics(),
        is_map_key(Name, Named)
    ]).

%% A control node's link is none of the cluster's, so only visible nodes count; a link over TLS is a
%% process, and its counters are not to be had.
wire() ->
    Members = nodes(),
    Ports = [
        Port
     || {Node, Port} <- erlang:system_info(dist_ctrl), is_port(Port), lists:member(Node, Members)
    ],
    Counted = [maps:from_list(C) || Port <- Ports, {ok, C} <- [inet:getstat(Port, ?WIRE)]],
    Sum = fun(Name) -> lists:sum([maps:get(Name, Counts) || Counts <- Counted]) end,
    maps:from_list([{links, length(Counted)} | [{Name, Sum(Name)} || Name <- ?WIRE]]).
