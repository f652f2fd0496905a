%% @doc What a worker measured, as the facts of this node's report. Pure; called by
%% baguette_engine_probes and baguette_engine_expert. docs/internals/probes.md lists the facts;
%% integers only, so that every node computes the same from them.
-module(baguette_engine_facts).

-export([keys/0, machine/1, speed/1, memory/3, differs/2]).
-export([device/1, no_device/0, has_changed/2]).

-export_type([facts/0, device/0]).

-type facts() :: #{atom() => integer() | map()}.
%% What experts of a node compute on, and how it is; on a CPU the memory is the machine's.
-type device() :: #{
    name := binary() | undefined,
    memory_mib := non_neg_integer() | undefined,
    used_mib := non_neg_integer() | undefined,
    utilisation := float() | undefined, % 0..1
    temperature_c := integer() | undefined,
    power_w := float() | undefined
}.
-type answer() :: #{binary() => baguette_engine_msgpack:value()}.

%% A published time stands until a new one is so much faster, or so much slower. Calls of a picture
%% find caches and cores cold that a probe had warmed; that is no slower machine.
-define(FASTER_PERCENT, 12).
-define(SLOWER_PERCENT, 60).

%% @doc Every fact the engine publishes.
-spec keys() -> [atom()].
keys() -> [call_us, load_us_per_mib, hardware, speed, memory, queue, drawing, device_now].

%% @doc From `machine': what the hardware is and, where it was kept, how fast.
-spec machine(answer()) -> facts().
machine(#{<<"hardware">> := Hardware, <<"device">> := Device, <<"figures">> := Figures}) ->
    #{
        <<"cpu">> := Cpu, <<"cores">> := Cores, <<"ram_mib">> := Ram, <<"gpu">> := Gpu,
        <<"vram_mib">> := Vram, <<"driver">> := Driver
    } = Hardware,
    Facts = #{hardware => #{
        cpu => Cpu, cores => Cores, ram_mib => Ram, gpu => text(Gpu), vram_mib => Vram,
        driver => text(Driver)
    }},
    case map_size(Figures) of
        0 -> Facts;
        _ -> Facts#{speed => speed(Figures#{<<"device">> => Device})}
    end.

text(nil) -> none;
text(Text) -> Text.

%% @doc From `explore': what is known so far; what is not is left out.
-spec speed(answer()) -> map().
speed(#{<<"device">> := Device} = Speed) ->
    Rates = [
        {Key, Value}
     || {Name, Key} <- [
            {<<"matmul_gflops">>, matmul_gflops},
            {<<"cpu_gflops">>, cpu_gflops},
            {<<"memory_mib_s">>, memory_mib_s}
        ],
        #{Name := Value} <- [Speed]
    ],
    (maps:from_list(Rates))#{
        device => Device,
        call_us => by_batch(maps:get(<<"call_us">>, Speed, #{})),
        skipped => maps:get(<<"skipped">>, Speed, []),
        rows_equal => maps:get(<<"rows_equal">>, Speed, [])
    }.

by_batch(Times) ->
    maps:from_list([{binary_to_integer(Batch), Us} || {Batch, Us} <- maps:to_list(Times)]).

%% @doc From both workers' `stats'; `none' where no pipeline worker runs. On a GPU an expert
%% worker's memory is the GPU's.
-spec memory(Device :: binary(), Expert :: answer(), Pipeline :: answer() | none) -> map().
memory(Device, Expert, Pipeline) ->
    {Mib, Peak} = used(Device, Expert),
    {PipelineMib, PipelinePeak} = used(Device, Pipeline),
    #{<<"ram_free_mib">> := Ram, <<"vram_free_mib">> := Vram} = Expert,
    #{
        expert_mib => Mib,
        expert_peak_mib => Peak,
        pipeline_mib => PipelineMib,
        pipeline_peak_mib => PipelinePeak,
        ram_free_mib => Ram,
        vram_free_mib => Vram
    }.

used(_Device, none) -> {0, 0};
used(<<"cuda">>, #{<<"vram_mib">> := Mib, <<"vram_peak_mib">> := Peak}) when Peak > 0 ->
    {Mib, Peak};
used(_Device, #{<<"rss_mib">> := Mib, <<"rss_peak_mib">> := Peak}) -> {Mib, Peak}.

%% @doc From an expert worker's `stats'.
-spec device(answer()) -> device().
device(#{<<"device_now">> := Now}) ->
    maps:map(fun(Key, undefined) -> known(maps:get(atom_to_binary(Key), Now)) end, no_device()).

known(nil) -> undefined;
known(Value) -> Value.

%% @doc Nothing is known yet.
-spec no_device() -> device().
no_device() ->
    #{
        name => undefined, memory_mib => undefined, used_mib => undefined,
        utilisation => undefined, temperature_c => undefined, power_w => undefined
    }.

%% @doc Whether a device is so different now that others should be told: gossip is not for noise.
-spec has_changed(Told :: device(), Now :: device()) -> boolean().
has_changed(Told, #{memory_mib := Mib} = Now) ->
    Least = #{
        name => 0, memory_mib => 1, used_mib => known_or(0, Mib) / 50, utilisation => 0.1,
        temperature_c => 2, power_w => 5
    },
    Differs = fun(Key) ->
        differs_by(maps:get(Key, Least), maps:get(Key, Told), maps:get(Key, Now))
    end,
    lists:any(Differs, maps:keys(Least)).

known_or(Default, undefined) -> Default;
known_or(_Default, Value) -> Value.

differs_by(Least, Old, New) when is_number(Old), is_number(New) -> abs(New - Old) >= Least;
differs_by(_Least, Old, New) -> Old =/= New.

%% @doc Whether a measured time is worth telling, given the one that is published.
-spec differs(Published :: integer() | undefined, Measured :: non_neg_integer()) -> boolean().
differs(_, 0) -> false;
differs(undefined, _) -> true;
differs(Published, Measured) ->
    100 * (Published - Measured) > ?FASTER_PERCENT * Published orelse
        100 * (Measured - Published) > ?SLOWER_PERCENT * Published.
