%% @doc Admission and the processes of jobs: whenever one of the two starts, both begin anew from
%% the files. Owns their table and tells their settings.
-module(baguette_web_jobs_sup).
-behaviour(supervisor).

-export([start_link/1, settings/0, forget/0, init/1]).

-spec start_link(baguette_web_job_admission:settings()) -> {ok, pid()} | {error, term()}.
start_link(Settings) ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, Settings).

%% @doc What jobs are taken with; `none' where none are.
-spec settings() -> {ok, baguette_web_job_admission:settings()} | none.
settings() ->
    case persistent_term:get(?MODULE, none) of
        none -> none;
        Settings -> {ok, Settings}
    end.

%% @doc From now on none are taken: the room has stopped.
-spec forget() -> ok.
forget() ->
    _ = persistent_term:erase(?MODULE),
    ok.

-spec init(baguette_web_job_admission:settings()) ->
    {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(Settings) ->
    ok = baguette_web_job_index:table(),
    ok = persistent_term:put(?MODULE, Settings),
    {ok, {#{strategy => one_for_all, intensity => 5, period => 10}, [
        #{id => jobs, type => supervisor, start => {baguette_web_job_sup, start_link, []}},
        #{id => admission, start => {baguette_web_job_admission, start_link, [Settings]}}
    ]}}.
