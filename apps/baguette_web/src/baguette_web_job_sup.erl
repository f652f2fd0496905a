%% @doc One process for each job that has not ended. A job that dies is not started again here:
%% baguette_web_job_admission knows from what to begin it again.
-module(baguette_web_job_sup).
-behaviour(supervisor).

-export([start_link/0, start_child/1, init/1]).

-define(STOP_MS, 5000).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

-spec start_child(baguette_web_job:start()) -> {ok, pid()}.
start_child(Start) ->
    {ok, Pid} = supervisor:start_child(?MODULE, [Start]),
    {ok, Pid}.

-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    {ok, {#{strategy => simple_one_for_one}, [#{
        id => job, start => {baguette_web_job, start_link, []}, restart => temporary,
        shutdown => ?STOP_MS
    }]}}.
