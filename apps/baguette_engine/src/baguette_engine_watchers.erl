%% @doc Who watches a generation, and what each of them is told. A part of
%% baguette_engine_generation, in whose process it runs. Who starts to watch late is told the last
%% state, step and warning first; a watcher that dies is forgotten.
-module(baguette_engine_watchers).

-export([new/1, add/3, gone/2, publish/2, want_previews/1]).

-export_type([watchers/0, options/0]).

-type options() :: #{previews => boolean()}.
-record(?MODULE, {
    id :: binary(),
    watching = #{} :: #{pid() => options()},
    last = #{} :: #{atom() => term()}
}).
-opaque watchers() :: #?MODULE{}.

%% @doc Nobody watches the generation of this id yet.
-spec new(binary()) -> watchers().
new(Id) -> #?MODULE{id = Id}.

%% @doc Somebody watches from now on, or otherwise than before.
-spec add(pid(), options(), watchers()) -> watchers().
add(To, Options, #?MODULE{id = Id, watching = Watching, last = Last} = W) ->
    case is_map_key(To, Watching) of
        true ->
            ok;
        false ->
            _ = erlang:monitor(process, To),
            maps:foreach(fun(Kind, Facts) -> To ! {baguette_engine, Id, {Kind, Facts}} end, Last)
    end,
    W#?MODULE{watching = Watching#{To => Options}}.

%% @doc Somebody has died.
-spec gone(pid(), watchers()) -> watchers().
gone(Pid, #?MODULE{watching = Watching} = W) ->
    W#?MODULE{watching = maps:remove(Pid, Watching)}.

%% @doc Tell an event: a preview only to who wants previews.
-spec publish({Kind :: atom(), Facts :: term()}, watchers()) -> watchers().
publish({Kind, Facts} = Event, #?MODULE{id = Id, watching = Watching, last = Last} = W) ->
    To = [Pid || {Pid, Options} <- maps:to_list(Watching), is_for(Kind, Options)],
    ok = lists:foreach(fun(Pid) -> Pid ! {baguette_engine, Id, Event} end, To),
    case lists:member(Kind, [state, step, warning]) of
        true -> W#?MODULE{last = Last#{Kind => Facts}};
        false -> W
    end.

%% @doc Whether anybody wants previews.
-spec want_previews(watchers()) -> boolean().
want_previews(#?MODULE{watching = Watching}) ->
    lists:any(fun(Options) -> is_for(preview, Options) end, maps:values(Watching)).

is_for(preview, Options) -> maps:get(previews, Options, false);
is_for(_, _) -> true.
