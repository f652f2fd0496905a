%% @doc One whole engine in the test's own node: real Python workers and a tiny untrained model, or
%% a simulated device and neither.
%% For the Common Test suites of this room and of those above it.
-module(baguette_engine_fixture).

-export([start/1, start/2, start_simulated/1, model/1, python/0, stop/0, ready/0, until/1]).

-define(WAIT_MS, 60000).

%% @doc One generation at a time, and one that waits.
-spec start(Dir :: file:filename()) -> ok.
start(Dir) ->
    start(Dir, #{}).

%% @doc The same, with other settings of the engine.
-spec start(Dir :: file:filename(), #{atom() => term()}) -> ok.
start(Dir, More) ->
    Model = model(Dir),
    Python = python(),
    Log = Model ++ ".log",
    Build = [Python, " -m baguette.families.paris.tiny ", Model, " > ", Log, " 2>&1 || cat ", Log],
    [] = os:cmd(lists:flatten(Build)),
    Settings = #{
        model_dir => Model, python => Python, pipeline => eager, max_running => 1, max_waiting => 1
    },
    start_with(maps:merge(Settings, More)).

%% @doc The same engine without Python and without a model.
-spec start_simulated(Device :: map()) -> ok.
start_simulated(Device) ->
    start_with(#{
        device => {simulated, Device}, python => "/nowhere/python", pipeline => eager,
        memory_mib => 1 bsl 20
    }).

start_with(Engine) ->
    %% Nothing is left of the settings, the model or the device of the suite before.
    _ = [application:unload(App) || App <- [baguette_engine, baguette_cluster]],
    _ = persistent_term:erase(baguette_engine_model),
    ok = logger:set_primary_config(level, error),
    ok = set(baguette_cluster, #{component_module => baguette_engine_component}),
    ok = set(baguette_engine, Engine),
    {ok, _} = application:ensure_all_started(baguette_engine),
    until(fun ready/0).

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
    baguette_engine:health() =:= ok andalso baguette_engine:experts() =/= [] andalso
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
