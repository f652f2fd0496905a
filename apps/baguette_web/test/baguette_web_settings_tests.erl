%% What is taken and what is refused at start.
-module(baguette_web_settings_tests).
-include_lib("eunit/include/eunit.hrl").

without_a_port_nothing_listens_test() ->
    ?assertMatch({ok, #{port := undefined}}, baguette_web_settings:check([], 'a@10.0.0.1')).

own_loopback_address_test() ->
    ?assertMatch(
        {ok, #{address := {127, 0, 0, 5}, port := 8100, auth := token}},
        baguette_web_settings:check([{port, 8100} | key()], 'baguette@127.0.0.5')
    ).

own_tailnet_address_test() ->
    ?assertMatch(
        {ok, #{address := {100, 64, 0, 1}}},
        baguette_web_settings:check([{port, 8100} | key()], 'baguette@100.64.0.1')
    ).

key() -> [{token_key_file, "run/http.key"}].

the_engines_limits_are_taken_test() ->
    #{n := N, steps := Steps} = baguette_engine:limits(),
    ?assertMatch(
        {ok, #{max_n := N, max_steps := Steps}},
        baguette_web_settings:check([{max_n, N}, {max_steps, Steps}], 'a@10.0.0.1')
    ).

refuses_other_addresses_and_ports_test_() ->
    Refused = [
        {[{port, 8100} | key()], 'baguette@100.63.0.1', address},
        {[{port, 8100} | key()], 'baguette@10.0.0.1', address},
        {[{port, 8100}], 'baguette@127.0.0.2', token_key_file},
        {[{port, 8100}, {auth, none}], 'baguette@100.64.0.1', auth},
        {[{port, 8100}, {auth, basic}], 'baguette@127.0.0.2', auth},
        {[{max_body, 0}], 'baguette@127.0.0.2', max_body},
        {[{max_connections, 1}], 'baguette@127.0.0.2', max_connections},
        {[{hosts, ["studio", 7]}], 'baguette@127.0.0.2', hosts},
        {[{hosts, 5}], 'baguette@127.0.0.2', hosts},
        {[{hosts, ["studio" | more]}], 'baguette@127.0.0.2', hosts},
        {[{teller, 5}], 'baguette@127.0.0.2', teller},
        {[{jobs_dir, 5}], 'baguette@127.0.0.2', jobs_dir},
        {[{max_steps, 251}], 'baguette@127.0.0.2', max_steps},
        {[{max_n, 65}], 'baguette@127.0.0.2', max_n},
        {[{idle_ms, 1.5}], 'baguette@127.0.0.2', idle_ms},
        {[{hosst, []}], 'baguette@127.0.0.2', hosst},
        {[{port, 8100}, {address, "0.0.0.0"}], 'baguette@127.0.0.2', address},
        {[{port, 8100}, {address, "somewhere"}], 'baguette@127.0.0.2', address},
        {[{port, 0}], 'baguette@127.0.0.2', port},
        {[{port, "8100"}], 'baguette@127.0.0.2', port}
    ],
    [
        ?_assertMatch({error, {bad_setting, Key, _, _}}, baguette_web_settings:check(Env, Node))
     || {Env, Node, Key} <- Refused
    ].
