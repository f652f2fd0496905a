%% @doc Deletes the files of jobs, so that nobody waits for it. Started by baguette_web_jobs_sup,
%% told by baguette_web_job_admission. What it has not deleted when it dies is there again after
%% the node's next start, and deleted then.
-module(baguette_web_job_remover).
-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/1, remove/1]).
-export([init/1, handle_call/3, handle_cast/2]).

-define(LOG_META, #{domain => [baguette, web]}).

-type jobs() :: [{Id :: binary(), Images :: non_neg_integer()}].

-spec start_link(baguette_web_store:dir()) -> {ok, pid()}.
start_link(Dir) ->
    {ok, _} = gen_server:start_link({local, ?MODULE}, ?MODULE, Dir, []).

%% @doc Delete all files of these jobs, of so many images each.
-spec remove(jobs()) -> ok.
remove([]) -> ok;
remove(Jobs) -> gen_server:cast(?MODULE, {remove, Jobs}).

-spec init(baguette_web_store:dir()) -> {ok, baguette_web_store:dir()}.
init(Dir) -> {ok, Dir}.

-spec handle_call(term(), gen_server:from(), Dir) -> {noreply, Dir}.
handle_call(_Unknown, _From, Dir) -> {noreply, Dir}.

-spec handle_cast({remove, jobs()}, Dir) -> {noreply, Dir} when Dir :: baguette_web_store:dir().
handle_cast({remove, Jobs}, Dir) ->
    case baguette_web_store:delete(Dir, Jobs) of
        ok ->
            ok;
        {error, {store_failed, #{why := Why}}} ->
            ?LOG_WARNING(#{what => jobs_not_deleted, why => Why}, ?LOG_META)
    end,
    {noreply, Dir}.
