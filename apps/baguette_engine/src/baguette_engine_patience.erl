%% @doc How long a generation waits for whom, and whom it passes over: what it has learnt of its
%% holders' answers. Pure; only baguette_engine_step holds it. Times are microseconds.
%%
%% A call is late after ?LATE_FACTOR times the slowest answer so far, never before the floor (per
%% image, because images may be computed one by one), and each time a call was late its successor
%% is given twice as long: with two holders that are slower than anybody thought, a call that went
%% to and fro between them would otherwise never be answered.
-module(baguette_engine_patience).

-export([new/1, next_step/1, answered/2, late_at/4, late/2]).
-export([pass_over/4, is_passed_over/4, forgive/1]).

-export_type([patience/0]).

-define(LATE_FACTOR, 20).
-define(MAX_DOUBLINGS, 8).
%% A holder that just failed a call is passed over this long, unless holders change before.
-define(PASS_OVER_US, 500000).

-record(?MODULE, {
    floor_us :: pos_integer(),
    slowest_us = 0 :: non_neg_integer(),
    lates = #{} :: #{expert() => pos_integer()},
    passed_over = #{} :: #{{expert(), node()} => integer()}
}).
-type expert() :: baguette_engine_image:expert().
-opaque patience() :: #?MODULE{}.

-spec new(pos_integer()) -> patience().
new(FloorUs) -> #?MODULE{floor_us = FloorUs}.

%% @doc Every step begins without grudges; how fast answers come is remembered.
-spec next_step(patience()) -> patience().
next_step(P) -> P#?MODULE{lates = #{}, passed_over = #{}}.

%% @doc A call was answered after so long.
-spec answered(non_neg_integer(), patience()) -> patience().
answered(Us, #?MODULE{slowest_us = Slowest} = P) -> P#?MODULE{slowest_us = max(Us, Slowest)}.

%% @doc When a call of so many images, asked now, is late.
-spec late_at(expert(), pos_integer(), integer(), patience()) -> integer().
late_at(Expert, Images, NowUs, #?MODULE{floor_us = Floor, slowest_us = Slowest, lates = Lates}) ->
    Doublings = min(?MAX_DOUBLINGS, maps:get(Expert, Lates, 0)),
    NowUs + (max(Floor * Images, ?LATE_FACTOR * Slowest) bsl Doublings).

%% @doc A call of this expert was late.
-spec late(expert(), patience()) -> patience().
late(Expert, #?MODULE{lates = Lates} = P) ->
    P#?MODULE{lates = maps:update_with(Expert, fun(N) -> N + 1 end, 1, Lates)}.

%% @doc This holder is not the one to ask next.
-spec pass_over(expert(), node(), integer(), patience()) -> patience().
pass_over(Expert, Node, NowUs, #?MODULE{passed_over = PassedOver} = P) ->
    P#?MODULE{passed_over = PassedOver#{{Expert, Node} => NowUs + ?PASS_OVER_US}}.

-spec is_passed_over(expert(), node(), integer(), patience()) -> boolean().
is_passed_over(Expert, Node, NowUs, #?MODULE{passed_over = PassedOver}) ->
    maps:get({Expert, Node}, PassedOver, NowUs) > NowUs.

%% @doc Holders changed: whoever was passed over may be another one by now.
-spec forgive(patience()) -> patience().
forgive(P) -> P#?MODULE{passed_over = #{}}.
