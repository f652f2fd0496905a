%% @doc The door of the room "who is there, how fast, and who holds which component". The other
%% rooms call this module and no other of this application. Everything that looks is a table read
%% and never waits for a process. Knows components by name, size and key; never what they are.
-module(baguette_cluster).

%% Looking
-export([nodes/0, holders/1, holders/2, components/0, plan/0, expected_step_us/0]).
-export([why_missing/1, beyond/1, member/1]).
-export([unreached/0, overview/0, health/0]).
-export([addresses/0, links/0, whois/1]).
%% Looking without the application: for a doctor
-export([tailnet/1]).
%% Following
-export([watch/0]).
%% Telling: for the application that holds the components
-export([component_state/2, publish/2, busy/1]).
%% Leaving
-export([drain/0]).
-export_type([event/0, node_info/0, component_info/0, missing/0, unreached/0]).

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
    leaving := boolean(),           % it says that it is about to go: it is asked no more
    name := binary(),               % what the finder calls the machine, or <<>>
    rtt_us := non_neg_integer(),    % 0 = not measured yet, or ourselves
    mbit := non_neg_integer(),      % from here to there, Mbit/s; 0 likewise
    path := direct | relayed | unknown,
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
-type unreached() :: #{
    node := node(),
    why := baguette_cluster_connector:why(),
    since_ms := non_neg_integer(),  % so long it has been for this reason
    name := binary()
}.
-type missing() :: baguette_cluster_missing:why().

%% @doc Every member, ourselves first.
-spec nodes() -> [node_info()].
nodes() ->
    Now = erlang:monotonic_time(millisecond),
    Links = baguette_cluster_table:links(),
    Names = baguette_cluster_discovery:facts(),
    [node_info(R, At, Now, Links, Names) || {R, At} <- baguette_cluster_table:reports()].

node_info(Report, At, Now, Links, Names) ->
    Node = baguette_cluster_report:node(Report),
    {Incarnation, _} = baguette_cluster_report:identity(Report),
    Link = maps:get(Node, Links, #{}),
    #{
        node => Node,
        self => At =:= self,
        link => link(Node, At, Links),
        gone => false,
        leaving => baguette_cluster_report:leaving(Report),
        name => name(Node, Names),
        incarnation => Incarnation,
        rtt_us => maps:get(rtt_us, Link, 0),
        mbit => maps:get(mbit, Link, 0),
        path => maps:get(path, Link, unknown),
        age_ms => age(At, Now),
        report => baguette_cluster_report:to_map(Report)
    }.

