%% @doc How long a generation waits for whom, and whom it passes over: what it has learnt of its
%% holders' answers. Pure; only baguette_engine_ask holds it. Times are microseconds.
%%
%% A call is late after ?LATE_FACTOR times what is expected of it, by its holder's word and by what
%% calls take against that lately; never before twice the slowest answer of late, nor before the
%% floor. Each time a call was late its successor is given twice as long: where everybody is slower
%% than anybody thought, calls would otherwise be made for nothing.
-module(baguette_engine_patience).

-export([new/1, next_step/1, answered/2, late_at/4, late/2]).
-export([pass_over/4, is_passed_over/3, forgive/1]).

-export_type([patience/0]).

-define(LATE_FACTOR, 4).
-define(SLOWEST_FACTOR, 2).
-define(MAX_DOUBLINGS, 8).
%% A holder that just failed a call is passed over this long, unless holders change before.
-define(PASS_OVER_US, 500000).
%% A way by others that led nowhere most likely leads to nobody: the holder is dead, not cut off.
-define(NO_WAY_US, 5000000).

-record(?MODULE, {
    floor_us :: pos_integer(),
    slowest_us = 0 :: non_neg_integer(),
    lates = #{} :: #{expert() => pos_integer()},
    passed_over = #{} :: #{asked() => integer()}
}).
-type expert() :: baguette_engine_image:expert().
-type asked() :: {expert(), baguette_engine_part:way()}.
-opaque patience() :: #?MODULE{}.

-spec new(pos_integer()) -> patience().
new(FloorUs) -> #?MODULE{floor_us = FloorUs}.

%% @doc Every step begins without grudges; how fast answers come is remembered.
-spec next_step(patience()) -> patience().
next_step(P) -> P#?MODULE{lates = #{}, passed_over = #{}}.

%% @doc A call was answered after so long. One that was very slow is forgotten by and by.
-spec answered(non_neg_integer(), patience()) -> patience().
answered(Us, #?MODULE{slowest_us = Slowest} = P) ->
    P#?MODULE{slowest_us = max(Us, Slowest * 3 div 4)}.

%% @doc When a call that is expected to take so long, and is asked now, is late. `Typical': how many
%% times what was expected calls take lately.
-spec late_at(expert(), {ExpectedUs :: pos_integer(), Typical :: float()}, integer(), patience()) ->
    integer().
late_at(Expert, {Expected, Typical}, NowUs, #?MODULE{floor_us = Floor, slowest_us = Slowest} = P) ->
    Doublings = min(?MAX_DOUBLINGS, maps:get(Expert, P#?MODULE.lates, 0)),
    Usual = round(?LATE_FACTOR * Expected * max(1.0, Typical)),
    NowUs + (lists:max([Floor, Usual, ?SLOWEST_FACTOR * Slowest]) bsl Doublings).

%% @doc A call of this expert was late.
-spec late(expert(), patience()) -> patience().
late(Expert, #?MODULE{lates = Lates} = P) ->
    P#?MODULE{lates = maps:update_with(Expert, fun(N) -> N + 1 end, 1, Lates)}.

%% @doc This way to a holder is not the one to take next. By a way to who is busy somebody was met.
-spec pass_over(asked(), Why :: atom(), integer(), patience()) -> patience().
pass_over({_, Way} = For, Why, NowUs, #?MODULE{passed_over = PassedOver} = P) ->
    Us = case Way of
        {_Holder, _Via} when Why =/= busy -> ?NO_WAY_US;
        _ -> ?PASS_OVER_US
    end,
    P#?MODULE{passed_over = PassedOver#{For => NowUs + Us}}.

-spec is_passed_over(asked(), integer(), patience()) -> boolean().
is_passed_over(For, NowUs, #?MODULE{passed_over = PassedOver}) ->
    maps:get(For, PassedOver, NowUs) > NowUs.

%% @doc Holders changed: whoever was passed over may be another one by now.
-spec forgive(patience()) -> patience().
forgive(P) -> P#?MODULE{passed_over = #{}}.
