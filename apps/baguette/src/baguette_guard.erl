%% @doc Ends the node when its standard input ends. A launcher that draws one picture and goes
%% (`make demo`) holds the other end of that pipe, so that even its SIGKILL leaves no node behind.
%% Nothing is ever read from the pipe: only its end matters. Needs -noinput, or the shell reads
%% first.
-module(baguette_guard).
-behaviour(gen_server).

-export([start_link/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-include_lib("kernel/include/logger.hrl").

-record(?MODULE, {
    port :: port() % reads file descriptor 0
}).

-spec start_link() -> {ok, pid()} | ignore | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

-spec init([]) -> {ok, #?MODULE{}}.
init([]) ->
    {ok, #?MODULE{port = open_port({fd, 0, 0}, [in, binary, eof])}}.

-spec handle_call(term(), gen_server:from(), #?MODULE{}) ->
    {reply, {error, unknown_call}, #?MODULE{}}.
handle_call(_Request, _From, State) ->
    {reply, {error, unknown_call}, State}.

-spec handle_cast(term(), #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_cast(_Message, State) ->
    {noreply, State}.

-spec handle_info({port(), eof | {data, binary()}} | term(), #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_info({Port, eof}, #?MODULE{port = Port} = State) ->
    ?LOG_INFO(#{what => launcher_gone}, #{domain => [baguette]}),
    ok = init:stop(),
    {noreply, State};
handle_info(_Other, State) ->
    {noreply, State}.
