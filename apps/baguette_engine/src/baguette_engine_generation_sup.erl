%% @doc The generations of this node. Temporary: a generation that crashed is a bug, told to whoever
%% waits; starting it again would forget what it had.
-module(baguette_engine_generation_sup).
-behaviour(supervisor).

-export([start_link/0, init/1]).

%% @doc Start with no generation.
-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    {ok,
        {#{strategy => simple_one_for_one}, [
            #{
                id => generation,
                start => {baguette_engine_generation, start_link, []},
                restart => temporary
            }
        ]}}.
