%% @doc What is counted and timed on this node, for whoever watches it over time. A table that
%% baguette_engine_sup owns; generations and servers write a row by themselves, one table operation
%% an event and no message to anybody. Nothing is lost when a writer dies.
%%
%% A counter's or histogram's row is {{Name, Labels}, Numbers...}, a gauge's {{Name, Labels},
%% Number}. Beside its histogram an expert call has a row of the last ?RECENT times, and so have the
%% parts of a picture: what they take of late. Labels stay terms until somebody reads.
-module(baguette_engine_metrics).

%% Writing
-export([table/0, count/2, count/3, ended/1, observe/3, set/2, called/3, took/2]).
%% Reading
-export([all/0, value/1, calls/0, unhindered_us/1]).
%% Pure
-export([quantile/2]).

-export_type([metric/0, part/0]).

%% Bounds of histograms: microseconds, rows.
-define(MICROS, [
    1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000,
    10000000, 30000000, 60000000
]).
-define(ROWS, [1, 2, 4, 8, 16, 32, 64]).
-define(RECENT, 64).

%% `step' is a whole one, asks and all; `advance' and `decode' (of one image) as waited for.
-type part() :: encode | step | advance | decode.
-type labels() :: term().
-type sample() ::
    {
        [{Label :: binary(), Value :: binary()}],
        number()
        | #{
            %% cumulative: how many were at most so much
            buckets := [{number() | infinity, non_neg_integer()}],
            sum := number(),
            count := non_neg_integer()
        }
    }.
-type metric() :: #{
    name := binary(),
    type := counter | gauge | histogram,
    help := binary(),
    samples := [sample()]
}.

-spec table() -> ok.
table() ->
    ?MODULE = ets:new(?MODULE, [named_table, public, {write_concurrency, true}]),
    true = ets:insert(?MODULE, [
        {{Name, none}, 0}
     || {Name, Type, none, _Help} <- definitions(), Type =/= histogram
    ]),
    ok.

%% Name, type, labels, help. Names follow Prometheus' conventions; the web room adds its prefix.
definitions() ->
    [
        {step_seconds, histogram, none, <<"One step of a picture: its expert calls and the rest">>},
        {expert_call_seconds, histogram, call,
            <<"An expert call from the question to the answer, as its asker saw it">>},
        {generations_total, counter, state, <<"Generations that ended, by how">>},
        {images_total, counter, none, <<"Pictures that were drawn">>},
        {calls_total, counter, none, <<"Expert calls sent">>},
        {ask_bytes_total, counter, none, <<"Bytes of expert calls sent">>},
        {answer_bytes_total, counter, none, <<"Bytes of the answers to them">>},
        {hedges_total, counter, none, <<"Expert calls sent to another holder besides a slow one">>},
        {failovers_total, counter, none, <<"Expert calls that went to another holder instead">>},
        {asks_refused_total, counter, none,
            <<"Expert calls that this node had no room for: asked again, or of another holder">>},
        {worker_deaths_total, counter, kind, <<"Deaths of this node's OS processes">>},
        {batch_rows, histogram, none, <<"Images that this node's device computed as one batch">>},
        {generations_running, gauge, none, <<"Generations that work">>},
        {generations_waiting, gauge, none, <<"Generations that wait for their turn">>}
    ].

bounds(batch_rows) -> ?ROWS;
bounds(_) -> ?MICROS.

%% Writing --------------------------------------------------------------------------------------

%% @doc One more of these.
-spec count(atom(), labels()) -> ok.
count(Name, Labels) ->
    count(Name, Labels, 1).

%% @doc So many more of these.
-spec count(atom(), labels(), non_neg_integer()) -> ok.
count(Name, Labels, More) ->
    _ = ets:update_counter(?MODULE, {Name, Labels}, More, {{Name, Labels}, 0}),
    ok.

