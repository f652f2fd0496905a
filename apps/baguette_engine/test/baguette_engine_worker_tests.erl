%% @doc The owner of a port with real Python processes behind it: calls, cancels, kills, restarts.
%% No model is needed: `stats' answers at once, `warm' takes a second to import torch, and that is
%% long enough to be in flight when the process is killed.
-module(baguette_engine_worker_tests).

-include_lib("eunit/include/eunit.hrl").

-define(WAIT_MS, 60000).
-define(HUNG_MS, 2000).
-define(STATS, {stats, <<128>>}).

worker_test_() ->
    Cases = [
        fun a_call_is_answered_under_its_reference/0,
        fun boot_calls_come_first_and_the_owner_is_told/0,
        fun a_killed_expert_process_hands_back_what_it_had/0,
        fun a_killed_pipeline_process_leaves_what_it_had_not_begun_to_the_next/0,
        fun the_owners_own_calls_go_with_the_process/0,
        fun a_cancelled_call_is_not_answered/0,
        fun what_is_not_urgent_waits_for_all_that_is/0,
        fun what_is_not_urgent_goes_one_at_a_time_and_an_ask_passes_the_rest/0,
        fun what_is_not_urgent_is_refused_when_its_process_dies/0,
        fun a_stopped_process_is_killed_and_its_call_has_died/0,
        fun a_stopped_process_is_found_out_though_its_calls_were_cancelled/0,
        fun a_process_that_does_not_read_is_sent_no_more_than_a_few_frames/0,
        fun what_there_is_no_room_for_is_refused_at_once_by_an_expert_worker/0,
        fun a_process_that_goes_on_in_time_is_left_alone/0,
        fun a_process_that_hangs_in_a_boot_call_is_killed/0,
        fun calls_of_a_dead_caller_are_dropped/0,
        fun stopping_leaves_no_process/0,
        fun the_process_goes_with_its_owners_owner/0,
        fun a_process_that_dies_as_it_is_written_to_is_a_death/0,
        fun a_failed_boot_call_says_why_and_is_tried_again/0,
        fun dead_at_every_start_is_told_after_three/0,
        fun a_python_that_is_not_there_is_told_at_once/0
    ],
    {foreach, fun quiet/0, fun loud/1, [{timeout, 120, Case} || Case <- Cases]}.

%% Deaths are what is tested: their warnings would only look like trouble.
quiet() ->
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, none),
    ok = baguette_engine_metrics:table(),
    _ = application:load(baguette_engine),
    {Level, baguette_engine_settings:get(max_asks_mib)}.

loud({Level, MaxAsks}) ->
    ok = application:set_env(baguette_engine, max_asks_mib, MaxAsks),
    true = ets:delete(baguette_engine_metrics),
    logger:set_primary_config(level, Level).

