%% @doc Properties of the plan over random fleets. Run by baguette_cluster_placement_tests.
-module(prop_baguette_cluster_placement).

-include_lib("proper/include/proper.hrl").

-export([
    prop_order_does_not_matter/0,
    prop_carried_out_it_plans_itself/0,
    prop_never_over_memory_and_only_from_disk/0,
    prop_covers_what_can_be_covered/0,
    prop_one_each_when_nodes_are_enough/0,
    prop_balanced_and_never_worse_than_greedy/0,
    prop_nobody_moves_without_need/0,
    prop_a_join_loads_one_at_most/0,
    prop_a_leave_loads_only_what_was_lost/0,
    prop_no_node_idles_that_could_help/0
]).

-import(baguette_cluster_fleet, [report/2, apply_plan/2]).
-import(baguette_cluster_placement, [plan/1, line/2]).

%% Fleets ---------------------------------------------------------------------------------------

-define(MAX_NODES, 10).
-define(MAX_PARTS, 9).

%% Anything: any disk, any memory, any size, any state of things.
any_fleet() ->
    ?LET({Nodes, Sizes}, {range(1, ?MAX_NODES), non_empty_sizes(range(1, 5))},
        [wild_report(N, Sizes) || N <- lists:seq(1, Nodes)]).

%% One size of component, as in one family of experts; disk and memory still anything.
one_size_fleet() ->
    ?LET({Nodes, Parts}, {range(1, ?MAX_NODES), range(1, ?MAX_PARTS)},
        [wild_report(N, [2 || _ <- lists:seq(1, Parts)]) || N <- lists:seq(1, Nodes)]).

%% Everybody has everything and room for it, nobody holds anything.
fresh_fleet() ->
    ?LET({Nodes, Parts}, {range(1, ?MAX_NODES), range(1, ?MAX_PARTS)},
        [tame_report(N, Parts) || N <- lists:seq(1, Nodes)]).

non_empty_sizes(Size) ->
    ?LET(Parts, range(1, ?MAX_PARTS), vector(Parts, Size)).

