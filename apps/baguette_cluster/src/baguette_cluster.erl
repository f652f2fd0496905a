%% @doc The door of the room "who is there, how fast, and who holds which component". The other
%% rooms call this module and no other of this application. Everything that looks is a table read
%% and never waits for a process. Knows components by name, size and key; never what they are.
-module(baguette_cluster).

%% Looking
-export([nodes/0, holders/1, components/0, plan/0, why_missing/1]).
-export([overview/0, health/0]).
%% Following
-export([watch/0]).
%% Telling: for the application that holds the components
-export([component_state/2, publish/2]).
-export_type([event/0, node_info/0, component_info/0, missing/0]).

-type component() :: baguette_cluster_component:component().
%% What watchers get, each as {baguette_cluster, Event}. holders: the set of those who may be asked
%% changed (not: its order).
-type event() ::
    {holders, component(), [node()]}
    | {link, node(), up | suspect | down}
    | {member, node(), joined | gone}
    | {plan, baguette_cluster_placement:plan()}.
-type node_info() :: #{
    node := node(),
    self := boolean(),
    link := up | suspect | down,    % whom I may ask now
    gone := false,                  % who is gone is not listed
    incarnation := pos_integer(),
    rtt_us := non_neg_integer(),    % 0 = not measured yet, or ourselves
    age_ms := non_neg_integer(),    % since its report last advanced
    report := map()                 % components, states, memory_mib, plan_hash, extra
}.
-type component_info() :: #{
    size_mib := pos_integer(),
    on_disk := [node()],
    ready := [node()],
    loading := [node()],
    planned := [node()]
}.
-type missing() ::
    {loading, [node()]}
    | {planned, [node()]}
    | {failed, [node()]}            % all who have it tried, and could not load it
    | nobody_has_it_on_disk
    | no_memory
    | not_settled.

%% @doc Every member, ourselves first.
-spec nodes() -> [node_info()].
nodes() ->
    Now = erlang:monotonic_time(millisecond),
    Links = baguette_cluster_table:links(),
    [node_info(Report, At, Now, Links) || {Report, At} <- baguette_cluster_table:reports()].

