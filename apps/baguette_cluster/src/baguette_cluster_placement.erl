%% @doc Who should hold which component: a pure function of the set of reports, the same on every
%% node that has the same reports, whatever order they came in. docs/internals/placement.md says
%% what holds and why. Integers only, no clock, no dice, no number of components in sight.
%% Called by baguette_cluster_holdings; acting on the plan is that module's business.
%%
%% A plan is made in four steps, each for the shortest expected step (baguette_cluster_step_time):
%%   keep      what is held stays, as far as it fits
%%   cover     what nobody holds gets a holder (both baguette_cluster_cover)
%%   spread    a node left with nothing takes a replica of what needs one most
%%   improve   one node takes more replicas, or the whole is arranged afresh, where that pays for
%%             the loading
-module(baguette_cluster_placement).

-export([plan/1, plan_for/1, hash/1, line/2, expected_us/2]).
-export_type([plan/0]).

-type component() :: baguette_cluster_component:component().
-type plan() :: #{component() => [node()]}. % sorted; [] = nobody can hold it

%% What loading is worth: in the time that is looked ahead the step must save twice what loading
%% takes, and it must become shorter by a fifth, or measurements that tremble would move things.
-define(AHEAD_US, 600000000).
-define(TWICE, 2).
-define(FLOOR_PERCENT, 20).

-import(baguette_cluster_draft, [add/3, fits/3, holders/2, seat_of/2, seat_with/3, total/1]).

-spec plan([baguette_cluster_report:report()]) -> plan().
plan(Reports) ->
    plan_for(baguette_cluster_draft:fleet(Reports)).

%% @doc The same for who keeps the fleet to see whether it changed.
-spec plan_for(baguette_cluster_draft:fleet()) -> plan().
plan_for(Fleet) ->
    Tries = length(baguette_cluster_draft:components(Fleet)) + 2,
    at_rest(baguette_cluster_draft:indexed(Fleet), Tries).

%% @doc A number two nodes compare to know that they plan the same; never 0, which says "none yet".
-spec hash(plan()) -> non_neg_integer().
hash(Plan) ->
    1 + erlang:phash2(lists:sort(maps:to_list(Plan)), 1 bsl 32).

%% @doc What the plan gives to one node.
-spec line(node(), plan()) -> [component()].
line(Node, Plan) ->
    lists:sort([C || {C, Nodes} <- maps:to_list(Plan), lists:member(Node, Nodes)]).

%% @doc What a step is expected to take when this is carried out, after what it leaves uncovered.
-spec expected_us(plan(), [baguette_cluster_report:report()]) ->
    {Uncovered :: non_neg_integer(), Us :: non_neg_integer()}.
expected_us(Given, Reports) ->
    Fleet = baguette_cluster_draft:fleet(Reports),
    D = baguette_cluster_draft:new(Fleet),
    Speeds = maps:from_list(baguette_cluster_draft:speeds(baguette_cluster_draft:nodes(D), D)),
    %% The plan may be a moment older than the reports.
    Plan = maps:map(
        fun(_, Nodes) -> [N || N <- Nodes, is_map_key(N, Speeds)] end,
        maps:with(baguette_cluster_draft:components(Fleet), Given)
    ),
    Weights = maps:map(fun(C, _) -> baguette_cluster_draft:weight(C, D) end, Plan),
    baguette_cluster_step_time:expected(Plan, Speeds, Weights).

%% Planning again after a plan is carried out must give the same plan: carried out, it may pay for
%% something that it did not pay for before. So the plan that is returned is one that plans itself.
at_rest(Fleet, Tries) ->
    Plan = once(Fleet),
    After = baguette_cluster_draft:held_by(Plan, Fleet),
    case Tries =:= 0 orelse once(After) =:= Plan of
        true -> Plan;
        false -> at_rest(After, Tries - 1)
    end.

once(Fleet) ->
    Held = baguette_cluster_cover:keep(Fleet),
    Covered = baguette_cluster_cover:cover(Held),
    Spread = spread(Covered),
    Improved = lists:foldl(fun load_more/2, Spread, baguette_cluster_draft:nodes(Spread)),
    baguette_cluster_draft:plan(rearrange(Improved, Held)).

%% Spread ---------------------------------------------------------------------------------------

%% The fastest and nearest choose first.
spread(D) ->
    Idle = [N || N <- baguette_cluster_draft:nodes(D), baguette_cluster_draft:line(N, D) =:= []],
    lists:foldl(fun relieve/2, D, Idle).

