%% @doc The last quarter of an hour in points of five seconds: what the dashboard's charts draw.
%% Pure; kept by baguette_web_stream, which makes a point of what it sees.
-module(baguette_web_history).

-export([new/0, point/2, points/1, last/1, p50_ms/2]).
-export_type([history/0, sample/0, point/0]).

-define(POINTS, 180).

-type buckets() :: [{number() | infinity, non_neg_integer()}].
%% Counters as they stand, and gauges.
-type sample() :: #{
    at := number(),
    images := non_neg_integer(),     % finished since the node's start
    steps := buckets(),              % step_seconds, cumulative
    queue := non_neg_integer(),
    utilisation := #{binary() => number()}
}.
-type point() :: #{
    at := number(),
    images_per_min := float(),
    step_ms := float() | null,
    queue := non_neg_integer(),
    utilisation := #{binary() => number()}
}.
-record(?MODULE, {
    before = none :: none | sample(),
    points = [] :: [point()] % newest first
}).
-opaque history() :: #?MODULE{}.

-spec new() -> history().
new() -> #?MODULE{}.

%% @doc A point out of what changed since the sample before; the first sample makes none.
-spec point(sample(), history()) -> history().
point(Sample, #?MODULE{before = none} = H) ->
    H#?MODULE{before = Sample};
point(#{at := At} = Sample, #?MODULE{before = Before, points = Points}) ->
    #{at := BeforeAt, images := BeforeImages, steps := BeforeSteps} = Before,
    #{images := Images, steps := Steps, queue := Queue, utilisation := Utilisation} = Sample,
    Point = #{
        at => At,
        images_per_min => 60 * max(0, Images - BeforeImages) / max(0.1, At - BeforeAt),
        step_ms => p50_ms(BeforeSteps, Steps),
        queue => Queue,
        utilisation => Utilisation
    },
    #?MODULE{before = Sample, points = lists:sublist([Point | Points], ?POINTS)}.

%% @doc Oldest first.
-spec points(history()) -> [point()].
points(#?MODULE{points = Points}) -> lists:reverse(Points).

%% @doc The newest one.
-spec last(history()) -> point() | none.
last(#?MODULE{points = []}) -> none;
last(#?MODULE{points = [Point | _]}) -> Point.

%% @doc The median of what came into a histogram between two looks, as far as its buckets tell:
%% a straight line within the bucket. null where nothing came, or only beyond the last bound.
-spec p50_ms(buckets(), buckets()) -> float() | null.
p50_ms(Before, After) ->
    Old = maps:from_list(Before),
    New = [{Le, max(0, N - maps:get(Le, Old, 0))} || {Le, N} <- lists:sort(After)],
    case New of
        [] -> null;
        _ -> within(median(lists:last(New)), {0, 0}, New)
    end.

median({_, Total}) -> Total / 2.

%% Numbers sort before atoms, so `infinity' is last.
within(Half, _, _) when Half == 0 -> null;
within(Half, {Low, Below}, [{High, N} | _]) when N >= Half, is_number(High) ->
    1000.0 * (Low + (High - Low) * (Half - Below) / max(1, N - Below));
within(Half, _, [{High, N} | Rest]) when N < Half, is_number(High) ->
    within(Half, {High, N}, Rest);
within(_, _, _) ->
    null.