node_info(Report, At, Now, Links) ->
    Node = baguette_cluster_report:node(Report),
    {Incarnation, _} = baguette_cluster_report:identity(Report),
    #{
        node => Node,
        self => At =:= self,
        link => link(Node, At, Links),
        gone => false,
        incarnation => Incarnation,
        rtt_us => maps:get(rtt_us, maps:get(Node, Links, #{}), 0),
        age_ms => age(At, Now),
        report => baguette_cluster_report:to_map(Report)
    }.

link(_Node, self, _Links) -> up;
link(Node, _At, Links) -> maps:get(state, maps:get(Node, Links, #{}), down).

age(self, _Now) -> 0;
age(At, Now) -> max(0, Now - At).

%% @doc Whom to ask for a component, best first; ourselves included when we hold it.
-spec holders(component()) -> [baguette_cluster_holders:holder()].
holders(Component) ->
    baguette_cluster_table:holders(Component).

%% @doc Every component that is on anybody's disk.
-spec components() -> #{component() => component_info()}.
components() ->
    Plan = plan(),
    Rows = [
        {C, Size, baguette_cluster_report:node(R), baguette_cluster_report:state(C, R)}
     || {R, _} <- baguette_cluster_table:reports(),
        #{component := C, size_mib := Size} <- baguette_cluster_report:items(R)
    ],
    Names = lists:usort([C || {C, _, _, _} <- Rows]),
    maps:from_list([{C, component_info(maps:get(C, Plan, []), of_name(C, Rows))} || C <- Names]).

of_name(C, Rows) ->
    lists:keysort(3, [Row || {Name, _, _, _} = Row <- Rows, Name =:= C]).

component_info(Planned, Rows) ->
    #{
        size_mib => lists:max([Size || {_, Size, _, _} <- Rows]),
        on_disk => [N || {_, _, N, _} <- Rows],
        ready => [N || {_, _, N, ready} <- Rows],
        loading => [N || {_, _, N, State} <- Rows, State =:= loading orelse State =:= restarting],
        planned => Planned
    }.

%% @doc Who should hold what, as this node sees it.
-spec plan() -> baguette_cluster_placement:plan().
plan() ->
    baguette_cluster_holdings:plan().

%% @doc Why holders/1 is empty: what somebody who waits for it can be told.
-spec why_missing(component()) -> missing().
why_missing(Component) ->
    #{agreed := Agreed} = baguette_cluster_holdings:overview(),
    case components() of
        #{Component := #{loading := [_ | _] = Nodes}} -> {loading, Nodes};
        #{Component := #{planned := [_ | _]}} when not Agreed -> not_settled;
        #{Component := #{planned := [_ | _] = Nodes}} -> {planned, Nodes};
        #{Component := #{on_disk := Nodes}} -> unplaced(Component, Nodes);
        _ -> nobody_has_it_on_disk
    end.

unplaced(Component, Nodes) ->
    Failed = [
        baguette_cluster_report:node(R)
     || {R, _} <- baguette_cluster_table:reports(),
        baguette_cluster_report:state(Component, R) =:= failed
    ],
    case Nodes -- Failed of
        [] -> {failed, lists:sort(Failed)};
        _ -> no_memory
    end.

%% @doc The caller gets {baguette_cluster, Event} for every event() until it ends.
-spec watch() -> ok.
watch() ->
    baguette_cluster_gossip:watch(self()).

%% @doc How it goes with a component this node was told to hold. `failed`: it could not be loaded;
%% it is tried again, and after three times in a minute planned elsewhere. `restarting`: its worker
%% died and comes back; say `failed` when it does not. Ignored for what this node does not hold.
-spec component_state(component(), baguette_cluster_component:state()) -> ok.
component_state(Component, State) when
    is_binary(Component) andalso
        (State =:= loading orelse State =:= ready orelse State =:= restarting orelse
            State =:= failed orelse State =:= idle)
->
    baguette_cluster_holdings:component_state(Component, State).

%% @doc Puts a small fact into this node's report, under extra. `call_us`, a whole number of
%% microseconds, is read by this room too: it orders holders/1.
-spec publish(atom(), term()) -> ok | {error, {fact_too_large | too_many_facts, map()}}.
publish(Key, Value) ->
    baguette_cluster_gossip:publish(Key, Value).

-spec overview() -> map().
overview() ->
    (baguette_cluster_holdings:overview())#{
        node => node(),
        members => [maps:with([node, link, rtt_us, age_ms], Info) || Info <- ?MODULE:nodes()],
        known => baguette_cluster_discovery:known(),
        components => components(),
        health => health()
    }.

%% @doc ok, or everything that is not as it should be.
-spec health() -> ok | {degraded, [{Name :: atom(), Fact :: term()}]}.
health() ->
    Infos = ?MODULE:nodes(),
    Members = [N || #{node := N} <- Infos],
    Missing = [C || {C, #{ready := []}} <- lists:sort(maps:to_list(components()))],
    #{inventory := Inventory} = baguette_cluster_holdings:overview(),
    Facts = [
        {peers_never_met, baguette_cluster_discovery:known() -- Members},
        {links_down, [N || #{node := N, link := down} <- Infos]},
        {suspects, [N || #{node := N, link := suspect} <- Infos]},
        {components_without_holder, Missing},
        {discovery, [Error || {error, _} = Error <- [baguette_cluster_discovery:last_error()]]},
        {inventory, [Error || {error, _} = Error <- [Inventory]]}
    ],
    case [Fact || {_, Found} = Fact <- Facts, Found =/= []] of
        [] -> ok;
        Degraded -> {degraded, Degraded}
    end.
