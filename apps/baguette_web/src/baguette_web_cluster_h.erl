%% @doc GET /v1/cluster: nodes, experts, plan, links, events. GET /v1/models. Handlers of
%% baguette_web_routes.
-module(baguette_web_cluster_h).

-export([cluster/1, models/1]).

-define(EVENTS, 50).
-define(MAX_EVENTS, 1000).

%% @doc The cluster as this node sees it; `events' says how many of the last events come along.
-spec cluster(baguette_web_exchange:exchange()) -> baguette_web_exchange:answer().
cluster(#{query := Query}) ->
    case events(maps:get(<<"events">>, Query, undefined)) of
        {ok, Events} ->
            {json, 200, [], view(Events)};
        error ->
            Detail = io_lib:format("events must be a whole number in 0..~b", [?MAX_EVENTS]),
            {problem, baguette_web_problem:new(422, Detail, #{field => events})}
    end.

events(undefined) ->
    {ok, ?EVENTS};
events(Text) ->
    case baguette_web_number:read(Text) of
        {ok, N} when N =< ?MAX_EVENTS -> {ok, N};
        _ -> error
    end.

view(Events) ->
    baguette_web_view:cluster(#{
        node => node(),
        model => baguette_engine:model(),
        down => baguette_web_health_h:reasons(),
        degraded => baguette_web_reason:cluster(baguette_cluster:health()),
        overview => baguette_cluster:overview(),
        nodes => baguette_cluster:nodes(),
        experts => baguette_engine:experts(),
        links => baguette_web_links:recent(),
        events => baguette_web_teller:recent(Events)
    }).

%% @doc The model this cluster draws with, in the shape of OpenAI's list.
-spec models(baguette_web_exchange:exchange()) -> baguette_web_exchange:answer().
models(_Exchange) ->
    {json, 200, [], #{object => list, data => baguette_web_view:models(baguette_engine:model())}}.
