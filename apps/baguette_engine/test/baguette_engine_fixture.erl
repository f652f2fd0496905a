%% @doc One whole engine in the test's own node: real Python workers and a tiny untrained model, or
%% a simulated device and neither.
%% For the Common Test suites of this room and of those above it.
-module(baguette_engine_fixture).

-export([start/1, start/2, start_simulated/1, stop/0, an_ask/0]).
-export([build/1, model/1, python/0, run_python/1, ready/0, serving/0, until/1]).

-define(WAIT_MS, 60000).

%% @doc One generation at a time, and one that waits.
-spec start(Dir :: file:filename()) -> ok.
start(Dir) ->
    start(Dir, #{}).

%% @doc The same, with other settings of the engine. A model that was built before is taken as it
%% is, damage and all.
-spec start(Dir :: file:filename(), #{atom() => term()}) -> ok.
start(Dir, More) ->
    Model = model(Dir),
    ok = case filelib:is_dir(Model) of
        true -> ok;
        false -> build(Dir)
    end,
    Settings = #{
        model_dir => Model, python => python(), pipeline => eager, max_running => 1,
        max_waiting => 1
    },
    start_with(maps:merge(Settings, More)).

%% @doc Make the model, with its manifest.
-spec build(Dir :: file:filename()) -> ok.
build(Dir) ->
    Model = model(Dir),
    ok = run_python(["-m baguette.families.paris.tiny ", Model]),
    Write = "from pathlib import Path; from baguette.manifest import write; write(Path('~ts'))",
    run_python(["-c \"", io_lib:format(Write, [Model]), "\""]).

%% @doc Run this checkout's Python; what it prints is the error.
-spec run_python(Arguments :: iodata()) -> ok.
run_python(Arguments) ->
    Line = lists:flatten(io_lib:format("out=$(~ts ~ts 2>&1) || echo \"$out\"", [
        python(), Arguments
    ])),
    case os:cmd(Line) of
        [] -> ok;
        Printed -> error({python_failed, Printed})
    end.

%% @doc The same engine without Python and without a model.
-spec start_simulated(Device :: map()) -> ok.
start_simulated(Device) ->
    start_with(#{
        device => {simulated, Device}, python => "/nowhere/python", pipeline => eager,
        memory_mib => 1 bsl 20
    }).

%% @doc What a generation asks, tensors included: a component and a payload.
-spec an_ask() -> {binary(), binary()}.
an_ask() ->
    1 = erlang:trace(whereis(baguette_engine_expert), true, ['receive']),
    {ok, Id} = baguette_engine:generate(#{prompt => <<"a">>, steps => 1, top_k => 1}),
    {ok, _} = baguette_engine:await(Id, infinity),
    1 = erlang:trace(whereis(baguette_engine_expert), false, ['receive']),
    {_, Component, Payload} = lists:max(asks()),
    {Component, Payload}.

asks() ->
    receive
        {trace, _, 'receive', {ask, 1, _, _, Component, _, Payload}} ->
            [{byte_size(Payload), Component, Payload} | asks()];
        {trace, _, _, _} ->
            asks()
    after 0 -> []
    end.

start_with(Engine) ->
    %% Nothing is left of the settings, the model or the device of the suite before.
    _ = [application:unload(App) || App <- [baguette_engine, baguette_cluster]],
    _ = persistent_term:erase(baguette_engine_model),
    ok = logger:set_primary_config(level, error),
    ok = set(baguette_cluster, #{component_module => baguette_engine_component}),
    ok = set(baguette_engine, Engine),
    {ok, _} = application:ensure_all_started(baguette_engine),
    until(fun serving/0).

%% @doc Where the model of `start(Dir)' lies.
-spec model(file:filename()) -> file:filename().
model(Dir) -> filename:join(Dir, "tiny").

%% @doc This checkout's Python.
-spec python() -> file:filename().
python() -> baguette_engine_checkout:path([".venv", "bin", "python"]).

set(App, Settings) ->
    _ = application:load(App),
    maps:foreach(fun(Key, Value) -> ok = application:set_env(App, Key, Value) end, Settings).

%% @doc Everything stopped, no worker left.
-spec stop() -> ok.
stop() ->
    Workers = [Os || #{os_pid := Os} <- baguette_engine:workers(), is_integer(Os)],
    [ok = application:stop(App) || App <- [baguette_engine, baguette_cluster]],
    until(fun() -> not lists:any(fun runs/1, Workers) end).

%% @doc Whether a request could be served at once.
-spec ready() -> boolean().
ready() ->
    baguette_engine:health() =:= ok andalso baguette_engine:experts() =/= [] andalso are_up().

%% @doc Ready, or as ready as this model lets it be.
-spec serving() -> boolean().
serving() ->
    case baguette_engine_model:get() of
        {ok, #{refused := [_ | _], on_disk := OnDisk}} ->
            Ready = [C || #{component := C, holders := [_ | _]} <- baguette_engine:experts()],
            length(Ready) =:= length(OnDisk) andalso are_up();
        _ ->
            ready()
    end.

are_up() ->
    [] =:= [W || #{state := State} = W <- baguette_engine:workers(), State =/= ready].

runs(Os) ->
    case file:read_file("/proc/" ++ integer_to_list(Os) ++ "/stat") of
        {ok, Stat} -> binary:match(Stat, <<") Z ">>) =:= nomatch;
        {error, _} -> false
    end.

%% @doc Waits until it holds; an error when it never does.
-spec until(fun(() -> boolean())) -> ok.
until(Holds) -> until(Holds, erlang:monotonic_time(millisecond) + ?WAIT_MS).

until(Holds, Deadline) ->
    case {Holds(), erlang:monotonic_time(millisecond) < Deadline} of
        {true, _} -> ok;
        {false, true} -> receive after 25 -> until(Holds, Deadline) end;
        {false, false} -> error({never_came_true, Holds})
    end.
