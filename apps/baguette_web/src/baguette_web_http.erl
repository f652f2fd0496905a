%% @doc The listener: mochiweb's socket server on the node's own address, one process a connection
%% (baguette_web_connection). Started by baguette_web_sup; when it dies, its connections die too and
%% it is started again.
-module(baguette_web_http).

-export([start_link/1]).

%% @doc Starts to listen.
-spec start_link(baguette_web_settings:settings()) -> {ok, pid()} | {error, term()}.
start_link(#{address := Address, port := Port, max_connections := Max} = Settings) ->
    mochiweb_socket_server:start_link([
        {name, undefined},
        {ip, Address},
        {port, Port},
        {max, Max},
        {backlog, 1024},
        {nodelay, true},
        {loop, {baguette_web_connection, loop, [Settings]}}
    ]).
