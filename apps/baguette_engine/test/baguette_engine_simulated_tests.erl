%% @doc A simulated worker as its owner and its callers see it: the worker's own protocol, answers
%% of the right shape and size, times that follow from the settings. No Python anywhere. What is
%% compared are answers' order and what they say of their time, not clocks.
-module(baguette_engine_simulated_tests).

-include_lib("eunit/include/eunit.hrl").

-define(WAIT_MS, 10000).
-define(MODEL, #{name => "tiny", experts => 4, latent_bytes => 64, context_bytes => 128}).
-define(FAST, #{
    model => ?MODEL, batch_us => 0, row_us => 0, encode_us => 0, advance_us => 0, decode_us => 0,
    load_ms => 0, restart_ms => 0
}).
-define(COMPONENT, <<"simulated-tiny/expert-1">>).

worker_test_() ->
    Cases = [
        fun boot_calls_come_first_and_the_owner_is_told/0,
        fun the_inventory_is_that_of_a_model_and_says_simulated/0,
        fun contexts_are_asked_for_once/0,
        fun velocities_have_the_size_of_latents_and_depend_on_all_that_is_given/0,
        fun what_does_not_fit_is_refused_by_its_class/0,
        fun calls_compute_one_after_the_other/0,
        fun what_is_not_urgent_waits_for_all_others/0,
        fun a_call_takes_its_batch_and_its_rows/0,
        fun a_call_ends_no_sooner_than_its_time/0,
        fun an_exact_device_is_never_early/0,
        fun a_slow_device_is_slow_from_the_next_call_on/0,
        fun a_cancelled_call_is_not_answered/0,
        fun a_device_told_to_fail_fails_with_that_class/0,
        fun a_poisoned_prompt_is_the_death_of_its_worker_and_no_other_is/0,
        fun calls_of_a_dead_caller_are_not_computed/0,
        fun a_dead_worker_answers_as_a_real_one_and_starts_again/0,
        fun settings_that_cannot_be_are_refused_by_name/0,
        fun a_change_of_the_model_is_refused/0,
        fun the_process_goes_with_its_owner/0
    ],
    {foreach, fun quiet/0, fun loud/1, [{timeout, 30, Case} || Case <- Cases]}.

