%% @doc The whole logic of a generation, pure: (event, view, state) -> (state, effects).
%%
%% Called by baguette_engine_generation, which performs the effects and knows nothing itself. The
%% clock and the holders of experts come in with every event as the view. Time is microseconds of
%% the requesting node's monotonic clock.
%%
%% The phases are the verbs of "The way of a request": waiting -> encoding -> routing -> asking ->
%% advancing -> asking ... -> decoding -> finished. Whom to ask for what is baguette_engine_ask's to
%% know. Nothing that dies elsewhere takes anything along: latents, contexts and choices stand here.
-module(baguette_engine_step).

-export([new/4, resumed/2, event/3, phase/1, next_us/1, overview/1, spare/1]).
-export([elapsed_us/1, checkpoint/1]).

-export_type([state/0, event/0, effect/0, view/0, phase/0]).

-type phase() :: waiting | encoding | routing | asking | advancing | decoding | finished.
-type answer() :: {ok, map()} | {error, {atom(), map()}}.
-type event() ::
    begin_now
    %% the local pipeline worker answered the call in hand
    | {called, answer()}
    %% what concerns experts
    | baguette_engine_ask:event().
-type effect() ::
    %% call the local pipeline worker; its answer comes as {called, _}
    baguette_engine_local:effect()
    %% ask a holder; its answer comes as {answered, No, _}
    | {ask, No :: pos_integer(), baguette_engine_part:way(), Component :: binary(),
        alone | together, map()}
    %% the answer to this ask is no longer wanted
    | {forget, No :: pos_integer(), baguette_engine_part:way()}
    %% for baguette_engine_pace
    | {paced, node(), float(), exact | at_least}
    | hedged
    %% for baguette_engine_metrics
    | {measured, baguette_engine_metrics:part(), Us :: non_neg_integer()}
    | {publish, term()}
    | {done, map()}
    | {failed, {atom(), map()}}.
-type view() :: baguette_engine_choice:view().
-type limits() :: #{
    ask_floor_ms := pos_integer(),
    %% how long an expert may be missing before on_missing decides
    missing_ms := non_neg_integer()
}.

-record(?MODULE, {
    id :: binary(),
    request :: baguette_engine_request:request(),
    experts :: [binary()],
    limits :: limits(),
    phase = waiting :: phase(),
    local :: baguette_engine_local:local(),
    encoded = #{} :: map(),
    step = 0 :: non_neg_integer(),
    t = #{} :: map(),
    images = [] :: [baguette_engine_image:image()],
    %% What is decoded after the call that is out, and what was, in the images' order.
    to_decode = [] :: [map()],
    decoded = [] :: [map()],
    asking :: baguette_engine_ask:asking(),
    asking_us = 0 :: integer(),
    %% Microseconds spent in each part.
    spent = #{} :: #{atom() => non_neg_integer()},
    started_us = 0 :: integer(),
    %% What it goes on from, until it does; and the state after the last whole step.
    from = none :: none | baguette_engine_checkpoint:state(),
    whole = none :: none | baguette_engine_checkpoint:state()
}).

-opaque state() :: #?MODULE{}.

