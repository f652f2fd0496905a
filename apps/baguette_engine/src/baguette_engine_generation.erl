%% @doc One generation as a process: performs what baguette_engine_step decides, and nothing else.
%%
%% Started by baguette_engine_admission in state `waiting' and told to begin. Its states are the
%% verbs of "The way of a request". It keeps its result in state `finished' until admission lets it
%% go, so that whoever asks late still gets it. If the requesting node dies, this dies with it.
-module(baguette_engine_generation).
-behaviour(gen_statem).

-include_lib("kernel/include/logger.hrl").

-export([start_link/2, begin_now/1, await/2, result/1, watch/3, cancel/1, overview/1]).
-export([checkpoint/1]).
-export([init/1, callback_mode/0, format_status/1]).
%% States
-export([
    waiting/3, encoding/3, routing/3, asking/3, advancing/3, decoding/3, finished/3
]).

-export_type([order/0]).

-type result() :: gen_statem:event_handler_result(atom()).

%% A look that comes so late says that this node stood still.
-define(FROZEN_US, 500000).

%% What a call by way of a third node is expected to take, where nobody has measured it.
-define(RELAYED_US, 1000000).
-define(MAX_WAYS, 8).

-define(LOG_META, #{domain => [baguette, engine]}).

%% Times what a holder expects to take.
-define(PATIENCE, 4).

-record(?MODULE, {
    id :: binary(),
    began_us = 0 :: integer(), % since 1970, once it has begun
    step :: baguette_engine_step:state(),
    look_us = none :: none | integer(), % when the clock is looked at next
    usual_ms = 0 :: non_neg_integer(), % by what holders say
    foretold :: baguette_engine_foretold:story(),
    deadline_ms = none :: none | integer(), % of the monotonic clock, once it has begun
    outcome :: undefined | {done, map()} | {failed, {atom(), map()}} | {cancelled, map()},
    awaiting = [] :: [gen_statem:from()],
    watchers :: baguette_engine_watchers:watchers(),
    previews = baguette_engine_previews:new() :: baguette_engine_previews:previews(),
    %% Calls out there: the local pipeline worker's one, and those to experts.
    call :: reference() | undefined,
    asks = baguette_engine_asks:new() :: baguette_engine_asks:asks()
}).

-type order() :: #{
    request := baguette_engine_request:request(),
    %% The component that is expert number 0, 1, ...
    experts := [binary()],
    resume => baguette_engine_checkpoint:state()
}.

%% @doc Start a generation that waits to be told to begin.
-spec start_link(binary(), order()) -> {ok, pid()}.
start_link(Id, Order) ->
    gen_statem:start_link(?MODULE, {Id, Order}, []).

%% @doc Admission's go.
-spec begin_now(pid()) -> ok.
begin_now(Pid) ->
    gen_statem:cast(Pid, begin_now).

