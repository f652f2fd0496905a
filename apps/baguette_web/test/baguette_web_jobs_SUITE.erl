%% @doc Jobs on one node with a simulated device, over real HTTP: who is taken, who is refused,
%% whose turn it is, what a restart leaves, and that every job has one end. Whole clusters with real
%% pictures, and kill -9, are in tests/test_jobs.py.
-module(baguette_web_jobs_SUITE).

-include_lib("stdlib/include/assert.hrl").

-import(baguette_engine_fixture, [until/1]).

-compile({no_auto_import, [get/1]}).

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([init_per_testcase/2, end_per_testcase/2]).
-export([
    a_job_is_drawn_and_its_pictures_are_there/1,
    events_tell_it_all_and_go_on_where_they_were_cut_off/1,
    previews_are_drawn_for_who_wants_them/1,
    a_bad_request_is_refused_by_field/1,
    the_same_key_is_the_same_job/1,
    too_many_are_refused_with_when_to_come_back/1,
    clients_take_turns/1,
    a_cancelled_job_stops_and_stays_cancelled/1,
    a_crash_of_ours_ends_no_job/1,
    who_waits_is_told_of_a_crash/1,
    a_crash_tells_no_prompt/1,
    a_restart_goes_on_with_what_was_taken/1,
    a_job_is_not_drawn_twice/1,
    nobody_waits_for_a_client_that_has_gone/1,
    what_was_damaged_has_failed/1,
    the_oldest_go_when_there_are_too_many/1,
    a_drained_node_leaves_jobs_that_go_on/1,
    a_missing_expert_is_named_and_why/1,
    openais_shape/1,
    a_node_that_leaves_takes_none/1
]).

-define(ADDRESS, {127, 0, 0, 1}).
-define(STEPS, 20).
%% A drawing of some ten seconds: nothing ends while a test looks at it.
-define(SLOW, #{speed => 0.01}).
-define(FAST, #{speed => 10}).

%% More than the fixture waits for anything.
suite() -> [{timetrap, {seconds, 90}}].

all() ->
    [
        a_job_is_drawn_and_its_pictures_are_there,
        events_tell_it_all_and_go_on_where_they_were_cut_off,
        previews_are_drawn_for_who_wants_them,
        a_bad_request_is_refused_by_field,
        the_same_key_is_the_same_job,
        too_many_are_refused_with_when_to_come_back,
        clients_take_turns,
        a_cancelled_job_stops_and_stays_cancelled,
        a_crash_of_ours_ends_no_job,
        who_waits_is_told_of_a_crash,
        a_crash_tells_no_prompt,
        a_restart_goes_on_with_what_was_taken,
        a_job_is_not_drawn_twice,
        nobody_waits_for_a_client_that_has_gone,
        what_was_damaged_has_failed,
        the_oldest_go_when_there_are_too_many,
        a_drained_node_leaves_jobs_that_go_on,
        a_missing_expert_is_named_and_why,
        openais_shape,
        %% It does not come back, so it is the last.
        a_node_that_leaves_takes_none
    ].

init_per_suite(Config) ->
    ok = baguette_engine_fixture:start_simulated(#{
        model => #{experts => 3, steps => ?STEPS}, batch_us => 2000, row_us => 1000,
        encode_us => 0, advance_us => 0, decode_us => 0, load_ms => 1, restart_ms => 10
    }),
    ok = application:set_env(baguette_engine, max_running, 1),
    {ok, _} = application:ensure_all_started(inets),
    Config.

end_per_suite(_Config) ->
    baguette_engine_fixture:stop().

init_per_testcase(Case, Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), Case),
    {ok, Probe} = gen_tcp:listen(0, [{ip, ?ADDRESS}]),
    {ok, Port} = inet:port(Probe),
    ok = gen_tcp:close(Probe),
    ok = start(#{port => Port, jobs_dir => Dir, teller => baguette_teller, checkpoint_ms => 0,
        max_jobs => 4, max_client_jobs => 3, keep_jobs => 5}),
    [{dir, Dir}, {port, Port} | Config].

