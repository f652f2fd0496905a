%% The settings' refusals, the views, and the listener itself over a real socket.
-module(baguette_web_tests).
-include_lib("eunit/include/eunit.hrl").

without_a_port_nothing_listens_test() ->
    ?assertMatch({ok, #{port := undefined}}, baguette_web_settings:check([], 'a@10.0.0.1')).

own_loopback_address_test() ->
    ?assertEqual(
        {ok, #{address => {127, 0, 0, 5}, port => 8100}},
        baguette_web_settings:check([{port, 8100}], 'baguette@127.0.0.5')
    ).

refuses_other_addresses_and_ports_test_() ->
    Refused = [
        {[{port, 8100}], 'baguette@100.64.0.1', address},
        {[{port, 8100}, {address, "0.0.0.0"}], 'baguette@127.0.0.2', address},
        {[{port, 8100}, {address, "somewhere"}], 'baguette@127.0.0.2', address},
        {[{port, 0}], 'baguette@127.0.0.2', port},
        {[{port, "8100"}], 'baguette@127.0.0.2', port}
    ],
    [
        ?_assertMatch({error, {bad_setting, Key, _, _}}, baguette_web_settings:check(Env, Node))
     || {Env, Node, Key} <- Refused
    ].

health_becomes_reasons_test() ->
    ?assertEqual([], baguette_web_view:reasons(ok)),
    Degraded = [{no_holder, 3}, {links_down, ['b@127.0.0.3']}, {not_ready, #{why => starting}}],
    Reasons = baguette_web_view:reasons({degraded, Degraded}),
    ?assertMatch(
        [#{name := no_holder, expert := 3}, #{about := ['b@127.0.0.3']}, #{name := not_ready}],
        Reasons
    ),
    ?assert(is_binary(iolist_to_binary(jiffy:encode(Reasons)))).

listener_test_() ->
    {setup, fun listen/0, fun stop/1, fun({_, Port}) ->
        [
            {"alive", ?_assertMatch({200, _}, fetch(Port, "/healthz", own(Port)))},
            {"unknown path", ?_assertMatch({404, _}, fetch(Port, "/etc/passwd", own(Port)))},
            {"another host name", ?_assertMatch({403, _}, fetch(Port, "/healthz", "evil.example"))},
            {"only GET", ?_assertMatch({405, _}, request(Port, "POST", "/healthz", own(Port)))},
            {"a problem document names its status", fun() ->
                {404, Body} = fetch(Port, "/nothing", own(Port)),
                ?assertMatch(#{<<"status">> := 404}, jiffy:decode(Body, [return_maps]))
            end}
        ]
    end}.

listen() ->
    {ok, Probe} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Probe),
    ok = gen_tcp:close(Probe),
    {ok, Pid} = baguette_web_http:start_link(#{address => {127, 0, 0, 1}, port => Port}),
    {Pid, Port}.

stop({Pid, _Port}) ->
    unlink(Pid),
    Monitor = monitor(process, Pid),
    exit(Pid, shutdown),
    receive {'DOWN', Monitor, process, Pid, _} -> ok after 5000 -> error(listener_lives) end.

own(Port) -> "127.0.0.1:" ++ integer_to_list(Port).

fetch(Port, Path, Host) -> request(Port, "GET", Path, Host).

request(Port, Method, Path, Host) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    Lines = [Method, " ", Path, " HTTP/1.0\r\nHost: ", Host, "\r\nContent-Length: 0\r\n\r\n"],
    ok = gen_tcp:send(Socket, Lines),
    Reply = read(Socket, <<>>),
    <<"HTTP/1.", _, " ", Status:3/binary, _/binary>> = Reply,
    [_, Body] = binary:split(Reply, <<"\r\n\r\n">>),
    {binary_to_integer(Status), Body}.

read(Socket, Read) ->
    case gen_tcp:recv(Socket, 0, 5000) of
        {ok, More} -> read(Socket, <<Read/binary, More/binary>>);
        {error, closed} -> Read
    end.
