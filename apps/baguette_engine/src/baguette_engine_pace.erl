%% @doc How fast the holders really answer, as this node's generations see it: each call's time over
%% what was expected of it. It orders holders (one that is slower than it says is asked later), says
%% when a call is slow enough for another holder to be asked besides, and keeps the budget of such
%% hedges: ?HEDGE_PER_MILLE of all calls. Owned by baguette_engine_sup, written by every generation;
%% rows are single numbers, and a write that is lost to another's is a measurement less.
%% Tail latency by hedged requests: Dean and Barroso, The Tail at Scale, CACM 56(2), 2013.
-module(baguette_engine_pace).

-export([table/0, asked/0, hedged/0, answered/3, hedge/0, typical/0, in_order/1]).
%% Pure
-export([expected_us/3, alike/1, faded/2, learnt/3, quantile/2, merged/2]).

%% What is learnt of a node fades: one that was slow is tried again.
-define(HALF_LIFE_US, 30000000).
-define(WEIGHT, 0.3).
-define(MAX_RATIO, 32.0).
%% No single call counts for more: a machine that stood still for a moment is not a slow one.
-define(MOST_TIMES, 4.0).
%% So many times slower against what it says than the best of the holders is.
-define(SLOW, 2.0).
%% Another one is asked besides when a call takes longer than three in four do, and a fifth more.
-define(QUANTILE, 0.75).
-define(QUANTILE_STEP, 0.05).
-define(MARGIN, 1.2).
-define(LEAST_FACTOR, 1.3).
-define(MOST_FACTOR, 4.0).
-define(HEDGE_PER_MILLE, 30).
-define(MOST_SAVED, 5000).

-type holder() :: baguette_cluster_holders:holder().

-spec table() -> ok.
table() ->
    ?MODULE = ets:new(?MODULE, [named_table, public, {write_concurrency, true}]),
    true = ets:insert(?MODULE, [{budget, 1000}, {typical, 1.5}]),
    ok.

%% @doc A call was sent: the budget grows.
-spec asked() -> ok.
asked() ->
    Grow = {2, ?HEDGE_PER_MILLE, ?MOST_SAVED, ?MOST_SAVED},
    _ = ets:update_counter(?MODULE, budget, Grow, {budget, 0}),
    ok.

%% @doc One call of the budget was used.
-spec hedged() -> ok.
hedged() ->
    _ = ets:update_counter(?MODULE, budget, {2, -1000}, {budget, 0}),
    ok.

%% @doc A call to this node took so many times what was expected, or has taken as much already.
-spec answered(node(), Ratio :: float(), exact | at_least) -> ok.
answered(Node, Ratio, How) ->
    Now = erlang:monotonic_time(microsecond),
    [Before] = alike([known(Node, Now)]),
    true = ets:insert(?MODULE, {{node, Node}, learnt(How, Ratio, Before), Now}),
    _ = How =:= exact andalso ets:insert(?MODULE, {typical, quantile(Ratio, typical())}),
    ok.

%% @doc After how many times what was expected another holder may be asked; none: no budget is left.
-spec hedge() -> float() | none.
hedge() ->
    case ets:lookup(?MODULE, budget) of
        [{budget, Saved}] when Saved >= 1000 ->
            max(?LEAST_FACTOR, min(?MOST_FACTOR, ?MARGIN * typical()));
        _ ->
            none
    end.

%% @doc The holders, best first, with what is known of their pace; with the setting `choice' at
%% `random' in any order, which is how others choose and is there to be compared with.
-spec in_order([holder()]) -> [holder()].
in_order([_, _ | _] = Holders) ->
    case baguette_engine_settings:get(choice) of
        measured ->
            Now = erlang:monotonic_time(microsecond),
            merged(Holders, alike([known(Node, Now) || #{node := Node} <- Holders]));
        random ->
            [H || {_, H} <- lists:sort([{rand:uniform(), H} || H <- Holders])]
    end;
in_order(Holders) ->
    Holders.

known(Node, Now) ->
    case ets:lookup(?MODULE, {node, Node}) of
        [{_, Ratio, At}] -> faded(Ratio, Now - At);
        [] -> unknown
    end.

%% @doc Ratios with what is not known taken as the middle of what is.
-spec alike([float() | unknown]) -> [float()].
alike(Ratios) ->
    Known = lists:sort([R || R <- Ratios, R =/= unknown]),
    Middle = lists:nth(length(Known) div 2 + 1, Known ++ [1.0]),
    [case R of unknown -> Middle; _ -> R end || R <- Ratios].

%% @doc How many times what was expected calls take, three in four of them at most.
-spec typical() -> float().
typical() ->
    [{typical, Typical}] = ets:lookup(?MODULE, typical),
    Typical.

%% @doc What a call of so many images is expected to take at a holder that has so many of our calls.
%% The queue it publishes is an average in which our calls of a moment ago still stand: only those
%% that are there now count, or who is asked all the time could be twice as slow unnoticed.
-spec expected_us(holder() | map(), Own :: non_neg_integer(), Images :: pos_integer()) ->
    pos_integer().
expected_us(#{expected_us := One, call_us := Call} = Holder, Own, Images) ->
    Published = max(0, maps:get(queue, Holder, 0) - Own),
    max(1, One + (Images - 1 - Published) * Call).

%% @doc What is left of a ratio after so long.
-spec faded(float(), non_neg_integer()) -> float().
faded(Ratio, Us) -> 1.0 + (Ratio - 1.0) * math:pow(0.5, Us / ?HALF_LIFE_US).

%% @doc The ratio after one more call. It takes two slow ones in a row to be ?SLOW.
-spec learnt(exact | at_least, float(), float()) -> float().
learnt(at_least, Ratio, Before) when Ratio =< Before -> Before;
learnt(_, Ratio, Before) ->
    Before + ?WEIGHT * (lists:min([Ratio, ?MOST_TIMES * Before, ?MAX_RATIO]) - Before).

%% @doc A quantile followed by small steps: three in four ratios lie below it.
-spec quantile(float(), float()) -> float().
quantile(Ratio, Before) when Ratio > Before -> Before * (1.0 + ?QUANTILE_STEP * ?QUANTILE);
quantile(_, Before) -> max(0.1, Before * (1.0 - ?QUANTILE_STEP * (1.0 - ?QUANTILE))).

%% @doc The holders with those that are slow set back behind whoever is expected to be sooner. The
%% others keep their order, which is by more than time (baguette_cluster_holders).
-spec merged([holder()], [float()]) -> [holder()].
merged(Holders, Ratios) ->
    Least = lists:min(Ratios),
    Slower = [max(1.0, Ratio / Least) || Ratio <- Ratios],
    {Slow, Others} = lists:partition(
        fun({Factor, _}) -> Factor >= ?SLOW end, lists:zip(Slower, Holders)
    ),
    Late = lists:keysort(1, [{Factor * Us, H} || {Factor, #{expected_us := Us} = H} <- Slow]),
    [H || {_, H} <- lists:keymerge(1, ranked(Others, 0), Late)].

ranked([], _) -> [];
ranked([{_, #{expected_us := Us} = H} | More], Most) ->
    Rank = max(Us, Most),
    [{Rank, H} | ranked(More, Rank)].
