%% @doc Which holder is asked for what, when another one is asked besides or instead, and when none
%% can be: the round of expert calls of one step after the other. Pure; held by
%% baguette_engine_step, which turns these effects into payloads. Times are microseconds.
%%
%% What is asked for in one call is a part (baguette_engine_part): an expert and the images that
%% chose it. A part may be with several holders at once; the first answer counts and the others are
%% forgotten: an expert call is a pure function. A round with no part left is over.
%%
%%   hedge    slower than calls are lately (baguette_engine_pace): another holder besides, while the
%%            budget of extra calls lasts
%%   late     so slow that something is wrong (baguette_engine_patience), or its node is suspect:
%%            another holder besides, budget or not
%%   failed   died, left, does not hold it: another holder instead
%%   busy     had no room for one more call (baguette_engine_room): another holder instead, or the
%%            same one in a moment. That is no failure, and nobody who is busy is missing
%%
%% What a failure means for the part is told in baguette_engine_part.
-module(baguette_engine_ask).

-export([new/2, resumed/3, next_step/4, event/3, overdue/2, drop/3]).
-export([is_over/1, next_us/1, asked/1, missing/1, keys/1, record/1, note/2]).

-export_type([asking/0, effect/0, event/0]).

%% One that is asked, one besides it, and one more for when both are frozen.
-define(MAX_CALLS, 3).

-type expert() :: baguette_engine_image:expert().
-type event() ::
    {answered, No :: pos_integer(), {ok, map()} | {error, {atom(), map()}}}
    %% the expert server of a node, or the relay there, or the link to it, is gone
    | {lost, node() | {via, node()}}
    %% its heartbeat is late
    | {suspect, node()}
    %% who holds what changed
    | holders
    %% we ourselves were frozen for so long
    | {thawed, Us :: non_neg_integer()}
    %% look at the clock
    | tick.
-type effect() ::
    baguette_engine_part:ask()
    | {forget, No :: pos_integer(), way()}
    %% velocities in the order of the images
    | {given, expert(), [Image :: non_neg_integer()], [binary()]}
    %% a call to a node took this many times what was expected, or has taken as much already
    | {paced, node(), Ratio :: float(), exact | at_least}
    %% one call of the budget was used
    | hedged
    | {publish, term()}
    | {failed, {atom(), map()}}.
-type view() :: baguette_engine_choice:view().
-type part() :: baguette_engine_part:part().
-type way() :: baguette_engine_part:way().

-record(?MODULE, {
    components :: [binary()],
    patience :: baguette_engine_patience:patience(),
    record = baguette_engine_record:new() :: baguette_engine_record:record(),
    parts = [] :: [part()],
    next_no = 1 :: pos_integer(),
    %% The key of each expert that has answered: one picture never mixes keys.
    keys = #{} :: #{expert() => binary()},
    %% Since when images do without an expert: it is waited for once, not in every step.
    without = #{} :: #{expert() => Us :: integer()}
}).
-opaque asking() :: #?MODULE{}.

