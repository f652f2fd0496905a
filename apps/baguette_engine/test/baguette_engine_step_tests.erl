%% The rules of docs/internals/request.md, one test each: no process, no model, no clock. A world is
%% a generation, the time, who holds what, and the effects of the last event.
-module(baguette_engine_step_tests).

-include_lib("eunit/include/eunit.hrl").

-define(FLOOR_MS, 1000).
-define(LATE_US, 1000001).
-define(MISSING_US, 2000000).
-define(PASSED_OVER_US, 500001).

%% --- the way

a_request_becomes_pictures_test() ->
    W0 = on(begin_now, world(#{n => 2, steps => 2})),
    ?assertMatch({call, encode, #{prompt := {text, <<"a star">>}}, {alone, 1}}, last(W0)),
    W1 = on({called, {ok, encoded()}}, W0),
    ?assertMatch({call, start, #{seeds := [7, 8], steps := 2, top_k := 2}, _}, last(W1)),
    W2 = on({called, {ok, routed([[2, 0], [0, 1]])}}, W1),
    ?assertMatch([{0, [<<"l0">>, <<"l1">>]}, {1, [<<"l1">>]}, {2, [<<"l0">>]}], asked_rows(W2)),
    W3 = answer_all(lists:reverse(asks(W2)), W2),
    ?assertMatch(
        {call, advance, #{
            step := 0,
            images := [
                #{experts := [2, 0], velocities := [[0, <<"v0-1">>], [2, <<"v2-1">>]]},
                #{experts := [0, 1], velocities := [[0, <<"v0-2">>], [1, <<"v1-1">>]]}
            ]
        }, _},
        last(W3)
    ),
    W4 = answer_all(on({called, {ok, routed([[1], [1]])}}, W3)),
    W5 = on({called, {ok, moved([<<"x0">>, <<"x1">>])}}, W4),
    ?assertMatch({call, decode, #{latents := [<<"x0">>, <<"x1">>]}, _}, last(W5)),
    [{done, Result}] = effects(on({called, {ok, decoded(2)}}, W5)),
    ?assertMatch(
        #{
            images := [#{png := <<"png1">>, seed := 7}, #{png := <<"png2">>, seed := 8}],
            routing := [[#{experts := [2, 0]}, #{experts := [1]}], [#{experts := [0, 1]}, _]],
            failovers := [],
            who := #{a := 4}
        },
        Result
    ),
    ?assertEqual([], [Key || Key <- maps:keys(Result), Key =:= prompt]).

each_part_is_measured_as_it_ends_test() ->
    Measured = fun(#{effects := Effects}) -> [{Part, Us} || {measured, Part, Us} <- Effects] end,
    W0 = on({called, {ok, encoded()}}, after_us(30, on(begin_now, world(#{n => 2, steps => 1})))),
    ?assertEqual([{encode, 30}], Measured(W0)),
    W1 = answer_all(after_us(400, on({called, {ok, routed([[0], [0]])}}, W0))),
    W2 = on({called, {ok, moved([<<"x0">>, <<"x1">>])}}, after_us(5, W1)),
    ?assertEqual([{step, 405}, {advance, 5}], Measured(W2)),
    ?assertEqual([{decode, 30}], Measured(on({called, {ok, decoded(2)}}, after_us(60, W2)))).

warnings_are_told_test() ->
    Encoded = (encoded())#{<<"warnings">> => [<<"odd word">>]},
    W = on({called, {ok, Encoded}}, on(begin_now, world())),
    ?assertEqual([#{text => <<"odd word">>}], published(warning, W)).

unknown_contexts_are_sent_once_more_with_the_tensors_test() ->
    W0 = asking([[0]]),
    [{No, a, _, #{contexts := []}}] = asks(W0),
    W1 = on({answered, No, {ok, #{<<"unknown">> => [<<"c">>]}}}, W0),
    %% Both of them: the other one may be forgotten before it is this call's turn.
    ?assertMatch(
        [{_, a, _, #{contexts := [#{tensor := <<"tensor c">>}, #{tensor := <<"tensor n">>}]}}],
        asks(W1)
    ),
    ?assertMatch({call, advance, _, _}, last(answer_all(W1))).

%% --- what goes wrong with an expert

a_dead_worker_is_replaced_by_the_next_holder_test_() ->
    [
        ?_test(begin
            W0 = asking([[0]], #{0 => [a, b]}),
            [{No, a, _, Payload}] = asks(W0),
            W1 = on({answered, No, {error, {Class, #{}}}}, W0),
            ?assertMatch([{_, b, _, Payload}], asks(W1)),
            Failover = #{expert => 0, step => 0, from => a, to => b, why => Why, at_us => 0},
            ?assertEqual([Failover], published(failover, W1))
        end)
     || {Class, Why} <- [
            {died, died},
            {device_lost, died},
            {out_of_memory, out_of_memory},
            {failure, failure},
            {not_finite, not_finite},
            {not_held, not_held},
            {unreachable, unreachable}
        ]
    ].

the_third_death_of_a_call_fails_it_by_name_test() ->
    W0 = asking([[0]], #{0 => [a, b, c, d]}),
    W2 = fail_next({died, #{}}, fail_next({died, #{}}, W0)),
    ?assertMatch([{_, c, _, _}], asks(W2)),
    W3 = fail_next({died, #{}}, W2),
    ?assertMatch([{failed, {expert_call_died, #{expert := 0, deaths := 3}}}], effects(W3)),
    ?assertEqual(finished, phase(W3)).

deaths_of_one_step_are_not_held_against_the_next_test() ->
    Died = fun(W) -> fail_next({died, #{}}, W) end,
    W0 = answer_all(Died(Died(asking([[0]], #{0 => [a, b, c]})))),
    W1 = Died(Died(on({called, {ok, routed([[0]])}}, W0))),
    ?assertMatch([{_, c, _, _}], asks(W1)).

a_node_that_leaves_is_no_death_test() ->
    Nodes = [a, b, c, d, e],
    W0 = asking([[0]], #{0 => Nodes}),
    Left = lists:foldl(fun(Node, W) -> on({lost, Node}, W) end, W0, [a, b, c, d]),
    ?assertMatch([{_, e, _, _}], asks(Left)).

only_what_was_asked_of_a_lost_node_is_asked_again_test() ->
    W0 = asking([[0, 1]], #{0 => [a, b], 1 => [b]}),
    W1 = on({lost, a}, W0),
    ?assertMatch([{_, b, <<"e0">>, _}], asks(W1)),
    ?assertEqual([], effects(on({lost, c}, W1))).

without_a_holder_it_waits_and_says_why_test() ->
    W0 = asking([[0]], #{0 => [a]}),
    W1 = on({lost, a}, with(#{0 => []}, W0)),
    ?assertEqual([], asks(W1)),
    ?assertMatch([#{expert := 0, reason := {nobody, <<"e0">>}}], published(waiting, W1)),
    ?assertEqual([], effects(on(tick, after_us(600000, W1)))),
    W2 = on(holders, with(#{0 => [b]}, W1)),
    ?assertMatch([{_, b, _, _}], asks(W2)),
    ?assertMatch({call, advance, _, _}, last(answer_all(W2))).

the_only_holder_is_asked_again_after_a_while_test() ->
    W0 = fail_next({died, #{}}, asking([[0]], #{0 => [a]})),
    ?assertEqual([], asks(W0)),
    ?assertEqual([], asks(on(tick, after_us(?PASSED_OVER_US div 2, W0)))),
    ?assertMatch([{_, a, _, _}], asks(on(tick, after_us(?PASSED_OVER_US, W0)))).

two_experts_of_one_step_are_asked_of_two_nodes_where_both_hold_both_test() ->
    W = asking([[0, 1]], #{0 => [a, b], 1 => [a, b]}),
    ?assertEqual([a, b], lists:sort([Node || {_, Node, _, _} <- asks(W)])).

news_of_holders_ends_the_passing_over_test() ->
    W0 = fail_next({died, #{}}, asking([[0]], #{0 => [a]})),
    ?assertMatch([{_, a, _, _}], asks(on(holders, W0))).

a_step_waits_for_the_expert_that_is_missing_test() ->
    W0 = asking([[0, 1]], #{0 => [a], 1 => []}),
    W1 = answer_all(W0),
    ?assertEqual([], effects(W1)),
    W2 = answer_all(on(holders, with(#{1 => [b]}, W1))),
    ?assertMatch({call, advance, _, _}, last(W2)).

late_is_measured_by_what_calls_took_of_late_test() ->
    Slow = answer_all(after_us(5000000, asking([[0]], #{0 => [a, b]}))),
    Next = fun(W) -> on({called, {ok, routed([[0]])}}, W) end,
    W0 = Next(Slow),
    ?assertEqual([], effects(on(tick, after_us(9 * ?LATE_US, W0)))),
    ?assertMatch([{_, b, _, _}], asks(on(tick, after_us(10 * ?LATE_US, W0)))),
    %% What was slow once is forgotten by and by.
    Later = lists:foldl(fun(_, W) -> Next(answer_all(W)) end, W0, lists:seq(1, 12)),
    ?assertMatch([{_, b, _, _}], asks(on(tick, after_us(?LATE_US, Later)))).

late_is_measured_by_what_calls_take_against_what_is_expected_test() ->
    W = fun(Typical) -> asking([[0]], {none, #{0 => [a, b]}, Typical}) end,
    ?assertEqual([], effects(on(tick, after_us(2 * ?LATE_US - 100000, W(5.0))))),
    ?assertMatch([{_, b, _, _}], asks(on(tick, after_us(2 * ?LATE_US, W(5.0))))),
    ?assertMatch([{_, b, _, _}], asks(on(tick, after_us(?LATE_US, W(0.5))))).

a_late_call_goes_elsewhere_and_its_answer_is_ignored_test() ->
    W0 = asking([[0]], #{0 => [a, b]}),
    [{Late, a, _, _}] = asks(W0),
    ?assertEqual([], effects(on(tick, after_us(?FLOOR_MS * 500, W0)))),
    W1 = on(tick, after_us(?LATE_US, W0)),
    [{No, b, _, _}] = asks(W1),
    ?assertMatch([#{why := late, from := a, to := b}], published(failover, W1)),
    W2 = on({answered, No, {ok, velocities(0, [0])}}, W1),
    ?assertMatch({call, advance, _, _}, last(W2)),
    ?assert(lists:member({forget, Late, a}, effects(W2))),
    ?assertEqual([], effects(on({answered, Late, {ok, velocities(0, [0])}}, W2))).

who_was_frozen_judges_nobody_by_it_test() ->
    W0 = on({thawed, 9000000}, after_us(9000000, asking([[0]], #{0 => [a, b]}))),
    ?assertEqual([], effects(on(tick, W0))),
    ?assertEqual([], effects(on(tick, after_us(?LATE_US - 10, W0)))),
    ?assertMatch([{_, b, _, _}], asks(on(tick, after_us(?LATE_US, W0)))).

who_waited_while_frozen_waits_on_and_asks_for_no_look_at_once_test() ->
    W0 = missing(fail, [[0]], #{0 => []}),
    #{generation := S, now := Now} = W1 = on({thawed, 3000000}, after_us(3000000, W0)),
    ?assert(baguette_engine_step:next_us(S) > Now),
    ?assertEqual([], effects(on(tick, W1))),
    ?assertMatch({failed, {no_holder, _}}, last(on(tick, after_us(?MISSING_US, W1)))).

a_call_to_be_made_again_waits_while_frozen_too_test() ->
    W0 = on({called, {error, {not_running, #{}}}}, answer_all(asking([[0]]))),
    #{generation := S, now := Now} = on({thawed, 3000000}, after_us(3000000, W0)),
    ?assert(baguette_engine_step:next_us(S) > Now).

what_we_slept_through_makes_nobody_slow_test() ->
    W0 = on({thawed, 60000000}, after_us(60000000, asking([[0]], #{0 => [a, b]}))),
    W1 = on({called, {ok, routed([[0]])}}, answer_all(asks(asking([[0]], #{0 => [a, b]})), W0)),
    ?assertMatch([{_, b, _, _}], asks(on(tick, after_us(?LATE_US, W1)))).

a_late_call_that_is_answered_after_all_counts_test() ->
    W0 = asking([[0]], #{0 => [a, b]}),
    [{First, a, _, _}] = asks(W0),
    W1 = on(tick, after_us(?LATE_US, W0)),
    [{Second, b, _, _}] = asks(W1),
    W2 = on({answered, First, {ok, velocities(0, [0])}}, W1),
    ?assertMatch({call, advance, _, _}, last(W2)),
    ?assert(lists:member({forget, Second, b}, effects(W2))).

when_two_holders_are_silent_the_third_is_asked_and_then_nobody_test() ->
    W0 = asking([[0]], #{0 => [a, b, c, d]}),
    W1 = on(tick, after_us(?LATE_US, W0)),
    W2 = on(tick, after_us(4 * ?LATE_US, W1)),
    ?assertMatch([{_, c, _, _}], asks(W2)),
    W3 = on(tick, after_us(16 * ?LATE_US, W2)),
    ?assertMatch({[], [#{reason := {late, _}}]}, {asks(W3), published(waiting, W3)}).

who_is_suspect_is_asked_no_more_and_may_still_answer_test() ->
    W0 = asking([[0]], #{0 => [a, b]}),
    [{First, a, _, _}] = asks(W0),
    W1 = on({suspect, a}, W0),
    ?assertMatch([{_, b, _, _}], asks(W1)),
    ?assertMatch([#{why := suspect, from := a, to := b}], published(failover, W1)),
    ?assertMatch({call, advance, _, _}, last(on({answered, First, {ok, velocities(0, [0])}}, W1))),
    ?assertEqual([], effects(on({suspect, c}, W1))).

a_suspect_whom_nobody_can_replace_is_waited_for_until_somebody_comes_test() ->
    W0 = asking([[0]], #{0 => [a]}),
    W1 = on({suspect, a}, with(#{0 => []}, W0)),
    ?assertMatch({[], [#{reason := {suspect, a}}]}, {asks(W1), published(waiting, W1)}),
    W2 = on(holders, with(#{0 => [b]}, W1)),
    ?assertMatch([{_, b, _, _}], asks(W2)).

a_suspect_that_is_offered_again_is_not_missing_test() ->
    W0 = missing(fail, [[0]], #{0 => [a]}),
    W1 = on(holders, with(#{0 => [a]}, on({suspect, a}, with(#{0 => []}, W0)))),
    ?assertEqual([], published(failover, W1)),
    ?assertEqual([], [F || {failed, _} = F <- effects(on(tick, after_us(?MISSING_US, W1)))]).

how_long_it_is_missing_does_not_begin_while_it_was_slow_test() ->
    W0 = on(tick, after_us(?LATE_US, missing(fail, [[0]], #{0 => [a]}))),
    W1 = fail_next_of(asks(missing(fail, [[0]], #{0 => [a]})), {died, #{}},
        with(#{0 => []}, after_us(?MISSING_US, W0))),
    W2 = on(tick, after_us(?MISSING_US - 1, W1)),
    ?assertEqual([], [F || {failed, _} = F <- effects(W2)]),
    ?assertMatch({failed, {no_holder, _}}, last(on(tick, after_us(1, W2)))).

who_is_busy_is_not_asked_now_and_has_not_failed_test() ->
    W0 = asking([[0]], #{0 => [a, b]}),
    W1 = fail_next(busy(a), W0),
    ?assertMatch([{_, b, _, _}], asks(W1)),
    ?assertEqual([], published(failover, W1) ++ published(waiting, W1)),
    ?assertEqual([], [P || {paced, _, _, _} = P <- maps:get(effects, W1)]),
    %% Both are: the best of them again, in a moment.
    W2 = fail_next(busy(b), W1),
    ?assertMatch({[], [#{expert := 0, reason := {busy, b}}]}, {asks(W2), published(waiting, W2)}),
    ?assertEqual([], effects(on(tick, after_us(?PASSED_OVER_US - 10, W2)))),
    W3 = on(tick, after_us(?PASSED_OVER_US, W2)),
    ?assertMatch([{_, a, _, _}], asks(W3)),
    [{No, _, _, _}] = asks(W3),
    W4 = on({answered, No, {ok, velocities(0, [0])}}, W3),
    ?assertMatch({call, advance, _, _}, last(W4)).

%% However often, and whatever is to be done about an expert that nobody holds.
who_is_busy_is_waited_for_and_not_missing_test_() ->
    [
        ?_test(begin
            W0 = missing(Policy, [[0]], #{0 => [Way]}),
            W1 = fail_next(busy(a), W0),
            ?assertMatch([#{reason := {busy, a}}], published(waiting, W1)),
            Again = fun(_, W) ->
                Asked = on(tick, after_us(?PASSED_OVER_US, W)),
                [{_, Way, _, _}] = asks(Asked),
                Refused = fail_next(busy(a), Asked),
                %% It is known.
                ?assertEqual([], effects(Refused)),
                Refused
            end,
            W2 = on(tick, after_us(?PASSED_OVER_US, lists:foldl(Again, W1, lists:seq(1, 20)))),
            [{No, _, _, _}] = asks(W2),
            W3 = on({answered, No, {ok, velocities(0, [0])}}, W2),
            ?assertMatch({call, advance, _, _}, last(W3))
        end)
     || Policy <- [wait, degrade, fail], Way <- [a, {a, b}]
    ].

one_of_two_that_have_a_call_is_busy_test() ->
    W0 = on({suspect, a}, asking([[0]], #{0 => [a, b, c]})),
    [{_, b, _, _}] = asks(W0),
    W1 = fail_next(busy(b), W0),
    ?assertEqual([], effects(W1)).

an_answer_of_another_form_is_a_failure_of_its_holder_test_() ->
    [
        ?_test(begin
            W0 = asking([[0], [0]], #{0 => [a, b]}),
            [{No, a, _, _}] = asks(W0),
            ?assertMatch([{_, b, _, _}], asks(on({answered, No, {ok, Answer}}, W0)))
        end)
     || Answer <- [
            #{}, #{<<"velocities">> => [], <<"micros">> => 1},
            #{<<"velocities">> => [<<"v">>, <<"w">>]}
        ]
    ].

a_holder_that_forgets_contexts_at_once_has_failed_test() ->
    W0 = asking([[0]], #{0 => [a, b]}),
    Unknown = fun(W) ->
        [{No, _, _, _}] = asks(W),
        on({answered, No, {ok, #{<<"unknown">> => [<<"c">>]}}}, W)
    end,
    ?assertMatch([{_, b, _, _}], asks(Unknown(Unknown(W0)))).

a_dead_holder_is_not_replaced_where_another_has_the_call_already_test() ->
    W0 = asking([[0]], #{0 => [a, b, c]}),
    W1 = on({suspect, a}, W0),
    W2 = on({lost, a}, W1),
    ?assertMatch({[], [#{why := lost, from := a, to := b}]}, {asks(W2), published(failover, W2)}).

a_late_call_that_nobody_else_could_answer_is_waited_for_test() ->
    W0 = asking([[0]], #{0 => [a]}),
    W1 = on(tick, after_us(?LATE_US, W0)),
    ?assertMatch([#{expert := 0, reason := {late, a}}], published(waiting, W1)),
    [{No, a, _, _}] = asks(W0),
    W2 = on({answered, No, {ok, velocities(0, [0])}}, W1),
    ?assertMatch({call, advance, _, _}, last(W2)).

two_holders_slower_than_the_floor_are_given_time_test() ->
    W = asking([[0]], #{0 => [a, b]}),
    ?assertMatch({call, advance, _, _}, drawn(6 * ?FLOOR_MS * 1000, 10, W)).

a_call_of_many_images_is_given_more_time_test() ->
    W0 = asking(lists:duplicate(10, [0]), {none, #{0 => [a, b]}, 1.0}),
    ?assertEqual([], effects(on(tick, after_us(3 * ?LATE_US, W0)))),
    ?assertMatch([{_, b, _, _}], asks(on(tick, after_us(4 * ?LATE_US, W0)))).

who_can_be_reached_by_way_of_others_only_is_asked_through_them_test() ->
    W0 = asking([[0]], #{0 => [{z, a}, {z, b}]}),
    [{First, {z, a}, _, _}] = asks(W0),
    W1 = on({answered, First, {error, {unreachable, #{}}}}, W0),
    [{Second, {z, b}, _, _}] = asks(W1),
    %% Nothing was asked of anybody.
    ?assertEqual([], published(failover, W1)),
    ?assertEqual([], asks(on({lost, z}, W1))),
    ?assertEqual([], asks(on(tick, after_us(?LATE_US, W1)))),
    W2 = on({lost, {via, b}}, W1),
    ?assertMatch([#{why := lost}], published(failover, W2)),
    W3 = on({answered, Second, {ok, velocities(0, [0])}}, W1),
    ?assertMatch({call, advance, _, _}, last(W3)).

ways_that_lead_nowhere_do_not_make_a_wait_shorter_nor_told_again_test() ->
    Nowhere = fun(W) ->
        [{No, _, _, _}] = asks(W),
        on({answered, No, {error, {unreachable, #{}}}}, W)
    end,
    W0 = Nowhere(missing(fail, [[0]], #{0 => [{z, a}]})),
    ?assertMatch([#{reason := {nobody, _}}], published(waiting, W0)),
    ?assertEqual([], asks(on(tick, after_us(?MISSING_US - 1, W0)))),
    W1 = Nowhere(on(holders, after_us(?MISSING_US - 1, W0))),
    ?assertEqual([], published(waiting, W1)),
    ?assertMatch({failed, {no_holder, _}}, last(on(tick, after_us(1000, W1)))).

whose_link_is_silent_is_asked_by_way_of_others_test() ->
    W0 = asking([[0]], #{0 => [z]}),
    W1 = on({suspect, z}, with(#{0 => [{z, a}]}, W0)),
    ?assertMatch([{_, {z, a}, _, _}], asks(W1)),
    ?assertMatch([#{why := suspect, from := z, to := z}], published(failover, W1)).

%% --- another one besides

a_slow_call_is_hedged_within_the_budget_and_the_loser_is_forgotten_test() ->
    W0 = asking([[0]], budget(1.5, #{0 => [a, b]})),
    [{First, a, _, _}] = asks(W0),
    ?assertEqual([], effects(on(tick, after_us(149000, W0)))),
    W1 = on(tick, after_us(151000, W0)),
    [{Second, b, _, _}] = asks(W1),
    ?assertMatch([#{expert := 0, from := a, to := b, at_us := 151000}], published(hedge, W1)),
    ?assert(lists:member(hedged, effects(W1))),
    ?assertEqual([], published(failover, W1)),
    W2 = on({answered, Second, {ok, velocities(0, [0])}}, W1),
    ?assert(lists:member({forget, First, a}, effects(W2))),
    [{paced, b, _, exact}, {paced, a, Ratio, at_least}] = paced(W2),
    ?assert(Ratio > 1.5).

a_call_is_hedged_once_test() ->
    W0 = on(tick, after_us(151000, asking([[0]], budget(1.5, #{0 => [a, b, c]})))),
    ?assertEqual([], asks(on(tick, after_us(400000, W0)))).

without_a_budget_nobody_is_asked_besides_until_there_is_one_test() ->
    W0 = on(tick, after_us(210000, asking([[0]], budget(none, #{0 => [a, b]})))),
    ?assertEqual([], asks(W0)),
    ?assertMatch([{_, b, _, _}], asks(on(tick, after_us(211000, budget(1.5, #{}, W0))))).

what_only_one_holds_is_not_hedged_test() ->
    W0 = asking([[0]], budget(1.5, #{0 => [a]})),
    ?assertEqual([], asks(on(tick, after_us(151000, W0)))).

the_clock_is_wanted_when_something_is_due_test() ->
    #{generation := S, now := Now} = asking([[0]], budget(1.5, #{0 => [a, b]})),
    ?assertEqual(Now + 150000, baguette_engine_step:next_us(S)).

%% --- too much for one

a_call_too_large_is_halved_and_then_asked_of_somebody_else_test() ->
    W0 = asking([[0], [0], [0]], #{0 => [a, b]}),
    W1 = fail_next({out_of_memory, #{}}, W0),
    ?assertMatch([{0, [<<"l0">>, <<"l1">>]}, {0, [<<"l2">>]}], asked_rows(W1)),
    ?assertEqual([], published(failover, W1)),
    [Two, {No, Node, _, _}] = asks(W1),
    W2 = on({answered, No, {error, {out_of_memory, #{}}}}, W1),
    [{_, Other, _, #{rows := [_]}}] = asks(W2),
    ?assertNotEqual(Node, Other),
    Last = on_each(fun(A, W) -> answer_all([A], W) end, [Two | asks(W2)], W2),
    {call, advance, #{images := Images}, _} = last(Last),
    ?assertMatch([#{velocities := [[0, <<"v0-1">>]]}, #{velocities := [[0, <<"v0-2">>]]},
        #{velocities := [[0, <<"v0-1">>]]}], Images).

an_image_too_large_for_three_is_told_test() ->
    Fail = fun(W) -> fail_next({out_of_memory, #{message => <<"m">>}}, W) end,
    W = Fail(Fail(Fail(asking([[0]], #{0 => [a, b, c, d]})))),
    ?assertMatch([{failed, {out_of_memory, #{expert := 0, times := 3}}}], effects(W)).

after_the_second_death_images_go_alone_and_the_guilty_one_is_named_test() ->
    Died = fun(W) -> fail_next({died, #{}}, W) end,
    W0 = Died(asking([[0], [0]], #{0 => [a, b, c]})),
    ?assertMatch([{0, [<<"l0">>, <<"l1">>]}], asked_rows(W0)),
    W1 = Died(W0),
    ?assertMatch([{0, [<<"l0">>]}, {0, [<<"l1">>]}], asked_rows(W1)),
    [First, {No, _, _, _}] = asks(W1),
    W2 = answer_all([First], W1),
    W3 = on({answered, No, {error, {died, #{}}}}, W2),
    ?assertMatch(
        [{failed, {expert_call_died, #{expert := 0, images := [1], deaths := 3}}}], effects(W3)
    ).

what_is_not_finite_twice_fails_and_at_once_where_nobody_else_has_it_test() ->
    Fail = fun(W) -> fail_next({not_finite, #{}}, W) end,
    ?assertMatch(
        [{failed, {not_finite, #{expert := 0}}}], effects(Fail(asking([[0]], #{0 => [a]})))
    ),
    ?assertMatch(
        [{failed, {not_finite, #{expert := 0, times := 2}}}],
        effects(Fail(Fail(asking([[0]], #{0 => [a, b, c]}))))
    ).

%% --- an expert that nobody holds

who_does_without_says_what_it_lost_test() ->
    W0 = missing(degrade, [[0, 1]], #{0 => [a], 1 => []}),
    W1 = on(tick, after_us(?MISSING_US - 1, W0)),
    ?assertEqual([], published(degraded, W1)),
    W2 = answer_all(asks(W0), on(tick, after_us(?MISSING_US, W0))),
    ?assertMatch({call, advance, #{images := [
        #{experts := [0], weights := [1.0], velocities := [[0, _]]}
    ]}, _}, last(W2)),
    Waited = on(tick, after_us(?MISSING_US, W0)),
    ?assertEqual(
        [#{step => 0, image => 0, lost => [1], mass => 0.5}], published(degraded, Waited)
    ).

who_did_without_once_does_not_wait_again_in_the_next_step_test() ->
    W0 = answer_all(missing(degrade, [[0, 1]], #{0 => [a], 1 => []})),
    Next = fun(W) -> on({called, {ok, routed([[0, 1]])}}, W) end,
    W1 = Next(on(tick, after_us(?MISSING_US, W0))),
    ?assertMatch([#{step := 1, lost := [1]}], published(degraded, W1)),
    %% Somebody loaded it and has answered; lost again, it is waited for again.
    W2 = Next(answer_all(with(#{0 => [a], 1 => [b]}, W1))),
    ?assertMatch([{_, a, _, _}, {_, b, _, _}], asks(W2)),
    W3 = Next(with(#{1 => []}, answer_all(W2))),
    ?assertEqual([], published(degraded, W3)).

when_all_others_have_answered_the_loss_ends_the_round_test() ->
    W0 = answer_all(missing(degrade, [[0, 1]], #{0 => [a], 1 => []})),
    ?assertMatch({call, advance, _, _}, last(on(tick, after_us(?MISSING_US, W0)))).

a_call_that_is_out_counts_for_the_images_that_still_want_it_test() ->
    W0 = missing(degrade, [[0, 1], [0]], #{0 => [a], 1 => [b]}),
    [{No, a, _, _}, One] = asks(W0),
    W1 = answer_all([One], W0),
    W2 = on({suspect, a}, with(#{0 => []}, W1)),
    W3 = on(tick, after_us(?MISSING_US, W2)),
    ?assertMatch([#{image := 0, lost := [0]}], published(degraded, W3)),
    W4 = on({answered, No, {ok, velocities(0, [0, 0])}}, W3),
    {call, advance, #{images := [Less, Whole]}, _} = last(W4),
    ?assertMatch(#{experts := [1], velocities := [[1, _]]}, Less),
    ?assertMatch(#{experts := [0], velocities := [[0, <<"v0-2">>]]}, Whole).

what_two_missing_experts_had_is_told_of_the_routers_own_weights_test() ->
    W0 = missing(degrade, [[0, 1, 2]], #{0 => [], 1 => [], 2 => [a]}),
    W1 = on(tick, after_us(?MISSING_US, W0)),
    [#{mass := First}, #{mass := Second}] = published(degraded, W1),
    ?assertEqual([333, 333], [round(1000 * Mass) || Mass <- [First, Second]]).

the_last_expert_of_an_image_is_waited_for_test() ->
    W0 = missing(degrade, [[0, 1], [1]], #{0 => [], 1 => []}),
    W1 = on(tick, after_us(?MISSING_US, W0)),
    ?assertMatch([#{image := 0, lost := [0]}], published(degraded, W1)),
    W2 = on(holders, with(#{1 => [b]}, W1)),
    ?assertMatch([{1, [<<"l0">>, <<"l1">>]}], asked_rows(W2)).

who_would_rather_fail_fails_with_the_reason_test() ->
    W0 = answer_all(missing(fail, [[0, 1]], #{0 => [a], 1 => []})),
    ?assertEqual([], effects(on(tick, after_us(?MISSING_US - 1, W0)))),
    ?assertMatch(
        {failed, {no_holder, #{expert := 1, why := {nobody, <<"e1">>}}}},
        last(on(tick, after_us(?MISSING_US, W0)))
    ).

who_holds_another_version_is_named_test() ->
    Both = asking([[0]], #{<<"e0">> => [{a, <<"old">>}, {b, <<"new">>}]}),
    W0 = on({called, {ok, routed([[0]])}}, answer_all(Both)),
    W1 = on({lost, a}, with(#{<<"e0">> => [{b, <<"new">>}]}, W0)),
    ?assertMatch([#{reason := {another_version, [b]}}], published(waiting, W1)).

what_cannot_be_helped_fails_at_once_test_() ->
    [
        ?_assertMatch(
            [{failed, {Class, #{expert := 0}}}],
            effects(fail_next({Class, #{}}, asking([[0, 1]], #{0 => [a, b], 1 => [a]})))
        )
     || Class <- [bad_input, bad_weights]
    ].

one_picture_never_mixes_keys_test() ->
    Holders = #{<<"e0">> => [{a, <<"old">>}, {b, <<"new">>}, {c, <<"old">>}]},
    W0 = on({called, {ok, routed([[0]])}}, answer_all(asking([[0]], Holders))),
    W1 = on({lost, a}, W0),
    ?assertMatch([{_, c, _, _}], asks(W1)),
    ?assertEqual([], asks(on({lost, c}, W1))).

a_version_that_never_answered_binds_nobody_test() ->
    Holders = #{<<"e0">> => [{a, <<"new">>}, {b, <<"old">>}]},
    ?assertMatch([{_, b, _, _}], asks(on({lost, a}, asking([[0]], Holders)))).

%% --- what goes wrong with the pipeline worker

a_dead_pipeline_worker_is_asked_the_same_again_test() ->
    W0 = answer_all(asking([[0]])),
    {call, advance, Payload, Company} = last(W0),
    W1 = on({called, {error, {died, #{}}}}, W0),
    ?assertMatch([#{reason := pipeline_restarting, during := advance}], published(waiting, W1)),
    ?assertEqual({call, advance, Payload, Company}, last(W1)),
    W3 = on({called, {error, {died, #{}}}}, on({called, {error, {died, #{}}}}, W1)),
    ?assertMatch([{failed, {pipeline_died, #{during := advance, deaths := 3}}}], effects(W3)).

a_pipeline_server_that_is_restarted_costs_no_death_test() ->
    W0 = answer_all(asking([[0]])),
    Call = last(W0),
    NotRunning = fun(W) -> on({called, {error, {not_running, #{}}}}, W) end,
    Again = fun(_, W) -> on(tick, after_us(250000, NotRunning(W))) end,
    W1 = NotRunning(W0),
    ?assertEqual([{publish, {waiting, #{reason => pipeline_restarting, during => advance}}}],
        effects(W1)),
    ?assertEqual([Call], effects(lists:foldl(Again, W0, lists:seq(1, 5)))).

a_late_pipeline_call_is_told_ever_less_often_test() ->
    W0 = on(begin_now, world()),
    Ticks = fun(N, W) -> on(tick, after_us(N * ?FLOOR_MS * 1000, W)) end,
    Late = [#{reason => pipeline_late, during => encode}],
    W1 = Ticks(1, W0),
    ?assertEqual(Late, published(waiting, W1)),
    ?assertEqual([], effects(on(tick, after_us(?FLOOR_MS * 900, W1)))),
    W2 = Ticks(1, W1),
    ?assertEqual(Late, published(waiting, W2)),
    ?assertEqual([], effects(Ticks(1, W2))),
    ?assertEqual(Late, published(waiting, Ticks(2, W2))).

an_error_of_the_pipeline_worker_fails_it_test() ->
    W = on({called, {error, {bad_input, #{message => <<"m">>}}}}, on(begin_now, world())),
    ?assertEqual([{failed, {bad_input, #{message => <<"m">>}}}], effects(W)).

an_answer_that_nobody_waits_for_changes_nothing_test() ->
    W = asking([[0]]),
    ?assertEqual([], effects(on({called, {ok, encoded()}}, W))).

%% --- what may be seen

an_overview_names_who_is_asked_and_holds_no_prompt_test() ->
    #{generation := S} = asking([[0, 1]], #{0 => [a], 1 => []}),
    Overview = baguette_engine_step:overview(S),
    ?assertMatch(#{state := asking, step := 0, asking := #{0 := a}, missing := [1]}, Overview),
    ?assertNot(is_map_key(prompt, Overview)).

an_expert_is_done_without_where_another_part_of_it_is_still_asked_test() ->
    W0 = missing(degrade, [[0, 1], [0, 1]], #{0 => [a], 1 => [b]}),
    W1 = answer_all([Ask || {_, b, _, _} = Ask <- asks(W0)], W0),
    W2 = fail_next_of([Ask || {_, a, _, _} = Ask <- asks(W0)], {out_of_memory, #{}}, W1),
    [_, {Second, a, _, _}] = asks(W2),
    W3 = on({answered, Second, {error, {not_held, #{}}}}, with(#{0 => []}, W2)),
    W4 = on(tick, after_us(?MISSING_US, W3)),
    ?assertMatch([#{image := 1, lost := [0]}], published(degraded, W4)).

%% --- worlds

world() -> world(#{}).

world(Given) ->
    Request = maps:merge(
        #{
            prompt => <<"a star">>, negative_prompt => <<>>, n => 1, steps => 50,
            guidance_scale => 2.0, top_k => 2, seed => 7, deterministic => true,
            cache => 0.0, on_missing => wait
        },
        Given
    ),
    Experts = [<<"e0">>, <<"e1">>, <<"e2">>],
    #{
        generation => baguette_engine_step:new(<<"g">>, Request, Experts, #{
            ask_floor_ms => ?FLOOR_MS, missing_ms => ?MISSING_US div 1000
        }),
        hedge => none,
        typical => 1.0,
        expected_us => 1000,
        now => 5000,
        holders => maps:from_list([{Expert, [{a, <<"key">>}]} || Expert <- Experts]),
        effects => []
    }.

%% One image a list of experts, at the first ask.
asking(Experts) -> asking(Experts, #{}).

asking(Experts, {Hedge, Holders, Typical}) ->
    W = budget(Hedge, Holders, world(#{n => length(Experts)})),
    asking_in(Experts, W#{typical := Typical});
asking(Experts, {Hedge, Holders}) ->
    asking_in(Experts, budget(Hedge, Holders, world(#{n => length(Experts)})));
asking(Experts, Holders) ->
    asking_in(Experts, with(Holders, world(#{n => length(Experts)}))).

asking_in(Experts, W) ->
    on({called, {ok, routed(Experts)}}, on({called, {ok, encoded()}}, on(begin_now, W))).

with(Holders, #{holders := Before} = W) ->
    Given = maps:fold(fun held/3, #{}, Holders),
    W#{holders := maps:merge(Before, Given)}.

held(Expert, Nodes, All) when is_integer(Expert) ->
    All#{<<"e", (integer_to_binary(Expert))/binary>> => [{Node, <<"key">>} || Node <- Nodes]};
held(Component, Holders, All) ->
    All#{Component => Holders}.

after_us(Us, #{now := Now} = W) -> W#{now := Now + Us}.

on(Event, #{generation := S0, now := Now, holders := Holders} = W) ->
    #{hedge := Hedge, expected_us := Expected, typical := Typical} = W,
    View = #{
        now_us => Now,
        hedge => fun() -> Hedge end,
        typical => Typical,
        holders => fun(Component, Own) ->
            [
                (way(Way))#{key => Key, expected_us => Expected, call_us => Expected}
             || {Way, Key} <- idle_first(Own, maps:get(Component, Holders, []))
            ]
        end,
        why_missing => fun(Component) -> {nobody, Component} end
    },
    {S, Effects} = baguette_engine_step:event(Event, View, S0),
    W#{generation := S, effects := Effects}.

%% As the cluster ranks equal holders.
idle_first(Own, Holders) ->
    Ranked = [{length([N || N <- Own, N =:= Node]), Holder} || {Node, _} = Holder <- Holders],
    [Holder || {_, Holder} <- lists:keysort(1, Ranked)].

answer_all(W) -> answer_all(asks(W), W).

answer_all(Asks, W) ->
    lists:foldl(
        fun({No, _, <<"e", Number/binary>>, #{rows := Rows}}, W1) ->
            on({answered, No, {ok, velocities(binary_to_integer(Number), Rows)}}, W1)
        end,
        W,
        Asks
    ).

%% What follows when the call just made takes so long, and so does every call made instead of it.
drawn(Slow, Tries, #{now := Now} = W) ->
    [Ask] = asks(W),
    drawn(Slow, Tries, Now + Slow, Ask, W).

drawn(Slow, Tries, AnsweredAt, {No, _, _, #{rows := Rows}} = Ask, W0) ->
    #{now := Now} = W = on(tick, after_us(250000, W0)),
    case asks(W) of
        [_] when Tries > 0 -> drawn(Slow, Tries - 1, W);
        [] when Now < AnsweredAt -> drawn(Slow, Tries, AnsweredAt, Ask, W);
        [] -> last(on({answered, No, {ok, velocities(0, Rows)}}, W))
    end.

%% The first of the asks just made ends in an error.
busy(Node) -> {unreachable, #{node => Node, why => busy}}.

fail_next(Error, W) ->
    [{No, _, _, _} | _] = asks(W),
    on({answered, No, {error, Error}}, W).

way({Node, Via}) -> #{node => Node, via => Via};
way(Node) -> #{node => Node}.

fail_next_of([{No, _, _, _} | _], Error, W) -> on({answered, No, {error, Error}}, W).

%% What is measured on the way is looked at apart.
effects(#{effects := Effects}) ->
    [E || E <- Effects, not is_paced(E), not is_measured(E)].

is_paced({paced, _, _, _}) -> true;
is_paced(_) -> false.

is_measured({measured, _, _}) -> true;
is_measured(_) -> false.

paced(#{effects := Effects}) -> lists:filter(fun is_paced/1, Effects).

on_each(Fun, Items, W) -> lists:foldl(Fun, W, Items).

%% A generation that has such a policy and waits.
missing(Policy, Experts, Holders) ->
    W = with(Holders, world(#{n => length(Experts), on_missing => Policy})),
    on({called, {ok, routed(Experts)}}, on({called, {ok, encoded()}}, on(begin_now, W))).

%% A world where calls are expected to take 100 ms.
budget(Hedge, Holders) -> {Hedge, Holders}.

budget(Hedge, Holders, W) -> with(Holders, W#{hedge := Hedge, expected_us := 100000}).
last(W) -> lists:last(effects(W)).
phase(#{generation := S}) -> baguette_engine_step:phase(S).
published(Kind, W) -> [Facts || {publish, {K, Facts}} <- effects(W), K =:= Kind].
asks(W) -> [{No, Node, C, Payload} || {ask, No, Node, C, _, Payload} <- effects(W)].

asked_rows(W) ->
    [
        {binary_to_integer(Number), [Latent || #{<<"latent">> := Latent} <- Rows]}
     || {_, _, <<"e", Number/binary>>, #{rows := Rows}} <- asks(W)
    ].

%% --- workers' answers

encoded() ->
    #{
        <<"context">> => #{<<"hash">> => <<"c">>, <<"tensor">> => <<"tensor c">>},
        <<"null">> => #{<<"hash">> => <<"n">>, <<"tensor">> => <<"tensor n">>},
        <<"warnings">> => [],
        <<"keys">> => #{},
        <<"threads">> => 1
    }.

routed(Experts) ->
    Images = [
        #{
            <<"latent">> => <<"l", (integer_to_binary(I))/binary>>,
            <<"experts">> => Asked,
            <<"weights">> => [1.0 / length(Asked) || _ <- Asked],
            <<"margin">> => 0.5
        }
     || {I, Asked} <- lists:zip(lists:seq(0, length(Experts) - 1), Experts)
    ],
    Moved = #{<<"advance_micros">> => 3, <<"route_micros">> => 2},
    Moved#{<<"images">> => Images, <<"t">> => 1.0, <<"network_t">> => 999.0}.

moved(Latents) ->
    #{<<"images">> => [#{<<"latent">> => L} || L <- Latents], <<"advance_micros">> => 3}.

decoded(N) ->
    #{<<"images">> => [
        #{
            <<"png">> => <<"png", (integer_to_binary(I))/binary>>,
            <<"pixels_sha256">> => <<"p">>,
            <<"latent_sha256">> => <<"l">>
        }
     || I <- lists:seq(1, N)
    ]}.

%% One velocity a row, named by expert and row.
velocities(Expert, Rows) ->
    Named = [
        iolist_to_binary(io_lib:format("v~b-~b", [Expert, I]))
     || I <- lists:seq(1, length(Rows))
    ],
    #{<<"velocities">> => Named, <<"micros">> => 10}.
