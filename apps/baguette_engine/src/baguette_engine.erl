%% @doc The engine's door: a prompt becomes pictures, whatever dies on the way.
%%
%% Other apps call this module only. Errors are a name and facts; `baguette_text' and the web room
%% make sentences of them. Events of a watched generation are
%% `{baguette_engine, Id, {Kind, Facts}}', Kind one of state, step, warning, waiting, failover,
%% hedge, degraded, and last done, failed or cancelled.
-module(baguette_engine).

%% Generations
-export([generate/1, await/2, result/1, watch/1, watch/2, cancel/1, generations/0, close/0]).
-export([checkpoint/1, predict/1, expect/2, came/1, work_seconds/1, admission/0, limits/0]).
%% The node
-export([model/0, experts/0, workers/0, capabilities/0, overview/0, health/0]).
-export([metrics/0, calls/0, device/0]).
%% For whoever measures
-export([trace/1]).
%% A node with a simulated device
-export([simulate/1]).

-export_type([metric/0]).

-type metric() :: baguette_engine_metrics:metric().
-type foretold() ::
    baguette_engine_foretold:foretold()
    | {error, baguette_engine_request:reason() | {not_ready, map()}}.

%% @doc Check a request and take it in. Keys: prompt, negative_prompt, n, steps, guidance_scale,
%% top_k (an integer or `full'), seed, deterministic, cache, on_missing (wait, degrade or fail);
%% what is omitted comes from the model. With `resume', the bytes of a checkpoint of the same
%% request, it goes on from there. Such a generation may fail with `bad_checkpoint' too, when this
%% node's pipeline is not the one that began it: begin it anew without.
-spec generate(map()) ->
    {ok, binary()}
    | {error,
        baguette_engine_request:reason()
        | {overloaded | not_ready | leaving | bad_checkpoint, map()}}.
generate(Options) ->
    {Resume, Asked} = case maps:take(resume, Options) of
        error -> {none, Options};
        Taken -> Taken
    end,
    checked(baguette_engine_model:get(), Asked, Resume).

checked({error, _} = Error, _Asked, _Resume) ->
    Error;
checked({ok, #{experts := Experts} = Model}, Asked, Resume) ->
    case baguette_engine_request:new(Asked, Model) of
        {ok, Request} ->
            submit(Resume, #{request => Request, experts => Experts}, Model);
        {error, _} = Error ->
            Error
    end.

submit(none, Order, _Model) ->
    baguette_engine_admission:submit(Order);
submit(Bytes, #{request := Request} = Order, Model) ->
    case baguette_engine_checkpoint:read(Bytes, Request, Model) of
        {ok, From} -> baguette_engine_admission:submit(Order#{resume => From});
        {error, _} = Error -> Error
    end.

%% @doc How long such a request would take from its begin, with what is drawn here now, and how long
%% it would wait here for that.
-spec predict(map()) -> foretold().
predict(Options) ->
    foretold(Options, fun baguette_engine_foretold:predict/2).

%% @doc The same of a request that is about to be made: until `came/1', a second at most, it counts
%% as drawn for those that come at the same moment.
-spec expect(Name :: term(), map()) -> foretold().
expect(Name, Options) ->
    foretold(Options, fun(Request, Experts) ->
        baguette_engine_foretold:expect(Name, Request, Experts)
    end).

%% @doc The request of that name was made, or will not be.
-spec came(Name :: term()) -> ok.
came(Name) ->
    baguette_engine_foretold:came(Name).

foretold(Options, Foretell) ->
    case baguette_engine_model:get() of
        {ok, #{experts := Experts} = Model} ->
            case baguette_engine_request:new(Options, Model) of
                {ok, Request} -> Foretell(Request, Experts);
                {error, _} = Error -> Error
            end;
        {error, _} = Error ->
            Error
    end.

%% @doc In how many seconds all that is drawn and waits here is likely to be done, and so many
%% image-steps (a step of one image) that wait elsewhere.
-spec work_seconds(More :: non_neg_integer()) -> float().
work_seconds(More) ->
    baguette_engine_foretold:work_seconds(More).

%% @doc The most images and steps that a request may ask for, whatever the model.
-spec limits() -> #{n | steps := pos_integer()}.
limits() ->
    baguette_engine_request:limits().

%% @doc How many generations work and wait here, and how many may.
-spec admission() -> #{running | waiting | max_running | max_waiting := non_neg_integer()}.
admission() ->
    baguette_engine_admission:overview().

%% @doc The state of a generation after its last whole step, to go on from with `resume'. Bytes are
%% nobody's business but ours; keep them as safe as the pictures.
-spec checkpoint(binary()) ->
    {ok, #{step := non_neg_integer(), bytes := binary()}}
    | {error, {unknown_generation | generation_lost | no_checkpoint, map()}}.
checkpoint(Id) ->
    case with(Id, fun baguette_engine_generation:checkpoint/1) of
        {ok, {Fingerprint, #{step := Step} = State}} ->
            Bytes = baguette_engine_checkpoint:to_bytes(Fingerprint, State),
            {ok, #{step => Step, bytes => Bytes}};
        {error, _} = Error ->
            Error
    end.

%% @doc Wait for a generation's end. The result holds PNG bytes, hashes, routing, seconds per part
%% and who answered what.
-spec await(binary(), timeout()) -> {ok, map()} | {error, {atom(), map()}}.
await(Id, Timeout) ->
    with(Id, fun(Pid) -> baguette_engine_generation:await(Pid, Timeout) end).

%% @doc A generation's end if it has come, `still_running' with its state and step if not.
-spec result(binary()) -> {ok, map()} | {error, {atom(), map()}}.
result(Id) ->
    with(Id, fun baguette_engine_generation:result/1).

%% @doc Send this generation's events to the caller.
-spec watch(binary()) -> ok | {error, {unknown_generation, map()}}.
watch(Id) ->
    watch(Id, #{}).

%% @doc The same; with `previews => true' also what the pictures look like so far, as small PNGs.
-spec watch(binary(), baguette_engine_watchers:options()) ->
    ok | {error, {unknown_generation, map()}}.
watch(Id, Options) when is_map(Options) ->
    Self = self(),
    with(Id, fun(Pid) -> baguette_engine_generation:watch(Pid, Self, Options) end).

%% @doc Stop a generation; nothing of it is delivered afterwards.
-spec cancel(binary()) -> ok | {error, {unknown_generation, map()}}.
cancel(Id) ->
    with(Id, fun baguette_engine_generation:cancel/1).

%% @doc Generations of this node, newest first: running, waiting and lately ended.
-spec generations() -> [map()].
generations() ->
    Now = erlang:monotonic_time(millisecond),
    [
        Overview#{started_ms_ago => Now - Started}
     || {_Id, Pid, Started} <- baguette_engine_admission:list(),
        Overview <- overview_of(Pid)
    ].

%% @doc Take no more requests: this node is about to leave. What was taken goes on.
-spec close() -> ok.
close() ->
    baguette_engine_admission:close().

%% @doc The model this node serves.
-spec model() -> {ok, map()} | {error, {not_ready, map()}}.
model() ->
    case baguette_engine_model:get() of
        {ok, Model} -> {ok, baguette_engine_model:to_map(Model)};
        {error, _} = Error -> Error
    end.

%% @doc Every expert of the model with who can answer for it now.
-spec experts() -> [map()].
experts() ->
    case baguette_engine_model:get() of
        {ok, #{experts := Experts}} ->
            [
                #{
                    component => Component,
                    expert => Number,
                    holders => [Node || #{node := Node} <- baguette_cluster:holders(Component)]
                }
             || {Number, Component} <- lists:zip(lists:seq(0, length(Experts) - 1), Experts)
            ];
        {error, _} ->
            []
    end.

%% @doc This node's OS processes.
-spec workers() -> [map()].
workers() ->
    [baguette_engine_expert:overview(), baguette_engine_pipeline:overview()].

%% @doc What this node is and how fast, as far as it is known by now: the facts in its own report
%% (docs/internals/probes.md): call_us, load_us_per_mib, hardware, speed, memory.
-spec capabilities() -> #{atom() => map() | integer()}.
capabilities() ->
    baguette_engine_probes:published().

%% @doc What is counted and timed on this node since it started, in Prometheus' terms; names without
%% a prefix. Buckets are cumulative.
-spec metrics() -> [metric()].
metrics() ->
    baguette_engine_metrics:all() ++
        baguette_engine_gauges:device(device()).

%% @doc What experts compute on here, as last looked at: every 5 s, when the worker has nothing else
%% to do. Every node knows it of every other as the fact `device_now' of its report.
-spec device() -> baguette_engine_facts:device().
device() ->
    maps:get(device_now, capabilities(), baguette_engine_facts:no_device()).

%% @doc What expert calls took of late, in milliseconds, as this node's generations saw it.
-spec calls() -> [map()].
calls() ->
    baguette_engine_metrics:calls().

%% @doc Watch where the time of calls goes on this node from now on; and what was seen until now.
-spec trace(on | off) -> ok | baguette_engine_trace:trace().
trace(on) -> baguette_engine_trace:on();
trace(off) -> baguette_engine_trace:off().

%% @doc The engine in one map.
-spec overview() -> map().
overview() ->
    #{model => model(), workers => workers(), generations => generations(), experts => experts()}.

%% @doc Whether a request could be served now.
-spec health() -> ok | {degraded, [term()]}.
health() ->
    Missing = [{no_holder, Expert} || #{expert := Expert, holders := []} <- experts()],
    case {model(), Missing} of
        {{ok, _}, []} -> ok;
        {{ok, _}, _} -> {degraded, Missing};
        {{error, Reason}, _} -> {degraded, [Reason]}
    end.

%% @doc Change the simulated device of this node from its next call on: any key of
%% baguette_engine_simulated_settings but the model, e.g. #{speed => 0.1} for a straggler. Refused
%% on a node whose device is real.
-spec simulate(map()) ->
    ok | {error, {not_simulated, map()} | {bad_setting, device, term(), binary()}}.
simulate(Changes) when is_map(Changes) ->
    baguette_engine_settings:simulate(Changes).

with(Id, Fun) ->
    case baguette_engine_admission:lookup(Id) of
        {ok, Pid} -> Fun(Pid);
        {error, _} = Error -> Error
    end.

%% A generation may end between the listing and the question.
overview_of(Pid) ->
    try
        [baguette_engine_generation:overview(Pid)]
    catch
        exit:{_, _} -> []
    end.
