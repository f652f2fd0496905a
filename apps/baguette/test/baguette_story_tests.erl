%% Every event as a person reads it. What our rooms log and is missing here has no sentence yet.
-module(baguette_story_tests).

-include_lib("eunit/include/eunit.hrl").

-define(A, 'baguette@127.0.0.2').
-define(B, 'baguette@127.0.0.3').
-define(ID, <<"0123456789abcdef">>).

golden() ->
    generation() ++ engine() ++ components() ++ cluster() ++ over_http() ++ node_itself().

generation() ->
    [
        {generation_began, #{n => 1, steps => 9}, "the generation began (n 1, steps 9)"},
        {generation_done, #{}, "the generation is done"},
        {generation_done, #{seconds => 0.806, asked => 84, who => #{?A => 60, ?B => 24}},
            "the generation is done in 0.8 s, after 84 expert calls "
            "(who 127.0.0.2 60; 127.0.0.3 24)"},
        {generation_cancelled, #{}, "the generation was cancelled"},
        {generation_failed, #{reason => {no_holder, #{expert => 3}}},
            "the generation failed: No node holds an expert that is needed (expert 3). "
            "See baguette:status()."},
        {failover, #{expert => 3, step => 4, from => ?A, to => ?B, why => died, at_us => 77},
            "E3: 127.0.0.2's worker died, asking 127.0.0.3, in step 5"},
        {failover, #{expert => 3, step => 4, from => ?A, to => undefined, why => late},
            "E3: 127.0.0.2 did not answer in time, nobody else can be asked now, in step 5"},
        {hedge, #{expert => 0, step => 0, from => ?A, to => ?B},
            "E0: 127.0.0.2 is slow, asking 127.0.0.3 besides, in step 1"},
        {degraded, #{step => 2, image => 0, lost => [3, 5], mass => 0.125},
            "going on without E3 E5, 13 % of the router's weight, in step 3 (image 0)"},
        {waiting, #{expert => 3, reason => {loading, [?B], 4100}},
            "expert 3 is loading on 127.0.0.3, about 4 s"},
        {waiting, #{expert => 3, reason => {unreachable, [?B]}},
            "waiting for E3: 127.0.0.3 holds it, but this machine cannot reach it; "
            "is its link up?"},
        {waiting, #{reason => pipeline_restarting, during => advance},
            "waiting: this node's own worker died; it is being started again (during advance)"}
    ].

engine() ->
    [
        {worker_started, #{kind => expert, os_pid => 7},
            "the expert worker was started (os pid 7)"},
        {worker_died, #{kind => expert, exit_status => 137},
            "the expert worker died (killed, SIGKILL); it is started again"},
        {worker_died, #{kind => pipeline, exit_status => malformed_frame},
            "the pipeline worker died (malformed frame); it is started again"},
        {worker_hung, #{kind => expert, os_pid => 7, idle_ms => 10000},
            "the expert worker has computed nothing for 10.0 s and is killed (os pid 7)"},
        {worker_not_watched, #{kind => expert, why => no_proc},
            "whether the expert worker hangs cannot be seen on this system"},
        {relayed_ask_crashed, #{peer => 'baguette@127.0.0.3'},
            "a call passed on to 127.0.0.3 failed here by our own mistake"},
        {warning, #{}, "the model has a remark about the prompt; whoever asked was told"},
        {pipeline_worker_failed, #{reason => {bad_weights, #{}}},
            "the pipeline worker does not start: The model's files are not as they should be. "
            "Make or fetch them again."},
        {stray_answer, #{call => 3},
            "a worker answered what nobody had asked; the answer was dropped (call 3)"},
        {worker_not_started, #{kind => expert, reason => enoent},
            "the expert worker could not be started: enoent"},
        {worker_boot_failed, #{kind => expert, reason => {bad_weights, #{message => <<"short">>}}},
            "the expert worker did not come up: The model's files are not as they should be "
            "(message short). Make or fetch them again."},
        {expert_worker_failed, #{reason => {worker_not_started, #{times => 3}}},
            "this node can hold no expert: A worker dies at every start (times 3). "
            "The node's log says why."},
        {simulated_device, #{kind => expert},
            "a simulated device stands where the expert worker would"},
        {simulated_worker_died, #{kind => expert},
            "the simulated expert worker died; it is started again"},
        {call_failed, #{class => bad_input, message => <<"no such t">>, at => <<"ask">>},
            "a call failed in the worker, bad input: no such t (at ask)"},
        {message_dropped, #{from => worker},
            "the worker said something that is no answer; it was dropped"},
        {message_dropped, #{shape => {a, 2}},
            "a message of unknown form was dropped (shape a 2)"},
        {malformed_frame, #{from => worker},
            "the worker sent bytes that are no message; it is killed and started again"},
        {probe_failed, #{reason => {died, #{}}},
            "this node could not measure itself: The generation failed: died. "
            "The node's log says more."},
        {usage_not_published, #{reason => full},
            "how often experts are asked could not be told to the others (reason full)"}
    ].

components() ->
    [
        {component_ready, #{component => <<"toy/expert-1">>}, "expert-1 is loaded here"},
        {component_failed, #{component => <<"toy/expert-1">>, strike => 2},
            "expert-1 could not be loaded here (strike 2)"},
        {component_not_loaded, #{component => <<"toy/expert-1">>, reason => {bad_weights, #{}}},
            "expert-1 was not loaded: The model's files are not as they should be. "
            "Make or fetch them again."},
        {component_not_on_disk, #{component => <<"toy/expert-1">>},
            "expert-1 is to be loaded here but is not on the disk"},
        {component_refused, #{file => <<"a.safetensors">>},
            "files of the model here are not as they should be and are not used "
            "(file a.safetensors)"},
        {holding, #{new => [<<"toy/expert-1">>], let_go => [<<"toy/expert-2">>, <<"toy/x">>]},
            "this node takes expert-1 and lets go of expert-2, x"},
        {holding, #{new => [<<"toy/expert-1">>], let_go => []}, "this node takes expert-1"},
        {holding, #{new => [], let_go => []}, "this node holds what it held"},
        {no_inventory_yet, #{why => noproc}, "what is on this disk is not known yet: noproc"},
        {fact_not_published, #{why => too_big},
            "a fact about this node could not be told to the others: too big"},
        {hold_not_taken, #{class => exit, why => noproc},
            "the engine did not take the list of what to hold; it is told again "
            "(class exit, why noproc)"}
    ].

over_http() ->
    [
        {job_crashed, #{job => <<"0660">>, why => badmatch},
            "job 0660 failed by our own mistake (why badmatch)"},
        {job_not_watched, #{}, "a job's generation ended before it could be watched"},
        {job_not_written, #{reason => enospc},
            "the end of a job could not be written: it counts as failed (reason enospc)"},
        {job_not_renamed, #{reason => eio},
            "a job that is lost could not be marked so: it is begun again at the next start "
            "(reason eio)"},
        {jobs_not_deleted, #{why => eacces}, "files of old jobs cannot be deleted: eacces"},
        {checkpoint_not_written, #{reason => enospc},
            "how far a job is could not be written: after a restart it goes on from before "
            "(reason enospc)"},
        {checkpoint_refused, #{reason => another_pipeline},
            "what was written of a job does not fit this node any more: it begins anew "
            "(reason another pipeline)"},
        {handler_crashed, #{class => error, reason => badarg},
            "a request over HTTP failed here by our own mistake (reason badarg)"},
        {dashboard_look_failed, #{look => near},
            "the dashboard could not look at this node by our own mistake"},
        {job_ended, #{how => completed, client => <<"phone">>, seconds => 2.04},
            "the job of phone is completed, in 2.0 s"}
    ].

cluster() ->
    [
        {link, #{peer => ?B, state => up}, "the link to 127.0.0.3 is up"},
        {link, #{peer => ?B, state => down},
            "the link to 127.0.0.3 is down: it is not asked until it is up again"},
        {link, #{peer => ?B, state => suspect},
            "nothing heard of 127.0.0.3 for too long: it is not asked until it is"},
        {member, #{peer => ?B, state => joined}, "127.0.0.3 joined the cluster"},
        {member, #{peer => ?B, state => gone},
            "127.0.0.3 was silent for too long and is gone: what it held goes to others"},
        {member, #{peer => ?B, state => left}, "127.0.0.3 has left the cluster"},
        {no_connection, #{peer => ?B, why => wrong_secret}, "no link to 127.0.0.3: wrong secret"},
        {incarnation_raised, #{above => {1, 2}},
            "the others knew a later start of this node than this one; it counts on from there "
            "(above 1 2)"},
        {leaving_not_acknowledged_by_all, #{},
            "not everybody acknowledged in time that this node is leaving; it goes on leaving"},
        {address_refused, #{address => <<"::1">>},
            "an address that was found is no usable one: ::1"},
        {discovery_failed, #{why => {exit, 1}, keeping => 3},
            "looking for other machines failed, those known are kept: exit 1 (keeping 3)"},
        {unknown_message_dropped, #{module => baguette_cluster_gossip, shape => {tuple, [a, b]}},
            "a message of unknown form was dropped, perhaps of another version "
            "(module baguette cluster gossip, shape tuple (a; b))"},
        %% logged for those who look closely, at level debug
        {holders, #{component => <<"c">>, nodes => [?A]},
            "holders (component c, nodes 127.0.0.2)"},
        {plan_changed, #{}, "plan changed"}
    ].

node_itself() ->
    [
        {start_refused, #{app => baguette_web, reason => {bad_setting, port, -1, <<"a port">>}},
            "the node cannot start, baguette web refuses: bad setting port -1 a port"},
        {launcher_gone, #{}, "whoever started this node is gone, so it ends"},
        {process_crashed, #{reason => badarg, class => error, stack => [<<"m:f/1 line 3">>]},
            "a process crashed in m:f/1 line 3: badarg"},
        {process_ended, #{reason => {badmatch, <<"<9 bytes>">>}, name => x},
            "a process ended by a fault: badmatch <9 bytes> (name x)"},
        {supervisor_report,
            #{child => a, context => child_terminated, reason => killed, supervisor => {local, s}},
            "a supervisor tells of its child a, child terminated: killed (supervisor local s)"},
        {application_ended, #{application => baguette_web, reason => stopped},
            "the application baguette web ended: stopped"},
        {text, #{text => <<"TLS said no">>}, "TLS said no"},
        {of_the_next_version, #{depth => 2, where => [?A, ?B]},
            "of the next version (depth 2, where 127.0.0.2; 127.0.0.3)"}
    ].

each_event_is_a_sentence_test_() ->
    [
        {atom_to_list(What), ?_assertEqual(Sentence, flat(baguette_story:sentence(event(W, F))))}
     || {What = W, F, Sentence} <- golden()
    ].

whatever_our_rooms_log_is_told_above_test() ->
    Sources = filelib:wildcard("apps/*/src/*.erl"),
    ?assertNotEqual([], Sources),
    Logged = lists:usort(lists:append([logged(Path) || Path <- Sources])),
    ?assert(lists:member(worker_died, Logged)),
    ?assertEqual([], Logged -- [What || {What, _, _} <- golden()]).

logged(Path) ->
    {ok, Text} = file:read_file(Path),
    case re:run(Text, "LOG[A-Z_(]+[^.]{0,40}what => ([a-z]\\w*)", [
        global, {capture, all_but_first, list}
    ]) of
        {match, Found} -> [list_to_atom(Name) || [Name] <- Found];
        nomatch -> []
    end.

facts_of_another_form_are_told_by_name_test_() ->
    [
        ?_assertEqual(Sentence, flat(baguette_story:sentence(event(What, Facts))))
     || {What, Facts, Sentence} <- [
            {failover, #{expert => many}, "failover (expert many)"},
            {link, #{peer => <<"x">>}, "link (peer x)"},
            {degraded, #{lost => [<<"...">>], mass => 0.5}, "degraded (lost ..., mass 0.5)"}
        ]
    ].

faults_stand_out_and_ids_are_short_test() ->
    Events = [
        (event(link, #{peer => ?B, state => down}))#{generation => ?ID},
        (event(worker_died, #{kind => expert, exit_status => 1}))#{level => warning}
    ],
    ?assertEqual(
        [
            "   When (UTC)               Generation  What happened",
            "   2026-11-21 17:45:16.123  01234567    the link to 127.0.0.3 is down: "
            "it is not asked until it is up again",
            "!  2026-11-21 17:45:16.123  -           the expert worker died (exit status 1); "
            "it is started again"
        ],
        without_rule(baguette_story:lines([{none, E} || E <- Events]))
    ).

of_several_nodes_each_line_says_whose_it_is_test() ->
    Lines = without_rule(baguette_story:lines([{?B, event(generation_done, #{})}])),
    ?assertEqual("   2026-11-21 17:45:16.123  127.0.0.3  -           the generation is done",
        lists:last(Lines)).

a_link_is_so_since_it_was_last_said_test() ->
    Down = event(link, #{peer => ?B, state => down}),
    Events = [Down#{at_us => 1}, Down#{at_us => 5}, (event(member, #{peer => ?A}))#{at_us => 9}],
    ?assertEqual(#{?B => 5}, baguette_story:links(Events)).

without_rule(Text) ->
    [Head, _Rule | Rest] = string:lexemes(flat(Text), "\n"),
    [Head | Rest].

event(What, Facts) ->
    #{at_us => 1795283116123456, level => info, what => What, room => engine, facts => Facts}.

flat(Text) -> unicode:characters_to_list(Text).
