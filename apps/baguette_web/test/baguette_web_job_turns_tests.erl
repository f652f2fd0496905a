%% How many are drawn at once, how much waits, and when to come back.
-module(baguette_web_job_turns_tests).
-include_lib("eunit/include/eunit.hrl").

-import(baguette_web_job_turns, [new/0, in/4, next/2, left/3]).

no_more_than_may_are_drawn_at_once_test() ->
    {First, One} = next(2, waiting([10, 10, 10])),
    {Second, Two} = next(2, One),
    ?assertEqual(none, next(2, Two)),
    ?assertEqual([First, Second], lists:sort(baguette_web_job_turns:running(Two))),
    {Third, _} = next(2, left(<<"a">>, First, Two)),
    ?assertEqual([Third], baguette_web_job_turns:order(Two)).

%% Neither how many jobs nor how many images, but image-steps.
what_waits_is_work_test() ->
    Waiting = waiting([16 * 250, 2]),
    ?assertEqual(4002, baguette_web_job_turns:work(Waiting)),
    {_, Begun} = next(1, waiting([16 * 250])),
    ?assertEqual(0, baguette_web_job_turns:work(Begun)).

when_to_come_back_is_in_whole_seconds_and_bounded_test() ->
    Retry = fun(Seconds) ->
        maps:get(retry_after_seconds, baguette_web_job_turns:load(Seconds, new()))
    end,
    ?assertEqual([1, 1, 2, 3600], [Retry(S) || S <- [0.0, 0.9, 1.1, 1.0e9]]).

waiting(Works) ->
    lists:foldl(
        fun({N, Work}, T) -> in(<<"a">>, integer_to_binary(N), Work, T) end,
        new(),
        lists:enumerate(Works)
    ).
