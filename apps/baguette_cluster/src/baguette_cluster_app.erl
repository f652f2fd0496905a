%% @doc Starts the room. Bad settings refuse the start with a term that names the culprit; a stop
%% says goodbye first, so that a node that leaves in order is gone from every list at once instead
%% of after gone_ms. Called by the application controller only.
-module(baguette_cluster_app).

-behaviour(application).

-export([start/2, prep_stop/1, stop/1]).

-spec start(application:start_type(), term()) -> {ok, pid()} | {error, term()}.
start(_Type, _Args) ->
    Env = application:get_all_env(baguette_cluster),
    case baguette_cluster_settings:check(Env, node()) of
        {ok, Settings} -> baguette_cluster_sup:start_link(Settings);
        {error, Reason} -> {error, Reason}
    end.

-spec prep_stop(State) -> State.
prep_stop(State) ->
    ok = baguette_cluster_gossip:leave(),
    State.

-spec stop(term()) -> ok.
stop(_State) ->
    ok.
