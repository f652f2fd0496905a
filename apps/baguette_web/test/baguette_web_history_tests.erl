%% What a quarter of an hour of samples becomes.
-module(baguette_web_history_tests).
-include_lib("eunit/include/eunit.hrl").

-define(EMPTY, [{0.1, 0}, {1.0, 0}, {infinity, 0}]).

the_first_sample_makes_no_point_test() ->
    ?assertEqual([], points([sample(0, 5, ?EMPTY)])).

images_are_counted_a_minute_test() ->
    [Point] = points([sample(0, 5, ?EMPTY), sample(5, 8, ?EMPTY)]),
    ?assertMatch(#{at := 5, images_per_min := 36.0, step_ms := null, queue := 2}, Point).

a_counter_that_began_anew_is_no_negative_rate_test() ->
    ?assertMatch([#{images_per_min := 0.0}], points([sample(0, 5, ?EMPTY), sample(5, 1, ?EMPTY)])).

a_quarter_of_an_hour_is_kept_test() ->
    Points = points([sample(5 * I, I, ?EMPTY) || I <- lists:seq(0, 400)]),
    ?assertEqual(180, length(Points)),
    ?assertMatch(#{at := 2000}, lists:last(Points)),
    ?assertMatch(#{at := 1105}, hd(Points)).

the_median_is_of_what_came_between_test_() ->
    Before = [{0.1, 50}, {1.0, 100}, {infinity, 100}],
    P50 = fun(After) -> baguette_web_history:p50_ms(Before, After) end,
    [
        ?_assertEqual(null, P50(Before)),
        %% ten more, all within the first bucket: its middle
        ?_assertEqual(50.0, P50([{0.1, 60}, {1.0, 110}, {infinity, 110}])),
        %% all in the second
        ?_assertEqual(550.0, P50([{0.1, 50}, {1.0, 110}, {infinity, 110}])),
        %% beyond the last bound nothing is known
        ?_assertEqual(null, P50([{0.1, 50}, {1.0, 100}, {infinity, 110}])),
        ?_assertEqual(null, baguette_web_history:p50_ms([], []))
    ].

a_histogram_that_begins_later_test() ->
    ?assertEqual(50.0, baguette_web_history:p50_ms([], [{0.1, 4}, {infinity, 4}])).

points(Samples) ->
    baguette_web_history:points(
        lists:foldl(fun baguette_web_history:point/2, baguette_web_history:new(), Samples)
    ).

sample(At, Images, Steps) ->
    #{at => At, images => Images, steps => Steps, queue => 2, utilisation => #{}}.
