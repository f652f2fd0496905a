%% @doc Keeps this node's facts true: measures the rest of its speed when nobody asks for anything,
%% and refreshes what real calls and memory show. Pictures never wait for it.
%%
%% baguette_engine_expert tells it when a component is ready. All its calls to the workers go
%% through `when_idle' (see baguette_engine_worker), one at a time to each; `explore' goes in short
%% steps, and only after no ask came for `probe_quiet_ms'. What dies with this process: the
%% call it waits for; the next one starts over, and what was measured is known to the worker.
-module(baguette_engine_probes).
-behaviour(gen_server).

-export([start_link/0, ready/0, publish/1, published/0]).
-export([init/1, handle_cast/2, handle_info/2, handle_call/3]).

-include_lib("kernel/include/logger.hrl").
-define(LOG, #{domain => [baguette, engine]}).

-define(TICK_MS, 500).
%% Real calls are looked at this often while there are any.
-define(SERVED_MS, 3000).
-define(MEMORY_MS, 60000).
-define(DEVICE_MS, 5000).
-define(EMPTY, <<128>>).
-define(MEAN_WEIGHT, 0.2). % of one look, every TICK_MS
-define(CLEARLY, 0.2). % of what was told last

-type job() :: explore | stats | pipeline.

-record(?MODULE, {
    %% Calls not yet answered, by the monitor of the server that was asked.
    jobs = #{} :: #{reference() => job()},
    %% Nothing is left to measure of what is held.
    explored = false :: boolean(),
    %% baguette_engine_expert:asks/0 at the last look, and when it last had grown.
    asks = 0 :: non_neg_integer(),
    asked_ms :: integer(),
    %% The asks that the last `stats' had seen.
    seen_asks = 0 :: non_neg_integer(),
    stats_ms :: integer(),
    memory_ms :: integer(),
    %% As published, and when that was.
    device = baguette_engine_facts:no_device() :: baguette_engine_facts:device(),
    device_ms :: integer(),
    pipeline = none :: none | map(),
    %% Calls at the expert worker: a moving average, and what is published of it.
    queue = {0.0, none} :: {float(), none | non_neg_integer()}
}).

%% @doc Start the one of this node.
-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc A component has become ready: its speed and the memory it takes are to be looked at.
-spec ready() -> ok.
ready() ->
    gen_server:cast(?MODULE, ready).

%% @doc Put facts into this node's report.
-spec publish(baguette_engine_facts:facts()) -> ok.
publish(Facts) ->
    maps:foreach(fun(Key, Value) -> ok = baguette_cluster:publish(Key, Value) end, Facts).

