%% @doc A plan in the making: who holds what so far, the room that is left, and how long a step is
%% expected to take with it. Pure data for baguette_cluster_placement and baguette_cluster_cover;
%% it decides nothing, and lives no longer than one call of plan/1.
-module(baguette_cluster_draft).

%% What is given
-export([fleet/1, indexed/1, places/1, components/1, held_by/2]).
%% What is made of it
-export([new/1, emptied/1, plan/1, add/3, drop/3, holders/2, line/2, nodes/1]).
%% What may be, and what it is worth
-export([fits/3, on_disk/2, disk/2, load_us/3, alone_us/2, speeds/2]).
-export([seats/1, others/2, seat_of/2, seat_with/3, total/1, least/1, weight/2]).
-export_type([fleet/0, draft/0]).

-type component() :: baguette_cluster_component:component().
-type plan() :: #{component() => [node()]}. % sorted; [] = nobody can hold it

-record(place, {
    room :: non_neg_integer(),                          % MiB for components
    disk :: #{component() => pos_integer()},            % what it could hold, and how large
    held :: [component()],
    speed :: baguette_cluster_step_time:speed(),
    load_us_per_mib :: pos_integer()
}).
-record(fleet, {
    places :: #{node() => #place{}},
    where = #{} :: #{component() => [node()]},          % whose disk it is on
    weights :: #{component() => pos_integer()}          % every component there is
}).
-record(draft, {
    fleet :: fleet(),
    speeds :: #{node() => baguette_cluster_step_time:speed()},
    plan :: plan(),
    left :: #{node() => integer()},                     % MiB
    seats = #{} :: #{component() => baguette_cluster_step_time:seat()}
}).
-opaque fleet() :: #fleet{}.
-opaque draft() :: #draft{}.

-define(AVERAGE_WEIGHT, 8).
-define(MAX_WEIGHT, 64).

%% What is given --------------------------------------------------------------------------------

%% @doc Of the reports, everything a plan depends on and nothing else: equal fleets, equal plans.
-spec fleet([baguette_cluster_report:report()]) -> fleet().
fleet(Reports) ->
    Slowest = baguette_cluster_report:slowest_us(Reports),
    Places = [{baguette_cluster_report:node(R), place(R, Slowest)} || R <- Reports],
    #fleet{places = maps:from_list(Places), weights = weights(Reports)}.

