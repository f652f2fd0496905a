%% How long peers are waited for.
-module(baguette_cluster_links_tests).
-include_lib("eunit/include/eunit.hrl").

far_peers_have_the_time_of_their_round_trips_test_() ->
    Gone = #{rtt_us => 9000000, state => down},
    Own = fun(Us) -> [#{rtt_us => 200, state => up}, #{rtt_us => Us, state => up}] end,
    [
        ?_assertEqual(500, baguette_cluster_links:patience_ms([])),
        ?_assertEqual(500, baguette_cluster_links:patience_ms(Own(0))),
        ?_assertEqual(1200, baguette_cluster_links:patience_ms(Own(300000))),
        ?_assertEqual(5000, baguette_cluster_links:patience_ms(Own(60000000))),
        ?_assertEqual(500, baguette_cluster_links:patience_ms([Gone]))
    ].
