%% @doc How a worker is started and what its entry points are called with; pure but for settings.
%%
%% The names of Python entry points stand here and in the two `*_entry.py' modules they belong to.
-module(baguette_engine_worker_entry).

-export([options/2, model/1, machine/0]).

%% @doc Options of a worker of this kind that runs `Boot' after every start.
-spec options(pipeline | expert, [{atom(), binary()}]) -> baguette_engine_worker:options().
options(Kind, Boot) ->
    #{
        kind => Kind,
        device => device(),
        python => baguette_engine_settings:get(python),
        env => env(),
        boot => Boot,
        hung_ms => baguette_engine_settings:get(hung_ms)
    }.

%% @doc A payload that names this node's model directory and thread count.
-spec model(map()) -> binary().
model(More) ->
    Dir = model_dir(device()),
    Threads = baguette_engine_settings:get(threads),
    baguette_engine_msgpack:encode(More#{model_dir => {text, Dir}, threads => Threads}).

%% @doc A payload that names the thread count and where measurements are kept.
-spec machine() -> binary().
machine() ->
    File = case baguette_engine_settings:get(probe_file) of
        undefined -> nil;
        Path -> {text, unicode:characters_to_binary(Path)}
    end,
    Threads = baguette_engine_settings:get(threads),
    baguette_engine_msgpack:encode(#{threads => Threads, probe_file => File}).

device() ->
    case baguette_engine_settings:get(device) of
        python -> python;
        {simulated, _} -> simulated
    end.

model_dir(python) -> unicode:characters_to_binary(baguette_engine_settings:get(model_dir));
model_dir(simulated) -> <<"simulated">>.

%% One thread a worker, asleep when idle: many workers share few cores, and the thread count is part
%% of what "identical" means. Nothing is fetched: weights are files.
env() ->
    Threads = integer_to_list(baguette_engine_settings:get(threads)),
    [
        {"OMP_NUM_THREADS", Threads},
        {"MKL_NUM_THREADS", Threads},
        {"OMP_WAIT_POLICY", "PASSIVE"},
        {"TOKENIZERS_PARALLELISM", "false"},
        {"HF_HUB_OFFLINE", "1"},
        {"PYTHONUNBUFFERED", "1"},
        %% Weights in huge pages: a worker that shares its core finds the TLB cold at every call.
        {"GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"}
        | baguette_engine_settings:get(child_env)
    ].