%% @doc Made ready to plan for; apart from fleet/1, which is called far more often.
-spec indexed(fleet()) -> fleet().
indexed(#fleet{places = Places} = Fleet) ->
    Pairs = [
        {C, Node}
     || {Node, #place{disk = Disk}} <- lists:sort(maps:to_list(Places)), C <- maps:keys(Disk)
    ],
    Index = fun({C, Node}, Sofar) -> Sofar#{C => [Node | maps:get(C, Sofar, [])]} end,
    Fleet#fleet{where = lists:foldr(Index, #{}, Pairs)}.

place(Report, Slowest) ->
    Leaving = baguette_cluster_report:leaving(Report),
    Disk = [
        {C, Size}
     || not Leaving, #{component := C, size_mib := Size} <- baguette_cluster_report:items(Report),
        baguette_cluster_report:state(C, Report) =/= failed
    ],
    #place{
        room = baguette_cluster_report:memory_mib(Report),
        disk = maps:from_list(Disk),
        held = [C || not Leaving, C <- lists:sort(baguette_cluster_report:held(Report))],
        speed = {
            baguette_cluster_step_time:coarse(baguette_cluster_report:call_us(Report, Slowest)),
            baguette_cluster_report:distance_us(Report)
        },
        load_us_per_mib = baguette_cluster_report:load_us_per_mib(Report)
    }.

%% How often each is asked, all nodes together, as a power of two around the average.
weights(Reports) ->
    Names = lists:usort([C || R <- Reports, #{component := C} <- baguette_cluster_report:items(R)]),
    Usages = [baguette_cluster_report:usage(R) || R <- Reports],
    Asked = [{C, lists:sum([maps:get(C, Usage, 0) || Usage <- Usages])} || C <- Names],
    Sum = lists:sum([N || {_, N} <- Asked]),
    maps:from_list([{C, weight_of(N, length(Names), Sum)} || {C, N} <- Asked]).

weight_of(_Asked, _Names, 0) -> ?AVERAGE_WEIGHT;
weight_of(Asked, Names, Sum) -> power(?AVERAGE_WEIGHT * Names * Asked div Sum, 1).

power(Ratio, Power) when Power * 2 > Ratio; Power >= ?MAX_WEIGHT -> Power;
power(Ratio, Power) -> power(Ratio, Power * 2).

%% @doc Every node with what it holds now.
-spec places(fleet()) -> [{node(), [component()]}].
places(#fleet{places = Places}) ->
    [{Node, Held} || {Node, #place{held = Held}} <- lists:sort(maps:to_list(Places))].

-spec components(fleet()) -> [component()].
components(#fleet{weights = Weights}) ->
    lists:sort(maps:keys(Weights)).

%% @doc The fleet once it holds what the plan says.
-spec held_by(plan(), fleet()) -> fleet().
held_by(Plan, #fleet{places = Places} = Fleet) ->
    Lines = lines(Plan),
    Hold = fun(Node, Place) -> Place#place{held = lists:sort(maps:get(Node, Lines, []))} end,
    Fleet#fleet{places = maps:map(Hold, Places)}.

lines(Plan) ->
    lists:foldl(
        fun({Node, C}, Sofar) -> Sofar#{Node => [C | maps:get(Node, Sofar, [])]} end, #{},
        [{Node, C} || {C, Nodes} <- maps:to_list(Plan), Node <- Nodes]).

%% What is made of it ---------------------------------------------------------------------------

%% @doc Nobody holds anything.
-spec new(fleet()) -> draft().
new(#fleet{places = Places, weights = Weights} = Fleet) ->
    #draft{
        fleet = Fleet,
        speeds = maps:map(fun(_, #place{speed = Speed}) -> Speed end, Places),
        plan = maps:map(fun(_, _) -> [] end, Weights),
        left = maps:map(fun(_, #place{room = Room}) -> Room end, Places)
    }.

%% @doc The same fleet with nothing held.
-spec emptied(draft()) -> draft().
emptied(#draft{fleet = Fleet}) -> new(Fleet).

-spec plan(draft()) -> plan().
plan(#draft{plan = Plan}) -> Plan.

-spec add(component(), node(), draft()) -> draft().
add(C, Node, #draft{plan = Plan, left = Left, seats = Seats} = D) ->
    #{Node := Mib} = Left,
    D#draft{
        plan = Plan#{C := lists:sort([Node | maps:get(C, Plan)])},
        left = Left#{Node := Mib - size_mib(C, Node, D)},
        seats = Seats#{C => seat_with(C, Node, D)}
    }.

-spec drop(component(), node(), draft()) -> draft().
drop(C, Node, #draft{plan = Plan, left = Left, seats = Seats} = D) ->
    #{Node := Mib} = Left,
    Without = D#draft{
        plan = Plan#{C := lists:delete(Node, maps:get(C, Plan))},
        left = Left#{Node := Mib + size_mib(C, Node, D)},
        seats = maps:remove(C, Seats)
    },
    case holders(C, Without) of
        [] -> Without;
        Nodes -> Without#draft{seats = Seats#{C := seat(C, Nodes, D)}}
    end.

-spec holders(component(), draft()) -> [node()].
holders(C, #draft{plan = Plan}) -> maps:get(C, Plan).

-spec line(node(), draft()) -> [component()].
line(Node, #draft{plan = Plan}) ->
    lists:sort([C || {C, Nodes} <- maps:to_list(Plan), lists:member(Node, Nodes)]).

%% @doc All nodes, the nearest and fastest first.
-spec nodes(draft()) -> [node()].
nodes(#draft{speeds = Speeds} = D) ->
    [N || {_, N} <- lists:sort([{alone_us(N, D), N} || N <- maps:keys(Speeds)])].

%% What may be, and what it is worth ------------------------------------------------------------

-spec fits(component(), node(), draft()) -> boolean().
fits(C, Node, #draft{left = Left} = D) ->
    maps:get(Node, Left) >= size_mib(C, Node, D).

%% @doc Who has it on its disk and could load it.
-spec on_disk(component(), draft()) -> [node()].
on_disk(C, #draft{fleet = #fleet{where = Where}}) -> maps:get(C, Where, []).

%% @doc What a node has on its disk and could load.
-spec disk(node(), draft()) -> [component()].
disk(Node, D) ->
    lists:sort(maps:keys((place_of(Node, D))#place.disk)).

size_mib(C, Node, D) ->
    maps:get(C, (place_of(Node, D))#place.disk).

place_of(Node, #draft{fleet = #fleet{places = Places}}) -> maps:get(Node, Places).

%% @doc How long loading it there takes.
-spec load_us(component(), node(), draft()) -> pos_integer().
load_us(C, Node, D) ->
    size_mib(C, Node, D) * (place_of(Node, D))#place.load_us_per_mib.

-spec alone_us(node(), draft()) -> pos_integer().
alone_us(Node, #draft{speeds = Speeds}) ->
    {Call, Distance} = maps:get(Node, Speeds),
    Call + Distance.

-spec speeds([node()], draft()) -> [{node(), baguette_cluster_step_time:speed()}].
speeds(Nodes, #draft{speeds = Speeds}) ->
    [{N, maps:get(N, Speeds)} || N <- Nodes].

-spec weight(component(), draft()) -> pos_integer().
weight(C, #draft{fleet = #fleet{weights = Weights}}) -> maps:get(C, Weights).

-spec seats(draft()) -> [baguette_cluster_step_time:seat()].
seats(#draft{seats = Seats}) -> maps:values(Seats).

-spec others(component(), draft()) -> [baguette_cluster_step_time:seat()].
others(C, #draft{seats = Seats}) -> maps:values(maps:remove(C, Seats)).

%% @doc The seat of something that has a holder.
-spec seat_of(component(), draft()) -> baguette_cluster_step_time:seat().
seat_of(C, #draft{seats = Seats}) -> maps:get(C, Seats).

%% @doc Its seat with this holder more.
-spec seat_with(component(), node(), draft()) -> baguette_cluster_step_time:seat().
seat_with(C, Node, #draft{seats = Seats, speeds = Speeds} = D) ->
    case Seats of
        #{C := Seat} -> baguette_cluster_step_time:joined(Seat, Node, maps:get(Node, Speeds));
        _ -> seat(C, [Node], D)
    end.

seat(C, Nodes, #draft{speeds = Speeds} = D) ->
    baguette_cluster_step_time:seat(weight(C, D), Nodes, Speeds).

%% @doc What the total cannot fall below: each component on its best node, none in another's way.
-spec least(draft()) -> non_neg_integer().
least(#draft{plan = Plan} = D) ->
    baguette_cluster_step_time:total([
        baguette_cluster_step_time:undisturbed(seat(C, on_disk(C, D), D))
     || {C, [_ | _]} <- maps:to_list(Plan)
    ]).

-spec total(draft()) -> non_neg_integer().
total(D) -> baguette_cluster_step_time:total(seats(D)).
