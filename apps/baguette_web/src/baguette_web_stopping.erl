%% @doc Whether this node is being stopped: said by baguette_web_app, asked by handlers and jobs. A
%% persistent term, because it is asked with every request and written twice in a node's life.
-module(baguette_web_stopping).

-export([begun/0, over/0, is/0]).

%% @doc From now on this node is not ready.
-spec begun() -> ok.
begun() ->
    persistent_term:put(?MODULE, true).

%% @doc The room has stopped; when it is started again it is ready.
-spec over() -> ok.
over() ->
    _ = persistent_term:erase(?MODULE),
    ok.

%% @doc Whether it is being stopped, or leaves the cluster, which ends in a stop.
-spec is() -> boolean().
is() ->
    persistent_term:get(?MODULE, false) orelse
        lists:any(
            fun(#{self := IsSelf, leaving := Leaves}) -> IsSelf andalso Leaves end,
            baguette_cluster:nodes()
        ).
