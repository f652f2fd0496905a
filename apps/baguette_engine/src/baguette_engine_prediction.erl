%% @doc How long a picture will take from its begin, as far as holders say and parts were measured:
%% encode, every step's slowest expert call with its round trip, the pipeline's share of each step,
%% decode. Pure; called by the door.
-module(baguette_engine_prediction).

-export([seconds/3]).

-type known() :: #{
    holders := holders(),
    usual := usual(),
    %% How many times what holders say calls really take (baguette_engine_pace:typical/0): three in
    %% four take less, which is about what the slowest of a step takes.
    typical := float()
}.
-type holders() :: fun(
    (Component :: binary(), #{node() => pos_integer()}) -> [baguette_engine_part:holder()]
).
%% What a part usually takes; undefined while none was made, and then not counted.
-type usual() :: fun((baguette_engine_metrics:part()) -> non_neg_integer() | undefined).

%% @doc For somebody who draws nothing else. An expert that nobody holds has no time.
-spec seconds(baguette_engine_request:request(), Experts :: [binary()], known()) ->
    {ok, #{seconds := float()}} | {error, {no_holder, #{expert := non_neg_integer()}}}.
seconds(#{n := Images, steps := Steps, top_k := TopK}, Experts, Known) ->
    #{holders := Holders, usual := Usual} = Known,
    Best = [{first(Holders(C, #{})), C} || C <- Experts],
    Numbered = lists:zip(lists:seq(0, length(Experts) - 1), Best),
    case [Number || {Number, {none, _}} <- Numbered] of
        [Missing | _] ->
            {error, {no_holder, #{expert => Missing}}};
        [] ->
            Calls = step_us(slowest(TopK, Best), Images, Holders) * slower(Known),
            Us = us(encode, Usual) + Images * us(decode, Usual) +
                Steps * (us(advance, Usual) + Calls),
            {ok, #{seconds => Us / 1.0e6}}
    end.

%% What is typical says something once there were calls.
slower(#{usual := Usual, typical := Typical}) ->
    case Usual(step) of
        undefined -> 1.0;
        _ -> Typical
    end.

us(Part, Usual) ->
    case Usual(Part) of
        undefined -> 0;
        Us -> Us
    end.

first([]) -> none;
first([Holder | _]) -> Holder.

%% Whom the router will ask is not known: those that take longest.
slowest(full, Best) ->
    slowest(length(Best), Best);
slowest(TopK, Best) ->
    Slow = lists:sort([{-Us, C} || {#{expected_us := Us}, C} <- Best]),
    [C || {_, C} <- lists:sublist(Slow, TopK)].

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