%% @doc The facts in this node's report.
-spec published() -> baguette_engine_facts:facts().
published() ->
    Own = [Extra || #{self := true, report := #{extra := Extra}} <- baguette_cluster:nodes()],
    maps:with(baguette_engine_facts:keys(), lists:foldl(fun maps:merge/2, #{}, Own)).

-spec init([]) -> {ok, #?MODULE{}}.
init([]) ->
    Now = now_ms(),
    Asks = baguette_engine_expert:asks(),
    S = #?MODULE{
        asks = Asks, seen_asks = Asks, asked_ms = Now, stats_ms = Now, memory_ms = Now - ?MEMORY_MS,
        device_ms = Now - ?DEVICE_MS
    },
    {ok, tick(S)}.

-spec handle_call(term(), gen_server:from(), #?MODULE{}) -> {reply, {error, unknown}, #?MODULE{}}.
handle_call(_Unknown, _From, S) ->
    {reply, {error, unknown}, S}.

-spec handle_cast(ready, #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_cast(ready, S) ->
    {noreply, work(S#?MODULE{explored = false, memory_ms = now_ms() - ?MEMORY_MS})}.

-spec handle_info(
    tick
    | {baguette_engine_worker, reference(), baguette_engine_worker:answer()}
    | {'DOWN', reference(), process, term(), term()}
    | term(),
    #?MODULE{}
) -> {noreply, #?MODULE{}}.
handle_info(tick, S) ->
    {noreply, tick(work(S))};
handle_info({baguette_engine_worker, Ref, Answer}, S) ->
    true = demonitor(Ref, [flush]),
    {noreply, answered(Ref, Answer, S)};
handle_info({'DOWN', Ref, process, _, _}, S) ->
    {noreply, answered(Ref, {error, {not_held, #{}}}, S)};
handle_info(_Unknown, S) ->
    ?LOG_WARNING(#{what => message_dropped, by => ?MODULE}, ?LOG),
    {noreply, S}.

tick(S) ->
    _ = erlang:send_after(?TICK_MS, self(), tick),
    S.

%% What to do next

work(S) ->
    Now = now_ms(),
    S1 = look(baguette_engine_expert:asks(), Now, S),
    expert_job(Now, pipeline_job(Now, S1)).

%% A call may take longer than a tick, and a node that only asks is busy too.
look(Asks, Now, #?MODULE{asks = Before, jobs = Jobs} = S) ->
    #{in_flight := InFlight, waiting := Waiting} = baguette_engine_expert:overview(),
    Own = length([Job || Job <- maps:values(Jobs), Job =/= pipeline]),
    Length = max(0, InFlight + Waiting - Own),
    Asked = Asks =/= Before orelse Length > 0,
    #{running := Running} = baguette_engine_admission:overview(),
    ok = baguette_cluster:busy(with(Asked, Running)),
    case Asked of
        true -> queue(Length, S#?MODULE{asks = Asks, asked_ms = Now});
        false -> queue(0, S)
    end.

%% A picture has calls with others or will have some in a moment.
with(_Asked, Running) when Running > 0 -> asking;
with(true, _Running) -> answering;
with(false, _Running) -> none.

%% What others put before their own call when they choose whom to ask (baguette_cluster_holders).
%% Told when it is clearly another: every fact goes to everybody.
queue(Length, #?MODULE{queue = {Before, Said}} = S) ->
    Mean = Before + ?MEAN_WEIGHT * (Length - Before),
    case Said =:= none orelse abs(Mean - Said) > max(0.75, ?CLEARLY * Said) of
        true ->
            ok = publish(#{queue => round(Mean)}),
            S#?MODULE{queue = {Mean, round(Mean)}};
        false ->
            S#?MODULE{queue = {Mean, Said}}
    end.

pipeline_job(Now, #?MODULE{memory_ms = Last} = S) when Now - Last >= ?MEMORY_MS ->
    case busy([pipeline], S) of
        true -> S;
        false -> ask(pipeline, baguette_engine_pipeline, stats, S)
    end;
pipeline_job(_Now, S) ->
    S.

expert_job(Now, S) ->
    #?MODULE{memory_ms = Memory, stats_ms = Stats, asks = Asks, seen_asks = Seen} = S,
    Served = Asks =/= Seen andalso Now - Stats >= ?SERVED_MS,
    case busy([explore, stats], S) of
        true -> S;
        false when Served; Now - Stats >= ?DEVICE_MS; Now - Memory >= ?MEMORY_MS ->
            ask(stats, baguette_engine_expert, stats, S#?MODULE{stats_ms = Now, seen_asks = Asks});
        false -> explore(Now - S#?MODULE.asked_ms, S)
    end.

explore(_Quiet, #?MODULE{explored = true} = S) ->
    S;
explore(Quiet, S) ->
    case Quiet >= baguette_engine_settings:get(probe_quiet_ms) of
        true -> ask(explore, baguette_engine_expert, explore, S);
        false -> S
    end.

busy(Jobs, #?MODULE{jobs = Waiting}) ->
    lists:any(fun(Job) -> lists:member(Job, Jobs) end, maps:values(Waiting)).

%% The monitor is the reference of the call, so whoever dies, something comes back under it.
ask(Job, Server, Function, #?MODULE{jobs = Jobs} = S) ->
    Ref = monitor(process, Server),
    ok = Server:when_idle(Ref, {Function, ?EMPTY}),
    S#?MODULE{jobs = Jobs#{Ref => Job}}.

%% Answers

answered(Ref, Answer, #?MODULE{jobs = Jobs} = S) ->
    case maps:take(Ref, Jobs) of
        {Job, Rest} -> done(Job, decoded(Answer), S#?MODULE{jobs = Rest});
        error -> S
    end.

decoded({ok, Payload}) -> baguette_engine_msgpack:decode(Payload);
decoded({error, _} = Error) -> Error.

done(explore, {ok, #{<<"done">> := true, <<"speed">> := Speed}}, S) ->
    #{call_us := Calls} = Facts = baguette_engine_facts:speed(Speed),
    ok = publish(#{speed => Facts}),
    ok = baguette_engine_batch:learnt(Calls),
    ok = refresh(maps:get(1, Calls, 0), maps:get(call_us, published(), undefined)),
    S#?MODULE{explored = true};
done(explore, {ok, #{<<"done">> := false}}, S) ->
    work(S);
done(explore, {error, {Class, _}}, S) when Class =:= not_held; Class =:= died ->
    %% Its process is gone: the next one becomes ready again.
    S#?MODULE{explored = true};
done(explore, {error, Reason}, S) ->
    ?LOG_WARNING(#{what => probe_failed, reason => Reason}, ?LOG),
    S#?MODULE{explored = true};
done(stats, {ok, #{<<"image_us">> := ImageUs} = Stats}, S) ->
    ok = refresh(ImageUs, maps:get(call_us, published(), undefined)),
    remembered(Stats, device(baguette_engine_facts:device(Stats), S));
done(pipeline, {ok, Stats}, #?MODULE{pipeline = none} = S) ->
    %% It may have taken seconds to start: what was told without it is told anew.
    work(S#?MODULE{pipeline = Stats, memory_ms = now_ms() - ?MEMORY_MS});
done(pipeline, {ok, Stats}, S) ->
    S#?MODULE{pipeline = Stats};
done(pipeline, {error, _}, S) ->
    S#?MODULE{pipeline = none};
done(stats, {error, _}, S) ->
    S.

refresh(ImageUs, Published) ->
    case baguette_engine_facts:differs(Published, ImageUs) of
        true -> publish(#{call_us => ImageUs});
        false -> ok
    end.

%% Looked at with every `stats', and told when it is clearly another.
device(Device, #?MODULE{device = Told, device_ms = Last} = S) ->
    Now = now_ms(),
    case Now - Last >= ?DEVICE_MS andalso baguette_engine_facts:has_changed(Told, Device) of
        true ->
            ok = publish(#{device_now => Device}),
            S#?MODULE{device = Device, device_ms = Now};
        false ->
            S
    end.

remembered(Stats, #?MODULE{memory_ms = Last, pipeline = Pipeline} = S) ->
    Now = now_ms(),
    case Now - Last >= ?MEMORY_MS of
        true ->
            Device = maps:get(<<"device">>, Stats),
            ok = publish(#{memory => baguette_engine_facts:memory(Device, Stats, Pipeline)}),
            S#?MODULE{memory_ms = Now};
        false ->
            S
    end.

now_ms() -> erlang:monotonic_time(millisecond).
