%% @doc Starts the web room, or refuses its settings with their names. A stop (SIGTERM: init:stop/0)
%% is announced first: from then on /readyz says 503 and no job is taken, and what is running is
%% written as far as it is, so that it goes on when the node is started again.
-module(baguette_web_app).
-behaviour(application).

%% Within the -shutdown_time of config/vm.args, with room for the rooms below.
-define(DRAIN_MS, 5000).

-export([start/2, prep_stop/1, stop/1]).

-spec start(application:start_type(), term()) -> {ok, pid(), term()} | {error, term()}.
start(_Type, _Args) ->
    %% OTP puts included_applications there by itself.
    Env = proplists:delete(included_applications, application:get_all_env(baguette_web)),
    case baguette_web_settings:check(Env, node()) of
        {ok, Checked} ->
            case baguette_web_settings:key(Checked) of
                {ok, Settings} -> started(baguette_web_sup:start_link(Settings));
                {error, _} = Error -> Error
            end;
        {error, _} = Error ->
            Error
    end.

started({ok, Pid}) -> {ok, Pid, none};
started({error, _} = Error) -> Error.

%% @doc Called by the application's master before anything of the room is stopped.
-spec prep_stop(State) -> State.
prep_stop(State) ->
    ok = baguette_web_stopping:begun(),
    %% An error is: this node takes no jobs, so there is nothing to write.
    _ = baguette_web_jobs:drain(?DRAIN_MS),
    State.

-spec stop(term()) -> ok.
stop(_State) ->
    ok = baguette_web_stopping:over(),
    baguette_web_jobs_sup:forget().
