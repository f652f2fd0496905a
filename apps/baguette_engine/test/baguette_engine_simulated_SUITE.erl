%% @doc One node with a simulated device: the whole engine without Python and without a model.
-module(baguette_engine_simulated_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([
    a_generation_runs_to_its_end_and_says_what_it_is/1,
    the_same_request_is_the_same_picture/1,
    a_picture_takes_what_its_calls_take/1,
    velocities_used_again_are_calls_not_made/1,
    nothing_is_used_again_across_a_change_of_routing/1,
    a_slow_device_slows_its_next_picture/1,
    a_dead_simulated_worker_changes_no_pixel/1,
    a_poisoned_call_fails_its_generation_and_no_other/1,
    pictures_that_wait_for_a_device_share_its_next_batch/1,
    what_is_deterministic_shares_no_batch/1,
    a_setting_keeps_pictures_apart/1,
    a_poison_takes_nobody_along_twice/1,
    what_is_drawn_is_counted_and_foretold/1,
    what_was_drawn_at_once_foretells_the_next/1,
    who_comes_at_the_same_moment_is_foretold_with_the_others/1,
    who_has_to_wait_is_told_how_long/1
]).

-define(STEPS, 6).
-define(CALL_US, 4000).
-define(SEEDS, [1, 2, 3, 4]).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [
        a_generation_runs_to_its_end_and_says_what_it_is,
        the_same_request_is_the_same_picture,
        a_picture_takes_what_its_calls_take,
        velocities_used_again_are_calls_not_made,
        nothing_is_used_again_across_a_change_of_routing,
        a_slow_device_slows_its_next_picture,
        a_dead_simulated_worker_changes_no_pixel,
        a_poisoned_call_fails_its_generation_and_no_other,
        pictures_that_wait_for_a_device_share_its_next_batch,
        what_is_deterministic_shares_no_batch,
        a_setting_keeps_pictures_apart,
        a_poison_takes_nobody_along_twice,
        what_is_drawn_is_counted_and_foretold,
        what_was_drawn_at_once_foretells_the_next,
        who_comes_at_the_same_moment_is_foretold_with_the_others,
        who_has_to_wait_is_told_how_long
    ].

init_per_suite(Config) ->
    ok = baguette_engine_fixture:start_simulated(#{
        model => #{experts => 3, steps => ?STEPS}, batch_us => ?CALL_US - 1000, row_us => 1000,
        encode_us => 0, advance_us => 0, decode_us => 0, load_ms => 1, restart_ms => 10
    }),
    Config.

end_per_suite(_Config) ->
    baguette_engine_fixture:stop().

%% Cases ----------------------------------------------------------------------------------------

