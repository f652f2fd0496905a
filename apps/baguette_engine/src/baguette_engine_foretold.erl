%% @doc What is foretold of pictures, and what came of it. A generation says when it waits, begins,
%% has made a step and ends; whoever asks how long a request would take is told from that, from
%% what holders say (baguette_engine_prediction), and from what pictures took against it
%% (baguette_engine_correction).
%%
%% A table that baguette_engine_sup owns: a row for the correction, one for what an image-step
%% takes, one per picture that is on its way to a generation, and two per generation that has not
%% ended (what is left of it, and what was drawn beside it so far, added up step by step). A write
%% that is lost to another's is a picture less learnt from. What dies with a generation,
%% baguette_engine_admission forgets.
-module(baguette_engine_foretold).

-export([table/0, predict/2, expect/3, came/1, work_seconds/1, drawing/0]).
%% For generations
-export([waits/2, begun/2, stepped/0, ended/2, forget/1]).
%% Pure
-export([image_step/3]).
-export_type([shape/0, story/0, foretold/0]).

-type shape() :: #{
    n := pos_integer(), steps := pos_integer(), top_k := pos_integer() | full,
    deterministic := boolean(), cache := float(), atom() => term()
}.
%% What its end is to be held against.
-opaque story() ::
    {waiting, shape(), Experts :: [binary()]}
    | {running, shape(), Experts :: pos_integer(), CountedUs :: pos_integer(),
        BegunUs :: integer()}
    | untold.

