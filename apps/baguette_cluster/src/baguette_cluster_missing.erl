%% @doc Why nobody can be asked for a component, for somebody who waits for it: pure, called by the
%% door with what the tables say. The first that is true of: it is being loaded, it is ready where
%% we have no way to, it is planned, it cannot be held.
-module(baguette_cluster_missing).

-export([why/2, ways/2]).
-export_type([why/0, view/0]).

-type component() :: baguette_cluster_component:component().
-type why() ::
    %% About how long loading takes, by what its nodes measured of themselves: the least of them.
    {loading, [node()], AboutMs :: non_neg_integer() | unknown}
    | {unreachable, [node()]}       % ready there, and no link from here, or only silence over it
    | {planned, [node()]}
    | {failed, [node()]}            % all who have it tried, and could not load it
    | nobody_has_it_on_disk
    | no_memory
    | not_settled.                  % the nodes do not agree yet who is to hold it
-type view() :: #{
    self := node(),
    reports := [baguette_cluster_report:report()],
    links := #{node() => baguette_cluster_membership:link()},
    plan => baguette_cluster_placement:plan(),
    agreed => boolean()
}.

-spec why(component(), view()) -> why().
why(Component, #{reports := Reports, plan := Plan, agreed := Agreed} = View) ->
    On = [{R, baguette_cluster_report:state(Component, R)} || R <- Reports, has(Component, R)],
    Loading = [R || {R, State} <- On, State =:= loading orelse State =:= restarting],
    case {Loading, beyond(Component, View), maps:get(Component, Plan, [])} of
        {[_ | _], _, _} -> {loading, nodes_of(Loading), about_ms(Component, Loading)};
        {[], [_ | _] = Beyond, _} -> {unreachable, nodes_of(Beyond)};
        {[], [], [_ | _]} when not Agreed -> not_settled;
        {[], [], [_ | _] = Planned} -> {planned, Planned};
        {[], [], []} -> unplaced(On)
    end.

%% @doc Who has it ready and cannot be asked from here, and those who can be asked, the nearest
%% first: one of them may have a link to it.
-spec ways(component(), view()) -> [#{node := node(), key := binary(), via := [node()]}].
ways(Component, #{reports := Reports, links := Links} = View) ->
    Via = [
        {Us, Node}
     || R <- Reports, not baguette_cluster_report:leaving(R),
        Node <- [baguette_cluster_report:node(R)],
        #{state := up, rtt_us := Us} <- [maps:get(Node, Links, down)]
    ],
    Nearest = [Node || {_, Node} <- lists:sort(Via)],
    [
        #{node => baguette_cluster_report:node(R), key => Key, via => Nearest}
     || R <- beyond(Component, View),
        #{component := C, key := Key} <- baguette_cluster_report:items(R), C =:= Component
    ].

beyond(Component, #{self := Self, reports := Reports, links := Links}) ->
    [
        R
     || R <- Reports,
        baguette_cluster_report:state(Component, R) =:= ready,
        not baguette_cluster_report:leaving(R),
        not is_reached(baguette_cluster_report:node(R), Self, Links)
    ].

is_reached(Self, Self, _Links) -> true;
is_reached(Node, _Self, Links) -> maps:get(state, maps:get(Node, Links, #{}), down) =:= up.

unplaced([]) ->
    nobody_has_it_on_disk;
unplaced(On) ->
    case [R || {R, State} <- On, State =/= failed] of
        [] -> {failed, nodes_of([R || {R, _} <- On])};
        _ -> no_memory
    end.

has(Component, Report) ->
    sizes(Component, Report) =/= [].

sizes(Component, Report) ->
    [Mib || #{component := C, size_mib := Mib} <- baguette_cluster_report:items(Report),
        C =:= Component].

about_ms(Component, Reports) ->
    %% unknown is an atom, and so above every number.
    lists:min([load_ms(Component, R) || R <- Reports]).

load_ms(Component, Report) ->
    case baguette_cluster_report:measured_load_us(Report) of
        {ok, UsPerMib} -> UsPerMib * lists:max(sizes(Component, Report)) div 1000;
        unknown -> unknown
    end.

nodes_of(Reports) ->
    lists:sort([baguette_cluster_report:node(R) || R <- Reports]).
