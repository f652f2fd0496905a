%% @doc What web rooms ask of each other, for the dashboard: what a node knows of itself and does
%% not gossip, and its supervision tree. Once released a line here never changes; a new need is a
%% new version beside it. Calls have deadlines and never connect (the node's flags see to that).
-module(baguette_web_remote_v1).

-export([looks/2, tree/1]).
%% Runs on the node that is asked
-export([look/1, own_tree/0]).
-export_type([look/0]).

-define(LOOK_MS, 1500).
-define(TREE_MS, 3000).

-type look() :: #{workers := [map()], events := [map()]}.

%% @doc What these nodes say of themselves, with their last `Events' events; who is silent, or has
%% no such module yet, is left out.
-spec looks([node()], pos_integer()) -> #{node() => look()}.
looks(Nodes, Events) ->
    Answers = erpc:multicall(Nodes, ?MODULE, look, [Events], ?LOOK_MS),
    maps:from_list([{Node, Look} || {Node, {ok, #{} = Look}} <- lists:zip(Nodes, Answers)]).

%% @doc A node's supervision tree.
-spec tree(node()) -> {ok, map()} | {error, no_answer}.
tree(Node) ->
    try
        {ok, erpc:call(Node, ?MODULE, own_tree, [], ?TREE_MS)}
    catch
        error:{erpc, _} -> {error, no_answer};
        %% The other side's own failure is in the other side's log.
        error:{exception, _, _} -> {error, no_answer};
        exit:{exception, _} -> {error, no_answer}
    end.

-spec look(pos_integer()) -> look().
look(Events) ->
    #{
        workers => [maps:with([kind, state, deaths], W) || W <- baguette_engine:workers()],
        events => baguette_web_teller:recent(Events)
    }.

-spec own_tree() -> map().
own_tree() ->
    baguette_web_tree:own().
