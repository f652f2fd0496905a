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

who_holds_less_is_asked_first_test() ->
    Idle = holding(1, #{}),
    All = holding(1, maps:from_list([{C, ready} || C <- lists:seq(1, 8)])),
    ?assertEqual([], asked([Idle], #{})),
    ?assertEqual([{host(2), 1300}, {host(1), 8000}],
        asked([All, holding(2, #{1 => ready})], #{host(2) => up(300)})).

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
