%% @doc Starts the web room, or refuses its settings with their names. A stop is announced first:
%% from then on /readyz says 503, so that who watches sends its requests elsewhere.
-module(baguette_web_app).
-behaviour(application).

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

-spec prep_stop(State) -> State.
prep_stop(State) ->
    ok = baguette_web_health_h:stopping(),
    State.

-spec stop(term()) -> ok.
stop(_State) ->
    ok.
