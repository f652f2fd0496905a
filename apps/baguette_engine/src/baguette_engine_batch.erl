%% @doc How much goes to a device as one call: rows by the setting `batch_rows' or by what was
%% measured, and never more than a frame should hold. Told by baguette_engine_probes, asked by the
%% workers. Nothing dies with it: it is a term.
-module(baguette_engine_batch).

-export([most/1, learnt/1, sent/2, decoded/0]).
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

%% @doc A call of this function goes to a device, of so many rows.
-spec sent(Function :: atom(), Rows :: pos_integer()) -> ok.
sent(velocity, Rows) -> baguette_engine_metrics:observe(batch_rows, none, Rows);
sent(_, _) -> ok.

%% @doc The largest measured batch up to which a row has become ever cheaper.
-spec rows(#{pos_integer() => pos_integer()}) -> pos_integer().
rows(CallUs) ->
    case lists:sort(maps:to_list(CallUs)) of
        [] -> ?ROWS;
        [{Rows, Us} | Larger] -> rows(Rows, Us / Rows, Larger)
    end.

rows(_, Each, [{Rows, Us} | Larger]) when 100 * (Us / Rows) =< (100 - ?GAIN_PERCENT) * Each ->
    rows(Rows, Us / Rows, Larger);
rows(Rows, _Each, _) ->
    Rows.
