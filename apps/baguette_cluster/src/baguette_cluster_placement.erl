%% @doc Who should hold which component: a pure function of the set of reports, the same on every
%% node that has the same reports, whatever order they came in. docs/internals/placement.md says
%% what holds and why. Integers only, no clock, no dice, no number of components in sight.
%% Called by baguette_cluster_holdings; acting on the plan is that module's business.
%%
%% A plan is made in four steps:
%%   keep      every component somebody holds gets one of its holders as its primary
%%   cover     every other component gets a primary, on the node with fewest, moving nothing held;
%%             only what cannot be covered so may move a held one
%%   remember  whatever else is held stays, as a replica, where memory allows
%%   spread    a node left with nothing takes a replica of what needs one most
-module(baguette_cluster_placement).

-export([plan/1, plan/2, hash/1, line/2]).
-export_type([plan/0, options/0]).

-type component() :: baguette_cluster_component:component().
-type plan() :: #{component() => [node()]}. % sorted; [] = nobody can hold it
%% How often each component is asked, per mille of the average: who deserves a replica first.
-type options() :: #{usage => #{component() => non_neg_integer()}}.

-record(place, {
    room :: non_neg_integer(),                          % MiB for components
    disk :: #{component() => pos_integer()},            % what it could hold, and how large
    held :: ordsets:ordset(component()),
    speed :: non_neg_integer()                          % class of call time, 0 = fastest
}).
-type places() :: #{node() => #place{}}.
-type primaries() :: #{component() => node()}.
%% Where a component may go, and how many primaries a node may have.
-type rules() :: {fun((component()) -> [node()]), Cap :: pos_integer(), places()}.

