%% @doc Owns one port and the Python process behind it: start, call, cancel, kill, restart.
%%
%% Started by baguette_engine_pipeline and baguette_engine_expert, which it is linked to. It
%% outlives its OS process: when that dies, the call it was at is answered `died', and another
%% process is started with backoff and taken through the boot calls again. What it had not begun
%% waits for that one (pipeline: nobody else has ours) or is answered `not_held' (expert: another
%% node may hold it); the owner's own calls are forgotten, it makes them anew. Stopping this
%% process SIGKILLs the OS process before the port is closed.
%%
%% A call is asynchronous: `request/5' returns at once and the caller later gets
%% `{baguette_engine_worker, Ref, {ok, Payload} | {error, {Class, Facts}}}'. Two batches at most are
%% with the OS process; the rest waits here, where it can be cancelled (baguette_engine_calls). The
%% calls of a caller that dies, or whose node is gone, are cancelled. What is not urgent goes
%% through `when_idle/4': it is sent alone, and only while nothing else is here; whatever comes
%% meanwhile waits for that one call at most, so such calls are short. The owner is told
%% `{baguette_engine_worker, Pid, {booted, Function, Payload} | up | down | {failed, Reason}}'.
%% A process that is hung (baguette_engine_watchdog) is killed, and that is a death like any other.
%% Where the setting `device' says `simulated', baguette_engine_simulated takes the same orders.
-module(baguette_engine_worker).
-behaviour(gen_server).

-export([start_link/1, request/5, when_idle/4, cancel/2, overview/1, stop/1]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).
-export([format_status/1]).

-export_type([options/0, order/0, answer/0, failure/0]).

-include_lib("kernel/include/logger.hrl").

-define(BACKOFF_MS, 100).
-define(MAX_BACKOFF_MS, 10000).
%% Dead this often in a row before its boot calls were answered: it will not start by itself.
-define(FAILED_STARTS, 3).
%% A process that lived this long starts again without a growing backoff.
-define(HEALTHY_MS, 15000).
%% Answered at once by a process that has nothing else to do.
-define(ARE_YOU_THERE, {stats, <<128>>}).
-define(LOG, #{domain => [baguette, engine]}).

-type options() :: #{
    kind := pipeline | expert,
    device => python | simulated, % default: python
    python := file:filename_all(),
    env := [{string(), string() | false}],
    %% Called in order after every start, before any request: {Function, Payload}.
    boot := [{atom(), binary()}],
    %% Without any CPU time for so long, with something to do: hung.
    hung_ms := pos_integer()
}.
%% What the owner is told when the OS process does not come up; it is tried again all the same.
-type failure() ::
    {baguette_engine_frame:error_class(), map()}
    | {python_not_started | worker_not_started, map()}.
-type error_class() :: baguette_engine_frame:error_class() | died | unreachable.
%% What a worker is sent, whichever process it is.
-type order() :: baguette_engine_calls:asked() | {cancel, reference()}.
-type answer() :: {ok, binary()} | {error, {error_class(), map()}}.

-record(?MODULE, {
    owner :: pid(),
    options :: options(),
    %% The live port, or undefined between two OS processes.
    port :: port() | undefined,
    os_pid :: non_neg_integer() | undefined,
    started_ms = 0 :: integer(),
    backoff_ms = ?BACKOFF_MS :: pos_integer(),
    %% Boot calls not yet answered; requests wait until there are none.
    boot = [] :: [{atom(), binary()}],
    calls :: baguette_engine_calls:calls(),
    watch :: baguette_engine_watchdog:watch(),
    deaths = 0 :: non_neg_integer(),
    %% Deaths since it was last up, and the reason once it is told that it does not start.
    failed_starts = 0 :: non_neg_integer(),
    failure = none :: none | failure()
}).

