%% @doc The only process that connects to a peer; with dist_auto_connect never, nothing else does.
%% Wants a link to everybody whom discovery names and everybody who is a member, and tries again
%% with backoff where there is none. Each attempt is a process of its own with a deadline, so that
%% a dead peer delays nobody else. Whether a link is up is told by baguette_cluster_gossip.
-module(baguette_cluster_connector).

-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/1, look/0, wait_ms/1]).
%% The attempt's own process
-export([connect/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(LOG_META, #{domain => [baguette, cluster]}).
-define(FIRST_WAIT_MS, 200).
-define(LONGEST_WAIT_MS, 5000).
-define(ATTEMPT_MS, 8000).      % the kernel's own set-up time is 7 s

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
    Tried = maps:map(fun(Node, Peer) -> attempt(Node, Peer, Now) end, Peers),
    set_timer(Now, S#?MODULE{peers = Tried}).

wanted() ->
    Members = [baguette_cluster_report:node(R) || {R, _} <- baguette_cluster_table:reports()],
    lists:usort(baguette_cluster_discovery:known() ++ Members) -- [node() | nodes()].

attempt(Node, #peer{attempt = undefined, due_ms = Due} = Peer, Now) when Due =< Now ->
    {Pid, Ref} = spawn_monitor(?MODULE, connect, [Node]),
    _ = erlang:send_after(?ATTEMPT_MS, self(), {attempt_over, Node, Pid}),
    Peer#peer{attempt = {Pid, Ref}};
attempt(_Node, Peer, _Now) ->
    Peer.

%% @doc One attempt: ends with its answer as the reason.
-spec connect(node()) -> no_return().
connect(Node) ->
    exit({connected, net_kernel:connect_node(Node)}).

ended(Node, Peer, {connected, true}, #?MODULE{peers = Peers} = S) ->
    S#?MODULE{peers = Peers#{Node := Peer#peer{attempt = undefined, due_ms = later(0)}}};
ended(Node, #peer{failures = Failures} = Peer, _Why, #?MODULE{peers = Peers} = S) ->
    %% The kernel says no more than false: a wrong cookie is named in the other node's log only.
    Failures =:= 3 andalso ?LOG_NOTICE(#{what => no_connection_yet, peer => Node}, ?LOG_META),
    S#?MODULE{
        peers = Peers#{Node := Peer#peer{
            attempt = undefined, failures = Failures + 1, due_ms = later(Failures)
        }}
    }.

later(Failures) ->
    erlang:monotonic_time(millisecond) + wait_ms(Failures).

set_timer(Now, #?MODULE{timer = Old, peers = Peers} = S) ->
    _ = Old =:= undefined orelse erlang:cancel_timer(Old),
    case [Due || #peer{attempt = undefined, due_ms = Due} <- maps:values(Peers)] of
        [] -> S#?MODULE{timer = undefined};
        Dues -> S#?MODULE{timer = erlang:start_timer(max(1, lists:min(Dues) - Now), self(), due)}
    end.
