%% @doc Starts the web room, or refuses its settings with their names.
-module(baguette_web_app).
-behaviour(application).

-export([start/2, stop/1]).

-spec start(application:start_type(), term()) -> {ok, pid()} | {error, term()}.
start(_Type, _Args) ->
    case baguette_web_settings:check(application:get_all_env(baguette_web), node()) of
        {ok, Settings} -> baguette_web_sup:start_link(Settings);
        {error, _} = Error -> Error
    end.

-spec stop(term()) -> ok.
stop(_State) ->
    ok.
