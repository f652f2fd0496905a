%% @doc What this node may do now about its own line of the plan: pure, with the clock as argument.
%% Reports always differ somewhere in flight, so nothing moves on a plan that the others do not
%% share. Called by baguette_cluster_holdings on every beat and every change.
%%
%% Loading needs one of
%%   - all reachable members have reported the same plan for settle_ms, and, on a young node, every
%%     peer that is expected has been met with a plan, or five times settle_ms have passed (thirty
%%     times while one of them is linked and still finds out what it has on its disk);
%%   - every expected peer is linked and reports the same plan (a whole cluster starting at once);
%%   - the plans agree and nobody holds the component any more, though somebody did.
%% A node that does not know its own disk yet reports no plan: it is not waited for, except by those
%% who expect it at their start.
%%
%% Unloading needs the same plan for settle_ms and a node it names for the component ready and
%% reachable; and of what is ready here, a promise. Protocol, all of it in reports (facts letting_go
%% and promises), so that a lost or late message is nothing but a late one:
%%   wish      "I would let go of C", under a number never used before; whoever has such a wish
%%             promises C to nobody
%%   promise   the answer of a node that has C ready, planned for itself, and no wish to let go of
%%             it: from now on it keeps C for promise_ms, whatever its plan says; until then it
%%             may not wish. It ends early when the wish is seen to be over
%%   let go    on a promise for this very wish, from a node that is reachable and named by the
%%             plan, while the wish is younger than half of promise_ms
%% So whoever lets go does it on the word of somebody who was ready after the wish, and who can go
%% only on the word of a third. Not in it: what fails or dies. No safe order, no move.
-module(baguette_cluster_line).

-export([new/2, resumed/2, look/3, next/4, says/1, agreed/1, settled/2, no_plan_yet/0]).
-export_type([state/0, view/0]).

%% Times settle_ms that a young node waits for expected peers: not there, or there and preparing.
-define(PATIENCE, 5).
-define(PATIENCE_PREPARING, 30).
%% Times settle_ms that a promise is kept: many beats, and an end to it if the other side is gone.
-define(PROMISE, 10).
-define(MIN_PROMISE_MS, 1000).
%% At a time, so that both facts stay far below what a report may carry.
-define(MAX_WISHES, 4).
-define(MAX_PROMISES, 10).

-define(NO_PLAN, 0).

-type component() :: baguette_cluster_component:component().
%% What is seen at one moment.
-type view() :: #{
    plan := baguette_cluster_placement:plan(),
    reports := [baguette_cluster_report:report()],  % ours included
    up := [node()],                                 % reachable members, ourselves not included
    expected := [node()] | unknown,                 % whom discovery knows, once it does
    knows_its_disk := boolean()                     % whether we do
}.

-type promise() :: {To :: node(), component(), Serial :: integer()}.

-record(?MODULE, {
    settle_ms :: non_neg_integer(),
    started_ms :: integer() | undefined,
    met_all = false :: boolean(),           % every expected peer has been met with a plan
    preparing = false :: boolean(),         % one of them is linked and has none yet
    hash = 0 :: non_neg_integer(),          % of our plan, at the last look
    since_ms :: integer() | undefined,      % since when all reachable plans agree
    whole = false :: boolean(),             % all expected peers are linked, and agree
    ever_held = #{} :: #{component() => held},
    serial :: integer(),                    % the number of the next wish
    wishes = #{} :: #{component() => {Serial :: integer(), SinceMs :: integer()}},
    promises = #{} :: #{promise() => UntilMs :: integer()},
    %% We may have promised what we do not remember: nothing is let go before.
    bound_until_ms :: integer() | undefined
}).
-opaque state() :: #?MODULE{}.

%% @doc Serial is above every number that a node of this name has used before: its clock.
-spec new(non_neg_integer(), integer()) -> state().
new(SettleMs, Serial) ->
    #?MODULE{settle_ms = SettleMs, serial = Serial}.

%% @doc Instead of a fresh start, for a process that goes on with what another one held: what that
%% one promised is not known any more, so everything is kept as long as it could have been.
-spec resumed(integer(), state()) -> state().
resumed(Now, S) ->
    S#?MODULE{bound_until_ms = Now + promise_ms(S)}.

