%% @doc The listener, when a port is set; without one the room is empty.
-module(baguette_web_sup).
-behaviour(supervisor).

-export([start_link/1, init/1]).

-spec start_link(baguette_web_settings:settings()) -> {ok, pid()} | {error, term()}.
start_link(Settings) ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, Settings).

-spec init(baguette_web_settings:settings()) ->
    {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(#{port := undefined}) ->
    {ok, {#{}, []}};
init(Settings) ->
    Listener = #{id => listener, start => {baguette_web_http, start_link, [Settings]}},
    {ok, {#{strategy => one_for_one, intensity => 5, period => 10}, [Listener]}}.
