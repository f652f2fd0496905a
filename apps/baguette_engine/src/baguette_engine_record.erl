%% @doc What happened to a generation's expert calls, for its result: who answered what, who was
%% asked instead or besides, what was done without. Pure data; written by baguette_engine_ask and
%% baguette_engine_step. Times are microseconds after the generation's begin.
-module(baguette_engine_record).

-export([new/0, begin_at/2, begin_step/2]).
-export([asked/1, answered/5, failover/6, hedge/5, degraded/4]).
-export([to_map/1, failovers/1]).

-export_type([record/0]).

-type expert() :: baguette_engine_image:expert().
-record(?MODULE, {
    began_us = 0 :: integer(),
    step = 0 :: non_neg_integer(),
    asked = 0 :: non_neg_integer(),
    %% Latest first.
    calls = [] :: [map()],
    failovers = [] :: [map()],
    hedges = [] :: [map()],
    degraded = [] :: [map()]
}).
-opaque record() :: #?MODULE{}.

-spec new() -> record().
new() -> #?MODULE{}.

%% @doc The generation began at this time of the monotonic clock.
-spec begin_at(integer(), record()) -> record().
begin_at(Now, R) -> R#?MODULE{began_us = Now}.

-spec begin_step(non_neg_integer(), record()) -> record().
begin_step(Step, R) -> R#?MODULE{step = Step}.

%% @doc One more call was sent.
-spec asked(record()) -> record().
asked(#?MODULE{asked = Asked} = R) -> R#?MODULE{asked = Asked + 1}.

%% @doc A call was answered, after so many microseconds of computing there.
-spec answered(expert(), baguette_engine_part:call(), non_neg_integer(), integer(), record()) ->
    record().
answered(Expert, Call, Micros, Now, #?MODULE{calls = Calls} = R) ->
    #{node := Node, asked_us := Asked} = Call,
    Answered = (maps:with([via], Call))#{
        step => R#?MODULE.step, expert => Expert, node => Node, at_us => at(Asked, R),
        ms => (Now - Asked) / 1000, compute_ms => Micros / 1000
    },
    R#?MODULE{calls = [Answered | Calls]}.

%% @doc Another holder (`undefined': nobody yet) was asked instead, or because this one is silent.
-spec failover(expert(), node(), node() | undefined, atom(), integer(), record()) ->
    {map(), record()}.
failover(Expert, From, To, Why, Now, #?MODULE{failovers = Failovers} = R) ->
    Failover = #{
        expert => Expert, step => R#?MODULE.step, from => From, to => To, why => Why,
        at_us => at(Now, R)
    },
    {Failover, R#?MODULE{failovers = [Failover | Failovers]}}.

%% @doc Another holder was asked besides one that is slow.
-spec hedge(expert(), node(), node(), integer(), record()) -> {map(), record()}.
hedge(Expert, From, To, Now, #?MODULE{hedges = Hedges} = R) ->
    Hedge = #{
        expert => Expert, step => R#?MODULE.step, from => From, to => To, at_us => at(Now, R)
    },
    {Hedge, R#?MODULE{hedges = [Hedge | Hedges]}}.

%% @doc An image did without an expert that had this part (0..1) of the router's weight.
-spec degraded(Image :: non_neg_integer(), expert(), Mass :: float(), record()) ->
    {map(), record()}.
degraded(Image, Expert, Mass, #?MODULE{degraded = Degraded} = R) ->
    Entry = #{step => R#?MODULE.step, image => Image, lost => [Expert], mass => Mass},
    {Entry, R#?MODULE{degraded = [Entry | Degraded]}}.

-spec failovers(record()) -> non_neg_integer().
failovers(#?MODULE{failovers = Failovers}) -> length(Failovers).

%% @doc First things first; `asked' counts every call that was sent.
-spec to_map(record()) -> #{asked := non_neg_integer(), atom() := [map()]}.
to_map(#?MODULE{asked = Asked} = R) ->
    #{
        asked => Asked,
        calls => lists:reverse(R#?MODULE.calls),
        failovers => lists:reverse(R#?MODULE.failovers),
        hedges => lists:reverse(R#?MODULE.hedges),
        degraded => lists:reverse(R#?MODULE.degraded)
    }.

at(Us, #?MODULE{began_us = Began}) -> Us - Began.
