%% @doc Holds every node's report and exchanges them; says whom one may ask. Writes its table, owned
%% by the supervisor, and is found again there by itself after a crash: reports, incarnation,
%% watchers. Decides nothing: baguette_cluster_exchange says what to send (the protocol is told
%% there), baguette_cluster_membership judges, this performs.
%% Refuses: reports that fail their check, messages over no link, names that are no member's,
%% strangers above max_peers. A message of a later version is logged once and dropped.
-module(baguette_cluster_gossip).

-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/1, leave/0, drain/0]).
%% What this node says of itself
-export([say/1, publish/2]).
%% What was measured, and whether our own work waits for others
-export([measured/2, asking/1]).
%% Watching
-export([watch/1, announce/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(LOG_META, #{domain => [baguette, cluster]}).
-define(MAX_FACT_BYTES, 2048).
-define(DRAIN_MS, 2000).

-record(?MODULE, {
    settings :: baguette_cluster_settings:settings(),
    exchange :: baguette_cluster_exchange:state(),
    whom = in_turn :: baguette_cluster_exchange:whom(),  % to speak to on a beat
    drainers = [] :: [gen_server:from()],   % wait until everybody knows that we are leaving
    watchers = #{} :: #{reference() => pid()},
    holders = #{} :: #{binary() => [baguette_cluster_holders:holder()]} % as in the table
}).
-type state() :: #?MODULE{}.

-spec start_link(baguette_cluster_settings:settings()) -> gen_server:start_ret().
start_link(Settings) ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, Settings, []).

%% @doc Says goodbye to everybody, so that we leave every list now. Harmless when not running.
-spec leave() -> ok.
leave() ->
    try
        gen_server:call(?MODULE, leave, 2000)
    catch
        exit:_ -> ok
    end.

%% @doc Says that we are leaving; back when everybody who can be asked has taken note, or after 2 s.
-spec drain() -> ok.
drain() ->
    gen_server:call(?MODULE, drain, 2 * ?DRAIN_MS).

%% @doc What the link to a peer carries.
-spec measured(node(), non_neg_integer()) -> ok.
measured(Node, Mbit) ->
    gen_server:cast(?MODULE, {measured, Node, Mbit}).

%% @doc Whether our own work may wait for any of the others: then they are all asked on every beat,
%% so that who is silent is noticed within suspect_ms. Else, of many, it may take some beats longer.
-spec asking(boolean()) -> ok.
asking(Asking) ->
    gen_server:cast(?MODULE, {asking, Asking}).

%% @doc Changes fields of our own report.
-spec say(#{components | states | memory_mib | plan_hash => term()}) -> ok.
say(Fields) ->
    gen_server:cast(?MODULE, {say, Fields}).

%% @doc Puts a small fact into our report.
-spec publish(atom(), term()) -> ok | {error, {fact_too_large | too_many_facts, map()}}.
publish(Key, Value) when is_atom(Key) ->
    case erlang:external_size(Value) of
        Size when Size > ?MAX_FACT_BYTES ->
            {error, {fact_too_large, #{key => Key, bytes => Size, allowed => ?MAX_FACT_BYTES}}};
        _ ->
            gen_server:call(?MODULE, {publish, Key, Value})
    end.

%% @doc The process gets {baguette_cluster, Event} from now on.
-spec watch(pid()) -> ok.
watch(Pid) ->
    gen_server:call(?MODULE, {watch, Pid}).

%% @doc Lets all watchers know; for the room's other processes.
-spec announce(baguette_cluster:event()) -> ok.
announce(Event) ->
    gen_server:cast(?MODULE, {announce, Event}).

%% The process ----------------------------------------------------------------------------------

-spec init(baguette_cluster_settings:settings()) -> {ok, state()}.
init(Settings) ->
    %% A beat that waits behind a busy scheduler looks like death to the others.
    _ = process_flag(priority, high),
    ok = net_kernel:monitor_nodes(true, [{node_type, visible}]),
    ok = baguette_cluster_table:start_counting(now_ms()),
    Before = baguette_cluster_table:links(),
    Known = baguette_cluster_table:watchers(),
    Watchers = maps:from_list([{monitor(process, P), P} || P <- Known]),
    Exchange = baguette_cluster_exchange:new(Settings, remembered(Settings), now_us()),
    S = #?MODULE{settings = Settings, exchange = Exchange, watchers = Watchers},
    _ = erlang:send_after(0, self(), beat),
    ok = look_again(Settings),
    {ok, refresh(lists:foldl(fun(N, Sofar) -> relink(N, Before, Sofar) end, S, nodes()))}.

%% What was measured before we crashed stays; it comes again in ten minutes only.
relink(Node, Before, S) ->
    #?MODULE{exchange = X} = Linked = nodeup(Node, S),
    Mbit = maps:get(mbit, maps:get(Node, Before, #{}), 0),
    Linked#?MODULE{exchange = baguette_cluster_exchange:throughput(Node, Mbit, X)}.

remembered(Settings) ->
    Own = case baguette_cluster_table:own() of
        {ok, Report} -> Report;
        none -> baguette_cluster_report:new(node(), erlang:system_time(microsecond))
    end,
    Fresh = baguette_cluster_membership:new(Settings, Own, now_ms()),
    lists:foldl(
        fun({R, _}, M) -> element(3, baguette_cluster_membership:merge(R, now_ms(), M)) end,
        baguette_cluster_membership:restore_floors(baguette_cluster_table:floors(), Fresh),
        baguette_cluster_table:reports()).

-spec handle_call(Request, gen_server:from(), state()) ->
    {reply, ok | {error, term()}, state()} | {noreply, state()} when
    Request :: leave | drain | {watch, pid()} | {publish, atom(), term()}.
handle_call({watch, Pid}, _From, #?MODULE{watchers = Watchers} = S) ->
    case lists:member(Pid, maps:values(Watchers)) of
        true ->
            {reply, ok, S};
        false ->
            ok = baguette_cluster_table:put_watcher(Pid),
            {reply, ok, S#?MODULE{watchers = Watchers#{monitor(process, Pid) => Pid}}}
    end;
handle_call({publish, Key, Value}, _From, S) ->
    Extra = baguette_cluster_report:extra(own(S)),
    With = baguette_cluster_report:set(extra, Extra#{Key => Value}, own(S)),
    case has_room_to_leave(With) of
        true ->
            {reply, ok, said(With, S)};
        false ->
            {reply, {error, {too_many_facts, #{key => Key, known => maps:size(Extra)}}}, S}
    end;
handle_call(drain, From, #?MODULE{drainers = Drainers} = S) ->
    _ = erlang:send_after(?DRAIN_MS, self(), {drain_over, From}),
    Waiting = S#?MODULE{drainers = [From | Drainers]},
    {noreply, perform(baguette_cluster_exchange:drain(now_us(), S#?MODULE.exchange), Waiting)};
handle_call(leave, _From, S) ->
    {reply, ok, perform(baguette_cluster_exchange:leave(S#?MODULE.exchange), S)};
handle_call(Unknown, _From, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Unknown),
    {reply, {error, unknown_call}, S}.

%% A fact more must never be what keeps us from saying that we leave.
has_room_to_leave(Report) ->
    Extra = (baguette_cluster_report:extra(Report))#{leaving => true},
    case baguette_cluster_report:check(baguette_cluster_report:set(extra, Extra, Report)) of
        {ok, _} -> true;
        {error, _} -> false
    end.

-spec handle_cast(Message, state()) -> {noreply, state()} when
    Message :: {say, map()} | {announce, baguette_cluster:event()} | {asking, boolean()}
        | {measured, node(), non_neg_integer()}.
handle_cast({say, Fields}, S) ->
    Report = maps:fold(fun baguette_cluster_report:set/3, own(S), Fields),
    {noreply, said(Report, S)};
handle_cast({announce, Event}, S) ->
    {noreply, tell([Event], S)};
handle_cast({asking, true}, #?MODULE{whom = in_turn, exchange = X} = S) ->
    Next = baguette_cluster_exchange:ask_all(X),
    {noreply, S#?MODULE{whom = everybody, exchange = Next}};
handle_cast({asking, true}, S) ->
    {noreply, S};
handle_cast({asking, false}, S) ->
    {noreply, S#?MODULE{whom = in_turn}};
handle_cast({measured, Node, Mbit}, #?MODULE{exchange = X} = S) ->
    Measured = baguette_cluster_exchange:throughput(Node, Mbit, X),
    {noreply, refresh(S#?MODULE{exchange = Measured})};
handle_cast(Unknown, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Unknown),
    {noreply, S}.

-spec handle_info(
    beat
    | look
    | {drain_over, gen_server:from()}
    | {nodeup | nodedown, node(), term()}
    | {'DOWN', reference(), process, pid(), term()}
    | baguette_cluster_remote_v1:envelope(), state()) -> {noreply, state()}.
handle_info(beat, #?MODULE{settings = #{beat_ms := Beat}, whom = Whom, exchange = X} = S) ->
    _ = erlang:send_after(Beat, self(), beat),
    {noreply, refresh(perform(baguette_cluster_exchange:beat(Whom, now_us(), X), S))};
handle_info(look, #?MODULE{settings = Settings, exchange = X} = S) ->
    ok = look_again(Settings),
    {noreply, perform(baguette_cluster_exchange:look(now_us(), X), S)};
handle_info({drain_over, From}, #?MODULE{drainers = Drainers} = S) ->
    {noreply, no_longer(lists:member(From, Drainers), From, S)};
handle_info({nodeup, Node, _}, S) ->
    {noreply, nodeup(Node, S)};
handle_info({nodedown, Node, _}, S) ->
    {noreply, perform(baguette_cluster_exchange:link_down(Node, S#?MODULE.exchange), S)};
handle_info({'DOWN', Ref, process, Pid, _}, #?MODULE{watchers = Watchers} = S) ->
    ok = baguette_cluster_table:drop_watcher(Pid),
    {noreply, S#?MODULE{watchers = maps:remove(Ref, Watchers)}};
handle_info({baguette_cluster_v1, From, Term}, S) ->
    {noreply, heard(From, Term, S)};
handle_info(Unknown, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Unknown),
    {noreply, S}.

look_again(Settings) ->
    _ = erlang:send_after(baguette_cluster_membership:look_ms(Settings), self(), look),
    ok.

%% What the exchange wants ------------------------------------------------------------------------

nodeup(Node, #?MODULE{exchange = X} = S) ->
    case baguette_cluster_node_name:is_member_name(Node) of
        true -> perform(baguette_cluster_exchange:link_up(Node, now_us(), X), S);
        false -> S
    end.

heard(From, Term, #?MODULE{exchange = X, settings = #{max_peers := Max}} = S) ->
    Message = case baguette_cluster_remote_v1:read(Term, Max) of
        {ok, Read} -> Read;
        unknown -> ok = baguette_cluster_stranger:drop(?MODULE, Term), unknown
    end,
    perform(baguette_cluster_exchange:hear(From, Message, now_us(), X), S).

said(Report, #?MODULE{exchange = X} = S) ->
    perform(baguette_cluster_exchange:say(Report, now_us(), X), S).

%% The table first: who is told of a change, here or on another node, may look at once.
perform({Effects, X}, S) ->
    Events = [E || {event, E} <- Effects],
    Shown = shown(lists:member(changed, Effects), Events, S#?MODULE{exchange = X}),
    lists:foldl(fun do/2, tell(Events, Shown), Effects).

shown(true, _Events, S) ->
    Shown = refresh(S),
    ok = baguette_cluster_holdings:look(),
    Shown;
shown(false, [_ | _], S) -> refresh(S);
shown(false, [], S) -> S.

do({send, Nodes, Message}, S) ->
    Bytes = baguette_cluster_remote_v1:send(Nodes, Message),
    ok = baguette_cluster_table:count(element(1, Message), length(Nodes), Bytes),
    S;
do(drained, #?MODULE{drainers = Drainers} = S) ->
    _ = [gen_server:reply(From, ok) || From <- Drainers],
    S#?MODULE{drainers = []};
do({raised, Known}, S) ->
    ?LOG_NOTICE(#{what => incarnation_raised, above => Known}, ?LOG_META),
    S;
do(_EventOrChanged, S) ->
    S.

%% Whoever waits that long is not to be waited for.
no_longer(false, _From, S) ->
    S;
no_longer(true, From, #?MODULE{drainers = Drainers, exchange = X} = S) ->
    ?LOG_NOTICE(#{what => leaving_not_acknowledged_by_all}, ?LOG_META),
    _ = gen_server:reply(From, ok),
    case lists:delete(From, Drainers) of
        [] -> S#?MODULE{drainers = [], exchange = baguette_cluster_exchange:drain_over(X)};
        Left -> S#?MODULE{drainers = Left}
    end.

own(#?MODULE{exchange = X}) ->
    baguette_cluster_exchange:own(X).

%% What is seen of it ---------------------------------------------------------------------------

%% Makes the table what the state is, and tells of holders that came or went.
refresh(#?MODULE{exchange = X, holders = Old} = S) ->
    Members = baguette_cluster_exchange:members(X),
    Facts = baguette_cluster_discovery:facts(),
    Links = maps:map(
        fun(Node, Link) -> Link#{path => maps:get(path, maps:get(Node, Facts, #{}), unknown)} end,
        baguette_cluster_membership:links(Members)),
    Reports = [R || {R, _} <- baguette_cluster_membership:members(Members)],
    Holders = baguette_cluster_holders:all(node(), Reports, Links),
    ok = baguette_cluster_table:show(Members, Links, Holders),
    Touched = lists:usort(maps:keys(Old) ++ maps:keys(Holders)),
    Moved = [C || C <- Touched, who(C, Old) =/= who(C, Holders)],
    Events = [{holders, C, [N || #{node := N} <- maps:get(C, Holders, [])]} || C <- Moved],
    tell(Events, S#?MODULE{holders = Holders}).

who(Component, Holders) ->
    lists:sort([N || #{node := N} <- maps:get(Component, Holders, [])]).

tell([], S) ->
    S;
tell(Events, #?MODULE{watchers = Watchers} = S) ->
    lists:foreach(fun(Event) -> log(Event, S) end, Events),
    _ = [Pid ! {baguette_cluster, Event} || Event <- Events, Pid <- maps:values(Watchers)],
    [ok = baguette_cluster_holdings:look() || {Fact, _, _} <- Events, Fact =/= holders],
    S.

%% Whoever said goodbye is no news to worry about, nor is that their link goes down after it.
log({link, Node, State}, S) ->
    Level = case State =/= up andalso not has_left(Node, S) of true -> warning; false -> info end,
    ?LOG(Level, #{what => link, peer => Node, state => State}, ?LOG_META);
log({member, Node, gone}, S) ->
    {Level, State} = case has_left(Node, S) of true -> {info, left}; false -> {warning, gone} end,
    ?LOG(Level, #{what => member, peer => Node, state => State}, ?LOG_META);
log({member, Node, joined}, _S) ->
    ?LOG_INFO(#{what => member, peer => Node, state => joined}, ?LOG_META);
log({holders, Component, Nodes}, _S) ->
    ?LOG_DEBUG(#{what => holders, component => Component, nodes => Nodes}, ?LOG_META);
log({plan, _Plan}, _S) ->
    ?LOG_DEBUG(#{what => plan_changed}, ?LOG_META).

has_left(Node, #?MODULE{exchange = X}) ->
    Goodbyes = baguette_cluster_membership:goodbyes(baguette_cluster_exchange:members(X)),
    lists:keymember(Node, 1, Goodbyes).

now_ms() -> erlang:monotonic_time(millisecond).

now_us() -> erlang:monotonic_time(microsecond).