name(Node, Names) ->
    maps:get(name, maps:get(Node, Names, #{}), <<>>).

link(_Node, self, _Links) -> up;
link(Node, _At, Links) -> maps:get(state, maps:get(Node, Links, #{}), down).

age(self, _Now) -> 0;
age(At, Now) -> max(0, Now - At).

%% @doc Whom to ask for a component, best first; ourselves included when we hold it.
-spec holders(component()) -> [baguette_cluster_holders:holder()].
holders(Component) ->
    baguette_cluster_table:holders(Component).

%% @doc The same for somebody who has calls in flight already: each waits for those before it at its
%% node, so `expected_us' counts them.
-spec holders(component(), InFlight :: #{node() => non_neg_integer()}) ->
    [baguette_cluster_holders:holder()].
holders(Component, InFlight) ->
    Holders = baguette_cluster_table:holders(Component),
    baguette_cluster_holders:in_order(node(), Component, Holders, InFlight).

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

%% @doc How long a step is expected to take as things are planned: what placement makes small.
-spec expected_step_us() -> non_neg_integer().
expected_step_us() ->
    Reports = [R || {R, _} <- baguette_cluster_table:reports()],
    {_Uncovered, Us} = baguette_cluster_placement:expected_us(plan(), Reports),
    Us.

%% @doc Why holders/1 is empty: what somebody who waits for it can be told.
-spec why_missing(component()) -> missing().
why_missing(Component) ->
    #{agreed := Agreed} = baguette_cluster_holdings:overview(),
    Reports = [R || {R, _} <- baguette_cluster_table:reports()],
    Links = baguette_cluster_table:links(),
    baguette_cluster_missing:why(Component, #{
        self => node(),
        reports => Reports,
        links => Links,
        plan => plan(),
        agreed => Agreed
    }).

%% @doc Who has a component ready but cannot be asked from here, and by way of whom it may be: the
%% nearest first. Whether such a node has a link to the holder is known to itself only.
-spec beyond(component()) -> [#{node := node(), key := binary(), via := [node()]}].
beyond(Component) ->
    Reports = [R || {R, _} <- baguette_cluster_table:reports()],
    Links = baguette_cluster_table:links(),
    baguette_cluster_missing:ways(Component, #{self => node(), reports => Reports, links => Links}).

%% @doc The node that a member of this name is, whether it is there or not. For names that come back
%% from a file: the only way in which one becomes a node's.
-spec member(Name :: binary()) -> {ok, node()} | {error, bad_address | atom_table_nearly_full}.
member(Name) ->
    baguette_cluster_node_name:from_name(Name).

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

%% @doc Puts a small fact into this node's report, under extra. Two are read by this room too and
%% order holders/1: `call_us`, a whole number of microseconds, and `queue`, how many calls wait.
-spec publish(atom(), term()) -> ok | {error, {fact_too_large | too_many_facts, map()}}.
publish(Key, Value) ->
    baguette_cluster_gossip:publish(Key, Value).

%% @doc What this node's links are in use for: nothing, answering others, or work of its own that
%% waits for them. Throughput is measured only when it is nothing; while own work waits everybody is
%% asked for a word on every beat. Said by one process, again and again.
-spec busy(none | answering | asking) -> ok.
busy(With) when With =:= none; With =:= answering; With =:= asking ->
    ok = baguette_cluster_gossip:asking(With =:= asking),
    baguette_cluster_throughput:busy(With =/= none).

%% @doc Says in our report that we are leaving, so that nobody asks us any more; back when every
%% peer that can be asked has taken note, or after two seconds.
-spec drain() -> ok.
drain() ->
    ok = baguette_cluster_gossip:drain(),
    %% From here on the plan does not count on us.
    baguette_cluster_holdings:replan().

%% @doc Peers we want a link to and have tried in vain.
-spec unreached() -> [unreached()].
unreached() ->
    Now = erlang:monotonic_time(millisecond),
    Names = baguette_cluster_discovery:facts(),
    [
        #{node => Node, why => Why, since_ms => max(0, Now - Since), name => name(Node, Names)}
     || {Node, Why, Since} <- baguette_cluster_connector:unreached()
    ].

%% @doc Where this cluster's nodes are, those that were found and are dead now included.
-spec addresses() -> [string()].
addresses() ->
    Members = [baguette_cluster_report:node(R) || {R, _} <- baguette_cluster_table:reports()],
    Nodes = lists:usort(Members ++ baguette_cluster_discovery:known()),
    [A || Node <- Nodes, {ok, A} <- [baguette_cluster_node_name:to_address(Node)]].

%% @doc Every node's links as that node sees them; asks all peers, and waits for
%% the far ones no longer than a few of their round trips.
-spec links() -> [baguette_cluster_links:row()].
links() ->
    baguette_cluster_links:all().

%% @doc The login name of the tailnet user whose machine has this address; a tagged machine is
%% nobody's.
-spec whois(inet:ip4_address()) ->
    {ok, binary()} | {error, nobody | baguette_cluster_discovery_tailscale:reason()}.
whois(Address) ->
    Env = application:get_all_env(baguette_cluster),
    {ok, Settings} = baguette_cluster_settings:check(Env, node()),
    baguette_cluster_discovery_tailscale:whois(inet:ntoa(Address), Settings).

%% @doc The tailnet as this machine sees it, whether the application runs or not, with the addresses
%% that discovery would name. Settings given here come before the defaults.
-spec tailnet(#{atom() => term()} | none) ->
    {ok, Status :: map(), Selected :: [string()]}
    | {error, baguette_cluster_discovery_tailscale:reason() | baguette_cluster_settings:bad()}.
tailnet(none) ->
    tailnet(#{});
tailnet(Given) ->
    case baguette_cluster_settings:check(maps:to_list(Given), node()) of
        {ok, Settings} -> tailnet_with(Settings);
        {error, _} = Error -> Error
    end.

tailnet_with(Settings) ->
    case baguette_cluster_discovery_tailscale:status(Settings) of
        {ok, Status} ->
            #{self := Self} = Status,
            Marked = baguette_cluster_discovery_tailscale:selected(Status, Settings),
            OwnMark = baguette_cluster_discovery_tailscale:selected(#{peers => [Self]}, Settings),
            {ok, Status#{marked => OwnMark =/= []}, [A || #{address := A} <- Marked]};
        {error, _} = Error ->
            Error
    end.

-spec overview() -> map().
overview() ->
    (baguette_cluster_holdings:overview())#{
        node => node(),
        members => [
            maps:with([node, name, link, leaving, rtt_us, mbit, path, age_ms], Info)
         || Info <- ?MODULE:nodes()
        ],
        known => baguette_cluster_discovery:known(),
        unreached => unreached(),
        gossip => baguette_cluster_table:counted(erlang:monotonic_time(millisecond)),
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
    Facts = absent(baguette_cluster_discovery:known() -- Members) ++ [
        {unreached, [{N, Why} || #{node := N, why := Why} <- unreached()]},
        {leaving, [N || #{node := N, leaving := true} <- Infos]},
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

%% Those that discovery names and that are no members: who was one has a floor.
absent(Nodes) ->
    Were = maps:from_list(baguette_cluster_table:floors()),
    How = fun
        (N) when not is_map_key(N, Were) -> peers_never_met;
        (N) -> case Were of #{N := {_, gone}} -> peers_left; _ -> peers_gone end
    end,
    ByHow = maps:groups_from_list(How, Nodes),
    [{Name, maps:get(Name, ByHow, [])} || Name <- [peers_never_met, peers_gone, peers_left]].
