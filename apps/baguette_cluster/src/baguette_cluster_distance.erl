%% @doc How far this node is from its peers, as a number that stands still: placement counts it as
%% part of what asking this node takes, and gossip must not carry noise. Pure; fed by
%% baguette_cluster_holdings with the round trips to all linked peers, now and then.
%%
%% Load makes round trips longer, never shorter: the least of a window of medians is the distance.
%% It is said as a power of two, changes only when it is clearly another one, and is 0 where it is
%% near: what computing takes hides that.
-module(baguette_cluster_distance).

-export([new/0, measured/2, us/1]).
-export_type([state/0]).

-define(WINDOW, 12).
-define(NEAR_US, 2048).
-define(MAX_US, 1 bsl 29).

-record(?MODULE, {
    medians = [] :: [pos_integer()],    % the latest first
    us = 0 :: non_neg_integer()         % as it is said
}).
-opaque state() :: #?MODULE{}.

-spec new() -> state().
new() -> #?MODULE{}.

%% @doc 0 until a whole window was seen.
-spec us(state()) -> non_neg_integer().
us(#?MODULE{us = Us}) -> Us.

%% @doc The round trips to all whom we can reach. With nobody there, nothing is learned.
-spec measured([pos_integer()], state()) -> state().
measured([], S) ->
    S;
measured(Trips, #?MODULE{medians = Before, us = Said} = S) ->
    Median = lists:nth((length(Trips) + 1) div 2, lists:sort(Trips)),
    case lists:sublist([Median | Before], ?WINDOW) of
        Medians when length(Medians) =:= ?WINDOW ->
            S#?MODULE{medians = Medians, us = settled(min(?MAX_US, lists:min(Medians)), Said)};
        Medians ->
            S#?MODULE{medians = Medians}
    end.

%% Between 0.6 and 1.7 times what was said it is still that: a power of two alone would end at 0.7
%% and 1.4, and flicker there.
settled(Us, Said) when Us * 10 >= Said * 6, Us * 10 =< Said * 17 -> Said;
settled(Us, 0) when Us < ?NEAR_US + ?NEAR_US div 2 -> 0;
settled(Us, _) when Us < ?NEAR_US -> 0;
settled(Us, _) -> nearest(Us, ?NEAR_US).

nearest(Us, Power) when Us * 10 =< Power * 14 -> Power;
nearest(Us, Power) -> nearest(Us, Power * 2).
