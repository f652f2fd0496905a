%% @doc GET /v1/cluster: nodes, experts, plan, links, events. GET /v1/models. Handlers of
%% baguette_web_routes.
-module(baguette_web_cluster_h).

-export([cluster/1, models/1]).

%% @doc The cluster as this node sees it.
-spec cluster(baguette_web_exchange:exchange()) -> baguette_web_exchange:answer().
cluster(_Exchange) ->
    {json, 200, [],
        baguette_web_view:cluster(baguette_cluster:overview(), baguette_engine:experts())}.

%% @doc The model this cluster draws with, in the shape of OpenAI's list.
-spec models(baguette_web_exchange:exchange()) -> baguette_web_exchange:answer().
models(_Exchange) ->
    {json, 200, [], #{object => list, data => baguette_web_view:models(baguette_engine:model())}}.
