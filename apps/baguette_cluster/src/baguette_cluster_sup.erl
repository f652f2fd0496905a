%% @doc The room's processes and its tables. The supervisor owns the tables, so that what is known
%% of the cluster outlives a crash of the process that writes it, and readers never notice one.
%% When this dies, the node no longer knows who is there; the node ends (baguette_app).
-module(baguette_cluster_sup).

-behaviour(supervisor).

-export([start_link/1]).
-export([init/1]).

-spec start_link(baguette_cluster_settings:settings()) -> {ok, pid()} | {error, term()}.
start_link(Settings) ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, Settings).

-spec init(baguette_cluster_settings:settings()) ->
    {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(Settings) ->
    Tables = [
        baguette_cluster_gossip, baguette_cluster_holdings, baguette_cluster_discovery,
        baguette_cluster_connector, baguette_cluster_throughput
    ],
    [T = ets:new(T, [named_table, public, {read_concurrency, true}]) || T <- Tables],
    %% One for one: each process finds in its table what it needs to go on, and none keeps a pid
    %% of another. The order counts at start: who acts on the plan has to know whom to expect.
    {ok, {#{strategy => one_for_one, intensity => 5, period => 10}, [
        child(baguette_cluster_gossip, Settings),
        child(baguette_cluster_discovery, Settings),
        child(baguette_cluster_connector, Settings),
        child(baguette_cluster_throughput, Settings),
        child(baguette_cluster_holdings, Settings)
    ]}}.

child(Module, Settings) ->
    #{id => Module, start => {Module, start_link, [Settings]}}.