%% @doc A generation ended so.
-spec ended({done | cancelled, map()} | {failed, {atom(), map()}}) -> ok.
ended({done, #{images := Images}}) ->
    lists:foreach(fun(_) -> ok = count(images_total, none) end, Images),
    count(generations_total, done);
ended({State, _}) ->
    count(generations_total, State).

%% @doc So many microseconds, or rows.
-spec observe(atom(), labels(), non_neg_integer()) -> ok.
observe(Name, Labels, Value) ->
    Bounds = bounds(Name),
    %% {Key, Sum, one number a bound, and one for what is above all of them}
    Empty = list_to_tuple([{Name, Labels}, 0, 0 | [0 || _ <- Bounds]]),
    Bucket = 3 + length(lists:takewhile(fun(Bound) -> Value > Bound end, Bounds)),
    _ = ets:update_counter(?MODULE, {Name, Labels}, [{2, Value}, {Bucket, 1}], Empty),
    ok.

%% @doc It is so many now.
-spec set(atom(), non_neg_integer()) -> ok.
set(Name, Value) ->
    true = ets:insert(?MODULE, {{Name, none}, Value}),
    ok.

%% @doc A holder of this component answered after so long.
-spec called(Component :: binary(), node(), Us :: non_neg_integer()) -> ok.
called(Component, Node, Us) ->
    ok = observe(expert_call_seconds, {Component, Node}, Us),
    recent({Component, Node}, Us).

%% @doc A part of a picture took so long.
-spec took(part(), Us :: non_neg_integer()) -> ok.
took(step, Us) ->
    ok = observe(step_seconds, none, Us),
    recent(step, Us);
took(Part, Us) ->
    recent(Part, Us).

%% Two writers at once may lose one of two times: it is a measurement less.
recent(Key, Us) ->
    Row = {recent, Key},
    Empty = list_to_tuple([Row, 0 | [none || _ <- lists:seq(1, ?RECENT)]]),
    At = ets:update_counter(?MODULE, Row, {2, 1, ?RECENT, 1}, Empty),
    true = ets:update_element(?MODULE, Row, {2 + At, Us}),
    ok.

%% Reading --------------------------------------------------------------------------------------

%% @doc A gauge or counter without labels.
-spec value(atom()) -> non_neg_integer().
value(Name) ->
    [{_, Value}] = ets:lookup(?MODULE, {Name, none}),
    Value.

%% @doc What this part of a picture takes where it hardly waits: of late, the tenth percentile.
%% What it waits goes by what else is drawn, which is another thing in the next second. Undefined
%% when none was made.
-spec unhindered_us(part()) -> non_neg_integer() | undefined.
unhindered_us(Part) ->
    case ets:lookup(?MODULE, {recent, Part}) of
        [Row] -> quantile(0.1, times(tl(tl(tuple_to_list(Row)))));
        [] -> undefined
    end.

%% @doc What calls took of late, by expert and the node that answered, in milliseconds.
-spec calls() ->
    [#{
        expert := non_neg_integer(),
        node := node(),
        count := pos_integer(),
        p50_ms := float(),
        p95_ms := float()
    }].
calls() ->
    Numbers = numbers(),
    [
        #{
            expert => maps:get(Component, Numbers),
            node => Node,
            count => counted({Component, Node}),
            p50_ms => quantile(0.5, Times) / 1000,
            p95_ms => quantile(0.95, Times) / 1000
        }
     || [{recent, {Component, Node}}, _Next | Row] <- rows(recent),
        is_map_key(Component, Numbers),
        Times <- [times(Row)], Times =/= []
    ].

counted(Labels) ->
    [Row] = ets:lookup(?MODULE, {expert_call_seconds, Labels}),
    [_Key, _Sum | Counts] = tuple_to_list(Row),
    lists:sum(Counts).

rows(Name) ->
    [tuple_to_list(Row) || Row <- lists:sort(ets:tab2list(?MODULE)), is_of(Name, element(1, Row))].

is_of(Name, {Other, _Labels}) -> Name =:= Other.

times(Row) -> [Us || Us <- Row, Us =/= none].

%% @doc The least of these values that so large a part of them does not exceed.
-spec quantile(float(), [number(), ...]) -> number().
quantile(Part, Values) ->
    lists:nth(max(1, ceil(Part * length(Values))), lists:sort(Values)).

numbers() ->
    case baguette_engine_model:get() of
        {ok, #{experts := Experts}} ->
            maps:from_list(lists:zip(Experts, lists:seq(0, length(Experts) - 1)));
        {error, _} ->
            #{}
    end.

%% @doc All that is counted here, as it stands now.
-spec all() -> [metric()].
all() ->
    Numbers = numbers(),
    [
        #{
            name => atom_to_binary(Name), type => Type, help => Help,
            samples => [
                {texts(Kind, Labels, Numbers), sample(Name, Type, Row)}
             || [{_, Labels} | Row] <- rows(Name), is_named(Kind, Labels, Numbers)
            ]
        }
     || {Name, Type, Kind, Help} <- definitions()
    ].

sample(Name, histogram, [Sum | Counts]) ->
    Unit = case Name of batch_rows -> 1; _ -> 1000000 end,
    Bounds = [Bound / Unit || Bound <- bounds(Name)] ++ [infinity],
    {Cumulative, Count} = lists:mapfoldl(fun(N, All) -> {All + N, All + N} end, 0, Counts),
    #{buckets => lists:zip(Bounds, Cumulative), sum => Sum / Unit, count => Count};
sample(_Name, _Type, [Value]) ->
    Value.

%% What is left of a model that was served before has no number here.
is_named(call, {Component, _}, Numbers) -> is_map_key(Component, Numbers);
is_named(_, _, _) -> true.

texts(none, none, _) ->
    [];
texts(call, {Component, Node}, Numbers) ->
    Expert = integer_to_binary(maps:get(Component, Numbers)),
    [{<<"expert">>, Expert}, {<<"node">>, address(Node)}];
texts(Label, Value, _) ->
    [{atom_to_binary(Label), atom_to_binary(Value)}].

%% @doc How a node is named in a label: a member by its address.
-spec address(node()) -> binary().
address(Node) ->
    lists:last(binary:split(atom_to_binary(Node), <<"@">>)).
