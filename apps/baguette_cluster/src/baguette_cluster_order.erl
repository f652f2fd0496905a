%% @doc Whether there is a safe order in which what is held can become a plan: nobody loads what
%% does not fit, nobody lets go of what no other planned holder has ready. Nodes that are full may
%% wait for each other in a circle; a plan that needs that would never be carried out. Pure; called
%% by baguette_cluster_placement for plans that move what is held.
%%
%% A node loads first what others wait for; baguette_cluster_line keeps to the same order
%% (urgency/2), so what is found possible here is what will be done.
-module(baguette_cluster_order).

-export([exists/2, urgency/2]).

-import(baguette_cluster_draft, [add/3, drop/3, fits/3]).

%% @doc From the draft of what is held.
-spec exists(baguette_cluster_placement:plan(), baguette_cluster_draft:draft()) -> boolean().
exists(Plan, Held) ->
    Freed = lists:foldl(fun({C, N}, D) -> drop(C, N, D) end, Held, drops(Plan, Held)),
    case lists:foldl(fun load/2, Freed, loads(Plan, Freed)) of
        Held -> loads(Plan, Held) =:= [];
        Further -> exists(Plan, Further)
    end.

drops(Plan, D) ->
    [
        {C, Node}
     || {C, Holders} <- maps:to_list(baguette_cluster_draft:plan(D)),
        Named <- [maps:get(C, Plan, [])],
        lists:any(fun(N) -> lists:member(N, Holders) end, Named),
        Node <- Holders -- Named
    ].

loads(Plan, D) ->
    Ranked = [
        {urgency(Holders, Named), C, Node}
     || {C, Holders} <- maps:to_list(baguette_cluster_draft:plan(D)),
        Named <- [maps:get(C, Plan, [])],
        Node <- Named -- Holders
    ],
    [{C, Node} || {_, C, Node} <- lists:sort(Ranked)].

%% @doc What to load first, least first: what nobody holds, then what only those hold who are to let
%% go of it, then what at least somebody is to let go of.
-spec urgency(Holders :: [node()], Named :: [node()]) -> 0..3.
urgency([], _Named) -> 0;
urgency(Holders, Named) ->
    case {Holders -- Named, Holders -- (Holders -- Named)} of
        {[_ | _], []} -> 1;
        {[_ | _], _} -> 2;
        {[], _} -> 3
    end.

load({C, Node}, D) ->
    case fits(C, Node, D) of
        true -> add(C, Node, D);
        false -> D
    end.
