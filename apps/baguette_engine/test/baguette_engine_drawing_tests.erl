%% When what a node draws is told: soon, and less often the more nodes there are.
-module(baguette_engine_drawing_tests).

-include_lib("eunit/include/eunit.hrl").

-import(baguette_engine_drawing, [wait_ms/2]).

a_change_is_told_soon_test() ->
    ?assertEqual(100, wait_ms(0, 1000000)),
    ?assertEqual(100, wait_ms(63, 1000000)).

who_has_just_told_waits_longer_the_more_there_are_test() ->
    ?assertEqual(150, wait_ms(3, 10)),
    ?assertEqual(2550, wait_ms(63, 10)).
