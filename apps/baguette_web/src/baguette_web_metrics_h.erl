%% @doc GET /metrics: what the engine, the cluster and this room count, for Prometheus. Handler of
%% baguette_web_routes.
-module(baguette_web_metrics_h).

-export([metrics/1, all/0]).

%% @doc Every metric as text; docs/API.md lists them.
-spec metrics(baguette_web_exchange:exchange()) -> baguette_web_exchange:answer().
metrics(_Exchange) ->
    Type = <<"text/plain; version=0.0.4; charset=utf-8">>,
    {reply, 200, [{<<"content-type">>, Type}], baguette_web_prometheus:text(all())}.

%% @doc The same as data: every family once, those with nothing to tell yet too.
-spec all() -> [baguette_engine:metric()].
all() ->
    baguette_engine:metrics() ++
        cluster(baguette_cluster:nodes(), baguette_engine:experts()) ++ own() ++
        jobs(baguette_web_jobs:load()).

cluster(Nodes, Experts) ->
    Peers = [Info || #{self := false} = Info <- Nodes],
    [
        gauge(<<"link_up">>, <<"1 where this node may ask that one now, else 0">>, [
            {peer(Info), one_if(Link =:= up)} || #{link := Link} = Info <- Peers
        ]),
        gauge(<<"link_round_trip_seconds">>, <<"Round trip from this node to that one">>, [
            {peer(Info), Us / 1000000} || #{rtt_us := Us} = Info <- Peers, Us > 0
        ]),
        gauge(<<"expert_holders">>, <<"Nodes that can be asked for this expert now">>, [
            {[{<<"expert">>, integer_to_binary(Expert)}], length(Holders)}
         || #{expert := Expert, holders := Holders} <- Experts
        ])
    ].

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
        gauge(<<"http_open_streams">>, <<"Event streams that are open now">>, [
            {[], baguette_web_counts:streams()}
        ])
    ].

jobs({ok, #{queued := Queued, running := Running}}) ->
    [
        gauge(<<"jobs_queued">>, <<"Jobs that wait for their turn">>, [{[], Queued}]),
        gauge(<<"jobs_running">>, <<"Jobs that are drawn now">>, [{[], Running}])
    ];
jobs({error, _TakesNone}) ->
    [].

gauge(Name, Help, Samples) ->
    #{name => Name, type => gauge, help => Help, samples => Samples}.

peer(#{node := Node}) -> [{<<"node">>, baguette_web_json:address(Node)}].

one_if(true) -> 1;
one_if(false) -> 0.
