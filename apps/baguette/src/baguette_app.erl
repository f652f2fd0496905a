%% @doc Starts the face, and with it (boot/0) the rooms below on a node that was started by hand or
%% by scripts/cluster.py. A release starts the same applications from its boot file instead. When a
%% room refuses its settings the node says so in a sentence and ends: there is nothing to retry.
-module(baguette_app).
-behaviour(application).

-export([boot/0]).
-export([start/2, stop/1]).

-include_lib("kernel/include/logger.hrl").

%% EX_CONFIG of sysexits.h: a keeper need not start this again (scripts/launcher/keeper.py).
-define(REFUSED, 78).

-spec boot() -> ok | no_return().
boot() ->
    %% As a release's boot file does: settings are there before the first room starts, because the
    %% lowest calls the engine's component module early.
    _ = [application:load(App) || App <- [baguette_cluster, baguette_engine, baguette]],
    %% A room that is given up takes the node with it: half a node would look alive to its peers.
    case application:ensure_all_started(baguette, permanent) of
        {ok, _} ->
            ok;
        {error, {App, Reason}} ->
            What = #{what => start_refused, app => App, reason => Reason},
            ?LOG_ERROR(What, #{domain => [baguette]}),
            init:stop(status(Reason))
    end.

%% Settings do not mend themselves; a port that is taken may be free the next time.
status({bad_setting, _, _, _}) -> ?REFUSED;
status({Reason, {_Module, start, _Args}}) -> status(Reason);
status(_) -> 1.

-spec start(application:start_type(), term()) -> {ok, pid()} | {error, term()}.
start(_Type, _Args) ->
    case application:get_env(baguette, guard, none) of
        Guard when Guard =:= none; Guard =:= stdin -> baguette_sup:start_link(Guard);
        Other -> {error, {bad_setting, guard, Other, "must be none or stdin"}}
    end.

-spec stop(term()) -> ok.
stop(_State) ->
    ok.
