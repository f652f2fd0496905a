%% @doc The engine's experts as components the cluster can place.
%%
%% baguette_cluster calls it through its setting `component_module'; arrows point one way.
-module(baguette_engine_component).
-behaviour(baguette_cluster_component).

-export([inventory/0, memory_mib/0, hold/1]).

%% Text encoder, router and VAE of a node that serves requests live beside its experts.
-define(PIPELINE_SHARE_MIB, 1024).

%% @doc The components on this node's disk; an error while its worker has not read the directory.
-spec inventory() -> {ok, [baguette_engine_model:component()]} | {error, term()}.
inventory() ->
    case baguette_engine_model:get() of
        {ok, #{on_disk := OnDisk}} -> {ok, OnDisk};
        {error, _} = Error -> Error
    end.

%% @doc Memory for components, after the pipeline worker's share.
-spec memory_mib() -> non_neg_integer().
memory_mib() ->
    case baguette_engine_settings:get(memory_mib) of
        undefined -> max(0, available_mib() - ?PIPELINE_SHARE_MIB);
        Mib -> Mib
    end.

%% @doc Hold exactly these.
-spec hold([binary()]) -> ok.
hold(Components) ->
    baguette_engine_expert:hold(Components).

available_mib() ->
    {ok, Text} = file:read_file("/proc/meminfo"),
    {match, [Kib]} = re:run(Text, "MemAvailable:\\s+(\\d+) kB", [{capture, [1], list}]),
    list_to_integer(Kib) div 1024.
