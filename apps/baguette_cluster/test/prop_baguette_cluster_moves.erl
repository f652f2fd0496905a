%% @doc The model of moving: 3 to 8 nodes, each with its own line state and its own, stale copies of
%% the others' reports, under any interleaving of what may happen to them. The pure modules decide,
%% as in the processes; nothing else of the processes is here. Run by baguette_cluster_line_tests.
-module(prop_baguette_cluster_moves).

-include_lib("proper/include/proper.hrl").

-export([
    prop_no_move_takes_the_last_ready_holder/0,
    prop_what_is_left_alone_comes_to_rest/0,
    prop_any_order_of_starts_ends_in_equal_cost/0
]).

-import(baguette_cluster_fleet, [host/1, component/1, report/2]).

-define(PARTS, 4).
-define(SETTLE_MS, 100).
-define(ROUNDS, 80).

-record(node, {
    facts :: map(),                     % as for baguette_cluster_fleet:report/2, without states
    line :: baguette_cluster_line:state(),
    held = [] :: [binary()],
    states = #{} :: #{binary() => atom()},
    failed = [] :: [binary()],
    copies = #{} :: #{node() => baguette_cluster_report:report()},
    report :: baguette_cluster_report:report() | undefined,
    planned :: {baguette_cluster_draft:fleet(), baguette_cluster_placement:plan()} | undefined,
    wished = #{} :: #{binary() => non_neg_integer()},   % at which step
    alive = false :: boolean()
}).
-record(world, {
    nodes :: #{node() => #node{}},
    expected = any :: any | [node()],
    now = 0 :: integer(),
    step = 0 :: non_neg_integer(),
    lost = #{} :: #{binary() => non_neg_integer()},     % the step at which a ready holder fell
    moved = 0 :: non_neg_integer(),                     % ready components let go
    orphaned = [] :: list()                             % moves that took the last ready holder
}).

%% What may happen ------------------------------------------------------------------------------

world() ->
    Size = frequency([{3, range(3, 4)}, {1, range(5, 8)}]),
    ?LET(N, Size, ?LET(Facts, vector(N, node_facts()), begin
        Nodes = [{host(I), newborn(I, F)} || {I, F} <- lists:zip(lists:seq(1, N), Facts)],
        #world{nodes = maps:from_list(Nodes)}
    end)).

node_facts() ->
    ?LET({Room, Us, Disk}, {range(1, 4), call_us(), vector(?PARTS, frequency([{8, yes}, {1, no}]))},
        #{
            room => Room, call_us => Us,
            disk => [{C, 1} || {C, yes} <- lists:zip(lists:seq(1, ?PARTS), Disk)]
        }).

call_us() -> oneof([500, 1000, 4000, 100000]).

newborn(I, Facts) ->
    #node{facts = Facts#{number => I}, line = baguette_cluster_line:new(?SETTLE_MS, I)}.

events(Most) ->
    Starts = [{join, I} || I <- [1, 2, 3]] ++ [calm],
    ?LET(Length, range(1, Most), ?LET(Rest, vector(Length, event()), Starts ++ Rest)).

event() ->
    I = frequency([{5, range(1, 4)}, {1, range(1, 8)}]),
    frequency([
        {4, {report, I, I}}, {2, {table, I, I}}, {8, {tick, oneof([10, 60, 150, 600])}},
        {2, everything_arrives}, {6, calm}, {10, half_calm}, {12, {beat, I}}, {4, {loaded, I}},
        {4, {fails, I}}, {4, {crashes, I}}, {2, {call_us, I, call_us()}}, {6, {join, I}},
        {3, {dies, I}}, {8, {drains, I, boolean()}}, {2, {notices, I, I}}
    ]).

