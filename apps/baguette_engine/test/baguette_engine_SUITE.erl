%% @doc One node with real Python workers and a tiny model: what the engine promises when its
%% workers and its own processes die, and at the door. Whole clusters are tested in tests/.
-module(baguette_engine_SUITE).

-include_lib("stdlib/include/assert.hrl").

-import(baguette_engine_fixture, [until/1]).

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([
    a_prompt_becomes_pictures/1,
    options_are_refused_by_name/1,
    a_killed_worker_changes_no_pixel/1,
    a_crashed_process_of_ours_changes_no_pixel/1,
    a_generation_resumed_from_its_checkpoint_changes_no_pixel/1,
    a_checkpoint_of_anything_else_is_refused_by_name/1,
    who_wants_previews_gets_small_pictures/1,
    a_result_is_there_when_it_is_finished/1,
    nobodys_status_shows_the_prompt/1,
    a_cancelled_generation_delivers_nothing_more/1,
    who_waits_is_drawn_in_turn_and_who_comes_too_late_is_refused/1,
    a_restarted_admission_knows_whom_it_had/1,
    a_generation_that_crashes_is_told_and_makes_room/1
]).

-define(PROMPT, <<"any words at all">>).
-define(STEPS, 40).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [
        a_prompt_becomes_pictures,
        options_are_refused_by_name,
        a_killed_worker_changes_no_pixel,
        a_crashed_process_of_ours_changes_no_pixel,
        a_generation_resumed_from_its_checkpoint_changes_no_pixel,
        a_checkpoint_of_anything_else_is_refused_by_name,
        who_wants_previews_gets_small_pictures,
        a_result_is_there_when_it_is_finished,
        nobodys_status_shows_the_prompt,
        a_cancelled_generation_delivers_nothing_more,
        who_waits_is_drawn_in_turn_and_who_comes_too_late_is_refused,
        a_restarted_admission_knows_whom_it_had,
        a_generation_that_crashes_is_told_and_makes_room
    ].

init_per_suite(Config) ->
    ok = baguette_engine_fixture:start(proplists:get_value(priv_dir, Config)),
    Config.

end_per_suite(_Config) ->
    baguette_engine_fixture:stop().

%% Cases ----------------------------------------------------------------------------------------

