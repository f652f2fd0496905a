%% @doc The whole logic of a generation, pure: (event, view, state) -> (state, effects).
%%
%% Called by baguette_engine_generation, which performs the effects and knows nothing itself. The
%% clock and the holders of experts come in with every event as the view. Time is microseconds of
%% the requesting node's monotonic clock.
%%
%% The phases are the verbs of "The way of a request": waiting -> encoding -> routing -> asking ->
%% advancing -> asking ... -> decoding -> finished. An expert call is a pure function, so a call
%% that was lost is asked again, of another holder when there is one; nothing else is ever lost,
%% because the latents, contexts and choices stand here. A call that three workers died of fails
%% the generation.
-module(baguette_engine_step).

-export([new/4, event/3, phase/1, overview/1]).

-export_type([state/0, event/0, effect/0, view/0, phase/0]).

-define(MAX_DEATHS, 3).

-type expert() :: baguette_engine_image:expert().
-type phase() :: waiting | encoding | routing | asking | advancing | decoding | finished.
-type answer() :: {ok, map()} | {error, {atom(), map()}}.
-type event() ::
    begin_now
    %% the local pipeline worker answered the call in hand
    | {called, answer()}
    %% ask number No was answered
    | {answered, No :: pos_integer(), answer()}
    %% the expert server of a node, or the link to it, is gone
    | {lost, node()}
    %% who holds what changed
    | holders
    %% look at the clock
    | tick.
-type effect() ::
    %% call the local pipeline worker; its answer comes as {called, _}
    {call, Function :: atom(), map()}
    %% ask a holder; its answer comes as {answered, No, _}
    | {ask, No :: pos_integer(), node(), Component :: binary(), map()}
    %% the answer to this ask is no longer wanted
    | {forget, No :: pos_integer(), node()}
    | {publish, term()}
    | {done, map()}
    | {failed, {atom(), map()}}.
-type view() :: #{
    now_us := integer(),
    %% best first for one who has calls with these nodes; each with the key of what it holds
    holders := fun((Component :: binary(), Own :: [node()]) -> [{node(), Key :: binary()}]),
    why_missing := fun((Component :: binary()) -> term())
}.

-record(ask, {
    no :: pos_integer(),
    node :: node(),
    asked_us :: integer(),
    late_us :: integer()
}).

-record(?MODULE, {
    id :: binary(),
    request :: baguette_engine_request:request(),
    experts :: [binary()],
    ask_floor_us :: pos_integer(),
    patience :: baguette_engine_patience:patience(),
    phase = waiting :: phase(),
    %% The pipeline call in hand, to be made again if its worker dies.
    call :: {atom(), map()} | undefined,
    called_us = 0 :: integer(),
    call_late_us = 0 :: integer(),
    %% Nobody took it: it is made again with the next tick.
    recall = false :: boolean(),
    encoded = #{} :: map(),
    step = 0 :: non_neg_integer(),
    t = #{} :: map(),
    images = [] :: [baguette_engine_image:image()],
    asks = #{} :: #{expert() => #ask{}},
    %% Experts to be asked that nobody can be asked for now, since when.
    missing = #{} :: #{expert() => integer()},
    %% The key of each expert asked so far: one picture never mixes keys.
    keys = #{} :: #{expert() => binary()},
    deaths = #{} :: #{expert() | pipeline => pos_integer()},
    next_no = 1 :: pos_integer(),
    asking_us = 0 :: integer(),
    calls = [] :: [map()],
    failovers = [] :: [map()],
    %% Microseconds spent in each part.
    spent = #{} :: #{atom() => non_neg_integer()},
    started_us = 0 :: integer()
}).

-opaque state() :: #?MODULE{}.

