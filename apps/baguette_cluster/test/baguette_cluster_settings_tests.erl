%% @doc Settings: defaults that stand, and refusals that name the culprit.
-module(baguette_cluster_settings_tests).

-include_lib("eunit/include/eunit.hrl").

-import(baguette_cluster_settings, [check/2, defaults/0]).

nothing_set_is_fine_test() ->
    ?assertEqual({ok, defaults()}, check([], nonode@nohost)).

the_address_is_the_nodes_own_test() ->
    ?assertMatch({ok, #{address := "10.1.2.3"}}, check([], 'baguette@10.1.2.3')).

culprits_are_named_test_() ->
    [
        {atom_to_list(Key),
            ?_assertMatch({error, {bad_setting, Key, _, _}}, check(Env, 'baguette@10.1.2.3'))}
     || {Key, Env} <- [
            {peers, [{peers, ["10.0.0.300"]}]},
            {peers, [{peers, "10.0.0.1"}]},
            {beat_ms, [{beat_ms, 0}]},
            {suspect_ms, [{suspect_ms, 600}]},
            {gone_ms, [{gone_ms, 1000}]},
            {settle_ms, [{settle_ms, soon}]},
            {measure_ms, [{measure_ms, 1}]},
            {max_peers, [{max_peers, 5000}]},
            {finder, [{finder, "static"}]},
            {address, [{address, "10.9.9.9"}]},
            {component_module, [{component_module, <<"x">>}]},
            {colour, [{colour, blue}]}
        ]
    ].
