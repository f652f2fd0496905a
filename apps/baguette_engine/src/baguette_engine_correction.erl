%% @doc How many times what was counted pictures really take, learnt from those that ended. Pure;
%% baguette_engine_foretold keeps what is learnt here and knows the clock.
%%
%% The logarithm of the ratio is a sum of terms: one for how much others ask meanwhile, two
%% for the kind and the shape of the request, one for how it goes of late whatever is asked (the
%% machine's other work). A term is a mean with the weight of its evidence. Weights fade with age,
%% and a term counts by its weight: where there is no evidence the ratio is 1. Each term learns what
%% the others leave (backfitting: Breiman and Friedman, J. Am. Statist. Assoc. 80, 1985).
-module(baguette_engine_correction).

-export([keys/2, unknown/0, faded/3, factor/1, learnt/2]).
-export_type([key/0, term_of/0]).

-type key() ::
    {load, AsksBeside :: non_neg_integer()}
    | {company, company()}
    | {shape, company(), Images :: pos_integer(), TopK :: pos_integer() | full}
    | lately.
%% Calls of `together' share batches with others' pictures, those of `alone' do not; `reusing' makes
%% fewer of them, because of its `cache'.
-type company() :: alone | together | reusing.
-type term_of() :: {Log :: float(), Weight :: float()}.

%% No single picture counts for more: one that had to wait for an expert says nothing of the next.
-define(MOST_TIMES, 4.0).
%% A mean over so many at most follows what changes.
-define(MOST_WEIGHT, 30.0).
-define(MOST_LATELY, 3.0).
%% A term with this much evidence counts half.
-define(HALF_WEIGHT, 0.5).
%% Of their own each; more are taken together by powers of two, so that there are few terms.
-define(SINGLE, 4).
-define(HALF_LIFE_S, 600).
-define(HALF_LIFE_LATELY_S, 60).

%% @doc The terms that concern a request while others ask so many experts a step. The later ones
%% learn what the earlier leave.
-spec keys(baguette_engine_foretold:shape(), AsksBeside :: non_neg_integer()) -> [key()].
keys(#{n := Images, top_k := TopK} = Shape, AsksBeside) ->
    Company = company(Shape),
    [
        {load, half_about(AsksBeside)},
        {company, Company},
        {shape, Company, about(Images), case TopK of full -> full; _ -> about(TopK) end},
        lately
    ].

company(#{deterministic := true}) -> alone;
company(#{cache := Off}) when Off == 0 -> together;
company(#{cache := _Threshold}) -> reusing.

about(N) when N =< ?SINGLE -> N;
about(N) -> 1 bsl ceil(math:log2(N)).

%% By half powers of two: it is what counts most.
half_about(N) when N =< ?SINGLE -> N;
half_about(N) -> round(math:pow(2, ceil(2 * math:log2(N)) / 2)).

-spec unknown() -> term_of().
unknown() -> {0.0, 0.0}.

%% @doc What a term's evidence weighs after so long.
-spec faded(key(), term_of(), Us :: non_neg_integer()) -> term_of().
faded(Key, {Log, Weight}, Us) ->
    Seconds = case Key of lately -> ?HALF_LIFE_LATELY_S; _ -> ?HALF_LIFE_S end,
    {Log, Weight * math:pow(0.5, Us / (Seconds * 1.0e6))}.

%% @doc How many times what is counted a picture with these terms takes.
-spec factor([term_of()]) -> float().
factor(Terms) -> math:exp(lists:sum([counts(Term) || Term <- Terms])).

counts({Log, Weight}) -> Log * Weight / (Weight + ?HALF_WEIGHT).

%% @doc The terms after a picture that took so many times what was counted.
-spec learnt(Ratio :: float(), [{key(), term_of()}]) -> [{key(), term_of()}].
learnt(Ratio, Terms) ->
    Foretold = lists:sum([counts(Term) || {_, Term} <- Terms]),
    Most = math:log(?MOST_TIMES),
    Unexplained = max(-Most, min(Most, math:log(Ratio) - Foretold)),
    {Learnt, _} = lists:mapfoldl(fun one/2, Unexplained, Terms),
    Learnt.

one({Key, {Log, Weight} = Before}, Unexplained) ->
    Heavier = min(Weight, most(Key) - 1) + 1,
    Target = Unexplained + counts(Before),
    After = {Log + (Target - Log) / Heavier, Heavier},
    {{Key, After}, Target - counts(After)}.

most(lately) -> ?MOST_LATELY;
most(_) -> ?MOST_WEIGHT.