end_per_testcase(_Case, _Config) ->
    ok = baguette_engine:simulate(#{speed => 1}),
    stop().

start(Settings) ->
    _ = application:load(baguette_web),
    maps:foreach(
        fun(Key, Value) -> ok = application:set_env(baguette_web, Key, Value) end,
        Settings#{auth => none, address => inet:ntoa(?ADDRESS)}
    ),
    {ok, _} = application:ensure_all_started(baguette_web),
    ok.

stop() ->
    ok = application:stop(baguette_web),
    %% Nothing of the room is left to be asked.
    {error, {no_jobs_dir, _}} = baguette_web_jobs:load(),
    undefined = persistent_term:get(baguette_web_stopping, undefined),
    ok.

%% Cases ----------------------------------------------------------------------------------------

a_job_is_drawn_and_its_pictures_are_there(Config) ->
    {202, Headers, Job} = post(Config, "/v1/jobs", #{n => 2, seed => 5}),
    #{<<"id">> := Id, <<"status">> := Queued, <<"client">> := <<"peer:127.0.0.1">>} = Job,
    ?assert(lists:member(Queued, [<<"queued">>, <<"running">>])),
    ?assertEqual("/v1/jobs/" ++ binary_to_list(Id), proplists:get_value("location", Headers)),
    Done = ended(Config, Id),
    ?assertMatch(
        #{
            <<"status">> := <<"completed">>, <<"step">> := ?STEPS, <<"error">> := null,
            <<"predicted_seconds">> := _, <<"resumed">> := 0,
            <<"request">> := #{<<"seed">> := 5, <<"n">> := 2, <<"on_missing">> := <<"wait">>}
        },
        Done
    ),
    #{<<"routing">> := Routing, <<"calls">> := Calls, <<"images">> := Images} = Done,
    ?assertEqual(lists:seq(0, ?STEPS - 1), [Step || #{<<"step">> := Step} <- Routing]),
    [?assertMatch(#{<<"experts">> := [[_, _], [_, _]]}, Entry) || Entry <- Routing],
    ?assert(length(Calls) >= ?STEPS),
    [
        begin
            {200, ImageHeaders, Png} = request(Config, get, binary_to_list(Url), [], raw),
            ?assertEqual("image/png", proplists:get_value("content-type", ImageHeaders)),
            ?assertMatch(<<137, "PNG", _/binary>>, Png)
        end
     || #{<<"url">> := Url} <- Images
    ],
    ?assertMatch({404, _, _}, get(Config, "/v1/jobs/" ++ binary_to_list(Id) ++ "/images/2.png")),
    [
        ?assertMatch({404, _, _}, get(Config, ["/v1/jobs/", Id, "/images/", I]))
     || I <- ["x", "+0.png", "-0.png", ".png", "0.png.png"]
    ],
    ?assertMatch({404, _, _}, get(Config, "/v1/jobs/nothing")),
    {200, _, #{<<"data">> := [Summary], <<"has_more">> := false}} = get(Config, "/v1/jobs"),
    ?assertMatch(#{<<"id">> := Id, <<"failovers_count">> := 0}, Summary),
    ?assertNot(is_map_key(<<"routing">>, Summary)),
    %% No step file is left, and nobody else can look in.
    {ok, Files} = file:list_dir(dir(Config)),
    ?assertEqual(3, length(Files)).

events_tell_it_all_and_go_on_where_they_were_cut_off(Config) ->
    ok = baguette_engine:simulate(#{speed => 0.3}),
    Id = submitted(Config, #{}),
    Path = "/v1/jobs/" ++ Id ++ "/events",
    Whole = sse(Config, Path, []),
    ?assertMatch([{_, <<"status">>, _} | _], Whole),
    ?assertEqual(
        lists:seq(0, ?STEPS - 1),
        [Step || {_, <<"step">>, #{<<"step">> := Step}} <- Whole]
    ),
    {Last, <<"completed">>, #{<<"images">> := [_]}} = lists:last(Whole),
    Numbers = [N || {N, _, _} <- Whole],
    ?assertEqual(lists:usort(Numbers), Numbers),
    %% Whoever comes late hears the end; whoever has heard it is told not to come again.
    ?assertMatch([{Last, <<"completed">>, _}], sse(Config, Path, [])),
    ?assertMatch([{Last, <<"completed">>, _}], sse(Config, Path, [{"last-event-id", "3"}])),
    ?assertMatch(
        {204, _, _}, request(Config, get, Path, [{"last-event-id", integer_to_list(Last)}], raw)
    ),
    %% Somebody who was cut off in between misses nothing.
    ok = baguette_engine:simulate(?SLOW),
    Second = submitted(Config, #{}),
    until(fun() -> step(Config, Second) > 2 end),
    Later = sse_from(Config, Second, "4"),
    ?assertMatch([{5, _, _} | _], Later),
    ok = baguette_engine:simulate(?SLOW),
    Third = submitted(Config, #{}),
    Unknown = sse_from(Config, Third, "999999"),
    ?assertMatch([{_, <<"resync">>, #{<<"routing">> := _}} | _], Unknown).

%% They cost the pipeline worker time.
previews_are_drawn_for_who_wants_them(Config) ->
    ok = baguette_engine:simulate(?SLOW),
    Id = list_to_binary(submitted(Config, #{})),
    until(fun() -> step(Config, binary_to_list(Id)) > 2 end),
    {live, _, Before} = baguette_web_jobs:events(Id, none, #{previews => false}),
    ?assertEqual([], [E || {_, <<"preview">>, _} = E <- Before]),
    %% By who follows this job, and by who hears of all.
    Self = self(),
    {_, Monitor} = spawn_monitor(fun() ->
        {live, _, None} = baguette_web_jobs:events(Id, none, #{previews => true}),
        Self ! {before, [E || {_, <<"preview">>, _} = E <- None]},
        receive {baguette_web_job, Id, {_, <<"preview">>, _}} -> ok end
    end),
    receive {before, None} -> ?assertEqual([], None) end,
    receive {'DOWN', Monitor, process, _, normal} -> ok end,
    Job = process_of(Id),
    until(fun() -> not wants_previews(Job) end),
    ok = baguette_web_jobs:subscribe_all(#{previews => true}),
    receive {baguette_web_jobs, {preview, #{job := Id, b64_png := B64}}} ->
        ?assertMatch(<<137, "PNG", _/binary>>, base64:decode(B64))
    end,
    ok = baguette_web_jobs:subscribe_all(#{previews => false}),
    until(fun() -> not wants_previews(Job) end).

wants_previews(Job) ->
    [Pid] = [P || #{id := I, state := State} <- baguette_engine:generations(),
        not lists:member(State, [done, failed, cancelled]), {ok, P} <- [lookup(I)]],
    {_, Data} = sys:get_state(Pid),
    Watchers = hd([V || V <- tuple_to_list(Data), is_watchers(V)]),
    is_process_alive(Job) andalso baguette_engine_watchers:want_previews(Watchers).

lookup(Id) -> baguette_engine_admission:lookup(Id).

is_watchers(Value) -> is_tuple(Value) andalso element(1, Value) =:= baguette_engine_watchers.

%% The device is slow until somebody follows the job.
sse_from(Config, Id, Last) ->
    Self = self(),
    Path = "/v1/jobs/" ++ Id ++ "/events",
    _ = spawn_link(fun() ->
        Self ! {followed, sse(Config, Path, [{"last-event-id", Last}])}
    end),
    Pid = process_of(list_to_binary(Id)),
    until(fun() -> erlang:process_info(Pid, monitors) =/= {monitors, []} end),
    ok = baguette_engine:simulate(?FAST),
    receive {followed, Events} -> Events end.

a_bad_request_is_refused_by_field(Config) ->
    [
        ?assertMatch(
            {422, _, #{<<"field">> := Field, <<"detail">> := _}},
            post(Config, "/v1/jobs", #{Field => Value})
        )
     || {Field, Value} <- [
            {<<"steps">>, 0}, {<<"n">>, 17}, {<<"size">>, <<"1024x1024">>}, {<<"colour">>, 1},
            {<<"prompt">>, <<" ">>}, {<<"model">>, <<"dall-e-2">>}
        ]
    ],
    ?assertMatch({422, _, _}, get(Config, "/v1/jobs?limit=101")),
    [
        ?assertMatch({422, _, _}, get(Config, Path))
     || Path <- ["/v1/jobs?limit=x", "/v1/jobs?limit=%2B5", "/v1/cluster?events=%2B5"]
    ],
    {200, _, #{<<"data">> := []}} = get(Config, "/v1/jobs").

the_same_key_is_the_same_job(Config) ->
    ok = baguette_engine:simulate(?SLOW),
    Key = [{"idempotency-key", "once"}],
    Self = self(),
    %% At the same moment too.
    _ = [
        spawn_link(fun() -> Self ! {answer, post(Config, "/v1/jobs", #{seed => 1}, Key)} end)
     || _ <- lists:seq(1, 5)
    ],
    Answers = [receive {answer, Answer} -> Answer end || _ <- lists:seq(1, 5)],
    Ids = [I || {202, _, #{<<"id">> := I}} <- Answers],
    ?assertEqual(5, length(Ids), Answers),
    [Id] = lists:usort(Ids),
    ?assertMatch(
        {409, _, #{<<"type">> := <<"urn:baguette:key_in_progress">>}},
        post(Config, "/v1/jobs", #{seed => 2}, Key)
    ),
    ok = baguette_engine:simulate(?FAST),
    _ = ended(Config, Id),
    %% Written otherwise, it asks for the same.
    ?assertMatch(
        {200, _, #{<<"id">> := Id}},
        post(Config, "/v1/jobs", #{seed => 1.0, n => null}, Key)
    ),
    ?assertMatch({422, _, _}, post(Config, "/v1/jobs", #{seed => 2}, Key)),
    %% It is remembered over a restart.
    stop(),
    ok = start(#{}),
    ?assertMatch({200, _, #{<<"id">> := Id}}, post(Config, "/v1/jobs", #{seed => 1}, Key)),
    {200, _, #{<<"data">> := [_]}} = get(Config, "/v1/jobs").

too_many_are_refused_with_when_to_come_back(Config) ->
    ok = baguette_engine:simulate(?SLOW),
    Taken = [post(Config, "/v1/jobs", #{seed => N}) || N <- lists:seq(1, 4)],
    [?assertMatch({202, _, _}, Answer) || Answer <- Taken],
    {429, Headers, Problem} = post(Config, "/v1/jobs", #{}),
    ?assertMatch(#{<<"type">> := <<"urn:baguette:overloaded">>}, Problem),
    {ok, #{retry_after_seconds := Seconds}} = baguette_web_jobs:load(),
    %% What is drawn has gone on since.
    ?assert(list_to_integer(proplists:get_value("retry-after", Headers)) >= Seconds),
    %% Nothing of it is left, and a place that is free again is given again.
    {200, _, #{<<"data">> := Listed}} = get(Config, "/v1/jobs"),
    ?assertEqual(4, length(Listed)),
    ?assertEqual(
        [null, 0, 1, 2], [P || {202, _, #{<<"position">> := P}} <- Taken], Taken
    ),
    [#{<<"id">> := Newest} | _] = Listed,
    {200, _, #{<<"status">> := <<"cancelled">>}} = delete(Config, Newest),
    ?assertMatch({202, _, _}, post(Config, "/v1/jobs", #{})),
    %% When one goes the others move up.
    [_, {202, _, #{<<"id">> := Next}} | _] = Taken,
    {200, _, _} = delete(Config, Next),
    until(fun() ->
        Positions = [P || #{<<"position">> := P} <- data(get(Config, "/v1/jobs")), P =/= null],
        lists:sort(Positions) =:= [0, 1]
    end).

%% By work: two small jobs come before a large one of whoever has begun a large one. The door is
%% asked as the handlers ask it.
clients_take_turns(_Config) ->
    ok = baguette_engine:simulate(?SLOW),
    ok = baguette_web_jobs:subscribe_all(#{previews => false}),
    Submitted = fun(Client, Steps) ->
        {ok, new, #{id := Id}} = submit(Client, Steps),
        {Id, Client}
    end,
    Large = [Submitted(<<"a">>, ?STEPS) || _ <- [1, 2, 3]],
    {Withdrawn, _} = Submitted(<<"a">>, ?STEPS),
    ?assertMatch({error, {overloaded, #{whose := own}}}, submit(<<"a">>, ?STEPS)),
    {ok, #{status := <<"cancelled">>}} = baguette_web_jobs:cancel(Withdrawn),
    Small = [Submitted(<<"b">>, 5) || _ <- [1, 2]],
    ok = baguette_engine:simulate(?FAST),
    Ends = order_of_ends(Large ++ Small, []),
    ?assertEqual([<<"a">>, <<"b">>, <<"b">>, <<"a">>, <<"a">>], Ends).

order_of_ends(Ids, Ended) when length(Ended) =:= length(Ids) ->
    Clients = maps:from_list(Ids),
    [maps:get(Id, Clients) || Id <- lists:reverse(Ended)];
order_of_ends(Ids, Ended) ->
    receive
        {baguette_web_jobs, {job, #{id := Id, status := <<"completed">>}}} ->
            case lists:keymember(Id, 1, Ids) of
                true -> order_of_ends(Ids, [Id | Ended]);
                false -> order_of_ends(Ids, Ended)
            end;
        {baguette_web_jobs, _} ->
            order_of_ends(Ids, Ended)
    end.

a_cancelled_job_stops_and_stays_cancelled(Config) ->
    ok = baguette_engine:simulate(?SLOW),
    Id = submitted(Config, #{}),
    until(fun() -> step(Config, Id) > 1 end),
    ?assertMatch({200, _, #{<<"status">> := <<"cancelled">>}}, delete(Config, Id)),
    until(fun() -> running() =:= [] end),
    ?assertMatch({200, _, #{<<"status">> := <<"cancelled">>}}, delete(Config, Id)),
    stop(),
    ok = start(#{}),
    ?assertMatch({200, _, #{<<"status">> := <<"cancelled">>}}, get(Config, "/v1/jobs/" ++ Id)),
    ?assertMatch({404, _, _}, delete(Config, "nothing")).

a_crash_of_ours_ends_no_job(Config) ->
    Undisturbed = pixels(ended(Config, submitted(Config, #{seed => 3, deterministic => true}))),
    [
        begin
            ok = baguette_engine:simulate(?SLOW),
            Id = submitted(Config, #{seed => 3, deterministic => true}),
            until(fun() -> step(Config, Id) > 3 end),
            exit(Victim(list_to_binary(Id)), kill),
            ok = baguette_engine:simulate(?FAST),
            until(fun() -> resumed(Config, Id) > 0 end),
            Done = ended(Config, Id),
            ?assertEqual(Undisturbed, pixels(Done)),
            ?assertEqual(
                lists:seq(0, ?STEPS - 1),
                [Step || #{<<"step">> := Step} <- maps:get(<<"routing">>, Done)]
            )
        end
     || Victim <- [fun process_of/1, fun(_) -> whereis(baguette_web_job_admission) end]
    ],
    ok = baguette_engine:simulate(?SLOW),
    Doomed = submitted(Config, #{}),
    [
        begin
            until(fun() -> resumed(Config, Doomed) =:= Times andalso step(Config, Doomed) > 0 end),
            exit(process_of(list_to_binary(Doomed)), kill)
        end
     || Times <- [0, 1, 2]
    ],
    #{<<"status">> := Status, <<"error">> := #{<<"type">> := Why}} = ended(Config, Doomed),
    ?assertEqual({<<"failed">>, <<"urn:baguette:job_crashed">>}, {Status, Why}).

%% A picture's client cannot be given its end; what it is told to do helps.
who_waits_is_told_of_a_crash(Config) ->
    ok = baguette_engine:simulate(?SLOW),
    Streaming = waiting_client(Config, #{stream => true}),
    _ = crash_newest(Config),
    Stream = read_all(Streaming),
    ?assertMatch({match, _}, re:run(Stream, "event: error\ndata: .*drawing was interrupted")),
    until(fun() -> running() =:= [] end),
    Key = "Idempotency-Key: mine\r\n",
    Waiting = waiting_client(Config, #{}, Key),
    Id = crash_newest(Config),
    refused(interrupted, read(Waiting)),
    until(fun() -> resumed(Config, Id) =:= 1 end),
    ok = baguette_engine:simulate(?FAST),
    {200, _, #{<<"data">> := [_], <<"job">> := Drawn}} =
        bare(Config, "POST", "/v1/images/generations", #{prompt => <<"a">>}, Key),
    ?assertEqual(Id, binary_to_list(Drawn)).

%% While it is drawn, so that its client is not about to hear of its end.
crash_newest(Config) ->
    {200, _, #{<<"data">> := [#{<<"id">> := Newest} | _]}} = get(Config, "/v1/jobs?limit=1"),
    Id = binary_to_list(Newest),
    until(fun() -> step(Config, Id) > 0 end),
    exit(process_of(Newest), kill),
    Id.

read_all(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Bytes} -> <<Bytes/binary, (read_all(Socket))/binary>>;
        {error, closed} -> <<>>
    end.

%% What a process had in its hands when it crashed is told by its shape, as the node is configured.
a_crash_tells_no_prompt(Config) ->
    ok = baguette_engine:simulate(?SLOW),
    File = filename:join(proplists:get_value(priv_dir, Config), "crash.log"),
    ok = logger:add_handler(crash_log, logger_std_h, #{
        config => #{file => File}, formatter => {baguette_log, #{}}
    }),
    Id = submitted(Config, #{prompt => <<"my secret words">>}),
    until(fun() -> step(Config, Id) > 0 end),
    %% Of no clause: message, state and all are in the reason.
    gen_server:cast(process_of(list_to_binary(Id)), {prompt, <<"my secret words">>}),
    until(fun() -> resumed(Config, Id) > 0 end),
    {200, _, _} = delete(Config, Id),
    Logged = fun() ->
        ok = logger_std_h:filesync(crash_log),
        {ok, Text} = file:read_file(File),
        Text
    end,
    until(fun() ->
        Text = Logged(),
        lists:all(
            fun(What) -> binary:match(Text, What) =/= nomatch end,
            [<<"process_ended">>, <<"process_crashed">>, <<"job_crashed">>, <<"function_clause">>]
        )
    end),
    ?assertEqual(nomatch, re:run(Logged(), "secret|115,101,99,114,101,116")),
    ok = logger:remove_handler(crash_log).

%% What was not begun, and what was begun, in the order they came; velocities that are used again
%% come along.
a_restart_goes_on_with_what_was_taken(Config) ->
    Reusing = #{seed => 4, top_k => full, cache => 0.3},
    Requests = [Reusing, #{seed => 4, deterministic => true}],
    Undisturbed = [pixels(ended(Config, submitted(Config, Request))) || Request <- Requests],
    ok = baguette_engine:simulate(?SLOW),
    Ids = [submitted(Config, Request) || Request <- Requests],
    [First, _] = Ids,
    until(fun() -> step(Config, First) > 3 end),
    stop(),
    ok = baguette_engine:simulate(?FAST),
    until(fun() -> running() =:= [] end),
    ok = start(#{}),
    Done = [ended(Config, Id) || Id <- Ids],
    [?assertMatch(#{<<"status">> := <<"completed">>, <<"resumed">> := 1}, Job) || Job <- Done],
    ?assertEqual(Undisturbed, [pixels(Job) || Job <- Done]),
    [#{<<"images">> := [#{<<"reused">> := Reused} | _]} | _] = Done,
    ?assert(Reused > 0).

%% Whenever the node is killed, a job has its end on the disk or what it can go on from.
a_job_is_not_drawn_twice(Config) ->
    ok = baguette_engine:simulate(?SLOW),
    Id = submitted(Config, #{}),
    File = fun(Kind) -> filename:join(dir(Config), Id ++ Kind) end,
    until(fun() -> filelib:is_regular(File(".step")) end),
    %% Its end cannot be written as long as nobody reads there.
    Pipe = File(".job.new"),
    "" = os:cmd("mkfifo " ++ Pipe),
    ok = baguette_engine:simulate(?FAST),
    Job = process_of(list_to_binary(Id)),
    until(fun() ->
        {current_function, {prim_file, open_nif, 2}} =:=
            erlang:process_info(Job, current_function) andalso filelib:is_regular(File(".0.png"))
    end),
    ?assert(filelib:is_regular(File(".step"))),
    %% Away before it is opened: from then on the job's process does with that name what it likes.
    Away = filename:join(proplists:get_value(priv_dir, Config), "away"),
    ok = file:rename(Pipe, Away),
    "" = os:cmd("exec 3<>" ++ Away ++ "; rm " ++ Away),
    _ = ended(Config, Id),
    %% Killed after the end was written, and before the rest was removed.
    Second = submitted(Config, #{}),
    #{<<"status">> := <<"completed">>} = Done = ended(Config, Second),
    stop(),
    ok = baguette_web_store:put_step(dir(Config), list_to_binary(Second), #{step => 1}, <<>>),
    ok = start(#{}),
    ?assertEqual(Done, ended(Config, Second)),
    ?assertNot(filelib:is_regular(filename:join(dir(Config), Second ++ ".step"))).

nobody_waits_for_a_client_that_has_gone(Config) ->
    ok = baguette_engine:simulate(?SLOW),
    [
        begin
            Socket = waiting_client(Config, More),
            ok = gen_tcp:close(Socket),
            until(fun() -> running() =:= [] end),
            {200, _, #{<<"data">> := [Job | _]}} = get(Config, "/v1/jobs"),
            until(fun() ->
                {200, _, #{<<"status">> := Status}} = get(Config, id_path(Job)),
                Status =:= <<"cancelled">>
            end)
        end
     || More <- [#{}, #{stream => true, partial_images => 3}]
    ],
    %% One that waited when the node was stopped will not come back.
    _ = waiting_client(Config, #{}),
    stop(),
    ok = start(#{}),
    {200, _, #{<<"data">> := [Left | _]}} = get(Config, "/v1/jobs"),
    #{<<"id">> := LeftId} = Left,
    ?assertMatch(#{<<"status">> := <<"cancelled">>}, ended(Config, LeftId)).

waiting_client(Config, More) -> waiting_client(Config, More, "").

waiting_client(Config, More, Headers) ->
    Body = jiffy:encode(More#{prompt => <<"a">>}),
    {ok, Socket} = gen_tcp:connect(?ADDRESS, port(Config), [binary, {active, false}]),
    ok = gen_tcp:send(Socket, [
        "POST /v1/images/generations HTTP/1.1\r\nHost: ", host(Config),
        "\r\nContent-Type: application/json\r\n", Headers, "Content-Length: ",
        integer_to_list(iolist_size(Body)), "\r\n\r\n", Body
    ]),
    until(fun() -> running() =/= [] end),
    Socket.

what_was_damaged_has_failed(Config) ->
    ok = baguette_engine:simulate(?SLOW),
    [Torn, Begun] = [submitted(Config, #{seed => N}) || N <- [1, 2]],
    until(fun() -> step(Config, Torn) > 2 end),
    stop(),
    ok = baguette_engine:simulate(?FAST),
    ok = file:write_file(filename:join(dir(Config), Torn ++ ".job"), <<"baguette-job-1 0">>),
    ok = file:write_file(filename:join(dir(Config), Begun ++ ".step"), <<>>),
    ok = start(#{}),
    ?assertMatch(
        #{<<"status">> := <<"failed">>, <<"error">> := #{<<"type">> := <<"urn:baguette:damaged">>}},
        ended(Config, Torn)
    ),
    ?assertMatch(#{<<"status">> := <<"completed">>}, ended(Config, Begun)).

the_oldest_go_when_there_are_too_many(Config) ->
    Ids = [
        begin
            Id = submitted(Config, #{seed => N}),
            _ = ended(Config, Id),
            list_to_binary(Id)
        end
     || N <- lists:seq(1, 8)
    ],
    Kept = lists:reverse(lists:nthtail(3, Ids)),
    {200, _, #{<<"data">> := Listed}} = get(Config, "/v1/jobs"),
    ?assertEqual(Kept, [Id || #{<<"id">> := Id} <- Listed]),
    until(fun() ->
        {ok, Files} = file:list_dir(dir(Config)),
        length(Files) =:= 2 * length(Kept)
    end),
    %% All that lies there counts.
    {ok, Files} = file:list_dir(dir(Config)),
    Size = lists:sum([filelib:file_size(filename:join(dir(Config), File)) || File <- Files]),
    Counted = fun() -> lists:sum([B || {_, #{bytes := B}} <- baguette_web_job_index:ended()]) end,
    ?assertEqual(Size, Counted()),
    stop(),
    ok = start(#{}),
    ?assertEqual(Kept, [Id || #{<<"id">> := Id} <- data(get(Config, "/v1/jobs"))]),
    ?assertEqual(Size, Counted()),
    %% By pages they are the same.
    ?assertEqual(Kept, pages(Config, "/v1/jobs?limit=2")).

data({200, _, #{<<"data">> := Data}}) -> Data.

pages(Config, Path) ->
    {200, _, #{<<"data">> := Jobs, <<"has_more">> := More}} = get(Config, Path),
    Ids = [Id || #{<<"id">> := Id} <- Jobs],
    case More of
        true ->
            After = binary_to_list(lists:last(Ids)),
            Ids ++ pages(Config, "/v1/jobs?limit=2&after=" ++ After);
        false ->
            Ids
    end.

a_drained_node_leaves_jobs_that_go_on(Config) ->
    ok = baguette_engine:simulate(?SLOW),
    Key = [{"idempotency-key", "mine"}],
    {202, _, #{<<"id">> := IdBinary}} = post(Config, "/v1/jobs", #{}, Key),
    Id = binary_to_list(IdBinary),
    until(fun() -> step(Config, Id) > 3 end),
    ok = baguette_web_jobs:drain(5000),
    until(fun() -> running() =:= [] end),
    refused(leaving, bare(Config, "POST", "/v1/jobs", #{})),
    %% It has no process now, and has not ended: whoever asks for its end is to come again.
    refused(not_ready, bare(Config, "GET", "/v1/jobs/" ++ Id ++ "/events", none)),
    Known = bare(Config, "POST", "/v1/images/generations", #{}, "Idempotency-Key: mine\r\n"),
    refused(not_ready, Known),
    ?assertMatch({200, _, _}, bare(Config, "GET", "/readyz", none)),
    _ = baguette_web_app:prep_stop(none),
    {503, _, #{<<"reasons">> := [#{<<"name">> := <<"stopping">>}]}} =
        bare(Config, "GET", "/readyz", none),
    stop(),
    {ok, #{<<"step">> := Step}, _} = baguette_web_store:step(dir(Config), list_to_binary(Id)),
    ?assert(Step > 2),
    ok = baguette_engine:simulate(?FAST),
    ok = start(#{}),
    ?assertMatch(#{<<"status">> := <<"completed">>, <<"resumed">> := 1}, ended(Config, Id)),
    ?assertMatch({200, _, _}, bare(Config, "GET", "/readyz", none)).

a_missing_expert_is_named_and_why(Config) ->
    %% Its worker dies, and stays away as long as nobody hears that it is there again.
    ok = baguette_engine:simulate(#{fail => died, restart_ms => 5000}),
    ok = baguette_web_jobs:subscribe_all(#{previews => false}),
    Id = submitted(Config, #{top_k => 1}),
    %% Told at once, not with the next thing that happens to the job.
    Waiting = receive
        {baguette_web_jobs, {job, #{waiting := #{} = Told}}} -> Told
    after 3000 -> none
    end,
    ?assertMatch(#{reason := <<"expert ", _/binary>>}, Waiting),
    until(fun() -> baguette_engine:health() =/= ok end),
    ok = sys:suspend(baguette_engine_expert),
    #{<<"detail">> := Refused} = refused(expert_missing, bare(Config, "POST", "/v1/jobs", #{})),
    {503, _, #{<<"reasons">> := [#{<<"expert">> := 0, <<"detail">> := Reason} | _]}} =
        bare(Config, "GET", "/readyz", none),
    Why = baguette_web_teller:missing(baguette_web_reason:why_missing(0)),
    [?assertNotEqual(nomatch, binary:match(Text, Why)) || Text <- [Refused, Reason]],
    %% One that a model read meanwhile does not have.
    ?assertEqual(not_settled, baguette_web_reason:why_missing(99)),
    ok = baguette_engine:simulate(#{fail => none, restart_ms => 10}),
    ok = sys:resume(baguette_engine_expert),
    ?assertMatch(#{<<"status">> := <<"completed">>}, ended(Config, Id)).

refused(Name, {503, Headers, Problem}) ->
    Type = <<"urn:baguette:", (atom_to_binary(Name))/binary>>,
    ?assertMatch(#{<<"type">> := Type, <<"status">> := 503}, Problem),
    ?assert(list_to_integer(proplists:get_value("retry-after", Headers)) >= 1),
    Problem.

openais_shape(Config) ->
    {200, _, #{<<"created">> := _, <<"data">> := Data}} =
        post(Config, "/v1/images/generations", #{n => 2, user => <<"me">>, quality => <<"hd">>}),
    Pngs = [base64:decode(B) || #{<<"b64_json">> := B} <- Data],
    ?assertMatch([<<137, "PNG", _/binary>>, _], Pngs),
    {200, _, #{<<"data">> := [#{<<"url">> := Url}]}} =
        post(Config, "/v1/images/generations", #{response_format => url}),
    {ok, {{_, 200, _}, _, Png}} = httpc:request(binary_to_list(Url)),
    ?assertMatch([137, $P, $N, $G | _], Png),
    ?assertMatch(
        {422, _, #{<<"field">> := <<"response_format">>}},
        post(Config, "/v1/images/generations", #{response_format => jpeg})
    ).

a_node_that_leaves_takes_none(Config) ->
    ?assertMatch({200, _, _}, bare(Config, "GET", "/readyz", none)),
    ok = baguette_cluster:drain(),
    refused(leaving, bare(Config, "POST", "/v1/jobs", #{})),
    ?assertMatch(
        {503, _, #{<<"reasons">> := [#{<<"name">> := <<"stopping">>}]}},
        bare(Config, "GET", "/readyz", none)
    ).

%% Asking ----------------------------------------------------------------------------------------

submit(Client, Steps) ->
    {ok, Model} = baguette_engine:model(),
    {ok, Limits} = baguette_web_jobs:limits(),
    Body = #{<<"prompt">> => <<"a">>, <<"steps">> => Steps},
    {ok, Options} = baguette_web_image_request:new(Body, Model, Limits),
    baguette_web_jobs:submit(#{client => Client, request => Options, body_hash => <<"00">>}).

submitted(Config, Body) ->
    {202, _, #{<<"id">> := Id}} = post(Config, "/v1/jobs", Body),
    binary_to_list(Id).

ended(Config, Id) ->
    Path = ["/v1/jobs/", Id],
    until(fun() ->
        case get(Config, Path) of
            {200, _, #{<<"finished">> := Finished}} -> Finished =/= null;
            _ -> false
        end
    end),
    {200, _, Job} = get(Config, Path),
    Job.

step(Config, Id) -> of_job(<<"step">>, Config, Id).
resumed(Config, Id) -> of_job(<<"resumed">>, Config, Id).

of_job(Field, Config, Id) ->
    case get(Config, "/v1/jobs/" ++ Id) of
        {200, _, #{Field := Value}} -> Value;
        %% Admission is being started again.
        _ -> -1
    end.

pixels(#{<<"images">> := Images}) -> [Hash || #{<<"pixels_sha256">> := Hash} <- Images].

process_of(Id) ->
    {ok, #{pid := Pid}} = baguette_web_job_index:find(Id),
    Pid.

running() ->
    [I || #{id := I, state := State} <- baguette_engine:generations(),
        not lists:member(State, [done, failed, cancelled])].

id_path(#{<<"id">> := Id}) -> ["/v1/jobs/", Id].

post(Config, Path, Body) -> post(Config, Path, Body, []).

post(Config, Path, Body, Headers) ->
    {Url, Own, Type, Json} = json_request(Config, Path, Body),
    Request = {Url, Headers ++ Own, Type, Json},
    answer(httpc:request(post, Request, [], [{body_format, binary}]), json).

json_request(Config, Path, Body) ->
    Json = jiffy:encode(maps:merge(#{<<"prompt">> => <<"a red circle">>}, Body)),
    {url(Config, Path), [], "application/json", iolist_to_binary(Json)}.

%% Not by httpc, which comes back by itself as Retry-After says.
bare(Config, Method, Path, Body) -> bare(Config, Method, Path, Body, "").

bare(Config, Method, Path, Body, More) ->
    Json = case Body of
        none -> <<>>;
        _ -> element(4, json_request(Config, Path, Body))
    end,
    {ok, Socket} = gen_tcp:connect(?ADDRESS, port(Config), [binary, {active, false}]),
    ok = gen_tcp:send(Socket, [
        Method, " ", Path, " HTTP/1.1\r\nHost: ", host(Config),
        "\r\nConnection: close\r\nContent-Type: application/json\r\n", More,
        "Content-Length: ", integer_to_list(byte_size(Json)), "\r\n\r\n", Json
    ]),
    read(Socket).

read(Socket) ->
    ok = inet:setopts(Socket, [{packet, http}]),
    {ok, {http_response, _, Status, _}} = gen_tcp:recv(Socket, 0),
    Headers = headers(Socket),
    ok = inet:setopts(Socket, [{packet, raw}]),
    Length = list_to_integer(proplists:get_value("content-length", Headers)),
    {ok, Answer} = gen_tcp:recv(Socket, Length),
    ok = gen_tcp:close(Socket),
    {Status, Headers, jiffy:decode(Answer, [return_maps])}.

headers(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, {http_header, _, Name, _, Value}} ->
            [{string:lowercase(name(Name)), Value} | headers(Socket)];
        {ok, http_eoh} ->
            []
    end.

name(Name) when is_atom(Name) -> atom_to_list(Name);
name(Name) -> Name.

get(Config, Path) -> request(Config, get, Path, [], json).

delete(Config, Id) -> request(Config, delete, ["/v1/jobs/", Id], [], json).

request(Config, Method, Path, Headers, As) ->
    answer(httpc:request(Method, {url(Config, Path), Headers}, [], [{body_format, binary}]), As).

answer({ok, {{_, Status, _}, Headers, Body}}, raw) -> {Status, Headers, Body};
answer({ok, {{_, Status, _}, Headers, Body}}, json) ->
    {Status, Headers, jiffy:decode(Body, [return_maps])}.

%% Every event until the stream is closed.
sse(Config, Path, Headers) ->
    {200, _, Body} = request(Config, get, Path, Headers, raw),
    [event(Block) || Block <- binary:split(Body, <<"\n\n">>, [global]), Block =/= <<>>,
        binary:first(Block) =/= $:].

event(Block) ->
    [<<"id: ", N/binary>>, <<"event: ", Name/binary>>, <<"data: ", Data/binary>>] =
        binary:split(Block, <<"\n">>, [global]),
    {binary_to_integer(N), Name, jiffy:decode(Data, [return_maps])}.

url(Config, Path) -> lists:flatten(["http://", host(Config), text(Path)]).

text(Path) -> binary_to_list(iolist_to_binary(Path)).

host(Config) -> inet:ntoa(?ADDRESS) ++ ":" ++ integer_to_list(port(Config)).

port(Config) -> proplists:get_value(port, Config).

dir(Config) -> proplists:get_value(dir, Config).
