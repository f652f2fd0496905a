%% How fast holders really are, and whom that sets back.
-module(baguette_engine_pace_tests).

-include_lib("eunit/include/eunit.hrl").

-define(MINUTE_US, 60000000).

a_straggler_is_known_after_a_few_calls_test() ->
    Learnt = lists:foldl(
        fun(_, Sofar) -> baguette_engine_pace:learnt(exact, 10.0, Sofar) end, 1.0, [1, 2, 3]
    ),
    ?assert(Learnt > 2.0),
    ?assertEqual([b, a], order([{a, 100}, {b, 150}], [Learnt, 1.0])).

one_call_of_a_machine_that_stood_still_sets_nobody_back_test() ->
    Once = baguette_engine_pace:learnt(exact, 32.0, 1.0),
    ?assertEqual([a, b], order([{a, 100}, {b, 100}], [Once, 1.0])),
    Twice = baguette_engine_pace:learnt(exact, 32.0, Once),
    ?assertEqual([b, a], order([{a, 100}, {b, 100}], [Twice, 1.0])).

what_only_took_so_long_already_never_makes_anybody_faster_test() ->
    ?assertEqual(5.0, baguette_engine_pace:learnt(at_least, 1.2, 5.0)),
    ?assert(baguette_engine_pace:learnt(at_least, 9.0, 5.0) > 5.0).

what_was_learnt_fades_test() ->
    ?assertEqual(2.5, baguette_engine_pace:faded(4.0, 30000000)),
    ?assert(baguette_engine_pace:faded(32.0, 5 * ?MINUTE_US) < 1.1).

where_all_are_slow_nobody_is_set_back_test() ->
    ?assertEqual([a, b], order([{a, 100}, {b, 90}], [6.0, 5.0])).

a_slow_one_is_asked_before_a_queue_that_takes_longer_test() ->
    ?assertEqual([b, a, c], order([{a, 100}, {b, 150}, {c, 900}], [4.0, 1.0, 1.0])).

a_newcomer_counts_as_the_middle_of_those_who_are_known_test() ->
    ?assertEqual([0.1, 0.2, 0.3, 0.2], baguette_engine_pace:alike([0.1, unknown, 0.3, 0.2])),
    ?assertEqual([1.0], baguette_engine_pace:alike([unknown])),
    ?assertEqual([0.5, 0.5], baguette_engine_pace:alike([0.5, unknown])).

those_who_are_not_slow_keep_their_order_test() ->
    ?assertEqual([a, b, c], order([{a, 120}, {b, 100}, {c, 90}], [1.0, 1.5, 1.9])).

three_in_four_lie_below_the_quantile_test() ->
    _ = rand:seed(exsss, {1, 2, 3}),
    Typical = lists:foldl(
        fun(_, Sofar) -> baguette_engine_pace:quantile(1.0 + rand:uniform(), Sofar) end,
        9.0, lists:seq(1, 3000)
    ),
    ?assert(abs(Typical - 1.75) < 0.2).

the_budget_is_three_in_a_hundred_test_() ->
    {setup, fun() -> ok = baguette_engine_pace:table() end, fun(_) ->
        ets:delete(baguette_engine_pace)
    end, fun(_) ->
        Sent = [
            begin
                ok = baguette_engine_pace:asked(),
                is_float(baguette_engine_pace:hedge()) andalso baguette_engine_pace:hedged()
            end
         || _ <- lists:seq(1, 1000)
        ],
        Hedges = length([ok || ok <- Sent]),
        [?_assert(Hedges =< 31), ?_assert(Hedges >= 30)]
    end}.

a_published_queue_in_which_we_stood_ourselves_is_no_excuse_test() ->
    %% 25 ms a call, 1 ms there and back, and an average of one call there.
    Holder = #{expected_us => 51000, call_us => 25000, queue => 1},
    ?assertEqual(26000, baguette_engine_pace:expected_us(Holder, 0, 1)),
    ?assertEqual(51000, baguette_engine_pace:expected_us(Holder, 1, 1)),
    ?assertEqual(76000, baguette_engine_pace:expected_us(Holder, 0, 3)),
    ?assertEqual(26000, baguette_engine_pace:expected_us(maps:remove(queue, Holder#{
        expected_us := 26000
    }), 0, 1)).

at_random_every_holder_is_first_at_times_and_none_is_lost_test_() ->
    {setup, fun() ->
        _ = application:load(baguette_engine),
        ok = application:set_env(baguette_engine, choice, random)
    end, fun(_) ->
        ok = application:unload(baguette_engine)
    end, fun() ->
        Holders = [#{node => Node, expected_us => Us} || {Node, Us} <- [{a, 1}, {b, 100}, {c, 9}]],
        Orders = [baguette_engine_pace:in_order(Holders) || _ <- lists:seq(1, 200)],
        ?assertEqual([lists:sort(Holders)], lists:usort([lists:sort(Order) || Order <- Orders])),
        ?assertEqual([a, b, c], lists:usort([Node || [#{node := Node} | _] <- Orders])),
        ok = application:set_env(baguette_engine, choice, best),
        ?assertEqual(
            {error, {bad_setting, choice, best, <<"measured or random">>}},
            baguette_engine_settings:check()
        )
    end}.

order(Holders, Ratios) ->
    Maps = [#{node => Node, expected_us => Us} || {Node, Us} <- Holders],
    [Node || #{node := Node} <- baguette_engine_pace:merged(Maps, Ratios)].
