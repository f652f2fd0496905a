%% @doc What the dashboard is fed with: one process that looks once for everybody who watches.
%%
%% Started by baguette_web_sup. While anybody watches it looks at this node's tables once a second
%% (and at once when the cluster tells of a change), asks the other nodes every two, and hears of
%% every job. What is new goes to all watchers as one binary, so a watcher more costs one message
%% more; with many watchers batches come less often. Each look runs in a process of its own: whoever
%% is slow there is waited for by nobody. A watcher that does not read is ended, not buffered for.
%% What dies with this process: the history, and the connections, whose pages connect again.
%%
%% Events: `snapshot' (the whole state, when it changed; the links are in the first one only),
%% `links' (all of them), `figures' (of nodes whose device or times changed), `history' (once),
%% `point' (one more of it), `job', `step', `preview' (of every job), `log' (events of all nodes,
%% oldest first).
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
%% So do temperatures and the like.
-define(FIGURES_S, 2).
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
    links_told = {[], [], 0} :: {Links :: [map()], Essence :: [map()], At :: number()},
    looks = #{} :: #{node() => baguette_web_remote_v1:look()},
    since = #{} :: baguette_web_snapshot:since(),
    snapshot = #{} :: map(),
    %% As they were last told, and when.
    essence = #{} :: map(),
    figures = {[], 0} :: {Figures :: [map()], At :: number()},
    history = baguette_web_history:new() :: baguette_web_history:history(),
    %% Newest first.
    events = [] :: [map()],
    %% Every look brings a node's last events: what it brought before.
    heard = #{} :: #{node() => [map()]},
    %% What a newcomer gets, until something of it changes.
    greeting = none :: none | binary(),
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
    gen_server:call(?MODULE, watch, infinity).

%% gen_server

