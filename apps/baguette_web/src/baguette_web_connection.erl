%% @doc One connection: requests are read, answered and written one after the other. mochiweb's
%% socket server accepts it and runs loop/3 in a process of its own, which dies with it.
%%
%% mochiweb's own HTTP loop is not used: it waits five minutes for a line, thirty seconds for every
%% further header, and answers bad requests by itself, without our headers.
-module(baguette_web_connection).

-export([loop/3]).

-define(SEND_MS, 15000).
-define(LINGER_MS, 1000).
-define(STRANGER_MS, 5000).

%% @doc Serves a socket until its client or a limit ends it.
-spec loop(gen_tcp:socket(), list(), baguette_web_settings:settings()) -> ok.
loop(Socket, _Options, #{request_ms := FirstMs} = Settings) ->
    %% A client that does not read holds its process this long, not for ever.
    case inet:setopts(Socket, [{send_timeout, ?SEND_MS}, {send_timeout_close, true}]) of
        ok -> serve(Socket, FirstMs, Settings);
        {error, _} -> ok
    end,
    gen_tcp:close(Socket).

serve(Socket, FirstMs, #{idle_ms := IdleMs} = Settings) ->
    case baguette_web_request:read(Socket, FirstMs, Settings) of
        {ok, Request} ->
            Answer = baguette_web_exchange:answer(Request, Settings),
            case write(Socket, Request, Answer) of
                keep -> serve(Socket, patience(Request, Answer, IdleMs), Settings);
                close -> ok
            end;
        {refuse, Status, Detail} ->
            whole(Socket, 'GET', close, baguette_web_exchange:refusal(Status, Detail)),
            linger(Socket);
        gone ->
            ok
    end.

%% Who has shown no token holds one of the connections that others could have.
patience(#{headers := Headers}, {Status, _, _}, IdleMs) ->
    Shown = baguette_web_request:header(<<"authorization">>, Headers) =/= undefined,
    case Shown andalso Status =/= 401 of
        true -> IdleMs;
        false -> min(IdleMs, ?STRANGER_MS)
    end.

write(Socket, #{method := 'HEAD'} = Request, {Status, Headers, Fun}) when is_function(Fun) ->
    write(Socket, Request, {Status, Headers, <<>>});
write(Socket, #{version := Version}, {Status, Headers, Fun}) when is_function(Fun) ->
    Chunked = Version =:= {1, 1},
    send(Socket, baguette_web_reply:stream_head(Status, Headers, Chunked)),
    ok = baguette_web_counts:stream(fun() -> Fun(sender(Socket, Chunked)) end),
    send(Socket, [<<"0\r\n\r\n">> || Chunked]),
    %% Messages that the stream lived on may still come: another request shall not see them.
    close;
write(Socket, #{method := Method} = Request, Answer) ->
    Keep = keep(Request),
    whole(Socket, Method, Keep, Answer),
    Keep.

whole(Socket, Method, Keep, {Status, Headers, Body}) ->
    Head = baguette_web_reply:head(Status, Headers, iolist_size(Body), Keep),
    %% One write, one packet where it fits.
    send(Socket, [Head | [Body || Method =/= 'HEAD']]).

sender(Socket, true) ->
    fun(Data) ->
        %% A chunk of no bytes would end the stream.
        case iolist_size(Data) of
            0 -> ok;
            Size -> send(Socket, [integer_to_list(Size, 16), <<"\r\n">>, Data, <<"\r\n">>])
        end
    end;
sender(Socket, false) ->
    fun(Data) -> send(Socket, Data) end.

send(Socket, Data) ->
    case gen_tcp:send(Socket, Data) of
        ok -> ok;
        {error, _} -> exit({shutdown, client_gone})
    end.

keep(#{version := {1, 1}, headers := Headers}) ->
    case baguette_web_request:header(<<"connection">>, Headers) of
        undefined -> keep;
        Value -> asked(baguette_web_request:lower(Value))
    end;
keep(_) ->
    close.

asked(<<"keep-alive">>) -> keep;
asked(_) -> close.

%% What the client still sends is read away for a moment: closing at once would reset the
%% connection, and the client might never see why it was refused.
linger(Socket) ->
    _ = gen_tcp:shutdown(Socket, write),
    _ = inet:setopts(Socket, [{packet, raw}]),
    linger(Socket, erlang:monotonic_time(millisecond) + ?LINGER_MS).

linger(Socket, Until) ->
    case gen_tcp:recv(Socket, 0, max(0, Until - erlang:monotonic_time(millisecond))) of
        {ok, _} -> linger(Socket, Until);
        {error, _} -> ok
    end.
