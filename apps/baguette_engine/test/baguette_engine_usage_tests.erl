%% The moving average of what is asked.
-module(baguette_engine_usage_tests).

-include_lib("eunit/include/eunit.hrl").

-import(baguette_engine_usage, [average/3, per_mille/1]).

few_asks_say_nothing_test() ->
    ?assertEqual(#{}, per_mille(average(#{<<"a">> => 49}, 0, #{}))).

shares_are_of_all_asks_test() ->
    Average = average(#{<<"a">> => 75, <<"b">> => 25}, 5000, #{}),
    ?assertEqual(#{<<"a">> => 750, <<"b">> => 250}, per_mille(Average)).

what_is_asked_now_counts_more_than_what_was_test() ->
    Old = average(#{<<"a">> => 1000}, 0, #{}),
    Later = average(#{<<"b">> => 1000}, 600000, Old),
    ?assertEqual(#{<<"a">> => 333, <<"b">> => 667}, per_mille(Later)).

what_is_never_asked_again_is_forgotten_test() ->
    Old = average(#{<<"a">> => 1000}, 0, #{}),
    ?assertEqual(#{}, average(#{}, 20 * 600000, Old)).
