%% @doc A part of a step's round of expert calls: one expert, the images (by number, from 0) asked
%% for in one call, and the calls that are out for them. Pure; baguette_engine_ask says what
%% happens to it. Times are microseconds.
%%
%% A call that died counts against its part: from then on nobody else's go along with it, after the
%% second death its images are asked for one by one, and the third fails the generation, so that no
%% request kills every holder in turn, or takes others' along. A part
%% that does not fit into a device's memory is halved, and then asked of somebody else.
-module(baguette_engine_part).

-export([new/2, expert/1, images/1, only/2]).
%% Its calls
-export([asked/2, ask/2, calls/1, call/2, is_with/2, over/2, change/3, forgets/1]).
-export([way/1, read/2, took_us/2, paced/3]).
%% What went wrong
-export([failed/3]).
%% Waiting
-export([wait/4, waits/1, is_waiting/1, waits_no_more/1, is_missing/1]).
%% The clock
-export([next_us/1, due/2, later/2]).

-export_type([part/0, call/0, ask/0, way/0, holder/0]).

-define(MAX_FAILURES, 3).
-define(ALONE_AFTER, 2).
%% How often somebody who waits for a holder looks at why there is none.
-define(LOOK_US, 500000).

%% To a holder: straight, or by way of a third node where there is no link.
-type way() :: node() | {Holder :: node(), Via :: node()}.
%% Somebody who may be asked.
-type holder() :: #{
    node := node(),
    via => node(),                    % who asks it for us where there is no link
    key := binary(),
    expected_us := non_neg_integer(), % until the answer to a call of one image is here
    call_us := non_neg_integer(),     % of that, computing one image
    atom() => term()
}.
-type call() :: #{
    no := pos_integer(),
    node := node(),
    via => node(),
    key := binary(),
    images := [non_neg_integer()],
    told => true, % the contexts went along, because it did not know them
    asked_us := integer(),
    frozen_us := non_neg_integer(), % of the time since then we were frozen ourselves
    expected_us := pos_integer(),
    %% When another holder may be asked besides (never: it was), and when it is late.
    hedge_us := integer() | never,
    late_us := integer()
}.
-type ask() ::
    {ask, No :: pos_integer(), way(), baguette_engine_image:expert(),
        [Image :: non_neg_integer()], told | untold, alone | together}.
-type waiting() :: none | {SinceUs :: integer(), Why :: term(), LookUs :: integer()}.
-record(?MODULE, {
    expert :: baguette_engine_image:expert(),
    images :: [non_neg_integer()],
    calls = [] :: [call()], % latest first
    failures = #{} :: #{Why :: atom() => pos_integer()},
    %% Nobody (else) can be asked: since when, why, and when to look again.
    waiting = none :: waiting(),
    %% It waited so before a way by others was tried, or one who was busy was asked again, and does
    %% again if that led nowhere.
    resume = none :: waiting()
}).
-opaque part() :: #?MODULE{}.

-spec new(baguette_engine_image:expert(), [non_neg_integer()]) -> part().
new(Expert, Images) -> #?MODULE{expert = Expert, images = Images}.

