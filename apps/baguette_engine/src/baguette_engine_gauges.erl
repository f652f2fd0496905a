%% @doc What this node knows of its device, as metrics: pure; beside what baguette_engine_metrics
%% counts. What is not known has no sample. The round trips of links are the web room's to tell.
-module(baguette_engine_gauges).

-export([device/1]).

-define(MIB, 1048576).

-type metric() :: baguette_engine_metrics:metric().

%% @doc Of the device that experts compute on.
-spec device(baguette_engine_facts:device()) -> [metric()].
device(Device) ->
    [
        gauge(Name, Help, [{[], N * Unit} || N <- [maps:get(Key, Device)], is_number(N)])
     || {Name, Key, Unit, Help} <- [
            {<<"device_memory_bytes">>, memory_mib, ?MIB, <<"Memory where experts compute">>},
            {<<"device_memory_used_bytes">>, used_mib, ?MIB, <<"Of that, used by anybody">>},
            {<<"device_utilisation_ratio">>, utilisation, 1, <<"How busy the GPU is, 0 to 1">>},
            {<<"device_temperature_celsius">>, temperature_c, 1, <<"Temperature of the GPU">>},
            {<<"device_power_watts">>, power_w, 1, <<"Power that the GPU draws">>}
        ]
    ].

gauge(Name, Help, Samples) ->
    #{name => Name, type => gauge, help => Help, samples => Samples}.
