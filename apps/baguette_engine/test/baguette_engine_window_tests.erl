%% What is with an OS process, and what it died of.
-module(baguette_engine_window_tests).

-include_lib("eunit/include/eunit.hrl").

an_answer_finds_its_call_once_test() ->
    {Ids, W0} = sent([a, b]),
    {answered, b, W1} = baguette_engine_window:answered(lists:nth(2, Ids), W0),
    ?assertEqual(stray, baguette_engine_window:answered(lists:nth(2, Ids), W1)),
    ?assertEqual(stray, baguette_engine_window:answered(999, W1)),
    ?assertEqual(1, baguette_engine_window:size(W1)).

it_died_of_the_first_and_had_not_begun_the_rest_test() ->
    {[First | _], W} = sent([a, b, c]),
    ?assertEqual({[a], [b, c]}, baguette_engine_window:begun(W)),
    {answered, a, Rest} = baguette_engine_window:answered(First, W),
    ?assertEqual({[b], [c]}, baguette_engine_window:begun(Rest)),
    ?assertEqual({[], []}, baguette_engine_window:begun(baguette_engine_window:new())).

it_died_of_any_of_those_it_computed_as_one_test() ->
    {[First, Second, _], W0} = sent([a, b, c]),
    W1 = baguette_engine_window:as_one([First, Second, 99], fun lists:reverse/1, W0),
    ?assertEqual({[b, a], [c]}, baguette_engine_window:begun(W1)),
    {answered, b, W2} = baguette_engine_window:answered(First, W1),
    ?assertEqual({[a], [c]}, baguette_engine_window:begun(W2)),
    {answered, a, W3} = baguette_engine_window:answered(Second, W2),
    ?assertEqual({[c], []}, baguette_engine_window:begun(W3)).

%% A process that dies of a call nobody waits for any longer did not die of the next one.
a_cancelled_call_that_it_was_at_is_to_blame_test() ->
    {[First, Second, _], W0} = sent([a, b, c]),
    {[First], W1} = dropped(a, W0),
    ?assertEqual({[], [b, c]}, baguette_engine_window:begun(W1)),
    {cancelled, W2} = baguette_engine_window:answered(First, W1),
    ?assertEqual({[b], [c]}, baguette_engine_window:begun(W2)),
    {answered, b, W3} = baguette_engine_window:answered(Second, W1),
    ?assertEqual({[c], []}, baguette_engine_window:begun(W3)).

a_cancelled_call_leaves_a_doubt_until_the_next_answer_test() ->
    {_, W0} = sent([a]),
    {_, W1} = dropped(a, W0),
    ?assertEqual({0, true, true}, looked(W1)),
    {Id, W2} = baguette_engine_window:add(b, W1),
    ?assertEqual({1, true, false}, looked(W2)),
    {answered, b, W3} = baguette_engine_window:answered(Id, W2),
    ?assertEqual({0, false, false}, looked(W3)).

%% It may not have read it.
what_is_cancelled_is_unanswered_until_a_later_answer_test() ->
    {[_, _, Third], W0} = sent([a, b, c]),
    {_, W1} = dropped(a, W0),
    {_, W2} = dropped(b, W1),
    ?assertEqual({1, 3}, {baguette_engine_window:size(W2), baguette_engine_window:unanswered(W2)}),
    {answered, c, W3} = baguette_engine_window:answered(Third, W2),
    ?assertEqual(0, baguette_engine_window:unanswered(W3)).

looked(W) ->
    {
        baguette_engine_window:size(W), baguette_engine_window:is_busy(W),
        baguette_engine_window:is_in_doubt(W)
    }.

dropped(Call, W) ->
    baguette_engine_window:revise(fun(C) when C =:= Call -> drop; (C) -> C end, W).

a_call_may_be_changed_where_it_is_test() ->
    {[First, _], W0} = sent([a, b]),
    {[], W} = baguette_engine_window:revise(fun(a) -> c; (C) -> C end, W0),
    ?assertMatch({answered, c, _}, baguette_engine_window:answered(First, W)).

sent(Calls) ->
    lists:mapfoldl(fun baguette_engine_window:add/2, baguette_engine_window:new(), Calls).
