%% @doc What a node may do now, and what has to wait.
-module(baguette_cluster_line_tests).

-include_lib("eunit/include/eunit.hrl").

-import(baguette_cluster_fleet, [host/1, component/1, report/2]).
-import(baguette_cluster_line, [new/1, look/3, next/4, agreed/1, settled/2]).

%% Node 1 is us; the plan gives us part 1 and node 2 part 2.
plan() -> #{component(1) => [host(1)], component(2) => [host(2)]}.

hash() -> baguette_cluster_placement:hash(plan()).

view(Facts) ->
    Own = report(1, maps:merge(#{disk => [{1, 2}, {2, 2}]}, maps:get(own, Facts, #{}))),
    Other = #{disk => [{1, 2}, {2, 2}], hash => hash()},
    Others = [report(2, maps:merge(Other, maps:get(other, Facts, #{})))],
    Usual = #{
        plan => plan(), reports => [Own | Others], up => [host(2)],
        expected => [host(2), host(3)], knows_its_disk => true
    },
    maps:merge(Usual, maps:with([up, expected, plan], Facts)).

now_may(Held, View, Now, S) ->
    next(Held, View, Now, look(View, Now, S)).

a_whole_cluster_that_agrees_starts_at_once_test() ->
    View = view(#{expected => [host(2)]}),
    ?assertEqual([component(1)], now_may([], View, 0, new(2000))).

before_discovery_answered_nobody_is_everybody_test() ->
    View = view(#{expected => unknown, up => []}),
    S = look(View, 0, new(2000)),
    ?assertEqual([], next([], View, 9999, S)),
    ?assertEqual([component(1)], next([], View, 10000, S)).

a_young_node_waits_for_those_it_expects_test() ->
    View = view(#{}),
    S = look(View, 0, new(2000)),
    ?assertEqual([], now_may([], View, 9000, S)),
    ?assertEqual([component(1)], now_may([], View, 10000, S)).

an_old_node_waits_until_plans_are_settled_test() ->
    Young = look(view(#{expected => [host(2)], other => #{hash => 1}}), 0, new(2000)),
    Met = look(view(#{expected => [host(2)]}), 10, Young),
    Differ = look(view(#{other => #{hash => 1}}), 5000, Met),
    ?assertNot(agreed(Differ)),
    Agree = look(view(#{}), 6000, Differ),
    ?assertEqual([], next([], view(#{}), 7999, Agree)),
    ?assert(settled(8000, Agree)),
    ?assertEqual([component(1)], next([], view(#{}), 8000, Agree)).

a_changed_plan_starts_the_wait_again_test() ->
    Other = #{component(1) => [host(2)]},
    Settled = look(view(#{}), 5000, look(view(#{}), 0, new(2000))),
    ?assert(settled(5000, Settled)),
    Hash = baguette_cluster_placement:hash(Other),
    Changed = look(view(#{plan => Other, other => #{hash => Hash}}), 5100, Settled),
    ?assertNot(settled(5200, Changed)).

what_lost_its_last_holder_is_loaded_as_soon_as_plans_agree_test() ->
    Before = look(view(#{other => #{states => #{1 => ready}}}), 0, new(2000)),
    ?assertEqual([component(1)], now_may([], view(#{}), 100, Before)),
    ?assertEqual([], now_may([], view(#{other => #{hash => 1}}), 100, Before)).

what_is_held_goes_only_when_its_new_holders_are_ready_test_() ->
    Both = [component(1), component(2)],
    Nowhere = #{component(1) => [host(1)], component(2) => []},
    Ready = view(#{other => #{states => #{2 => ready}}}),
    Loading = view(#{other => #{states => #{2 => loading}}}),
    Settled = look(view(#{}), 2000, look(view(#{}), 0, new(2000))),
    [
        ?_assertEqual([component(1)], now_may(Both, Ready, 2001, Settled)),
        ?_assertEqual(Both, now_may(Both, Loading, 2001, Settled)),
        ?_assertEqual(Both, now_may(Both, Ready#{up := []}, 2001, Settled)),
        ?_assertEqual(Both, now_may(Both, Ready, 0, new(2000))),
        ?_assertEqual(Both, now_may(Both, view(#{plan => Nowhere}), 9000, Settled))
    ].

a_load_waits_until_it_fits_test() ->
    View = view(#{expected => [], own => #{room => 3}}),
    ?assertEqual([component(2)], now_may([component(2)], View, 0, new(2000))),
    ?assertEqual([component(1)], now_may([], View, 0, new(2000))).

who_has_no_plan_yet_is_expected_but_not_waited_for_test() ->
    View = view(#{expected => [host(2)], other => #{hash => 0}}),
    S = look(View, 0, new(2000)),
    ?assertEqual([], next([], View, 100, S)),
    ?assert(agreed(S)),
    ?assertEqual([], next([], View, 59999, S)),
    ?assertEqual([component(1)], next([], View, 60000, S)).