%% @doc Wait for the end.
-spec await(pid(), timeout()) -> {ok, map()} | {error, {atom(), map()}}.
await(Pid, Timeout) ->
    try
        gen_statem:call(Pid, await, Timeout)
    catch
        exit:{timeout, _} -> result(Pid);
        exit:{_, _} -> {error, {generation_lost, #{}}}
    end.

%% @doc The end, if it has come.
-spec result(pid()) -> {ok, map()} | {error, {atom(), map()}}.
result(Pid) ->
    try
        gen_statem:call(Pid, result)
    catch
        exit:{_, _} -> {error, {generation_lost, #{}}}
    end.

%% @doc The state after its last whole step.
-spec checkpoint(pid()) ->
    {ok, {baguette_engine_checkpoint:fingerprint(), baguette_engine_checkpoint:state()}}
    | {error, {no_checkpoint | generation_lost, map()}}.
checkpoint(Pid) ->
    try
        gen_statem:call(Pid, checkpoint)
    catch
        exit:{_, _} -> {error, {generation_lost, #{}}}
    end.

%% @doc Send this generation's events to `To' from now on.
-spec watch(pid(), pid(), baguette_engine_watchers:options()) -> ok.
watch(Pid, To, Options) ->
    gen_statem:cast(Pid, {watch, To, Options}).

%% @doc Stop as soon as possible; nothing is delivered afterwards.
-spec cancel(pid()) -> ok.
cancel(Pid) ->
    gen_statem:cast(Pid, cancel).

%% @doc What it is doing; no prompt.
-spec overview(pid()) -> map().
overview(Pid) ->
    gen_statem:call(Pid, overview).

-spec callback_mode() -> state_functions.
callback_mode() -> state_functions.

-spec init({binary(), order()}) -> {ok, waiting, #?MODULE{}, [gen_statem:action()]}.
init({Id, #{request := Request, experts := Experts} = Order}) ->
    logger:set_process_metadata(#{generation => Id, domain => [baguette, engine]}),
    ok = baguette_cluster:watch(),
    Limits = #{
        ask_floor_ms => baguette_engine_settings:get(ask_floor_ms),
        missing_ms => baguette_engine_settings:get(missing_ms)
    },
    {ok, waiting, #?MODULE{
        id = Id,
        usual_ms = usual_ms(Request, Experts),
        foretold = baguette_engine_foretold:waits(Request, Experts),
        step = from(Order, baguette_engine_step:new(Id, Request, Experts, Limits)),
        watchers = baguette_engine_watchers:new(Id)
    }, []}.

from(#{resume := From}, Step) -> baguette_engine_step:resumed(From, Step);
from(#{}, Step) -> Step.

%% So long as it would take if every call went to the slowest of those who may be asked.
usual_ms(#{steps := Steps, n := Images}, Experts) ->
    Expected = [Us || E <- Experts, #{expected_us := Us} <- baguette_cluster:holders(E)],
    Steps * Images * lists:max([0 | Expected]) div 1000.

%% Counted from the begin: who waits for others has not begun.
deadline(#?MODULE{usual_ms = Usual} = D) ->
    Ms = max(baguette_engine_settings:get(generation_ms), ?PATIENCE * Usual),
    D#?MODULE{deadline_ms = erlang:monotonic_time(millisecond) + Ms}.

%% @doc Prompts, contexts and latents are not printed.
-spec format_status(gen_statem:format_status()) -> gen_statem:format_status().
format_status(#{data := D} = Status) ->
    Overview = baguette_engine_step:overview(D#?MODULE.step),
    baguette_engine_private:status(Status#{data := Overview}, fun(Shown) -> Shown end);
format_status(Status) ->
    baguette_engine_private:status(Status, fun(Shown) -> Shown end).

%% States

-spec waiting(gen_statem:event_type(), term(), #?MODULE{}) -> result().
waiting(cast, begin_now, #?MODULE{step = Step, foretold = Foretold} = D) ->
    Elapsed = baguette_engine_step:elapsed_us(Step),
    #{step := Made} = baguette_engine_step:overview(Step),
    Begun = D#?MODULE{
        began_us = erlang:system_time(microsecond) - Elapsed,
        foretold = baguette_engine_foretold:begun(Made, Foretold)
    },
    ok = baguette_engine_generation_log:began(),
    step(begin_now, deadline(Begun));
waiting(Type, Content, D) ->
    common(Type, Content, D).

-spec encoding(gen_statem:event_type(), term(), #?MODULE{}) -> result().
encoding(Type, Content, D) -> common(Type, Content, D).

-spec routing(gen_statem:event_type(), term(), #?MODULE{}) -> result().
routing(Type, Content, D) -> common(Type, Content, D).

-spec asking(gen_statem:event_type(), term(), #?MODULE{}) -> result().
asking(Type, Content, D) -> common(Type, Content, D).

-spec advancing(gen_statem:event_type(), term(), #?MODULE{}) -> result().
advancing(Type, Content, D) -> common(Type, Content, D).

-spec decoding(gen_statem:event_type(), term(), #?MODULE{}) -> result().
decoding(Type, Content, D) -> common(Type, Content, D).

-spec finished(gen_statem:event_type(), term(), #?MODULE{}) -> result().
finished({call, From}, Question, #?MODULE{outcome = Outcome}) when
    Question =:= await; Question =:= result
->
    {keep_state_and_data, [{reply, From, reply(Outcome)}]};
finished({call, _} = Type, Question, D) ->
    common(Type, Question, D);
finished(cast, {watch, To, _Options}, #?MODULE{id = Id, outcome = Outcome}) ->
    To ! {baguette_engine, Id, Outcome},
    keep_state_and_data;
finished(cast, begin_now, _D) ->
    %% From an admission that was restarted and knows only that we exist.
    ok = baguette_engine_admission:finished(self()),
    keep_state_and_data;
finished(_Type, _LateAnswerOrTimer, _D) ->
    keep_state_and_data.

%% Every state hears the same events; which of them matter is the pure module's to know.

common({call, From}, await, #?MODULE{awaiting = Awaiting} = D) ->
    {keep_state, D#?MODULE{awaiting = [From | Awaiting]}};
common({call, From}, result, #?MODULE{step = Step}) ->
    Reply = {error, {still_running, maps:with([state, step], baguette_engine_step:overview(Step))}},
    {keep_state_and_data, [{reply, From, Reply}]};
common({call, From}, overview, #?MODULE{id = Id, step = Step, outcome = Outcome} = D) ->
    Overview = (baguette_engine_step:overview(Step))#{id => Id},
    {keep_state, D, [{reply, From, ended(Outcome, Overview)}]};
common({call, From}, checkpoint, #?MODULE{step = Step}) ->
    {keep_state_and_data, [{reply, From, baguette_engine_step:checkpoint(Step)}]};
common(cast, {watch, To, Options}, #?MODULE{watchers = Watchers} = D) ->
    {keep_state, D#?MODULE{watchers = baguette_engine_watchers:add(To, Options, Watchers)}};
common(cast, begin_now, _D) ->
    %% From an admission that was restarted: we are at it.
    keep_state_and_data;
common(cast, cancel, D) ->
    finish({cancelled, #{}}, D);
common({timeout, tick}, now, D) ->
    case looked(D) of
        tick -> step(tick, D);
        {thawed, Us} = Thawed ->
            step(Thawed, D#?MODULE{deadline_ms = D#?MODULE.deadline_ms + Us div 1000})
    end;
common({timeout, deadline}, now, #?MODULE{step = Step} = D) ->
    Doing = maps:with([state, step, missing], baguette_engine_step:overview(Step)),
    finish({failed, {deadline, Doing}}, D);
common(info, {baguette_engine_worker, Ref, Answer}, #?MODULE{call = Ref} = D) ->
    _ = erlang:demonitor(Ref, [flush]),
    step({called, baguette_engine_payload:answer(Answer)}, D#?MODULE{call = undefined});
common(info, {baguette_engine_worker, Ref, Packed}, #?MODULE{asks = Asks} = D) ->
    Answer = baguette_engine_payload:answer(Packed),
    case baguette_engine_asks:answered(Ref, Answer, Asks) of
        {No, Rest} ->
            ok = baguette_engine_payload:counted(Packed),
            step({answered, No, Answer}, D#?MODULE{asks = Rest});
        stray -> looked_at(baguette_engine_previews:answered(Ref, Answer, D#?MODULE.previews), D)
    end;
common(info, {baguette_cluster, {holders, _, _}}, D) ->
    step(holders, D);
common(info, {baguette_cluster, {link, Node, suspect}}, D) ->
    step({suspect, Node}, D);
common(info, {baguette_cluster, _}, _D) ->
    keep_state_and_data;
common(info, {'DOWN', Ref, process, {Name, _} = Server, _}, #?MODULE{asks = Asks} = D) when
    Name =:= baguette_engine_expert; Name =:= baguette_engine_relay
->
    case baguette_engine_asks:lost(Server, Ref, Asks) of
        {Lost, Left} -> step({lost, Lost}, D#?MODULE{asks = Left});
        stray -> keep_state_and_data
    end;
common(info, {'DOWN', Ref, process, _, _}, #?MODULE{call = Ref} = D) ->
    step({called, {error, {not_running, #{}}}}, D#?MODULE{call = undefined});
common(info, {'DOWN', Ref, process, {baguette_engine_pipeline, _}, _}, D) ->
    case baguette_engine_previews:lost(Ref, D#?MODULE.previews) of
        {ok, Previews} -> {keep_state, D#?MODULE{previews = Previews}};
        stray -> keep_state_and_data
    end;
common(info, {'DOWN', _, process, Pid, _}, #?MODULE{watchers = Watchers} = D) ->
    {keep_state, D#?MODULE{watchers = baguette_engine_watchers:gone(Pid, Watchers)}};
common(info, Unknown, _D) ->
    Shape = baguette_engine_private:shape(Unknown),
    ?LOG_WARNING(#{what => message_dropped, shape => Shape}, ?LOG_META),
    keep_state_and_data.

%% Pictures are for watchers and no log.
looked_at({Events, Previews}, #?MODULE{watchers = Watchers} = D) ->
    Told = lists:foldl(fun baguette_engine_watchers:publish/2, Watchers, Events),
    {keep_state, D#?MODULE{previews = Previews, watchers = Told}};
looked_at(stray, _D) ->
    keep_state_and_data.

%% Effects

step(Event, #?MODULE{step = Step0} = D0) ->
    {Step, Effects} = baguette_engine_step:event(Event, view(), Step0),
    D = lists:foldl(fun perform/2, D0#?MODULE{step = Step}, Effects),
    case D#?MODULE.outcome of
        undefined -> next_look(D);
        Outcome -> finish(Outcome, D)
    end.

%% Late calls and missing holders are looked at when that is due; every other wake-up is an event.
next_look(#?MODULE{step = Step} = D) ->
    Look = baguette_engine_step:next_us(Step),
    Timer = case Look of
        none -> {{timeout, tick}, infinity, now};
        %% In whole milliseconds, and never too early.
        Us -> {{timeout, tick}, Us div 1000 + 1, now, [{abs, true}]}
    end,
    Deadlines = [
        {{timeout, deadline}, Ms, now, [{abs, true}]}
     || Ms <- [D#?MODULE.deadline_ms], Ms =/= none
    ],
    {next_state, baguette_engine_step:phase(Step), D#?MODULE{look_us = Look}, [Timer | Deadlines]}.

%% Who finds his own clock late was frozen, and judges nobody by what was missed.
looked(#?MODULE{look_us = Look}) ->
    case erlang:monotonic_time(microsecond) - Look of
        Late when Late > ?FROZEN_US -> {thawed, Late};
        _ -> tick
    end.

view() ->
    #{
        now_us => erlang:monotonic_time(microsecond),
        holders => fun(Component, Own) ->
            case baguette_cluster:holders(Component, baguette_engine_in_flight:with(Own)) of
                [] -> beyond(Component);
                Holders -> baguette_engine_pace:in_order(Holders)
            end
        end,
        why_missing => fun baguette_cluster:why_missing/1,
        hedge => fun baguette_engine_pace:hedge/0,
        typical => baguette_engine_pace:typical()
    }.

perform({call, Function, Payload, Company}, D) ->
    %% The monitor is the reference: a pipeline server that crashes answers by its death.
    Ref = erlang:monitor(process, baguette_engine_pipeline),
    Call = {Function, baguette_engine_msgpack:encode(Payload)},
    ok = baguette_engine_pipeline:request(Ref, Call, Company),
    offered(Function, Payload, D#?MODULE{call = Ref});
perform({ask, No, Way, Component, Company, Payload}, #?MODULE{asks = Asks} = D) ->
    #{rows := Rows} = Payload,
    Ask = {Component, {Company, length(Rows)}, baguette_engine_msgpack:encode(Payload)},
    ok = baguette_engine_metrics:count(calls_total, none),
    ok = baguette_engine_usage:asked(Component),
    ok = baguette_engine_pace:asked(),
    D#?MODULE{asks = baguette_engine_asks:ask({No, Way}, Ask, Asks)};
perform({forget, No, Way}, #?MODULE{asks = Asks} = D) ->
    D#?MODULE{asks = baguette_engine_asks:forget(No, Way, Asks)};
perform({paced, Node, Ratio, How}, D) ->
    ok = baguette_engine_pace:answered(Node, Ratio, How),
    D;
perform({measured, Part, Us}, D) ->
    _ = Part =:= step andalso baguette_engine_foretold:stepped(),
    ok = baguette_engine_metrics:took(Part, Us),
    D;
perform(hedged, D) ->
    ok = baguette_engine_metrics:count(hedges_total, none),
    ok = baguette_engine_pace:hedged(),
    D;
perform({publish, {Kind, _} = Event}, #?MODULE{watchers = Watchers} = D) ->
    ok = baguette_engine_generation_log:event(Event),
    _ = Kind =:= failover andalso baguette_engine_metrics:count(failovers_total, none),
    D#?MODULE{watchers = baguette_engine_watchers:publish(Event, Watchers)};
perform({done, Result}, #?MODULE{began_us = Began} = D) ->
    D#?MODULE{outcome = {done, Result#{began_us => Began}}};
perform({failed, _} = Outcome, D) ->
    D#?MODULE{outcome = Outcome}.

offered(advance, Payload, #?MODULE{watchers = Watchers, previews = Previews} = D) ->
    case baguette_engine_watchers:want_previews(Watchers) of
        true ->
            Now = erlang:monotonic_time(millisecond),
            D#?MODULE{previews = baguette_engine_previews:offer(Payload, Now, Previews)};
        false ->
            D
    end;
offered(_Function, _Payload, D) ->
    D.

%% Of several ways to one holder none is known to be open until it was tried.
beyond(Component) ->
    [
        #{node => Node, via => Via, key => Key, expected_us => ?RELAYED_US, call_us => ?RELAYED_US}
     || #{node := Node, key := Key, via := Ways} <- baguette_cluster:beyond(Component),
        Via <- lists:sublist(Ways, ?MAX_WAYS)
    ].

finish(Outcome, #?MODULE{call = Call, asks = Asks, awaiting = Awaiting} = D) ->
    ok = baguette_engine_generation_log:ended(Outcome),
    ok = baguette_engine_metrics:ended(Outcome),
    ok = baguette_engine_foretold:ended(element(1, Outcome), D#?MODULE.foretold),
    _ = is_reference(Call) andalso baguette_engine_pipeline:cancel(Call),
    _ = baguette_engine_watchers:publish(Outcome, D#?MODULE.watchers),
    ok = baguette_engine_admission:finished(self()),
    Timers = [{{timeout, Name}, infinity, now} || Name <- [tick, deadline]],
    Replies = [{reply, From, reply(Outcome)} || From <- Awaiting],
    Kept = D#?MODULE{
        outcome = Outcome, asks = baguette_engine_asks:leave(Asks), awaiting = [],
        previews = baguette_engine_previews:leave(D#?MODULE.previews),
        watchers = baguette_engine_watchers:new(D#?MODULE.id),
        step = baguette_engine_step:spare(D#?MODULE.step)
    },
    %% It is kept for whoever asks late, and holds no more than that needs.
    {next_state, finished, Kept, Timers ++ Replies ++ [hibernate]}.

reply({done, Result}) -> {ok, Result};
reply({failed, Reason}) -> {error, Reason};
reply({cancelled, Facts}) -> {error, {cancelled, Facts}}.

ended(undefined, Overview) -> Overview;
ended({How, _}, Overview) -> Overview#{state => How}.