%% @doc Start the owner of one worker, linked to and reporting to the caller.
-spec start_link(options()) -> {ok, pid()} | {error, term()}.
start_link(#{device := simulated} = Options) ->
    baguette_engine_simulated:start_link(Options);
start_link(Options) ->
    gen_server:start_link(?MODULE, {self(), Options}, []).

%% @doc Call an entry point, in this company; the answer goes to `To' under the reference given.
-spec request(
    pid(), reference(), pid(), baguette_engine_calls:call(), baguette_engine_calls:company()
) -> ok.
request(Worker, Ref, To, Call, Company) ->
    gen_server:cast(Worker, {request, Ref, To, Call, Company}).

%% @doc Call an entry point when there is nothing else to do, be it never.
-spec when_idle(pid(), reference(), pid(), baguette_engine_calls:call()) -> ok.
when_idle(Worker, Ref, To, Call) ->
    gen_server:cast(Worker, {when_idle, Ref, To, Call}).

%% @doc Forget a call; its answer, if it still comes, is dropped.
-spec cancel(pid(), reference()) -> ok.
cancel(Worker, Ref) ->
    gen_server:cast(Worker, {cancel, Ref}).

%% @doc What this worker is doing.
-spec overview(pid()) -> map().
overview(Worker) ->
    %% Its owner asks: one that gave up would end, and with it what the process holds.
    gen_server:call(Worker, overview, infinity).

%% @doc Kill the OS process and end.
-spec stop(pid()) -> ok.
stop(Worker) ->
    gen_server:stop(Worker).

%% gen_server

-spec init({pid(), options()}) -> {ok, #?MODULE{}, {continue, start}}.
init({Owner, #{kind := Kind, hung_ms := HungMs} = Options}) ->
    process_flag(trap_exit, true),
    ok = say_unwatched(Kind),
    Watch = baguette_engine_watchdog:new(HungMs),
    Calls = baguette_engine_calls:new(Kind),
    S = #?MODULE{owner = Owner, options = Options, watch = Watch, calls = Calls},
    {ok, S, {continue, start}}.

say_unwatched(Kind) ->
    _ = baguette_engine_watchdog:is_possible() orelse
        ?LOG_NOTICE(#{what => worker_not_watched, kind => Kind, why => no_proc}, ?LOG),
    ok.

-spec handle_continue(start, #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_continue(start, S) ->
    {noreply, start_process(S)}.

-spec handle_call(overview, {pid(), term()}, #?MODULE{}) -> {reply, map(), #?MODULE{}}.
handle_call(overview, _From, S) ->
    #?MODULE{os_pid = OsPid, deaths = Deaths, calls = Calls} = S,
    About = #{kind => kind(S), os_pid => OsPid, state => phase(S), deaths => Deaths},
    {reply, maps:merge(About, baguette_engine_calls:overview(Calls)), S}.

-spec handle_cast(order(), #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_cast({cancel, Ref}, #?MODULE{calls = Calls} = S) ->
    {noreply, dropped(baguette_engine_calls:cancel(Ref, Calls), S)};
handle_cast({request, Ref, To, _, _}, #?MODULE{options = #{kind := expert}} = S) when
    To =/= S#?MODULE.owner, S#?MODULE.deaths > 0,
    S#?MODULE.port =:= undefined orelse S#?MODULE.boot =/= []
->
    %% Asked before our owner had read that its process died: somebody else may hold it meanwhile.
    ok = baguette_engine_remote_v1:answer(To, Ref, {error, {not_held, #{}}}),
    {noreply, S};
handle_cast(Asked, #?MODULE{calls = Calls} = S) ->
    {noreply, send_more(S#?MODULE{calls = baguette_engine_calls:take(Asked, Calls)})}.

-spec handle_info(
    {port(), {data, binary()} | {exit_status, integer()}}
    | {'EXIT', pid() | port(), term()}
    | {'DOWN', reference(), process, pid(), term()}
    | {timeout, reference(), look}
    | restart,
    #?MODULE{}
) -> {noreply, #?MODULE{}} | {stop, term(), #?MODULE{}}.
handle_info({Port, {data, Frame}}, #?MODULE{port = Port} = S) ->
    {noreply, received(baguette_engine_frame:decode(Frame), S)};
handle_info({Port, {exit_status, Status}}, #?MODULE{port = Port} = S) ->
    {noreply, died(#{exit_status => Status}, S#?MODULE{os_pid = undefined})};
handle_info({'EXIT', Port, Reason}, #?MODULE{port = Port} = S) ->
    %% Written to before its death was known: the port has ended with epipe, and with it the hope of
    %% an exit status.
    {noreply, died(#{exit_status => Reason}, S#?MODULE{os_pid = undefined})};
handle_info({timeout, Timer, look}, #?MODULE{os_pid = OsPid} = S) when is_integer(OsPid) ->
    {noreply, seen(baguette_engine_watchdog:look(Timer, OsPid, S#?MODULE.watch), S)};
handle_info({'DOWN', Monitor, process, _, _}, #?MODULE{calls = Calls} = S) ->
    {noreply, dropped(baguette_engine_calls:asker_gone(Monitor, Calls), S)};
handle_info(restart, #?MODULE{port = undefined} = S) ->
    {noreply, start_process(S)};
handle_info({'EXIT', Owner, _Reason}, #?MODULE{owner = Owner} = S) ->
    %% Not the owner's own reason: a crash report would print frames still in the mailbox.
    {stop, {shutdown, owner_gone}, S};
handle_info(_StaleOrUnknown, S) ->
    %% Data and exits of a port that was already closed land here, and so does port's own 'EXIT'.
    {noreply, S}.

-spec terminate(term(), #?MODULE{}) -> ok.
terminate(_Reason, S) ->
    kill(S).

%% @doc Payloads hold prompts and pictures: none of them is printed.
-spec format_status(gen_server:format_status()) -> gen_server:format_status().
format_status(Status) ->
    baguette_engine_private:status(Status, fun(S) ->
        S#?MODULE{calls = baguette_engine_calls:new(kind(S)), boot = []}
    end).

%% The OS process

start_process(#?MODULE{options = Options} = S) ->
    #{python := Python, kind := Kind, env := Env, boot := Boot} = Options,
    try
        Port = open_port({spawn_executable, Python}, [
            {args, ["-P", "-m", "baguette.worker", atom_to_list(Kind)]},
            {env, Env},
            {packet, 4},
            binary,
            nouse_stdio,
            exit_status,
            %% baguette_engine_calls bounds what the driver holds; a busy port would refuse a frame.
            {busy_limits_port, disabled},
            {busy_limits_msgq, disabled}
        ]),
        {os_pid, OsPid} = erlang:port_info(Port, os_pid),
        ?LOG_INFO(#{what => worker_started, kind => Kind, os_pid => OsPid}, ?LOG),
        send_more(S#?MODULE{
            port = Port, os_pid = OsPid, boot = Boot, started_ms = now_ms()
        })
    catch
        error:Reason ->
            ?LOG_ERROR(#{what => worker_not_started, kind => Kind, reason => Reason}, ?LOG),
            again(failed({python_not_started, #{python => Python, reason => Reason}}, S))
    end.

died(How, S) ->
    #?MODULE{options = #{kind := Kind}, port = Port} = S,
    ?LOG_WARNING(How#{what => worker_died, kind => Kind}, ?LOG),
    catch port_close(Port),
    ok = tell(S, down),
    again(counted(How, S#?MODULE{
        port = undefined,
        os_pid = undefined,
        deaths = S#?MODULE.deaths + 1,
        watch = baguette_engine_watchdog:off(S#?MODULE.watch),
        calls = baguette_engine_calls:forsake(How, S#?MODULE.owner, rest(Kind), S#?MODULE.calls)
    })).

%% Nobody else has our pipeline; another node may hold the expert.
rest(pipeline) -> wait;
rest(expert) -> not_held.

%% A process that dies before it was up has told nobody why: after a few of them this one does.
counted(_How, #?MODULE{boot = []} = S) ->
    S;
counted(How, #?MODULE{failed_starts = Before} = S) when Before + 1 >= ?FAILED_STARTS ->
    #?MODULE{options = #{kind := Kind}} = S,
    Facts = How#{worker => Kind, times => Before + 1},
    failed({worker_not_started, Facts}, S#?MODULE{failed_starts = Before + 1});
counted(_How, #?MODULE{failed_starts = Before} = S) ->
    S#?MODULE{failed_starts = Before + 1}.

failed(Reason, S) ->
    ok = tell(S, {failed, Reason}),
    Calls = baguette_engine_calls:refuse(Reason, S#?MODULE.calls),
    S#?MODULE{failure = Reason, calls = Calls}.

again(#?MODULE{started_ms = Started, backoff_ms = Backoff} = S) ->
    Now = case now_ms() - Started > ?HEALTHY_MS of
        true -> ?BACKOFF_MS;
        false -> Backoff
    end,
    erlang:send_after(Now, self(), restart),
    S#?MODULE{backoff_ms = min(2 * Now, ?MAX_BACKOFF_MS)}.

kill(#?MODULE{port = undefined}) ->
    ok;
kill(#?MODULE{port = Port, os_pid = OsPid}) ->
    %% Closing alone leaves a busy or stopped process behind, so it is killed first; no exit status
    %% has come while the port is open here, so the pid is still its own.
    _ = is_integer(OsPid) andalso os:cmd("kill -KILL " ++ integer_to_list(OsPid)),
    catch port_close(Port),
    ok.

%% A process that hangs

seen({stale, _}, S) ->
    S;
seen({Verdict, Watch}, #?MODULE{calls = Calls} = S) ->
    case baguette_engine_calls:is_busy(Calls) of
        true -> judged(Verdict, S#?MODULE{watch = Watch});
        false -> S#?MODULE{watch = baguette_engine_watchdog:off(Watch)}
    end.

judged(hung, S) ->
    hung(S);
judged(alive, #?MODULE{calls = Calls} = S) ->
    case baguette_engine_calls:is_in_doubt(Calls) of
        true -> send_own(?ARE_YOU_THERE, are_you_there, S);
        false -> S
    end.

hung(#?MODULE{options = #{kind := Kind, hung_ms := Ms}, os_pid = OsPid} = S) ->
    ?LOG_WARNING(#{what => worker_hung, kind => Kind, os_pid => OsPid, idle_ms => Ms}, ?LOG),
    kill(S),
    died(#{exit_status => killed, hung => true}, S).

%% Calls

dropped({Ids, Calls}, S) ->
    ok = lists:foreach(fun(Id) -> send(S, baguette_engine_frame:cancel(Id)) end, Ids),
    send_more(S#?MODULE{calls = Calls}).

send_more(#?MODULE{port = undefined} = S) ->
    S;
send_more(#?MODULE{boot = [First | _], calls = Calls} = S) ->
    case baguette_engine_calls:in_flight(Calls) of
        0 -> send_own(First, boot, S);
        _ -> S
    end;
send_more(#?MODULE{boot = [], calls = Calls0} = S) ->
    case baguette_engine_calls:next(fun baguette_engine_batch:most/1, Calls0) of
        {send, Id, {Function, _} = Call, With, Calls} ->
            Company = baguette_engine_batch:company(Function, With),
            send_more(send_call(Id, Call, Company, S#?MODULE{calls = Calls}));
        in_doubt ->
            send_own(?ARE_YOU_THERE, are_you_there, S);
        none ->
            S
    end.

send_own({Function, Payload}, What, #?MODULE{calls = Calls0} = S) ->
    {Id, Calls} = baguette_engine_calls:sent(What, Calls0),
    send_call(Id, {Function, [Payload]}, alone, S#?MODULE{calls = Calls}).

send_call(Id, {Function, Payloads}, Company, #?MODULE{watch = Watch} = S) ->
    send(S, baguette_engine_frame:call(Id, entry_module(S), Function, Payloads, Company)),
    S#?MODULE{watch = baguette_engine_watchdog:on(Watch)}.

kind(#?MODULE{options = #{kind := Kind}}) -> Kind.

entry_module(#?MODULE{options = #{kind := pipeline}}) -> 'baguette.worker.pipeline_entry';
entry_module(#?MODULE{options = #{kind := expert}}) -> 'baguette.worker.expert_entry'.

%% A process that does not read must not stop this one from reading its own messages, so the port is
%% never busy (see start_process) and nosuspend says so once more.
send(#?MODULE{port = undefined}, _Frame) ->
    ok;
send(#?MODULE{port = Port}, Frame) ->
    try
        true = erlang:port_command(Port, Frame, [nosuspend]),
        ok
    catch
        %% The port closed under us: its end is on its way and says so to everybody.
        error:badarg -> ok
    end.

received({result, Id, Results}, S) ->
    answered(Id, lists:map(fun result/1, Results), S);
received({error, Id, Error}, S) ->
    answered(Id, result({error, Error}), S);
received({begun, Ids}, #?MODULE{calls = Calls} = S) ->
    S#?MODULE{calls = baguette_engine_calls:as_one(Ids, Calls)};
received({message, _}, S) ->
    ?LOG_WARNING(#{what => message_dropped, from => worker}, ?LOG),
    S;
received(malformed, S) ->
    ?LOG_ERROR(#{what => malformed_frame, from => worker}, ?LOG),
    kill(S),
    died(#{exit_status => malformed_frame}, S).

result({ok, _} = Result) ->
    Result;
result({error, {Class, Message, Trace}}) ->
    ?LOG_INFO(#{what => call_failed, class => Class, message => Message, at => Trace}, ?LOG),
    {error, {Class, #{message => Message}}}.

answered(Id, Answer, #?MODULE{calls = Calls0, watch = Watch} = S) ->
    case baguette_engine_calls:answered(Id, Answer, Calls0) of
        {What, Calls} ->
            Well = S#?MODULE{calls = Calls, watch = baguette_engine_watchdog:answered(Watch)},
            ok = baguette_engine_batch:computed(What),
            send_more(case What of boot -> boot_answered(Answer, Well); _ -> Well end);
        malformed ->
            received(malformed, S);
        stray ->
            %% Answered twice, or to nobody: it does no harm, but this process is not sound.
            ?LOG_WARNING(#{what => stray_answer, call => Id}, ?LOG),
            S
    end.

boot_answered([{ok, Payload}], #?MODULE{boot = [{Function, _} | Boot]} = S) ->
    tell(S, {booted, Function, Payload}),
    up(S#?MODULE{boot = Boot});
boot_answered([_, _ | _], S) ->
    received(malformed, S);
boot_answered({error, Reason}, #?MODULE{options = #{kind := Kind}} = S) ->
    %% Most likely the weights: say so, and try again at the pace of the backoff.
    ?LOG_ERROR(#{what => worker_boot_failed, kind => Kind, reason => Reason}, ?LOG),
    kill(S),
    died(#{exit_status => boot_failed}, failed(Reason, S)).

up(#?MODULE{boot = []} = S) ->
    ok = tell(S, up),
    S#?MODULE{failed_starts = 0, failure = none};
up(S) ->
    S.

tell(#?MODULE{owner = Owner}, What) ->
    Owner ! {?MODULE, self(), What},
    ok.

phase(#?MODULE{failure = Reason}) when Reason =/= none -> {failed, Reason};
phase(#?MODULE{port = undefined}) -> restarting;
phase(#?MODULE{boot = []}) -> ready;
phase(_) -> booting.

now_ms() -> erlang:monotonic_time(millisecond).
