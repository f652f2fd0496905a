%% @doc GET /metrics: what the engine, the cluster and this room count, for Prometheus. Handler of
%% baguette_web_routes.
-module(baguette_web_metrics_h).

-export([metrics/1]).

-spec metrics(baguette_web_exchange:exchange()) -> baguette_web_exchange:answer().
metrics(_Exchange) ->
    Type = <<"text/plain; version=0.0.4; charset=utf-8">>,
    {reply, 200, [{<<"content-type">>, Type}], baguette_web_prometheus:text(own())}.

own() ->
    [
        #{
            name => <<"http_requests_total">>,
            type => counter,
            help => <<"Answers by route and status">>,
            samples => [
                {[{<<"route">>, Route}, {<<"status">>, integer_to_binary(Status)}], Count}
             || {Route, Status, Count} <- baguette_web_counts:requests()
            ]
        },
        #{
            name => <<"http_open_streams">>,
            type => gauge,
            help => <<"Event streams that are open">>,
            samples => [{[], baguette_web_counts:streams()}]
        }
    ].
