%% @doc What the dashboard is fed with: one process that looks once for everybody who watches.
%%
%% Started by baguette_web_sup. While anybody watches it looks at this node's tables once a second
%% (and at once when the cluster tells of a change), asks the other nodes every two, and hears of
%% every job. What is new goes to all watchers as one binary, so a watcher more costs one message
%% more; with many watchers batches come less often. Each look runs in a process of its own: whoever
%% is slow there is waited for by nobody. A watcher that does not read is ended, not buffered for.
%% What dies with this process: the history, and the connections, whose pages connect again.
%%
%% Events: `snapshot' (the whole state, when it changed), `history' (once), `point' (one more of
%% it), `job', `step', `preview' (of every job), `log' (events of all nodes, oldest first).
-module(baguette_web_stream).
-behaviour(gen_server).

-export([start_link/1, watch/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, format_status/1]).

-include_lib("kernel/include/logger.hrl").

-define(LOOK_MS, 1000).
-define(FAR_MS, 2000).
-define(POINT_MS, 5000).
%% After the cluster told of a change, others of the same moment are waited for.
-define(SOON_MS, 100).
%% A batch at most this often, and a millisecond a watcher more.
-define(BATCH_MS, 100).
%% How far nodes are from each other changes all the time, and is told so often.
-define(TRIPS_S, 10).
-define(KEEP_ALIVE_MS, 5000).
%% Batches that a watcher may leave unread.
-define(MAX_UNREAD, 20).
-define(KEPT_EVENTS, 300).
-define(LOG, #{domain => [baguette, web]}).

-type look() :: near | far | sample.

-record(?MODULE, {
    port :: inet:port_number(), % of this node and all others
    watchers = #{} :: #{pid() => reference()},
    %% The processes that look now.
    looking = #{} :: #{reference() => look()},
    links = [] :: [map()],
    looks = #{} :: #{node() => baguette_web_remote_v1:look()},
    since = #{} :: baguette_web_snapshot:since(),
    %% As it was last shown, and when.
    snapshot = #{} :: map(),
    essence = #{} :: map(),
    shown_at = 0 :: number(),
    history = baguette_web_history:new() :: baguette_web_history:history(),
    %% Newest first, with what they are known by.
    events = [] :: [map()],
    batch = [] :: iodata(),
    batching = false :: boolean(),
    soon = false :: boolean()
}).

-spec start_link(inet:port_number()) -> {ok, pid()} | {error, term()}.
start_link(Port) ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, Port, []).

%% @doc The caller gets {baguette_web_stream, Bytes} from now on, until it ends or leaves more than
%% a few unread: then it is killed.
-spec watch() -> ok.
watch() ->
    gen_server:call(?MODULE, watch).

%% gen_server

-spec init(inet:port_number()) -> {ok, #?MODULE{}}.
init(Port) ->
    ok = baguette_cluster:watch(),
    ok = follow_jobs(),
    lists:foreach(fun(Message) -> self() ! Message end, [look, far, point, keep_alive]),
    {ok, #?MODULE{port = Port}}.

%% A node without a directory for jobs takes none.
follow_jobs() ->
    case baguette_web_jobs:subscribe_all() of
        ok -> ok;
        {error, {no_jobs_dir, _}} -> ok
    end.

-spec handle_call(watch, gen_server:from(), #?MODULE{}) -> {reply, ok, #?MODULE{}}.
handle_call(watch, {Pid, _}, #?MODULE{watchers = Watchers} = S0) ->
    S = without_old(S0),
    Pid ! {?MODULE, greeting(S)},
    Ref = monitor(process, Pid),
    {reply, ok, start(far, start(near, S#?MODULE{watchers = Watchers#{Pid => Ref}}))}.

%% What was seen for the last watcher is no news for one who comes later.
without_old(#?MODULE{watchers = None} = S) when map_size(None) =:= 0 ->
    S#?MODULE{snapshot = #{}, essence = #{}, events = []};
without_old(S) ->
    S.

-spec handle_cast(term(), #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_cast(Unknown, S) ->
    handle_info(Unknown, S).

-spec handle_info(term(), #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_info(look, S) ->
    _ = erlang:send_after(?LOOK_MS, self(), look),
    {noreply, if_watched(near, S)};
handle_info(soon, S) ->
    {noreply, if_watched(near, S#?MODULE{soon = false})};
handle_info(far, S) ->
    _ = erlang:send_after(?FAR_MS, self(), far),
    {noreply, if_watched(far, S)};
handle_info(point, S) ->
    _ = erlang:send_after(?POINT_MS, self(), point),
    {noreply, start(sample, S)};
handle_info(keep_alive, S) ->
    _ = erlang:send_after(?KEEP_ALIVE_MS, self(), keep_alive),
    {noreply, add(baguette_web_sse:keep_alive(), S)};
handle_info(batch, S) ->
    {noreply, send_batch(S)};
handle_info({baguette_cluster, _Event}, #?MODULE{soon = false} = S) ->
    _ = erlang:send_after(?SOON_MS, self(), soon),
    {noreply, S#?MODULE{soon = true}};
handle_info({baguette_cluster, _Event}, S) ->
    {noreply, S};
handle_info({baguette_web_jobs, {Name, Value}}, S) ->
    {noreply, event(Name, Value, S)};
handle_info({'DOWN', Ref, process, Pid, Reason}, #?MODULE{looking = Looking} = S) ->
    case maps:take(Ref, Looking) of
        {Look, Rest} -> {noreply, looked(Look, Reason, S#?MODULE{looking = Rest})};
        error -> {noreply, S#?MODULE{watchers = maps:remove(Pid, S#?MODULE.watchers)}}
    end;
handle_info(_Unknown, S) ->
    ?LOG_WARNING(#{what => message_dropped, by => ?MODULE}, ?LOG),
    {noreply, S}.

%% @doc Jobs have prompts, and those are not printed.
-spec format_status(gen_server:format_status()) -> gen_server:format_status().
format_status(Status) ->
    maps:map(
        fun
            (reason, Reason) -> Reason;
            (state, #?MODULE{watchers = Watchers}) -> {watchers, map_size(Watchers)};
            (_, _) -> not_shown
        end,
        Status
    ).

%% --- looking

if_watched(_Look, #?MODULE{watchers = None} = S) when map_size(None) =:= 0 -> S;
if_watched(Look, S) -> start(Look, S).

%% One of a kind at a time: when the last one is not back yet, this one is not missed.
start(Look, #?MODULE{looking = Looking} = S) ->
    case lists:member(Look, maps:values(Looking)) of
        true ->
            S;
        false ->
            {_Pid, Ref} = spawn_monitor(baguette_web_look, tell, [Look]),
            S#?MODULE{looking = Looking#{Ref => Look}}
    end.

looked(near, {looked, View}, #?MODULE{port = Port, links = Links, looks = Looks} = S) ->
    #{nodes := Nodes, at := At} = View,
    Since = baguette_web_snapshot:since(Nodes, S#?MODULE.since, At),
    Told = #{port => Port, since => Since, links => Links, looks => Looks},
    shown(baguette_web_snapshot:build(maps:merge(View, Told)), At, S#?MODULE{since = Since});
looked(far, {looked, #{looks := Looks, links := Links}}, S) ->
    Told = [
        Event#{node => baguette_web_json:address(Node)}
     || {Node, #{events := Events}} <- maps:to_list(Looks), #{at := _} = Event <- Events
    ],
    news(Told, S#?MODULE{looks = Looks, links = Links});
looked(sample, {looked, Sample}, #?MODULE{history = Before, since = Since} = S) ->
    #{sample := Point, nodes := Nodes, at := At} = Sample,
    History = baguette_web_history:point(Point, Before),
    S1 = S#?MODULE{
        history = History, since = baguette_web_snapshot:since(Nodes, Since, At)
    },
    case baguette_web_history:last(History) of
        none -> S1;
        Last -> event(point, Last, S1)
    end;
looked(Look, Reason, S) ->
    ?LOG_WARNING(#{what => dashboard_look_failed, look => Look, why => shape(Reason)}, ?LOG),
    S.

%% What a process had in its hands is not for the log.
shape({{Name, _}, _Stack}) when is_atom(Name) -> Name;
shape({Name, _Stack}) when is_atom(Name) -> Name;
shape(_) -> unknown.

shown(Snapshot, At, #?MODULE{essence = Before, shown_at = ShownAt} = S) ->
    case baguette_web_snapshot:essence(Snapshot) of
        Before when At - ShownAt < ?TRIPS_S ->
            S;
        Essence ->
            Shown = Snapshot#{at => At},
            event(snapshot, Shown, S#?MODULE{snapshot = Shown, essence = Essence, shown_at = At})
    end.

%% Events are known by what they say: every look brings most of the last one's again.
news(Told, #?MODULE{events = Known} = S) ->
    case lists:usort(fun by_time/2, Told -- Known) of
        [] ->
            S;
        New ->
            Kept = lists:sublist(lists:reverse(New, Known), ?KEPT_EVENTS),
            event(log, #{events => New}, S#?MODULE{events = Kept})
    end.

by_time(#{at := A} = One, #{at := B} = Other) -> {A, One} =< {B, Other}.

%% --- telling

%% All that a page needs before the first change; jobs it asks for itself.
greeting(#?MODULE{snapshot = Snapshot, history = History, events = Events}) ->
    iolist_to_binary([
        [sse(snapshot, Snapshot) || map_size(Snapshot) > 0],
        sse(history, #{points => baguette_web_history:points(History)}),
        sse(log, #{events => lists:reverse(Events)})
    ]).

event(_Name, _Value, #?MODULE{watchers = None} = S) when map_size(None) =:= 0 -> S;
event(Name, Value, S) -> add(sse(Name, Value), S).

sse(Name, Value) -> baguette_web_sse:event(none, atom_to_binary(Name), Value).

add(Data, #?MODULE{batch = Batch, batching = true} = S) ->
    S#?MODULE{batch = [Batch, Data]};
add(Data, #?MODULE{watchers = Watchers} = S) ->
    _ = erlang:send_after(?BATCH_MS + map_size(Watchers), self(), batch),
    S#?MODULE{batch = Data, batching = true}.

send_batch(#?MODULE{batch = Batch, watchers = Watchers} = S) ->
    Binary = iolist_to_binary(Batch),
    lists:foreach(fun(Pid) -> send(Pid, Binary) end, maps:keys(Watchers)),
    S#?MODULE{batch = [], batching = false}.

%% It stands in a send that does not return; what it has not read would only grow.
send(Pid, Binary) ->
    case process_info(Pid, message_queue_len) of
        {message_queue_len, Unread} when Unread > ?MAX_UNREAD -> exit(Pid, kill);
        {message_queue_len, _} -> Pid ! {?MODULE, Binary};
        undefined -> true
    end.