-spec plan([baguette_cluster_report:report()]) -> plan().
plan(Reports) ->
    plan(Reports, #{}).

-spec plan([baguette_cluster_report:report()], options()) -> plan().
plan(Reports, Options) ->
    Places = maps:from_list([{baguette_cluster_report:node(R), place(R)} || R <- Reports]),
    Components = lists:usort(lists:append([maps:keys(P#place.disk) || P <- maps:values(Places)])),
    at_rest(Components, Places, Options, length(Components) + 2).

%% @doc A number two nodes compare to know that they plan the same; never 0, which says "none yet".
-spec hash(plan()) -> non_neg_integer().
hash(Plan) ->
    1 + erlang:phash2(lists:sort(maps:to_list(Plan)), 1 bsl 32).

%% @doc What the plan gives to one node.
-spec line(node(), plan()) -> [component()].
line(Node, Plan) ->
    lists:sort([C || {C, Nodes} <- maps:to_list(Plan), lists:member(Node, Nodes)]).

place(Report) ->
    Disk = maps:from_list([
        {C, Size}
     || #{component := C, size_mib := Size} <- baguette_cluster_report:items(Report),
        baguette_cluster_report:state(C, Report) =/= failed
    ]),
    #place{
        room = baguette_cluster_report:memory_mib(Report),
        disk = Disk,
        held = ordsets:from_list(baguette_cluster_report:held(Report)),
        %% A class, not the number: a measurement that trembles must not change the plan.
        speed = length(integer_to_list(baguette_cluster_report:call_us(Report), 2))
    }.

%% Planning again after a plan is carried out must give the same plan. With components of one size
%% that is so by construction; with mixed sizes the search for cover is not exhaustive and may find
%% more from its own result. So the plan that is returned is one that plans itself.
at_rest(Components, Places, Options, Tries) ->
    Plan = once(Components, Places, Options),
    After = maps:map(fun(Node, P) -> P#place{held = line(Node, Plan)} end, Places),
    case Tries =:= 0 orelse once(Components, After, Options) =:= Plan of
        true -> Plan;
        false -> at_rest(Components, After, Options, Tries - 1)
    end.

once(Components, Places, Options) ->
    Most = length(Components),
    {Kept, _} = by_levels(rarest_first(Components, Places), fun(C) -> holders(C, Places) end,
        1, Most, Places, #{}),
    Soft = fun(C) -> pinned(C, maps:is_key(C, Kept), Places) end,
    {Covered, Left} = by_levels(Components -- maps:keys(Kept), Soft, 1, Most, Places, Kept),
    Hard = fun(C) -> on_disk(C, Places) end,
    {Primaries, _} = by_levels(Left, Hard, Most, Most, Places, Covered),
    spread(remember(to_plan(Components, Primaries), Places), Places, Options).

rarest_first(Components, Places) ->
    Counted = [{length(holders(C, Places)), C} || C <- Components],
    [C || {N, C} <- lists:sort(Counted), N > 0].

pinned(C, true, Places) -> holders(C, Places);
pinned(C, false, Places) -> on_disk(C, Places).

holders(C, Places) ->
    [N || N <- on_disk(C, Places), ordsets:is_element(C, (maps:get(N, Places))#place.held)].

on_disk(C, Places) ->
    [N || {N, #place{disk = Disk}} <- lists:sort(maps:to_list(Places)), is_map_key(C, Disk)].

to_plan(Components, Primaries) ->
    maps:from_list([{C, [N || {ok, N} <- [maps:find(C, Primaries)]]} || C <- Components]).

%% Keep and cover ------------------------------------------------------------------------------

%% First nobody may have more than one primary, then two, and so on: the largest number any node
%% gets is the smallest possible, and one each where there are nodes enough.
-spec by_levels([component()], fun((component()) -> [node()]), pos_integer(), non_neg_integer(),
    places(), primaries()) -> {primaries(), Left :: [component()]}.
by_levels([], _Edges, _Level, _Most, _Places, Primaries) ->
    {Primaries, []};
by_levels(Left, _Edges, Level, Most, _Places, Primaries) when Level > Most ->
    {Primaries, Left};
by_levels(Components, Edges, Level, Most, Places, Primaries) ->
    {Now, Left} = lists:foldl(
        fun(C, {Sofar, Missed}) ->
            case augment(C, {Edges, Level, Places}, Sofar, []) of
                {ok, Next} -> {Next, Missed};
                {no, _Seen} -> {Sofar, [C | Missed]}
            end
        end, {Primaries, []}, Components),
    by_levels(lists:reverse(Left), Edges, Level + 1, Most, Places, Now).

%% Finds a node for C: one with room, or one whose primary can go elsewhere in turn (an augmenting
%% path; exact when all components are of one size).
-spec augment(component(), rules(), primaries(), [node()]) -> {ok, primaries()} | {no, [node()]}.
augment(C, {Edges, _, _} = Rules, Primaries, Seen) ->
    Nodes = Edges(C) -- Seen,
    case [N || N <- Nodes, fits(C, N, Rules, Primaries)] of
        [] -> displace(C, Nodes, Rules, Primaries, Seen);
        Roomy -> {ok, Primaries#{C => best(Roomy, Rules, Primaries)}}
    end.

displace(_C, [], _Rules, _Primaries, Seen) ->
    {no, Seen};
displace(C, [Node | Rest], Rules, Primaries, Seen) ->
    case lists:member(Node, Seen) of
        true ->
            displace(C, Rest, Rules, Primaries, Seen);
        false ->
            Others = lists:sort(maps:keys(maps:filter(fun(_, N) -> N =:= Node end, Primaries))),
            case give_way(C, Node, Others, Rules, Primaries, [Node | Seen]) of
                {ok, Next} -> {ok, Next};
                {no, Wider} -> displace(C, Rest, Rules, Primaries, Wider)
            end
    end.

give_way(_C, _Node, [], _Rules, _Primaries, Seen) ->
    {no, Seen};
give_way(C, Node, [Other | Rest], Rules, Primaries, Seen) ->
    Without = maps:remove(Other, Primaries),
    case fits(C, Node, Rules, Without) of
        true ->
            case augment(Other, Rules, Without#{C => Node}, Seen) of
                {ok, Next} -> {ok, Next};
                {no, Wider} -> give_way(C, Node, Rest, Rules, Primaries, Wider)
            end;
        false ->
            give_way(C, Node, Rest, Rules, Primaries, Seen)
    end.

fits(C, Node, {_, Cap, Places}, Primaries) ->
    Mine = [D || {D, N} <- maps:to_list(Primaries), N =:= Node],
    length(Mine) < Cap andalso has_room([C | Mine], maps:get(Node, Places)).

best(Nodes, {_, _, Places}, Primaries) ->
    Count = fun(Node) -> length([N || N <- maps:values(Primaries), N =:= Node]) end,
    Ranked = [
        {Count(N), ordsets:size(Held), Speed, N}
     || N <- Nodes, #place{held = Held, speed = Speed} <- [maps:get(N, Places)]
    ],
    element(4, lists:min(Ranked)).

has_room(Components, #place{room = Room, disk = Disk}) ->
    lists:sum([maps:get(C, Disk) || C <- Components]) =< Room.

%% Remember and spread -------------------------------------------------------------------------

remember(Plan, Places) ->
    Held = [{C, N} || C <- maps:keys(Plan), N <- holders(C, Places), not planned(N, C, Plan)],
    Ranked = [{length(maps:get(C, Plan)), C, N} || {C, N} <- Held],
    Add = fun({_, C, N}, Sofar) -> add_if_room(C, N, Sofar, Places) end,
    lists:foldl(Add, Plan, lists:sort(Ranked)).

add_if_room(C, Node, Plan, Places) ->
    case has_room([C | line(Node, Plan)], maps:get(Node, Places)) of
        true -> maps:update_with(C, fun(Nodes) -> lists:sort([Node | Nodes]) end, Plan);
        false -> Plan
    end.

planned(Node, C, Plan) ->
    lists:member(Node, maps:get(C, Plan)).

spread(Plan, Places, Options) ->
    Idle = [{P#place.speed, N} || {N, P} <- maps:to_list(Places), line(N, Plan) =:= []],
    Relieve = fun({_, Node}, Sofar) -> relieve(Node, Sofar, Places, Options) end,
    lists:foldl(Relieve, Plan, lists:sort(Idle)).

%% Fewest holders for its use first; among those, the one whose holders are busiest with others.
relieve(Node, Plan, Places, Options) ->
    #place{disk = Disk} = Place = maps:get(Node, Places),
    Usage = maps:get(usage, Options, #{}),
    Ranked = [
        {length(Nodes) * 1000000 div max(1, maps:get(C, Usage, 1000)), -least_load(Nodes, Plan), C}
     || {C, Nodes} <- maps:to_list(maps:with(maps:keys(Disk), Plan)), Nodes =/= [],
        has_room([C], Place)
    ],
    case lists:sort(Ranked) of
        [] -> Plan;
        [{_, _, C} | _] -> add_if_room(C, Node, Plan, Places)
    end.

least_load(Nodes, Plan) ->
    lists:min([length(line(N, Plan)) || N <- Nodes]).
