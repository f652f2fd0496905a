%% @doc This node's experts: one worker process that holds the components placed here, and answers.
%%
%% Called by baguette_cluster (through baguette_engine_component) with what to hold, and by the
%% generations of any node with asks (protocol in baguette_engine_remote_v1). States of components
%% go to baguette_cluster:component_state/2. The worker answers the asking generation itself. What
%% dies with this process: the worker and the asks in it; its monitors tell the generations.
-module(baguette_engine_expert).
-behaviour(gen_server).

-export([start_link/0, hold/1, when_idle/2, asks/0, overview/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
-export([format_status/1]).

-include_lib("kernel/include/logger.hrl").
-define(LOG, #{domain => [baguette, engine]}).

-record(?MODULE, {
    worker :: pid(),
    up = false :: boolean(),
    %% The worker's answer to `machine', needed again with the inventory that follows it.
    machine = #{} :: map(),
    %% What the cluster wants held here.
    wanted = [] :: [binary()],
    ready = #{} :: #{binary() => true},
    %% Loads, unloads and probes in the worker, by reference.
    jobs = #{} :: #{reference() => {load | unload | probe, binary()}}
}).

%% @doc Start the one expert server of this node.
-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Hold exactly these components from now on; their states follow.
-spec hold([binary()]) -> ok.
hold(Components) ->
    gen_server:cast(?MODULE, {hold, Components}).

%% @doc Call an entry point of the worker once nothing else is to be done. The caller gets
%% `{baguette_engine_worker, Ref, Answer}', or nothing when this process dies.
-spec when_idle(reference(), {atom(), binary()}) -> ok.
when_idle(Ref, Call) ->
    gen_server:cast(?MODULE, {when_idle, Ref, self(), Call}).

%% @doc How many asks have come here, ever; no call.
-spec asks() -> non_neg_integer().
asks() ->
    case persistent_term:get(?MODULE, undefined) of
        undefined -> 0;
        Counter -> counters:get(Counter, 1)
    end.

%% @doc What is held here and by which OS process.
-spec overview() -> map().
overview() ->
    gen_server:call(?MODULE, overview).

-spec init([]) -> {ok, #?MODULE{}}.
init([]) ->
    ok = say_idle(),
    _ = persistent_term:get(?MODULE, undefined) =:= undefined andalso
        persistent_term:put(?MODULE, counters:new(1, [])),
    Payload = baguette_engine_worker_entry:model(#{}),
    {ok, Worker} = baguette_engine_worker:start_link(
        baguette_engine_worker_entry:options(expert, [
            {machine, baguette_engine_worker_entry:machine()},
            {inventory, Payload},
            {warm, Payload}
        ])
    ),
    {ok, #?MODULE{worker = Worker}}.

-spec handle_call(overview, {pid(), term()}, #?MODULE{}) -> {reply, map(), #?MODULE{}}.
handle_call(overview, _From, #?MODULE{worker = Worker, ready = Ready, wanted = Wanted} = S) ->
    About = baguette_engine_worker:overview(Worker),
    {reply, About#{components => lists:sort(maps:keys(Ready)), wanted => Wanted}, S}.

-spec handle_cast(
    {hold, [binary()]} | {when_idle, reference(), pid(), {atom(), binary()}}, #?MODULE{}
) -> {noreply, #?MODULE{}}.
handle_cast({when_idle, Ref, To, Call}, S) ->
    ok = baguette_engine_worker:when_idle(S#?MODULE.worker, Ref, To, Call),
    {noreply, S};
handle_cast({hold, Wanted}, #?MODULE{wanted = Before} = S) ->
    Dropped = Before -- Wanted,
    S1 = lists:foldl(fun unload/2, S#?MODULE{wanted = Wanted}, Dropped),
    {noreply, lists:foldl(fun load/2, S1, Wanted -- Before)}.

-spec handle_info(
    baguette_engine_remote_v1:message() | {baguette_engine_worker, reference() | pid(), term()},
    #?MODULE{}
) -> {noreply, #?MODULE{}}.
handle_info({ask, 1, To, Ref, Component, Rows, Payload}, #?MODULE{ready = Ready} = S) ->
    ok = counters:add(persistent_term:get(?MODULE), 1, 1),
    case is_map_key(Component, Ready) of
        true ->
            Call = {velocity, Payload},
            Company = company(Component, Rows),
            ok = baguette_engine_worker:request(S#?MODULE.worker, Ref, To, Call, Company);
        false ->
            Missing = {error, {not_held, #{component => Component}}},
            ok = baguette_engine_remote_v1:answer(To, Ref, Missing)
    end,
    {noreply, S};
handle_info({forget, 1, Ref}, S) ->
    ok = baguette_engine_worker:cancel(S#?MODULE.worker, Ref),
    {noreply, S};
handle_info({baguette_engine_worker, Ref, Answer}, S) when is_reference(Ref) ->
    {noreply, job_done(Ref, Answer, S)};
handle_info({baguette_engine_worker, Worker, What}, #?MODULE{worker = Worker} = S) ->
    {noreply, worker_says(What, S)};
handle_info(Unknown, S) ->
    %% A later version's message: said once a message, by its shape only.
    ?LOG_WARNING(#{what => message_dropped, shape => baguette_engine_private:shape(Unknown)}, ?LOG),
    {noreply, S}.

%% @doc The state names components only; an ask is a message, and those are not shown.
-spec format_status(gen_server:format_status()) -> gen_server:format_status().
format_status(Status) ->
    baguette_engine_private:status(Status, fun(S) -> S end).

%% Calls of one component may be one batch.
company(_Component, {alone, Rows}) -> {alone, Rows};
company(Component, {together, Rows}) -> {Component, Rows}.

%% The worker

worker_says({booted, machine, Payload}, S) ->
    {ok, Machine} = baguette_engine_msgpack:decode(Payload),
    ok = baguette_engine_probes:publish(baguette_engine_facts:machine(Machine)),
    S#?MODULE{machine = Machine};
worker_says({booted, inventory, Payload}, S) ->
    {ok, Inventory} = baguette_engine_msgpack:decode(Payload),
    Model = baguette_engine_model:from_inventory(Inventory, S#?MODULE.machine),
    ok = log_refused(Model),
    ok = baguette_engine_model:put(Model),
    S;
worker_says({booted, warm, _}, S) ->
    S;
worker_says(up, #?MODULE{wanted = Wanted} = S) ->
    lists:foldl(fun load/2, S#?MODULE{up = true}, Wanted);
worker_says(down, #?MODULE{ready = Ready, jobs = Jobs} = S) ->
    ok = baguette_engine_metrics:count(worker_deaths_total, expert),
    %% What it died while loading is told too: it may be what it died of.
    Loading = [C || {load, C} <- maps:values(Jobs)],
    ok = say(restarting, lists:usort(maps:keys(Ready) ++ Loading)),
    S#?MODULE{up = false, ready = #{}, jobs = #{}};
worker_says({failed, Reason}, #?MODULE{wanted = Wanted} = S) ->
    ?LOG_ERROR(#{what => expert_worker_failed, reason => Reason}, ?LOG),
    ok = say(failed, Wanted),
    S.

%% Once, not at every start of the worker.
log_refused(#{refused := Refused}) ->
    Before = case baguette_engine_model:get() of
        {ok, #{refused := Known}} -> Known;
        {error, _} -> []
    end,
    lists:foreach(
        fun(Fault) -> ?LOG_ERROR(Fault#{what => component_refused}, ?LOG) end, Refused -- Before
    ).

%% Components

%% After a crash of this process the cluster still believes in what the last one held; `idle' makes
%% it tell its list again. On the first start nothing is known to be on disk, and nothing is said.
say_idle() ->
    case baguette_engine_model:get() of
        {ok, #{on_disk := OnDisk}} -> say(idle, [C || #{component := C} <- OnDisk]);
        {error, _} -> ok
    end.

say(State, Components) ->
    lists:foreach(fun(C) -> ok = baguette_cluster:component_state(C, State) end, Components).

load(_Component, #?MODULE{up = false} = S) ->
    %% All that is wanted is loaded when the worker comes up.
    S;
load(Component, S) ->
    ok = baguette_cluster:component_state(Component, loading),
    {ok, #{on_disk := OnDisk}} = baguette_engine_model:get(),
    case [Key || #{component := C, key := Key} <- OnDisk, C =:= Component] of
        [Key] ->
            About = #{component => {text, Component}, key => {text, Key}},
            job(load, Component, baguette_engine_worker_entry:model(About), S);
        [] ->
            ?LOG_ERROR(#{what => component_not_on_disk, component => Component}, ?LOG),
            not_loaded(Component, S)
    end.

unload(Component, #?MODULE{ready = Ready} = S) ->
    ok = baguette_cluster:component_state(Component, idle),
    S1 = S#?MODULE{ready = maps:remove(Component, Ready)},
    case S#?MODULE.up of
        true -> job(unload, Component, component_payload(Component), S1);
        false -> S1
    end.

job(Function, Component, Payload, #?MODULE{jobs = Jobs} = S) ->
    Ref = make_ref(),
    ok = baguette_engine_worker:request(S#?MODULE.worker, Ref, self(), {Function, Payload}, last),
    S#?MODULE{jobs = Jobs#{Ref => {Function, Component}}}.

job_done(Ref, Answer, #?MODULE{jobs = Jobs} = S) ->
    case maps:take(Ref, Jobs) of
        {{Job, Component}, Rest} -> done(Job, Component, Answer, S#?MODULE{jobs = Rest});
        error -> S
    end.

done(load, Component, {ok, Loaded}, #?MODULE{wanted = Wanted, ready = Ready} = S) ->
    {ok, #{<<"us_per_mib">> := UsPerMib}} = baguette_engine_msgpack:decode(Loaded),
    ok = baguette_engine_probes:publish(#{load_us_per_mib => UsPerMib}),
    case lists:member(Component, Wanted) of
        true ->
            ?LOG_INFO(#{what => component_ready, component => Component}, ?LOG),
            Payload = baguette_engine_msgpack:encode(#{
                component => {text, Component}, batches => [1]
            }),
            %% Probed before it is called ready, so that the first ask does not wait behind it.
            job(probe, Component, Payload, S#?MODULE{ready = Ready#{Component => true}});
        false ->
            S
    end;
done(load, Component, {error, Reason}, S) ->
    ?LOG_ERROR(#{what => component_not_loaded, component => Component, reason => Reason}, ?LOG),
    not_loaded(Component, S);
done(probe, Component, Answer, #?MODULE{ready = Ready} = S) ->
    ok = log_failed_probe(Answer),
    _ = is_map_key(Component, Ready) andalso baguette_cluster:component_state(Component, ready),
    ok = baguette_engine_probes:ready(),
    S;
done(unload, _Component, _Answer, S) ->
    S.

%% No longer wanted, so that being told to hold it once more tries once more.
not_loaded(Component, #?MODULE{wanted = Wanted} = S) ->
    ok = baguette_cluster:component_state(Component, failed),
    S#?MODULE{wanted = lists:delete(Component, Wanted)}.

%% What it found is told once it was found again in quiet (baguette_engine_probes): a figure from
%% the middle of a start would have everything moved away from a node that is then never asked, and
%% so never put right.
log_failed_probe({ok, _}) ->
    ok;
log_failed_probe({error, Reason}) ->
    ?LOG_WARNING(#{what => probe_failed, reason => Reason}, ?LOG),
    ok.

component_payload(Component) ->
    baguette_engine_msgpack:encode(#{component => {text, Component}}).
