%% @doc The engine's experts as components the cluster can place.
%%
%% baguette_cluster calls it through its setting `component_module'; arrows point one way.
-module(baguette_engine_component).
-behaviour(baguette_cluster_component).

-export([inventory/0, memory_mib/0, hold/1]).

%% Text encoder, router and VAE of a node that serves requests live beside its experts; on a GPU the
%% device's context and the memory of a call do.
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
        undefined -> left_mib(baguette_engine_model:get());
        Mib -> Mib
    end.

%% What the worker found free where experts compute: VRAM on a GPU, else RAM.
left_mib({ok, #{memory_mib := Free}}) -> max(0, Free - ?PIPELINE_SHARE_MIB);
left_mib({error, _}) -> 0.

%% @doc Hold exactly these.
-spec hold([binary()]) -> ok.
hold(Components) ->
    baguette_engine_expert:hold(Components).
