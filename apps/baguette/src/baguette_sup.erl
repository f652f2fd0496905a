%% @doc Top of the face. The face has no state of its own, so there is nothing to supervise but the
%% guard of a node whose launcher asked for one.
-module(baguette_sup).
-behaviour(supervisor).

-export([start_link/1]).
-export([init/1]).

-spec start_link(none | stdin) -> {ok, pid()} | {error, term()}.
start_link(Guard) ->
    case supervisor:start_link({local, ?MODULE}, ?MODULE, Guard) of
        ignore -> {error, ignored};
        Result -> Result
    end.

-spec init(none | stdin) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(none) ->
    {ok, {#{}, []}};
init(stdin) ->
    {ok, {#{}, [#{id => guard, start => {baguette_guard, start_link, []}}]}}.
