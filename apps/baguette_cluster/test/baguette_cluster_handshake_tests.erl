%% @doc Why there is no link, where no Erlang node is at the other end: sockets that refuse, keep
%% silent, say nonsense. Real nodes are in baguette_cluster_SUITE.
-module(baguette_cluster_handshake_tests).

-include_lib("eunit/include/eunit.hrl").

-define(PEER, 'baguette@127.0.0.1').

why(Port, Ms) ->
    Own = #{port => Port, cookie => right, name => "probe@127.0.0.1", tls => none, ms => Ms},
    baguette_cluster_handshake:why(?PEER, Own).

who_does_not_listen_refuses_test() ->
    {ok, Listener} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listener),
    ok = gen_tcp:close(Listener),
    ?assertEqual(refused, why(Port, 1000)).

no_way_is_unreachable_test() ->
    Own = #{port => 9, cookie => right, name => "probe@127.0.0.1", tls => none, ms => 1000},
    ?assertEqual(unreachable, baguette_cluster_handshake:why('baguette@255.255.255.255', Own)).

what_answers_otherwise_is_told_test_() ->
    Status = <<0, 3, "sok">>,
    [
        {atom_to_list(Why) ++ " " ++ integer_to_list(Nth), fun() ->
            ?assertEqual(Why, why(server(Says, Then), 300))
        end}
     || {Nth, {Why, Says, Then}} <- lists:zip(lists:seq(1, 12), [
            {no_answer, <<>>, wait},
            {no_answer, <<0>>, wait},
            {no_answer, Status, wait},
            {not_an_erlang_node, <<>>, close},
            {not_an_erlang_node, <<"HTTP/1.1 400 Bad Request\r\n\r\n">>, wait},
            {not_an_erlang_node, <<0, 4, "what">>, close},
            {not_an_erlang_node, <<Status/binary, 0, 0>>, wait},
            {not_an_erlang_node, <<Status/binary, 0, 5, "Nnonn">>, wait},
            {wants_tls, <<16#15, 3, 3, 0, 2, 2, 70>>, close},
            {not_allowed, <<0, 12, "snot_allowed">>, wait},
            {not_allowed, <<0, 4, "snok">>, wait},
            {other_node, <<Status/binary, 0, 22, $N, 0:64, 1:32, 1:32, 3:16, "a@b">>, wait}
        ])
    ].

%% What a real node does with a wrong secret, and one that has another and does not say so.
a_wrong_secret_is_told_from_the_end_of_the_handshake_test_() ->
    Name = atom_to_binary(?PEER),
    Size = 19 + byte_size(Name),
    Challenge = <<Size:16, $N, 0:64, 7:32, 1:32, (byte_size(Name)):16, Name/binary>>,
    Begin = <<0, 3, "sok", Challenge/binary>>,
    [
        ?_assertEqual(Why, why(server(<<Begin/binary, More/binary>>, Then), 300))
     || {Why, More, Then} <- [
            {wrong_secret, <<>>, answered_then_close},
            {wrong_secret, <<0, 17, $a, 0:128>>, wait},
            {not_an_erlang_node, <<0, 17, $b, 0:128>>, wait},
            {no_answer, <<>>, wait}
        ]
    ].

%% A server for one guest: says at once what it has to say.
server(Says, Then) ->
    {ok, Listener} = gen_tcp:listen(0, [binary, {ip, {127, 0, 0, 1}}, {active, false}]),
    {ok, Port} = inet:port(Listener),
    Server = spawn_link(fun() ->
        receive go -> ok end,
        {ok, Guest} = gen_tcp:accept(Listener),
        ok = gen_tcp:send(Guest, Says),
        then(Then, Guest)
    end),
    ok = gen_tcp:controlling_process(Listener, Server),
    Server ! go,
    Port.

then(close, Guest) ->
    %% Read first: closing with something unread is a reset, and may take what was said with it.
    _ = gen_tcp:recv(Guest, 2, 1000),
    _ = gen_tcp:shutdown(Guest, write);
then(answered_then_close, Guest) ->
    <<Length:16>> = read(Guest, 2),
    <<"N", _/binary>> = read(Guest, Length),
    <<21:16, "r", _:160>> = read(Guest, 23),
    _ = gen_tcp:shutdown(Guest, write);
then(wait, Guest) ->
    wait(Guest).

read(Guest, Length) ->
    {ok, Data} = gen_tcp:recv(Guest, Length, 1000),
    Data.

wait(Guest) ->
    case gen_tcp:recv(Guest, 0) of
        {ok, _} -> wait(Guest);
        {error, _} -> ok
    end.
