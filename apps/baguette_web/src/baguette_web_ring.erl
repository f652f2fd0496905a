%% @doc The latest events of one job, numbered: what a watcher who was cut off has missed, or that
%% it cannot be told any more. Pure; only baguette_web_job_watchers holds one.
%%
%% A preview is worth nothing once a later one of the same image is there, and is the only event
%% that is large: of each image the ring keeps the last.
-module(baguette_web_ring).

-export([new/2, add/3, since/2, last/1]).
-export_type([ring/0, event/0]).

-record(?MODULE, {
    size :: pos_integer(),
    last :: non_neg_integer(),
    %% The number of the latest event that had to make room for others.
    dropped :: non_neg_integer(),
    events = queue:new() :: queue:queue({kind(), event()})
}).
-type kind() :: {preview, Image :: non_neg_integer()} | other.
-type event() :: {N :: pos_integer(), Name :: binary(), baguette_web_sse:value()}.
-opaque ring() :: #?MODULE{}.

%% @doc An empty ring of at most so many events; the first is numbered one more than `Last'.
-spec new(pos_integer(), Last :: non_neg_integer()) -> ring().
new(Size, Last) ->
    #?MODULE{size = Size, last = Last, dropped = Last}.

%% @doc The number of the newest event.
-spec last(ring()) -> non_neg_integer().
last(#?MODULE{last = Last}) -> Last.

%% @doc Add one event; it comes back with its number.
-spec add(kind(), {binary(), baguette_web_sse:value()}, ring()) -> {event(), ring()}.
add(Kind, {Name, Value}, #?MODULE{last = Last, events = Events} = R) ->
    Event = {Last + 1, Name, Value},
    Kept = case Kind of
        other -> Events;
        _ -> queue:filter(fun({K, _}) -> K =/= Kind end, Events)
    end,
    {Event, bounded(R#?MODULE{last = Last + 1, events = queue:in({Kind, Event}, Kept)})}.

bounded(#?MODULE{size = Size, events = Events} = R) ->
    case queue:len(Events) > Size of
        true ->
            {{value, {_, {N, _, _}}}, Rest} = queue:out(Events),
            R#?MODULE{dropped = max(N, R#?MODULE.dropped), events = Rest};
        false ->
            R
    end.

%% @doc What came after the event with this number, oldest first; `resync' when some of it is gone,
%% or when there never was such an event.
-spec since(integer(), ring()) -> {ok, [event()]} | resync.
since(N, #?MODULE{last = Last, dropped = Dropped}) when N < Dropped; N > Last ->
    resync;
since(N, #?MODULE{events = Events}) ->
    {ok, [Event || {_, {M, _, _} = Event} <- queue:to_list(Events), M > N]}.
