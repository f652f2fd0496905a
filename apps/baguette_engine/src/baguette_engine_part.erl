%% @doc A part of a step's round of expert calls: one expert, the images (by number, from 0) asked
%% for in one call, and the calls that are out for them. Pure; baguette_engine_ask says what
%% happens to it. Times are microseconds.
%%
%% A call that died counts against its part: after the second death its images are asked for one by
%% one, and the third fails the generation, so that no request kills every holder in turn. A part
%% that does not fit into a device's memory is halved, and then asked of somebody else.
-module(baguette_engine_part).

-export([new/2, expert/1, images/1, only/2]).
%% Its calls
-export([asked/2, calls/1, call/2, is_with/2, over/2, again/3, change/3, forgets/1]).
-export([way/1, peer/1]).
%% What went wrong
-export([failed/3]).
%% Waiting
-export([wait/3, waits/1, is_waiting/1]).
%% The clock
-export([next_us/1, due/2, later/2]).

-export_type([part/0, call/0, way/0, holder/0]).

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
    asked_us := integer(),
    expected_us := pos_integer(),
    %% When another holder may be asked besides (never: it was), and when it is late.
    hedge_us := integer() | never,
    late_us := integer()
}.
-record(?MODULE, {
    expert :: baguette_engine_image:expert(),
    images :: [non_neg_integer()],
    calls = [] :: [call()], % latest first
    failures = #{} :: #{Why :: atom() => pos_integer()},
    %% Nobody (else) can be asked: since when, why, and when to look again.
    waiting = none :: none | {SinceUs :: integer(), Why :: term(), LookUs :: integer()}
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
asked(Call, #?MODULE{calls = Calls} = P) -> P#?MODULE{calls = [Call | Calls], waiting = none}.

%% @doc The calls that are out, latest first.
-spec calls(part()) -> [call()].
calls(#?MODULE{calls = Calls}) -> Calls.

%% @doc The call of this number, or the one that goes over our link to this node.
-spec call(No :: pos_integer() | node(), part()) -> call() | none.
call(Which, #?MODULE{calls = Calls}) ->
    Is = fun(#{no := No} = Call) -> Which =:= No orelse Which =:= peer(Call) end,
    hd(lists:filter(Is, Calls) ++ [none]).

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

%% @doc The node our own link goes to.
-spec peer(#{node := node(), via => node(), atom() => term()}) -> node().
peer(#{via := Via}) -> Via;
peer(#{node := Node}) -> Node.

%% @doc This call is not out any more.
-spec over(call(), part()) -> part().
over(#{no := No}, #?MODULE{calls = Calls} = P) ->
    P#?MODULE{calls = [Call || #{no := N} = Call <- Calls, N =/= No]}.

%% @doc It was sent once more under another number.
-spec again(call(), pos_integer(), part()) -> part().
again(Call, No, P) -> change(Call, #{no => No}, P).

-spec change(call(), map(), part()) -> part().
change(#{no := No}, New, #?MODULE{calls = Calls} = P) ->
    Changed = fun(#{no := N} = C) when N =:= No -> maps:merge(C, New); (C) -> C end,
    P#?MODULE{calls = lists:map(Changed, Calls)}.

%% @doc Nobody wants the answers to its calls any more.
-spec forgets(part()) -> [{forget, pos_integer(), way()}].
forgets(#?MODULE{calls = Calls}) -> [{forget, No, way(Call)} || #{no := No} = Call <- Calls].

%% @doc What follows from the failure of one of its calls, where so many hold the expert.
-spec failed({atom(), map()}, Holders :: non_neg_integer(), part()) ->
    {instead, Why :: atom(), part()} | {split, [part()]} | {fatal, {atom(), map()}}.
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
    {expert_call_died, #{expert => Expert, images => Images, deaths => Count}};
fatal(Why, Count, Facts, #?MODULE{expert = Expert}) ->
    {Why, Facts#{expert => Expert, times => Count}}.

%% What went wrong with the whole counts for each.
groups(Groups, P) -> [P#?MODULE{images = Images, calls = [], waiting = none} || Images <- Groups].

%% @doc It waits for this reason; whether that is news.
-spec wait(Why :: term(), NowUs :: integer(), part()) -> {IsNews :: boolean(), part()}.
wait(Why, Now, #?MODULE{waiting = none} = P) ->
    {true, P#?MODULE{waiting = {Now, Why, Now + ?LOOK_US}}};
wait(Why, Now, #?MODULE{waiting = {Since, Before, _}} = P) ->
    {Why =/= Before, P#?MODULE{waiting = {Since, Why, Now + ?LOOK_US}}}.

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
later(Us, #?MODULE{calls = Calls} = P) ->
    P#?MODULE{calls = [
        Call#{late_us := Late + Us, hedge_us := shifted(Hedge, Us)}
     || #{late_us := Late, hedge_us := Hedge} = Call <- Calls
    ]}.

shifted(never, _Us) -> never;
shifted(At, Us) -> At + Us.

%% @doc What it is to be looked at for now.
-spec due(NowUs :: integer(), part()) -> {late | hedge, call()} | look | nothing.
due(Now, #?MODULE{calls = Calls, waiting = Waiting}) ->
    Late = [{late, C} || #{late_us := Us} = C <- Calls, Us =< Now],
    %% An atom is greater than any number: `never' is not due.
    Hedge = [{hedge, C} || #{hedge_us := Us} = C <- Calls, Us =< Now],
    Look = [look || {_, _, Us} <- [Waiting], Us =< Now],
    hd(Late ++ Hedge ++ Look ++ [nothing]).
