%% @doc Whom to ask first.
-module(baguette_cluster_holders_tests).

-include_lib("eunit/include/eunit.hrl").

-import(baguette_cluster_fleet, [host/1, component/1, report/2]).

asked(Reports, Links) ->
    Holders = baguette_cluster_holders:all(host(1), Reports, Links),
    [{N, Us} || #{node := N, expected_us := Us} <- maps:get(component(1), Holders, [])].

up(Us) -> #{state => up, heard_ms => 0, rtt_us => Us}.

holding(N, States) ->
    report(N, #{disk => [{C, 1} || C <- lists:seq(1, 8)], states => States}).

who_is_done_first_is_asked_first_test() ->
    Idle = holding(1, #{}),
    Waiting = with(queue, 7, holding(1, #{1 => ready})),
    ?assertEqual([], asked([Idle], #{})),
    ?assertEqual([{host(2), 1300}, {host(1), 8000}],
        asked([Waiting, holding(2, #{1 => ready})], #{host(2) => up(300)})),
    ?assertEqual([{host(1), 1000}], asked([with(queue, -3, holding(1, #{1 => ready}))], #{})).

until_it_says_so_who_holds_less_is_asked_first_test() ->
    All = holding(1, maps:from_list([{C, ready} || C <- lists:seq(1, 8)])),
    One = holding(2, #{1 => ready}),
    Links = #{host(2) => up(300)},
    ?assertEqual([{host(2), 1300}, {host(1), 8000}], asked([All, One], Links)),
    ?assertEqual([{host(1), 1000}, {host(2), 1300}], asked([with(queue, 0, All), One], Links)).

with(Key, Value, Report) ->
    Extra = (baguette_cluster_report:extra(Report))#{Key => Value},
    baguette_cluster_report:set(extra, Extra, Report).

what_is_in_flight_waits_in_front_test() ->
    Links = #{host(2) => up(300), host(3) => up(40000)},
    #{} = All = baguette_cluster_holders:all(host(1), [holding(N, #{1 => ready})
        || N <- [1, 2, 3]], Links),
    C = component(1),
    Asked = fun(InFlight) ->
        Holders = baguette_cluster_holders:in_order(host(1), C, maps:get(C, All), InFlight),
        [{N, Us} || #{node := N, expected_us := Us} <- Holders]
    end,
    ?assertEqual(asked([holding(N, #{1 => ready}) || N <- [1, 2, 3]], Links), Asked(#{})),
    ?assertEqual([{host(2), 1300}, {host(1), 3000}, {host(3), 41000}], Asked(#{host(1) => 2})),
    ?assertEqual([{host(1), 1000}, {host(3), 41000}, {host(2), 101300}], Asked(#{host(2) => 100})).

a_relayed_link_is_the_last_resort_test() ->
    Relayed = (up(10))#{path => relayed},
    Reports = [holding(N, #{1 => ready}) || N <- [2, 3]],
    ?assertEqual([{host(3), 91000}, {host(2), 1010}],
        asked(Reports, #{host(2) => Relayed, host(3) => (up(90000))#{path => direct}})),
    ?assertEqual([{host(3), 91000}, {host(2), 1010}],
        asked(Reports, #{host(2) => Relayed, host(3) => (up(90000))#{path => unknown}})),
    ?assertEqual([{host(2), 1010}], asked(Reports, #{host(2) => Relayed})).

who_leaves_is_not_offered_and_asks_itself_last_test() ->
    [Self, Peer] = [with(leaving, true, holding(N, #{1 => ready})) || N <- [1, 2]],
    Slow = holding(3, #{1 => ready}),
    Links = #{host(2) => up(1), host(3) => up(90000)},
    ?assertEqual([{host(3), 91000}], asked([Peer, Slow], Links)),
    ?assertEqual([{host(3), 91000}, {host(1), 1000}], asked([Self, Slow], Links)).

oneself_wins_a_tie_test() ->
    Near = #{host(2) => up(20), host(3) => up(0)},
    [First | Others] = asked([holding(N, #{1 => ready}) || N <- [3, 2, 1]], Near),
    ?assertEqual({host(1), 1000}, First),
    ?assertEqual([{host(2), 1020}, {host(3), 1000}], lists:sort(Others)).

askers_share_holders_that_are_about_as_fast_test() ->
    Nodes = lists:seq(1, 64),
    Reports = [holding(N, #{1 => ready}) || N <- [65, 66]],
    Links = #{host(65) => up(100), host(66) => up(110)},
    First = fun(Asker) ->
        #{} = Holders = baguette_cluster_holders:all(host(Asker), Reports, Links),
        [#{node := Node} | _] = maps:get(component(1), Holders),
        Node
    end,
    Asked = [First(N) || N <- Nodes],
    [?assert(length([N || N <- Asked, N =:= host(H)]) > 16) || H <- [65, 66]].

neither_suspect_nor_unlinked_nor_loading_is_asked_test() ->
    Links = #{host(2) => (up(1))#{state := suspect}, host(4) => up(1), host(5) => up(1)},
    Reports = [holding(2, #{1 => ready}), holding(3, #{1 => ready}), holding(4, #{1 => loading}),
        holding(5, #{1 => restarting})],
    ?assertEqual([], asked(Reports, Links)).
