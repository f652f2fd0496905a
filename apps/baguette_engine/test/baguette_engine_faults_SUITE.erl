%% @doc What goes wrong at one worker, and what its generation makes of it: the real worker, broken
%% at its boundary as tests/faulty/worker.py says. In each case the fault is followed by a picture
%% that is the undisturbed one, drawn by the same processes of ours.
-module(baguette_engine_faults_SUITE).

-include_lib("stdlib/include/assert.hrl").

-import(baguette_engine_fixture, [until/1]).

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([init_per_testcase/2, end_per_testcase/2]).
-export([
    a_worker_that_dies_once_changes_no_pixel/1,
    a_poisoned_request_fails_by_name_and_all_others_finish/1,
    a_call_that_needs_too_much_memory_is_halved/1,
    an_image_that_needs_too_much_memory_fails_by_name/1,
    what_a_worker_prints_is_not_in_the_stream/1,
    an_answer_too_many_changes_no_pixel/1,
    a_stream_that_cannot_be_read_is_a_death/1,
    a_frame_that_never_ends_is_a_worker_that_hangs/1,
    a_worker_that_hangs_is_killed_and_changes_no_pixel/1,
    an_answer_that_fits_no_frame_is_refused/1,
    the_calls_of_a_dead_generation_are_not_computed/1
]).

-define(PROMPT, <<"any words at all">>).
-define(POISON, <<"poison">>).
-define(STEPS, 6).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [
        a_worker_that_dies_once_changes_no_pixel,
        a_poisoned_request_fails_by_name_and_all_others_finish,
        a_call_that_needs_too_much_memory_is_halved,
        an_image_that_needs_too_much_memory_fails_by_name,
        what_a_worker_prints_is_not_in_the_stream,
        an_answer_too_many_changes_no_pixel,
        a_stream_that_cannot_be_read_is_a_death,
        a_frame_that_never_ends_is_a_worker_that_hangs,
        a_worker_that_hangs_is_killed_and_changes_no_pixel,
        an_answer_that_fits_no_frame_is_refused,
        the_calls_of_a_dead_generation_are_not_computed
    ].

