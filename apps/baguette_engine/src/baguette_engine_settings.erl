%% @doc The engine's settings, checked once at start; pure but for reading the environment.
%%
%% Called by baguette_engine_app (all of them) and by the processes that use one. The defaults stand
%% in baguette_engine.app.src and nowhere else.
-module(baguette_engine_settings).

-export([check/0, get/1, simulate/1]).

-export_type([key/0]).

-type key() ::
    model_dir
    | device
    | python
    | pipeline
    | threads
    | child_env
    | max_running
    | max_waiting
    | max_asks_mib
    | generation_ms
    | ask_floor_ms
    | missing_ms
    | hung_ms
    | memory_mib
    | batch_rows
    | probe_file
    | probe_quiet_ms
    | choice.

-define(KEYS, [
    model_dir,
    device,
    python,
    pipeline,
    threads,
    child_env,
    max_running,
    max_waiting,
    max_asks_mib,
    generation_ms,
    ask_floor_ms,
    missing_ms,
    hung_ms,
    memory_mib,
    batch_rows,
    probe_file,
    probe_quiet_ms,
    choice
]).

%% @doc Every setting is usable, or the first that is not, with why.
-spec check() -> ok | {error, {bad_setting, atom(), term(), binary()}}.
check() ->
    check(?KEYS).

check([]) ->
    ok;
check([Key | Rest]) ->
    Value = ?MODULE:get(Key),
    case valid(Key, Value) of
        true -> check(Rest);
        Why -> {error, {bad_setting, Key, Value, Why}}
    end.

%% @doc A setting's value.
-spec get(key()) -> term().
get(Key) ->
    {ok, Value} = application:get_env(baguette_engine, Key),
    Value.

%% @doc Change how the simulated device of this node behaves, from its next call on.
-spec simulate(map()) ->
    ok | {error, {not_simulated, map()} | {bad_setting, device, term(), binary()}}.
simulate(Changes) ->
    case ?MODULE:get(device) of
        {simulated, Given} ->
            case baguette_engine_simulated_settings:change(Changes, Given) of
                {ok, New} -> application:set_env(baguette_engine, device, {simulated, New});
                {error, Why} -> {error, {bad_setting, device, Changes, Why}}
            end;
        python ->
            {error, {not_simulated, #{}}}
    end.

valid(model_dir, undefined) -> true;
valid(model_dir, Dir) -> filelib:is_dir(Dir) orelse <<"a directory that exists">>;
valid(device, python) -> true;
valid(device, {simulated, Given}) -> baguette_engine_simulated_settings:check(Given);
valid(device, _) -> <<"python or {simulated, Map}">>;
valid(python, Path) -> is_list(Path) orelse <<"the path of a Python interpreter">>;
valid(pipeline, V) -> lists:member(V, [eager, on_demand]) orelse <<"eager or on_demand">>;
valid(threads, V) -> between(V, 1, 256);
valid(child_env, V) -> is_list(V) orelse <<"a list of {Name, Value}">>;
valid(max_running, V) -> between(V, 1, 1024);
valid(max_waiting, V) -> between(V, 0, 100000);
valid(max_asks_mib, V) -> between(V, 1, 1 bsl 20);
valid(generation_ms, V) -> between(V, 1000, 86400000);
valid(ask_floor_ms, V) -> between(V, 10, 3600000);
valid(missing_ms, V) -> between(V, 0, 3600000);
valid(hung_ms, V) -> between(V, 1000, 3600000);
valid(memory_mib, undefined) -> true;
valid(memory_mib, V) -> between(V, 1, 1 bsl 24);
valid(batch_rows, auto) -> true;
valid(batch_rows, V) -> between(V, 1, 256);
valid(probe_file, undefined) -> true;
valid(probe_file, V) -> is_list(V) andalso V =/= [] orelse <<"undefined or a file's path">>;
valid(probe_quiet_ms, V) -> between(V, 0, 3600000);
valid(choice, V) -> lists:member(V, [measured, random]) orelse <<"measured or random">>.

between(V, Low, High) ->
    (is_integer(V) andalso V >= Low andalso V =< High) orelse
        iolist_to_binary(io_lib:format("an integer in ~b..~b", [Low, High])).
