%% @doc The supervision tree of this node, and how often each child was started again.
%%
%% Supervisors do not count, so this process watches their children: one that goes down and is there
%% again under the same name was restarted. Started by baguette_web_sup; the counts die with this
%% process and begin again at nothing, which is why the answer says since when it has counted.
-module(baguette_web_tree).
-behaviour(gen_server).

-export([start_link/0, restarts/0, own/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-include_lib("kernel/include/logger.hrl").

%% The rooms from the lowest up, each by its top supervisor.
-define(TOPS, [baguette_cluster_sup, baguette_engine_sup, baguette_web_sup, baguette_sup]).
%% Children that came meanwhile are found so often; a death is looked at once its supervisor had
%% the time to answer it.
-define(LOOK_MS, 2000).
-define(AFTER_DEATH_MS, 100).
%% Children without a name of their own (a simple_one_for_one's) are counted, not listed.
-define(MAX_LISTED, 50).

-type key() :: {Top :: atom(), Id :: term()}.

-record(?MODULE, {
    since :: integer(),
    known = #{} :: #{key() => pid()},
    monitors = #{} :: #{reference() => key()},
    restarts = #{} :: #{key() => pos_integer()}
}).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc How often which child was started again, since when (seconds since 1970).
-spec restarts() -> {integer(), #{key() => pos_integer()}}.
restarts() ->
    gen_server:call(?MODULE, restarts).

%% @doc The tree of this node, for JSON. A worker's OS process that died was started again by its
%% owner, not by a supervisor, and is counted with it.
-spec own() -> map().
own() ->
    {Since, Restarts} = restarts(),
    Deaths = maps:from_list([{K, D} || #{kind := K, deaths := D} <- baguette_engine:workers()]),
    #{
        counted_since => Since,
        rooms => [room(Top, Restarts, Deaths) || Top <- ?TOPS, whereis(Top) =/= undefined]
    }.

%% --- the tree

room(Top, Restarts, Deaths) ->
    #{name => Top, type => supervisor, children => children(Top, Top, Restarts, Deaths)}.

children(Top, Supervisor, Restarts, Deaths) ->
    Children = lists:reverse(supervisor:which_children(Supervisor)),
    Named = [C || {Id, _, _, _} = C <- Children, Id =/= undefined],
    Anonymous = length(Children) - length(Named),
    [child(Top, C, Restarts, Deaths) || C <- lists:sublist(Named, ?MAX_LISTED)] ++
        [#{name => <<"processes">>, count => Anonymous} || Anonymous > 0].

child(Top, {Id, Pid, Type, _Modules}, Restarts, Deaths) ->
    Child = #{
        name => name(Id), type => Type, alive => is_pid(Pid),
        restarts => maps:get({Top, Id}, Restarts, 0)
    },
    case {Type, Pid} of
        {supervisor, _} when is_pid(Pid) ->
            Child#{children => children(Id, Pid, Restarts, Deaths)};
        _ ->
            maps:merge(Child, maps:from_list([{process_deaths, D} || #{Id := D} <- [Deaths]]))
    end.

name(Id) when is_atom(Id) -> Id;
name(Id) -> iolist_to_binary(io_lib:format("~0tP", [Id, 8])).

%% --- gen_server

-spec init([]) -> {ok, #?MODULE{}}.
init([]) ->
    self() ! look,
    {ok, #?MODULE{since = erlang:system_time(second)}}.

-spec handle_call(restarts, gen_server:from(), #?MODULE{}) ->
    {reply, {integer(), #{key() => pos_integer()}}, #?MODULE{}}.
handle_call(restarts, _From, #?MODULE{since = Since, restarts = Restarts} = S) ->
    {reply, {Since, Restarts}, S}.

-spec handle_cast(term(), #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_cast(Unknown, S) ->
    handle_info(Unknown, S).

-spec handle_info(look | look_once | {'DOWN', reference(), process, pid(), term()} | term(),
    #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_info(look, S) ->
    _ = erlang:send_after(?LOOK_MS, self(), look),
    {noreply, look(S)};
handle_info(look_once, S) ->
    {noreply, look(S)};
handle_info({'DOWN', Ref, process, _, _}, #?MODULE{monitors = Monitors} = S) ->
    _ = erlang:send_after(?AFTER_DEATH_MS, self(), look_once),
    {noreply, S#?MODULE{monitors = maps:remove(Ref, Monitors)}};
handle_info(_Unknown, S) ->
    ?LOG_WARNING(#{what => message_dropped, by => ?MODULE}, #{domain => [baguette, web]}),
    {noreply, S}.

look(S) ->
    lists:foldl(fun seen/2, S, lists:append([named(Top, Top) || Top <- ?TOPS])).

%% Our own supervisor may be the one that waits for us to start.
named(Top, Supervisor) when is_atom(Supervisor) ->
    case whereis(Supervisor) of
        undefined -> [];
        Pid -> named(Top, Pid)
    end;
named(Top, Supervisor) ->
    lists:append([
        [{{Top, Id}, Pid} | below(Type, Id, Pid)]
     || {Id, Pid, Type, _} <- supervisor:which_children(Supervisor), Id =/= undefined, is_pid(Pid)
    ]).

below(supervisor, Id, Pid) -> named(Id, Pid);
below(worker, _, _) -> [].

seen({Key, Pid}, #?MODULE{known = Known} = S) ->
    case Known of
        #{Key := Pid} -> S;
        #{Key := _Before} -> watched(Key, Pid, again(Key, S));
        #{} -> watched(Key, Pid, S)
    end.

again(Key, #?MODULE{restarts = Restarts} = S) ->
    S#?MODULE{restarts = maps:update_with(Key, fun(N) -> N + 1 end, 1, Restarts)}.

watched(Key, Pid, #?MODULE{known = Known, monitors = Monitors} = S) ->
    Ref = monitor(process, Pid),
    S#?MODULE{known = Known#{Key => Pid}, monitors = Monitors#{Ref => Key}}.
