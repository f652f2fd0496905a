%% @doc One HTTP/1.1 request off a socket, within limits and a deadline. Called by
%% baguette_web_connection.
%%
%% Erlang's own parser reads line and headers ({packet, http_bin}: what it does not know stays a
%% binary, so no atom comes from outside). A deadline holds for the whole of it, not for each part:
%% a client that sends a byte a second is cut off like one that sends none. A body must say its
%% length (no chunked requests): one way of framing is one that nobody disagrees about.
-module(baguette_web_request).

-export([read/3, header/2, lower/1]).
-export_type([request/0, limits/0]).

-type request() :: #{
    method := atom() | binary(),
    target := binary(),                   % path and query as they were sent
    version := {1, 0 | 1},
    headers := [{Name :: binary(), Value :: binary()}],    % names in lower case
    peer := inet:ip_address(),            % the socket's own, whatever a header says
    gone := fun(() -> boolean()),         % whether the client has closed its side meanwhile
    body := binary()
}.
-type limits() :: #{max_body := pos_integer(), request_ms := pos_integer(), _ => _}.

-define(MAX_LINE, 8192).
-define(MAX_HEADERS, 64).
-define(MAX_HEADER_BYTES, 32768).

%% linux/tcp.h: the state is the first byte of TCP_INFO.
-define(IPPROTO_TCP, 6).
-define(TCP_INFO, 11).
-define(TCP_ESTABLISHED, 1).

%% @doc Reads a request whose first line comes within FirstMs; the rest has request_ms.
-spec read(gen_tcp:socket(), FirstMs :: pos_integer(), limits()) ->
    {ok, request()} | {refuse, Status :: 400..599, Detail :: string()} | gone.
read(Socket, FirstMs, Limits) ->
    try
        First = line(Socket, FirstMs),
        Deadline = now_ms() + maps:get(request_ms, Limits),
        request(Socket, First, Deadline, Limits)
    catch
        throw:Refusal -> Refusal
    end.

request(Socket, {http_request, Method, {abs_path, Target}, {1, Minor}}, Deadline, Limits) ->
    Headers = headers(Socket, Deadline, 0, ?MAX_HEADER_BYTES),
    ok = only_one([<<"host">>, <<"origin">>, <<"content-length">>, <<"authorization">>], Headers),
    Peer = peer(Socket),
    #{max_body := Max} = Limits,
    Body = body(Socket, body_length(Headers, Max), {1, Minor}, Headers, Deadline),
    {ok, #{
        method => Method,
        target => Target,
        version => {1, Minor},
        headers => Headers,
        peer => Peer,
        gone => fun() -> is_closed(Socket) end,
        body => Body
    }};
request(_, _, _, _) ->
    bad_request().

-spec bad_request() -> no_return().
bad_request() ->
    throw({refuse, 400, "this is no HTTP/1.1 request for a path on this node"}).

line(Socket, Ms) ->
    case setopts(Socket, [{packet, http_bin}, {packet_size, ?MAX_LINE}]) of
        ok -> received(gen_tcp:recv(Socket, 0, Ms));
        gone -> throw(gone)
    end.

%% Empty lines before a request are to be forgiven (RFC 9112, 2.2), but nobody sends them now.
received({ok, {http_error, _}}) -> bad_request();
received({ok, Packet}) -> Packet;
received({error, emsgsize}) -> throw({refuse, 431, "a line of the request is over 8 KiB"});
received({error, timeout}) -> throw({refuse, 408, "the request did not come in time"});
received({error, _}) -> throw(gone).

headers(_Socket, _Deadline, Count, Left) when Count =:= ?MAX_HEADERS; Left < 0 ->
    throw({refuse, 431, "a request may have 64 headers, 32 KiB in all"});
headers(Socket, Deadline, Count, Left) ->
    case received(gen_tcp:recv(Socket, 0, left(Deadline))) of
        http_eoh -> [];
        {http_header, _, Name, _, Value} ->
            ok = is_one_line(Value),
            Header = {lower(Name), Value},
            [Header | headers(Socket, Deadline, Count + 1, Left - byte_size(Value))];
        _ -> bad_request()
    end.

%% A return alone is a line's end to some readers and none to others.
is_one_line(Value) ->
    case binary:match(Value, [<<"\r">>, <<"\n">>, <<0>>]) of
        nomatch -> ok;
        _ -> bad_request()
    end.

%% @doc In lower case, byte by byte: what comes from a socket need not be text.
-spec lower(atom() | binary()) -> binary().
lower(Name) when is_atom(Name) -> lower(atom_to_binary(Name));
lower(Name) -> << <<(lower_byte(C))>> || <<C>> <= Name >>.

lower_byte(C) when C >= $A, C =< $Z -> C + 32;
lower_byte(C) -> C.

%% Two of these would let two readers of one request disagree.
only_one(Names, Headers) ->
    case [Name || Name <- Names, length([1 || {N, _} <- Headers, N =:= Name]) > 1] of
        [] -> ok;
        [Name | _] -> throw({refuse, 400, ["send one ", Name, " header, not several"]})
    end.

peer(Socket) ->
    case inet:peername(Socket) of
        {ok, {Address, _Port}} -> Address;
        {error, _} -> throw(gone)
    end.

body_length(Headers, Max) ->
    case {header(<<"transfer-encoding">>, Headers), header(<<"content-length">>, Headers)} of
        {undefined, undefined} -> 0;
        {undefined, Length} -> bounded(Length, Max);
        {_, _} -> throw({refuse, 411, "send the body with a Content-Length, not in chunks"})
    end.

bounded(Length, Max) ->
    case baguette_web_number:read(Length) of
        error -> throw({refuse, 400, "Content-Length must be a whole number"});
        {ok, Bytes} when Bytes =< Max -> Bytes;
        {ok, _} -> throw({refuse, 413, io_lib:format("a body may have ~B bytes here", [Max])})
    end.

body(Socket, 0, _Version, _Headers, _Deadline) ->
    ok = present(setopts(Socket, [{packet, raw}])),
    <<>>;
body(Socket, Length, Version, Headers, Deadline) ->
    ok = present(setopts(Socket, [{packet, raw}])),
    ok = go_on(Socket, Version, header(<<"expect">>, Headers)),
    received(gen_tcp:recv(Socket, Length, left(Deadline))).

go_on(Socket, {1, 1}, Expect) when Expect =/= undefined ->
    present(gen_tcp:send(Socket, <<"HTTP/1.1 100 Continue\r\n\r\n">>));
go_on(_, _, _) ->
    ok.

setopts(Socket, Options) ->
    case inet:setopts(Socket, Options) of
        ok -> ok;
        {error, _} -> gone
    end.

present(ok) -> ok;
present(_) -> throw(gone).

left(Deadline) ->
    max(0, Deadline - now_ms()).

now_ms() ->
    erlang:monotonic_time(millisecond).

%% @doc A header's value, by its name in lower case.
-spec header(binary(), [{binary(), binary()}]) -> binary() | undefined.
header(Name, Headers) ->
    case lists:keyfind(Name, 1, Headers) of
        {_, Value} -> Value;
        false -> undefined
    end.

%% Asked of the kernel, because reading would take away what the client may have sent already. Where
%% the kernel does not say, the client counts as there.
is_closed(Socket) ->
    case inet:getopts(Socket, [{raw, ?IPPROTO_TCP, ?TCP_INFO, 1}]) of
        {ok, [{raw, ?IPPROTO_TCP, ?TCP_INFO, <<State>>}]} -> State =/= ?TCP_ESTABLISHED;
        {ok, _} -> false;
        {error, _} -> true
    end.
