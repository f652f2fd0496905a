%% @doc What is known of the cluster, as a table that anybody here reads and only
%% baguette_cluster_gossip writes. The supervisor owns it, so it outlives its writer, which finds
%% itself again in it. Reading costs no call and meets no half-written state of one row.
-module(baguette_cluster_table).

%% Reading
-export([reports/0, bodies/0, hashes/0, links/0, holders/1, counted/1]).
%% The writer's own
-export([own/0, floors/0, watchers/0, put_watcher/1, drop_watcher/1, show/3]).
-export([start_counting/1, count/3]).

-define(TABLE, baguette_cluster_gossip).

-type seen() :: AdvancedMs :: integer() | self.
-type counted() :: #{
    messages_sent := non_neg_integer(),
    bytes_sent := non_neg_integer(),
    since_ms := non_neg_integer(),
    kinds := #{atom() => #{messages := non_neg_integer(), bytes := non_neg_integer()}}
}.

%% @doc All members' reports with the time of their last advance on our clock, ours first.
-spec reports() -> [{baguette_cluster_report:report(), seen()}].
reports() ->
    [{baguette_cluster_report:at(Id, R), At} || {_, R, Id, At, _} <- rows()].

%% @doc The same reports under older identities, perhaps, and the hashes of just these.
-spec bodies() -> {#{node() => non_neg_integer()}, [baguette_cluster_report:report()]}.
bodies() ->
    Rows = rows(),
    {maps:from_list([{N, H} || {N, _, _, _, H} <- Rows]), [R || {_, R, _, _, _} <- Rows]}.

rows() ->
    Found = ets:match(?TABLE, {{report, '$1'}, '$2', '$3', '$4', '$5'}),
    Rows = [list_to_tuple(Row) || Row <- Found],
    {Own, Others} = lists:partition(fun({_, _, _, At, _}) -> At =:= self end, Rows),
    Own ++ lists:sort(Others).

%% @doc What tells whether any of the reports has another body than before, for less than reading
%% them all.
-spec hashes() -> #{node() => non_neg_integer()}.
hashes() ->
    maps:from_list([{N, H} || [N, H] <- ets:match(?TABLE, {{report, '$1'}, '_', '_', '_', '$2'})]).

-spec links() -> #{node() => baguette_cluster_membership:link()}.
links() ->
    maps:from_list([{N, L} || [N, L] <- ets:match(?TABLE, {{link, '$1'}, '$2'})]).

-spec holders(baguette_cluster_component:component()) -> [baguette_cluster_holders:holder()].
holders(Component) ->
    case ets:lookup(?TABLE, {holders, Component}) of
        [{_, Holders}] -> Holders;
        [] -> []
    end.

%% @doc What the gossip cost so far, in all and by kind of message: how many were sent, their bytes
%% (before the runtime's cache of atoms), and over how many milliseconds.
-spec counted(integer()) -> counted().
counted(Now) ->
    Kinds = [{K, M, B} || [K, M, B] <- ets:match(?TABLE, {{sent, '$1'}, '$2', '$3'})],
    Since = case ets:lookup(?TABLE, counting) of
        [{counting, At}] -> At;
        [] -> Now
    end,
    #{
        messages_sent => lists:sum([M || {_, M, _} <- Kinds]),
        bytes_sent => lists:sum([B || {_, _, B} <- Kinds]),
        since_ms => Now - Since,
        kinds => maps:from_list([{K, #{messages => M, bytes => B}} || {K, M, B} <- Kinds])
    }.

-spec start_counting(integer()) -> ok.
start_counting(Now) ->
    _ = ets:insert_new(?TABLE, {counting, Now}),
    ok.

-spec count(atom(), non_neg_integer(), non_neg_integer()) -> ok.
count(Kind, Messages, BytesEach) ->
    Key = {sent, Kind},
    More = [{2, Messages}, {3, Messages * BytesEach}],
    _ = ets:update_counter(?TABLE, Key, More, {Key, 0, 0}),
    ok.

-spec own() -> {ok, baguette_cluster_report:report()} | none.
own() ->
    case ets:match(?TABLE, {{report, '_'}, '$1', '$2', self, '_'}) of
        [[Report, Id]] -> {ok, baguette_cluster_report:at(Id, Report)};
        [] -> none
    end.

-spec floors() -> [{node(), baguette_cluster_report:identity()}].
floors() ->
    [{N, Id} || [N, Id] <- ets:match(?TABLE, {{floor, '$1'}, '$2'})].

-spec watchers() -> [pid()].
watchers() ->
    [Pid || [Pid] <- ets:match(?TABLE, {{watcher, '$1'}})].

-spec put_watcher(pid()) -> ok.
put_watcher(Pid) ->
    true = ets:insert(?TABLE, {{watcher, Pid}}),
    ok.

-spec drop_watcher(pid()) -> ok.
drop_watcher(Pid) ->
    true = ets:delete(?TABLE, {watcher, Pid}),
    ok.

%% @doc Makes the table what the given state is.
-spec show(baguette_cluster_membership:state(),
    #{node() => baguette_cluster_membership:link()},
    #{baguette_cluster_component:component() => [baguette_cluster_holders:holder()]}) -> ok.
show(Members, Links, Holders) ->
    Floors = maps:to_list(baguette_cluster_membership:floors(Members)),
    ok = show_reports(Members),
    ok = rows(link, [{{link, N}, L} || {N, L} <- maps:to_list(Links)]),
    ok = rows(floor, [{{floor, N}, Id} || {N, Id} <- Floors]),
    rows(holders, [{{holders, C}, Hs} || {C, Hs} <- maps:to_list(Holders)]).

%% A body is large and seldom another: with every beat only who lives is written anew.
show_reports(Members) ->
    Before = hashes(),
    Hashes = baguette_cluster_membership:hashes(Members),
    lists:foreach(
        fun({R, At}) ->
            Node = baguette_cluster_report:node(R),
            Id = baguette_cluster_report:identity(R),
            case Hashes of
                #{Node := Hash} when map_get(Node, Before) =:= Hash ->
                    true = ets:update_element(?TABLE, {report, Node}, [{3, Id}, {4, At}]);
                #{Node := Hash} ->
                    true = ets:insert(?TABLE, {{report, Node}, R, Id, At, Hash})
            end
        end, baguette_cluster_membership:members(Members)),
    without(report, maps:keys(Before), Hashes).

%% New rows go in before old ones go out, so that no reader meets an empty table.
rows(Kind, Rows) ->
    true = ets:insert(?TABLE, Rows),
    Keep = maps:from_list([{element(2, element(1, Row)), keep} || Row <- Rows]),
    There = ets:select(?TABLE, [{{{Kind, '$1'}, '_'}, [], ['$1']}]),
    without(Kind, There, Keep).

without(Kind, There, Keep) ->
    [true = ets:delete(?TABLE, {Kind, Name}) || Name <- There, not is_map_key(Name, Keep)],
    ok.
