%% @doc What workers answer, as the facts of a report.
-module(baguette_engine_facts_tests).

-include_lib("eunit/include/eunit.hrl").

hardware() ->
    #{
        <<"cpu">> => <<"A CPU">>, <<"cores">> => 4, <<"ram_mib">> => 8000, <<"gpu">> => nil,
        <<"vram_mib">> => 0, <<"driver">> => nil, <<"no_gpu">> => <<"no driver">>
    }.

hardware_without_a_gpu_says_none_test() ->
    Machine = #{
        <<"hardware">> => hardware(), <<"device">> => <<"cpu">>, <<"figures">> => #{},
        <<"memory_mib">> => 7000
    },
    Expected = #{hardware => #{
        cpu => <<"A CPU">>, cores => 4, ram_mib => 8000, gpu => none, vram_mib => 0, driver => none
    }},
    ?assertEqual(Expected, baguette_engine_facts:machine(Machine)).

kept_figures_are_told_at_once_test() ->
    Machine = #{
        <<"hardware">> => (hardware())#{<<"gpu">> => <<"A GPU">>}, <<"device">> => <<"cuda">>,
        <<"figures">> => #{<<"matmul_gflops">> => 100000, <<"cpu_gflops">> => 90}
    },
    ?assertMatch(
        #{
            hardware := #{gpu := <<"A GPU">>},
            speed := #{device := <<"cuda">>, matmul_gflops := 100000, call_us := Calls}
        } when map_size(Calls) =:= 0,
        baguette_engine_facts:machine(Machine)
    ).

speed_counts_batches_in_integers_test() ->
    Speed = #{
        <<"device">> => <<"cpu">>, <<"matmul_gflops">> => 90, <<"cpu_gflops">> => 90,
        <<"memory_mib_s">> => 20000, <<"call_us">> => #{<<"1">> => 2700, <<"16">> => 20000},
        <<"skipped">> => [4], <<"rows_equal">> => [2, 4]
    },
    Expected = #{
        device => <<"cpu">>, matmul_gflops => 90, cpu_gflops => 90, memory_mib_s => 20000,
        call_us => #{1 => 2700, 16 => 20000}, skipped => [4], rows_equal => [2, 4]
    },
    ?assertEqual(Expected, baguette_engine_facts:speed(Speed)).

stats(Rss, Vram) ->
    #{
        <<"rss_mib">> => Rss, <<"rss_peak_mib">> => Rss + 1, <<"vram_mib">> => Vram,
        <<"vram_peak_mib">> => Vram * 2, <<"ram_free_mib">> => 500, <<"vram_free_mib">> => 7
    }.

memory_is_that_of_the_device_experts_compute_on_test() ->
    Both = #{
        pipeline_mib => 900, pipeline_peak_mib => 901, ram_free_mib => 500, vram_free_mib => 7
    },
    ?assertEqual(
        Both#{expert_mib => 300, expert_peak_mib => 301},
        baguette_engine_facts:memory(<<"cpu">>, stats(300, 0), stats(900, 0))
    ),
    ?assertEqual(
        Both#{expert_mib => 40, expert_peak_mib => 80},
        baguette_engine_facts:memory(<<"cuda">>, stats(300, 40), stats(900, 0))
    ).

a_pipeline_worker_that_does_not_run_takes_nothing_test() ->
    ?assertMatch(
        #{pipeline_mib := 0, pipeline_peak_mib := 0},
        baguette_engine_facts:memory(<<"cpu">>, stats(1, 0), none)
    ).

device(Changes) ->
    Now = #{
        <<"name">> => <<"A GPU">>, <<"memory_mib">> => 10000, <<"used_mib">> => 5000,
        <<"utilisation">> => 0.5, <<"temperature_c">> => 60, <<"power_w">> => nil
    },
    baguette_engine_facts:device(#{<<"device_now">> => maps:merge(Now, Changes)}).

what_a_device_does_not_say_is_undefined_test() ->
    ?assertEqual(
        #{
            name => <<"A GPU">>, memory_mib => 10000, used_mib => 5000, utilisation => 0.5,
            temperature_c => 60, power_w => undefined
        },
        device(#{})
    ).

a_device_is_told_again_when_it_is_clearly_another_test_() ->
    Changed = fun(Key, Value) ->
        baguette_engine_facts:has_changed(device(#{}), device(#{Key => Value}))
    end,
    [
        ?_assert(baguette_engine_facts:has_changed(baguette_engine_facts:no_device(), device(#{}))),
        ?_assertNot(baguette_engine_facts:has_changed(device(#{}), device(#{}))),
        ?_assertNot(Changed(<<"used_mib">>, 5100)),
        ?_assert(Changed(<<"used_mib">>, 5200)),
        ?_assertNot(Changed(<<"utilisation">>, 0.55)),
        ?_assert(Changed(<<"utilisation">>, 0.7)),
        ?_assert(Changed(<<"utilisation">>, nil)),
        ?_assert(Changed(<<"temperature_c">>, 62)),
        ?_assert(Changed(<<"power_w">>, 41.5)),
        ?_assert(Changed(<<"name">>, <<"Another">>))
    ].

a_time_is_told_again_when_it_is_clearly_another_test_() ->
    Differs = fun baguette_engine_facts:differs/2,
    [
        ?_assert(Differs(undefined, 5)),
        ?_assertNot(Differs(undefined, 0)),
        ?_assertNot(Differs(1000, 0)),
        ?_assertNot(Differs(1000, 1600)),
        ?_assert(Differs(1000, 1601)),
        ?_assertNot(Differs(1000, 880)),
        ?_assert(Differs(1000, 879))
    ].
