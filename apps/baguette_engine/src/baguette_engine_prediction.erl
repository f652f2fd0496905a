%% @doc How long a picture will take from its begin, counted from what holders say and what parts
%% took: encode, every step's slowest expert call with its round trip, the pipeline's share of each
%% step, decode. And how long what waits will take. Pure; what was counted is held against what
%% pictures took by baguette_engine_correction, and baguette_engine_foretold has the figures.
-module(baguette_engine_prediction).

-export([counted_us/3, queue_seconds/3]).

-type known() :: #{holders := holders(), usual := usual()}.
-type holders() :: fun(
    (Component :: binary(), #{node() => pos_integer()}) -> [baguette_engine_part:holder()]
).
%% What a part usually takes; undefined while none was made, and then not counted.
-type usual() :: fun((baguette_engine_metrics:part()) -> non_neg_integer() | undefined).
-type shape() :: #{
    n := pos_integer(), steps := pos_integer(), top_k := pos_integer() | full, atom() => term()
}.

%% @doc For somebody who draws nothing else. An expert that nobody holds has no time.
-spec counted_us(shape(), Experts :: [binary()], known()) ->
    {ok, pos_integer()} | {error, {no_holder, #{expert := non_neg_integer()}}}.
counted_us(#{n := Images, steps := Steps, top_k := TopK}, Experts, Known) ->
    #{holders := Holders, usual := Usual} = Known,
    Best = [{first(Holders(C, #{})), C} || C <- Experts],
    Numbered = lists:zip(lists:seq(0, length(Experts) - 1), Best),
    case [Number || {Number, {none, _}} <- Numbered] of
        [Missing | _] ->
            {error, {no_holder, #{expert => Missing}}};
        [] ->
            Each = each(TopK, Experts),
            Asked = asked(Images, Each, length(Experts)),
            Rows = ceil(Images * Each / Asked),
            Calls = step_us(slowest(Asked, Best), Rows, Holders),
            {ok, us(encode, Usual) + Images * us(decode, Usual) +
                Steps * (us(advance, Usual) + Calls)}
    end.

%% @doc In how many seconds so many image-steps (a step of an image) will be done.
-spec queue_seconds(Work :: non_neg_integer(), ImageStepSeconds :: float(), pos_integer()) ->
    float().
queue_seconds(Work, Each, AtOnce) -> Work * Each / AtOnce.

us(Part, Usual) ->
    case Usual(Part) of
        undefined -> 0;
        Us -> Us
    end.

first([]) -> none;
first([Holder | _]) -> Holder.

each(full, Experts) -> length(Experts);
each(TopK, _Experts) -> TopK.

%% How many different experts are asked in a step if each image chooses by itself and all alike.
asked(Images, Each, All) ->
    max(Each, round(All * (1 - math:pow(1 - Each / All, Images)))).

%% Whom the router will ask is not known: those that take longest.
slowest(Asked, Best) ->
    Slow = lists:sort([{-Us, C} || {#{expected_us := Us}, C} <- Best]),
    [C || {_, C} <- lists:sublist(Slow, Asked)].

%% Asked one after the other, as a generation does: each goes where it is expected to be soonest,
%% and waits there for the images of those before it.
step_us(Components, Images, Holders) ->
    {Times, _} = lists:mapfoldl(
        fun(Component, InFlight) ->
            [#{node := Node} = Holder | _] = Holders(Component, InFlight),
            Own = maps:get(Node, InFlight, 0),
            Us = baguette_engine_pace:expected_us(Holder, Own, Images),
            {Us, InFlight#{Node => Own + Images}}
        end,
        #{},
        Components
    ),
    lists:max(Times).