a_call_is_answered_under_its_reference() ->
    Worker = start([]),
    {ok, Stats} = answer(call(Worker, ?STATS)),
    ?assertEqual(maps:get(os_pid, overview(Worker)), maps:get(<<"os_pid">>, Stats)),
    ?assertMatch({error, {failure, #{message := _}}}, answer(call(Worker, {no_such, <<128>>}))),
    ok = baguette_engine_worker:stop(Worker).

boot_calls_come_first_and_the_owner_is_told() ->
    Worker = start([?STATS, ?STATS]),
    Ref = call(Worker, ?STATS),
    ?assertMatch({booted, stats, _}, told(Worker)),
    ?assertMatch({booted, stats, _}, told(Worker)),
    ?assertEqual(up, told(Worker)),
    ?assertMatch({ok, _}, answer(Ref)),
    ?assertMatch(#{state := ready, deaths := 0}, overview(Worker)),
    ok = baguette_engine_worker:stop(Worker).

a_killed_expert_process_hands_back_what_it_had() ->
    Worker = start([]),
    {ok, _} = answer(call(Worker, ?STATS)),
    [First | Rest] = [call(Worker, Call) || Call <- [warm(), ?STATS, ?STATS, ?STATS]],
    killed(Worker),
    ?assertMatch({error, {died, _}}, answer(First)),
    [?assertMatch({error, {not_held, _}}, answer(Ref)) || Ref <- Rest],
    ?assertEqual(down, told(Worker)),
    serves_again(Worker),
    ?assertMatch(#{deaths := 1, state := ready}, overview(Worker)),
    ok = baguette_engine_worker:stop(Worker).

%% Until it does, others may hold what it held: whoever asks it is told so at once.
serves_again(Worker) ->
    baguette_engine_fixture:until(fun() ->
        case answer(call(Worker, ?STATS)) of
            {ok, _} -> true;
            {error, {not_held, _}} -> false
        end
    end).

a_killed_pipeline_process_leaves_what_it_had_not_begun_to_the_next() ->
    Worker = start(pipeline, python(), []),
    {ok, _} = answer(call(Worker, ?STATS)),
    %% Imports transformers before it finds no model.
    Slow = {load, baguette_engine_msgpack:encode(#{
        threads => 1, model_dir => {text, <<"/nowhere">>}
    })},
    [First | Rest] = [call(Worker, Call) || Call <- [Slow, ?STATS, ?STATS, ?STATS]],
    Before = killed(Worker),
    ?assertMatch({error, {died, _}}, answer(First)),
    Later = [Os || {ok, #{<<"os_pid">> := Os}} <- [answer(Ref) || Ref <- Rest]],
    ?assertMatch([Os, Os, Os] when Os =/= Before, Later),
    ok = baguette_engine_worker:stop(Worker).

the_owners_own_calls_go_with_the_process() ->
    Worker = start([]),
    {ok, _} = answer(call(Worker, ?STATS)),
    Refs = [call(Worker, self(), Call) || Call <- [warm(), ?STATS, ?STATS]],
    _ = killed(Worker),
    ?assertEqual(down, told(Worker)),
    serves_again(Worker),
    ?assertEqual([none, none, none], [answered(Ref) || Ref <- Refs]),
    ok = baguette_engine_worker:stop(Worker).

a_cancelled_call_is_not_answered() ->
    Worker = start([]),
    [_, Running, InHand, Waiting, Last] =
        [call(Worker, Call) || Call <- [?STATS, warm(), ?STATS, ?STATS, ?STATS]],
    [ok = baguette_engine_worker:cancel(Worker, Ref) || Ref <- [Running, InHand, Waiting]],
    ?assertMatch({ok, _}, answer(Last)),
    [?assertEqual(none, answered(Ref)) || Ref <- [Running, InHand, Waiting]],
    ok = baguette_engine_worker:stop(Worker).

what_is_not_urgent_waits_for_all_that_is() ->
    Worker = start([]),
    First = call(Worker, self(), warm()),
    Idle = when_idle(Worker, self(), ?STATS),
    Urgent = [call(Worker, self(), ?STATS) || _ <- lists:seq(1, 4)],
    ?assertEqual([First | Urgent] ++ [Idle], [next_answered() || _ <- lists:seq(1, 6)]),
    ok = baguette_engine_worker:stop(Worker).

what_is_not_urgent_goes_one_at_a_time_and_an_ask_passes_the_rest() ->
    Worker = start([]),
    [First, Second] = [when_idle(Worker, self(), Call) || Call <- [warm(), ?STATS]],
    ?assertMatch(#{in_flight := 1}, overview(Worker)),
    Ask = call(Worker, self(), ?STATS),
    %% With the process at once: it waits for the one short call, and for no other.
    ?assertMatch(#{in_flight := 2, waiting := 0}, overview(Worker)),
    ?assertEqual([First, Ask, Second], [next_answered() || _ <- lists:seq(1, 3)]),
    ok = baguette_engine_worker:stop(Worker).

what_is_not_urgent_is_refused_when_its_process_dies() ->
    Worker = start([]),
    {ok, _} = answer(call(Worker, ?STATS)),
    [_, _] = [call(Worker, Call) || Call <- [warm(), ?STATS]],
    Test = self(),
    Idle = when_idle(Worker, spawn(fun() -> receive A -> Test ! A end end), ?STATS),
    _ = killed(Worker),
    ?assertMatch({error, {not_held, _}}, answer(Idle)),
    ok = baguette_engine_worker:stop(Worker).

a_stopped_process_is_killed_and_its_call_has_died() ->
    {Worker, Os} = stopped(?HUNG_MS),
    [First, Rest] = [call(Worker, ?STATS) || _ <- [1, 2]],
    ?assertEqual({error, {died, #{exit_status => killed, hung => true}}}, answer(First)),
    ?assertMatch({error, {not_held, _}}, answer(Rest)),
    gone(Os),
    serves_again(Worker),
    ?assertMatch(#{deaths := 1, state := ready}, overview(Worker)),
    ok = baguette_engine_worker:stop(Worker).

a_stopped_process_is_found_out_though_its_calls_were_cancelled() ->
    {Worker, Os} = stopped(?HUNG_MS),
    Ref = call(Worker, self(), ?STATS),
    ok = baguette_engine_worker:cancel(Worker, Ref),
    ?assertEqual(down, told(Worker)),
    gone(Os),
    ?assertEqual(none, answered(Ref)),
    ok = baguette_engine_worker:stop(Worker).

%% Nothing that it was told meanwhile is lost. Its answer to the cancelled call is nobody's.
a_process_that_goes_on_in_time_is_left_alone() ->
    {Worker, Os} = stopped(60000),
    [Late, Ref] = [call(Worker, self(), ?STATS) || _ <- [1, 2]],
    ok = baguette_engine_worker:cancel(Worker, Late),
    signal(Os, "CONT"),
    {ok, _} = answer(Ref),
    ?assertEqual(none, answered(Late)),
    ?assertMatch(#{deaths := 0, os_pid := Os, in_flight := 0}, overview(Worker)),
    ok = baguette_engine_worker:stop(Worker).

%% However many calls come and are cancelled, each of which gives its place in the window back.
a_process_that_does_not_read_is_sent_no_more_than_a_few_frames() ->
    {Worker, Os} = stopped(60000),
    {links, Links} = process_info(Worker, links),
    [Port] = [Link || Link <- Links, is_port(Link)],
    Payload = binary:copy(<<0>>, 1 bsl 18),
    [
        ok = baguette_engine_worker:cancel(Worker, call(Worker, self(), {stats, Payload}))
     || _ <- lists:seq(1, 100)
    ],
    Last = call(Worker, self(), ?STATS),
    ?assertMatch(#{waiting := 1}, overview(Worker)),
    {queue_size, Held} = erlang:port_info(Port, queue_size),
    ?assert(Held > byte_size(Payload) andalso Held < 9 * byte_size(Payload), Held),
    signal(Os, "CONT"),
    {ok, _} = answer(Last),
    ok = baguette_engine_worker:stop(Worker).

%% Two are with the process, one waits.
what_there_is_no_room_for_is_refused_at_once_by_an_expert_worker() ->
    ok = application:set_env(baguette_engine, max_asks_mib, 1),
    Payload = binary:copy(<<0>>, 1 bsl 19),
    {Worker, _} = stopped(60000),
    [_, _, _, Fourth] = [call(Worker, self(), {stats, Payload}) || _ <- lists:seq(1, 4)],
    ?assertMatch({error, {unreachable, #{why := busy}}}, answer(Fourth)),
    ?assertMatch(
        #{in_flight := 2, waiting := 1, waiting_bytes := B} when B < 1 bsl 20, overview(Worker)
    ),
    ok = baguette_engine_worker:stop(Worker),
    %% Whoever asks a pipeline worker was let in at the door.
    Pipeline = start(pipeline, python(), []),
    Asked = [call(Pipeline, self(), {stats, Payload}) || _ <- lists:seq(1, 6)],
    [?assertMatch({ok, _}, answer(Ref)) || Ref <- Asked],
    ok = baguette_engine_worker:stop(Pipeline).

a_process_that_hangs_in_a_boot_call_is_killed() ->
    Worker = start(expert, python(), [warm()], ?HUNG_MS),
    #{os_pid := Os} = overview(Worker),
    signal(Os, "STOP"),
    ?assertEqual(down, told(Worker)),
    gone(Os),
    ?assertMatch({booted, warm, _}, told(Worker)),
    ?assertEqual(up, told(Worker)),
    ok = baguette_engine_worker:stop(Worker).

%% One of them is with the process, one read ahead, the rest waits.
calls_of_a_dead_caller_are_dropped() ->
    {Worker, Os} = stopped(60000),
    Self = self(),
    Caller = spawn(fun() ->
        [call(Worker, self(), ?STATS) || _ <- lists:seq(1, 5)],
        Self ! {asked, overview(Worker)},
        receive never -> ok end
    end),
    receive {asked, About} -> ?assertMatch(#{in_flight := 2, waiting := 3}, About) end,
    exit(Caller, kill),
    %% The process is stopped: they are gone unanswered.
    ok = until_empty(Worker, erlang:monotonic_time(millisecond) + ?WAIT_MS),
    Ref = call(Worker, self(), ?STATS),
    signal(Os, "CONT"),
    {ok, _} = answer(Ref),
    ?assertEqual({monitors, []}, process_info(Worker, monitors)),
    ok = baguette_engine_worker:stop(Worker).

until_empty(Worker, Until) ->
    case overview(Worker) of
        #{in_flight := 0, waiting := 0} -> ok;
        _ ->
            ?assert(erlang:monotonic_time(millisecond) < Until),
            until_empty(Worker, Until)
    end.

stopping_leaves_no_process() ->
    Worker = start([]),
    {ok, _} = answer(call(Worker, ?STATS)),
    #{os_pid := Os} = overview(Worker),
    _ = call(Worker, warm()),
    signal(Os, "STOP"),
    ok = baguette_engine_worker:stop(Worker),
    gone(Os).

the_process_goes_with_its_owners_owner() ->
    Self = self(),
    Owner = spawn(fun() ->
        Worker = start([]),
        Self ! {os, maps:get(os_pid, overview(Worker))},
        receive never -> ok end
    end),
    Os = receive {os, Pid} -> Pid end,
    exit(Owner, kill),
    gone(Os).

%% A port that is written to when nobody can read any more ends without an exit status.
a_process_that_dies_as_it_is_written_to_is_a_death() ->
    Script = string:trim(os:cmd("mktemp")),
    Closed = Script ++ ".closed",
    Text = "#!/bin/sh\nexec 3<&-\n: > " ++ Closed ++ "\nsleep 2\n",
    ok = file:write_file(Script, Text),
    ok = file:change_mode(Script, 8#700),
    Worker = start(expert, Script, []),
    there(Closed),
    ?assertMatch({error, {died, _}}, answer(call(Worker, ?STATS))),
    ?assertEqual(down, told(Worker)),
    ok = baguette_engine_worker:stop(Worker),
    [ok = file:delete(File) || File <- [Script, Closed]].

a_failed_boot_call_says_why_and_is_tried_again() ->
    Payload = baguette_engine_msgpack:encode(#{model_dir => {text, <<"/nowhere">>}}),
    Worker = start([{inventory, Payload}]),
    Down = fun() ->
        ?assertMatch({failed, {bad_weights, #{message := _}}}, told(Worker)),
        ?assertEqual(down, told(Worker))
    end,
    Down(),
    Down(),
    ?assertMatch(#{state := {failed, {bad_weights, _}}}, overview(Worker)),
    ok = baguette_engine_worker:stop(Worker).

dead_at_every_start_is_told_after_three() ->
    Worker = start(expert, "/bin/false", [?STATS]),
    [down, down, down] = [told(Worker) || _ <- lists:seq(1, 3)],
    Reason = {worker_not_started, #{worker => expert, exit_status => 1, times => 3}},
    ?assertEqual({failed, Reason}, told(Worker)),
    ?assertMatch(#{state := {failed, Reason}}, overview(Worker)),
    ok = baguette_engine_worker:stop(Worker).

a_python_that_is_not_there_is_told_at_once() ->
    Worker = start(expert, "/nowhere/python", [?STATS]),
    ?assertMatch({failed, {python_not_started, #{python := "/nowhere/python"}}}, told(Worker)),
    ok = baguette_engine_worker:stop(Worker).

%% --- helpers

start(Boot) ->
    start(expert, python(), Boot).

start(Kind, Python, Boot) ->
    start(Kind, Python, Boot, 60000).

start(Kind, Python, Boot, HungMs) ->
    {ok, Worker} = baguette_engine_worker:start_link(#{
        kind => Kind, python => Python, env => [], boot => Boot, hung_ms => HungMs
    }),
    Worker.

%% A process that has answered a call, and then stopped.
stopped(HungMs) ->
    Worker = start(expert, python(), [], HungMs),
    {ok, _} = answer(call(Worker, ?STATS)),
    #{os_pid := Os} = overview(Worker),
    signal(Os, "STOP"),
    {Worker, Os}.

python() -> baguette_engine_checkout:path([".venv", "bin", "python"]).

%% Once it has frames in its hands.
killed(Worker) ->
    #{os_pid := Os, in_flight := 2} = overview(Worker),
    signal(Os, "KILL"),
    Os.

warm() ->
    {warm, baguette_engine_msgpack:encode(#{threads => 1})}.

%% A call of somebody else than the worker's owner, which is the test itself.
call(Worker, Call) ->
    Test = self(),
    call(Worker, spawn(fun() -> receive Answer -> Test ! Answer end end), Call).

call(Worker, To, Call) ->
    Ref = make_ref(),
    ok = baguette_engine_worker:request(Worker, Ref, To, Call, {alone, 1}),
    Ref.

when_idle(Worker, To, Call) ->
    Ref = make_ref(),
    ok = baguette_engine_worker:when_idle(Worker, Ref, To, Call),
    Ref.

next_answered() ->
    receive
        {baguette_engine_worker, Ref, {ok, _}} when is_reference(Ref) -> Ref
    after ?WAIT_MS -> error(no_answer)
    end.

overview(Worker) ->
    baguette_engine_worker:overview(Worker).

answer(Ref) ->
    receive
        {baguette_engine_worker, Ref, {ok, Payload}} -> baguette_engine_msgpack:decode(Payload);
        {baguette_engine_worker, Ref, Error} -> Error
    after ?WAIT_MS -> error(no_answer)
    end.

answered(Ref) ->
    receive
        {baguette_engine_worker, Ref, Answer} -> Answer
    after 0 -> none
    end.

told(Worker) ->
    receive
        {baguette_engine_worker, Worker, What} -> What
    after ?WAIT_MS -> error(not_told)
    end.

signal(Os, Name) ->
    [] = os:cmd("kill -" ++ Name ++ " " ++ integer_to_list(Os)),
    ok.

there(File) -> there(File, erlang:monotonic_time(millisecond) + ?WAIT_MS).

there(File, Until) ->
    ?assert(erlang:monotonic_time(millisecond) < Until),
    filelib:is_file(File) orelse there(File, Until).

%% Gone is no longer running: who reaps it, and when, is the system's affair.
gone(Os) -> gone(Os, erlang:monotonic_time(millisecond) + ?WAIT_MS).

gone(Os, Until) ->
    case file:read_file("/proc/" ++ integer_to_list(Os) ++ "/stat") of
        {error, Gone} when Gone =:= enoent; Gone =:= esrch -> ok;
        {ok, Stat} ->
            [_, <<State, _/binary>>] = binary:split(Stat, <<") ">>),
            ?assert(erlang:monotonic_time(millisecond) < Until),
            State =:= $Z orelse gone(Os, Until)
    end.
