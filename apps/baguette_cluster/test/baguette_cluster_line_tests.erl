%% @doc What a node may do now, and what has to wait.
-module(baguette_cluster_line_tests).

-include_lib("eunit/include/eunit.hrl").

-import(baguette_cluster_fleet, [host/1, component/1, report/2]).
-import(baguette_cluster_line, [look/3, agreed/1, settled/2, says/1, resumed/2]).

%% Without promises the first one fails after some hundreds.
properties_test_() ->
    [
        {atom_to_list(P), {timeout, 240, ?_assert(proper:quickcheck(
            prop_baguette_cluster_moves:P(), [{numtests, N}, {on_output, fun(_, _) -> ok end}]))}}
     || {P, N} <- [
            {prop_no_move_takes_the_last_ready_holder, 1500},
            {prop_what_is_left_alone_comes_to_rest, 200},
            {prop_any_order_of_starts_ends_in_equal_cost, 200}
        ]
    ].

new(SettleMs) -> baguette_cluster_line:new(SettleMs, 1).

next(Held, View, Now, S) ->
    {Next, _} = baguette_cluster_line:next(Held, View, Now, S),
    Next.

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

who_drains_is_no_holder_any_more_test() ->
    Drains = #{states => #{1 => ready}, leaving => true},
    Before = look(view(#{other => #{states => #{1 => ready}}}), 0, new(2000)),
    ?assertEqual([component(1)], now_may([], view(#{other => Drains}), 100, Before)).

%% What is not ready here goes without a promise, but not before its new holders are ready.
what_is_held_goes_only_when_its_new_holders_are_ready_test_() ->
    Both = [component(1), component(2)],
    Nowhere = #{component(1) => [host(1)], component(2) => []},
    Ready = view(#{other => #{states => #{2 => ready}}}),
    Loading = view(#{other => #{states => #{2 => loading}}}),
    Settled = settled(),
    [
        ?_assertEqual([component(1)], now_may(Both, Ready, 2001, Settled)),
        ?_assertEqual(Both, now_may(Both, Loading, 2001, Settled)),
        ?_assertEqual(Both, now_may(Both, Ready#{up := []}, 2001, Settled)),
        ?_assertEqual(Both, now_may(Both, Ready, 0, new(2000))),
        ?_assertEqual(Both, now_may(Both, view(#{plan => Nowhere}), 9000, Settled))
    ].

settled() ->
    look(view(#{}), 2000, look(view(#{}), 0, new(2000))).

%% Promises: part 2 is ready here and planned for node 2 alone.
ready(Other) ->
    view(#{own => #{states => #{1 => ready, 2 => ready}}, other => Other}).

both() -> [component(1), component(2)].

what_is_ready_goes_on_a_promise_for_this_very_wish_test() ->
    View = ready(#{states => #{2 => ready}}),
    {Held, Wishing} = baguette_cluster_line:next(both(), View, 2001, settled()),
    ?assertEqual(both(), Held),
    #{letting_go := [{C, Serial}]} = says(Wishing),
    ?assertEqual(component(2), C),
    Promised = fun(Number, State) ->
        ready(#{states => #{2 => State}, promises => [{host(1), C, Number}]})
    end,
    ?assertEqual(both(), next(both(), Promised(Serial - 1, ready), 2100, Wishing)),
    ?assertEqual(both(), next(both(), Promised(Serial, loading), 2100, Wishing)),
    ?assertEqual([component(1)], next(both(), Promised(Serial, ready), 2100, Wishing)),
    %% An old wish is made again under a new number.
    {Still, Again} = baguette_cluster_line:next(both(), Promised(Serial, ready), 12001, Wishing),
    ?assertEqual(both(), Still),
    ?assertEqual(#{letting_go => [{C, Serial + 1}], promises => []}, says(Again)).

who_is_asked_promises_what_it_has_ready_by_plan_and_keeps_it_test() ->
    Wish = #{letting_go => [{component(1), 7}, {component(2), 8}]},
    Asked = ready(Wish#{states => #{2 => ready}}),
    {Held, Bound} = baguette_cluster_line:next(both(), Asked, 2001, settled()),
    ?assertEqual(both(), Held),
    Promise = {host(2), component(1), 7},
    ?assertMatch(#{promises := [Promise]}, says(Bound)),
    %% The plan turns round, but the promise stands until its time is over.
    Turned = #{component(1) => [host(2)], component(2) => [host(1)]},
    Hash = baguette_cluster_placement:hash(Turned),
    Other = #{states => #{1 => ready}, hash => Hash, letting_go => [{component(1), 7}]},
    View = (ready(Other))#{plan := Turned},
    Agreed = look(View, 6000, look(View, 3000, Bound)),
    {_, Waiting} = baguette_cluster_line:next(both(), View, 6000, Agreed),
    ?assertEqual(#{letting_go => [], promises => [Promise]}, says(Waiting)),
    {_, Free} = baguette_cluster_line:next(both(), View, 22002, Agreed),
    ?assertMatch(#{letting_go := [{_, _}], promises := []}, says(Free)),
    %% Or until its wish is seen to be over.
    Over = (ready(Other#{letting_go := []}))#{plan := Turned},
    {_, Released} = baguette_cluster_line:next(both(), Over, 6001, Agreed),
    ?assertMatch(#{letting_go := [{_, _}], promises := []}, says(Released)).

who_does_not_remember_what_it_promised_keeps_everything_test() ->
    View = ready(#{states => #{2 => ready}}),
    S = resumed(0, settled()),
    {_, Bound} = baguette_cluster_line:next(both(), View, 19999, S),
    ?assertMatch(#{letting_go := []}, says(Bound)),
    {_, Free} = baguette_cluster_line:next(both(), View, 20000, S),
    ?assertMatch(#{letting_go := [_]}, says(Free)).

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
