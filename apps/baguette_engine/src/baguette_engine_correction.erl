%% @doc How many times what was counted pictures really take, learnt from those that ended. Pure;
%% baguette_engine_foretold keeps what is learnt here.
%%
%% The logarithm of the ratio is linear in a few features of the request and of what others ask
%% meanwhile. The weights are those of ridge regression (Hoerl and Kennard, Technometrics 12, 1970)
%% over all pictures, of which the latest count most. Without evidence they are 0, and the ratio 1.
-module(baguette_engine_correction).

-export([features/3, unknown/0, factor/2, learnt/3]).
-export_type([features/0, learnt/0]).

-type features() :: [float(), ...].
-record(?MODULE, {
    weights :: [float(), ...],
    %% The normal equations: sums over pictures of x x' and of x times the logarithm.
    squares :: matrix(),
    products :: [float(), ...]
}).
-type matrix() :: [[float(), ...], ...].
-opaque learnt() :: #?MODULE{}.

-define(FEATURES, 9).
%% No single picture counts for more: one that had to wait for an expert says nothing of the next.
-define(MOST_TIMES, 4.0).
%% Of what is foretold, either way: what lies far from all that was drawn is not extrapolated.
-define(MOST_FACTOR, 20.0).
%% After 34 pictures one counts half; what was there before all of them is not forgotten.
-define(KEPT, 0.98).
%% As if so many pictures of every feature had taken what was counted: little, not nothing, so that
%% what was never drawn is not foretold by chance.
-define(RIDGE, 0.3).

%% @doc Of a request to a model of so many experts, while others are drawn beside it.
-spec features(baguette_engine_foretold:shape(), Experts :: pos_integer(), Others) -> features()
    when Others :: baguette_engine_beside:beside().
features(#{deterministic := Alone} = Shape, Experts, Others) ->
    #{asks := Asks, rows := Rows} = baguette_engine_beside:of_one(Shape, Experts),
    #{pictures := Pictures, asks := OthersAsks, rows := OthersRows} = Others,
    [
        1.0,
        math:log(Asks),
        math:log(Rows),
        %% Calls of its own share no batch with others'.
        number(Alone),
        number(Alone) * math:log(Rows / Asks),
        number(is_reusing(Shape)),
        %% How many there are slows one down by more than what they ask (the turns of its pipeline
        %% workers, say), and rows are what devices compute.
        math:log(1 + OthersAsks / Experts),
        math:log(1 + OthersRows / Experts),
        math:log(1 + Pictures)
    ].

is_reusing(#{cache := Threshold}) -> Threshold > 0.

number(true) -> 1.0;
number(false) -> 0.0.

-spec unknown() -> learnt().
unknown() ->
    Zeros = lists:duplicate(?FEATURES, 0.0),
    #?MODULE{weights = Zeros, squares = ridge(?RIDGE), products = Zeros}.

ridge(Pictures) ->
    Numbers = lists:seq(1, ?FEATURES),
    [[Pictures * number(I =:= J) || J <- Numbers] || I <- Numbers].

%% @doc How many times what is counted a picture with these features takes.
-spec factor(features(), learnt()) -> float().
factor(Features, #?MODULE{weights = Weights}) ->
    Most = math:log(?MOST_FACTOR),
    math:exp(max(-Most, min(Most, dot(Features, Weights)))).

%% @doc After a picture that took so many times what was counted.
-spec learnt(Ratio :: float(), features(), learnt()) -> learnt().
learnt(Ratio, Features, #?MODULE{weights = Weights, squares = Squares, products = Products}) ->
    Foretold = dot(Features, Weights),
    Most = math:log(?MOST_TIMES),
    Log = Foretold + max(-Most, min(Most, math:log(Ratio) - Foretold)),
    Now = [
        [?KEPT * S + R + X * Y || {S, R, Y} <- lists:zip3(Row, Ridge, Features)]
     || {Row, Ridge, X} <- lists:zip3(Squares, ridge((1 - ?KEPT) * ?RIDGE), Features)
    ],
    Sums = [?KEPT * P + X * Log || {P, X} <- lists:zip(Products, Features)],
    #?MODULE{weights = solved(Now, Sums), squares = Now, products = Sums}.

%% Elimination; the matrix is symmetric and positive, so there is nothing to exchange.
solved([], []) ->
    [];
solved([[Pivot | Above] | Rows], [First | Rest]) ->
    {Matrix, Sums} = lists:unzip([
        {[A - Head / Pivot * B || {A, B} <- lists:zip(Row, Above)], Sum - Head / Pivot * First}
     || {[Head | Row], Sum} <- lists:zip(Rows, Rest)
    ]),
    Later = solved(Matrix, Sums),
    [(First - dot(Above, Later)) / Pivot | Later].

dot(Xs, Ys) -> lists:sum([X * Y || {X, Y} <- lists:zip(Xs, Ys)]).
