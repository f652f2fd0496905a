%% @doc One node with real Python workers: what it comes to know of itself, that it keeps it, and
%% that a damaged file is told and never loaded.
-module(baguette_engine_probes_SUITE).

-include_lib("stdlib/include/assert.hrl").

-import(baguette_engine_fixture, [until/1]).

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, log/2]).
-export([
    a_node_comes_to_know_itself/1,
    real_calls_refresh_what_is_told/1,
    what_is_kept_is_not_measured_again/1,
    a_crashed_prober_starts_over/1,
    a_damaged_component_is_told_once_and_never_loaded/1
]).

-define(FACT_BYTES, 2048).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [
        a_node_comes_to_know_itself,
        real_calls_refresh_what_is_told,
        what_is_kept_is_not_measured_again,
        a_crashed_prober_starts_over,
        a_damaged_component_is_told_once_and_never_loaded
    ].

init_per_suite(Config) ->
    Dir = proplists:get_value(priv_dir, Config),
    File = filename:join(Dir, "probes.json"),
    ok = baguette_engine_fixture:start(Dir, #{probe_file => File, probe_quiet_ms => 0}),
    [{model, baguette_engine_fixture:model(Dir)}, {file, File} | Config].

end_per_suite(_Config) ->
    baguette_engine_fixture:stop().

a_node_comes_to_know_itself(_Config) ->
    until(fun complete/0),
    Facts = baguette_engine:capabilities(),
    ?assertMatch(
        #{
            hardware := #{cpu := <<_, _/binary>>, cores := Cores, ram_mib := Ram, gpu := _},
            speed := #{
                device := <<_/binary>>, matmul_gflops := Matmul, cpu_gflops := _,
                memory_mib_s := Memory, call_us := #{1 := One, 4 := _, 16 := _},
                rows_equal := [_ | _], skipped := []
            },
            call_us := _,
            load_us_per_mib := _
        } when Cores > 0 andalso Ram > 0 andalso Matmul > 0 andalso Memory > 0 andalso One > 0,
        Facts
    ),
    #{memory := #{expert_peak_mib := Peak, expert_mib := Mib, pipeline_mib := Pipeline}} = Facts,
    ?assert(Mib > 50 andalso Peak >= Mib andalso Pipeline > Mib),
    #{name := Name, memory_mib := All, used_mib := Used} = Device = baguette_engine:device(),
    ?assertEqual(maps:get(device_now, Facts), Device),
    ?assert(is_binary(Name) andalso Used > 0 andalso Used < All),
    ?assertMatch(
        [#{type := gauge, samples := [{[], Bytes}]}] when Bytes =:= All * 1048576,
        [M || #{name := <<"device_memory_bytes">>} = M <- baguette_engine:metrics()]
    ),
    [?assert(erlang:external_size(Fact) =< ?FACT_BYTES) || Fact <- maps:values(Facts)].

real_calls_refresh_what_is_told(_Config) ->
    Absurd = 999999999,
    ok = baguette_cluster:publish(call_us, Absurd),
    ok = draw(),
    until(fun() -> maps:get(call_us, baguette_engine:capabilities()) < Absurd end).

what_is_kept_is_not_measured_again(Config) ->
    File = proplists:get_value(file, Config),
    #{speed := #{call_us := Calls} = Speed} = baguette_engine:capabilities(),
    %% A figure that no probe would measure shows where the answer comes from.
    {ok, Kept} = file:read_file(File),
    #{matmul_gflops := Gflops} = Speed,
    Mark = fun(N) -> iolist_to_binary(io_lib:format("\"matmul_gflops\": ~b", [N])) end,
    stop(),
    ok = file:write_file(File, binary:replace(Kept, Mark(Gflops), Mark(123456789))),
    start(),
    until(fun complete/0),
    ?assertMatch(#{speed := #{matmul_gflops := 123456789, call_us := Calls}},
        baguette_engine:capabilities()),
    stop(),
    ok = file:write_file(File, <<"{\"format\": 1, \"key\": ">>),
    start(),
    until(fun complete/0),
    #{speed := #{matmul_gflops := Measured}} = baguette_engine:capabilities(),
    ?assertNotEqual(123456789, Measured),
    ?assertMatch({ok, <<"{\n", _/binary>>}, file:read_file(File)).

a_crashed_prober_starts_over(_Config) ->
    ok = baguette_cluster:publish(speed, #{}),
    exit(whereis(baguette_engine_probes), kill),
    until(fun complete/0).

a_damaged_component_is_told_once_and_never_loaded(Config) ->
    Model = proplists:get_value(model, Config),
    Code = "import sys, pathlib, baguette.manifest as m; m.write(pathlib.Path(sys.argv[1]))",
    Python = baguette_engine_fixture:python(),
    [] = os:cmd(lists:flatten(io_lib:format("~ts -c '~ts' ~ts", [Python, Code, Model]))),
    {ok, #{on_disk := [_, #{component := Lost} | _]}} = baguette_engine_model:get(),
    stop(),
    File = filename:join([Model, "expert_1", "diffusion_pytorch_model.safetensors"]),
    {ok, Bytes} = file:read_file(File),
    Size = byte_size(Bytes) - 1,
    <<Head:Size/binary, Last>> = Bytes,
    ok = file:write_file(File, <<Head/binary, (Last bxor 1)>>),
    register(?MODULE, self()),
    ok = logger:add_handler(?MODULE, ?MODULE, #{level => error}),
    {ok, _} = application:ensure_all_started(baguette_engine),
    Told = #{
        component => Lost,
        file => <<"expert_1/diffusion_pytorch_model.safetensors">>,
        why => <<"wrong hash">>
    },
    until(fun() -> refused() =:= [Told] end),
    {ok, Items} = baguette_engine_component:inventory(),
    ?assertEqual(2, length(Items)),
    ?assertNot(lists:member(Lost, [C || #{component := C} <- Items])),
    until(fun() -> length(ready()) =:= 2 end),
    kill_worker(),
    until(fun() -> length(ready()) =:= 2 end),
    ok = logger:remove_handler(?MODULE),
    ?assertEqual([Told#{what => component_refused}], logged()),
    ?assertMatch({degraded, [{no_holder, 1}]}, baguette_engine:health()).

%% --- helpers

refused() ->
    case baguette_engine_model:get() of
        {ok, #{refused := Refused}} -> Refused;
        {error, {not_ready, _}} -> not_ready
    end.

complete() ->
    case baguette_engine:capabilities() of
        #{
            hardware := _, speed := #{rows_equal := [_ | _]}, call_us := _, load_us_per_mib := _,
            memory := #{pipeline_mib := Pipeline}
        } -> Pipeline > 0;
        _ -> false
    end.

draw() ->
    {ok, Id} = baguette_engine:generate(#{prompt => <<"words">>, steps => 20}),
    {ok, _} = baguette_engine:await(Id, infinity),
    ok.

stop() ->
    baguette_engine_fixture:stop().

start() ->
    {ok, _} = application:ensure_all_started(baguette_engine),
    until(fun baguette_engine_fixture:ready/0).

ready() ->
    [C || #{component := C, holders := [_ | _]} <- baguette_engine:experts()].

kill_worker() ->
    [Os] = [Os || #{kind := expert, os_pid := Os} <- baguette_engine:workers()],
    [] = os:cmd("kill -KILL " ++ integer_to_list(Os)),
    until(fun() -> [] =:= [x || #{os_pid := Now} <- baguette_engine:workers(), Now =:= Os] end).

log(#{msg := {report, #{what := component_refused} = Report}}, _) -> ?MODULE ! {logged, Report};
log(_, _) -> ok.

logged() ->
    receive {logged, Report} -> [Report | logged()]
    after 0 -> []
    end.
