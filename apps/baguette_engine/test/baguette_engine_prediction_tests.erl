%% How long a picture will take: the rules of baguette_engine_prediction, one test each.
-module(baguette_engine_prediction_tests).

-include_lib("eunit/include/eunit.hrl").

-define(CALL_US, 100000).
-define(TRIP_US, 20000).

encode_steps_and_decode_are_added_up_test() ->
    Usually = #{encode => 50000, advance => 5000, decode => 300000, step => 1},
    Usual = fun(Part) -> maps:get(Part, Usually) end,
    ?assertEqual(
        50000 + 10 * (?CALL_US + ?TRIP_US + 5000) + 300000,
        micros(#{}, fun each_its_own/2, Usual)
    ).

what_calls_take_against_what_is_expected_counts_test() ->
    Once = fun(step) -> 1; (_) -> undefined end,
    Known = #{usual => Once, typical => 4.0},
    ?assertEqual(40 * (?CALL_US + ?TRIP_US), micros(#{}, fun each_its_own/2, Known)).

what_was_never_made_is_not_counted_test() ->
    ?assertEqual(10 * (?CALL_US + ?TRIP_US), micros(#{}, fun each_its_own/2, fun none/1)).

images_of_one_request_are_computed_one_after_the_other_test() ->
    ?assertEqual(10 * (3 * ?CALL_US + ?TRIP_US), micros(#{n => 3}, fun each_its_own/2, fun none/1)).

the_slowest_that_may_be_asked_counts_test() ->
    Slow = fun
        (<<"e1">>, _) -> [holder(b, 5 * ?CALL_US, 0)];
        (C, InFlight) -> each_its_own(C, InFlight)
    end,
    ?assertEqual(10 * (5 * ?CALL_US + ?TRIP_US), micros(#{top_k => 1}, Slow, fun none/1)).

experts_of_one_step_on_one_node_wait_for_each_other_test() ->
    One = fun(_, InFlight) -> [holder(a, ?CALL_US, maps:get(a, InFlight, 0))] end,
    ?assertEqual(10 * (2 * ?CALL_US + ?TRIP_US), micros(#{}, One, fun none/1)),
    ?assertEqual(10 * (3 * ?CALL_US + ?TRIP_US), micros(#{top_k => full}, One, fun none/1)).

what_others_have_there_now_is_not_ours_test() ->
    Busy = fun(C, _) -> [(holder(C, ?CALL_US, 7))#{node := C}] end,
    ?assertEqual(10 * (?CALL_US + ?TRIP_US), micros(#{}, Busy, fun none/1)).

an_expert_that_nobody_holds_has_no_time_test() ->
    Without = fun(<<"e1">>, _) -> []; (C, InFlight) -> each_its_own(C, InFlight) end,
    ?assertEqual({error, {no_holder, #{expert => 1}}}, seconds(#{}, Without, fun none/1)).

%% Helpers --------------------------------------------------------------------------------------

each_its_own(C, InFlight) ->
    [(holder(C, ?CALL_US, maps:get(C, InFlight, 0)))#{node := C}].

holder(Node, Us, Before) ->
    #{
        node => Node, key => <<"k">>, call_us => Us, queue => Before,
        expected_us => (Before + 1) * Us + ?TRIP_US
    }.

none(_Part) -> undefined.

micros(Request, Holders, Usual) ->
    {ok, #{seconds := Seconds}} = seconds(Request, Holders, Usual),
    round(Seconds * 1000000).

seconds(Request, Holders, Usual) when is_function(Usual) ->
    seconds(Request, Holders, #{usual => Usual, typical => 1.0});
seconds(Request, Holders, Known) ->
    Whole = maps:merge(#{n => 1, steps => 10, top_k => 2}, Request),
    Experts = [<<"e0">>, <<"e1">>, <<"e2">>],
    baguette_engine_prediction:seconds(Whole, Experts, Known#{holders => Holders}).
