%% @doc Who sees whom: every node's own links, gathered from those that can be asked. Called by
%% baguette_cluster; the caller waits, at most as long as the slowest peer may take.
-module(baguette_cluster_links).

-export([own/0, all/0, patience_ms/1]).
-export_type([row/0]).

-type row() :: #{
    from := node(),
    to := node(),
    state := up | suspect | down,
    rtt_us := non_neg_integer(),    % 0: not measured yet
    mbit := non_neg_integer(),
    path := direct | relayed | unknown
}.

%% A peer is waited for as long as several of its round trips take, within these bounds.
-define(TRIPS, 4).
-define(LEAST_MS, 500).
-define(MOST_MS, 5000).

%% @doc This node's links to the other members.
-spec own() -> [row()].
own() ->
    [
        (maps:with([rtt_us, mbit, path], Info))#{from => node(), to => Node, state => Link}
     || #{node := Node, link := Link, self := false} = Info <- baguette_cluster:nodes()
    ].

%% @doc Everybody's; who does not answer in time, or runs a version that cannot, is left out.
-spec all() -> [row()].
all() ->
    Own = own(),
    Peers = [Node || #{to := Node, state := up} <- Own],
    Own ++ baguette_cluster_remote_v1:links(Peers, patience_ms(Own)).

%% @doc How long the peers have to answer.
-spec patience_ms([row()]) -> pos_integer().
patience_ms(Own) ->
    Farthest = lists:max([0 | [Us || #{rtt_us := Us, state := up} <- Own]]),
    min(?MOST_MS, max(?LEAST_MS, ?TRIPS * Farthest div 1000)).