a_generation_runs_to_its_end_and_says_what_it_is(_Config) ->
    {ok, #{name := <<"simulated-model">>, num_experts := 3}} = baguette_engine:model(),
    [
        ?assertMatch(#{simulated := true, os_pid := undefined, state := ready}, Worker)
     || Worker <- baguette_engine:workers()
    ],
    {ok, Id} = baguette_engine:generate(#{prompt => <<"a">>, n => 2}),
    ok = baguette_engine:watch(Id),
    {ok, Result} = baguette_engine:await(Id, infinity),
    ?assertMatch(#{simulated := true, steps := ?STEPS, top_k := 2}, Result),
    #{images := [First, Second], keys := Keys, routing := [Routing, _]} = Result,
    ?assertEqual(?STEPS, length(Routing)),
    ?assertMatch(<<137, "PNG", _/binary>>, maps:get(png, First)),
    ?assertNotEqual(pixels(First), pixels(Second)),
    [?assertMatch(<<"simulated", _/binary>>, Key) || Key <- maps:values(Keys)],
    ?assertEqual([], os_processes()).

the_same_request_is_the_same_picture(_Config) ->
    Request = #{seed => 7, n => 2, guidance_scale => 3.0},
    ?assertEqual(pictures(draw(Request)), pictures(draw(Request))),
    ?assertNotEqual(pictures(draw(Request)), pictures(draw(Request#{guidance_scale => 4.0}))).

%% Both experts of a step are asked at once, of one device here: the step takes two calls, to the
%% millisecond that the first and the last answer may come early. What the machine takes beside is
%% not bounded.
a_picture_takes_what_its_calls_take(_Config) ->
    #{calls := Calls, seconds := #{experts := Seconds}} = draw(#{}),
    ?assertEqual(2 * ?STEPS, length(Calls)),
    [?assertEqual(?CALL_US / 1000, Ms) || #{compute_ms := Ms} <- Calls],
    ?assert(Seconds * 1000 >= ?STEPS * (2 * ?CALL_US / 1000 - 1)).

%% Every expert is chosen at every step, and each step moves an image by one part in ten: two of
%% three steps stay below a quarter.
velocities_used_again_are_calls_not_made(_Config) ->
    Request = #{n => 2, steps => 10, top_k => full, deterministic => false},
    #{calls := All, routing := [_, _]} = draw(Request),
    ?assertEqual(10 * 3, length(All)),
    #{calls := Calls, images := Images, routing := Routing} = draw(Request#{cache => 0.25}),
    ?assertEqual([0, 3, 6, 9], lists:usort([Step || #{step := Step} <- Calls])),
    ?assertEqual(4 * 3, length(Calls)),
    ?assertEqual([6 * 3, 6 * 3], [Saved || #{reused := Saved} <- Images]),
    [
        ?assertEqual(
            [1, 2, 4, 5, 7, 8],
            [Step || {Step, #{reused := true}} <- lists:zip(lists:seq(0, 9), Lines)]
        )
     || Lines <- Routing
    ].

nothing_is_used_again_across_a_change_of_routing(_Config) ->
    #{calls := Calls, routing := [Lines]} = draw(#{steps => 40, top_k => 2, cache => 10.0}),
    Sets = [lists:sort(Experts) || #{experts := Experts} <- Lines],
    Changed = [0, 39 | [Step || {Step, Was, Is} <- lists:zip3(
        lists:seq(1, 39), lists:droplast(Sets), tl(Sets)), Was =/= Is]],
    ?assertEqual(lists:usort(Changed), lists:usort([Step || #{step := Step} <- Calls])).

a_slow_device_slows_its_next_picture(_Config) ->
    Before = pictures(draw(#{})),
    ok = baguette_engine:simulate(#{speed => 0.1}),
    #{calls := Calls} = Slow = draw(#{}),
    ok = baguette_engine:simulate(#{speed => 1}),
    [?assertEqual(?CALL_US / 100, Ms) || #{compute_ms := Ms} <- Calls],
    ?assertEqual(Before, pictures(Slow)).

%% The worker dies of every call until it is told otherwise; the generation waits and goes on.
a_dead_simulated_worker_changes_no_pixel(_Config) ->
    Undisturbed = pictures(draw(#{seed => 3, steps => 40})),
    {ok, Id} = submit(#{seed => 3, steps => 40}),
    ok = baguette_engine:watch(Id),
    receive {baguette_engine, Id, {step, _}} -> ok end,
    %% Time enough to be told otherwise before the next worker dies of it too.
    ok = baguette_engine:simulate(#{fail => died, restart_ms => 1000}),
    receive {baguette_engine, Id, {failover, #{why := died}}} -> ok end,
    ok = baguette_engine:simulate(#{fail => none}),
    {ok, Result} = baguette_engine:await(Id, infinity),
    ?assertEqual(Undisturbed, pictures(Result)),
    ?assertMatch(#{failovers := [_ | _]}, Result).

a_poisoned_call_fails_its_generation_and_no_other(_Config) ->
    ok = baguette_engine:simulate(#{fail => not_finite}),
    {ok, Id} = submit(#{}),
    ?assertMatch({error, {not_finite, #{expert := _}}}, baguette_engine:await(Id, infinity)),
    ok = baguette_engine:simulate(#{fail => none}),
    ?assertMatch(#{simulated := true}, draw(#{})).

%% The same pictures as alone, of fewer batches than calls.
pictures_that_wait_for_a_device_share_its_next_batch(_Config) ->
    Alone = [pictures(draw(loose(Seed))) || Seed <- ?SEEDS],
    {Batches, Rows, Together} = company(fun loose/1),
    ?assertEqual(Alone, Together),
    ?assertEqual(length(?SEEDS) * 2 * ?STEPS, Rows),
    ?assert(Batches < Rows, {Batches, Rows}).

what_is_deterministic_shares_no_batch(_Config) ->
    {Batches, Rows, _} = company(fun(Seed) -> #{seed => Seed, deterministic => true} end),
    ?assertEqual(Rows, Batches).

a_setting_keeps_pictures_apart(_Config) ->
    ok = application:set_env(baguette_engine, batch_rows, 1),
    {Batches, Rows, _} = company(fun loose/1),
    ok = application:set_env(baguette_engine, batch_rows, auto),
    ?assertEqual(Rows, Batches).

%% Who was in a batch that its worker died of is asked for alone from then on.
a_poison_takes_nobody_along_twice(_Config) ->
    ok = baguette_engine:simulate(#{poison => "hemlock"}),
    {ok, Bad} = baguette_engine:generate((loose(9))#{prompt => <<"hemlock">>, steps => 40}),
    Good = [submit((loose(Seed))#{steps => 40}) || Seed <- [1, 2, 3]],
    Results = [baguette_engine:await(Id, infinity) || {ok, Id} <- Good],
    ?assertMatch({error, {expert_call_died, #{deaths := 3}}}, baguette_engine:await(Bad, infinity)),
    ok = baguette_engine:simulate(#{poison => none}),
    [
        ?assertEqual([], [F || #{why := died, expert := E} = F <- Failovers, E =:= Twice])
     || {ok, #{failovers := Failovers}} <- Results,
        Died <- [[E || #{why := died, expert := E} <- Failovers]],
        Twice <- Died -- lists:usort(Died)
    ].

what_is_drawn_is_counted_and_foretold(_Config) ->
    Before = [counted(Name) || Name <- [calls_total, step_seconds, generations_total]],
    #{} = draw(#{}),
    ?assertEqual(
        [{calls_total, 2 * ?STEPS}, {step_seconds, ?STEPS}, {generations_total, 1}],
        [{Name, counted(Name) - Was} || {Name, Was} <- lists:zip([
            calls_total, step_seconds, generations_total
        ], Before)]
    ),
    [#{p50_ms := Median, p95_ms := High, node := Node} | _] = baguette_engine:calls(),
    ?assert(node() =:= Node andalso Median >= ?CALL_US / 1000 - 1 andalso High >= Median),
    ?assertEqual(
        #{running => 0, waiting => 0, max_running => 4, max_waiting => 64},
        baguette_engine:admission()
    ),
    Foretold = well_foretold(#{}, 0, infinity),
    Least = ?STEPS * 2 * ?CALL_US / 1.0e6,
    ?assert(Foretold > Least / 4, {Foretold, Least}),
    [Once, Twice] = [seconds(#{steps => Steps}) || Steps <- [?STEPS, 2 * ?STEPS]],
    ?assert(Twice > 1.5 * Once, {Twice, Once}),
    ?assertMatch({error, {bad_request, steps, _, _}},
        baguette_engine:predict(#{prompt => <<"a">>, steps => 0})).

%% Beside three others, then by itself. Four take turns at one device.
what_was_drawn_at_once_foretells_the_next(_Config) ->
    Request = #{deterministic => true, steps => 2 * ?STEPS},
    Beside = well_foretold(Request, 3, infinity),
    well_foretold(Request, 0, Beside).

%% What it was learnt to cost to be drawn beside others counts for those that have not begun yet.
%% Who never comes is forgotten.
who_comes_at_the_same_moment_is_foretold_with_the_others(_Config) ->
    Request = #{prompt => <<"a">>, deterministic => true, steps => 2 * ?STEPS},
    {ok, #{seconds := Alone}} = baguette_engine:expect(first, Request),
    {ok, #{seconds := Alone}} = baguette_engine:expect(first, Request),
    Next = [baguette_engine:expect(Name, Request) || Name <- [second, third]],
    [{ok, #{seconds := Second}}, {ok, #{seconds := Third}}] = Next,
    ?assert(Third > Second andalso Second > Alone, {Alone, Second, Third}),
    [ok = baguette_engine:came(Name) || Name <- [second, third]],
    baguette_engine_fixture:until(fun() ->
        {ok, #{seconds := Now}} = baguette_engine:expect(second, Request),
        ok = baguette_engine:came(second),
        Now =:= Alone
    end).

who_has_to_wait_is_told_how_long(_Config) ->
    {ok, #{queue_seconds := None}} = baguette_engine:predict(#{prompt => <<"a">>}),
    ?assertEqual(0.0, None),
    ok = baguette_engine:simulate(#{speed => 0.01}),
    Ids = [Id || _ <- lists:seq(1, 8), {ok, Id} <- [submit(#{steps => 100})]],
    {ok, #{queue_seconds := Queue}} = baguette_engine:predict(#{prompt => <<"a">>}),
    More = baguette_engine:work_seconds(800),
    [ok = baguette_engine:cancel(Id) || Id <- Ids],
    ok = baguette_engine:simulate(#{speed => 1}),
    ?assertMatch(#{running := 0, waiting := 0}, until_running(0)),
    %% Of four images at a time none has got far.
    ?assert(Queue > 0.0 andalso More > 1.9 * Queue andalso More < 2.5 * Queue, {Queue, More}),
    ?assertEqual(0.0, baguette_engine:work_seconds(0)).

%% Helpers --------------------------------------------------------------------------------------

loose(Seed) -> #{seed => Seed, deterministic => false}.

%% Several pictures at once: how many batches of how many rows, and the pictures.
company(Request) ->
    Before = batches(),
    Ids = [Id || Seed <- ?SEEDS, {ok, Id} <- [submit(Request(Seed))]],
    Results = [baguette_engine:await(Id, infinity) || Id <- Ids],
    {Count, Sum} = batches(),
    {Count0, Sum0} = Before,
    {Count - Count0, round(Sum - Sum0), [pictures(Result) || {ok, Result} <- Results]}.

batches() ->
    [[{[], #{count := Count, sum := Sum}}]] =
        [S || #{name := <<"batch_rows">>, samples := S} <- baguette_engine:metrics()],
    {Count, Sum}.

%% Draws the same beside so many others until it is foretold what it takes, and less than so much
%% (any number is less than an atom): what a machine that stood still for a moment has taught is
%% made up for by what is drawn after it. For ever, where what is foretold has nothing to do with
%% what is drawn.
well_foretold(Request, Others, Below) ->
    Company = [Id || _ <- lists:seq(1, Others), {ok, Id} <- [submit(Request#{steps => 250})]],
    {Foretold, Took} = lists:unzip([foretold(Request) || _ <- lists:seq(1, 9)]),
    ?assertMatch(#{running := Others, waiting := 0}, until_running(Others)),
    [ok = baguette_engine:cancel(Id) || Id <- Company],
    ?assertMatch(#{running := 0}, until_running(0)),
    [Before, After] = [median(lists:nthtail(3, Seconds)) || Seconds <- [Foretold, Took]],
    ct:log("~.3f s foretold, ~.3f s taken", [Before, After]),
    case Before < 2.5 * After andalso After < 2.5 * Before andalso Before < Below of
        true -> Before;
        false -> well_foretold(Request, Others, Below)
    end.

median(Numbers) -> lists:nth(length(Numbers) div 2 + 1, lists:sort(Numbers)).

%% What was said of it before, and what it took.
foretold(Request) ->
    Said = seconds(Request),
    #{seconds := #{total := Total}} = draw(Request),
    {Said, Total}.

seconds(Request) ->
    {ok, #{seconds := Seconds}} = baguette_engine:predict(Request#{prompt => <<"a">>}),
    Seconds.

until_running(Wanted) ->
    baguette_engine_fixture:until(fun() ->
        maps:get(running, baguette_engine:admission()) =:= Wanted
    end),
    baguette_engine:admission().

submit(Options) ->
    baguette_engine:generate(Options#{prompt => <<"a">>}).

draw(Options) ->
    {ok, Id} = submit(Options),
    {ok, Result} = baguette_engine:await(Id, infinity),
    Result.

pictures(#{images := Images}) -> [pixels(Image) || Image <- Images].

pixels(#{pixels_sha256 := Hash}) -> Hash.

counted(Name) ->
    [Samples] = [
        S
     || #{name := N, samples := S} <- baguette_engine:metrics(), N =:= atom_to_binary(Name)
    ],
    lists:sum([case Value of #{count := N} -> N; N -> N end || {_, Value} <- Samples]).

%% What this beam started; a port of its own is no OS process.
os_processes() ->
    [Port || Port <- erlang:ports(), is_worker(erlang:port_info(Port, name))].

is_worker({name, Name}) -> string:find(Name, "python") =/= nomatch;
is_worker(undefined) -> false.
