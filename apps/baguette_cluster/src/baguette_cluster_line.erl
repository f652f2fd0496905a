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
%% Unloading needs the same plan for settle_ms and every node it names for the component ready and
%% reachable. No safe order, no move.
-module(baguette_cluster_line).

-export([new/1, look/3, next/4, agreed/1, settled/2, no_plan_yet/0]).
-export_type([state/0, view/0]).

%% Times settle_ms that a young node waits for expected peers: not there, or there and preparing.
-define(PATIENCE, 5).
-define(PATIENCE_PREPARING, 30).

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

-record(?MODULE, {
    settle_ms :: non_neg_integer(),
    started_ms :: integer() | undefined,
    met_all = false :: boolean(),           % every expected peer has been met with a plan
    preparing = false :: boolean(),         % one of them is linked and has none yet
    hash = 0 :: non_neg_integer(),          % of our plan, at the last look
    since_ms :: integer() | undefined,      % since when all reachable plans agree
    whole = false :: boolean(),             % all expected peers are linked, and agree
    ever_held = #{} :: #{component() => held}
}).
-opaque state() :: #?MODULE{}.

-spec new(non_neg_integer()) -> state().
new(SettleMs) ->
    #?MODULE{settle_ms = SettleMs}.

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

%% @doc The list to hold from now on, given what is held.
-spec next([component()], view(), integer(), state()) -> [component()].
next(Held, #{plan := Plan, reports := [Own | _]} = View, Now, S) ->
    Line = baguette_cluster_placement:line(baguette_cluster_report:node(Own), Plan),
    Drops = [C || C <- Held -- Line, settled(Now, S), covered(C, View)],
    Loads = [C || C <- Line -- Held, may_load(C, View, Now, S)],
    fitting(Loads, lists:sort(Held -- Drops), Own).

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

%% Everybody who is to hold it is ready and can be asked; and there is somebody.
covered(C, #{plan := Plan, reports := Reports, up := Up}) ->
    Ready = [
        baguette_cluster_report:node(R)
     || R <- Reports, baguette_cluster_report:state(C, R) =:= ready
    ],
    case maps:get(C, Plan, []) of
        [] -> false;
        Named -> lists:all(fun(N) -> lists:member(N, Ready) andalso lists:member(N, Up) end, Named)
    end.

held_by_any(Reports) ->
    lists:usort(lists:append([baguette_cluster_report:held(R) || R <- Reports])).

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
