%% @doc One look at the doors of engine and cluster, for baguette_web_stream, each in a process of
%% its own: what it asks may be slow.
-module(baguette_web_look).

-export([tell/1]).

-define(EVENTS, 100).

%% @doc Body of a looking process: what it saw is what it ends with, {looked, Seen}.
-spec tell(near | far | sample) -> no_return().
tell(Look) ->
    exit({looked, at(Look)}).

%% near: this node's tables. far: what every node says of itself. sample: a point's worth.
at(near) ->
    #{
        at => now_seconds(),
        node => node(),
        nodes => baguette_cluster:nodes(),
        experts => baguette_engine:experts(),
        model => baguette_engine:model(),
        down => baguette_web_health_h:reasons(),
        degraded => baguette_web_reason:cluster(baguette_cluster:health()),
        load => load(),
        calls => baguette_engine:calls()
    };
at(far) ->
    Nodes = baguette_cluster:nodes(),
    Asked = [N || #{node := N, link := up} <- Nodes],
    #{
        at => now_seconds(),
        nodes => [N || #{node := N} <- Nodes],
        links => baguette_web_links:asked(),
        looks => baguette_web_remote_v1:looks(Asked, ?EVENTS)
    };
at(sample) ->
    Nodes = baguette_cluster:nodes(),
    At = now_seconds(),
    Metrics = baguette_engine:metrics(),
    #{at => At, nodes => Nodes, sample => #{
        at => At,
        images => counted(<<"images_total">>, Metrics),
        steps => buckets(<<"step_seconds">>, Metrics),
        queue => length_of(load()),
        utilisation => maps:from_list([
            {baguette_web_json:address(N), U}
         || #{node := N, report := #{extra := #{device_now := #{utilisation := U}}}} <- Nodes,
            is_number(U)
        ])
    }}.

load() ->
    case baguette_web_jobs:load() of
        {ok, Load} -> Load;
        {error, {no_jobs_dir, _}} -> null
    end.

length_of(#{queued := Queued, running := Running}) -> Queued + Running;
length_of(null) -> 0.

counted(Name, Metrics) ->
    lists:sum([Value || #{name := N, samples := Samples} <- Metrics, N =:= Name,
        {_, Value} <- Samples]).

buckets(Name, Metrics) ->
    lists:append([Buckets || #{name := N, samples := Samples} <- Metrics, N =:= Name,
        {_, #{buckets := Buckets}} <- Samples]).

now_seconds() -> erlang:system_time(millisecond) / 1000.