-spec expert(part()) -> baguette_engine_image:expert().
expert(#?MODULE{expert = Expert}) -> Expert.

-spec images(part()) -> [non_neg_integer()].
images(#?MODULE{images = Images}) -> Images.

%% @doc The same part with these of its images only.
-spec only([non_neg_integer()], part()) -> part().
only(Images, P) -> P#?MODULE{images = Images}.

%% @doc One more call is out.
-spec asked(call(), part()) -> part().
asked(Call, #?MODULE{calls = Calls, waiting = Waiting, resume = Resume} = P) ->
    Before = case Waiting of none -> Resume; _ -> Waiting end,
    P#?MODULE{calls = [Call | Calls], waiting = none, resume = resume(Call, Before)}.

resume(#{via := _}, Before) -> Before;
resume(_Call, {_, {busy, _}, _} = Before) -> Before;
resume(_Call, _Before) -> none.

%% @doc What its holder is to be sent: with contexts or without, and whether others' calls may go
%% along.
-spec ask(call(), part()) -> ask().
ask(#{no := No, images := Images} = Call, #?MODULE{expert = E, failures = Failures}) ->
    Told = case Call of #{told := true} -> told; #{} -> untold end,
    Company = case Failures of #{died := _} -> alone; #{} -> together end,
    {ask, No, way(Call), E, Images, Told, Company}.

%% @doc The calls that are out, latest first.
-spec calls(part()) -> [call()].
calls(#?MODULE{calls = Calls}) -> Calls.

%% @doc The call of this number, or the one straight to this node, or by way of it.
-spec call(No :: pos_integer() | node() | {via, node()}, part()) -> call() | none.
call(Which, #?MODULE{calls = Calls}) ->
    hd([Call || Call <- Calls, is(Which, Call)] ++ [none]).

is(No, #{no := N}) when is_integer(No) -> N =:= No;
is({via, Node}, #{via := Via}) -> Via =:= Node;
is({via, _}, _) -> false;
is(_Node, #{via := _}) -> false;
is(Node, #{node := Holder}) -> Holder =:= Node.

%% @doc Whether this holder has a call of it already, as far as asking it once more is no use: over
%% the same link, or by way of two others. What went to it straight may have been lost on the way.
-spec is_with(holder(), part()) -> boolean().
is_with(#{node := Node} = Holder, #?MODULE{calls = Calls}) ->
    Relayed = is_map_key(via, Holder),
    lists:any(
        fun(#{node := N} = Call) ->
            peer(Call) =:= peer(Holder) orelse
                (N =:= Node andalso Relayed andalso is_map_key(via, Call))
        end,
        Calls
    ).

-spec way(#{node := node(), via => node(), atom() => term()}) -> way().
way(#{node := Node, via := Via}) -> {Node, Via};
way(#{node := Node}) -> Node.

%% The node our own link goes to.
peer(#{via := Via}) -> Via;
peer(#{node := Node}) -> Node.

%% @doc This call is not out any more.
-spec over(call(), part()) -> part().
over(#{no := No}, #?MODULE{calls = Calls} = P) ->
    P#?MODULE{calls = [Call || #{no := N} = Call <- Calls, N =/= No]}.

-spec change(call(), map(), part()) -> part().
change(#{no := No}, New, #?MODULE{calls = Calls} = P) ->
    Changed = fun(#{no := N} = C) when N =:= No -> maps:merge(C, New); (C) -> C end,
    P#?MODULE{calls = lists:map(Changed, Calls)}.

%% @doc Nobody wants the answers to its calls any more.
-spec forgets(part()) -> [{forget, pos_integer(), way()}].
forgets(#?MODULE{calls = Calls}) -> [{forget, No, way(Call)} || #{no := No} = Call <- Calls].

%% @doc What came back for a call. An answer of another form than was asked for is a failure of
%% whoever gave it, and so is a holder that forgets contexts at once.
-spec read({ok, map()} | {error, {atom(), map()}}, call()) ->
    unknown
    | {velocities, [{Image :: non_neg_integer(), binary()}], Micros :: non_neg_integer()}
    | {error, {atom(), map()}}.
read({ok, #{<<"unknown">> := Hashes}}, Call) when is_list(Hashes), not is_map_key(told, Call) ->
    unknown;
read({ok, #{<<"velocities">> := Velocities, <<"micros">> := Micros}}, #{images := Images}) when
    is_integer(Micros), length(Velocities) =:= length(Images)
->
    {velocities, lists:zip(Images, Velocities), Micros};
read({ok, _}, _Call) ->
    {error, {failure, #{message => <<"the answer is not what was asked for">>}}};
read({error, _} = Error, _Call) ->
    Error.

%% @doc How long a call has taken by now. While we were frozen ourselves nobody was slow.
-spec took_us(call(), NowUs :: integer()) -> non_neg_integer().
took_us(#{asked_us := Asked, frozen_us := Frozen}, Now) -> max(0, Now - Asked - Frozen).

%% @doc What that says of its holder's pace. Of a call by way of others nobody knows what to expect.
-spec paced(call(), NowUs :: integer(), exact | at_least) ->
    [{paced, node(), float(), exact | at_least}].
paced(#{via := _}, _Now, _How) -> [];
paced(#{node := Node, expected_us := Us} = Call, Now, How) ->
    [{paced, Node, took_us(Call, Now) / Us, How}].

%% @doc What follows from the failure of one of its calls, where so many hold the expert.
-spec failed({atom(), map()}, Holders :: non_neg_integer(), part()) ->
    {instead, Why :: atom(), part()} | {split, [part()]} | {fatal, {atom(), map()}}.
failed({unreachable, #{why := busy}}, _Holders, P) ->
    {instead, busy, P};
failed({Class, _}, _Holders, P) when Class =:= not_held; Class =:= unreachable ->
    %% Our view was older than the holder's; no worker died of this call.
    {instead, Class, P};
failed({out_of_memory, _}, _Holders, #?MODULE{images = [_, _ | _] = Images} = P) ->
    {First, Second} = lists:split((length(Images) + 1) div 2, Images),
    {split, groups([First, Second], P)};
failed({device_lost, Facts}, Holders, P) ->
    failed({died, Facts}, Holders, P);
failed({Class, Facts}, Holders, P) ->
    case most(Class, Holders) of
        1 -> {fatal, {Class, Facts#{expert => P#?MODULE.expert}}};
        Most -> counted(Class, Facts, Most, P)
    end.

%% How often it may happen. What is not finite may be a broken device's; twice, it is the model or
%% the request.
most(not_finite, Holders) -> max(1, min(2, Holders));
most(Class, _) when Class =:= died; Class =:= out_of_memory; Class =:= failure -> ?MAX_FAILURES;
most(_, _) -> 1.

counted(Why, Facts, Most, #?MODULE{failures = Failures, images = Images} = P0) ->
    Count = maps:get(Why, Failures, 0) + 1,
    P = P0#?MODULE{failures = Failures#{Why => Count}},
    case Count >= Most of
        true -> {fatal, fatal(Why, Count, Facts, P)};
        false when Why =:= died, Count >= ?ALONE_AFTER, length(Images) > 1 ->
            {split, groups([[Image] || Image <- Images], P)};
        false -> {instead, Why, P}
    end.

fatal(died, Count, _Facts, #?MODULE{expert = Expert, images = Images}) ->
    {expert_call_died, #{expert => Expert, images => Images, deaths => Count, why => died}};
fatal(Why, Count, Facts, #?MODULE{expert = Expert}) ->
    {Why, Facts#{expert => Expert, times => Count}}.

%% What went wrong with the whole counts for each.
groups(Groups, P) -> [P#?MODULE{images = Images, calls = [], waiting = none} || Images <- Groups].

%% @doc It waits for this reason, since now or since an earlier step; whether that is news.
-spec wait(Why :: term(), SinceUs :: integer(), NowUs :: integer(), part()) ->
    {IsNews :: boolean(), part()}.
wait(Why, Since, Now, #?MODULE{waiting = none, resume = none} = P) ->
    {true, P#?MODULE{waiting = {Since, Why, Now + ?LOOK_US}}};
wait(Why, Since, Now, #?MODULE{waiting = none, resume = Before} = P) ->
    wait(Why, Since, Now, P#?MODULE{waiting = Before});
wait(Why, _Since, Now, #?MODULE{waiting = {Since0, Before, _}} = P) ->
    %% How long an expert is missing does not begin while somebody was only slow.
    Since = case is_missing(Why) andalso not is_missing(Before) of
        true -> Now;
        false -> Since0
    end,
    {Why =/= Before, P#?MODULE{waiting = {Since, Why, Now + ?LOOK_US}}}.

%% @doc Whether nobody can be asked for this reason; somebody who has it and is slow, or has too
%% much to do, is not missing.
-spec is_missing(Why :: term()) -> boolean().
is_missing({late, _}) -> false;
is_missing({busy, _}) -> false;
is_missing(_) -> true.

%% @doc Whoever it waited for is there again.
-spec waits_no_more(part()) -> part().
waits_no_more(P) -> P#?MODULE{waiting = none, resume = none}.

-spec waits(part()) -> none | {SinceUs :: integer(), Why :: term()}.
waits(#?MODULE{waiting = none}) -> none;
waits(#?MODULE{waiting = {Since, Why, _}}) -> {Since, Why}.

-spec is_waiting(part()) -> boolean().
is_waiting(#?MODULE{waiting = Waiting}) -> Waiting =/= none.

%% @doc When it is to be looked at next.
-spec next_us(part()) -> integer() | none.
next_us(#?MODULE{waiting = Waiting, calls = Calls}) ->
    Looks = [Look || {_, _, Look} <- [Waiting]],
    Times = Looks ++ lists:append([[H, L] || #{hedge_us := H, late_us := L} <- Calls]),
    case [Us || Us <- Times, is_integer(Us)] of
        [] -> none;
        Some -> lists:min(Some)
    end.

%% @doc So much time does not count against anybody.
-spec later(Us :: non_neg_integer(), part()) -> part().
later(Us, #?MODULE{calls = Calls, waiting = Waiting, resume = Resume} = P) ->
    P#?MODULE{
        calls = [
            Call#{
                late_us := Late + Us, hedge_us := later_at(Hedge, Us), frozen_us := Frozen + Us
            }
         || #{late_us := Late, hedge_us := Hedge, frozen_us := Frozen} = Call <- Calls
        ],
        waiting = waits_later(Waiting, Us),
        resume = waits_later(Resume, Us)
    }.

later_at(never, _Us) -> never;
later_at(At, Us) -> At + Us.

waits_later(none, _Us) -> none;
waits_later({Since, Why, Look}, Us) -> {Since + Us, Why, Look + Us}.

%% @doc What it is to be looked at for now.
-spec due(NowUs :: integer(), part()) -> {late | hedge, call()} | look | nothing.
due(Now, #?MODULE{calls = Calls, waiting = Waiting}) ->
    Late = [{late, C} || #{late_us := Us} = C <- Calls, Us =< Now],
    %% An atom is greater than any number: `never' is not due.
    Hedge = [{hedge, C} || #{hedge_us := Us} = C <- Calls, Us =< Now],
    Look = [look || {_, _, Us} <- [Waiting], Us =< Now],
    hd(Late ++ Hedge ++ Look ++ [nothing]).
