%% Sentences and tables, as a person would read them.
-module(baguette_text_tests).

-include_lib("eunit/include/eunit.hrl").

flat(Text) -> unicode:characters_to_list(Text).

a_bad_option_is_named_with_what_it_may_be_test() ->
    ?assertEqual(
        "steps is 0, but must be 1..250.",
        flat(baguette_text:error({bad_request, steps, 0, <<"1..250">>}))
    ).

facts_are_part_of_the_sentence_test() ->
    ?assertEqual(
        "No node holds an expert that is needed (expert 3, waited ms 800). See baguette:status().",
        flat(baguette_text:error({no_holder, #{expert => 3, waited_ms => 800}}))
    ).

any_reason_becomes_a_sentence_test_() ->
    [
        ?_assertMatch([_ | _], flat(baguette_text:error(Reason)))
     || Reason <- [
            {never_heard_of, #{why => {shutdown, [1, 2]}}},
            {cancelled, #{}},
            {cannot_write, #{path => "out/ü.png", why => enospc, id => <<"g1">>}},
            {bad_request, prompt, <<"ü"/utf8>>, <<"shorter">>},
            {bad_request, prompt, <<255>>, <<"text">>},
            #{what => [ever]},
            self()
        ]
    ].

%% Whatever class a worker's failure has: what happened, and what to do next.
every_failure_of_a_worker_has_its_own_sentence_test_() ->
    Facts = #{expert => 3, deaths => 3, why => died},
    Names = [
        expert_call_died, pipeline_died, device_lost, failure, not_finite, out_of_memory, bad_input,
        bad_weights, deadline, worker_not_started, python_not_started, generation_lost
    ],
    Unknown = flat(baguette_text:error({never_heard_of, Facts})),
    ?assertMatch("The generation failed: never heard of" ++ _, Unknown),
    [
        ?_assertMatch({Name, match}, {Name, re:run(
            flat(baguette_text:error({Name, Facts})),
            "^(?!The generation failed:).* \\(deaths 3, expert 3, why died\\)\\. .*\\.$",
            [{capture, none}]
        )})
     || Name <- Names
    ].

a_full_disk_is_told_with_where_the_picture_is_test() ->
    Sentence = flat(baguette_text:error(
        {cannot_write, #{path => "out/g1_1.png", why => enospc, id => <<"g1">>}}
    )),
    ?assertEqual(
        "out/g1_1.png cannot be written: no space left on device. Nothing is lost: "
        "baguette:result(<<\"g1\">>) has the picture while this node keeps it. Make room, or give "
        "another place with the option out_dir.",
        Sentence
    ).

a_step_says_whom_it_asks_test() ->
    Event = {step, #{step => 5, steps => 10, experts => [[3, 1], [3, 0]], asked => #{}}},
    ?assertEqual(
        "██████████░░░░░░░░░░ step 5/10  asking E0 E1 E3",
        flat(baguette_text:event(Event))
    ).

what_made_us_ask_somebody_else_is_told_test_() ->
    From = #{expert => 3, step => 4, from => 'baguette@127.0.0.4', to => 'baguette@127.0.0.5'},
    [
        ?_assertEqual(
            "E3: 127.0.0.4" ++ Told ++ ", asking 127.0.0.5",
            flat(baguette_text:event({failover, From#{why => Why}}))
        )
     || {Why, Told} <- [
            {died, "'s worker died"},
            {lost, " is gone, or the link to it"},
            {suspect, " has not been heard of for too long"},
            {late, " did not answer in time"},
            {not_held, " does not hold it now"},
            {unreachable, " cannot be reached"},
            {out_of_memory, " ran out of memory"},
            {failure, " could not compute it"},
            {not_finite, " computed something that is no number"},
            {something_new, " failed (something_new)"}
        ]
    ].

an_unknown_event_is_no_news_test() ->
    ?assertEqual(none, baguette_text:event({of_the_next_version, #{}})).

columns_are_as_wide_as_their_widest_cell_test() ->
    ?assertEqual(
        "A     B\n────  ──\nüñññ  x\n1     22\n",
        flat(baguette_text:table(["A", "B"], [["üñññ", <<"x">>], ["1", "22"]]))
    ).

status_shows_every_node_and_expert_test() ->
    Text = flat(baguette_text:status(status())),
    [
        ?assertMatch({match, _}, re:run(Text, Line, [unicode, multiline]), Line)
     || Line <- [
            "^Model toy$",
            "^127.0.0.2 \\(this\\)  - +-     -       2.1        expert-0 +-$",
            "^127.0.0.3         up +12.3  940     -  +expert-1 +40 ms$",
            "^E0 +127.0.0.2 +- +2 nodes$",
            "^E1 +- +127.0.0.3 +1 node$",
            "^127.0.0.4         down for 12 s",
            "^pipeline +ready +42 +2 times",
            "^abc +asking +3/9 +2 +1.5 s ago +4$",
            "^Lately, and more in baguette:events",
            "^!  2026-11-21 17:45:16.123  -           the expert worker died"
        ]
    ].

each_reason_to_wait_says_what_helps_test_() ->
    [
        ?_assertMatch({match, _}, re:run(flat(baguette_text:missing(Why)), Words))
     || {Why, Words} <- [
            {{loading, ['baguette@127.0.0.3'], 4100}, "loading on 127.0.0.3, about 4 s"},
            {{loading, ['baguette@127.0.0.3'], unknown}, "loading on 127.0.0.3$"},
            {{unreachable, ['baguette@127.0.0.3']}, "127.0.0.3 holds it, but .* its link up"},
            {{planned, ['baguette@127.0.0.3']}, "about to"},
            {{failed, ['baguette@127.0.0.3']}, "log"},
            {nobody_has_it_on_disk, "copy it"},
            {no_memory, "let another join"},
            {not_settled, "agreed"},
            {{late, 'baguette@127.0.0.3'}, "longer than usual"},
            {{busy, 'baguette@127.0.0.3'}, "127.0.0.3 has it and too much to do"},
            {something_new, "something_new"}
        ]
    ].

an_expert_on_no_disk_is_a_line_of_the_status_test() ->
    Text = flat(baguette_text:status((status())#{missing => [{2, nobody_has_it_on_disk}]})),
    Line = "^E2: nobody has it whole on its disk",
    ?assertMatch({match, _}, re:run(Text, Line, [multiline, unicode])).

status_without_a_model_says_so_test() ->
    Empty = #{nodes => [], components => #{}, experts => [], workers => [], generations => []},
    Text = flat(baguette_text:status(Empty#{model => {error, {not_ready, #{}}}})),
    ?assertMatch("No model: This node cannot draw yet" ++ _, Text).

status() ->
    #{
        model => {ok, #{name => <<"toy">>}},
        nodes => [
            #{node => 'baguette@127.0.0.2', self => true, link => up, gone => false, age_ms => 0,
                report => #{extra => #{call_us => 2100}}},
            #{node => 'baguette@127.0.0.3', self => false, link => up, gone => false, age_ms => 40,
                rtt_us => 12300, mbit => 940},
            #{node => 'baguette@127.0.0.4', self => false, link => down, gone => false}
        ],
        link_ms => #{'baguette@127.0.0.3' => 999000, 'baguette@127.0.0.4' => 12600},
        lately => [
            #{at_us => 1795283116123456, level => warning, what => worker_died, room => engine,
                facts => #{kind => expert, exit_status => 137}}
        ],
        components => #{
            <<"toy/expert-0">> => component(
                ['baguette@127.0.0.2'], [], ['baguette@127.0.0.2', 'baguette@127.0.0.3']
            ),
            <<"toy/expert-1">> => component([], ['baguette@127.0.0.3'], ['baguette@127.0.0.3'])
        },
        experts => [
            #{component => <<"toy/expert-0">>, expert => 0, holders => ['baguette@127.0.0.2']},
            #{component => <<"toy/expert-1">>, expert => 1, holders => []}
        ],
        workers => [#{kind => pipeline, state => ready, os_pid => 42, deaths => 2}],
        generations => [
            #{id => <<"abc">>, state => asking, step => 3, steps => 9, n => 2,
                started_ms_ago => 1500, failovers => 4}
        ]
    }.

component(Ready, Loading, OnDisk) ->
    #{size_mib => 4, ready => Ready, loading => Loading, on_disk => OnDisk, planned => []}.
