%% @doc A worker that computes nothing: it answers as baguette_engine_worker with Python behind it
%% would, after the time its setting says. For measuring the cluster's and the engine's own cost on
%% more nodes than there are machines. Declared wherever it is seen: workers, model, components,
%% keys, results and pictures say `simulated'.
%%
%% Started by baguette_engine_worker:start_link/1 where the setting `device' says so; the protocol
%% (calls, cancels, what the owner is told) stands there. One call computes at a time, or several
%% that may go together, in turn as baguette_engine_turns says. A call begins when the one before it
%% ended by the device's own clock, in microseconds, and is answered at the nearest millisecond:
%% what a timer rounds is not added up over the calls that wait. The settings are read at every
%% call. What dies with this process: the calls in it.
-module(baguette_engine_simulated).
-behaviour(gen_server).

-export([start_link/1]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2]).
-export([format_status/1]).

-include_lib("kernel/include/logger.hrl").
-define(LOG, #{domain => [baguette, engine]}).

-type outcome() :: baguette_engine_simulated_model:outcome().

-record(call, {
    %% `boot' is answered to the owner; `nobody': cancelled while it was computed.
    to :: {pid(), reference()} | boot | nobody,
    monitor :: reference() | undefined, % of who waits for it
    function :: atom(),
    payload :: binary(),
    arrived_us :: integer()
}).

-record(?MODULE, {
    owner :: pid(),
    kind :: pipeline | expert,
    %% Called after every start, and those of them not yet answered.
    boot :: [{atom(), binary()}],
    booting :: [{atom(), binary()}],
    alive = true :: boolean(),
    memory = baguette_engine_simulated_model:new() :: baguette_engine_simulated_model:memory(),
    computing :: undefined | {reference(), [{#call{}, outcome()}, ...]},
    %% When the last call ended by the device's clock: before that the next one does not begin.
    free_us :: integer(),
    waiting = baguette_engine_turns:new() :: baguette_engine_turns:turns(#call{}),
    %% Not urgent: begun while nobody else waits.
    idle = queue:new() :: queue:queue(#call{}),
    deaths = 0 :: non_neg_integer(),
    %% What all that was begun so far takes, and how many batches of an expert's calls it was.
    busy_us = 0 :: non_neg_integer(),
    batches = 0 :: non_neg_integer(),
    loads = 0 :: non_neg_integer(),
    unloads = 0 :: non_neg_integer(),
    loaded_at_ms = 0 :: integer() % of the last load; since 1970, for other machines' clocks
}).

%% @doc Start a simulated worker, linked to and reporting to the caller.
-spec start_link(baguette_engine_worker:options()) -> {ok, pid()} | {error, term()}.
start_link(Options) ->
    gen_server:start_link(?MODULE, {self(), Options}, []).

-spec init({pid(), baguette_engine_worker:options()}) ->
    {ok, #?MODULE{}, {continue, start}}.
init({Owner, #{kind := Kind, boot := Boot}}) ->
    %% So that it ends with its owner, however that ends.
    process_flag(trap_exit, true),
    ?LOG_NOTICE(#{what => simulated_device, kind => Kind}, ?LOG),
    S = #?MODULE{owner = Owner, kind = Kind, boot = Boot, booting = Boot, free_us = now_us()},
    {ok, S, {continue, start}}.

-spec handle_continue(start, #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_continue(start, S) ->
    {noreply, start(S)}.

-spec handle_call(overview, {pid(), term()}, #?MODULE{}) -> {reply, map(), #?MODULE{}}.
handle_call(overview, _From, #?MODULE{computing = Computing, waiting = Waiting} = S) ->
    {reply,
        #{
            kind => S#?MODULE.kind,
            simulated => true,
            os_pid => undefined,
            state => phase(S),
            in_flight => case Computing of undefined -> 0; {_, Done} -> length(Done) end,
            waiting => baguette_engine_turns:size(Waiting),
            waiting_bytes => baguette_engine_turns:weight(Waiting),
            deaths => S#?MODULE.deaths,
            busy_us => S#?MODULE.busy_us,
            batches => S#?MODULE.batches,
            loads => S#?MODULE.loads,
            unloads => S#?MODULE.unloads,
            loaded_at_ms => S#?MODULE.loaded_at_ms
        },
        S}.

-spec handle_cast(baguette_engine_worker:order(), #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_cast({request, Ref, To, {_, Payload} = Call, Company}, #?MODULE{waiting = Waiting} = S) ->
    case Company =:= last orelse baguette_engine_room:is_there(S#?MODULE.kind, Payload, Waiting) of
        true ->
            Weight = baguette_engine_room:weight(Payload),
            In = baguette_engine_turns:in(arrived(Ref, To, Call), To, Company, Weight, Waiting),
            {noreply, next(S#?MODULE{waiting = In})};
        false ->
            ok = baguette_engine_room:refuse(To, Ref),
            {noreply, S}
    end;
handle_cast({when_idle, Ref, To, Call}, #?MODULE{idle = Idle} = S) ->
    {noreply, next(S#?MODULE{idle = queue:in(arrived(Ref, To, Call), Idle)})};
handle_cast({cancel, Ref}, S) ->
    {noreply, dropped(fun(#call{to = To}) -> is_tuple(To) andalso element(2, To) =:= Ref end, S)}.

arrived(Ref, To, {Function, Payload}) ->
    #call{
        to = {To, Ref}, monitor = erlang:monitor(process, To), function = Function,
        payload = Payload, arrived_us = now_us()
    }.

-spec handle_info(
    {timeout, reference(), computed} | restart | {'DOWN', reference(), process, pid(), term()},
    #?MODULE{}
) -> {noreply, #?MODULE{}}.
handle_info({'DOWN', Monitor, process, _, _}, S) ->
    {noreply, dropped(fun(#call{monitor = M}) -> M =:= Monitor end, S)};
handle_info({timeout, Timer, computed}, #?MODULE{computing = {Timer, Done}} = S) ->
    ok = spin(maps:get(exact, settings()), S#?MODULE.free_us),
    {noreply, next(all_computed(Done, S#?MODULE{computing = undefined}))};
handle_info(restart, S) ->
    {noreply, start(S#?MODULE{alive = true})};
handle_info(_StaleOrUnknown, S) ->
    {noreply, S}.

%% @doc Payloads hold prompts: none of them is printed.
-spec format_status(gen_server:format_status()) -> gen_server:format_status().
format_status(Status) ->
    baguette_engine_private:status(Status, fun(S) ->
        S#?MODULE{
            waiting = baguette_engine_turns:new(), idle = queue:new(), computing = undefined,
            boot = [], booting = []
        }
    end).

%% Computing

start(#?MODULE{boot = Boot} = S) ->
    next(S#?MODULE{
        booting = Boot, memory = baguette_engine_simulated_model:new(), free_us = now_us()
    }).

next(#?MODULE{alive = false} = S) ->
    S;
next(#?MODULE{computing = {_, _}} = S) ->
    S;
next(#?MODULE{booting = [{Function, Payload} | _], free_us = Free} = S) ->
    Call = #call{to = boot, function = Function, payload = Payload, arrived_us = Free},
    compute([Call], S);
next(#?MODULE{waiting = Waiting} = S) ->
    Most = fun(#call{function = Function}) -> baguette_engine_batch:most(Function) end,
    case baguette_engine_turns:out(Most, Waiting) of
        {[#call{function = Function} | _] = Calls, {_, Rows}, _, Rest} ->
            ok = baguette_engine_batch:computed({Function, Rows}),
            compute(Calls, S#?MODULE{waiting = Rest});
        empty ->
            next_idle(S)
    end.

next_idle(#?MODULE{idle = Idle} = S) ->
    case queue:out(Idle) of
        {{value, Call}, Rest} -> compute([Call], S#?MODULE{idle = Rest});
        {empty, _} -> S
    end.

compute(Calls, #?MODULE{memory = Memory0, free_us = Free} = S) ->
    Settings = settings(),
    {Answers, Memory} = lists:mapfoldl(
        fun(#call{function = Function, payload = Payload}, M0) ->
            {Us, Outcome, M} =
                baguette_engine_simulated_model:answer(Function, Payload, Settings, M0),
            {{Us, told_to(Settings, Outcome)}, M}
        end,
        Memory0,
        Calls
    ),
    {Times, Outcomes} = lists:unzip(Answers),
    [#call{function = Function} | _] = Calls,
    Us = baguette_engine_simulated_model:together_us(Function, Times, Settings),
    End = lists:max([Free | [Arrived || #call{arrived_us = Arrived} <- Calls]]) + Us,
    Timer = erlang:start_timer(timer_ms(End, Settings), self(), computed, [{abs, true}]),
    S#?MODULE{
        memory = Memory,
        free_us = End,
        busy_us = S#?MODULE.busy_us + Us,
        batches = S#?MODULE.batches + length([Function || Function =:= velocity]),
        computing = {Timer, lists:zip(Calls, Outcomes)}
    }.

%% The nearest millisecond: a timer comes in the one after that which it is set for.
timer_ms(End, #{exact := false}) -> (End - 500) div 1000;
timer_ms(End, #{exact := true}) -> End div 1000 - 1.

spin(true, End) ->
    case now_us() < End of
        true -> spin(true, End);
        false -> ok
    end;
spin(false, _End) ->
    ok.

told_to(#{fail := Class}, {ok, #{velocities := _}}) when Class =/= none ->
    {error, {Class, #{message => <<"a simulated device was told to fail">>}}};
told_to(_Settings, Outcome) ->
    Outcome.

%% One of them may be what it dies of, and then all of them were with it.
all_computed(Done, S) ->
    case [Call || {Call, {error, {died, _}}} <- Done] of
        [] -> lists:foldl(fun({Call, Outcome}, Now) -> computed(Call, Outcome, Now) end, S, Done);
        [_ | _] -> died([Call || {Call, _} <- Done], S)
    end.

computed(#call{to = boot, function = Function}, {ok, Answer}, S) ->
    [_ | Booting] = S#?MODULE.booting,
    ok = tell(S, {booted, Function, baguette_engine_msgpack:encode(Answer)}),
    _ = Booting =:= [] andalso tell(S, up),
    S#?MODULE{booting = Booting};
computed(#call{function = Function} = Call, Outcome, S) ->
    ok = answer(Call, packed(Outcome)),
    counted(Function, Outcome, S).

packed({ok, Answer}) -> {ok, baguette_engine_msgpack:encode(Answer)};
packed({error, _} = Error) -> Error.

counted(load, {ok, _}, #?MODULE{loads = Loads} = S) ->
    S#?MODULE{loads = Loads + 1, loaded_at_ms = erlang:system_time(millisecond)};
counted(unload, {ok, _}, #?MODULE{unloads = Unloads} = S) ->
    S#?MODULE{unloads = Unloads + 1};
counted(_Function, _Outcome, S) ->
    S.

%% As of a real worker's process: whoever it computed for is told that it died of it, the rest had
%% not begun, and the owner makes its own calls anew.
died(Calls, #?MODULE{owner = Owner, kind = Kind, waiting = Waiting, idle = Idle} = S) ->
    ?LOG_WARNING(#{what => simulated_worker_died, kind => Kind}, ?LOG),
    Died = {error, {died, #{exit_status => simulated}}},
    ok = lists:foreach(fun(Call) -> answer(Call, Died) end, Calls),
    ok = not_held(queue:to_list(Idle)),
    IsOwn = fun(#call{to = {To, _}}) -> To =:= Owner end,
    {Own, Left} = baguette_engine_turns:drop(IsOwn, Waiting),
    ok = lists:foreach(fun forget/1, Own),
    Kept = case Kind of
        pipeline ->
            Left;
        expert ->
            ok = not_held(baguette_engine_turns:to_list(Left)),
            baguette_engine_turns:new()
    end,
    ok = tell(S, down),
    _ = erlang:send_after(maps:get(restart_ms, settings()), self(), restart),
    S#?MODULE{
        alive = false, waiting = Kept, idle = queue:new(), deaths = S#?MODULE.deaths + 1
    }.

not_held(Calls) ->
    lists:foreach(fun(Call) -> ok = answer(Call, {error, {not_held, #{}}}) end, Calls).

dropped(Is, #?MODULE{waiting = Waiting0, idle = Idle0} = S) ->
    {Gone1, Waiting} = baguette_engine_turns:drop(Is, Waiting0),
    {Gone2, Idle} = lists:partition(Is, queue:to_list(Idle0)),
    ok = lists:foreach(fun forget/1, Gone1 ++ Gone2),
    unheard(Is, S#?MODULE{waiting = Waiting, idle = queue:from_list(Idle)}).

%% What is being computed is computed to its end: a device cannot be called back.
unheard(Is, #?MODULE{computing = {Timer, Done}} = S) ->
    Heard = [{unheard_if(Is(Call), Call), Outcome} || {Call, Outcome} <- Done],
    S#?MODULE{computing = {Timer, Heard}};
unheard(_Is, S) ->
    S.

unheard_if(true, Call) ->
    ok = forget(Call),
    Call#call{to = nobody, monitor = undefined};
unheard_if(false, Call) ->
    Call.

answer(#call{to = {To, Ref}} = Call, Answer) ->
    ok = forget(Call),
    baguette_engine_remote_v1:answer(To, Ref, Answer);
answer(#call{}, _Answer) ->
    ok.

forget(#call{monitor = undefined}) ->
    ok;
forget(#call{monitor = Monitor}) ->
    true = erlang:demonitor(Monitor, [flush]),
    ok.

tell(#?MODULE{owner = Owner}, What) ->
    Owner ! {baguette_engine_worker, self(), What},
    ok.

settings() ->
    {simulated, Given} = baguette_engine_settings:get(device),
    baguette_engine_simulated_settings:in_effect(Given).

phase(#?MODULE{alive = false}) -> restarting;
phase(#?MODULE{booting = []}) -> ready;
phase(_) -> booting.

now_us() -> erlang:monotonic_time(microsecond).
