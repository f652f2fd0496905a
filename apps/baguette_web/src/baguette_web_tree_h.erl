%% @doc GET /v1/tree?node=ADDRESS: the supervision tree of any member. Handler of
%% baguette_web_routes.
-module(baguette_web_tree_h).

-export([tree/1]).

%% @doc GET /v1/tree?node=ADDRESS; without one, this node.
-spec tree(baguette_web_exchange:exchange()) -> baguette_web_exchange:answer().
tree(#{query := Query}) ->
    case member(maps:get(<<"node">>, Query, undefined)) of
        {ok, Node} -> told(Node, baguette_web_remote_v1:tree(Node));
        error -> {problem, baguette_web_problem:new(404, unknown_node())}
    end.

told(Node, {ok, Tree}) ->
    {json, 200, [], Tree#{node => baguette_web_json:address(Node)}};
told(_, {error, no_answer}) ->
    Detail = <<"that node does not answer in time; look again, or ask it directly">>,
    {problem, baguette_web_problem:new(504, Detail)}.

unknown_node() ->
    <<"no node of this cluster has that address; /v1/cluster lists them">>.

%% Compared with those that are known: nothing is made of what a client sends.
member(undefined) ->
    {ok, node()};
member(Address) ->
    Known = [N || #{node := N} <- baguette_cluster:nodes()],
    case [N || N <- Known, baguette_web_json:address(N) =:= Address] of
        [Node | _] -> {ok, Node};
        [] -> error
    end.