quiet() ->
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, none),
    ok = baguette_engine_metrics:table(),
    _ = application:load(baguette_engine),
    ok = device(#{}),
    Level.

loud(Level) ->
    true = ets:delete(baguette_engine_metrics),
    ok = application:set_env(baguette_engine, device, python),
    logger:set_primary_config(level, Level).

boot_calls_come_first_and_the_owner_is_told() ->
    Worker = start(expert, [{inventory, #{}}, {warm, #{}}]),
    Ref = call(Worker, stats, #{}),
    ?assertMatch({booted, inventory, _}, told(Worker)),
    ?assertMatch({booted, warm, _}, told(Worker)),
    ?assertEqual(up, told(Worker)),
    ?assertMatch({ok, #{<<"device">> := <<"simulated">>}}, answer(Ref)),
    About = baguette_engine_worker:overview(Worker),
    ?assertMatch(
        #{kind := expert, simulated := true, os_pid := undefined, state := ready, deaths := 0},
        About
    ),
    ok = baguette_engine_worker:stop(Worker).

the_inventory_is_that_of_a_model_and_says_simulated() ->
    Worker = start(expert, []),
    {ok, Inventory} = answer(call(Worker, inventory, #{})),
    {ok, Machine} = answer(call(Worker, machine, #{})),
    Model = baguette_engine_model:from_inventory(Inventory, Machine),
    ?assertMatch(
        #{name := <<"simulated-tiny">>, experts := [_, ?COMPONENT, _, _], on_disk := [_, _, _, _]},
        Model
    ),
    #{on_disk := OnDisk} = Model,
    ?assertEqual(ok, baguette_cluster_component:check(OnDisk)),
    Keys = lists:usort([Key || #{key := <<"simulated-", _/binary>> = Key} <- OnDisk]),
    ?assertEqual(4, length(Keys)).

contexts_are_asked_for_once() ->
    Worker = holding(),
    {_, _, Encoded} = picture(),
    ?assertEqual(
        {ok, #{<<"unknown">> => lists:sort(hashes(Encoded))}},
        answer(call(Worker, velocity, ask([], 1)))
    ),
    ?assertMatch({ok, #{<<"velocities">> := [_]}}, answer(call(Worker, velocity, ask(all, 1)))),
    ?assertMatch({ok, #{<<"velocities">> := [_]}}, answer(call(Worker, velocity, ask([], 1)))),
    {ok, _} = answer(call(Worker, unload, #{component => {text, ?COMPONENT}})),
    ?assertMatch({error, {not_held, _}}, answer(call(Worker, velocity, ask([], 1)))).

velocities_have_the_size_of_latents_and_depend_on_all_that_is_given() ->
    Worker = holding(),
    {_, #{<<"latent">> := Latent}, _} = picture(),
    #{rows := [Row]} = Ask = ask(all, 1),
    Velocity = fun(Changed) ->
        {ok, #{<<"velocities">> := [One]}} =
            answer(call(Worker, velocity, Ask#{rows => [maps:merge(Row, Changed)]})),
        ?assertEqual(byte_size(Latent), byte_size(One)),
        One
    end,
    Changes = [#{}, #{t => 0.25}, #{scale => 2.0}, #{null => maps:get(context, Row)}],
    ?assertEqual(length(Changes), length(lists:usort([Velocity(C) || C <- Changes]))),
    ?assertEqual(Velocity(#{}), Velocity(#{})).

what_does_not_fit_is_refused_by_its_class() ->
    Worker = holding(),
    Pipeline = start(pipeline, []),
    #{rows := [Row]} = Ask = ask(all, 1),
    Wrong = Ask#{rows => [Row#{latent => baguette_engine_msgpack:encode([1, 2])}]},
    ?assertMatch({error, {bad_input, _}}, answer(call(Worker, velocity, Wrong))),
    ?assertMatch({error, {bad_input, _}}, answer(call(Worker, velocity, Ask#{rows => []}))),
    ?assertMatch({error, {failure, _}}, answer(call(Worker, no_such, #{}))),
    Load = #{component => {text, ?COMPONENT}, key => {text, <<"another">>}},
    ?assertMatch({error, {bad_weights, _}}, answer(call(Worker, load, Load))),
    {Step, Image, _} = picture(),
    Lacking = Step#{images => [Image#{<<"velocities">> => []}]},
    ?assertMatch({error, {bad_input, _}}, answer(call(Pipeline, advance, Lacking))).

%% The first is long, the others take no time: if they did not wait they would come first.
calls_compute_one_after_the_other() ->
    ok = device(#{batch_us => 30000}),
    Worker = holding(),
    Refs = [call(Worker, velocity, ask(all, 1)) | [call(Worker, stats, #{}) || _ <- [1, 2]]],
    ?assertEqual(Refs, [next_ref() || _ <- Refs]).

what_is_not_urgent_waits_for_all_others() ->
    ok = device(#{batch_us => 10000}),
    Worker = holding(),
    First = call(Worker, velocity, ask(all, 1)),
    Idle = make_ref(),
    ok = baguette_engine_worker:when_idle(Worker, Idle, self(), {explore, pack(#{})}),
    Last = call(Worker, velocity, ask([], 1)),
    ?assertEqual([First, Last, Idle], [next_ref() || _ <- [1, 2, 3]]).

a_call_takes_its_batch_and_its_rows() ->
    ok = device(#{batch_us => 1000, row_us => 100}),
    Worker = holding(),
    Micros = fun(Ask) ->
        {ok, #{<<"micros">> := Us}} = answer(call(Worker, velocity, Ask)),
        Us
    end,
    ?assertEqual([1100, 1400], [Micros((ask(all, N))#{canonical => false}) || N <- [1, 4]]),
    ?assertEqual(4400, Micros((ask(all, 4))#{canonical => true})),
    Probe = #{component => {text, ?COMPONENT}, batches => [1, 16]},
    {ok, #{<<"micros">> := Probed}} = answer(call(Worker, probe, Probe)),
    ?assertEqual(#{<<"1">> => 1100, <<"16">> => 2600}, Probed).

%% Ten calls that wait for each other: what a timer rounds is not added up, so they end, to a
%% millisecond, no sooner than the sum. Later may be the machine's doing, so it is no failure.
a_call_ends_no_sooner_than_its_time() ->
    ok = device(#{batch_us => 2400}),
    Worker = holding(),
    {ok, _} = answer(call(Worker, velocity, ask(all, 1))),
    Before = erlang:monotonic_time(microsecond),
    Refs = [call(Worker, velocity, ask([], 1)) || _ <- lists:seq(1, 10)],
    [{ok, _} = answer(Ref) || Ref <- Refs],
    ?assert(erlang:monotonic_time(microsecond) - Before >= 10 * 2400 - 1000).

%% The nearest millisecond to 3.4 ms is before it.
an_exact_device_is_never_early() ->
    ok = device(#{batch_us => 2400, row_us => 1000, exact => true}),
    Worker = holding(),
    {ok, _} = answer(call(Worker, velocity, ask(all, 1))),
    Took = fun(_) ->
        Before = erlang:monotonic_time(microsecond),
        {ok, _} = answer(call(Worker, velocity, ask([], 1))),
        erlang:monotonic_time(microsecond) - Before
    end,
    ?assert(lists:min(lists:map(Took, lists:seq(1, 30))) >= 3400).

a_slow_device_is_slow_from_the_next_call_on() ->
    ok = device(#{batch_us => 1000}),
    Worker = holding(),
    Fast = call(Worker, velocity, ask(all, 1)),
    {ok, #{<<"micros">> := 1000}} = answer(Fast),
    ok = baguette_engine:simulate(#{speed => 0.1}),
    {ok, #{<<"micros">> := 10000}} = answer(call(Worker, velocity, ask([], 1))),
    ok = baguette_engine:simulate(#{speed => 1}),
    {ok, #{<<"micros">> := 1000}} = answer(call(Worker, velocity, ask([], 1))).

a_cancelled_call_is_not_answered() ->
    ok = device(#{batch_us => 20000}),
    Worker = holding(),
    [Computing, Waiting] = [call(Worker, velocity, ask(all, 1)) || _ <- [1, 2]],
    [ok = baguette_engine_worker:cancel(Worker, Ref) || Ref <- [Computing, Waiting]],
    {ok, #{<<"calls">> := Calls}} = answer(call(Worker, stats, #{})),
    %% The one that had begun was computed, for nobody.
    ?assertEqual(1, Calls),
    ?assertEqual([], [Ref || {baguette_engine_worker, Ref, _} <- mailbox(), is_reference(Ref)]).

a_device_told_to_fail_fails_with_that_class() ->
    Worker = holding(),
    ok = baguette_engine:simulate(#{fail => out_of_memory}),
    ?assertMatch({error, {out_of_memory, _}}, answer(call(Worker, velocity, ask(all, 1)))),
    ok = baguette_engine:simulate(#{fail => none}),
    ?assertMatch({ok, _}, answer(call(Worker, velocity, ask([], 1)))).

a_poisoned_prompt_is_the_death_of_its_worker_and_no_other_is() ->
    Worker = holding(),
    ok = baguette_engine:simulate(#{poison => "another"}),
    ?assertMatch({ok, #{<<"velocities">> := _}}, answer(call(Worker, velocity, ask(all, 2)))),
    ok = baguette_engine:simulate(#{poison => "a"}),
    ?assertMatch({error, {died, _}}, answer(call(Worker, velocity, ask([], 2)))).

calls_of_a_dead_caller_are_not_computed() ->
    ok = device(#{batch_us => 200000}),
    Worker = holding(),
    Self = self(),
    Caller = spawn(fun() ->
        _ = [call(Worker, velocity, ask(all, 1)) || _ <- lists:seq(1, 5)],
        Self ! asked,
        receive never -> ok end
    end),
    receive asked -> ok end,
    exit(Caller, kill),
    {ok, #{<<"calls">> := Calls}} = answer(call(Worker, stats, #{})),
    ?assertEqual(1, Calls),
    ?assertEqual({monitors, []}, process_info(Worker, monitors)).

a_dead_worker_answers_as_a_real_one_and_starts_again() ->
    Worker = start(expert, [{inventory, #{}}]),
    [{booted, inventory, _}, up] = [told(Worker), told(Worker)],
    ok = load(Worker),
    ok = baguette_engine:simulate(#{fail => died, batch_us => 10000}),
    Poisoned = call(Worker, velocity, ask(all, 1)),
    Owners = call(Worker, stats, #{}),
    Others = from_another(Worker),
    ?assertMatch({error, {died, _}}, answer(Poisoned)),
    ?assertMatch({error, {not_held, _}}, receive {other, Answer} -> Answer end),
    ?assertEqual([down, inventory, up], [shown(told(Worker)) || _ <- [1, 2, 3]]),
    ?assertMatch(#{deaths := 1, state := ready}, baguette_engine_worker:overview(Worker)),
    ?assertEqual([], [R || {baguette_engine_worker, R, _} <- mailbox(), R =:= Owners]),
    ?assertMatch({error, {not_held, _}}, answer(call(Worker, velocity, ask([], 1)))),
    ?assertNot(is_process_alive(Others)).

settings_that_cannot_be_are_refused_by_name() ->
    Refused = fun(Given) ->
        ok = application:set_env(baguette_engine, device, {simulated, Given}),
        {error, {bad_setting, device, _, Why}} = baguette_engine_settings:check(),
        Why
    end,
    Named = [
        {"row_us", #{row_us => -1}}, {"speed", #{speed => 0}}, {"fail", #{fail => oops}},
        {"poison", #{poison => [none]}}, {"exact", #{exact => 1}},
        {"colour", #{colour => red}}, {"latent_bytes", #{model => #{latent_bytes => 33}}},
        {"name", #{model => #{name => "A/B"}}}, {"top_k", #{model => #{experts => 1, top_k => 2}}},
        {"map", #{model => 7}}, {"Map", none}
    ],
    [?assertMatch({_, [_ | _]}, {Given, string:find(binary_to_list(Refused(Given)), Name)})
     || {Name, Given} <- Named],
    ok = device(#{}),
    ?assertEqual(ok, baguette_engine_settings:check()).

a_change_of_the_model_is_refused() ->
    ?assertMatch({error, {bad_setting, device, _, _}}, baguette_engine:simulate(#{model => #{}})),
    ?assertMatch({error, {bad_setting, device, _, _}}, baguette_engine:simulate(#{speed => fast})),
    ok = application:set_env(baguette_engine, device, python),
    ?assertMatch({error, {not_simulated, _}}, baguette_engine:simulate(#{speed => 2})).

the_process_goes_with_its_owner() ->
    Self = self(),
    Owner = spawn(fun() -> Self ! {worker, start(expert, [])}, receive stop -> ok end end),
    Worker = receive {worker, W} -> W end,
    Monitor = monitor(process, Worker),
    Owner ! stop,
    receive {'DOWN', Monitor, process, _, Why} -> ?assertEqual(normal, Why) end.

%% A whole picture through the pipeline's entry points: it is a function of what is asked.
a_picture_is_a_function_of_what_is_asked_test() ->
    Draw = fun(Seed, Weights) -> drawn(Seed, Weights) end,
    ?assertEqual(Draw(1, [0.7, 0.3]), Draw(1, [0.7, 0.3])),
    ?assertNotEqual(Draw(1, [0.7, 0.3]), Draw(2, [0.7, 0.3])),
    ?assertNotEqual(Draw(1, [0.7, 0.3]), Draw(1, [0.3, 0.7])).

pictures_are_png_files_that_say_what_they_are_test() ->
    #{<<"png">> := Png, <<"pixels_sha256">> := Hash} = drawn(3, [0.5, 0.5]),
    <<137, "PNG", 13, 10, 26, 10, Chunks/binary>> = Png,
    [{<<"IHDR">>, <<Side:32, Side:32, 8, 2, _/binary>>} | Rest] = chunks(Chunks),
    ?assertEqual(
        [<<"baguette:seed", 0, "3">>, <<"baguette:simulated", 0, "true">>],
        [Data || {<<"tEXt">>, Data} <- Rest]
    ),
    [Packed] = [Data || {<<"IDAT">>, Data} <- Rest],
    Rows = zlib:uncompress(Packed),
    Pixels = << <<Row/binary>> || <<0, Row:(Side * 3)/binary>> <= Rows >>,
    ?assertEqual(Side * Side * 3, byte_size(Pixels)),
    ?assertEqual(Hash, string:lowercase(binary:encode_hex(crypto:hash(sha256, Pixels)))).

%% The skew makes experts with small numbers busier; without it all are asked alike.
the_router_prefers_whom_it_is_told_to_test() ->
    Asked = fun(Skew) ->
        Payload = #{seeds => lists:seq(1, 2000), steps => 1, top_k => 2},
        {ok, #{<<"images">> := Images}} = direct(start, Payload, #{skew => Skew}),
        [?assertEqual(2, length(lists:usort(E))) || #{<<"experts">> := E} <- Images],
        [?assert(A >= B andalso abs(A + B - 1) < 1.0e-9) || #{<<"weights">> := [A, B]} <- Images],
        All = lists:append([Es || #{<<"experts">> := Es} <- Images]),
        [length([E || E <- All, E =:= Expert]) || Expert <- [0, 1, 2, 3]]
    end,
    ?assert(lists:all(fun(C) -> C > 850 andalso C < 1150 end, Asked(0))),
    [A, B, C, D] = Asked(1.5),
    ?assert(A > B andalso B > C andalso C > D).

%% Helpers --------------------------------------------------------------------------------------

device(Changes) ->
    application:set_env(baguette_engine, device, {simulated, maps:merge(?FAST, Changes)}).

start(Kind, Boot) ->
    {ok, Worker} = baguette_engine_worker:start_link(
        baguette_engine_worker_entry:options(Kind, [{F, pack(P)} || {F, P} <- Boot])
    ),
    Worker.

holding() ->
    Worker = start(expert, []),
    ok = load(Worker),
    Worker.

load(Worker) ->
    {ok, Inventory} = answer(call(Worker, inventory, #{})),
    #{<<"components">> := All} = Inventory,
    [Key] = [K || #{<<"name">> := ?COMPONENT, <<"key">> := K} <- All],
    Load = #{component => {text, ?COMPONENT}, key => {text, Key}},
    {ok, #{<<"micros">> := _}} = answer(call(Worker, load, Load)),
    ok.

call(Worker, Function, Payload) ->
    Ref = make_ref(),
    ok = baguette_engine_worker:request(
        Worker, Ref, self(), {Function, pack(Payload)}, {alone, 1}
    ),
    Ref.

from_another(Worker) ->
    Self = self(),
    Asked = make_ref(),
    Pid = spawn(fun() ->
        Ref = call(Worker, stats, #{}),
        Self ! Asked,
        Self ! {other, answer(Ref)}
    end),
    receive Asked -> Pid end.

pack(Payload) -> baguette_engine_msgpack:encode(Payload).

answer(Ref) ->
    receive {baguette_engine_worker, Ref, Answer} -> unpacked(Answer)
    after ?WAIT_MS -> error(no_answer)
    end.

unpacked({ok, Payload}) -> baguette_engine_msgpack:decode(Payload);
unpacked({error, _} = Error) -> Error.

next_ref() ->
    receive {baguette_engine_worker, Ref, _} when is_reference(Ref) -> Ref
    after ?WAIT_MS -> error(no_answer)
    end.

told(Worker) ->
    receive {baguette_engine_worker, Worker, What} -> What
    after ?WAIT_MS -> error(not_told)
    end.

shown({booted, Function, _}) -> Function;
shown(What) -> What.

mailbox() ->
    receive Message -> [Message | mailbox()]
    after 0 -> []
    end.

%% The entry point itself, without a process.
direct(Function, Payload, Settings) ->
    InEffect = baguette_engine_simulated_settings:in_effect(maps:merge(?FAST, Settings)),
    Memory = baguette_engine_simulated_model:new(),
    {_, {ok, Answer}, _} =
        baguette_engine_simulated_model:answer(Function, pack(Payload), InEffect, Memory),
    baguette_engine_msgpack:decode(pack(Answer)).

%% A request at its first step: what `advance' takes, its one image, and the encoded text.
picture() -> picture(1).

picture(Seed) ->
    Text = #{prompt => {text, <<"a">>}, negative_prompt => {text, <<>>}},
    {ok, Encoded} = direct(encode, Text, #{}),
    {ok, #{<<"images">> := [Image]}} =
        direct(start, #{seeds => [Seed], steps => 1, top_k => 2}, #{}),
    {#{step => 0, steps => 1, top_k => 2, cache => 0.0}, Image#{<<"change">> => 0.0}, Encoded}.

hashes(#{<<"context">> := #{<<"hash">> := A}, <<"null">> := #{<<"hash">> := B}}) -> [A, B].

ask(Contexts, Rows) ->
    {_, #{<<"latent">> := Latent}, Encoded} = picture(),
    #{<<"context">> := Context, <<"null">> := Null} = Encoded,
    [A, B] = hashes(Encoded),
    Row = #{
        latent => Latent, t => 0.5, network_t => 500.0, context => {text, A}, null => {text, B},
        scale => 1.0
    },
    #{
        component => {text, ?COMPONENT},
        canonical => false,
        rows => lists:duplicate(Rows, Row),
        contexts => [
            #{hash => {text, H}, tensor => T}
         || Contexts =:= all, #{<<"hash">> := H, <<"tensor">> := T} <- [Context, Null]
        ]
    }.

drawn(Seed, Weights) ->
    {Step, #{<<"latent">> := Latent, <<"experts">> := Experts} = Image, _} = picture(Seed),
    Given = Image#{
        <<"weights">> => Weights, <<"velocities">> => [[E, Latent] || E <- Experts]
    },
    {ok, #{<<"images">> := [Moved]}} = direct(advance, Step#{images => [Given]}, #{}),
    Text = #{'baguette:seed' => {text, integer_to_binary(Seed)}},
    Decode = #{latents => [maps:get(<<"latent">>, Moved)], text => [Text]},
    {ok, #{<<"images">> := [Picture]}} = direct(decode, Decode, #{}),
    Picture.

chunks(<<>>) ->
    [];
chunks(<<Size:32, Type:4/binary, Data:Size/binary, Crc:32, Rest/binary>>) ->
    ?assertEqual(Crc, erlang:crc32([Type, Data])),
    [{Type, Data} | chunks(Rest)].
