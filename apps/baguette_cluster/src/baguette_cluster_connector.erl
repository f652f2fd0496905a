%% @doc The only process that connects to a peer; with dist_auto_connect never, nothing else does.
%% Wants a link to everybody whom discovery names and everybody who is a member, and tries again
%% with backoff where there is none. Each attempt is a process of its own with a deadline, so that
%% a dead peer delays nobody else; one that failed finds out why (baguette_cluster_handshake).
%% Whether a link is up is told by baguette_cluster_gossip. The table, owned by the supervisor, says
%% of each peer that was tried in vain why and since when.
-module(baguette_cluster_connector).

-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/1, look/0, unreached/0, wait_ms/1]).
-export_type([why/0]).
%% The attempt's own process
-export([connect/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(TABLE, ?MODULE).
-define(LOG_META, #{domain => [baguette, cluster]}).
-define(FIRST_WAIT_MS, 200).
-define(LONGEST_WAIT_MS, 5000).
-define(ATTEMPT_MS, 12000).     % the kernel's own set-up time is 7 s
-define(WHY_MS, 3000).          % to find out why it failed
-define(WHY_EVERY, 4).          % after the first two, so many failures until it is looked at again

%% not_tried: this node has no fixed port, or no readable TLS options, to dial with.
-type why() :: baguette_cluster_handshake:why() | not_tried.

-record(peer, {
    failures = 0 :: non_neg_integer(),
    due_ms :: integer(),                                    % not before
    attempt :: {pid(), reference()} | undefined
}).
-record(?MODULE, {
    peers = #{} :: #{node() => #peer{}},                    % wanted and not linked
    timer :: reference() | undefined
}).
-type state() :: #?MODULE{}.

-spec start_link(baguette_cluster_settings:settings()) -> gen_server:start_ret().
start_link(_Settings) ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Whom to connect to may have changed.
-spec look() -> ok.
look() ->
    gen_server:cast(?MODULE, look).

%% @doc Whom we want a link to and have tried in vain, why, and since when (monotonic).
-spec unreached() -> [{node(), why(), SinceMs :: integer()}].
unreached() ->
    lists:sort(ets:tab2list(?TABLE)).

%% @doc How long to wait after so many failures in a row.
-spec wait_ms(non_neg_integer()) -> pos_integer().
wait_ms(Failures) ->
    min(?LONGEST_WAIT_MS, ?FIRST_WAIT_MS bsl min(Failures, 10)).

-spec init([]) -> {ok, state()}.
init([]) ->
    ok = net_kernel:monitor_nodes(true, [{node_type, visible}]),
    ok = baguette_cluster_gossip:watch(self()),
    {ok, connect_due(#?MODULE{})}.

-spec handle_call(term(), gen_server:from(), state()) -> {reply, {error, unknown_call}, state()}.
handle_call(Unknown, _From, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Unknown),
    {reply, {error, unknown_call}, S}.

-spec handle_cast(look, state()) -> {noreply, state()}.
handle_cast(look, S) ->
    {noreply, connect_due(S)};
handle_cast(Unknown, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Unknown),
    {noreply, S}.

-spec handle_info(
    {nodeup | nodedown, node(), term()}
    | {baguette_cluster, baguette_cluster:event()}
    | {timeout, reference(), due}
    | {attempt_over, node(), pid()}
    | {'DOWN', reference(), process, pid(), term()}, state()) -> {noreply, state()}.
handle_info({nodeup, _Node, _}, S) ->
    {noreply, connect_due(S)};
handle_info({nodedown, _Node, _}, S) ->
    {noreply, connect_due(S)};
handle_info({baguette_cluster, {member, _Node, _}}, S) ->
    {noreply, connect_due(S)};
handle_info({baguette_cluster, _Other}, S) ->
    {noreply, S};
handle_info({timeout, Timer, due}, #?MODULE{timer = Timer} = S) ->
    {noreply, connect_due(S#?MODULE{timer = undefined})};
handle_info({timeout, _Old, due}, S) ->
    {noreply, S};
handle_info({attempt_over, Node, Pid}, #?MODULE{peers = Peers} = S) ->
    _ = case Peers of
        #{Node := #peer{attempt = {Pid, _}}} -> exit(Pid, kill);
        _ -> it_ended
    end,
    {noreply, S};
handle_info({'DOWN', Ref, process, _Pid, Why}, #?MODULE{peers = Peers} = S) ->
    case [{N, P} || {N, #peer{attempt = {_, R}} = P} <- maps:to_list(Peers), R =:= Ref] of
        [{Node, Peer}] -> {noreply, connect_due(ended(Node, Peer, Why, S))};
        [] -> {noreply, S} % nobody waits for it any more: linked or forgotten meanwhile
    end;
handle_info(Unknown, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Unknown),
    {noreply, S}.

%% Every wanted node without a link gets an attempt when it is due; the timer is for the next one.
connect_due(#?MODULE{peers = Before} = S) ->
    Now = erlang:monotonic_time(millisecond),
    Peers = maps:from_list([{N, maps:get(N, Before, #peer{due_ms = Now})} || N <- wanted()]),
    _ = [ets:delete(?TABLE, N) || {N, _, _} <- unreached(), not is_map_key(N, Peers)],
    Tried = maps:map(fun(Node, Peer) -> attempt(Node, Peer, Now) end, Peers),
    set_timer(Now, S#?MODULE{peers = Tried}).

wanted() ->
    Members = [baguette_cluster_report:node(R) || {R, _} <- baguette_cluster_table:reports()],
    lists:usort(baguette_cluster_discovery:known() ++ Members) -- [node() | nodes()].

attempt(Node, #peer{attempt = undefined, due_ms = Due, failures = F} = Peer, Now) when Due =< Now ->
    {Pid, Ref} = spawn_monitor(?MODULE, connect, [Node, F < 2 orelse F rem ?WHY_EVERY =:= 0]),
    _ = erlang:send_after(?ATTEMPT_MS, self(), {attempt_over, Node, Pid}),
    Peer#peer{attempt = {Pid, Ref}};
attempt(_Node, Peer, _Now) ->
    Peer.

%% @doc One attempt: ends with its answer as the reason. The peer logs every handshake that fails
%% for the secret, so we do not look for the reason each time.
-spec connect(node(), boolean()) -> no_return().
connect(Node, LookWhy) ->
    case net_kernel:connect_node(Node) of
        true -> exit(connected);
        _ when LookWhy -> exit({failed, why(Node, baguette_cluster_handshake:own())});
        _ -> exit({failed, as_before})
    end.

why(Node, {ok, Own}) -> baguette_cluster_handshake:why(Node, Own#{ms => ?WHY_MS});
why(_Node, {error, _}) -> not_tried.

ended(Node, Peer, connected, #?MODULE{peers = Peers} = S) ->
    true = ets:delete(?TABLE, Node),
    S#?MODULE{peers = Peers#{Node := Peer#peer{attempt = undefined, due_ms = later(0)}}};
ended(Node, #peer{failures = Failures} = Peer, Why, #?MODULE{peers = Peers} = S) ->
    %% Linked meanwhile, by an attempt from over there: then that is no failure.
    Before = ets:lookup(?TABLE, Node),
    _ = lists:member(Node, nodes()) orelse note(Node, Before, reason(Why)),
    S#?MODULE{
        peers = Peers#{Node := Peer#peer{
            attempt = undefined, failures = Failures + 1, due_ms = later(Failures)
        }}
    }.

reason({failed, Why}) -> Why;
reason(killed) -> timeout;
reason(_Crashed) -> not_tried.

note(_Node, _Before, as_before) -> ok;
note(Node, [{Node, Why, _}], Why) -> ok;
note(Node, _Before, Why) ->
    Level = case Why of wrong_secret -> warning; _ -> notice end,
    ?LOG(Level, #{what => no_connection, peer => Node, why => Why}, ?LOG_META),
    true = ets:insert(?TABLE, {Node, Why, erlang:monotonic_time(millisecond)}),
    ok.

later(Failures) ->
    erlang:monotonic_time(millisecond) + wait_ms(Failures).

set_timer(Now, #?MODULE{timer = Old, peers = Peers} = S) ->
    _ = Old =:= undefined orelse erlang:cancel_timer(Old),
    case [Due || #peer{attempt = undefined, due_ms = Due} <- maps:values(Peers)] of
        [] -> S#?MODULE{timer = undefined};
        Dues -> S#?MODULE{timer = erlang:start_timer(max(1, lists:min(Dues) - Now), self(), due)}
    end.
