%% @doc What pictures ask of a cluster's devices a step, as far as others that are drawn beside them
%% feel it: how many pictures, how many experts they ask, how many rows these compute. Pure data;
%% baguette_engine_foretold adds it up, baguette_engine_drawing tells the other nodes, and
%% baguette_engine_correction learns what it does.
-module(baguette_engine_beside).

-export([none/0, of_one/2, sum/1, mean/3, clearly_differs/2, read/1]).
-export_type([beside/0]).

%% None is negative. Whole for what is drawn now, not in the mean of some time.
-type beside() :: #{pictures := number(), asks := number(), rows := number()}.

%% What another node says is believed up to so much.
-define(MOST, 1000).
-define(CLEARLY, 0.2).

-spec none() -> beside().
none() -> #{pictures => 0, asks => 0, rows => 0}.

%% @doc Of one such request to a model of so many experts.
-spec of_one(baguette_engine_prediction:shape(), Experts :: pos_integer()) -> beside().
of_one(#{n := Images} = Shape, Experts) ->
    #{
        pictures => 1,
        asks => baguette_engine_prediction:asks(Shape, Experts),
        rows => Images * baguette_engine_prediction:each(Shape, Experts)
    }.

-spec sum([beside()]) -> beside().
sum(All) ->
    lists:foldl(
        fun(#{pictures := P, asks := A, rows := R}, #{pictures := Ps, asks := As, rows := Rs}) ->
            #{pictures => Ps + P, asks => As + A, rows => Rs + R}
        end,
        none(),
        All
    ).

%% @doc Of what was added up over so many steps, less one that was among it.
-spec mean(beside(), Steps :: pos_integer(), Own :: beside()) -> beside().
mean(Sum, Steps, Own) ->
    maps:map(fun(Key, N) -> max(0, N / Steps - map_get(Key, Own)) end, Sum).

%% @doc Whether the second is so different from the first that others should hear of it.
-spec clearly_differs(beside(), beside()) -> boolean().
clearly_differs(Before, Now) ->
    lists:any(
        fun({Key, Was}) -> abs(map_get(Key, Now) - Was) > ?CLEARLY * Was end, maps:to_list(Before)
    ).

%% @doc From another node's report; what is none of ours is nothing.
-spec read(term()) -> beside().
read(#{pictures := Pictures, asks := Asks, rows := Rows}) when
    is_integer(Pictures), Pictures >= 0, is_integer(Asks), Asks >= 0, is_integer(Rows), Rows >= 0
->
    #{pictures => min(Pictures, ?MOST), asks => min(Asks, ?MOST), rows => min(Rows, ?MOST)};
read(_) ->
    none().
