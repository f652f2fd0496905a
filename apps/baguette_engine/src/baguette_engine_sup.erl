%% @doc The engine's processes. Tables are owned here and outlive their writers.
-module(baguette_engine_sup).
-behaviour(supervisor).

-export([start_link/0, init/1]).

%% @doc Start the engine.
-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    ok = baguette_engine_admission:table(),
    ok = baguette_engine_in_flight:table(),
    ok = baguette_engine_usage:table(),
    ok = baguette_engine_pace:table(),
    ok = baguette_engine_foretold:table(),
    ok = baguette_engine_metrics:table(),
    Children = [
        %% Workers first: they take seconds, and nothing below waits for them.
        #{
            id => expert,
            start => {baguette_engine_expert, start_link, []},
            %% Its worker is killed by os_pid in terminate/2.
            shutdown => 5000
        },
        #{
            id => pipeline,
            start => {baguette_engine_pipeline, start_link, []},
            shutdown => 5000
        },
        #{id => relay, start => {baguette_engine_relay, start_link, []}},
        #{id => probes, start => {baguette_engine_probes, start_link, []}},
        #{
            id => generations,
            start => {baguette_engine_generation_sup, start_link, []},
            type => supervisor
        },
        #{id => drawing, start => {baguette_engine_drawing, start_link, []}},
        #{id => usage, start => {baguette_engine_usage, start_link, []}},
        #{id => admission, start => {baguette_engine_admission, start_link, []}}
    ],
    {ok, {#{strategy => one_for_one, intensity => 10, period => 10}, Children}}.
