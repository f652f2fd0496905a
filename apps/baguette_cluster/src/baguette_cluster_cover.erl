%% @doc Gives a holder to every component that has none: as many as can have one, moving nothing
%% that is held unless there is no other way, and with the shortest expected step. Pure; called by
%% baguette_cluster_placement.
%%
%% First each goes where it costs the step least, in two orders: by name (this is the greedy plan,
%% which the answer is thus never worse than) and the rarest on the disks first. What finds no room
%% is then covered by augmenting paths (exact when all components are of one size), for which
%% replicas give way. Last, those that were free in the beginning change places, alone or in chains
%% of two or three, while that makes the step shorter: none of it is loaded yet, so it is free.
-module(baguette_cluster_cover).

-export([keep/1, cover/1, afresh/1]).

-type component() :: baguette_cluster_component:component().
-type draft() :: baguette_cluster_draft:draft().
%% Where a component may go.
-type edges() :: fun((component()) -> [node()]).

-define(MAX_ROUNDS, 8).

-import(baguette_cluster_draft, [add/3, drop/3, fits/3, holders/2, on_disk/2]).

%% @doc What is held, as far as it fits: with too little memory for all, one holder for as many
%% components as possible comes before a second for any.
-spec keep(baguette_cluster_draft:fleet()) -> draft().
keep(Fleet) ->
    Places = baguette_cluster_draft:places(Fleet),
    Empty = baguette_cluster_draft:new(Fleet),
    {Kept, Over} = remember([{C, N} || {N, Held} <- Places, C <- Held], Empty),
    case Over of
        [] -> Kept;
        _ -> keep_one_each(Places, Empty)
    end.

keep_one_each(Places, Empty) ->
    Pairs = lists:sort([{C, N} || {N, Held} <- Places, C <- Held]),
    Edges = fun(C) -> [N || {D, N} <- Pairs, D =:= C] end,
    Counted = lists:usort([{length(Edges(C)), C} || {C, _} <- Pairs]),
    {Primary, _} = match([C || {_, C} <- Counted], Edges, Empty),
    {Kept, _} = remember(Pairs, Primary),
    Kept.

%% Whatever of these there still is room for, what has fewest holders first.
remember(Pairs, D) ->
    Missing = [
        {length(Nodes), C, N}
     || {C, N} <- Pairs, Nodes <- [holders(C, D)], not lists:member(N, Nodes)
    ],
    lists:foldl(
        fun({_, C, N}, {Sofar, Over}) ->
            case fits(C, N, Sofar) of
                true -> {add(C, N, Sofar), Over};
                false -> {Sofar, [{C, N} | Over]}
            end
        end, {D, []}, lists:sort(Missing)).

-spec cover(draft()) -> draft().
cover(D) ->
    Free = [C || {C, []} <- lists:sort(maps:to_list(baguette_cluster_draft:plan(D)))],
    Orders = lists:usort([rarest_first(Free, D), [C || C <- Free, on_disk(C, D) =/= []]]),
    {_, _, Best} = lists:min([start(Order, Free, D) || Order <- Orders]),
    rearrange(Free, Best, ?MAX_ROUNDS).

start(Order, Free, D) ->
    {Placed, Left} = lists:foldl(fun place/2, {D, []}, Order),
    Full = make_room(lists:reverse(Left), Free, Placed),
    {length([C || C <- Order, holders(C, Full) =:= []]), baguette_cluster_draft:total(Full), Full}.

rarest_first(Free, D) ->
    Ranked = [{length(on_disk(C, D)), -baguette_cluster_draft:weight(C, D), C} || C <- Free],
    [C || {Places, _, C} <- lists:sort(Ranked), Places > 0].

place(C, {D, Left}) ->
    case best_place(C, D) of
        {_, Node} -> {add(C, Node, D), Left};
        none -> {D, [C | Left]}
    end.

%% For something that has no holder in this draft.
best_place(C, D) ->
    Roomy = [N || N <- on_disk(C, D), fits(C, N, D)],
    Speeds = baguette_cluster_draft:speeds(Roomy, D),
    Others = baguette_cluster_draft:others(C, D),
    case baguette_cluster_step_time:shares(baguette_cluster_draft:weight(C, D), Speeds, Others) of
        [{Share, _, Node} | _] -> {Share, Node};
        [] -> none
    end.

%% @doc What would be planned if nothing were held, and of what this draft has, all that still fits.
-spec afresh(draft()) -> draft().
afresh(D) ->
    Pairs = [{C, N} || {C, Nodes} <- maps:to_list(baguette_cluster_draft:plan(D)), N <- Nodes],
    {Afresh, _} = remember(Pairs, cover(baguette_cluster_draft:emptied(D))),
    Afresh.

%% Making room ----------------------------------------------------------------------------------

make_room([], _Free, D) ->
    D;