%% @doc Nothing asked yet. `Components' names the component of expert 0, 1, ...
-spec new([binary()], FloorUs :: pos_integer()) -> asking().
new(Names, Floor) ->
    #?MODULE{components = Names, patience = baguette_engine_patience:new(Floor)}.

%% @doc The same for a picture that goes on: what happened so far, and the keys it was made with.
-spec resumed(baguette_engine_record:record(), #{expert() => binary()}, asking()) -> asking().
resumed(Record, Keys, S) -> S#?MODULE{record = Record, keys = Keys}.

%% @doc The round of a step: each expert with the images that chose it.
-spec next_step(Step :: non_neg_integer(), [{expert(), [Image :: non_neg_integer()]}], view(),
    asking()) -> {asking(), [effect()]}.
next_step(Step, Choices, View, #?MODULE{patience = Patience, record = Record} = S) ->
    Parts = [baguette_engine_part:new(E, Images) || {E, Images} <- Choices],
    each(fun ask/3, Parts, View, S#?MODULE{
        parts = [],
        record = baguette_engine_record:begin_step(Step, Record),
        patience = baguette_engine_patience:next_step(Patience)
    }).

%% @doc Take one event.
-spec event(event(), view(), asking()) -> {asking(), [effect()]}.
event({answered, No, Answer}, View, S) ->
    %% A late answer meets nobody: somebody else has answered.
    concerned(No, fun(Call, Part, S1) -> answered(Answer, Call, View, Part, S1) end, S);
event({lost, Node}, View, S) ->
    %% A machine that leaves did not die of our call: nothing is counted against the part.
    concerned(Node, fun(Call, Part, S1) -> instead(lost, Call, View, Part, S1) end, S);
event({suspect, Node}, View, S) ->
    Silent = fun(Call, Part, S1) -> besides(suspect, Call, View, Part, S1) end,
    {S1, Effects} = concerned(Node, Silent, S),
    {S2, More} = concerned({via, Node}, Silent, S1),
    {S2, Effects ++ More};
event(holders, View, #?MODULE{patience = Patience} = S) ->
    Forgiving = S#?MODULE{patience = baguette_engine_patience:forgive(Patience)},
    revised(fun baguette_engine_part:is_waiting/1, fun again/3, View, Forgiving);
event({thawed, Us}, _View, #?MODULE{parts = Parts} = S) ->
    {S#?MODULE{parts = [baguette_engine_part:later(Us, Part) || Part <- Parts]}, []};
event(tick, #{now_us := Now} = View, S) ->
    Due = fun(Part) -> baguette_engine_part:due(Now, Part) =/= nothing end,
    revised(Due, fun look/3, View, S).

%% @doc Parts that nobody could be asked for since that time or before.
-spec overdue(SinceUs :: integer() | now, asking()) ->
    [{expert(), Images :: [non_neg_integer()], Why :: term()}].
overdue(SinceUs, #?MODULE{parts = Parts}) ->
    [
        {baguette_engine_part:expert(Part), baguette_engine_part:images(Part), Why}
     || Part <- Parts,
        {Since, Why} <- [baguette_engine_part:waits(Part)],
        Since =< SinceUs, baguette_engine_part:is_missing(Why)
    ].

%% @doc These images do without this expert.
-spec drop(expert(), [non_neg_integer()], asking()) -> {asking(), [effect()]}.
drop(Expert, Images, #?MODULE{without = Without} = S0) ->
    Is = fun(Part) -> baguette_engine_part:expert(Part) =:= Expert end,
    Waits = [baguette_engine_part:waits(P) || P <- S0#?MODULE.parts, Is(P)],
    [Since | _] = [At || {At, _} <- Waits], % not all of its parts have to wait
    S = S0#?MODULE{without = Without#{Expert => Since}},
    Dropped = fun(Part, _View, S1) ->
        case baguette_engine_part:images(Part) -- Images of
            [] -> {S1, baguette_engine_part:forgets(Part)};
            Left -> {with(baguette_engine_part:only(Left, Part), S1), []}
        end
    end,
    revised(Is, Dropped, #{}, S).

%% @doc Every part is answered.
-spec is_over(asking()) -> boolean().
is_over(#?MODULE{parts = Parts}) -> Parts =:= [].

%% @doc When a tick is wanted, if nothing else happens before.
-spec next_us(asking()) -> integer() | none.
next_us(#?MODULE{parts = Parts}) -> % any time is before an atom
    lists:min([none | [baguette_engine_part:next_us(Part) || Part <- Parts]]).

%% @doc Whom each expert was asked of last, of those that have not answered.
-spec asked(asking()) -> #{expert() => node()}.
asked(#?MODULE{parts = Parts}) ->
    Latest = [{baguette_engine_part:expert(P), baguette_engine_part:calls(P)} || P <- Parts],
    maps:from_list([{E, Node} || {E, [#{node := Node} | _]} <- Latest]).

%% @doc The experts nobody can be asked for now.
-spec missing(asking()) -> [expert()].
missing(S) -> lists:usort([E || {E, _, _} <- overdue(now, S)]).

%% @doc What happened so far.
-spec record(asking()) -> baguette_engine_record:record().
record(#?MODULE{record = Record}) -> Record.

%% @doc Write into what happened.
-spec note(fun((Record) -> {Fact, Record}), asking()) -> {Fact, asking()}
    when Record :: baguette_engine_record:record().
note(Write, #?MODULE{record = Record} = S) ->
    {Fact, Written} = Write(Record),
    {Fact, S#?MODULE{record = Written}}.

%% @doc The key of each expert that has answered.
-spec keys(asking()) -> #{expert() => binary()}.
keys(#?MODULE{keys = Keys}) -> Keys.

%% Asking ---------------------------------------------------------------------------------------

%% Of the best who is not asked already; or it waits.
ask(Part, View, S) ->
    case candidates(Part, View, S) of
        [Best | _] -> ask_holder(Best, View, Part, S);
        [] -> wait(baguette_engine_choice:why(wanted(Part, S), View), View, Part, S)
    end.

candidates(Part, #{now_us := Now} = View, #?MODULE{patience = Patience} = S) ->
    E = baguette_engine_part:expert(Part),
    IsPassedOver = fun(Holder) ->
        Way = baguette_engine_part:way(Holder),
        baguette_engine_patience:is_passed_over({E, Way}, Now, Patience)
    end,
    baguette_engine_choice:candidates(holders(Part, View, S), Part, IsPassedOver).

holders(Part, View, S) -> baguette_engine_choice:holders(wanted(Part, S), View).

wanted(Part, #?MODULE{components = Components, keys = Keys, parts = Others}) ->
    baguette_engine_choice:wanted(Part, Others, Components, Keys).

ask_holder(#{node := Node, key := Key} = Holder, #{now_us := Now} = View, Part, S) ->
    #{hedge := Hedge, typical := Typical} = View,
    #?MODULE{next_no = No, patience = Patience, record = Record} = S,
    {E, Images} = {baguette_engine_part:expert(Part), baguette_engine_part:images(Part)},
    With = length([N || N <- maps:get(own, wanted(Part, S)), N =:= Node]),
    Expected = baguette_engine_pace:expected_us(Holder, With, length(Images)),
    Call = (maps:with([via], Holder))#{
        no => No, node => Node, key => Key, images => Images, asked_us => Now, frozen_us => 0,
        expected_us => Expected, hedge_us => hedge_at(Now, Expected, Hedge()),
        late_us => baguette_engine_patience:late_at(E, {Expected, Typical}, Now, Patience)
    },
    Sent = S#?MODULE{next_no = No + 1, record = baguette_engine_record:asked(Record)},
    Ask = baguette_engine_part:ask(Call, Part),
    {with(baguette_engine_part:asked(Call, Part), Sent), [Ask]}.

%% The budget may be there again by then.
hedge_at(Now, Expected, none) -> Now + 2 * Expected;
hedge_at(Now, Expected, Factor) -> Now + round(Factor * Expected).

%% Told again when the reason changes.
wait(Why, #{now_us := Now}, Part, #?MODULE{without = Without} = S) ->
    E = baguette_engine_part:expert(Part),
    {IsNews, Waiting} = baguette_engine_part:wait(Why, maps:get(E, Without, Now), Now, Part),
    Event = {waiting, #{expert => E, reason => Why}},
    {with(Waiting, S), [{publish, Event} || IsNews]}.

%% What waits looks again; what is with somebody who does not answer may be asked of a newcomer. A
%% suspect that is offered again is none.
again(Part, View, S) ->
    case {baguette_engine_part:calls(Part), baguette_engine_part:waits(Part)} of
        {[], _} -> ask(Part, View, S);
        {[Call | _], {_, Before}} ->
            case {baguette_engine_choice:silence(Call, holders(Part, View, S)), Before} of
                {late, {suspect, _}} -> {with(baguette_engine_part:waits_no_more(Part), S), []};
                {Why, _} -> besides(Why, Call, View, Part, S)
            end
    end.

%% Answers --------------------------------------------------------------------------------------

answered(Answer, Call, View, Part, S) ->
    case baguette_engine_part:read(Answer, Call) of
        unknown -> tell(Call, Part, S);
        {velocities, Pairs, Micros} -> given(Pairs, Micros, Call, View, Part, S);
        {error, Error} -> failed(Error, Call, View, Part, S)
    end.

%% Not counted as a call more: the holder computed nothing.
tell(Call, Part, #?MODULE{next_no = No} = S) ->
    Again = baguette_engine_part:change(Call, #{no => No, told => true}, Part),
    Ask = baguette_engine_part:ask(Call#{no := No, told => true}, Part),
    {with(Again, S#?MODULE{next_no = No + 1}), [Ask]}.

failed(Error, Call, View, Part, S) ->
    case baguette_engine_part:failed(Error, length(holders(Part, View, S)), Part) of
        {fatal, Failure} -> {S, [{failed, Failure}]};
        {split, Parts} -> split(Parts, Call, View, Part, S);
        {instead, Why, Counted} -> instead(Why, Call, View, Counted, S)
    end.

given(Pairs, Micros, #{key := Key} = Call, #{now_us := Now}, Part, S) ->
    #?MODULE{record = Record, patience = Patience, keys = Keys} = S,
    E = baguette_engine_part:expert(Part),
    Losers = baguette_engine_part:over(Call, Part),
    Left = baguette_engine_part:calls(Losers),
    Took = baguette_engine_part:took_us(Call, Now),
    %% Some of the images may do without it by now.
    Wanted = baguette_engine_part:images(Part),
    {Images, Velocities} = lists:unzip([P || {I, _} = P <- Pairs, lists:member(I, Wanted)]),
    {
        S#?MODULE{
            keys = Keys#{E => Key},
            without = maps:remove(E, S#?MODULE.without),
            record = baguette_engine_record:answered(E, Call, Micros, Now, Record),
            patience = baguette_engine_patience:answered(Took, Patience)
        },
        [{given, E, Images, Velocities} | baguette_engine_part:paced(Call, Now, exact)] ++
            [Pace || Loser <- Left, Pace <- baguette_engine_part:paced(Loser, Now, at_least)] ++
            baguette_engine_part:forgets(Losers)
    }.

%% Somebody else -------------------------------------------------------------------------------

%% Its images in parts of their own. Whoever else was asked for all of them is not waited for.
split(Parts, Call, View, Part, S) ->
    {S1, Effects} = each(fun ask/3, Parts, View, S),
    {S1, baguette_engine_part:forgets(baguette_engine_part:over(Call, Part)) ++ Effects}.

%% This call is over: somebody else, unless somebody else has it already.
instead(busy, #{node := Node} = Call, View, Part, S) ->
    Left = baguette_engine_part:over(Call, Part),
    Passed = passed_over(busy, Part, Call, View, S),
    case {baguette_engine_part:calls(Left), candidates(Left, View, Passed)} of
        {[], [Best | _]} -> ask_holder(Best, View, Left, Passed);
        {[], []} -> wait({busy, Node}, View, Left, Passed);
        {[_ | _], _} -> {with(Left, Passed), []}
    end;
instead(Why, Call, View, Part, S) ->
    Left = baguette_engine_part:over(Call, Part),
    case baguette_engine_part:calls(Left) of
        [] -> elsewhere(Why, Call, View, Left, S);
        [#{node := To} | _] ->
            Over = with(Left, passed_over(Why, Part, Call, View, S)),
            failover(Why, Call, To, View, Part, {Over, []})
    end.

%% It may still be answered: somebody else as well, when there is somebody.
besides(Why, #{node := From} = Call, #{now_us := Now} = View, Part, S) ->
    Full = length(baguette_engine_part:calls(Part)) >= ?MAX_CALLS,
    {S1, Effects} = case candidates(Part, View, S) of
        [#{node := To} = Best | _] when not Full ->
            Asked = ask_holder(Best, View, Part, passed_over(Why, Part, Call, View, S)),
            failover(Why, Call, To, View, Part, Asked);
        _ ->
            wait({Why, From}, View, Part, S)
    end,
    {S1, baguette_engine_part:paced(Call, Now, at_least) ++ Effects}.

elsewhere(Why, Call, View, Part, S) ->
    {_, Effects} = Asked = ask(Part, View, passed_over(Why, Part, Call, View, S)),
    To = case [Way || {ask, _, Way, _, _, _, _} <- Effects] of
        [{Holder, _Via}] -> Holder;
        [Holder] -> Holder;
        [] -> undefined
    end,
    failover(Why, Call, To, View, Part, Asked).

%% A way by others that leads nowhere is no failover: nothing was asked of anybody.
failover(unreachable, #{via := _}, _To, _View, _Part, Asked) ->
    Asked;
failover(Why, #{node := From}, To, #{now_us := Now}, Part, {S, Effects}) ->
    E = baguette_engine_part:expert(Part),
    Write = fun(R) -> baguette_engine_record:failover(E, From, To, Why, Now, R) end,
    {Failover, Noted} = note(Write, S),
    {Noted, [{publish, {failover, Failover}} | Effects]}.

passed_over(Why, Part, Call, #{now_us := Now}, #?MODULE{patience = Patience} = S) ->
    For = {baguette_engine_part:expert(Part), baguette_engine_part:way(Call)},
    S#?MODULE{patience = baguette_engine_patience:pass_over(For, Why, Now, Patience)}.

%% The clock ------------------------------------------------------------------------------------

look(Part, #{now_us := Now} = View, S) ->
    case baguette_engine_part:due(Now, Part) of
        {late, Call} -> late(Call, View, Part, S);
        {hedge, Call} -> hedge(Call, View, Part, S);
        look -> again(Part, View, S)
    end.

%% Each time a call was late its successor is given longer, and so is this one.
late(#{expected_us := Us} = Call, #{now_us := Now, typical := Typical} = View, Part, S) ->
    E = baguette_engine_part:expert(Part),
    Patience = baguette_engine_patience:late(E, S#?MODULE.patience),
    Later = #{late_us => baguette_engine_patience:late_at(E, {Us, Typical}, Now, Patience)},
    Changed = baguette_engine_part:change(Call, Later#{hedge_us => never}, Part),
    Why = baguette_engine_choice:silence(Call, holders(Changed, View, S)),
    besides(Why, Call, View, Changed, S#?MODULE{patience = Patience}).

%% Two are enough until one of them is late. Without a budget it is looked at ever less often.
hedge(Call, #{now_us := Now, hedge := Hedge} = View, Part, S) ->
    Never = baguette_engine_part:change(Call, #{hedge_us => never}, Part),
    case {candidates(Part, View, S), baguette_engine_part:calls(Part), Hedge()} of
        {[_ | _], [_], none} ->
            Later = #{hedge_us => Now + max(1000, baguette_engine_part:took_us(Call, Now))},
            {with(baguette_engine_part:change(Call, Later, Part), S), []};
        {[Best | _], [_], _} -> hedged(Call, Best, View, Never, S);
        _ -> {with(Never, S), []}
    end.

hedged(#{node := From} = Call, #{node := To} = Best, #{now_us := Now} = View, Part, S) ->
    E = baguette_engine_part:expert(Part),
    {Asked, Effects} = ask_holder(Best, View, Part, S),
    Write = fun(R) -> baguette_engine_record:hedge(E, From, To, Now, R) end,
    {Hedge, Noted} = note(Write, Asked),
    Pace = baguette_engine_part:paced(Call, Now, at_least),
    {Noted, [hedged, {publish, {hedge, Hedge}} | Pace ++ Effects]}.

%% Parts ----------------------------------------------------------------------------------------

%% Whoever looks at a part has taken it out of the round, and puts it back as it is then.
with(Part, #?MODULE{parts = Parts} = S) -> S#?MODULE{parts = Parts ++ [Part]}.

%% The part that has a call of this number, or the parts with a call that goes over this link.
concerned(Which, Fun, S) ->
    Has = fun(Part) -> baguette_engine_part:call(Which, Part) =/= none end,
    With = fun(Part, _View, S1) -> Fun(baguette_engine_part:call(Which, Part), Part, S1) end,
    revised(Has, With, #{}, S).

revised(Is, Fun, View, #?MODULE{parts = Parts} = S) ->
    Take = fun(Part, V, #?MODULE{parts = Ps} = S1) ->
        Fun(Part, V, S1#?MODULE{parts = lists:delete(Part, Ps)})
    end,
    each(Take, lists:filter(Is, Parts), View, S).

%% Stops at the first failure: what follows it would be asked for nobody.
each(Fun, Parts, View, S) ->
    lists:foldl(
        fun(Part, {S1, Effects}) ->
            case [E || {failed, _} = E <- Effects] of
                [] ->
                    {S2, More} = Fun(Part, View, S1),
                    {S2, Effects ++ More};
                [_] -> {S1, Effects}
            end
        end,
        {S, []},
        Parts
    ).