init_per_suite(Config) ->
    Dir = proplists:get_value(priv_dir, Config),
    File = filename:join(Dir, "fault"),
    ok = file:write_file(File, <<>>),
    ok = baguette_engine_fixture:start(Dir, #{
        python => baguette_engine_checkout:path(["tests", "faulty", "python"]),
        child_env => [{"BAGUETTE_FAULT", File}],
        hung_ms => 4000,
        max_running => 8
    }),
    [{fault, File}, {undisturbed, pictures(draw(#{}))} | Config].

end_per_suite(_Config) ->
    baguette_engine_fixture:stop().

init_per_testcase(_Case, Config) ->
    until(fun baguette_engine_fixture:ready/0),
    [{ours, ours()} | Config].

%% Whatever went wrong: no process of ours was restarted, and the same picture is drawn again.
end_per_testcase(_Case, Config) ->
    ok = fault(Config, none),
    case pictures(draw(#{})) =:= proplists:get_value(undisturbed, Config) of
        true -> ok;
        false -> {fail, another_picture}
    end.

%% Cases ----------------------------------------------------------------------------------------

a_worker_that_dies_once_changes_no_pixel(Config) ->
    [
        begin
            ok = fault(Config, #{do => die, on => On, times => 1}),
            ?assertEqual(undisturbed(Config), pictures(draw(#{}))),
            ?assertEqual(1, struck(Config))
        end
     || On <- [velocity, encode, advance, decode]
    ],
    ours(Config).

a_poisoned_request_fails_by_name_and_all_others_finish(Config) ->
    ok = fault(Config, #{do => die, on => velocity, prompt => ?POISON}),
    Poisoned = submit(#{prompt => ?POISON}),
    Others = [submit(#{}) || _ <- lists:seq(1, 4)],
    {error, {expert_call_died, Facts}} = baguette_engine:await(Poisoned, infinity),
    ?assertMatch(#{deaths := 3, why := died, expert := _}, Facts),
    [?assertEqual(undisturbed(Config), pictures(awaited(Id))) || Id <- Others],
    %% Both experts of its first step are asked at once, here of one worker.
    ?assert(struck(Config) >= 3 andalso struck(Config) =< 5),
    until(fun baguette_engine_fixture:ready/0),
    ours(Config).

a_call_that_needs_too_much_memory_is_halved(Config) ->
    Four = pictures(draw(#{n => 4})),
    ok = fault(Config, #{do => out_of_memory, on => velocity, rows => 1}),
    #{failovers := Failovers} = Halved = draw(#{n => 4}),
    ?assertEqual({Four, []}, {pictures(Halved), Failovers}),
    ours(Config).

an_image_that_needs_too_much_memory_fails_by_name(Config) ->
    Before = deaths(),
    [
        begin
            ok = fault(Config, #{do => Do, on => velocity}),
            {error, {out_of_memory, Facts}} = baguette_engine:await(submit(#{n => 2}), infinity),
            ?assertMatch(#{expert := _, times := 3}, Facts)
        end
     || Do <- [out_of_memory, memory_error]
    ],
    ?assertEqual(Before, deaths()),
    ours(Config).

%% Its own process prints too, while it starts: both are new ones.
what_a_worker_prints_is_not_in_the_stream(Config) ->
    [
        begin
            ok = fault(Config, #{do => print, on => On}),
            Before = deaths(),
            ?assertEqual(undisturbed(Config), pictures(draw(#{}))),
            ?assertEqual(Before, deaths()),
            ?assert(struck(Config) > 0)
        end
     || On <- [velocity, advance]
    ],
    ok = kill_workers(),
    ?assertEqual(undisturbed(Config), pictures(draw(#{}))),
    ours(Config).

an_answer_too_many_changes_no_pixel(Config) ->
    [
        begin
            ok = fault(Config, #{do => Do, on => On}),
            Before = deaths(),
            ?assertEqual(undisturbed(Config), pictures(draw(#{}))),
            ?assertEqual(Before, deaths()),
            ?assert(struck(Config) > 0)
        end
     || Do <- [twice, nobody], On <- [velocity, advance]
    ],
    ours(Config).

a_stream_that_cannot_be_read_is_a_death(Config) ->
    ok = fault(Config, #{do => malformed, on => velocity, times => 1}),
    #{failovers := [#{why := died} | _]} = Result = draw(#{}),
    ?assertEqual(undisturbed(Config), pictures(Result)),
    ok = fault(Config, #{do => malformed, on => advance, times => 1}),
    ?assertEqual(undisturbed(Config), pictures(draw(#{}))),
    ours(Config).

a_frame_that_never_ends_is_a_worker_that_hangs(Config) ->
    ok = fault(Config, #{do => endless, on => velocity, times => 1}),
    #{failovers := [#{why := died} | _]} = Result = draw(#{}),
    ?assertEqual(undisturbed(Config), pictures(Result)),
    ours(Config).

a_worker_that_hangs_is_killed_and_changes_no_pixel(Config) ->
    [
        begin
            ok = fault(Config, #{do => stop, on => On, times => 1}),
            Before = deaths(),
            ?assertEqual(undisturbed(Config), pictures(draw(#{}))),
            ?assertEqual(Before + 1, deaths())
        end
     || On <- [velocity, advance]
    ],
    ours(Config).

an_answer_that_fits_no_frame_is_refused(Config) ->
    Before = deaths(),
    [
        begin
            ok = fault(Config, #{do => huge, on => On, times => 1}),
            {error, {bad_input, #{message := Why}}} =
                baguette_engine:await(submit(#{}), infinity),
            ?assertNotEqual(nomatch, string:find(Why, "at most 268435456"))
        end
     || On <- [velocity, decode]
    ],
    ?assertEqual(Before, deaths()),
    ours(Config).

%% Three calls of one generation are with a worker that is stopped: one begun, one read ahead.
the_calls_of_a_dead_generation_are_not_computed(Config) ->
    %% Every expert knows the texts: none of the three is asked twice.
    _ = draw(#{top_k => full}),
    ok = fault(Config, #{do => stop, on => velocity, times => 1}),
    Before = computed(),
    #{os_pid := Os} = baguette_engine_expert:overview(),
    Id = submit(#{top_k => full}),
    until(fun() -> struck(Config) =:= 1 end),
    {ok, Generation} = baguette_engine_admission:lookup(Id),
    exit(Generation, kill),
    until(fun() ->
        About = baguette_engine_expert:overview(),
        {0, 0} =:= {maps:get(in_flight, About), maps:get(waiting, About)}
    end),
    [] = os:cmd("kill -CONT " ++ integer_to_list(Os)),
    ?assertEqual(Before + 1, computed()),
    ours(Config).

%% Helpers --------------------------------------------------------------------------------------

%% From the next call on, counted for itself.
fault(Config, Fault) ->
    File = proplists:get_value(fault, Config),
    Text = case Fault of
        none -> <<>>;
        #{} -> jiffy:encode(Fault#{id => erlang:unique_integer([positive])})
    end,
    ok = file:write_file(File ++ ".new", Text),
    file:rename(File ++ ".new", File).

struck(Config) ->
    File = proplists:get_value(fault, Config),
    {ok, Text} = file:read_file(File),
    #{<<"id">> := Id} = jiffy:decode(Text, [return_maps]),
    filelib:file_size(File ++ "." ++ integer_to_list(Id) ++ ".done").

submit(Options) ->
    {ok, Id} = baguette_engine:generate(
        maps:merge(#{prompt => ?PROMPT, steps => ?STEPS, seed => 1}, Options)
    ),
    Id.

awaited(Id) ->
    {ok, Result} = baguette_engine:await(Id, infinity),
    Result.

draw(Options) -> awaited(submit(Options)).

pictures(#{images := Images}) -> [Hash || #{pixels_sha256 := Hash} <- Images].

undisturbed(Config) -> proplists:get_value(undisturbed, Config).

deaths() -> lists:sum([Deaths || #{deaths := Deaths} <- baguette_engine:workers()]).

computed() ->
    Ref = make_ref(),
    ok = baguette_engine_expert:when_idle(Ref, {stats, baguette_engine_msgpack:encode(#{})}),
    receive
        {baguette_engine_worker, Ref, {ok, Payload}} ->
            {ok, #{<<"calls">> := Calls}} = baguette_engine_msgpack:decode(Payload),
            Calls
    end.

kill_workers() ->
    Workers = [Os || #{os_pid := Os} <- baguette_engine:workers()],
    [[] = os:cmd("kill -KILL " ++ integer_to_list(Os)) || Os <- Workers],
    until(fun() ->
        Now = [Os || #{os_pid := Os} <- baguette_engine:workers()],
        Now -- Workers =:= Now andalso baguette_engine_fixture:ready()
    end).

%% The processes that no worker's death may take along.
ours() ->
    [whereis(Name) || Name <- [
        baguette_engine_sup, baguette_engine_expert, baguette_engine_pipeline,
        baguette_engine_admission, baguette_cluster_sup
    ]].

ours(Config) ->
    ?assertEqual(proplists:get_value(ours, Config), ours()).
