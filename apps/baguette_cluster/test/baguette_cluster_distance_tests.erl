%% @doc The distance stands still unless it is another one.
-module(baguette_cluster_distance_tests).

-include_lib("eunit/include/eunit.hrl").

-import(baguette_cluster_distance, [new/0, measured/2, us/1]).

often(Trips, S) -> lists:foldl(fun(_, Sofar) -> measured(Trips, Sofar) end, S, lists:seq(1, 12)).

nothing_is_said_before_a_window_was_seen_test() ->
    Almost = lists:foldl(fun(_, S) -> measured([50000], S) end, new(), lists:seq(1, 11)),
    ?assertEqual(0, us(Almost)),
    ?assertEqual(65536, us(measured([50000], Almost))),
    ?assertEqual(65536, us(measured([], measured([50000], Almost)))).

what_is_near_is_nothing_test() ->
    ?assertEqual(0, us(often([300, 900, 700], new()))),
    ?assertEqual(0, us(often([300], often([60000], new())))).

it_is_the_median_of_the_peers_test() ->
    ?assertEqual(8192, us(often([300, 9000, 70000], new()))).

load_for_a_while_changes_nothing_test() ->
    Said = often([9000], new()),
    Loaded = lists:foldl(fun(_, S) -> measured([90000], S) end, Said, lists:seq(1, 11)),
    ?assertEqual(8192, us(Loaded)),
    ?assertEqual(65536, us(often([70000], Loaded))).

it_does_not_flicker_at_an_edge_test() ->
    Said = often([11000], new()),
    ?assertEqual(8192, us(Said)),
    ?assertEqual(8192, us(often([12500], Said))),
    ?assertEqual(16384, us(often([14500], Said))),
    ?assertEqual(16384, us(often([11000], often([14500], Said)))).
