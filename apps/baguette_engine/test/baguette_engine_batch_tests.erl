%% How many rows a batch may have, from what calls of so many took.
-module(baguette_engine_batch_tests).

-include_lib("eunit/include/eunit.hrl").

-import(baguette_engine_batch, [rows/1]).

what_was_not_measured_is_guessed_test() ->
    ?assertEqual(16, rows(#{})).

rows_are_taken_while_they_become_cheaper_test() ->
    ?assertEqual(16, rows(#{1 => 20000, 4 => 40000, 16 => 100000})),
    ?assertEqual(4, rows(#{1 => 20000, 4 => 40000, 16 => 160000})),
    ?assertEqual(1, rows(#{1 => 20000, 4 => 80000, 16 => 100000})).

%% 16 rows of a millisecond each gain nothing but what a batch takes beside them.
what_a_batch_takes_beside_its_rows_counts_test() ->
    ?assertEqual(16, rows(#{1 => 1000, 4 => 4000, 16 => 16000})),
    ?assertEqual(1, rows(#{1 => 100000, 4 => 400000, 16 => 1600000})).