-type foretold() ::
    {ok, #{seconds := float(), queue_seconds := float()}}
    | {error, {no_holder, #{expert := non_neg_integer()}}}.

%% From what is foretold of it to its generation: a job is written to a disk in between.
-define(COMING_MS, 1000).
%% Until a picture was begun here.
-define(IMAGE_STEP_S, 0.1).
-define(NEWEST_COUNTS, 0.3).
-define(SHAPE, [n, steps, top_k, deterministic, cache]).
%% What the others draw is looked up for every picture to come, and on the way this often.
-define(LOOK_MS, 100).

-spec table() -> ok.
table() ->
    ?MODULE = ets:new(?MODULE, [named_table, public, {write_concurrency, true}]),
    true = ets:insert(?MODULE, [
        {image_step, counted, ?IMAGE_STEP_S},
        {elsewhere, baguette_engine_beside:none(), erlang:monotonic_time(millisecond)},
        {correction, baguette_engine_correction:unknown()}
    ]),
    ok.

%% @doc How long such a request would take, from its begin, and how long until that.
-spec predict(shape(), Experts :: [binary()]) -> foretold().
predict(Shape, Experts) ->
    foretold(Shape, Experts, []).

%% @doc The same of one that is on its way to a generation: others that come at the same moment are
%% foretold with it, and it with them. Until `came', or for as long as that may take.
-spec expect(Name :: term(), shape(), Experts :: [binary()]) -> foretold().
expect(Name, Shape, Experts) ->
    Now = erlang:monotonic_time(millisecond),
    Of = baguette_engine_beside:of_one(Shape, length(Experts)),
    true = ets:insert(?MODULE, {{coming, Name}, Now, Of}),
    foretold(Shape, Experts, coming(Name, Now)).

%% @doc It is a generation now, or will be none.
-spec came(Name :: term()) -> ok.
came(Name) ->
    true = ets:delete(?MODULE, {coming, Name}),
    ok.

%% Those that neither became a generation nor were given up died on the way.
coming(But, Now) ->
    Old = {{{coming, '_'}, '$1', '_'}, [{'<', '$1', Now - ?COMING_MS}], [true]},
    _ = ets:select_delete(?MODULE, [Old]),
    Coming = ets:match_object(?MODULE, {{coming, '_'}, '_', '_'}),
    [Of || {{coming, Name}, _, Of} <- Coming, Name =/= But].

foretold(Shape, Experts, Coming) ->
    case counted(Shape, Experts) of
        {ok, Us} ->
            Most = baguette_engine_settings:get(max_running),
            Unended = unended(),
            Beside = beside(Most - 1, Unended, Coming),
            Features = baguette_engine_correction:features(Shape, length(Experts), Beside),
            Factor = baguette_engine_correction:factor(Features, correction()),
            Queue = case length(Unended) < Most of true -> 0.0; false -> work_seconds(0) end,
            {ok, #{seconds => Us / 1.0e6 * Factor, queue_seconds => Queue}};
        {error, _} = Error ->
            Error
    end.

%% What others ask a step while a picture to come is drawn: those that run, then those that wait.
beside(MostHere, Unended, Coming) ->
    Running = [Asked || {_, _, _, running, Asked} <- Unended],
    Waiting = [Asked || {_, _, _, waiting, Asked} <- Unended],
    Here = lists:sublist(Running ++ Waiting ++ Coming, MostHere),
    baguette_engine_beside:sum([baguette_engine_drawing:elsewhere() | Here]).

%% @doc In how many seconds all that is drawn and waits here is likely to be done, and so many
%% image-steps that wait elsewhere.
-spec work_seconds(More :: non_neg_integer()) -> float().
work_seconds(More) ->
    Work = lists:sum([More | [Images * Steps || {_, Steps, Images, _, _} <- unended()]]),
    [{image_step, _, Each}] = ets:lookup(?MODULE, image_step),
    AtOnce = baguette_engine_settings:get(max_running),
    baguette_engine_prediction:queue_seconds(Work, Each, AtOnce).

%% @doc What the pictures that run here ask a step.
-spec drawing() -> baguette_engine_beside:beside().
drawing() ->
    baguette_engine_beside:sum([Asked || {_, _, _, running, Asked} <- unended()]).

%% @doc The calling generation will draw this.
-spec waits(shape(), Experts :: [binary()]) -> story().
waits(#{n := Images, steps := Steps} = Shape, Experts) ->
    Asked = baguette_engine_beside:of_one(Shape, length(Experts)),
    true = ets:insert(?MODULE, [
        {{left, self()}, Steps, Images, waiting, Asked}, {{beside, self()}, 0, 0, 0}
    ]),
    {waiting, maps:with(?SHAPE, Shape), Experts}.

%% @doc It begins, after so many steps that were made before; what goes on from there is no measure.
-spec begun(StepsMade :: non_neg_integer(), story()) -> story().
begun(0, {waiting, #{n := Images, steps := Steps} = Shape, Experts}) ->
    true = ets:update_element(?MODULE, {left, self()}, {4, running}),
    ok = baguette_engine_drawing:changed(),
    case counted(Shape, Experts) of
        {ok, Us} ->
            ok = image_step(counted, Us / 1.0e6 / (Images * Steps)),
            {running, Shape, length(Experts), Us, erlang:monotonic_time(microsecond)};
        {error, _} ->
            untold
    end;
begun(Made, {waiting, #{steps := Steps}, _Experts}) ->
    true = ets:update_element(?MODULE, {left, self()}, [{2, max(0, Steps - Made)}, {4, running}]),
    ok = baguette_engine_drawing:changed(),
    untold.

%% @doc It has made a step.
-spec stepped() -> ok.
stepped() ->
    _ = ets:update_counter(?MODULE, {left, self()}, {2, -1, 0, 0}),
    %% With its own, which `ended' takes off.
    #{pictures := Pictures, asks := Asks, rows := Rows} =
        baguette_engine_beside:sum([drawing(), elsewhere()]),
    _ = ets:update_counter(?MODULE, {beside, self()}, [{2, Pictures}, {3, Asks}, {4, Rows}]),
    ok.

%% @doc It ended; only what was drawn to its end is a measure.
-spec ended(done | failed | cancelled, story()) -> ok.
ended(done, {running, #{n := Images, steps := Steps} = Shape, Experts, CountedUs, BegunUs}) ->
    Features = baguette_engine_correction:features(Shape, Experts, was_beside(Shape, Experts)),
    Us = max(1, erlang:monotonic_time(microsecond) - BegunUs),
    ok = image_step(measured, Us / 1.0e6 / (Images * Steps)),
    Learnt = baguette_engine_correction:learnt(Us / CountedUs, Features, correction()),
    true = ets:insert(?MODULE, {correction, Learnt}),
    forget(self());
ended(_How, _Story) ->
    forget(self()).

%% What there was on the way, not at its begin: pictures that begin together see few.
was_beside(#{steps := Steps} = Shape, Experts) ->
    [{_, Pictures, Asks, Rows}] = ets:lookup(?MODULE, {beside, self()}),
    Sum = #{pictures => Pictures, asks => Asks, rows => Rows},
    baguette_engine_beside:mean(Sum, Steps, baguette_engine_beside:of_one(Shape, Experts)).

-spec forget(pid()) -> ok.
forget(Pid) ->
    true = ets:delete(?MODULE, {left, Pid}),
    true = ets:delete(?MODULE, {beside, Pid}),
    baguette_engine_drawing:changed().

counted(Shape, Experts) ->
    baguette_engine_prediction:counted_us(Shape, Experts, #{
        holders => fun baguette_cluster:holders/2,
        part => fun baguette_engine_metrics:unhindered_us/1
    }).

unended() -> ets:match_object(?MODULE, {{left, '_'}, '_', '_', '_', '_'}).

elsewhere() ->
    Now = erlang:monotonic_time(millisecond),
    case ets:lookup(?MODULE, elsewhere) of
        [{_, Elsewhere, Looked}] when Now - Looked < ?LOOK_MS ->
            Elsewhere;
        [_] ->
            Elsewhere = baguette_engine_drawing:elsewhere(),
            true = ets:insert(?MODULE, {elsewhere, Elsewhere, Now}),
            Elsewhere
    end.

correction() ->
    [{correction, Learnt}] = ets:lookup(?MODULE, correction),
    Learnt.

image_step(How, Seconds) ->
    [{image_step, Known, Before}] = ets:lookup(?MODULE, image_step),
    {NowKnown, Now} = image_step(How, Seconds, {Known, Before}),
    true = ets:insert(?MODULE, {image_step, NowKnown, Now}),
    ok.

%% @doc What is counted is better than nothing until a picture was drawn; of those the newest count.
-spec image_step(counted | measured, Seconds :: float(), Before) -> Before when
    Before :: {counted | measured, float()}.
image_step(counted, _Seconds, {measured, _} = Before) -> Before;
image_step(measured, Seconds, {measured, Mean}) ->
    {measured, Mean + ?NEWEST_COUNTS * (Seconds - Mean)};
image_step(How, Seconds, {counted, _}) -> {How, Seconds}.
