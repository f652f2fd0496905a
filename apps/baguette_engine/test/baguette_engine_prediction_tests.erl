%% How long a picture will take: the rules of baguette_engine_prediction, one test each.
-module(baguette_engine_prediction_tests).

-include_lib("eunit/include/eunit.hrl").

-define(CALL_US, 100000).
-define(TRIP_US, 20000).

encode_steps_and_decode_are_added_up_test() ->
    Parts = #{encode => 50000, advance => 5000, decode => 300000, step => 1},
    PartUs = fun(Part) -> maps:get(Part, Parts) end,
    ?assertEqual(
        50000 + 10 * (?CALL_US + ?TRIP_US + 5000) + 300000,
        micros(#{}, fun each_its_own/2, PartUs)
    ).

what_was_never_made_is_not_counted_test() ->
    ?assertEqual(10 * (?CALL_US + ?TRIP_US), micros(#{}, fun each_its_own/2, fun none/1)).

%% Which images meet at an expert is not known: at least two of three do, if each asks two of three.
images_of_one_request_that_choose_the_same_expert_wait_for_each_other_test() ->
    Us = micros(#{n => 3}, fun each_its_own/2, fun none/1),
    ?assert(Us > 10 * (2 * ?CALL_US + ?TRIP_US) andalso Us < 10 * (3 * ?CALL_US + ?TRIP_US), Us),
    All = #{n => 3, top_k => full},
    ?assertEqual(10 * (3 * ?CALL_US + ?TRIP_US), micros(All, fun each_its_own/2, fun none/1)).

%% Of three, one is slow: it is asked in some steps, and then it is what the step takes.
the_slowest_that_is_asked_counts_test() ->
    Slow = fun
        (<<"e1">>, _) -> [holder(b, 5 * ?CALL_US, 0)];
        (C, InFlight) -> each_its_own(C, InFlight)
    end,
    One = micros(#{top_k => 1}, Slow, fun none/1),
    Two = micros(#{top_k => 2}, Slow, fun none/1),
    ?assert(One > 10 * (?CALL_US + ?TRIP_US) andalso Two > One, {One, Two}),
    ?assertEqual(10 * (5 * ?CALL_US + ?TRIP_US), micros(#{top_k => full}, Slow, fun none/1)).

experts_of_one_step_on_one_node_wait_for_each_other_test() ->
    One = fun(_, InFlight) -> [holder(a, ?CALL_US, maps:get(a, InFlight, 0))] end,
    ?assertEqual(10 * (2 * ?CALL_US + ?TRIP_US), micros(#{}, One, fun none/1)),
    ?assertEqual(10 * (3 * ?CALL_US + ?TRIP_US), micros(#{top_k => full}, One, fun none/1)).

what_others_have_there_now_is_not_ours_test() ->
    Busy = fun(C, _) -> [(holder(C, ?CALL_US, 7))#{node := C}] end,
    ?assertEqual(10 * (?CALL_US + ?TRIP_US), micros(#{}, Busy, fun none/1)).

an_expert_that_nobody_holds_has_no_time_test() ->
    Without = fun(<<"e1">>, _) -> []; (C, InFlight) -> each_its_own(C, InFlight) end,
    ?assertEqual({error, {no_holder, #{expert => 1}}}, counted(#{}, Without, fun none/1)).

a_holder_that_goes_meanwhile_is_no_crash_test() ->
    Counter = counters:new(1, []),
    Going = fun(C, InFlight) ->
        ok = counters:add(Counter, 1, 1),
        case counters:get(Counter, 1) > 10 of true -> []; false -> each_its_own(C, InFlight) end
    end,
    ?assertMatch({ok, Us} when Us > 0, counted(#{}, Going, fun none/1)).

what_waits_takes_its_work_by_as_many_as_are_drawn_at_once_test() ->
    ?assertEqual(50.0, baguette_engine_prediction:queue_seconds(1000, 0.1, 2)),
    ?assertEqual(0.0, baguette_engine_prediction:queue_seconds(0, 0.1, 2)).

what_was_measured_counts_more_than_what_was_counted_test() ->
    Counted = baguette_engine_foretold:image_step(counted, 5.0, {counted, 0.1}),
    ?assertEqual({counted, 5.0}, Counted),
    Measured = baguette_engine_foretold:image_step(measured, 0.1, Counted),
    ?assertEqual({measured, 0.1}, Measured),
    ?assertEqual(Measured, baguette_engine_foretold:image_step(counted, 5.0, Measured)),
    %% One that took long moves it by less than that.
    {measured, Slower} = baguette_engine_foretold:image_step(measured, 1.1, Measured),
    ?assert(abs(Slower - 0.4) < 1.0e-6).

%% Helpers --------------------------------------------------------------------------------------

each_its_own(C, InFlight) ->
    [(holder(C, ?CALL_US, maps:get(C, InFlight, 0)))#{node := C}].

holder(Node, Us, Before) ->
    #{
        node => Node, key => <<"k">>, call_us => Us, queue => Before,
        expected_us => (Before + 1) * Us + ?TRIP_US
    }.

none(_Part) -> undefined.

micros(Request, Holders, PartUs) ->
    {ok, Us} = counted(Request, Holders, PartUs),
    Us.

counted(Request, Holders, PartUs) ->
    Whole = maps:merge(#{n => 1, steps => 10, top_k => 2}, Request),
    Experts = [<<"e0">>, <<"e1">>, <<"e2">>],
    Known = #{holders => Holders, part => PartUs},
    baguette_engine_prediction:counted_us(Whole, Experts, Known).
