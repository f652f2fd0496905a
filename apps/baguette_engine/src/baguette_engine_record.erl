%% @doc What happened to a generation's expert calls, for its result: who answered what, who was
%% asked instead or besides, what was done without. Pure data; written by baguette_engine_ask and
%% baguette_engine_step. Times are microseconds after the generation's begin.
-module(baguette_engine_record).

-export([new/0, begin_at/2, begin_step/2]).
-export([asked/1, answered/5, failover/6, hedge/5, degraded/4]).
-export([to_map/1, failovers/1]).
-export([save/1, restore/2, lists/0, resumed/2]).

-export_type([record/0]).

%% Why another holder is asked: of baguette_engine_part:failed/3 and of baguette_engine_ask.
-define(WHYS, [
    died, lost, late, suspect, not_held, unreachable, not_finite, out_of_memory, failure
]).

-type expert() :: baguette_engine_image:expert().
-record(?MODULE, {
    began_us = 0 :: integer(),
    step = 0 :: non_neg_integer(),
    asked = 0 :: non_neg_integer(),
    %% Latest first.
    calls = [] :: [map()],
    failovers = [] :: [map()],
    hedges = [] :: [map()],
    degraded = [] :: [map()],
    %% Where it went on from, after its node was started anew.
    resumed = [] :: [non_neg_integer()]
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

%% @doc The generation goes on from so many whole steps.
-spec resumed(non_neg_integer(), record()) -> record().
resumed(Step, #?MODULE{resumed = Before} = R) -> R#?MODULE{resumed = [Step | Before]}.

-spec failovers(record()) -> non_neg_integer().
failovers(#?MODULE{failovers = Failovers}) -> length(Failovers).

%% @doc First things first; `asked' counts every call that was sent.
-spec to_map(record()) ->
    #{asked := non_neg_integer(), resumed := [non_neg_integer()], atom() := [map()]}.
to_map(#?MODULE{asked = Asked} = R) ->
    #{
        asked => Asked,
        calls => lists:reverse(R#?MODULE.calls),
        failovers => lists:reverse(R#?MODULE.failovers),
        hedges => lists:reverse(R#?MODULE.hedges),
        degraded => lists:reverse(R#?MODULE.degraded),
        resumed => lists:reverse(R#?MODULE.resumed)
    }.

at(Us, #?MODULE{began_us = Began}) -> Us - Began.

%% @doc The fields that are long lists.
-spec lists() -> [atom()].
lists() -> [calls, failovers, hedges, degraded].

%% @doc What happened, for baguette_engine_checkpoint: nodes by name.
-spec save(record()) -> map().
save(#?MODULE{asked = Asked, calls = Calls, resumed = Resumed} = R) ->
    #{
        asked => Asked,
        resumed => Resumed,
        calls => named([node, via], Calls),
        failovers => named([from, to], R#?MODULE.failovers),
        hedges => named([from, to], R#?MODULE.hedges),
        degraded => R#?MODULE.degraded
    }.

named(Keys, Entries) ->
    Name = fun
        (Key, #{} = Entry) when map_get(Key, Entry) =:= undefined -> Entry#{Key := nil};
        (Key, #{} = Entry) when is_map_key(Key, Entry) ->
            maps:update_with(Key, fun baguette_engine_checkpoint:saved_node/1, Entry);
        (_, Entry) -> Entry
    end,
    [lists:foldl(Name, Entry, Keys) || Entry <- Entries].

%% @doc The same back; throws what baguette_engine_checkpoint:read/3 catches.
-spec restore(map(), baguette_engine_image:shape()) -> record().
restore(#{<<"asked">> := Asked, <<"resumed">> := Resumed} = Saved, Shape) ->
    Entries = fun(Name, Fields) ->
        Entry = fun(E) -> maps:from_list(lists:append([field(F, E, Shape) || F <- Fields])) end,
        baguette_engine_checkpoint:list(Entry, maps:get(Name, Saved, missing))
    end,
    Sent = [step, expert, at_us],
    #?MODULE{
        asked = natural(Asked),
        resumed = baguette_engine_checkpoint:list(fun natural/1, Resumed),
        calls = Entries(<<"calls">>, [node, via, ms, compute_ms | Sent]),
        failovers = Entries(<<"failovers">>, [from, to, why | Sent]),
        hedges = Entries(<<"hedges">>, [from, to | Sent]),
        degraded = Entries(<<"degraded">>, [step, image, lost, mass])
    };
restore(_, _) ->
    baguette_engine_checkpoint:bad(another_shape).

field(via, Entry, _Shape) when is_map(Entry), not is_map_key(<<"via">>, Entry) ->
    [];
field(Name, Entry, Shape) when is_map(Entry) ->
    [{Name, value(Name, maps:get(atom_to_binary(Name), Entry, missing), Shape)}];
field(_, _, _) ->
    baguette_engine_checkpoint:bad(another_shape).

value(step, Value, #{steps := Steps}) -> below(Steps, Value);
value(image, Value, #{images := Images}) -> below(Images, Value);
value(expert, Value, #{experts := Experts}) -> below(Experts, Value);
value(lost, Lost, #{experts := Experts}) ->
    baguette_engine_checkpoint:list(fun(Expert) -> below(Experts, Expert) end, Lost);
value(at_us, Value, _) -> natural(Value);
value(to, nil, _) -> undefined;
value(Name, Value, _) when Name =:= node; Name =:= via; Name =:= from; Name =:= to ->
    baguette_engine_checkpoint:restored_node(Value);
value(why, Value, _) ->
    case [Why || Why <- ?WHYS, atom_to_binary(Why) =:= Value] of
        [Why] -> Why;
        [] -> baguette_engine_checkpoint:bad(another_shape)
    end;
value(_Measured, Value, _) -> baguette_engine_checkpoint:number(Value).

below(Bound, Value) -> baguette_engine_checkpoint:integer(Value, 0, Bound - 1).

natural(Value) -> baguette_engine_checkpoint:integer(Value, 0, 1 bsl 53).
