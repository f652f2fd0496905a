%% @doc How much goes to a device as one call: rows by the setting `batch_rows' or by what was
%% measured, and never more than a frame should hold. Told by baguette_engine_probes, asked by the
%% workers. Nothing dies with it: it is a term.
-module(baguette_engine_batch).

-export([most/1, learnt/1, computed/1, company/2, decoded/0]).
%% Pure
-export([rows/1]).

%% Of a device that was not measured yet, and of what the pipeline worker does.
-define(ROWS, 16).
%% Images in one call to decode: the pipeline worker has steps of others to take meanwhile.
-define(DECODED, 4).
%% A quarter of the largest frame: what is answered may be larger than what was asked.
-define(BYTES, (64 bsl 20)).
%% More rows must make each so much cheaper, or they only make others wait.
-define(GAIN_PERCENT, 5).
%% A batch takes so long beside its rows, which no probe sees: the port, the codec, waking threads,
%% and caches that others' calls have left cold (docs/PERFORMANCE.md).
-define(BESIDE_US, 1000).

%% @doc The most that calls of this function may have and weigh together; with 1 row none go
%% together.
-spec most(Function :: atom()) -> {Rows :: pos_integer(), Bytes :: pos_integer()}.
most(Function) ->
    Rows = case {baguette_engine_settings:get(batch_rows), Function} of
        {auto, velocity} -> persistent_term:get(?MODULE, ?ROWS);
        {auto, decode} -> ?DECODED;
        {auto, _} -> ?ROWS;
        {Set, decode} -> min(Set, ?DECODED);
        {Set, _} -> Set
    end,
    {Rows, ?BYTES}.

%% @doc How many images are decoded by one call.
-spec decoded() -> pos_integer().
decoded() -> ?DECODED.

%% @doc Calls of so many rows took so many microseconds.
-spec learnt(#{Rows :: pos_integer() => Us :: pos_integer()}) -> ok.
learnt(CallUs) ->
    persistent_term:put(?MODULE, rows(CallUs)).

%% @doc What a frame says of who may join it: those of its group, and up to how many rows.
-spec company(Function :: atom(), baguette_engine_turns:company()) ->
    alone | {Group :: non_neg_integer(), Rows :: pos_integer(), Most :: pos_integer()}.
company(_Function, {alone, _Rows}) ->
    alone;
company(Function, {Group, Rows}) ->
    {Most, _Bytes} = most(Function),
    {erlang:phash2(Group), Rows, Most}.

%% @doc A device computed this: of calls, a batch of so many rows.
-spec computed({Function :: atom(), Rows :: non_neg_integer()} | atom()) -> ok.
computed({velocity, Rows}) when Rows > 0 ->
    baguette_engine_metrics:observe(batch_rows, none, Rows);
computed(_) ->
    ok.

%% @doc The largest measured batch up to which a row has become ever cheaper.
-spec rows(#{pos_integer() => pos_integer()}) -> pos_integer().
rows(CallUs) ->
    case [{Rows, (Us + ?BESIDE_US) / Rows} || {Rows, Us} <- lists:sort(maps:to_list(CallUs))] of
        [] -> ?ROWS;
        [{Rows, Each} | Larger] -> rows(Rows, Each, Larger)
    end.

rows(_, Each, [{Rows, Less} | Larger]) when 100 * Less =< (100 - ?GAIN_PERCENT) * Each ->
    rows(Rows, Less, Larger);
rows(Rows, _Each, _) ->
    Rows.
