%% @doc The plan: cases worth reading, and the properties.
-module(baguette_cluster_placement_tests).

-include_lib("eunit/include/eunit.hrl").

-import(baguette_cluster_fleet, [host/1, component/1, report/2, apply_plan/2]).
-import(baguette_cluster_placement, [plan/1, line/2, hash/1, expected_us/2]).

properties_test_() ->
    Options = [{numtests, 300}, {on_output, fun(_, _) -> ok end}],
    [
        {atom_to_list(P), {timeout, 120,
            ?_assert(proper:quickcheck(prop_baguette_cluster_placement:P(), Options))}}
     || {P, 0} <- prop_baguette_cluster_placement:module_info(exports),
        lists:prefix("prop_", atom_to_list(P))
    ].

fleet(Nodes, Parts) -> [report(N, full(Parts)) || N <- Nodes].

full(Parts) -> #{disk => [{C, 2} || C <- lists:seq(1, Parts)]}.

nobody_no_plan_test() ->
    ?assertEqual(#{}, plan([])).

one_node_holds_everything_test() ->
    Plan = plan(fleet([1], 5)),
    ?assertEqual([component(C) || C <- lists:seq(1, 5)], line(host(1), Plan)).

watchers_hold_nothing_test() ->
    Plan = plan([report(9, #{}) | fleet([1], 2)]),
    ?assertEqual([], line(host(9), Plan)).

spare_nodes_become_replicas_of_different_components_test() ->
    Plan = plan(fleet([1, 2, 3, 4, 5], 3)),
    ?assertEqual([1, 2, 2], lists:sort([length(Ns) || Ns <- maps:values(Plan)])).

a_far_faster_node_serves_everything_and_the_slow_one_holds_a_replica_test() ->
    Slow = report(1, (full(8))#{call_us => 90000}),
    Fast = report(2, (full(8))#{call_us => 900}),
    Plan = plan([Slow, Fast]),
    ?assertEqual(8, length(line(host(2), Plan))),
    ?assertEqual(1, length(line(host(1), Plan))).

a_fast_node_that_joins_takes_over_what_pays_for_loading_test() ->
    Slow = apply_plan(plan(slow([1, 2])), slow([1, 2])),
    Fast = report(3, (full(8))#{call_us => 900}),
    ?assertEqual(8, length(line(host(3), plan([Fast | Slow])))),
    %% 2 MiB each: at 200 s for one, they would take longer than they save in ten minutes.
    Hard = report(3, (full(8))#{call_us => 900, load_us_per_mib => 100000000}),
    ?assertEqual(1, length(line(host(3), plan([Hard | Slow])))).

slow(Nodes) -> [report(N, (full(8))#{call_us => 90000}) || N <- Nodes].

a_second_equal_node_shares_the_work_of_one_that_holds_all_test() ->
    [Alone] = apply_plan(plan(fleet([1], 8)), fleet([1], 8)),
    Both = [Alone, report(2, full(8))],
    {0, Us} = expected_us(plan(Both), Both),
    ?assertEqual({0, 896}, {0, Us}),
    ?assertEqual(8, length(line(host(1), plan(Both)))).

a_node_far_away_counts_as_slow_test() ->
    Far = report(1, (full(4))#{distance_us => 65536}),
    Plan = plan([Far | fleet([2, 3, 4, 5], 4)]),
    Served = [N || [N] <- maps:values(Plan)],
    ?assertNot(lists:member(host(1), Served)),
    ?assertEqual(1, length(line(host(1), Plan))).

who_has_not_measured_itself_is_no_faster_than_who_has_test() ->
    Known = [report(N, (full(2))#{call_us => 900000}) || N <- [1, 2]],
    Rest = apply_plan(plan(Known), Known),
    ?assertEqual(1, length(line(host(3), plan([report(3, full(2)) | Rest])))).

what_is_used_most_gets_the_replica_test() ->
    Usage = #{usage => #{1 => 100, 2 => 100, 3 => 800}},
    Fleet = [report(1, maps:merge(full(3), Usage)) | fleet([2, 3, 4], 3)],
    ?assertMatch([_, _], maps:get(component(3), plan(Fleet))).

who_drains_gets_nothing_test() ->
    Held = apply_plan(plan(fleet([1, 2], 2)), fleet([1, 2], 2)),
    [One, Two] = Held,
    Drains = baguette_cluster_report:set(extra, #{leaving => true}, One),
    Plan = plan([Drains, Two]),
    ?assertEqual([], line(host(1), Plan)),
    ?assertEqual(2, length(line(host(2), Plan))),
    ?assertEqual(#{component(1) => [], component(2) => []}, plan([Drains])).

idle_peers_of_a_node_that_holds_all_become_replicas_test() ->
    [Alone] = apply_plan(plan(fleet([1], 4)), fleet([1], 4)),
    Plan = plan([Alone | fleet([2, 3, 4], 4)]),
    ?assertEqual(4, length(line(host(1), Plan))),
    ?assertEqual([1, 1, 1], [length(line(host(N), Plan)) || N <- [2, 3, 4]]),
    ?assertEqual([1, 2, 2, 2], lists:sort([length(Ns) || Ns <- maps:values(Plan)])).

what_failed_here_is_planned_elsewhere_test() ->
    Broken = report(1, (full(2))#{states => #{1 => failed}}),
    Plan = plan([Broken | fleet([2], 2)]),
    ?assertEqual([host(2)], maps:get(component(1), Plan)).

nobody_can_hold_it_is_an_empty_list_test() ->
    ?assertEqual(#{component(1) => []}, plan([report(1, #{room => 1, disk => [{1, 2}]})])).

a_held_component_makes_way_only_for_cover_test() ->
    %% 1 holds part 1 and has no room for part 2, which only it has on disk; 2 can take part 1.
    Full = report(1, #{room => 2, disk => [{1, 2}, {2, 2}], states => #{1 => ready}}),
    Idle = report(2, #{room => 2, disk => [{1, 2}]}),
    ?assertEqual(#{component(1) => [host(2)], component(2) => [host(1)]}, plan([Full, Idle])).

the_hash_tells_plans_apart_test() ->
    ?assertEqual(hash(plan(fleet([1, 2], 2))), hash(plan(fleet([2, 1], 2)))),
    ?assertNotEqual(hash(plan(fleet([1, 2], 2))), hash(plan(fleet([1], 2)))).

sixty_four_nodes_are_planned_quickly_test() ->
    Fleet = fleet(lists:seq(1, 64), 16),
    {Us, Plan} = timer:tc(fun() -> plan(Fleet) end),
    ?assertEqual([4], lists:usort([length(Ns) || Ns <- maps:values(Plan)])),
    ?assert(Us < 1000000).
