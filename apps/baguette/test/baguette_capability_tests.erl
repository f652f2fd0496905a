%% The box's look is held by golden files: whoever changes it on purpose writes them anew.
-module(baguette_capability_tests).

-include_lib("eunit/include/eunit.hrl").

card_facts() ->
    #{
        hardware => #{
            gpu => <<"NVIDIA RTX 4090">>, vram_mib => 24564, driver => <<"580.95">>,
            cpu => <<"AMD Ryzen 9 7950X">>, cores => 16, ram_mib => 64210
        },
        speed => #{
            device => <<"cuda">>, matmul_gflops => 146800, cpu_gflops => 2100,
            memory_mib_s => 61000, call_us => #{1 => 9120, 4 => 21800, 16 => 77300}
        },
        memory => #{expert_peak_mib => 2710, pipeline_peak_mib => 1240},
        peers => [
            #{node => <<"100.64.0.2">>, rtt_us => 11800, mbit => 940, path => direct},
            #{node => <<"100.64.0.3">>, rtt_us => 850, mbit => 1020, path => direct},
            #{node => <<"100.64.0.4">>, rtt_us => 45200, mbit => 0, path => relayed}
        ],
        holds => ["E0"],
        status => "READY"
    }.

bare_facts() ->
    #{peers => [], holds => [], status => "starting"}.

a_gpu_machine_looks_as_on_the_card_test() ->
    golden("capability.txt", baguette_capability:box(card_facts())).

what_is_not_known_yet_is_said_test() ->
    golden("capability_bare.txt", baguette_capability:box(bare_facts())).

a_machine_without_a_gpu_test() ->
    Hardware = maps:get(hardware, card_facts()),
    Cpu = (card_facts())#{hardware := Hardware#{gpu := none, vram_mib := 0}},
    Text = unicode:characters_to_list(baguette_capability:box(Cpu)),
    ?assertMatch({match, _}, re:run(Text, "GPU: none", [unicode])),
    ?assertEqual(nomatch, re:run(Text, "GPU Compute", [unicode])).

every_line_is_as_wide_as_the_others_test() ->
    Long = (card_facts())#{holds := ["E" ++ integer_to_list(E) || E <- lists:seq(0, 63)]},
    Lines = string:lexemes(unicode:characters_to_list(baguette_capability:box(Long)), "\n"),
    ?assertEqual(1, length(lists:usort([string:length(Line) || Line <- Lines]))),
    ?assert(string:length(hd(Lines)) =< 80).

golden(Name, Text) ->
    Dir = filename:join([filename:dirname(?FILE), "golden"]),
    {ok, Expected} = file:read_file(filename:join(Dir, Name)),
    ?assertEqual(Expected, unicode:characters_to_binary(Text)).
