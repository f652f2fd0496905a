%% How many are drawn at once, and when to come back.
-module(baguette_web_job_turns_tests).
-include_lib("eunit/include/eunit.hrl").

-import(baguette_web_job_turns, [new/0, in/4, next/3, left/3, drawn/3, predicted/3]).

no_more_than_may_are_drawn_at_once_test() ->
    {First, One} = next(2, 0, waiting([10, 10, 10])),
    {Second, Two} = next(2, 0, One),
    ?assertEqual(none, next(2, 0, Two)),
    ?assertEqual([First, Second], lists:sort(baguette_web_job_turns:running(Two))),
    {Third, _} = next(2, 0, left(<<"a">>, First, Two)),
    ?assertEqual([Third], baguette_web_job_turns:order(Two)).

%% Neither how many jobs nor how many images, but image-steps.
when_to_come_back_goes_by_the_work_that_waits_test() ->
    Measured = measured(10, 1000, new()),
    ?assertEqual(1, retry(1, Measured)),
    ?assertEqual(1, retry(1, in(<<"a">>, <<"x">>, 2, Measured))),
    ?assertEqual(400, retry(1, in(<<"a">>, <<"x">>, 16 * 250, Measured))),
    ?assertEqual(200, retry(2, in(<<"a">>, <<"x">>, 16 * 250, Measured))),
    %% Rounded up, and bounded.
    ?assertEqual(2, retry(1, in(<<"a">>, <<"x">>, 11, Measured))),
    ?assertEqual(3600, retry(1, in(<<"a">>, <<"x">>, 1000000, Measured))),
    %% What is drawn is in the way as well.
    {_, Begun} = next(1, 0, in(<<"a">>, <<"x">>, 40, Measured)),
    ?assertEqual(5, retry(1, in(<<"b">>, <<"y">>, 10, Begun))).

what_was_measured_counts_more_than_what_was_predicted_test() ->
    Ten = fun(T) -> in(<<"a">>, <<"x">>, 10, T) end,
    Predicted = predicted(10, 50.0, new()),
    ?assertEqual(50, retry(1, Ten(Predicted))),
    Measured = measured(10, 1000, Predicted),
    ?assertEqual(1, retry(1, Ten(Measured))),
    ?assertEqual(1, retry(1, Ten(predicted(10, 50.0, Measured)))),
    %% One that took long moves it by less than that.
    Slower = retry(1, Ten(measured(10, 11000, Measured))),
    ?assertEqual(4, Slower).

measured(Work, Ms, T) ->
    {Id, Begun} = next(1, 500, in(<<"m">>, <<"measured">>, Work, T)),
    left(<<"m">>, Id, drawn(Id, 500 + Ms, Begun)).

retry(AtOnce, T) -> maps:get(retry_after_seconds, baguette_web_job_turns:load(AtOnce, T)).

waiting(Works) ->
    lists:foldl(
        fun({N, Work}, T) -> in(<<"a">>, integer_to_binary(N), Work, T) end,
        new(),
        lists:enumerate(Works)
    ).
