%% @doc What is known of the cluster, as a table that anybody here reads and only
%% baguette_cluster_gossip writes. The supervisor owns it, so it outlives its writer, which finds
%% itself again in it. Reading costs no call and meets no half-written state of one row.
-module(baguette_cluster_table).

%% Reading
-export([reports/0, links/0, holders/1]).
%% The writer's own
-export([own/0, floors/0, watchers/0, put_report/2, put_watcher/1, drop_watcher/1, show/2]).

-define(TABLE, baguette_cluster_gossip).

-type seen() :: AdvancedMs :: integer() | self.

%% @doc All members' reports with the time of their last advance on our clock, ours first.
-spec reports() -> [{baguette_cluster_report:report(), seen()}].
reports() ->
    Rows = ets:match(?TABLE, {{report, '$1'}, '$2', '$3'}),
    {Own, Others} = lists:partition(fun([_, _, At]) -> At =:= self end, Rows),
    [{R, At} || [_, R, At] <- Own ++ lists:sort(Others)].

-spec links() -> #{node() => baguette_cluster_membership:link()}.
links() ->
    maps:from_list([{N, L} || [N, L] <- ets:match(?TABLE, {{link, '$1'}, '$2'})]).

-spec holders(baguette_cluster_component:component()) -> [baguette_cluster_holders:holder()].
holders(Component) ->
    case ets:lookup(?TABLE, {holders, Component}) of
        [{_, Holders}] -> Holders;
        [] -> []
    end.

-spec own() -> {ok, baguette_cluster_report:report()} | none.
own() ->
    case ets:match(?TABLE, {{report, '_'}, '$1', self}) of
        [[Report]] -> {ok, Report};
        [] -> none
    end.

-spec floors() -> [{node(), baguette_cluster_report:identity()}].
floors() ->
    [{N, Id} || [N, Id] <- ets:match(?TABLE, {{floor, '$1'}, '$2'})].

-spec watchers() -> [pid()].
watchers() ->
    [Pid || [Pid] <- ets:match(?TABLE, {{watcher, '$1'}})].

-spec put_report(baguette_cluster_report:report(), seen()) -> ok.
put_report(Report, At) ->
    true = ets:insert(?TABLE, {{report, baguette_cluster_report:node(Report)}, Report, At}),
    ok.

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
    #{baguette_cluster_component:component() => [baguette_cluster_holders:holder()]}) -> ok.
show(Members, Holders) ->
    Reports = baguette_cluster_membership:members(Members),
    Links = maps:to_list(baguette_cluster_membership:links(Members)),
    Floors = maps:to_list(baguette_cluster_membership:floors(Members)),
    ok = rows(report, [{{report, baguette_cluster_report:node(R)}, R, At} || {R, At} <- Reports]),
    ok = rows(link, [{{link, N}, L} || {N, L} <- Links]),
    ok = rows(floor, [{{floor, N}, Id} || {N, Id} <- Floors]),
    rows(holders, [{{holders, C}, Hs} || {C, Hs} <- maps:to_list(Holders)]).

%% New rows go in before old ones go out, so that no reader meets an empty table.
rows(Kind, Rows) ->
    true = ets:insert(?TABLE, Rows),
    Keep = maps:from_list([{element(2, element(1, Row)), keep} || Row <- Rows]),
    There = ets:select(?TABLE, [
        {{{Kind, '$1'}, '_'}, [], ['$1']},
        {{{Kind, '$1'}, '_', '_'}, [], ['$1']}
    ]),
    [true = ets:delete(?TABLE, {Kind, Name}) || Name <- There, not is_map_key(Name, Keep)],
    ok.
