%% @doc The finder that needs no network: the list in the settings. For one machine, a LAN, tests.
-module(baguette_cluster_discovery_static).

-behaviour(baguette_cluster_discovery).

-export([find/1]).

-spec find(baguette_cluster_settings:settings()) ->
    {ok, [baguette_cluster_discovery:peer()]}.
find(#{peers := Peers}) ->
    {ok, [#{address => Address} || Address <- Peers]}.
