%% @doc Every message of this room that crosses nodes, and the check of what comes in. Once released
%% a line here never changes; a new need is a new version beside it. Sends never connect and never
%% wait: a peer that does not read misses a beat, and that is what beats are for.
%% Who asks waits, so long as it says itself (links).
%% Version 1, to baguette_cluster_gossip: beat, report, pong, digest, pull, reports, goodbye, stale
%% (told in baguette_cluster_exchange); to baguette_cluster_throughput: train, trained.
-module(baguette_cluster_remote_v1).

-export([send/2, send_train/2]).
-export([read/2, read_train/1]).
-export([train_bytes/0]).
-export([links/2]).
%% Runs on the node that is asked
-export([own_links/0]).
-export_type([envelope/0, message/0, train_message/0]).

-type envelope() :: {baguette_cluster_v1, From :: node(), message() | train_message()}.
-type message() ::
    {beat, baguette_cluster_report:identity(), BodyHash :: non_neg_integer(), Token :: integer()}
    | {report, baguette_cluster_report:report(), Token :: integer()}
    | {pong, Token :: integer()}
    | {digest, [baguette_cluster_membership:hint()], Goodbyes :: [{node(), pos_integer()}]}
    | {pull, [node()]}
    | {reports, [baguette_cluster_report:report()]}
    | {goodbye, Incarnation :: pos_integer()}
    | {stale, baguette_cluster_report:identity()}.
%% Packets of one size in a row, and what their receiver measured: bytes after the first packet,
%% and the time from the first arrival to the last.
-type train_message() ::
    {train, Serial :: integer(), Index :: pos_integer(), Count :: pos_integer(), binary()}
    | {trained, Serial :: integer(), Bytes :: pos_integer(), Us :: non_neg_integer()}.

-define(TRAIN_BYTES, 65536).
-define(MAX_TRAIN, 16).
-define(IS_SANE(N), is_integer(N), abs(N) < 1 bsl 63).

%% @doc The size of one packet of a train.
-spec train_bytes() -> pos_integer().
train_bytes() -> ?TRAIN_BYTES.

%% @doc Returns the bytes of one such message, before the runtime's cache of atoms makes it smaller.
-spec send([node()], message()) -> pos_integer().
send(Nodes, Message) ->
    Envelope = {baguette_cluster_v1, node(), Message},
    _ = [give({baguette_cluster_gossip, N}, Envelope) || N <- Nodes],
    erlang:external_size(Envelope).

%% @doc Says whether it was taken: a link whose buffer is full is not for measuring now.
-spec send_train(node(), train_message()) -> ok | nosuspend | noconnect.
send_train(Node, Message) ->
    give({baguette_cluster_throughput, Node}, {baguette_cluster_v1, node(), Message}).

give(To, Envelope) ->
    erlang:send(To, Envelope, [noconnect, nosuspend]).

%% @doc The links of these nodes, as each sees its own; who does not answer in time is left out.
-spec links([node()], Ms :: pos_integer()) -> [baguette_cluster_links:row()].
links(Nodes, Ms) ->
    Answers = erpc:multicall(Nodes, ?MODULE, own_links, [], Ms),
    lists:append([Rows || {ok, Rows} <- Answers]).

-spec own_links() -> [baguette_cluster_links:row()].
own_links() ->
    baguette_cluster_links:own().

%% @doc A message from a peer, only if it is one of the above and of bearable size. Of lists the
%% good entries are kept: one node that says nonsense must not silence those it is listed with.
-spec read(term(), MaxPeers :: pos_integer()) -> {ok, message()} | unknown.
read({beat, Id, Hash, Token} = Message, _Max) when ?IS_SANE(Token) ->
    ok_if(is_identity(Id) andalso is_hash(Hash), Message);
read({report, Term, Token}, _Max) when ?IS_SANE(Token) ->
    case checked(Term) of
        [Report] -> {ok, {report, Report, Token}};
        [] -> unknown
    end;
read({pong, Token} = Message, _Max) when ?IS_SANE(Token) ->
    {ok, Message};
read({digest, Hints, Goodbyes}, Max) when length(Hints) =< 4 * Max, length(Goodbyes) =< 8 * Max ->
    {ok, {digest, [H || H <- Hints, is_hint(H)], [G || G <- Goodbyes, is_goodbye(G)]}};
read({pull, Nodes}, Max) when length(Nodes) =< 4 * Max ->
    {ok, {pull, [N || N <- Nodes, baguette_cluster_node_name:is_member_name(N)]}};
read({reports, Terms}, Max) when length(Terms) =< 4 * Max ->
    {ok, {reports, lists:append([checked(T) || T <- Terms])}};
read({goodbye, Incarnation} = Message, _Max) when ?IS_SANE(Incarnation) ->
    {ok, Message};
read({stale, {Incarnation, Counter}} = Message, _Max) when
    ?IS_SANE(Incarnation), is_integer(Counter) orelse Counter =:= gone
->
    {ok, Message};
read(_, _Max) ->
    unknown.

%% @doc The same for what concerns throughput.
-spec read_train(term()) -> {ok, train_message()} | unknown.
read_train({train, Serial, Index, Count, Packet} = Message) when
    ?IS_SANE(Serial), is_integer(Count), Count =< ?MAX_TRAIN,
    is_integer(Index), Index >= 1, Index =< Count, byte_size(Packet) =:= ?TRAIN_BYTES
->
    {ok, Message};
read_train({trained, Serial, Bytes, Us} = Message) when
    ?IS_SANE(Serial), is_integer(Bytes), Bytes > 0, Bytes =< ?MAX_TRAIN * ?TRAIN_BYTES,
    ?IS_SANE(Us), Us >= 0
->
    {ok, Message};
read_train(_) ->
    unknown.

ok_if(true, Message) -> {ok, Message};
ok_if(false, _Message) -> unknown.

checked(Term) ->
    case baguette_cluster_report:check(Term) of
        {ok, Report} ->
            Node = baguette_cluster_report:node(Report),
            [Report || baguette_cluster_node_name:is_member_name(Node)];
        {error, Field} ->
            ok = baguette_cluster_stranger:drop(?MODULE, {bad_report, Field}),
            []
    end.

is_hint({Node, Id, Hash}) ->
    is_identity(Id) andalso is_hash(Hash) andalso baguette_cluster_node_name:is_member_name(Node);
is_hint(_) ->
    false.

is_identity({Incarnation, Counter}) when
    ?IS_SANE(Incarnation), Incarnation > 0, ?IS_SANE(Counter), Counter >= 0
-> true;
is_identity(_) -> false.

is_hash(Hash) -> is_integer(Hash) andalso Hash >= 0 andalso Hash < 1 bsl 32.

is_goodbye({Node, Incarnation}) when ?IS_SANE(Incarnation) ->
    baguette_cluster_node_name:is_member_name(Node);
is_goodbye(_) ->
    false.