%% @doc A generation that has not begun. `Experts' names the component of expert 0, 1, ...
-spec new(binary(), baguette_engine_request:request(), [binary()], pos_integer()) -> state().
new(Id, Request, Experts, AskFloorMs) ->
    Floor = AskFloorMs * 1000,
    Patience = baguette_engine_patience:new(Floor),
    #?MODULE{
        id = Id, request = Request, experts = Experts, ask_floor_us = Floor, patience = Patience
    }.

%% @doc The phase, which is also the generation process' state.
-spec phase(state()) -> phase().
phase(#?MODULE{phase = Phase}) -> Phase.

%% @doc What a person may see; no prompt, no tensor.
-spec overview(state()) -> map().
overview(#?MODULE{request = Request, phase = Phase, step = Step} = S) ->
    (maps:with([n, steps, guidance_scale, top_k, seed], Request))#{
        state => Phase,
        step => Step,
        asking => maps:map(fun(_, #ask{node = Node}) -> Node end, S#?MODULE.asks),
        missing => maps:keys(S#?MODULE.missing),
        failovers => length(S#?MODULE.failovers)
    }.

%% @doc Take one event.
-spec event(event(), view(), state()) -> {state(), [effect()]}.
event(begin_now, #{now_us := Now} = View, #?MODULE{request = Request} = S) ->
    Payload = baguette_engine_payload:encode(Request),
    call(encode, Payload, encoding, View, S#?MODULE{started_us = Now});
event({called, _}, _View, #?MODULE{call = undefined} = S) ->
    {S, []};
event({called, {ok, Answer}}, View, S) ->
    {Function, _} = S#?MODULE.call,
    called(Function, Answer, View, S#?MODULE{call = undefined});
event({called, {error, {died, _}}}, View, S) ->
    call_again(View, S);
event({called, {error, {not_running, _}}}, _View, #?MODULE{call = {Function, _}} = S) ->
    %% Its server is being restarted. That is no death: no worker died of this call.
    Waiting = {publish, {waiting, #{reason => pipeline_restarting, during => Function}}},
    {S#?MODULE{recall = true}, [Waiting]};
event({called, {error, Reason}}, _View, S) ->
    failed(Reason, S);
event({answered, No, Answer}, View, #?MODULE{asks = Asks} = S) ->
    case [E || {E, #ask{no = N}} <- maps:to_list(Asks), N =:= No] of
        [Expert] -> answered(Expert, Answer, View, S);
        %% A late answer: somebody else was asked, or has answered.
        [] -> {S, []}
    end;
event({lost, Node}, View, #?MODULE{asks = Asks} = S) ->
    Lost = [E || {E, #ask{node = N}} <- maps:to_list(Asks), N =:= Node],
    %% A machine that leaves did not die of our call: no death is counted.
    fold(fun(E, S1) -> move(E, lost, View, S1) end, Lost, S);
event(holders, View, #?MODULE{missing = Missing, patience = Patience} = S) ->
    Forgiving = baguette_engine_patience:forgive(Patience),
    ask_all(maps:keys(Missing), View, S#?MODULE{patience = Forgiving});
event(tick, View, #?MODULE{call = {_, _}} = S) ->
    call_is_out(View, S);
event(tick, #{now_us := Now} = View, #?MODULE{asks = Asks, missing = Missing} = S) ->
    Late = [E || {E, #ask{late_us = At}} <- maps:to_list(Asks), At =< Now],
    {S1, Effects1} = fold(fun(E, Sx) -> late(E, View, Sx) end, Late, S),
    {S2, Effects2} = ask_all(maps:keys(Missing), View, S1),
    {S2, Effects1 ++ Effects2}.

%% The local pipeline worker

call(Function, Payload, Phase, #{now_us := Now}, S) ->
    Published =
        case S#?MODULE.phase of
            Phase -> [];
            _ -> [{publish, {state, #{state => Phase}}}]
        end,
    Late = Now + S#?MODULE.ask_floor_us,
    {
        S#?MODULE{
            phase = Phase, call = {Function, Payload}, called_us = Now, call_late_us = Late,
            recall = false
        },
        Published ++ [{call, Function, Payload}]
    }.

%% Nobody else has our pipeline: a late call is waited for, and said to be.
call_is_out(View, #?MODULE{recall = true, call = {Function, Payload}, phase = Phase} = S) ->
    call(Function, Payload, Phase, View, S);
call_is_out(#{now_us := Now}, #?MODULE{call = {Function, _}, call_late_us = At} = S) when
    At =< Now
->
    Event = {waiting, #{reason => pipeline_late, during => Function}},
    {S#?MODULE{call_late_us = Now + (Now - S#?MODULE.called_us)}, [{publish, Event}]};
call_is_out(_View, S) ->
    {S, []}.

call_again(View, #?MODULE{call = {Function, Payload}, phase = Phase} = S) ->
    case died(pipeline, S) of
        {fatal, S1} ->
            failed({pipeline_died, #{during => Function, deaths => ?MAX_DEATHS}}, S1);
        {again, S1} ->
            Waiting = {publish, {waiting, #{reason => pipeline_restarting, during => Function}}},
            {S2, Effects} = call(Function, Payload, Phase, View, S1),
            {S2, [Waiting | Effects]}
    end.

called(encode, Answer, View, #?MODULE{request = Request} = S0) ->
    S = spent(encode, S0, View, S0#?MODULE{encoded = Answer}),
    Payload = baguette_engine_payload:start(Request),
    {S1, Effects} = call(start, Payload, routing, View, S),
    Warnings = [{publish, {warning, #{text => W}}} || W <- maps:get(<<"warnings">>, Answer)],
    {S1, Warnings ++ Effects};
called(start, Answer, View, S) ->
    Images = [baguette_engine_image:new() || _ <- maps:get(<<"images">>, Answer)],
    routed(Answer, View, S#?MODULE{images = Images});
called(advance, #{<<"advance_micros">> := Micros} = Answer, View, S0) ->
    S = add_micros(advance, Micros, S0#?MODULE{step = S0#?MODULE.step + 1}),
    case S of
        #?MODULE{step = Steps, request = #{steps := Steps}} -> decode(Answer, View, S);
        _ -> routed(Answer, View, S)
    end;
called(decode, #{<<"images">> := Images}, View, S0) ->
    S1 = spent(decode, S0, View, S0#?MODULE{phase = finished}),
    #{now_us := Now} = View,
    S = add_micros(total, Now - S1#?MODULE.started_us, S1),
    {S, [{done, result(Images, S)}]}.

decode(#{<<"images">> := Moved}, View, #?MODULE{request = Request} = S) ->
    call(decode, baguette_engine_payload:decode(Moved, Request), decoding, View, S).

routed(#{<<"images">> := Routed, <<"route_micros">> := Micros} = Answer, View, S0) ->
    #{now_us := Now} = View,
    Images = lists:zipwith(fun baguette_engine_image:routed/2, Routed, S0#?MODULE.images),
    S = add_micros(route, Micros, S0#?MODULE{
        phase = asking,
        images = Images,
        t = maps:with([<<"t">>, <<"network_t">>], Answer),
        asking_us = Now,
        deaths = #{},
        patience = baguette_engine_patience:next_step(S0#?MODULE.patience)
    }),
    Experts = lists:usort(lists:append([baguette_engine_image:experts(I) || I <- Images])),
    {S1, Effects} = ask_all(Experts, View, S),
    {S1, [{publish, step_event(S1)} | Effects]}.

step_event(#?MODULE{step = Step, request = #{steps := Steps}, images = Images, asks = Asks}) ->
    {step, #{
        step => Step + 1,
        steps => Steps,
        experts => [baguette_engine_image:experts(I) || I <- Images],
        asked => maps:map(fun(_, #ask{node = Node}) -> Node end, Asks)
    }}.

%% Asking experts

ask_all(Experts, View, S) ->
    fold(fun(E, S1) -> ask(E, View, S1) end, Experts, S).

ask(Expert, #{now_us := Now} = View, #?MODULE{keys = Keys, patience = Patience} = S) ->
    Passed = fun(Node) -> baguette_engine_patience:is_passed_over(Expert, Node, Now, Patience) end,
    case [H || {Node, _} = H <- holders(Expert, View, S), not Passed(Node)] of
        [{Node, Key} | _] ->
            ask_node(Expert, Node, [], View, S#?MODULE{keys = Keys#{Expert => Key}});
        [] ->
            wait_for(Expert, View, S)
    end.

%% Those who hold what was asked before, when it was.
holders(Expert, #{holders := Holders}, #?MODULE{keys = Keys, asks = Asks} = S) ->
    Own = [Node || #ask{node = Node} <- maps:values(Asks)],
    [H || {_, Key} = H <- Holders(component(Expert, S), Own), maps:get(Expert, Keys, Key) =:= Key].

ask_node(Expert, Node, Hashes, #{now_us := Now}, #?MODULE{next_no = No} = S) ->
    #?MODULE{t = T, encoded = Encoded, request = Request} = S,
    Ask = #ask{no = No, node = Node, asked_us = Now, late_us = late_at(Expert, Now, S)},
    Payload = baguette_engine_payload:ask(
        component(Expert, S), images_of(Expert, S), T, {Encoded, Hashes}, Request
    ),
    {
        S#?MODULE{
            next_no = No + 1,
            asks = (S#?MODULE.asks)#{Expert => Ask},
            missing = maps:remove(Expert, S#?MODULE.missing)
        },
        [{ask, No, Node, component(Expert, S), Payload}]
    }.

wait_for(Expert, _View, #?MODULE{missing = Missing} = S) when is_map_key(Expert, Missing) ->
    {S, []};
wait_for(Expert, #{now_us := Now, why_missing := Why}, #?MODULE{missing = Missing} = S) ->
    Event = {waiting, #{expert => Expert, reason => Why(component(Expert, S))}},
    {S#?MODULE{missing = Missing#{Expert => Now}}, [{publish, Event}]}.

images_of(Expert, #?MODULE{images = Images}) ->
    [I || I <- Images, lists:member(Expert, baguette_engine_image:experts(I))].

answered(Expert, {ok, #{<<"unknown">> := Hashes}}, View, S) ->
    #{Expert := #ask{node = Node}} = S#?MODULE.asks,
    ask_node(Expert, Node, Hashes, View, S);
answered(Expert, {ok, #{<<"velocities">> := Velocities, <<"micros">> := Micros}}, View, S) ->
    #{now_us := Now} = View,
    {#ask{node = Node, asked_us = Asked}, Asks} = maps:take(Expert, S#?MODULE.asks),
    Ms = #{ms => (Now - Asked) / 1000, compute_ms => Micros / 1000},
    Call = Ms#{step => S#?MODULE.step, expert => Expert, node => Node},
    S1 = S#?MODULE{
        asks = Asks,
        images = baguette_engine_image:give(Expert, Velocities, S#?MODULE.images),
        calls = [Call | S#?MODULE.calls],
        patience = baguette_engine_patience:answered(Now - Asked, S#?MODULE.patience)
    },
    case map_size(Asks) + map_size(S1#?MODULE.missing) of
        0 -> advance(View, S1);
        _ -> {S1, []}
    end;
answered(Expert, {error, {Class, _}}, View, S) when Class =:= died; Class =:= device_lost ->
    ask_failed(Expert, died, View, S);
answered(Expert, {error, {Class, _}}, View, S) when Class =:= not_held; Class =:= unreachable ->
    %% Our view was older than the holder's; no worker died of this call.
    move(Expert, Class, View, S);
answered(Expert, {error, {Class, _}}, View, S) when Class =:= out_of_memory; Class =:= failure ->
    ask_failed(Expert, Class, View, S);
answered(Expert, {error, {Class, Facts}}, _View, S) ->
    failed({Class, Facts#{expert => Expert}}, S).

ask_failed(Expert, Why, View, S) ->
    case died(Expert, S) of
        {again, S1} -> move(Expert, Why, View, S1);
        {fatal, S1} ->
            Facts = #{expert => Expert, deaths => ?MAX_DEATHS, why => Why},
            failed({expert_call_died, Facts}, S1)
    end.

late(Expert, View, #?MODULE{asks = Asks, patience = Patience} = S0) ->
    #{Expert := #ask{no = No, node = Node} = Ask} = Asks,
    S = S0#?MODULE{patience = baguette_engine_patience:late(Expert, Patience)},
    case [N || {N, _} <- holders(Expert, View, S), N =/= Node] of
        [] ->
            %% Nobody else could answer sooner: keep waiting for this one.
            Later = Ask#ask{late_us = late_at(Expert, maps:get(now_us, View), S)},
            Event = {waiting, #{expert => Expert, reason => {late, Node}}},
            {S#?MODULE{asks = Asks#{Expert => Later}}, [{publish, Event}]};
        _ ->
            {S1, Effects} = move(Expert, late, View, S),
            {S1, [{forget, No, Node} | Effects]}
    end.

%% Ask somebody else, or wait until somebody can be asked.
move(Expert, Why, #{now_us := Now} = View, S) ->
    {#ask{node = From}, Asks} = maps:take(Expert, S#?MODULE.asks),
    Patience = baguette_engine_patience:pass_over(Expert, From, Now, S#?MODULE.patience),
    {S1, Effects} = ask(Expert, View, S#?MODULE{asks = Asks, patience = Patience}),
    To =
        case S1#?MODULE.asks of
            #{Expert := #ask{node = Node}} -> Node;
            _ -> undefined
        end,
    Failover = #{expert => Expert, step => S#?MODULE.step, from => From, to => To, why => Why},
    {S1#?MODULE{failovers = [Failover | S1#?MODULE.failovers]}, [
        {publish, {failover, Failover}} | Effects
    ]}.

advance(View, #?MODULE{images = Images, request = Request, step = Step, asking_us = Since} = S) ->
    #{now_us := Now} = View,
    Payload = baguette_engine_payload:advance(Step, Images, Request),
    call(advance, Payload, advancing, View, add_micros(experts, Now - Since, S)).

%% Small things

component(Expert, #?MODULE{experts = Experts}) -> lists:nth(Expert + 1, Experts).

late_at(Expert, Now, #?MODULE{patience = Patience} = S) ->
    baguette_engine_patience:late_at(Expert, length(images_of(Expert, S)), Now, Patience).

died(Who, #?MODULE{deaths = Deaths} = S) ->
    Count = maps:get(Who, Deaths, 0) + 1,
    S1 = S#?MODULE{deaths = Deaths#{Who => Count}},
    case Count < ?MAX_DEATHS of
        true -> {again, S1};
        false -> {fatal, S1}
    end.

failed(Reason, S) ->
    {S#?MODULE{phase = finished, call = undefined, asks = #{}, missing = #{}}, [{failed, Reason}]}.

spent(Part, #?MODULE{called_us = Called}, #{now_us := Now}, S) ->
    add_micros(Part, Now - Called, S).

add_micros(Part, Micros, #?MODULE{spent = Spent} = S) ->
    S#?MODULE{spent = Spent#{Part => maps:get(Part, Spent, 0) + Micros}}.

%% Stops at the first failure: what follows it would be asked for nobody.
fold(Fun, Items, S) ->
    lists:foldl(
        fun
            (_Item, {#?MODULE{phase = finished} = S1, Effects}) ->
                {S1, Effects};
            (Item, {S1, Effects}) ->
                {S2, More} = Fun(Item, S1),
                {S2, Effects ++ More}
        end,
        {S, []},
        Items
    ).

result(Decoded, #?MODULE{id = Id, request = Request, encoded = Encoded} = S) ->
    baguette_engine_result:new(Request, Encoded, Decoded, #{
        id => Id,
        routing => [baguette_engine_image:routing(I) || I <- S#?MODULE.images],
        calls => lists:reverse(S#?MODULE.calls),
        failovers => lists:reverse(S#?MODULE.failovers),
        seconds => maps:map(fun(_, Micros) -> Micros / 1.0e6 end, S#?MODULE.spent),
        keys => S#?MODULE.keys
    }).
