%% @doc An application above the room, as small as can be: it holds what it is told to, at once,
%% unless a component is on the list of those that fail. Also keeps what a watcher is told.
%% The inventory and that list are persistent terms, set by the suite before the room starts.
-module(baguette_cluster_fake_component).

-behaviour(baguette_cluster_component).

-export([inventory/0, memory_mib/0, hold/1]).
-export([setup/2, watch/0, events/0]).

-spec setup([binary()], [binary()]) -> ok.
setup(Components, Failing) ->
    persistent_term:put(?MODULE, {Components, Failing}).

-spec inventory() -> {ok, [baguette_cluster_component:item()]}.
inventory() ->
    {Components, _} = persistent_term:get(?MODULE),
    {ok, [#{component => C, size_mib => 10, key => <<"k">>} || C <- Components]}.

-spec memory_mib() -> non_neg_integer().
memory_mib() -> 100.

-spec hold([binary()]) -> ok.
hold(Components) ->
    {_, Failing} = persistent_term:get(?MODULE),
    lists:foreach(
        fun(C) -> baguette_cluster:component_state(C, outcome(lists:member(C, Failing))) end,
        Components).

outcome(true) -> failed;
outcome(false) -> ready.

%% @doc Collects the room's events on this node from now on.
-spec watch() -> ok.
watch() ->
    Asker = self(),
    Pid = spawn(fun() ->
        ok = baguette_cluster:watch(),
        Asker ! {watching, self()},
        collect([])
    end),
    true = register(?MODULE, Pid),
    receive {watching, Pid} -> ok end.

-spec events() -> [baguette_cluster:event()].
events() ->
    ?MODULE ! {tell, self()},
    receive {told, Events} -> Events end.

collect(Events) ->
    receive
        {baguette_cluster, Event} -> collect([Event | Events]);
        {tell, Asker} -> Asker ! {told, lists:reverse(Events)}, collect(Events)
    end.