-spec init(inet:port_number()) -> {ok, #?MODULE{}}.
init(Port) ->
    ok = baguette_cluster:watch(),
    ok = follow_jobs(false),
    lists:foreach(fun(Message) -> self() ! Message end, [look, far, point, keep_alive]),
    {ok, #?MODULE{port = Port}}.

%% A node without a directory for jobs takes none. Who admits them may be about to start again.
follow_jobs(Previews) ->
    case baguette_web_jobs:subscribe_all(#{previews => Previews}) of
        ok ->
            ok;
        {error, {no_jobs_dir, _}} ->
            ok;
        {error, {not_ready, _}} ->
            _ = erlang:send_after(?LOOK_MS, self(), follow),
            ok
    end.

-spec handle_call(watch, gen_server:from(), #?MODULE{}) -> {reply, ok, #?MODULE{}}.
handle_call(watch, {Pid, _}, Before) ->
    %% What waits to be told is in the greeting already.
    #?MODULE{watchers = Watchers, greeting = Greeting} = S =
        greeting(send_batch(without_old(Before))),
    Pid ! {?MODULE, Greeting},
    Ref = monitor(process, Pid),
    ok = wanted(map_size(Watchers) =:= 0, true),
    {reply, ok, start(far, start(near, S#?MODULE{watchers = Watchers#{Pid => Ref}}))}.

%% Previews, by the first who watches till the last.
wanted(true, Previews) -> follow_jobs(Previews);
wanted(false, _) -> ok.

%% What was seen for the last watcher is no news for one who comes later.
without_old(#?MODULE{watchers = None} = S) when map_size(None) =:= 0 ->
    S#?MODULE{snapshot = #{}, essence = #{}, greeting = none};
without_old(S) ->
    S.

-spec handle_cast(term(), #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_cast(Unknown, S) ->
    handle_info(Unknown, S).

-spec handle_info(term(), #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_info(follow, S) ->
    ok = follow_jobs(map_size(S#?MODULE.watchers) > 0),
    {noreply, S};
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
        error ->
            Left = maps:remove(Pid, S#?MODULE.watchers),
            ok = wanted(map_size(Left) =:= 0, false),
            {noreply, S#?MODULE{watchers = Left}}
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

looked(near, {looked, View}, #?MODULE{port = Port, looks = Looks} = S) ->
    #{nodes := Nodes, at := At} = View,
    Since = baguette_web_snapshot:since(Nodes, S#?MODULE.since, At),
    Told = #{port => Port, since => Since, looks => Looks},
    shown(baguette_web_snapshot:build(maps:merge(View, Told)), At, S#?MODULE{since = Since});
looked(far, {looked, #{nodes := Nodes, at := At, looks := Looks, links := Links}}, S) ->
    Rows = baguette_web_snapshot:links(Nodes, Links),
    linked(Rows, At, heard(Nodes, S#?MODULE{looks = Looks, greeting = none}));
looked(sample, {looked, Sample}, #?MODULE{history = Before, since = Since} = S) ->
    #{sample := Point, nodes := Nodes, at := At} = Sample,
    History = baguette_web_history:point(Point, Before),
    S1 = S#?MODULE{
        history = History, since = baguette_web_snapshot:since(Nodes, Since, At), greeting = none
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

shown(Snapshot, At, #?MODULE{essence = Before, snapshot = Last, links = Links} = S0) ->
    Shown = Snapshot#{at => At},
    S = S0#?MODULE{snapshot = Shown, greeting = none},
    Figures = baguette_web_snapshot:figures(Snapshot),
    case baguette_web_snapshot:essence(Snapshot) of
        Before ->
            figures(Figures, At, S);
        Essence ->
            Told = case map_size(Last) of 0 -> Shown#{links => Links}; _ -> Shown end,
            event(snapshot, Told, S#?MODULE{essence = Essence, figures = {Figures, At}})
    end.

figures(Figures, At, #?MODULE{figures = {Before, ToldAt}} = S) ->
    case Figures -- Before of
        [_ | _] = Changed when At - ToldAt >= ?FIGURES_S ->
            event(figures, #{nodes => Changed}, S#?MODULE{figures = {Figures, At}});
        _ ->
            S
    end.

linked(Links, At, #?MODULE{links_told = {Before, Essence, ToldAt}} = S0) ->
    S = S0#?MODULE{links = Links},
    case baguette_web_snapshot:links_essence(Links) of
        Essence when Links =:= Before; At - ToldAt < ?TRIPS_S ->
            S;
        Now ->
            event(links, #{links => Links}, S#?MODULE{links_told = {Links, Now, At}})
    end.

%% What a node told before is known by itself, not by its time: clocks are set back. Who is silent
%% this time may tell it again the next.
heard(Nodes, #?MODULE{looks = Looks, heard = Before} = S) ->
    Now = maps:map(fun(_Node, Look) -> events_of(Look) end, Looks),
    New = [
        Event#{node => baguette_web_json:address(Node)}
     || {Node, Events} <- maps:to_list(Now), Event <- Events -- maps:get(Node, Before, [])
    ],
    news(New, S#?MODULE{heard = maps:with(Nodes, maps:merge(Before, Now))}).

events_of(#{events := Events}) when length(Events) >= 0 ->
    [Event || #{at := At} = Event <- Events, is_number(At)];
events_of(_) ->
    [].

news([], S) ->
    S;
news(New, #?MODULE{events = Known} = S) ->
    Newest = lists:sublist(lists:reverse(lists:sort(fun by_time/2, New)), ?KEPT_EVENTS),
    Kept = lists:sublist(Newest ++ Known, ?KEPT_EVENTS),
    event(log, #{events => lists:reverse(Newest)}, S#?MODULE{events = Kept}).

by_time(#{at := A} = One, #{at := B} = Other) -> {A, One} =< {B, Other}.

%% --- telling

%% All that a page needs before the first change; jobs it asks for itself.
greeting(#?MODULE{greeting = none, snapshot = Snapshot, links = Links} = S) ->
    #?MODULE{history = History, events = Events} = S,
    S#?MODULE{greeting = iolist_to_binary([
        [sse(snapshot, Snapshot#{links => Links}) || map_size(Snapshot) > 0],
        sse(history, #{points => baguette_web_history:points(History)}),
        sse(log, #{events => lists:reverse(Events)})
    ])};
greeting(S) ->
    S.

event(_Name, _Value, #?MODULE{watchers = None} = S) when map_size(None) =:= 0 -> S;
event(Name, Value, S) -> add(sse(Name, Value), S).

sse(Name, Value) -> baguette_web_sse:event(none, atom_to_binary(Name), Value).

add(Data, #?MODULE{batch = Batch, batching = true} = S) ->
    S#?MODULE{batch = [Batch, Data]};
add(Data, #?MODULE{watchers = Watchers} = S) ->
    _ = erlang:send_after(?BATCH_MS + map_size(Watchers), self(), batch),
    S#?MODULE{batch = Data, batching = true}.

send_batch(#?MODULE{batch = []} = S) ->
    S#?MODULE{batching = false};
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
