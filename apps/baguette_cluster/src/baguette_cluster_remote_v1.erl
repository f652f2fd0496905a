%% @doc Every message of this room that crosses nodes, and the check of what comes in. Once released
%% a line here never changes; a new need is a new version beside it. Sends never connect and never
%% wait: a peer that does not read misses a beat, and that is what beats are for.
%% Version 1: report, pong, table, goodbye, stale. The protocol is told in baguette_cluster_gossip.
-module(baguette_cluster_remote_v1).

-export([report/3, pong/2, table/3, goodbye/2, stale/2]).
-export([read/2]).
-export_type([envelope/0, message/0]).

-type envelope() :: {baguette_cluster_v1, From :: node(), message()}.
-type message() ::
    {report, baguette_cluster_report:report(), Token :: integer()}
    | {pong, Token :: integer()}
    | {table, [baguette_cluster_report:report()], Goodbyes :: [{node(), pos_integer()}]}
    | {goodbye, Incarnation :: pos_integer()}
    | {stale, baguette_cluster_report:identity()}.

-define(IS_SANE(N), is_integer(N), abs(N) < 1 bsl 63).

-spec report(node(), baguette_cluster_report:report(), integer()) -> ok.
report(Node, Report, Token) -> send(Node, {report, Report, Token}).

-spec pong(node(), integer()) -> ok.
pong(Node, Token) -> send(Node, {pong, Token}).

-spec table(node(), [baguette_cluster_report:report()], [{node(), pos_integer()}]) -> ok.
table(Node, Reports, Goodbyes) -> send(Node, {table, Reports, Goodbyes}).

-spec goodbye(node(), pos_integer()) -> ok.
goodbye(Node, Incarnation) -> send(Node, {goodbye, Incarnation}).

-spec stale(node(), baguette_cluster_report:identity()) -> ok.
stale(Node, Id) -> send(Node, {stale, Id}).

send(Node, Message) ->
    To = {baguette_cluster_gossip, Node},
    _ = erlang:send(To, {baguette_cluster_v1, node(), Message}, [noconnect, nosuspend]),
    ok.

%% @doc A message from a peer, only if it is one of the above and of bearable size. Of a table the
%% good entries are kept: one node that says nonsense must not silence those it is listed with.
-spec read(term(), MaxPeers :: pos_integer()) -> {ok, message()} | unknown.
read({report, Term, Token}, _Max) when ?IS_SANE(Token) ->
    case checked(Term) of
        [Report] -> {ok, {report, Report, Token}};
        [] -> unknown
    end;
read({pong, Token} = Message, _Max) when ?IS_SANE(Token) ->
    {ok, Message};
read({table, Terms, Goodbyes}, Max) when length(Terms) =< 4 * Max, length(Goodbyes) =< 8 * Max ->
    {ok, {table, lists:append([checked(T) || T <- Terms]), [G || G <- Goodbyes, is_goodbye(G)]}};
read({goodbye, Incarnation} = Message, _Max) when ?IS_SANE(Incarnation) ->
    {ok, Message};
read({stale, {Incarnation, Counter}} = Message, _Max) when
    ?IS_SANE(Incarnation), is_integer(Counter) orelse Counter =:= gone
->
    {ok, Message};
read(_, _Max) ->
    unknown.

checked(Term) ->
    case baguette_cluster_report:check(Term) of
        {ok, Report} ->
            Node = baguette_cluster_report:node(Report),
            [Report || baguette_cluster_node_name:is_member_name(Node)];
        {error, Field} ->
            ok = baguette_cluster_stranger:drop(?MODULE, {bad_report, Field}),
            []
    end.

is_goodbye({Node, Incarnation}) when ?IS_SANE(Incarnation) ->
    baguette_cluster_node_name:is_member_name(Node);
is_goodbye(_) ->
    false.
