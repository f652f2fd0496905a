%% @doc GET /v1/stream: what the dashboard draws, as server-sent events (baguette_web_stream has
%% them). Handler of baguette_web_routes; runs in the connection's own process until either ends.
-module(baguette_web_stream_h).

-export([stream/1]).

-spec stream(baguette_web_exchange:exchange()) -> baguette_web_exchange:answer().
stream(_Exchange) ->
    {stream, baguette_web_sse:headers(), fun(Send) ->
        Server = monitor(process, baguette_web_stream),
        ok = baguette_web_stream:watch(),
        forward(Server, Send)
    end}.

forward(Server, Send) ->
    receive
        {baguette_web_stream, Batch} ->
            ok = Send(Batch),
            forward(Server, Send);
        {'DOWN', Server, process, _, _} ->
            ok
    end.
