%% @doc How long a denoising step is expected to take under a plan: what placement minimises. Pure.
%%
%% A step asks two different components at once, drawn by how often each is asked, each of the
%% holder that answers it first; two asked of one node come one after the other. So, with
%% alone(n) = call time + distance of n, a pair costs
%%   max(alone(n), alone(m))           asked of different nodes n and m,
%%   2 x call time + distance          asked of one node.
%% Of a component's holders only the two nearest matter: where the nearest of both differ, nothing
%% is better; where they are one node, the choice is between that node for both and the second
%% nearest for either. That makes the sum over all pairs exact at the price of sorting the
%% components: no approximation for large fleets. docs/internals/placement.md has the proof.
%% Called by baguette_cluster_draft and the modules that make plans with it.
-module(baguette_cluster_step_time).

-export([expected/3, coarse/1]).
%% The parts, for who looks for a better plan
-export([seat/3, joined/3, undisturbed/1, share/2, shares/3, total/1]).
-export_type([speed/0, seat/0]).

-type component() :: baguette_cluster_component:component().
-type speed() :: {CallUs :: pos_integer(), DistanceUs :: non_neg_integer()}.
%% A component as far as its step time goes: its weight, its nearest holder, what that takes when
%% asked for nothing else, and what it takes more when it is asked for another one too.
-opaque seat() :: {
    Weight :: pos_integer(),
    Nearest :: node(),
    AloneUs :: pos_integer(),
    ExtraUs :: non_neg_integer()
}.

%% @doc The mean over all pairs in microseconds, after the number of components without a holder.
-spec expected(#{component() => [node()]}, #{node() => speed()},
    #{component() => pos_integer()}) -> {Uncovered :: non_neg_integer(), Us :: non_neg_integer()}.
expected(Plan, Speeds, Weights) ->
    Rows = maps:to_list(Plan),
    Seats = [seat(maps:get(C, Weights), Nodes, Speeds) || {C, [_ | _] = Nodes} <- Rows],
    Ones = [undisturbed(setelement(3, Seat, 1)) || Seat <- Seats],
    {length(Rows) - length(Seats), total(Seats) div max(1, total(Ones))}.

%% @doc A measurement to three binary digits, rounded down: a trembling one changes nothing.
-spec coarse(non_neg_integer()) -> non_neg_integer().
coarse(Us) when Us < 8 -> Us;
coarse(Us) -> coarse(Us bsr 1) bsl 1.

-spec seat(pos_integer(), [node(), ...], #{node() => speed()}) -> seat().
seat(Weight, [First | Rest], Speeds) ->
    {Call, Distance} = maps:get(First, Speeds),
    Join = fun(Node, Seat) -> joined(Seat, Node, maps:get(Node, Speeds)) end,
    lists:foldl(Join, {Weight, First, Call + Distance, Call}, Rest).

%% @doc The seat with one holder more.
-spec joined(seat(), node(), speed()) -> seat().
joined({Weight, _, Alone, _}, Node, {Call, Distance}) when Call + Distance < Alone ->
    {Weight, Node, Call + Distance, min(Call, Alone - Call - Distance)};
joined({Weight, Nearest, Alone, Extra}, _Node, {Call, Distance}) ->
    {Weight, Nearest, Alone, min(Extra, Call + Distance - Alone)}.

%% @doc The seat as if it never had to wait for another one.
-spec undisturbed(seat()) -> seat().
undisturbed(Seat) -> setelement(4, Seat, 0).

%% @doc What one component adds to the total beside the others.
-spec share(seat(), [seat()]) -> non_neg_integer().
share({Weight, _, Alone, _}, []) -> Weight * Weight * Alone;
share({Weight, _, _, _} = Seat, Others) -> Weight * pairs(Seat, Others, 0).

pairs(_, [], Sum) ->
    Sum;
pairs({_, N, A, X} = Seat, [{Weight, N, _, Y} | Rest], Sum) ->
    pairs(Seat, Rest, Sum + Weight * (A + min(X, Y)));
pairs({_, _, A, _} = Seat, [{Weight, _, B, _} | Rest], Sum) ->
    pairs(Seat, Rest, Sum + Weight * max(A, B)).

%% @doc What one component would add beside the others with each of these nodes as its only holder,
%% best first. Much is common to all nodes, so this costs little more than one share/2.
-spec shares(pos_integer(), [{node(), speed()}], [seat()]) ->
    [{Share :: non_neg_integer(), AloneUs :: pos_integer(), node()}].
shares(Weight, Nodes, []) ->
    lists:sort([{Weight * Weight * (C + D), C + D, N} || {N, {C, D}} <- Nodes]);
shares(Weight, Nodes, Others) ->
    Levels = lists:usort([C + D || {_, {C, D}} <- Nodes]),
    Slowest = maps:from_list([
        {Us, lists:sum([W * max(Us, Alone) || {W, _, Alone, _} <- Others])}
     || Us <- Levels
    ]),
    Queues = lists:foldl(
        fun({W, N, _, X}, Sofar) -> Sofar#{N => [{W, X} | maps:get(N, Sofar, [])]} end, #{},
        Others),
    lists:sort([
        {Weight * (maps:get(C + D, Slowest) + queue(C, maps:get(N, Queues, []))), C + D, N}
     || {N, {C, D}} <- Nodes
    ]).

queue(CallUs, Seats) ->
    lists:sum([Weight * min(CallUs, Extra) || {Weight, Extra} <- Seats]).

%% @doc The sum over all pairs, by their weights. Of two plans that cover the same components the
%% one with the smaller total is the faster. A component alone is asked alone.
-spec total([seat()]) -> non_neg_integer().
total([Seat]) ->
    share(Seat, []);
total(Seats) ->
    Slowest = sweep(lists:sort([{Alone, Weight} || {Weight, _, Alone, _} <- Seats])),
    Shared = lists:sort([{Node, -Extra, Weight} || {Weight, Node, _, Extra} <- Seats]),
    Slowest + queues(Shared, none, 0, 0).

%% In ascending order each is the larger of every pair with those before it.
sweep(Sorted) ->
    {Sum, _} = lists:foldl(
        fun({Us, Weight}, {Sum, Before}) -> {Sum + Us * Weight * Before, Before + Weight} end,
        {0, 0}, Sorted),
    Sum.

%% Node by node, in descending order each is the smaller of every pair with those before it.
queues([], _Node, _Before, Sum) ->
    Sum;
queues([{Node, Minus, Weight} | Rest], Node, Before, Sum) ->
    queues(Rest, Node, Before + Weight, Sum - Minus * Weight * Before);
queues([{Next, _, Weight} | Rest], _Node, _Before, Sum) ->
    queues(Rest, Next, Weight, Sum).
