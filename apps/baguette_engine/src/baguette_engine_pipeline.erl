%% @doc This node's pipeline worker: text encoder, router, sampler, VAE; for its own requests only.
%%
%% Called by the generations of this node. The worker is started at once (`pipeline => eager') or at
%% the first request (`on_demand'), because its imports take seconds and hundreds of MB that a node
%% which serves no requests need not pay. Calls wait in the worker's queue while it starts; a worker
%% that cannot boot (bad weights) fails the calls that wait, with the reason. What dies with this
%% process: the worker and the calls in it; generations, which monitor it, make them again.
-module(baguette_engine_pipeline).
-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/0, request/3, when_idle/2, cancel/1, overview/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-record(?MODULE, {
    worker :: pid() | undefined,
    state = idle :: idle | starting | ready | {failed, term()},
    preparing = none :: none | reference()
}).

%% @doc Start the one pipeline server of this node.
-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Call an entry point of the pipeline worker, in this company. The caller gets
%% `{baguette_engine_worker, Ref, {ok, Payload} | {error, {Class, Facts}}}'.
-spec request(reference(), baguette_engine_calls:call(), baguette_engine_calls:company()) -> ok.
request(Ref, Call, Company) ->
    gen_server:cast(?MODULE, {request, Ref, self(), Call, Company}).

%% @doc Call an entry point once nothing else is to be done; an error where no worker was started.
-spec when_idle(reference(), baguette_engine_calls:call()) -> ok.
when_idle(Ref, Call) ->
    gen_server:cast(?MODULE, {when_idle, Ref, self(), Call}).

%% @doc Forget a call: its answer is no longer wanted.
-spec cancel(reference()) -> ok.
cancel(Ref) ->
    gen_server:cast(?MODULE, {cancel, Ref}).

%% @doc What the pipeline worker is doing.
-spec overview() -> map().
overview() ->
    gen_server:call(?MODULE, overview).

-spec init([]) -> {ok, #?MODULE{}}.
init([]) ->
    case baguette_engine_settings:get(pipeline) of
        eager -> {ok, started(#?MODULE{})};
        on_demand -> {ok, #?MODULE{}}
    end.

-spec handle_call(overview, {pid(), term()}, #?MODULE{}) -> {reply, map(), #?MODULE{}}.
handle_call(overview, _From, #?MODULE{worker = undefined} = S) ->
    {reply, #{kind => pipeline, os_pid => undefined, state => idle}, S};
handle_call(overview, _From, #?MODULE{worker = Worker, state = State} = S) ->
    {reply, (baguette_engine_worker:overview(Worker))#{state => State}, S}.

-spec handle_cast(
    baguette_engine_worker:order(), #?MODULE{}
) -> {noreply, #?MODULE{}}.
handle_cast({request, Ref, To, Call, Company}, S0) ->
    S = started(S0),
    ok = baguette_engine_worker:request(S#?MODULE.worker, Ref, To, Call, Company),
    {noreply, S};
handle_cast({when_idle, Ref, To, _Call}, #?MODULE{worker = undefined} = S) ->
    To ! {baguette_engine_worker, Ref, {error, {not_held, #{}}}},
    {noreply, S};
handle_cast({when_idle, Ref, To, Call}, #?MODULE{worker = Worker} = S) ->
    ok = baguette_engine_worker:when_idle(Worker, Ref, To, Call),
    {noreply, S};
handle_cast({cancel, _Ref}, #?MODULE{worker = undefined} = S) ->
    {noreply, S};
handle_cast({cancel, Ref}, #?MODULE{worker = Worker} = S) ->
    ok = baguette_engine_worker:cancel(Worker, Ref),
    {noreply, S}.

-spec handle_info({baguette_engine_worker, pid() | reference(), term()}, #?MODULE{}) ->
    {noreply, #?MODULE{}}.
handle_info({baguette_engine_worker, _, {booted, load, _}}, S) ->
    {noreply, S};
handle_info({baguette_engine_worker, Worker, up}, #?MODULE{worker = Worker} = S) ->
    {noreply, prepare(S#?MODULE{state = ready})};
handle_info({baguette_engine_worker, Ref, Answer}, #?MODULE{preparing = Ref} = S) ->
    {noreply, prepared(Answer, S#?MODULE{preparing = none})};
handle_info({baguette_engine_worker, Ref, _NoLongerWanted}, S) when is_reference(Ref) ->
    {noreply, S};
handle_info({baguette_engine_worker, _, down}, #?MODULE{state = State} = S) ->
    ok = baguette_engine_metrics:count(worker_deaths_total, pipeline),
    {noreply, S#?MODULE{state = case State of {failed, _} -> State; _ -> starting end}};
handle_info({baguette_engine_worker, _, {failed, Reason}}, S) ->
    What = #{what => pipeline_worker_failed, reason => Reason},
    ?LOG_ERROR(What, #{domain => [baguette, engine]}),
    {noreply, S#?MODULE{state = {failed, Reason}}}.

%% What its previews need takes many short pieces, and nobody's first picture is to wait for them.
prepare(#?MODULE{worker = Worker} = S) ->
    Ref = make_ref(),
    Empty = baguette_engine_msgpack:encode(#{}),
    ok = baguette_engine_worker:when_idle(Worker, Ref, self(), {prepare, Empty}),
    S#?MODULE{preparing = Ref}.

prepared({ok, Answer}, S) ->
    case baguette_engine_msgpack:decode(Answer) of
        {ok, #{<<"done">> := true}} -> S;
        {ok, #{<<"done">> := false}} -> prepare(S)
    end;
prepared({error, {Class, _}}, S) when Class =:= not_held; Class =:= died ->
    %% The next process is prepared when it is up.
    S;
prepared({error, Reason}, S) ->
    What = #{what => previews_not_prepared, reason => Reason},
    ?LOG_WARNING(What, #{domain => [baguette, engine]}),
    S.

started(#?MODULE{worker = undefined} = S) ->
    {ok, Worker} = baguette_engine_worker:start_link(
        baguette_engine_worker_entry:options(pipeline, [
            {load, baguette_engine_worker_entry:model(#{})}
        ])
    ),
    S#?MODULE{worker = Worker, state = starting};
started(S) ->
    S.