promise_ms(#?MODULE{settle_ms = Settle}) -> max(?MIN_PROMISE_MS, ?PROMISE * Settle).

%% @doc What a report carries in place of a plan's hash while there is none.
-spec no_plan_yet() -> 0.
no_plan_yet() -> ?NO_PLAN.

%% @doc Takes note of what is seen now.
-spec look(view(), integer(), state()) -> state().
look(#{plan := Plan, reports := Reports, up := Up, expected := Expected} = View, Now, S) ->
    Hash = baguette_cluster_placement:hash(Plan),
    Hashes = maps:from_list([
        {baguette_cluster_report:node(R), baguette_cluster_report:plan_hash(R)}
     || R <- Reports
    ]),
    Planning = [N || N <- Up, maps:get(N, Hashes, ?NO_PLAN) =/= ?NO_PLAN],
    Agree = lists:all(fun(N) -> maps:get(N, Hashes) =:= Hash end, Planning),
    Whole = Expected =/= unknown andalso Expected -- Planning =:= [],
    Held = maps:from_list([{C, held} || C <- held_by_any(Reports)]),
    S#?MODULE{
        started_ms = started(S#?MODULE.started_ms, View, Now),
        met_all = S#?MODULE.met_all orelse Whole,
        preparing = is_preparing(Expected, Up -- Planning),
        hash = Hash,
        since_ms = since(Agree, Hash, Now, S),
        whole = Agree andalso Whole,
        ever_held = maps:merge(S#?MODULE.ever_held, Held)
    }.

is_preparing(unknown, _Planless) -> false;
is_preparing(Expected, Planless) -> Expected -- Planless =/= Expected.

%% A node is young from when it knows its own disk: until then it has nothing to wait with.
started(undefined, #{knows_its_disk := true}, Now) -> Now;
started(Before, _View, _Now) -> Before.

since(false, _Hash, _Now, _S) -> undefined;
since(true, Hash, _Now, #?MODULE{hash = Hash, since_ms = Since}) when is_integer(Since) -> Since;
since(true, _Hash, Now, _S) -> Now.

%% @doc Whether all whom we can reach plan the same.
-spec agreed(state()) -> boolean().
agreed(#?MODULE{since_ms = Since}) -> Since =/= undefined.

%% @doc Whether they have long enough.
-spec settled(integer(), state()) -> boolean().
settled(Now, #?MODULE{since_ms = Since, settle_ms = Settle}) ->
    Since =/= undefined andalso Now - Since >= Settle.

%% @doc What of it goes into our report.
-spec says(state()) -> #{
    letting_go := [{component(), integer()}], promises := [{node(), component(), integer()}]
}.
says(#?MODULE{wishes = Wishes, promises = Promises}) ->
    #{
        letting_go => [{C, Serial} || {C, {Serial, _}} <- lists:sort(maps:to_list(Wishes))],
        promises => lists:sort(maps:keys(Promises))
    }.

%% @doc The list to hold from now on, given what is held.
-spec next([component()], view(), integer(), state()) -> {[component()], state()}.
next(Held, #{plan := Plan, reports := [Own | _]} = View, Now, S) ->
    Line = baguette_cluster_placement:line(baguette_cluster_report:node(Own), Plan),
    Wishing = wish(Held -- Line, View, Now, kept(View, Now, S)),
    Drops = [C || C <- Held -- Line, may_let_go(C, View, Now, Wishing)],
    Gone = Wishing#?MODULE{wishes = maps:without(Drops, Wishing#?MODULE.wishes)},
    Kept = lists:sort(Held -- Drops),
    Loads = urgent_first([C || C <- Line -- Held, may_load(C, View, Now, Gone)], View),
    {fitting(Loads, Kept, Own), promise(Kept, Line, View, Now, Gone)}.

%% Letting go -----------------------------------------------------------------------------------

%% The promises that bind us still. A later report of theirs that does not name the wish any more
%% tells that they have let go or think otherwise; either way they will not act on it again.
kept(#{reports := Reports}, Now, #?MODULE{promises = Promises} = S) ->
    Wishes = maps:from_list([
        {baguette_cluster_report:node(R), baguette_cluster_report:letting_go(R)}
     || R <- Reports
    ]),
    S#?MODULE{promises = maps:filter(
        fun({Node, C, Serial}, Until) ->
            Until > Now andalso lists:member({C, Serial}, maps:get(Node, Wishes, [{C, Serial}]))
        end, Promises)}.

%% A wish that nobody answered is made again under a new number: what is answered late is answered
%% to nobody.
wish(Unplanned, #{reports := [Own | _]} = View, Now, #?MODULE{wishes = Before} = S) ->
    Wanted = [
        C
     || C <- Unplanned, is_ready(C, Own), may_think_of_it(C, View, Now, S)
    ],
    Young = maps:filter(
        fun(C, {_, Since}) ->
            lists:member(C, Wanted) andalso Now - Since < promise_ms(S) div 2
        end, Before),
    New = lists:sublist(Wanted -- maps:keys(Young), max(0, ?MAX_WISHES - map_size(Young))),
    Make = fun(C, #?MODULE{serial = Serial, wishes = Wishes} = Sofar) ->
        Sofar#?MODULE{serial = Serial + 1, wishes = Wishes#{C => {Serial, Now}}}
    end,
    lists:foldl(Make, S#?MODULE{wishes = Young}, New).

may_think_of_it(C, View, Now, S) ->
    settled(Now, S) andalso covered(C, View) andalso not is_bound(C, Now, S).

is_bound(_C, Now, #?MODULE{bound_until_ms = Until}) when is_integer(Until), Now < Until -> true;
is_bound(C, _Now, #?MODULE{promises = Promises}) ->
    lists:keymember(C, 2, maps:keys(Promises)).

may_let_go(C, #{reports := [Own | _]} = View, Now, #?MODULE{wishes = Wishes} = S) ->
    case Wishes of
        #{C := {Serial, _}} -> is_promised({baguette_cluster_report:node(Own), C, Serial}, View);
        _ -> not is_ready(C, Own) andalso may_think_of_it(C, View, Now, S)
    end.

is_promised({_, C, _} = Promise, #{plan := Plan, reports := Reports, up := Up}) ->
    lists:any(
        fun(R) ->
            Node = baguette_cluster_report:node(R),
            lists:member(Node, maps:get(C, Plan, [])) andalso lists:member(Node, Up) andalso
                is_ready(C, R) andalso lists:member(Promise, baguette_cluster_report:promises(R))
        end, Reports).

%% To everybody whose wish we see, as far as we have it ready and it is ours by the plan.
promise(Kept, Line, #{reports := [Own | Others]}, Now, #?MODULE{promises = Promises} = S) ->
    Until = Now + promise_ms(S),
    Asked = [
        {{baguette_cluster_report:node(R), C, Serial}, Until}
     || R <- Others, {C, Serial} <- baguette_cluster_report:letting_go(R),
        lists:member(C, Kept), lists:member(C, Line), is_ready(C, Own)
    ],
    New = [P || {Key, _} = P <- Asked, not is_map_key(Key, Promises)],
    Room = max(0, ?MAX_PROMISES - map_size(Promises)),
    S#?MODULE{promises = maps:merge(Promises, maps:from_list(lists:sublist(New, Room)))}.

is_ready(C, Report) ->
    baguette_cluster_report:state(C, Report) =:= ready.

%% Loading --------------------------------------------------------------------------------------

may_load(_C, _View, _Now, #?MODULE{since_ms = undefined}) ->
    false;
may_load(_C, _View, _Now, #?MODULE{whole = true}) ->
    true;
may_load(C, #{reports := Reports}, Now, #?MODULE{ever_held = Ever} = S) ->
    Orphan = is_map_key(C, Ever) andalso not lists:member(C, held_by_any(Reports)),
    Orphan orelse (settled(Now, S) andalso not too_young(Now, S)).

too_young(_Now, #?MODULE{met_all = true}) -> false;
too_young(_Now, #?MODULE{started_ms = undefined}) -> true;
too_young(Now, #?MODULE{started_ms = Started, settle_ms = Settle, preparing = true}) ->
    Now - Started < ?PATIENCE_PREPARING * Settle;
too_young(Now, #?MODULE{started_ms = Started, settle_ms = Settle}) ->
    Now - Started < ?PATIENCE * Settle.

%% Somebody who is to hold it is ready and can be asked. Not everybody: nodes that are full would
%% wait for each other.
covered(C, #{plan := Plan, reports := Reports, up := Up}) ->
    Ready = [baguette_cluster_report:node(R) || R <- Reports, is_ready(C, R)],
    Named = maps:get(C, Plan, []),
    lists:any(fun(N) -> lists:member(N, Ready) andalso lists:member(N, Up) end, Named).

%% Who leaves holds for the moment, not for us.
held_by_any(Reports) ->
    Staying = [R || R <- Reports, not baguette_cluster_report:leaving(R)],
    lists:usort(lists:append([baguette_cluster_report:held(R) || R <- Staying])).

urgent_first(Loads, #{plan := Plan, reports := Reports}) ->
    Holders = fun(C) ->
        [
            baguette_cluster_report:node(R)
         || R <- Reports, lists:member(C, baguette_cluster_report:held(R))
        ]
    end,
    Urgency = fun(C) -> baguette_cluster_order:urgency(Holders(C), maps:get(C, Plan)) end,
    [C || {_, C} <- lists:sort([{Urgency(C), C} || C <- Loads])].

%% What is still to be dropped takes its memory until it is: a load that does not fit waits.
fitting([], Held, _Own) ->
    Held;
fitting([C | Rest], Held, Own) ->
    Items = baguette_cluster_report:items(Own),
    Sizes = maps:from_list([{D, S} || #{component := D, size_mib := S} <- Items]),
    Sum = lists:sum([maps:get(D, Sizes, 0) || D <- [C | Held]]),
    case Sum =< baguette_cluster_report:memory_mib(Own) of
        true -> fitting(Rest, lists:sort([C | Held]), Own);
        false -> fitting(Rest, Held, Own)
    end.