run(Commands, World) ->
    lists:foldl(fun(Command, W) -> happens(Command, W#world{step = W#world.step + 1}) end, World,
        Commands).

happens({tick, Ms}, #world{now = Now} = W) ->
    W#world{now = Now + Ms};
happens(everything_arrives, W) ->
    Reports = [(the(A, W))#node.report || A <- alive(W)],
    lists:foldl(fun(Node, Sofar) -> takes(Node, Reports, Sofar) end, W, alive(W));
happens(calm, W) ->
    calm(happens(everything_arrives, calm(W)));
happens(half_calm, W) ->
    calm(W);
happens({report, I, J}, W) ->
    both(host(I), host(J), fun(A) -> [A#node.report] end, W);
happens({table, I, J}, W) ->
    both(host(I), host(J), fun(A) -> maps:values(A#node.copies) end, W);
happens({notices, I, J}, W) ->
    Dead = [host(J)] -- alive(W),
    with(host(I), fun(#node{copies = C} = N) -> N#node{copies = maps:without(Dead, C)} end, W);
happens({join, I}, #world{nodes = Nodes} = W) ->
    case maps:find(host(I), Nodes) of
        {ok, N} -> joins(host(I), N, W);
        error -> W
    end;
happens({dies, I}, W) ->
    Node = host(I),
    case lists:member(Node, alive(W)) of
        true -> put_node(Node, (the(Node, W))#node{alive = false}, falls(Node, W));
        false -> W
    end;
happens({beat, I}, W) -> with(host(I), fun(N) -> N end, W);
happens({call_us, I, Us}, W) -> fact(I, call_us, Us, W);
happens({drains, I, Does}, W) -> fact(I, leaving, Does, W);
happens({loaded, I}, W) -> with(host(I), fun(N) -> all_become(loading, ready, N) end, W);
happens({crashes, I}, W) ->
    with(host(I), fun(N) -> all_become(ready, loading, N) end, falls(host(I), W));
happens({fails, I}, W) -> with(host(I), fun fail/1, falls(host(I), W)).

%% Long enough for plans to settle and for what follows from that to be loaded. Without calm in
%% between nothing would ever be held that a move could take away.
calm(#world{now = Now} = W) ->
    Arrived = happens(everything_arrives, W#world{now = Now + ?SETTLE_MS}),
    lists:foldl(
        fun(Node, Sofar) -> with(Node, fun(N) -> all_become(loading, ready, N) end, Sofar) end,
        Arrived, alive(Arrived)).

fact(I, Key, Value, W) ->
    with(host(I), fun(#node{facts = F} = N) -> N#node{facts = F#{Key => Value}} end, W).

all_become(From, To, #node{states = States} = N) ->
    N#node{states = maps:map(fun(_, S) when S =:= From -> To; (_, S) -> S end, States)}.

fail(#node{held = []} = N) ->
    N;
fail(#node{held = [C | Rest], states = States, failed = Failed} = N) ->
    N#node{held = Rest, states = maps:remove(C, States), failed = [C | Failed]}.

joins(_Node, #node{alive = true}, W) ->
    W;
joins(Node, #node{facts = #{number := I} = F}, #world{now = Now} = W) ->
    Incarnation = Now + W#world.step + 1,
    Born = (newborn(I, maps:without([leaving], F)))#node{
        line = baguette_cluster_line:new(?SETTLE_MS, 1000 * Incarnation), alive = true
    },
    Fresh = report(I, #{id => {Incarnation, 0}}),
    act(Node, put_node(Node, Born#node{report = Fresh}, W)).

%% A ready holder falls: what follows from it is nobody's move.
falls(Node, #world{lost = Lost, step = Step, nodes = Nodes} = W) ->
    States = case Nodes of
        #{Node := #node{alive = true, states = Known}} -> Known;
        _ -> #{}
    end,
    Fallen = maps:from_list([{C, Step} || {C, ready} <- maps:to_list(States)]),
    W#world{lost = maps:merge(Lost, Fallen)}.

both(From, To, Says, W) ->
    case From =/= To andalso [From, To] -- alive(W) =:= [] of
        true -> takes(To, Says(the(From, W)), W);
        false -> W
    end.

takes(Node, Reports, W) ->
    with(Node, fun(#node{copies = Copies} = N) ->
        N#node{copies = lists:foldl(fun(R, Sofar) -> newer(Node, R, Sofar) end, Copies, Reports)}
    end, W).

newer(Self, Report, Copies) ->
    case baguette_cluster_report:node(Report) of
        Self -> Copies;
        Node ->
            Known = maps:get(Node, Copies, Report),
            Copies#{Node => baguette_cluster_report:newest(Report, Known)}
    end.

%% A node acts whenever something about it changed, as the process does.
with(Node, Fun, W) ->
    case lists:member(Node, alive(W)) of
        true -> act(Node, put_node(Node, Fun(the(Node, W)), W));
        false -> W
    end.

alive(#world{nodes = Nodes}) -> [N || {N, #node{alive = true}} <- lists:sort(maps:to_list(Nodes))].

the(Node, #world{nodes = Nodes}) -> maps:get(Node, Nodes).

put_node(Node, N, #world{nodes = Nodes} = W) -> W#world{nodes = Nodes#{Node := N}}.

%% What a node does about it, as baguette_cluster_holdings does -----------------------------------

act(Node, #world{now = Now} = W) ->
    #node{held = Before, line = Line0} = N = planned(the(Node, W)),
    View = view(Node, N, W),
    {Held, Line} = baguette_cluster_line:next(
        Before, View, Now, baguette_cluster_line:look(View, Now, Line0)),
    States = maps:from_list([{C, maps:get(C, N#node.states, loading)} || C <- Held]),
    Acted = said(View, N#node{held = Held, states = States, line = Line}, W),
    Gone = [C || {C, ready} <- maps:to_list(N#node.states), not lists:member(C, Held)],
    lists:foldl(fun(C, Sofar) -> let_go(C, Node, N, Sofar) end, put_node(Node, Acted, W), Gone).

planned(#node{planned = Before} = N) ->
    case {baguette_cluster_draft:fleet(reports(N)), Before} of
        {Fleet, {Fleet, _}} -> N;
        {Fleet, _} -> N#node{planned = {Fleet, baguette_cluster_placement:plan_for(Fleet)}}
    end.

reports(#node{copies = Copies} = N) ->
    [own(N) | [R || {_, R} <- lists:sort(maps:to_list(Copies))]].

view(Node, #node{copies = Copies, planned = {_, Plan}} = N, W) ->
    #{
        plan => Plan,
        reports => reports(N),
        up => lists:sort(maps:keys(Copies)),
        expected => expected(W) -- [Node],
        knows_its_disk => true
    }.

expected(#world{expected = any} = W) -> alive(W);
expected(#world{expected = Nodes}) -> Nodes.

own(#node{facts = #{number := I} = F, held = Held, states = States, failed = Failed} = N) ->
    Now = report(I, maps:without([number], F)),
    Said = maps:from_list(
        [{C, failed} || C <- Failed, on_disk(C, Now)] ++ [{C, maps:get(C, States)} || C <- Held]),
    Fields = maps:from_list([
        {extra, baguette_cluster_report:extra(Now)},
        {components, baguette_cluster_report:items(Now)},
        {memory_mib, baguette_cluster_report:memory_mib(Now)}, {states, Said}
    ]),
    maps:fold(fun baguette_cluster_report:set/3, N#node.report, Fields).

on_disk(C, Report) ->
    lists:member(C, [D || #{component := D} <- baguette_cluster_report:items(Report)]).

said(#{plan := Plan}, #node{line = Line, wished = Before} = N, #world{step = Step}) ->
    #{letting_go := Wishes} = Says = baguette_cluster_line:says(Line),
    Own = own(N),
    Extra = maps:merge(baguette_cluster_report:extra(Own), Says),
    Report = baguette_cluster_report:set(plan_hash, baguette_cluster_placement:hash(Plan),
        baguette_cluster_report:set(extra, Extra, Own)),
    {ok, Checked} = baguette_cluster_report:check(baguette_cluster_report:next(Report)),
    N#node{
        report = Checked,
        wished = maps:from_list([{C, maps:get(C, Before, Step)} || {C, _} <- Wishes])
    }.

%% Was it the last ready one? If another fell after this node had asked, it was not the move.
let_go(C, Node, #node{wished = Wished}, #world{lost = Lost, step = Step, moved = Moved} = World) ->
    W = World#world{moved = Moved + 1},
    Ready = [
        Other
     || Other <- alive(W), #node{states = #{C := ready}} <- [the(Other, W)], Other =/= Node
    ],
    Excused = maps:get(C, Lost, -1) >= maps:get(C, Wished, Step),
    case Ready =:= [] andalso not Excused of
        true -> W#world{orphaned = [{Step, Node, C} | W#world.orphaned]};
        false -> W
    end.

%% Properties -----------------------------------------------------------------------------------

prop_no_move_takes_the_last_ready_holder() ->
    ?FORALL({World, Commands}, {world(), events(60)}, begin
        #world{orphaned = Orphaned, moved = Moved} = run(Commands, World),
        ?WHENFAIL(io:format(user, "~p~n~p~n~p~n", [facts(World), Commands, Orphaned]),
            aggregate([min(Moved, 5)], Orphaned =:= []))
    end).

facts(#world{nodes = Nodes}) -> [F || {_, #node{facts = F}} <- lists:sort(maps:to_list(Nodes))].

prop_what_is_left_alone_comes_to_rest() ->
    ?FORALL({World, Commands}, {world(), events(40)}, begin
        {Rounds, Rest} = to_rest(run(Commands, World), 0),
        ?WHENFAIL(io:format(user, "~p~n~p~n~p~n", [facts(World), Commands, seen(Rest)]),
            Rounds < ?ROUNDS andalso is_at_rest(Rest) andalso Rest#world.orphaned =:= [])
    end).

%% Everything arrives, every load succeeds, the dead are noticed, time passes.
to_rest(W, ?ROUNDS) ->
    {?ROUNDS, W};
to_rest(#world{now = Now, step = Step} = W, Round) ->
    Dead = maps:keys(W#world.nodes) -- alive(W),
    Forget = fun(Node, Sofar) ->
        with(Node, fun(#node{copies = C} = N) -> N#node{copies = maps:without(Dead, C)} end, Sofar)
    end,
    Loaded = fun(Node, Sofar) ->
        with(Node, fun(N) -> all_become(loading, ready, N) end, Sofar)
    end,
    Later = W#world{now = Now + ?SETTLE_MS, step = Step + 1},
    Noticed = lists:foldl(Forget, Later, alive(W)),
    Next = lists:foldl(Loaded, happens(everything_arrives, Noticed), alive(W)),
    Arrived = happens(everything_arrives, Next),
    case Round > 20 andalso seen(Arrived) =:= seen(W) of
        true -> {Round, Arrived};
        false -> to_rest(Arrived, Round + 1)
    end.

seen(W) ->
    [{N, Held, States} || N <- alive(W), #node{held = Held, states = States} <- [the(N, W)]].

is_at_rest(W) ->
    Plans = lists:usort([maps:get(plan, view(N, planned(the(N, W)), W)) || N <- alive(W)]),
    length(Plans) =< 1 andalso
        lists:all(fun(N) -> is_content(the(N, W), N, hd(Plans)) end, alive(W)).

%% It holds its line; who leaves holds what nobody else could.
is_content(#node{facts = #{leaving := true}, held = Held}, _Node, Plan) ->
    lists:all(fun(C) -> maps:get(C, Plan, []) =:= [] end, Held);
is_content(#node{held = Held}, Node, Plan) ->
    Held =:= baguette_cluster_placement:line(Node, Plan).

%% Everybody expects everybody, and all have started before patience ends.
prop_any_order_of_starts_ends_in_equal_cost() ->
    ?FORALL(#world{nodes = Nodes} = World, world(), begin
        Fleet = World#world{expected = lists:sort(maps:keys(Nodes))},
        Starts = [{join, I} || I <- lists:seq(1, map_size(Nodes))],
        Between = list(oneof([{report, range(1, 8), range(1, 8)}, {tick, range(0, 20)}])),
        ?FORALL({One, Two, Seen}, {shuffled(Starts), shuffled(Starts), resize(20, Between)}, begin
            Costs = [cost(run(Order ++ Seen, Fleet)) || Order <- [One, Two]],
            ?WHENFAIL(io:format(user, "~p~n~p~n", [facts(World), {One, Two, Seen, Costs}]),
                length(lists:usort(Costs)) =:= 1)
        end)
    end).

shuffled(List) ->
    ?LET(Keys, [integer() || _ <- List], [X || {_, X} <- lists:sort(lists:zip(Keys, List))]).

cost(W) ->
    {_, Rest} = to_rest(W, 0),
    true = is_at_rest(Rest),
    Reports = [own(the(N, Rest)) || N <- alive(Rest)],
    baguette_cluster_placement:expected_us(baguette_cluster_placement:plan(Reports), Reports).
