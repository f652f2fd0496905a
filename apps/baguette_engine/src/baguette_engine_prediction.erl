%% @doc How long a picture will take from its begin, counted from what holders say and what parts
%% took: encode, every step's slowest expert call with its round trip, the pipeline's share of each
%% step, decode. And how long what waits will take. Pure; what was counted is held against what
%% pictures took by baguette_engine_correction, and baguette_engine_foretold has the figures.
-module(baguette_engine_prediction).

-export([counted_us/3, each/2, asks/2, queue_seconds/3]).
-export_type([shape/0]).

%% Steps whose calls are counted: the mean of so many is within some percent of any more.
-define(ROUTINGS, 12).

-type known() :: #{holders := holders(), part := part_us()}.
-type holders() :: fun(
    (Component :: binary(), #{node() => pos_integer()}) -> [baguette_engine_part:holder()]
).
%% What a part takes by itself; undefined while none was made, and then not counted.
-type part_us() :: fun((baguette_engine_metrics:part()) -> non_neg_integer() | undefined).
-type shape() :: #{
    n := pos_integer(), steps := pos_integer(), top_k := pos_integer() | full, atom() => term()
}.

%% @doc For somebody who draws nothing else. An expert that nobody holds has no time.
-spec counted_us(shape(), Experts :: [binary()], known()) ->
    {ok, pos_integer()} | {error, {no_holder, #{expert := non_neg_integer()}}}.
counted_us(#{n := Images, steps := Steps} = Shape, Experts, Known) ->
    #{holders := Holders, part := PartUs} = Known,
    Numbered = lists:zip(lists:seq(0, length(Experts) - 1), Experts),
    case [Number || {Number, C} <- Numbered, Holders(C, #{}) =:= []] of
        [Missing | _] ->
            {error, {no_holder, #{expert => Missing}}};
        [] ->
            Each = each(Shape, length(Experts)),
            Calls = [step_us(Rows, Holders) || Rows <- routings(Images, Each, Experts)],
            Mean = round(lists:sum(Calls) / length(Calls)),
            Us = us(encode, PartUs) + Images * us(decode, PartUs) +
                Steps * (us(advance, PartUs) + Mean),
            {ok, max(1, Us)}
    end.

%% @doc How many of so many experts every image asks a step.
-spec each(shape(), Experts :: pos_integer()) -> pos_integer().
each(#{top_k := full}, Experts) -> Experts;
each(#{top_k := TopK}, _Experts) -> TopK.

%% @doc How many experts of so many a step asks, in the mean, if every image chooses by itself.
-spec asks(shape(), Experts :: pos_integer()) -> pos_integer().
asks(#{n := Images} = Shape, Experts) ->
    Missed = math:pow(1 - each(Shape, Experts) / Experts, Images),
    max(1, round(Experts * (1 - Missed))).

%% @doc In how many seconds so many image-steps (a step of an image) will be done.
-spec queue_seconds(Work :: non_neg_integer(), ImageStepSeconds :: float(), pos_integer()) ->
    float().
queue_seconds(Work, Each, AtOnce) -> Work * Each / AtOnce.

us(Part, PartUs) ->
    case PartUs(Part) of
        undefined -> 0;
        Us -> Us
    end.

%% Whom the router will ask is not known, nor how often it sends images the same way: some steps in
%% which each image chooses by itself, and all experts alike. The dice fall alike every time.
routings(Images, Each, Experts) ->
    Dice = rand:seed_s(exsss, 1),
    {Routings, _} = lists:mapfoldl(
        fun(_, D) -> routing(Images, Each, Experts, D) end, Dice, lists:seq(1, ?ROUTINGS)
    ),
    Routings.

%% Each expert that is asked with how many images.
routing(Images, Each, Experts, Dice) ->
    {Chosen, Rest} = lists:mapfoldl(
        fun(_, D) -> chosen(Each, Experts, D) end, Dice, lists:seq(1, Images)
    ),
    Count = fun(C, Rows) -> maps:update_with(C, fun(N) -> N + 1 end, 1, Rows) end,
    {maps:to_list(lists:foldl(Count, #{}, lists:append(Chosen))), Rest}.

chosen(Each, Experts, Dice) ->
    {Thrown, Rest} = lists:mapfoldl(
        fun(C, D) ->
            {Number, Next} = rand:uniform_s(D),
            {{Number, C}, Next}
        end,
        Dice,
        Experts
    ),
    {[C || {_, C} <- lists:sublist(lists:sort(Thrown), Each)], Rest}.

%% Asked one after the other, as a generation does: each goes where it is expected to be soonest,
%% and waits there for the images of those before it.
step_us(Asked, Holders) ->
    {Times, _} = lists:mapfoldl(
        fun({Component, Images}, InFlight) ->
            case Holders(Component, InFlight) of
                [#{node := Node} = Holder | _] ->
                    Own = maps:get(Node, InFlight, 0),
                    Us = baguette_engine_pace:expected_us(Holder, Own, Images),
                    {Us, InFlight#{Node => Own + Images}};
                %% Gone since it was looked for: a guess may be wrong, and must not end a picture.
                [] ->
                    {0, InFlight}
            end
        end,
        #{},
        Asked
    ),
    lists:max(Times).
