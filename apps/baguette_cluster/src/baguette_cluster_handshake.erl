%% @doc Why there is no link to a peer: the kernel says no more than that there is none. Dials the
%% peer itself and goes through the distribution handshake, under a hidden name of its own, as far
%% as the peer's answer to our secret, then hangs up. Called by baguette_cluster_connector in a
%% process of its own; takes at most the given time, and less where the peer answers.
%%
%% The handshake (Erlang's "Distribution Protocol", version 6; every message behind its length in
%% two bytes, over TLS in four): we send our name and flags; the peer a status, then its name and a
%% challenge; we the MD5 of our secret with that, and a challenge of our own; the peer the same for
%% ours. With another secret it hangs up instead. Over TLS the certificates derive from the secret,
%% so that a refused certificate says the same.
%% The name is the same every time: the peer makes an atom of it.
-module(baguette_cluster_handshake).

-export([why/2, own/0]).
-export_type([why/0, own/0]).

-define(PROBE, "probe@").
-define(LONGEST, 512).      % bytes of a message; a name has at most 255
-define(TLS_ALERT, 16#15).
%% What OTP 25 and 26 demand of each other. Nothing of it is ever used. Not among them: the flag
%% that publishes a node.
-define(FLAGS, (16#4 bor 16#10 bor 16#80 bor 16#100 bor 16#200 bor 16#400 bor 16#800 bor 16#10000
    bor 16#20000 bor 16#40000 bor 16#1000000 bor 16#2000000 bor (1 bsl 34))).

-type why() ::
    refused                 % nobody listens at that port
    | unreachable           % no way to that address
    | timeout               % no sign from there
    | no_answer             % taken, then silence: frozen, or something else listens
    | not_an_erlang_node
    | wants_tls             % it speaks TLS and we do not
    | other_node            % its name is another than the one we look for
    | not_allowed
    | wrong_secret
    | certificate_expired   % or the clocks differ widely
    | none_found.           % the secret is right and the peer answers
-type own() :: #{
    port := inet:port_number(),
    cookie := atom(),
    name := string(),
    tls := none | [term()]  % options of an ssl client
}.
-record(dialled, {
    module :: gen_tcp | ssl,
    socket :: term(),
    deadline :: integer()
}).

%% @doc How this node itself would dial. An error when it was started without a fixed port.
-spec own() -> {ok, own()} | {error, no_fixed_port | {bad_tls_options, term()}}.
own() ->
    case {init:get_argument(erl_epmd_port), tls()} of
        {_, {error, Why}} -> {error, {bad_tls_options, Why}};
        {{ok, [[Port | _] | _]}, {ok, Tls}} ->
            [_, Host] = string:split(atom_to_list(node()), "@"),
            {ok, #{
                port => list_to_integer(Port),
                cookie => erlang:get_cookie(),
                name => ?PROBE ++ Host,
                tls => Tls
            }};
        _ -> {error, no_fixed_port}
    end.

tls() ->
    case {init:get_argument(proto_dist), init:get_argument(ssl_dist_optfile)} of
        {{ok, [["inet_tls"] | _]}, {ok, [[File] | _]}} -> tls_options(file:consult(File));
        {{ok, [["inet_tls"] | _]}, _} -> {ok, []};
        _ -> {ok, none}
    end.

tls_options({ok, [Options]}) -> {ok, proplists:get_value(client, Options, [])};
tls_options({ok, _}) -> {error, not_one_term};
tls_options({error, Why}) -> {error, Why}.

%% @doc Finds out, within so many milliseconds.
-spec why(node(), own() | #{ms := pos_integer(), atom() => term()}) -> why().
why(Peer, #{port := Port, tls := Tls, ms := Ms} = Own) ->
    Deadline = erlang:monotonic_time(millisecond) + Ms,
    {ok, Address} = baguette_cluster_node_name:to_address(Peer),
    case gen_tcp:connect(Address, Port, [binary, {active, false}, {packet, raw}], Ms) of
        {ok, Socket} ->
            Dialled = #dialled{module = gen_tcp, socket = Socket, deadline = Deadline},
            try shake(encrypted(Tls, Address, Dialled), Peer, Own)
            catch throw:Why -> Why
            after gen_tcp:close(Socket)
            end;
        {error, econnrefused} -> refused;
        {error, Why} when Why =:= timeout; Why =:= etimedout -> timeout;
        {error, _} -> unreachable
    end.

encrypted(none, _Address, Dialled) ->
    Dialled;
encrypted(Options, Address, #dialled{socket = Tcp} = Dialled) ->
    {ok, _} = application:ensure_all_started(ssl),
    Quiet = [{log_level, none}, {server_name_indication, Address} | Options],
    case ssl:connect(Tcp, Quiet, left(Dialled)) of
        {ok, Socket} -> Dialled#dialled{module = ssl, socket = Socket};
        {error, Why} -> throw(failed(Why, not_an_erlang_node))
    end.

shake(Dialled, Peer, #{name := Name, cookie := Cookie}) ->
    Length = length(Name),
    Name8 = list_to_binary(Name),
    ok = give(<<"N", ?FLAGS:64, 1:32, Length:16, Name8/binary>>, Dialled),
    ok = status(take(not_an_erlang_node, Dialled), Dialled),
    Theirs = challenge(take(not_an_erlang_node, Dialled), atom_to_binary(Peer)),
    Ours = binary:decode_unsigned(crypto:strong_rand_bytes(4)),
    ok = give(<<"r", Ours:32, (digest(Cookie, Theirs))/binary>>, Dialled),
    Right = digest(Cookie, Ours),
    case take(wrong_secret, Dialled) of
        <<"a", Right:16/binary>> -> none_found;
        <<"a", _/binary>> -> wrong_secret;
        _ -> not_an_erlang_node
    end.

status(<<"sok", _/binary>>, _Dialled) -> ok; % or ok_simultaneous
%% Our last call has not been noticed to be over.
status(<<"salive">>, Dialled) -> give(<<"strue">>, Dialled);
status(<<"snok">>, _Dialled) -> throw(not_allowed);
status(<<"snot_allowed">>, _Dialled) -> throw(not_allowed);
status(_, _Dialled) -> throw(not_an_erlang_node).

challenge(<<"N", _Flags:64, Challenge:32, _:32, Length:16, Name:Length/binary>>, Name) -> Challenge;
challenge(<<"N", _:64, _:32, _:32, Length:16, _Other:Length/binary>>, _) -> throw(other_node);
challenge(_, _) -> throw(not_an_erlang_node).

digest(Cookie, Challenge) ->
    erlang:md5([atom_to_list(Cookie), integer_to_list(Challenge)]).

give(Message, #dialled{module = Module, socket = Socket}) ->
    %% A closed socket shows at the next reading, and there it means something.
    _ = Module:send(Socket, <<(byte_size(Message)):(length_bits(Module)), Message/binary>>),
    ok.

length_bits(gen_tcp) -> 16;
length_bits(ssl) -> 32.

take(IfClosed, #dialled{module = Module} = Dialled) ->
    Bits = length_bits(Module),
    case read(Bits div 8, IfClosed, Dialled) of
        <<?TLS_ALERT, 3>> -> throw(wants_tls);
        <<Length:Bits>> when Length > 0, Length =< ?LONGEST -> read(Length, IfClosed, Dialled);
        _ -> throw(not_an_erlang_node)
    end.

read(Length, IfClosed, #dialled{module = Module, socket = Socket} = Dialled) ->
    case Module:recv(Socket, Length, left(Dialled)) of
        {ok, Data} -> Data;
        {error, Why} -> throw(failed(Why, IfClosed))
    end.

left(#dialled{deadline = Deadline}) ->
    max(0, Deadline - erlang:monotonic_time(millisecond)).

failed(timeout, _IfClosed) -> no_answer;
failed({tls_alert, {certificate_expired, _}}, _IfClosed) -> certificate_expired;
failed({tls_alert, {Alert, _}}, _IfClosed) when
    Alert =:= unknown_ca; Alert =:= bad_certificate; Alert =:= handshake_failure;
    Alert =:= certificate_unknown; Alert =:= certificate_required; Alert =:= decrypt_error;
    Alert =:= access_denied; Alert =:= insufficient_security
-> wrong_secret;
failed(_, IfClosed) -> IfClosed.