%% @doc A generation that has not begun. `Experts' names the component of expert 0, 1, ...
-spec new(binary(), baguette_engine_request:request(), [binary()], limits()) -> state().
new(Id, Request, Experts, #{ask_floor_ms := Floor} = Limits) ->
    #?MODULE{
        id = Id, request = Request, experts = Experts, limits = Limits,
        local = baguette_engine_local:new(Floor * 1000),
        asking = baguette_engine_ask:new(Experts, Floor * 1000)
    }.

%% @doc The same, to go on from there instead of from noise.
-spec resumed(baguette_engine_checkpoint:state(), state()) -> state().
resumed(#{record := Record, keys := Keys, spent := Spent, step := Step} = From, S) ->
    Known = baguette_engine_record:resumed(Step, Record),
    S#?MODULE{
        from = From, whole = From, step = Step, spent = Spent,
        asking = baguette_engine_ask:resumed(Known, Keys, S#?MODULE.asking)
    }.

%% @doc How long it was drawn before it went on from somewhere.
-spec elapsed_us(state()) -> non_neg_integer().
elapsed_us(#?MODULE{from = none}) -> 0;
elapsed_us(#?MODULE{from = #{elapsed_us := Us}}) -> Us.

%% @doc The state after the last whole step, and of which request.
-spec checkpoint(state()) ->
    {ok, {baguette_engine_checkpoint:fingerprint(), baguette_engine_checkpoint:state()}}
    | {error, {no_checkpoint, map()}}.
checkpoint(#?MODULE{whole = none, phase = Phase}) ->
    {error, {no_checkpoint, #{state => Phase}}};
checkpoint(#?MODULE{whole = Whole, request = Request, experts = Experts}) ->
    {ok, {baguette_engine_checkpoint:fingerprint(Request, Experts), Whole}}.

%% @doc The phase, which is also the generation process' state.
-spec phase(state()) -> phase().
phase(#?MODULE{phase = Phase}) -> Phase.

%% @doc When a tick is wanted, if nothing else happens before.
-spec next_us(state()) -> integer() | none.
next_us(#?MODULE{phase = finished}) -> none;
next_us(#?MODULE{local = Local, asking = Asking}) ->
    case baguette_engine_local:is_out(Local) of
        true -> baguette_engine_local:next_us(Local);
        false -> baguette_engine_ask:next_us(Asking)
    end.

%% @doc What a person may see; no prompt, no tensor.
-spec overview(state()) -> map().
overview(#?MODULE{request = Request, phase = Phase, step = Step, asking = Asking}) ->
    (maps:with([n, steps, guidance_scale, top_k, seed], Request))#{
        state => Phase,
        step => Step,
        asking => baguette_engine_ask:asked(Asking),
        missing => baguette_engine_ask:missing(Asking),
        failovers => baguette_engine_record:failovers(baguette_engine_ask:record(Asking))
    }.

%% @doc What is over needs no latents, contexts and answers any more.
-spec spare(state()) -> state().
spare(#?MODULE{limits = #{ask_floor_ms := Floor}} = S) ->
    S#?MODULE{
        local = baguette_engine_local:new(Floor * 1000), encoded = #{}, images = [], decoded = [],
        to_decode = [], from = none, whole = none
    }.

%% @doc Take one event.
-spec event(event(), view(), state()) -> {state(), [effect()]}.
event(begin_now, #{now_us := Now} = View, #?MODULE{request = Request, asking = Asking} = S) ->
    Payload = baguette_engine_payload:encode(Request),
    Start = Now - elapsed_us(S),
    Begin = fun(R) -> {ok, baguette_engine_record:begin_at(Start, R)} end,
    {ok, Begun} = baguette_engine_ask:note(Begin, Asking),
    call(encode, Payload, 1, encoding, View, S#?MODULE{started_us = Start, asking = Begun});
event(_, _View, #?MODULE{phase = finished} = S) ->
    {S, []};
event({called, _} = Called, View, #?MODULE{local = Local} = S) ->
    case baguette_engine_local:is_out(Local) of
        true -> called(Called, View, S);
        false -> {S, []}
    end;
event({thawed, _} = Thawed, View, #?MODULE{phase = Phase} = S) when Phase =/= asking ->
    of_clock(Thawed, View, S);
event(tick, View, #?MODULE{phase = Phase} = S) when Phase =/= asking ->
    of_clock(tick, View, S);
event(_OfExperts, _View, #?MODULE{phase = Phase} = S) when Phase =/= asking ->
    {S, []};
event(OfExperts, View, #?MODULE{asking = Asking} = S) ->
    {S1, Effects} = asking(baguette_engine_ask:event(OfExperts, View, Asking), View, S),
    on_missing(View, S1, Effects).

%% The local pipeline worker

call(Function, Payload, Rows, Phase, #{now_us := Now}, #?MODULE{request = Request} = S) ->
    Published =
        case S#?MODULE.phase of
            Phase -> [];
            _ -> [{publish, {state, #{state => Phase}}}]
        end,
    %% Bytes must not depend on company, and a context is known by its bytes.
    Company = case Request of
        #{deterministic := false} when Function =/= encode -> together;
        #{} -> alone
    end,
    Call = {Function, Payload, {Company, Rows}},
    local(baguette_engine_local:call(Call, Now, Published, S#?MODULE.local), S#?MODULE{
        phase = Phase
    }).

local({Local, Effects}, S) ->
    {S#?MODULE{local = Local}, Effects}.

called({called, {ok, Answer}}, View, #?MODULE{local = Local0} = S) ->
    {Function, Local} = baguette_engine_local:answered(Local0),
    answered(Function, Answer, View, S#?MODULE{local = Local});
called({called, {error, {died, _}}}, #{now_us := Now}, #?MODULE{local = Local} = S) ->
    case baguette_engine_local:died(Now, Local) of
        {failed, Reason} -> failed(Reason, S);
        Again -> local(Again, S)
    end;
called({called, {error, {not_running, _}}}, #{now_us := Now}, #?MODULE{local = Local} = S) ->
    local(baguette_engine_local:away(Now, Local), S);
called({called, {error, Reason}}, _View, S) ->
    failed(Reason, S).

of_clock(What, #{now_us := Now}, #?MODULE{local = Local} = S) ->
    case {baguette_engine_local:is_out(Local), What} of
        {false, _} -> {S, []};
        {true, tick} -> local(baguette_engine_local:look(Now, Local), S);
        {true, {thawed, Us}} -> {S#?MODULE{local = baguette_engine_local:thawed(Us, Local)}, []}
    end.

answered(encode, Answer, View, S0) ->
    {S1, Effects} = begun(View, spent(encode, S0, View, S0#?MODULE{encoded = Answer})),
    Warnings = [{publish, {warning, #{text => W}}} || W <- maps:get(<<"warnings">>, Answer)],
    {S1, [{measured, encode, took(View, S0)} | Warnings ++ Effects]};
answered(start, Answer, View, S) ->
    Images = [baguette_engine_image:new() || _ <- maps:get(<<"images">>, Answer)],
    routed(Answer, View, S#?MODULE{images = Images});
answered(advance, #{<<"advance_micros">> := Micros} = Answer, View, S0) ->
    S = add_micros(advance, Micros, S0#?MODULE{step = S0#?MODULE.step + 1}),
    {S1, Effects} = case S of
        #?MODULE{step = Steps, request = #{steps := Steps}} -> decode(Answer, View, S);
        _ -> routed(Answer, View, S)
    end,
    #{now_us := Now} = View,
    Step = {measured, step, Now - S0#?MODULE.asking_us},
    {S1, [Step, {measured, advance, took(View, S0)} | Effects]};
answered(decode, #{<<"images">> := Images}, #{now_us := Now} = View, S0) ->
    Measured = {measured, decode, took(View, S0) div length(Images)},
    case spent(decode, S0, View, S0#?MODULE{decoded = S0#?MODULE.decoded ++ Images}) of
        #?MODULE{to_decode = []} = S1 ->
            S2 = S1#?MODULE{phase = finished},
            S = add_micros(total, Now - S2#?MODULE.started_us, S2),
            {S, [Measured, {done, result(S#?MODULE.decoded, S)}]};
        S1 ->
            {S, Effects} = decode_next(View, S1),
            {S, [Measured | Effects]}
    end.

%% A few at a time: others' steps wait for one call of ours, not for all.
decode(#{<<"images">> := Moved}, View, #?MODULE{request = Request, images = Images} = S) ->
    Payloads = baguette_engine_payload:decode(Moved, Images, Request, record(S)),
    decode_next(View, S#?MODULE{to_decode = Payloads, decoded = []}).

decode_next(View, #?MODULE{to_decode = [#{latents := Latents} = Payload | Rest]} = S) ->
    call(decode, Payload, length(Latents), decoding, View, S#?MODULE{to_decode = Rest}).

begun(View, #?MODULE{from = none, request = Request} = S) ->
    call(start, baguette_engine_payload:start(Request), maps:get(n, Request), routing, View, S);
begun(View, #?MODULE{from = #{made_with := Before, t := T, images := Images}} = S) ->
    case baguette_engine_checkpoint:made_with(S#?MODULE.encoded) of
        Before -> ask_all(View, S#?MODULE{t = T, images = Images});
        _ -> failed({bad_checkpoint, #{why => another_pipeline}}, S)
    end.

routed(#{<<"images">> := Routed, <<"route_micros">> := Micros} = Answer, View, S0) ->
    Images = lists:zipwith(fun baguette_engine_image:routed/2, Routed, S0#?MODULE.images),
    S = add_micros(route, Micros, S0#?MODULE{
        images = Images,
        t = maps:with([<<"t">>, <<"network_t">>], Answer)
    }),
    ask_all(View, S#?MODULE{whole = whole(View, S)}).

%% Nothing of it is copied. How long it took counts on from there when it is gone on with.
whole(#{now_us := Now}, #?MODULE{step = Step, t = T, images = Images, asking = Asking} = S) ->
    #{
        step => Step, t => T, images => Images, record => record(S),
        keys => baguette_engine_ask:keys(Asking), spent => S#?MODULE.spent,
        elapsed_us => Now - S#?MODULE.started_us,
        made_with => baguette_engine_checkpoint:made_with(S#?MODULE.encoded)
    }.

ask_all(#{now_us := Now} = View, #?MODULE{images = Images} = S0) ->
    S = S0#?MODULE{phase = asking, asking_us = Now},
    Asked = baguette_engine_ask:next_step(S#?MODULE.step, choices(Images), View, S#?MODULE.asking),
    {S1, Effects} = asking(Asked, View, S),
    %% What was done without in the step before may be again, at once.
    on_missing(View, S1, [{publish, step_event(S1)} | Effects]).

%% Each expert with the numbers of the images that ask it.
choices(Images) ->
    Chosen = [
        {E, I}
     || {I, Image} <- numbered(Images), E <- baguette_engine_image:asks(Image)
    ],
    [{E, [I || {F, I} <- Chosen, F =:= E]} || E <- lists:usort([E || {E, _} <- Chosen])].

numbered(Images) -> lists:zip(lists:seq(0, length(Images) - 1), Images).

step_event(#?MODULE{step = Step, request = #{steps := Steps}, images = Images} = S) ->
    Routing = [baguette_engine_image:experts(I) || I <- Images],
    {step, (reused(S))#{
        step => Step + 1,
        steps => Steps,
        experts => Routing,
        routing => Routing,
        asked => baguette_engine_ask:asked(S#?MODULE.asking)
    }}.

reused(#?MODULE{request = #{cache := Off}}) when Off == 0 -> #{};
reused(#?MODULE{images = Images}) ->
    #{reused => [baguette_engine_image:reuses(I) || I <- Images]}.

%% Asking experts

%% What the round wants done; when it is over the images move on.
asking({Asking, Wanted}, View, S0) ->
    S1 = S0#?MODULE{asking = Asking},
    case [Reason || {failed, Reason} <- Wanted] of
        [Reason] ->
            {S, Ended} = failed(Reason, S1),
            {S, [E || {publish, _} = E <- Wanted] ++ Ended};
        [] ->
            S = lists:foldl(fun given/2, S1, Wanted),
            Effects = lists:append([effects(E, S) || E <- Wanted]),
            over(baguette_engine_ask:is_over(Asking), Effects, View, S)
    end.

over(false, Effects, _View, S) ->
    {S, Effects};
over(true, Effects, View, S) ->
    {S1, More} = advance(View, S),
    {S1, Effects ++ More}.

given({given, Expert, Numbers, Velocities}, #?MODULE{images = Images} = S) ->
    S#?MODULE{images = baguette_engine_image:give(Expert, Numbers, Velocities, Images)};
given(_Other, S) ->
    S.

effects({given, _, _, _}, _S) ->
    [];
effects({ask, No, Way, Expert, Numbers, Told, Company}, S) ->
    #?MODULE{images = Images, t = T, encoded = Encoded, request = Request} = S,
    Rows = [Image || {I, Image} <- numbered(Images), lists:member(I, Numbers)],
    Component = component(Expert, S),
    Payload = baguette_engine_payload:ask(Component, Rows, T, {Encoded, Told}, Request),
    %% Bytes must not depend on company.
    Allowed = case Request of #{deterministic := true} -> alone; #{} -> Company end,
    [{ask, No, Way, Component, Allowed, Payload}];
effects(Other, _S) ->
    [Other].

advance(View, #?MODULE{images = Images, request = Request, step = Step, asking_us = Since} = S) ->
    #{now_us := Now} = View,
    Payload = baguette_engine_payload:advance(Step, Images, Request),
    Rows = length(Images),
    call(advance, Payload, Rows, advancing, View, add_micros(experts, Now - Since, S)).

%% Experts that nobody holds

on_missing(View, #?MODULE{phase = asking, request = #{on_missing := Policy}} = S, Effects) when
    Policy =/= wait
->
    #{now_us := Now} = View,
    #{missing_ms := Ms} = S#?MODULE.limits,
    case baguette_engine_ask:overdue(Now - 1000 * Ms, S#?MODULE.asking) of
        [] ->
            {S, Effects};
        [{Expert, _, Why} | _] when Policy =:= fail ->
            {Failed, Ended} = failed({no_holder, #{expert => Expert, why => Why}}, S),
            {Failed, Effects ++ Ended};
        Overdue ->
            #?MODULE{images = Images, asking = Asking} = S,
            {Less, Dropped, More} = baguette_engine_degrade:without(Overdue, Images, Asking),
            over_if(More, Effects ++ More, View, S#?MODULE{images = Less, asking = Dropped})
    end;
on_missing(_View, S, Effects) ->
    {S, Effects}.

over_if([], Effects, _View, S) ->
    {S, Effects};
over_if(_, Effects, View, #?MODULE{asking = Asking} = S) ->
    over(baguette_engine_ask:is_over(Asking), Effects, View, S).

%% Small things

component(Expert, #?MODULE{experts = Experts}) -> lists:nth(Expert + 1, Experts).

record(#?MODULE{asking = Asking}) -> baguette_engine_ask:record(Asking).

failed(Reason, S) ->
    {S#?MODULE{phase = finished}, [{failed, Reason}]}.

spent(Part, Called, View, S) ->
    add_micros(Part, took(View, Called), S).

took(#{now_us := Now}, #?MODULE{local = Local}) -> baguette_engine_local:took_us(Now, Local).

add_micros(Part, Micros, #?MODULE{spent = Spent} = S) ->
    S#?MODULE{spent = Spent#{Part => maps:get(Part, Spent, 0) + Micros}}.

result(Decoded, #?MODULE{id = Id, request = Request, encoded = Encoded} = S) ->
    Happened = baguette_engine_record:to_map(record(S)),
    baguette_engine_result:new(Request, Encoded, Decoded, Happened#{
        id => Id,
        routing => [baguette_engine_image:routing(I) || I <- S#?MODULE.images],
        saved => [baguette_engine_image:saved(I) || I <- S#?MODULE.images],
        seconds => maps:map(fun(_, Micros) -> Micros / 1.0e6 end, S#?MODULE.spent),
        keys => baguette_engine_ask:keys(S#?MODULE.asking)
    }).
