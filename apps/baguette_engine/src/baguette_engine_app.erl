%% @doc Starts the engine; refuses bad settings before anything runs.
-module(baguette_engine_app).
-behaviour(application).

-export([start/2, stop/1]).

-spec start(application:start_type(), term()) -> {ok, pid()} | {error, term()}.
start(_Type, _Args) ->
    case baguette_engine_settings:check() of
        ok -> baguette_engine_sup:start_link();
        {error, _} = Error -> Error
    end.

-spec stop(term()) -> ok.
stop(_State) ->
    %% The next start may be on another directory.
    baguette_engine_model:forget().
