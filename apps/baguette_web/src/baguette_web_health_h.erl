%% @doc GET /healthz: does this node answer. GET /readyz: could a picture be drawn now, and if not
%% why, in sentences. Handlers of baguette_web_routes.
-module(baguette_web_health_h).

-export([alive/1, ready/1, reasons/0]).

%% @doc Alive is who answers.
-spec alive(baguette_web_exchange:exchange()) -> baguette_web_exchange:answer().
alive(_Exchange) ->
    {json, 200, [], #{status => ok}}.

%% @doc Ready is a node that takes requests, in a cluster that holds every expert.
-spec ready(baguette_web_exchange:exchange()) -> baguette_web_exchange:answer().
ready(_Exchange) ->
    case reasons() of
        [] -> {json, 200, [], #{status => ready}};
        Reasons -> {json, 503, [], #{status => not_ready, reasons => Reasons}}
    end.

%% @doc Why no picture could be asked of this node now; [] when one could.
-spec reasons() -> [baguette_web_reason:reason()].
reasons() ->
    case baguette_web_stopping:is() of
        true -> [#{name => stopping, detail => <<"this node is being stopped: ask another">>}];
        false ->
            Why = fun baguette_web_reason:why_missing/1,
            baguette_web_reason:engine(baguette_engine:health(), Why)
    end.