wild_report(N, Sizes) ->
    Numbered = lists:zip(lists:seq(1, length(Sizes)), Sizes),
    ?LET({Room, Disk, Speed}, {range(0, 12), sublist(Numbered), call_us()},
        ?LET(States, [{C, state()} || {C, _} <- Disk], begin
            Facts = #{room => Room, disk => Disk, call_us => Speed},
            report(N, Facts#{states => maps:from_list(States)})
        end)).

tame_report(N, Parts) ->
    Disk = [{C, 2} || C <- lists:seq(1, Parts)],
    ?LET(Speed, call_us(), report(N, #{disk => Disk, call_us => Speed})).

call_us() -> oneof([500, 1000, 1100, 4000, 100000]).

state() -> frequency([{5, idle}, {2, ready}, {1, loading}, {1, restarting}, {1, failed}]).

sublist(List) ->
    ?LET(Keep, [frequency([{3, true}, {1, false}]) || _ <- List],
        [X || {X, true} <- lists:zip(List, Keep)]).

shuffled(List) ->
    ?LET(Keys, [integer() || _ <- List], [X || {_, X} <- lists:sort(lists:zip(Keys, List))]).

%% Properties -----------------------------------------------------------------------------------

prop_order_does_not_matter() ->
    ?FORALL(Fleet, any_fleet(), ?FORALL(Other, shuffled(Fleet), plan(Fleet) =:= plan(Other))).

prop_carried_out_it_plans_itself() ->
    ?FORALL(Fleet, any_fleet(), begin
        Plan = plan(Fleet),
        Again = plan(apply_plan(Plan, Fleet)),
        told(Fleet, Plan, Again =:= Plan)
    end).

prop_never_over_memory_and_only_from_disk() ->
    ?FORALL(Fleet, any_fleet(), begin
        Plan = plan(Fleet),
        told(Fleet, Plan, lists:all(fun(R) -> is_bearable(R, Plan) end, Fleet))
    end).

is_bearable(Report, Plan) ->
    Sizes = maps:from_list([
        {C, S}
     || #{component := C, size_mib := S} <- baguette_cluster_report:items(Report),
        baguette_cluster_report:state(C, Report) =/= failed
    ]),
    Line = mine(Report, Plan),
    lists:all(fun(C) -> is_map_key(C, Sizes) end, Line) andalso
        lists:sum([maps:get(C, Sizes) || C <- Line]) =< baguette_cluster_report:memory_mib(Report).

%% Against brute force: the most components that any assignment gives a holder.
prop_covers_what_can_be_covered() ->
    ?FORALL(Fleet, one_size_fleet(), begin
        Plan = plan(Fleet),
        Covered = length([C || {C, [_ | _]} <- maps:to_list(Plan)]),
        told(Fleet, {Plan, most_coverable(Fleet)}, Covered =:= most_coverable(Fleet))
    end).

%% Hall's theorem with capacities, the other way round: over all sets of components, what is out
%% of reach at least is size - room of the nodes that have any of it.
most_coverable(Fleet) ->
    Places = [{usable(R), baguette_cluster_report:memory_mib(R) div 2} || R <- Fleet],
    All = lists:usort(lists:append([D || {D, _} <- Places])),
    Reach = fun(Set) ->
        lists:sum([min(Cap, length(ordsets:intersection(Set, D))) || {D, Cap} <- Places])
    end,
    Short = [length(Set) - Reach(Set) || Set <- subsets(All)],
    length(All) - lists:max([0 | Short]).

usable(R) ->
    ordsets:from_list([
        C
     || #{component := C} <- baguette_cluster_report:items(R),
        baguette_cluster_report:state(C, R) =/= failed
    ]).

subsets([]) -> [[]];
subsets([X | Rest]) -> Without = subsets(Rest), Without ++ [[X | S] || S <- Without].

prop_one_each_when_nodes_are_enough() ->
    ?FORALL(Fleet, fresh_fleet(), begin
        Plan = plan(Fleet),
        Enough = length(Fleet) >= maps:size(Plan),
        Loads = [length(mine(R, Plan)) || R <- Fleet],
        told(Fleet, Plan, not Enough orelse Loads =:= [1 || _ <- Fleet])
    end).

%% Cost: what has no holder, then the most any node holds.
prop_balanced_and_never_worse_than_greedy() ->
    ?FORALL(Fleet, one_size_fleet(), begin
        Idle = [baguette_cluster_report:set(states, #{}, R) || R <- Fleet],
        Plan = plan(Idle),
        Missed = length([C || {C, []} <- maps:to_list(Plan)]),
        Cost = {Missed, lists:max([length(mine(R, Plan)) || R <- Idle])},
        told(Idle, {Plan, Cost, greedy(Idle)}, Cost =< greedy(Idle))
    end).

greedy(Fleet) ->
    All = lists:usort(lists:append([usable(R) || R <- Fleet])),
    Start = maps:from_list([{baguette_cluster_report:node(R), []} || R <- Fleet]),
    {Lines, Missed} = lists:foldl(fun(C, Acc) -> greedy_one(C, Fleet, Acc) end, {Start, 0}, All),
    {Missed, lists:max([length(L) || L <- maps:values(Lines)])}.

greedy_one(C, Fleet, {Lines, Missed}) ->
    Can = [
        {length(Line), N}
     || R <- Fleet, N <- [baguette_cluster_report:node(R)], Line <- [maps:get(N, Lines)],
        lists:member(C, usable(R)), (length(Line) + 1) * 2 =< baguette_cluster_report:memory_mib(R)
    ],
    case lists:sort(Can) of
        [] -> {Lines, Missed + 1};
        [{_, N} | _] -> {maps:update_with(N, fun(L) -> [C | L] end, Lines), Missed}
    end.

%% When everything already has a holder and everybody has the memory, what is held stays.
prop_nobody_moves_without_need() ->
    ?FORALL(Fleet, any_fleet(), begin
        Roomy = [baguette_cluster_report:set(memory_mib, 1000, R) || R <- Fleet],
        Plan = plan(Roomy),
        Moved = [C || R <- Roomy, C <- baguette_cluster_report:held(R) -- mine(R, Plan)],
        told(Roomy, Plan, Moved =:= [])
    end).

prop_a_join_loads_one_at_most() ->
    ?FORALL({Fleet, Joiner}, {any_fleet(), newcomer()}, begin
        Before = plan(Fleet),
        Rest = apply_plan(Before, Fleet),
        After = plan([Joiner | Rest]),
        AllHeld = lists:all(fun(C) -> maps:get(C, Before, []) =/= [] end, maps:keys(After)),
        Still = [mine(R, After) || R <- Rest] =:= [mine(R, Before) || R <- Rest],
        told({Joiner, Rest}, After,
            not AllHeld orelse (Still andalso length(mine(Joiner, After)) =< 1))
    end).

newcomer() ->
    All = [{C, 2} || C <- lists:seq(1, ?MAX_PARTS)],
    ?LET({Room, Disk, Speed}, {range(0, 12), sublist(All), call_us()},
        report(200, #{room => Room, disk => Disk, call_us => Speed})).

prop_a_leave_loads_only_what_was_lost() ->
    ?FORALL({Fleet, Which}, {fresh_fleet(), range(1, ?MAX_NODES)}, begin
        Before = plan(Fleet),
        {Rest, Leaver} = parted(apply_plan(Before, Fleet), Which),
        After = plan(Rest),
        Alone = [baguette_cluster_report:node(Leaver)],
        Lost = [C || C <- mine(Leaver, Before), maps:get(C, Before) =:= Alone],
        New = lists:append([mine(R, After) -- mine(R, Before) || R <- Rest]),
        told({Leaver, Rest}, {Before, After},
            Rest =:= [] orelse lists:sort(New) =:= lists:sort(Lost))
    end).

parted(Fleet, Which) ->
    Leaver = lists:nth((Which - 1) rem length(Fleet) + 1, Fleet),
    {lists:delete(Leaver, Fleet), Leaver}.

prop_no_node_idles_that_could_help() ->
    ?FORALL(Fleet, one_size_fleet(), begin
        Plan = plan(Fleet),
        Idle = [R || R <- Fleet, mine(R, Plan) =:= []],
        Useful = [R || R <- Idle, usable(R) =/= [], baguette_cluster_report:memory_mib(R) >= 2],
        told(Fleet, Plan, Useful =:= [])
    end).

mine(Report, Plan) ->
    line(baguette_cluster_report:node(Report), Plan).

told(Fleet, Found, Holds) ->
    ?WHENFAIL(io:format(user, "fleet: ~p~nfound: ~p~n", [Fleet, Found]), Holds).