make_room(Left, Free, D) ->
    Plan = baguette_cluster_draft:plan(D),
    One = fun(C, [_ | Replicas], Sofar) ->
            lists:foldl(fun(N, Less) -> drop(C, N, Less) end, Sofar, Replicas);
        (_, [], Sofar) -> Sofar
    end,
    Soft = fun(C) ->
        case lists:member(C, Free) of
            true -> on_disk(C, D);
            false -> maps:get(C, Plan)
        end
    end,
    {Softly, Still} = match(Left, Soft, maps:fold(One, D, Plan)),
    {Covered, _} = match(Still, fun(C) -> on_disk(C, D) end, Softly),
    {Made, _} = remember([{C, N} || C <- maps:keys(Plan) -- Free, N <- maps:get(C, Plan)], Covered),
    Made.

%% Every component has one holder at most in a draft that is matched.
-spec match([component()], edges(), draft()) -> {draft(), Left :: [component()]}.
match(Components, Edges, D) ->
    {Matched, Left} = lists:foldl(
        fun(C, {Sofar, Missed}) ->
            case augment(C, Edges, Sofar, []) of
                {ok, Next} -> {Next, Missed};
                {no, _Seen} -> {Sofar, [C | Missed]}
            end
        end, {D, []}, Components),
    {Matched, lists:reverse(Left)}.

%% Finds a node for C: one with room, or one whose component can go elsewhere in turn.
-spec augment(component(), edges(), draft(), [node()]) -> {ok, draft()} | {no, [node()]}.
augment(C, Edges, D, Seen) ->
    Nodes = Edges(C) -- Seen,
    case [N || N <- Nodes, fits(C, N, D)] of
        [] -> displace(C, Nodes, Edges, D, Seen);
        Roomy -> {ok, add(C, emptiest(Roomy, D), D)}
    end.

emptiest(Nodes, D) ->
    Rank = fun(N) ->
        {length(baguette_cluster_draft:line(N, D)), baguette_cluster_draft:alone_us(N, D), N}
    end,
    {_, _, Node} = lists:min([Rank(N) || N <- Nodes]),
    Node.

displace(_C, [], _Edges, _D, Seen) ->
    {no, Seen};
displace(C, [Node | Rest], Edges, D, Seen) ->
    case lists:member(Node, Seen) of
        true ->
            displace(C, Rest, Edges, D, Seen);
        false ->
            Others = baguette_cluster_draft:line(Node, D),
            case give_way(C, Node, Others, Edges, D, [Node | Seen]) of
                {ok, Next} -> {ok, Next};
                {no, Wider} -> displace(C, Rest, Edges, D, Wider)
            end
    end.

give_way(_C, _Node, [], _Edges, _D, Seen) ->
    {no, Seen};
give_way(C, Node, [Other | Rest], Edges, D, Seen) ->
    Without = drop(Other, Node, D),
    case fits(C, Node, Without) of
        true ->
            case augment(Other, Edges, add(C, Node, Without), Seen) of
                {ok, Next} -> {ok, Next};
                {no, Wider} -> give_way(C, Node, Rest, Edges, D, Wider)
            end;
        false ->
            give_way(C, Node, Rest, Edges, D, Seen)
    end.

%% Changing places ------------------------------------------------------------------------------

%% Each change makes the total smaller, so this ends; the bound is on time.
rearrange(_Free, D, 0) ->
    D;
rearrange(Free, D, Rounds) ->
    Movable = [C || C <- Free, holders(C, D) =/= []],
    Length = chain_length(length(Movable)),
    case lists:foldl(fun(C, Sofar) -> move(C, Movable, Length, Sofar) end, D, Movable) of
        D -> D;
        Better -> rearrange(Free, Better, Rounds - 1)
    end.

%% How many may change places with each other: the time is the number of movable ones to this power.
chain_length(Movable) when Movable =< 6 -> 3;
chain_length(Movable) when Movable =< 16 -> 2;
chain_length(_) -> 1.

move(C, _Movable, 1, D) ->
    [Node] = holders(C, D),
    Without = drop(C, Node, D),
    Seat = baguette_cluster_draft:seat_of(C, D),
    Now = baguette_cluster_step_time:share(Seat, baguette_cluster_draft:others(C, D)),
    case best_place(C, Without) of
        {Share, Better} when Share < Now -> add(C, Better, Without);
        _ -> D
    end;
move(C, Movable, Length, D) ->
    [Node] = holders(C, D),
    Now = baguette_cluster_draft:total(D),
    case lists:keysort(1, chains(C, lists:delete(C, Movable), Length, drop(C, Node, D))) of
        [{Total, Better} | _] when Total < Now -> Better;
        _ -> D
    end.

%% C, which has no holder in this draft, goes where there is room, or takes the place of another
%% one, which goes on in the same way.
chains(C, Movable, Length, D) ->
    Straight = case best_place(C, D) of
        {_, Node} ->
            Placed = add(C, Node, D),
            [{baguette_cluster_draft:total(Placed), Placed}];
        none ->
            []
    end,
    Straight ++ lists:append([push(C, Other, Movable, Length, D) || Length > 1, Other <- Movable]).

push(C, Other, Movable, Length, D) ->
    [Node] = holders(Other, D),
    Without = drop(Other, Node, D),
    case lists:member(Node, on_disk(C, D)) andalso fits(C, Node, Without) of
        true -> chains(Other, lists:delete(Other, Movable), Length - 1, add(C, Node, Without));
        false -> []
    end.
