%% @doc Who follows one job, and its latest events for those who come late: what an event becomes
%% and to whom it goes. Only baguette_web_job holds one, and it is that process' messages and
%% monitors that are sent and kept here; what dies with it: both.
-module(baguette_web_job_watchers).

-export([new/2, watch/4, unwatch/2, publish/2, add/2, send/2, want_previews/1]).
-export_type([watchers/0, event/0]).

-define(RING, 256).
%% Events are numbered anew after each restart, far above those told before: what was told after the
%% last checkpoint is not known any more.
-define(NUMBERS_A_RUN, 1000000).

-type event() :: baguette_web_ring:event().
-record(?MODULE, {
    id :: binary(),
    ring :: baguette_web_ring:ring(),
    %% With whether they want previews.
    watchers = #{} :: #{reference() => {pid(), boolean()}}
}).
-opaque watchers() :: #?MODULE{}.

%% @doc Nobody; of a job that was taken up again so often.
-spec new(binary(), Resumed :: non_neg_integer()) -> watchers().
new(Id, Resumed) ->
    #?MODULE{id = Id, ring = baguette_web_ring:new(?RING, Resumed * ?NUMBERS_A_RUN)}.

%% @doc One more, with what he has missed since this event; where that is not known any more, it is
%% the whole job.
-spec watch({pid(), Previews :: boolean()}, Last :: none | non_neg_integer(),
    baguette_web_job_record:job(), watchers()) -> {[event()], watchers()}.
watch({Pid, _} = Watcher, Last, Job, #?MODULE{watchers = Watchers} = W) ->
    Monitor = erlang:monitor(process, Pid),
    {missed(Last, Job, W), W#?MODULE{watchers = Watchers#{Monitor => Watcher}}}.

missed(none, Job, W) -> missed(0, Job, W);
missed(Last, Job, #?MODULE{ring = Ring}) ->
    case baguette_web_ring:since(Last, Ring) of
        {ok, Events} -> Events;
        resync -> [{baguette_web_ring:last(Ring), <<"resync">>, baguette_web_sse:json(Job)}]
    end.

%% @doc Whoever this monitor was of is no more.
-spec unwatch(reference(), watchers()) -> watchers().
unwatch(Monitor, #?MODULE{watchers = Watchers} = W) ->
    W#?MODULE{watchers = maps:remove(Monitor, Watchers)}.

%% @doc Tell everybody, and keep it for those who come later.
-spec publish(baguette_web_job_record:news(), watchers()) -> watchers().
publish(News, W) ->
    {Event, Added} = add(News, W),
    ok = send(Event, Added),
    Added.

%% @doc Number an event, and keep it: what is told later, or not at all.
-spec add(baguette_web_job_record:news(), watchers()) -> {event(), watchers()}.
add({Kind, Name, Value}, #?MODULE{ring = Ring} = W) ->
    {Event, Added} = baguette_web_ring:add(Kind, {Name, baguette_web_sse:json(Value)}, Ring),
    {Event, W#?MODULE{ring = Added}}.

%% @doc Tell everybody.
-spec send(event(), watchers()) -> ok.
send(Event, #?MODULE{id = Id, watchers = Watchers}) ->
    lists:foreach(
        fun({Pid, _}) -> Pid ! {baguette_web_job, Id, Event} end, maps:values(Watchers)
    ).

%% @doc Whether somebody looks at the pictures as they become ones.
-spec want_previews(watchers()) -> boolean().
want_previews(#?MODULE{watchers = Watchers}) ->
    lists:any(fun({_, Previews}) -> Previews end, maps:values(Watchers)).
