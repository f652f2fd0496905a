%% @doc Holds every node's report and exchanges them; says whom one may ask. Writes its table, owned
%% by the supervisor, and is found again there by itself after a crash: reports, incarnation,
%% watchers. Decides nothing: baguette_cluster_membership judges, this performs.
%%
%% Exchange protocol (baguette_cluster_remote_v1):
%%   report   ours, to every linked peer, on every beat and on every change; carries a token
%%   pong     the answer to a report: the token back, from which the round trip is known
%%   table    all reports and goodbyes we know: at once to a new link or a new member, and on every
%%            beat to one peer, the next in turn after our own name, so that nodes that cannot
%%            reach each other hear of each other at the price of one message a beat
%%   goodbye  this incarnation is over; travels on in tables until a later incarnation speaks
%%   stale    the answer to a report below what is known of its node (its clock went back):
%%            the node takes the next higher incarnation
%% Refuses: reports that fail their check, messages over no link (no answer could be given), names
%% that are no member's, strangers above max_peers. Never sent: our judgement that a node is gone,
%% since it is true of us only. A message of a later version is logged once and dropped.
-module(baguette_cluster_gossip).

-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/1, leave/0]).
%% What this node says of itself
-export([say/1, publish/2]).
%% Watching
-export([watch/1, announce/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(LOG_META, #{domain => [baguette, cluster]}).
-define(MAX_FACT_BYTES, 2048).
-define(MAX_TRIP_US, 60000000).

-record(?MODULE, {
    settings :: baguette_cluster_settings:settings(),
    members :: baguette_cluster_membership:state(),
    turn = 0 :: non_neg_integer(),              % whose turn it is to get the table
    left = false :: boolean(),                  % said goodbye: not a word more
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
init(#{beat_ms := Beat} = Settings) ->
    %% A beat that waits behind a busy scheduler looks like death to the others.
    _ = process_flag(priority, high),
    ok = net_kernel:monitor_nodes(true, [{node_type, visible}]),
    Known = baguette_cluster_table:watchers(),
    Watchers = maps:from_list([{monitor(process, P), P} || P <- Known]),
    S0 = #?MODULE{settings = Settings, members = remembered(Settings), watchers = Watchers},
    S = lists:foldl(fun nodeup/2, S0, nodes()),
    _ = erlang:send_after(Beat, self(), beat),
    {ok, refresh(speak(S))}.

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

-spec handle_call(leave | {watch, pid()} | {publish, atom(), term()}, gen_server:from(), state()) ->
    {reply, ok | {error, term()}, state()}.
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
    case baguette_cluster_report:check(With) of
        {ok, With} -> {reply, ok, say_changed(With, S)};
        {error, _} ->
            {reply, {error, {too_many_facts, #{key => Key, known => maps:size(Extra)}}}, S}
    end;
handle_call(leave, _From, S) ->
    {Incarnation, _} = baguette_cluster_report:identity(own(S)),
    [ok = baguette_cluster_remote_v1:goodbye(N, Incarnation) || N <- peers(S)],
    {reply, ok, S#?MODULE{left = true}};
handle_call(Unknown, _From, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Unknown),
    {reply, {error, unknown_call}, S}.

-spec handle_cast({say, map()} | {announce, baguette_cluster:event()}, state()) ->
    {noreply, state()}.
handle_cast({say, Fields}, S) ->
    {noreply, say_changed(maps:fold(fun baguette_cluster_report:set/3, own(S), Fields), S)};
handle_cast({announce, Event}, S) ->
    {noreply, tell([Event], S)};
handle_cast(Unknown, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Unknown),
    {noreply, S}.

-spec handle_info(
    beat
    | {nodeup | nodedown, node(), term()}
    | {'DOWN', reference(), process, pid(), term()}
    | baguette_cluster_remote_v1:envelope(), state()) -> {noreply, state()}.
handle_info(beat, #?MODULE{settings = #{beat_ms := Beat}} = S) ->
    _ = erlang:send_after(Beat, self(), beat),
    {Events, Members} = baguette_cluster_membership:judge(now_ms(), S#?MODULE.members),
    Told = tell(Events, S#?MODULE{members = Members}),
    {noreply, refresh(table_in_turn(speak(Told)))};
handle_info({nodeup, Node, _}, S) ->
    {noreply, refresh(nodeup(Node, S))};
handle_info({nodedown, Node, _}, S) ->
    {Events, Members} = baguette_cluster_membership:link_down(Node, S#?MODULE.members),
    {noreply, refresh(tell(Events, S#?MODULE{members = Members}))};
handle_info({'DOWN', Ref, process, Pid, _}, #?MODULE{watchers = Watchers} = S) ->
    ok = baguette_cluster_table:drop_watcher(Pid),
    {noreply, S#?MODULE{watchers = maps:remove(Ref, Watchers)}};
handle_info({baguette_cluster_v1, From, Term}, #?MODULE{members = M} = S) ->
    #{max_peers := Max} = S#?MODULE.settings,
    case baguette_cluster_membership:is_linked(From, M) of
        true ->
            {Events, Members} = baguette_cluster_membership:heard(From, now_ms(), M),
            Heard = refresh_if(Events =/= [], tell(Events, S#?MODULE{members = Members})),
            {noreply, peer_says(baguette_cluster_remote_v1:read(Term, Max), Term, From, Heard)};
        false ->
            {noreply, S}
    end;
handle_info(Unknown, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Unknown),
    {noreply, S}.

%% What peers say -------------------------------------------------------------------------------

peer_says({ok, {report, Report, Token}}, _Term, From, S) ->
    ok = baguette_cluster_remote_v1:pong(From, Token),
    merge(Report, From, S);
peer_says({ok, {pong, Sent}}, _Term, From, #?MODULE{members = M} = S) ->
    %% A token we cannot have sent a short while ago measures nothing.
    case now_us() - Sent of
        Us when Us >= 0, Us < ?MAX_TRIP_US ->
            S#?MODULE{members = baguette_cluster_membership:round_trip(From, max(1, Us), M)};
        _ ->
            S
    end;
peer_says({ok, {table, Reports, Goodbyes}}, _Term, From, S) ->
    Parted = lists:foldl(fun taken_goodbye/2, S, Goodbyes),
    lists:foldl(fun(Report, Sofar) -> merge(Report, From, Sofar) end, Parted, Reports);
peer_says({ok, {goodbye, Incarnation}}, _Term, From, S) ->
    taken_goodbye({From, Incarnation}, S);
peer_says({ok, {stale, Known}}, _Term, _From, S) ->
    rise_above(Known, S);
peer_says(unknown, Term, _From, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Term),
    S.

merge(Report, From, #?MODULE{members = M} = S) ->
    {Verdict, Events, Members} = baguette_cluster_membership:merge(Report, now_ms(), M),
    Merged = tell(Events, S#?MODULE{members = Members}),
    ok = greet_member(Events, From, Merged),
    follow(Verdict, Report, From, Merged).

follow(changed, Report, _From, S) ->
    ok = baguette_cluster_table:put_report(Report, now_ms()),
    changed(S);
follow(advanced, Report, _From, S) ->
    ok = baguette_cluster_table:put_report(Report, now_ms()),
    S;
follow({outrun, Known}, _Report, _From, S) ->
    rise_above(Known, S);
follow({stale, Known}, Report, From, S) ->
    case baguette_cluster_report:node(Report) of
        From -> ok = baguette_cluster_remote_v1:stale(From, Known), S;
        _ -> S
    end;
follow(_KnownOrFull, _Report, _From, S) ->
    S.

taken_goodbye(Goodbye, S) ->
    {Verdict, Events, Members} = baguette_cluster_membership:goodbye(Goodbye, S#?MODULE.members),
    parted(Verdict, tell(Events, S#?MODULE{members = Members})).

parted(changed, S) -> changed(S);
parted({outrun, Known}, S) -> rise_above(Known, S);
parted(known, S) -> S.

rise_above(Known, #?MODULE{left = false} = S) ->
    case Known > baguette_cluster_report:identity(own(S)) of
        true ->
            ?LOG_NOTICE(#{what => incarnation_raised, above => Known}, ?LOG_META),
            speak(with_own(baguette_cluster_report:reborn(own(S), Known), S));
        false ->
            S
    end;
rise_above(_Known, S) ->
    S.

%% What we say ----------------------------------------------------------------------------------

nodeup(Node, #?MODULE{members = M} = S) ->
    case baguette_cluster_node_name:is_member_name(Node) of
        true ->
            {Events, Members} = baguette_cluster_membership:link_up(Node, now_ms(), M),
            Linked = tell(Events, S#?MODULE{members = Members}),
            ok = greet(Node, Linked),
            Linked;
        false ->
            S
    end.

%% Its gossip may have started after its node: the table sent at link up met nobody.
greet_member([{member, From, joined}], From, S) -> greet(From, S);
greet_member(_, _, _) -> ok.

greet(_Node, #?MODULE{left = true}) ->
    ok;
greet(Node, S) ->
    ok = baguette_cluster_remote_v1:report(Node, own(S), now_us()),
    send_table(Node, S).

send_table(Node, #?MODULE{members = M}) ->
    Reports = [R || {R, At} <- baguette_cluster_membership:members(M), At =/= self],
    baguette_cluster_remote_v1:table(Node, Reports, baguette_cluster_membership:goodbyes(M)).

table_in_turn(#?MODULE{left = true} = S) ->
    S;
table_in_turn(#?MODULE{turn = Turn} = S) ->
    {Before, After} = lists:partition(fun(N) -> N < node() end, peers(S)),
    case After ++ Before of
        [] -> ok;
        Ring -> ok = send_table(lists:nth(Turn rem length(Ring) + 1, Ring), S)
    end,
    S#?MODULE{turn = Turn + 1}.

say_changed(Report, S) ->
    case baguette_cluster_report:same_body(Report, own(S)) of
        true -> S;
        false -> changed(speak(with_own(Report, S)))
    end.

%% Our report under its next identity, to everybody.
speak(#?MODULE{left = true} = S) ->
    S;
speak(S) ->
    Report = baguette_cluster_report:next(own(S)),
    Token = now_us(),
    [ok = baguette_cluster_remote_v1:report(N, Report, Token) || N <- peers(S)],
    with_own(Report, S).

peers(#?MODULE{members = M}) ->
    lists:sort(maps:keys(baguette_cluster_membership:links(M))).

own(#?MODULE{members = M}) ->
    baguette_cluster_membership:own(M).

with_own(Report, #?MODULE{members = M} = S) ->
    S#?MODULE{members = baguette_cluster_membership:set_own(Report, M)}.

%% What is seen of it ---------------------------------------------------------------------------

%% A body changed: the others' processes here have to look again.
changed(S) ->
    Shown = refresh(S),
    ok = baguette_cluster_holdings:look(),
    Shown.

refresh_if(true, S) -> refresh(S);
refresh_if(false, S) -> S.

%% Makes the table what the state is, and tells of holders that came or went.
refresh(#?MODULE{members = M, holders = Old} = S) ->
    Reports = [R || {R, _} <- baguette_cluster_membership:members(M)],
    Holders = baguette_cluster_holders:all(node(), Reports, baguette_cluster_membership:links(M)),
    ok = baguette_cluster_table:show(M, Holders),
    Touched = lists:usort(maps:keys(Old) ++ maps:keys(Holders)),
    Moved = [C || C <- Touched, who(C, Old) =/= who(C, Holders)],
    Events = [{holders, C, [N || #{node := N} <- maps:get(C, Holders, [])]} || C <- Moved],
    tell(Events, S#?MODULE{holders = Holders}).

who(Component, Holders) ->
    lists:sort([N || #{node := N} <- maps:get(Component, Holders, [])]).

tell([], S) ->
    S;
tell(Events, #?MODULE{watchers = Watchers} = S) ->
    lists:foreach(fun log/1, Events),
    _ = [Pid ! {baguette_cluster, Event} || Event <- Events, Pid <- maps:values(Watchers)],
    [ok = baguette_cluster_holdings:look() || {Fact, _, _} <- Events, Fact =/= holders],
    S.

log({link, Node, State}) ->
    ?LOG_INFO(#{what => link, peer => Node, state => State}, ?LOG_META);
log({member, Node, What}) ->
    ?LOG_INFO(#{what => member, peer => Node, state => What}, ?LOG_META);
log({holders, Component, Nodes}) ->
    ?LOG_DEBUG(#{what => holders, component => Component, nodes => Nodes}, ?LOG_META);
log({plan, _Plan}) ->
    ?LOG_DEBUG(#{what => plan_changed}, ?LOG_META).

now_ms() -> erlang:monotonic_time(millisecond).

now_us() -> erlang:monotonic_time(microsecond).