relieve(Node, D) ->
    Ranked = [{-gain(C, Node, D), -need(C, D), C} || C <- candidates(Node, D), fits(C, Node, D)],
    case lists:sort(Ranked) of
        [] -> D;
        [{_, _, C} | _] -> add(C, Node, D)
    end.

%% What has a holder, and could have one more here.
candidates(Node, D) ->
    [
        C
     || C <- baguette_cluster_draft:disk(Node, D), Nodes <- [holders(C, D)],
        Nodes =/= [], not lists:member(Node, Nodes)
    ].

gain(C, Node, D) ->
    Others = baguette_cluster_draft:others(C, D),
    baguette_cluster_step_time:share(seat_of(C, D), Others) -
        baguette_cluster_step_time:share(seat_with(C, Node, D), Others).

%% How much its holders are asked for it, for what they can do: several requests at a time are no
%% part of the expected step, but they are what a replica that makes no step faster is for.
need(C, D) ->
    Rate = lists:sum([
        1000000000000 div baguette_cluster_draft:alone_us(N, D)
     || N <- holders(C, D)
    ]),
    baguette_cluster_draft:weight(C, D) * 1000000000000 div max(1, Rate).

%% Improve --------------------------------------------------------------------------------------

%% Some loads are worth little until others are made too: the last component to leave a slow node
%% brings most. So what one node might load is judged together, and of all beginnings of that list
%% the one is taken that saves most beyond its price. One node loads at once what it is to load, so
%% no half of it is seen by the others as a reason to think again.
load_more(Node, D) ->
    Useful = [C || C <- candidates(Node, D), seat_with(C, Node, D) =/= seat_of(C, D)],
    Now = total(D),
    case is_enough(Now, ideal(Useful, Node, D)) of
        true ->
            Ranked = lists:sort([{-gain(C, Node, D), C} || C <- Useful]),
            {_, _, _, Best} = lists:foldl(
                fun({_, C}, Sofar) -> one_more(C, Node, Now, Sofar) end, {D, 0, 0, D}, Ranked),
            Best;
        false ->
            D
    end.

%% If memory and price were nothing.
ideal(Useful, Node, D) ->
    Rest = maps:keys(baguette_cluster_draft:plan(D)) -- Useful,
    baguette_cluster_step_time:total(
        [seat_with(C, Node, D) || C <- Useful] ++
            [seat_of(C, D) || C <- Rest, holders(C, D) =/= []]).

one_more(C, Node, Before, {Sofar, SpentUs, BestNet, Best}) ->
    case fits(C, Node, Sofar) of
        true ->
            More = add(C, Node, Sofar),
            Us = SpentUs + baguette_cluster_draft:load_us(C, Node, Sofar),
            case net(Before, total(More), Us) of
                Net when Net > BestNet -> {More, Us, Net, More};
                _ -> {More, Us, BestNet, Best}
            end;
        false ->
            {Sofar, SpentUs, BestNet, Best}
    end.

%% What is saved beyond the price, in no unit that means anything; 0 or less: not worth it.
net(Before, After, LoadUs) ->
    case is_enough(Before, After) of
        true -> 1 + (Before - After) * ?AHEAD_US - ?TWICE * LoadUs * Before;
        false -> 0
    end.

is_enough(Before, After) ->
    (Before - After) * 100 >= ?FLOOR_PERCENT * Before andalso Before > After.

%% What grew one by one may be far from what would be planned for the whole, although no single node
%% could make it better: two fast ones among slow ones are worth nothing until both have their half.
%% The only step that may make a held component move for speed; what it gives up, others hold.
rearrange(D, Held) ->
    Now = total(D),
    case is_enough(Now, baguette_cluster_draft:least(D)) of
        true -> if_worth_it(baguette_cluster_cover:afresh(D), Now, D, Held);
        false -> D
    end.

if_worth_it(Afresh, Now, D, Held) ->
    Target = baguette_cluster_draft:plan(Afresh),
    Plan = baguette_cluster_draft:plan(D),
    Loads = [
        baguette_cluster_draft:load_us(C, N, D)
     || {C, Nodes} <- maps:to_list(Target), N <- Nodes -- maps:get(C, Plan)
    ],
    Pays = covered(Afresh) =:= covered(D) andalso
        net(Now, total(Afresh), lists:sum(Loads)) > 0,
    case Pays andalso baguette_cluster_order:exists(Target, Held) of
        true -> Afresh;
        false -> D
    end.

covered(D) -> [C || {C, [_ | _]} <- lists:sort(maps:to_list(baguette_cluster_draft:plan(D)))].
