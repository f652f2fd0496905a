%% @doc Every job of this node in one table, small whatever its job is like: where it is, whose, and
%% what it takes on the disk. The jobs themselves are in their processes, or ended and on disk.
%%
%% Made by baguette_web_sup, so that it outlives baguette_web_job_admission, which alone writes it;
%% everybody reads. Ids are times: the table's order is the order in which jobs came. A second table
%% has those who follow all jobs.
-module(baguette_web_job_index).

-export([table/0, clear/0, put/2, delete/1, find/1, newest/2, ended/0]).
-export([follow/2, unfollow/1, followers/0, previews/0]).
-export_type([entry/0]).

-type entry() :: #{
    pid := pid() | none,            % none: it has ended
    client := binary(),
    key := binary() | null,         % the client's own name for it (Idempotency-Key)
    hash := binary(),               % of what was asked
    images := non_neg_integer(),
    bytes => non_neg_integer(),     % of all its files, once it has ended
    finished => float()
}.

-define(FOLLOWERS, baguette_web_job_followers).

-spec table() -> ok.
table() ->
    ?FOLLOWERS = ets:new(?FOLLOWERS, [named_table, public, {read_concurrency, true}]),
    ?MODULE = ets:new(?MODULE, [named_table, public, ordered_set, {read_concurrency, true}]),
    ok.

-spec clear() -> ok.
clear() ->
    true = ets:delete_all_objects(?MODULE),
    ok.

-spec put(binary(), entry()) -> ok.
put(Id, Entry) ->
    true = ets:insert(?MODULE, {Id, Entry}),
    ok.

-spec delete(binary()) -> ok.
delete(Id) ->
    true = ets:delete(?MODULE, Id),
    ok.

-spec find(binary()) -> {ok, entry()} | unknown.
find(Id) ->
    case ets:lookup(?MODULE, Id) of
        [{_, Entry}] -> {ok, Entry};
        [] -> unknown
    end.

%% @doc At most so many jobs, newest first: those that came before this one, or all.
-spec newest(pos_integer(), binary() | none) -> {[binary()], HasMore :: boolean()}.
newest(Limit, none) -> from(Limit, ets:last(?MODULE));
newest(Limit, After) -> from(Limit, ets:prev(?MODULE, After)).

from(_, '$end_of_table') -> {[], false};
from(0, _) -> {[], true};
from(Limit, Id) ->
    {Ids, HasMore} = from(Limit - 1, ets:prev(?MODULE, Id)),
    {[Id | Ids], HasMore}.

%% @doc Those that have ended, oldest first.
-spec ended() -> [{binary(), entry()}].
ended() ->
    ets:select(?MODULE, [{{'_', #{pid => none}}, [], ['$_']}]).

%% @doc This process hears of every job from now on, of previews if it wants them; once more is
%% otherwise than before.
-spec follow(pid(), Previews :: boolean()) -> ok.
follow(Pid, Previews) ->
    true = ets:insert(?FOLLOWERS, {Pid, Previews}),
    ok.

-spec unfollow(pid()) -> ok.
unfollow(Pid) ->
    true = ets:delete(?FOLLOWERS, Pid),
    ok.

-spec followers() -> [pid()].
followers() ->
    [Pid || {Pid, _} <- ets:tab2list(?FOLLOWERS)].

%% @doc Those of them who want previews.
-spec previews() -> [pid()].
previews() ->
    [Pid || {Pid, true} <- ets:tab2list(?FOLLOWERS)].