a_prompt_becomes_pictures(_Config) ->
    {ok, Result} = draw(#{n => 2, seed => 5}),
    #{images := [First, Second], routing := [Routing, _], calls := Calls, who := Who} = Result,
    ?assertMatch(#{seed := 5, png := <<137, "PNG", _/binary>>}, First),
    ?assertNotEqual(maps:get(pixels_sha256, First), maps:get(pixels_sha256, Second)),
    ?assertEqual(?STEPS, length(Routing)),
    ?assertEqual(#{node() => length(Calls)}, Who),
    ?assert(lists:all(fun(#{ms := Ms, compute_ms := Compute}) -> Ms >= Compute end, Calls)),
    ?assertEqual([pixels(Second)], pixels(draw(#{seed => 6}))).

options_are_refused_by_name(_Config) ->
    Refused = fun(Options) ->
        {error, {bad_request, Field, _, Allowed}} = baguette_engine:generate(Options),
        {Field, Allowed}
    end,
    ?assertEqual({top_k, <<"1..3 or full">>}, Refused(#{prompt => ?PROMPT, top_k => 4})),
    ?assertMatch({prompt, _}, Refused(#{prompt => <<>>})),
    ?assertMatch({colour, _}, Refused(#{prompt => ?PROMPT, colour => red})).

%% Several images ask every expert: more calls are with the worker than it may have in hand.
a_killed_worker_changes_no_pixel(_Config) ->
    Request = #{seed => 1, n => 4, top_k => full},
    Undisturbed = pixels(draw(Request)),
    [
        begin
            {ok, Id} = begun(Request),
            [Os] = [Os || #{kind := K, os_pid := Os} <- baguette_engine:workers(), K =:= Kind],
            [] = os:cmd("kill -KILL " ++ integer_to_list(Os)),
            ?assertEqual(Undisturbed, pixels(baguette_engine:await(Id, infinity)))
        end
     || Kind <- [expert, pipeline, expert, pipeline]
    ].

%% Often, because what it was doing when it was killed is chance.
a_crashed_process_of_ours_changes_no_pixel(_Config) ->
    Undisturbed = pixels(draw(#{seed => 2})),
    [
        begin
            until(fun baguette_engine_fixture:ready/0),
            {ok, Id} = begun(#{seed => 2}),
            exit(whereis(Name), kill),
            ?assertEqual(Undisturbed, pixels(baguette_engine:await(Id, infinity)))
        end
     || Name <- [baguette_engine_expert, baguette_engine_admission] ++
            lists:duplicate(5, baguette_engine_pipeline)
    ].

%% From the middle, and of what was resumed once more; nothing of the first is left running.
a_generation_resumed_from_its_checkpoint_changes_no_pixel(_Config) ->
    Request = #{seed => 3, n => 2, top_k => 2, negative_prompt => <<"other words">>},
    {ok, Undisturbed} = draw(Request),
    {First, Bytes} = left_at(10, Request),
    [] = os:cmd("kill -KILL " ++ integer_to_list(pipeline_pid())),
    {Second, Later} = left_at(25, Request#{resume => Bytes}),
    {ok, Resumed} = draw(Request#{resume => Later}),
    ?assertEqual(pixels({ok, Undisturbed}), pixels({ok, Resumed})),
    ?assertEqual(maps:get(routing, Undisturbed), maps:get(routing, Resumed)),
    ?assertEqual(maps:get(keys, Undisturbed), maps:get(keys, Resumed)),
    ?assertEqual([First, Second], maps:get(resumed, Resumed)),
    Steps = fun(#{calls := Calls}) -> [{S, E} || #{step := S, expert := E} <- Calls] end,
    ?assertEqual(lists:sort(Steps(Undisturbed)), lists:sort(Steps(Resumed))).

a_checkpoint_of_anything_else_is_refused_by_name(_Config) ->
    {_, Bytes} = left_at(1, #{seed => 4}),
    Refused = fun(Options) ->
        {error, {bad_checkpoint, #{why := Why}}} = submit(Options),
        Why
    end,
    ?assertEqual(another_request, Refused(#{seed => 5, resume => Bytes})),
    ?assertEqual(another_request, Refused(#{prompt => <<"x">>, seed => 4, resume => Bytes})),
    ?assertEqual(not_a_checkpoint, Refused(#{seed => 4, resume => <<"a file of something">>})),
    ?assertEqual(not_bytes, Refused(#{seed => 4, resume => 17})),
    ?assertMatch({error, {unknown_generation, _}}, baguette_engine:checkpoint(<<"nobody">>)).

%% Until both images of one step were seen; nobody else is told, and no pixel is another one.
who_wants_previews_gets_small_pictures(_Config) ->
    Undisturbed = pixels(draw(#{seed => 8, n => 2})),
    {ok, Id} = submit(#{seed => 8, n => 2, steps => 250}),
    Self = self(),
    _ = spawn_link(fun() -> ok = baguette_engine:watch(Id), Self ! {seen, kinds(Id)} end),
    ok = baguette_engine:watch(Id, #{previews => true}),
    {preview, #{image := 0, step := Step, png := First}} = event(Id, [preview]),
    {preview, #{image := 1, step := Step, png := Second}} = event(Id, [preview]),
    ?assertMatch(<<137, "PNG", _/binary>>, First),
    ?assertMatch(<<137, "PNG", _/binary>>, Second),
    ?assertNotEqual(First, Second),
    ok = baguette_engine:cancel(Id),
    receive {seen, Kinds} -> ?assertEqual([], [K || preview = K <- Kinds]) end,
    {ok, Watched} = submit(#{seed => 8, n => 2}),
    ok = baguette_engine:watch(Watched, #{previews => true}),
    ?assertEqual(Undisturbed, pixels(baguette_engine:await(Watched, infinity))).

a_result_is_there_when_it_is_finished(_Config) ->
    {ok, Id} = begun(#{steps => 250}),
    ?assertMatch({error, {still_running, #{step := _}}}, baguette_engine:result(Id)),
    ?assertMatch({error, {still_running, #{}}}, baguette_engine:await(Id, 1)),
    ok = baguette_engine:cancel(Id),
    ?assertMatch({error, {cancelled, _}}, baguette_engine:await(Id, infinity)),
    {ok, Next} = submit(#{steps => 1}),
    {ok, Result} = baguette_engine:await(Next, infinity),
    ?assertEqual({ok, Result}, baguette_engine:result(Next)).

nobodys_status_shows_the_prompt(_Config) ->
    {ok, Id} = begun(#{steps => 250}),
    {ok, Generation} = baguette_engine_admission:lookup(Id),
    Names = [baguette_engine_admission, baguette_engine_pipeline, baguette_engine_expert],
    {links, Links} = process_info(whereis(baguette_engine_pipeline), links),
    Owners = [Pid || Pid <- Links, is_pid(Pid), Pid =/= whereis(baguette_engine_sup)],
    ?assertMatch([_], Owners),
    [
        ?assertEqual(nomatch, string:find(io_lib:format("~0tp", [sys:get_status(P)]), ?PROMPT))
     || P <- [Generation | Names] ++ Owners
    ],
    ok = baguette_engine:cancel(Id).

a_cancelled_generation_delivers_nothing_more(_Config) ->
    {ok, Id} = begun(#{steps => 250}),
    ok = baguette_engine:cancel(Id),
    ?assertMatch({error, {cancelled, _}}, baguette_engine:await(Id, infinity)),
    {cancelled, _} = event(Id, [cancelled]),
    {ok, _} = draw(#{steps => 1}),
    ?assertEqual([], [Kind || {baguette_engine, I, {Kind, _}} <- mailbox(), I =:= Id]),
    ?assertEqual(ok, baguette_engine:cancel(Id)),
    ?assertMatch({error, {unknown_generation, _}}, baguette_engine:cancel(<<"nobody">>)).

who_waits_is_drawn_in_turn_and_who_comes_too_late_is_refused(_Config) ->
    {ok, First} = begun(#{steps => 250}),
    {ok, Second} = submit(#{steps => 2}),
    ?assertMatch({error, {overloaded, #{waiting := 1}}}, submit(#{})),
    ?assertMatch([{Second, waiting}, {First, _} | _], listed()),
    ok = baguette_engine:cancel(First),
    ?assertMatch({ok, _}, baguette_engine:await(Second, infinity)).

a_restarted_admission_knows_whom_it_had(_Config) ->
    {ok, First} = begun(#{steps => 60}),
    {ok, Second} = submit(#{steps => 2}),
    Before = whereis(baguette_engine_admission),
    exit(Before, kill),
    until(fun() -> is_pid(whereis(baguette_engine_admission)) andalso
        whereis(baguette_engine_admission) =/= Before end),
    ?assertMatch({error, {overloaded, _}}, submit(#{})),
    ?assertMatch({ok, #{steps := 60}}, baguette_engine:await(First, infinity)),
    ?assertMatch({ok, #{steps := 2}}, baguette_engine:await(Second, infinity)),
    ?assertMatch({ok, _}, draw(#{steps => 1})).

a_generation_that_crashes_is_told_and_makes_room(_Config) ->
    {ok, Id} = begun(#{steps => 250}),
    {ok, Pid} = baguette_engine_admission:lookup(Id),
    Self = self(),
    spawn_link(fun() -> Self ! {awaited, baguette_engine:await(Id, infinity)} end),
    {ok, Second} = submit(#{steps => 2}),
    exit(Pid, kill),
    ?assertMatch({error, {generation_lost, _}}, receive {awaited, Outcome} -> Outcome end),
    ?assertMatch({ok, _}, baguette_engine:await(Second, infinity)),
    ?assertMatch({error, {unknown_generation, _}}, baguette_engine:await(Id, infinity)).

%% Helpers --------------------------------------------------------------------------------------

submit(Options) ->
    baguette_engine:generate(maps:merge(#{prompt => ?PROMPT, steps => ?STEPS}, Options)).

draw(Options) ->
    {ok, Id} = submit(Options),
    baguette_engine:await(Id, infinity).

%% Submitted, watched, and in its first steps.
begun(Options) ->
    {ok, Id} = submit(Options),
    ok = baguette_engine:watch(Id),
    {step, _} = event(Id, [step]),
    {ok, Id}.

%% Its checkpoint after this step or a later one, and then it is cancelled.
left_at(Step, Options) ->
    {ok, Id} = submit(Options),
    ok = baguette_engine:watch(Id),
    ok = until_step(Step + 1, Id),
    {ok, #{step := Taken, bytes := Bytes}} = baguette_engine:checkpoint(Id),
    ok = baguette_engine:cancel(Id),
    {error, {cancelled, _}} = baguette_engine:await(Id, infinity),
    ?assert(Taken >= Step andalso Taken < ?STEPS),
    {Taken, Bytes}.

until_step(Step, Id) ->
    case event(Id, [step]) of
        {step, #{step := At}} when At >= Step -> ok;
        {step, _} -> until_step(Step, Id)
    end.

pipeline_pid() ->
    [Os] = [Os || #{kind := pipeline, os_pid := Os} <- baguette_engine:workers()],
    Os.

event(Id, Kinds) ->
    receive
        {baguette_engine, Id, {Kind, Facts}} ->
            case lists:member(Kind, Kinds) of
                true -> {Kind, Facts};
                false -> event(Id, Kinds)
            end
    after 60000 -> error({no_event, Kinds})
    end.

%% All that a watcher is told, to the end.
kinds(Id) ->
    receive
        {baguette_engine, Id, {cancelled, _}} -> [];
        {baguette_engine, Id, {Kind, _}} -> [Kind | kinds(Id)]
    end.

mailbox() ->
    receive Message -> [Message | mailbox()]
    after 0 -> []
    end.

pixels({ok, #{images := Images}}) -> [pixels(Image) || Image <- Images];
pixels(#{pixels_sha256 := Hash}) -> Hash.

listed() ->
    [{Id, State} || #{id := Id, state := State} <- baguette_engine:generations()].
