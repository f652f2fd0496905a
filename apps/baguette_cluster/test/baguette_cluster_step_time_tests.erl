%% @doc The expected time of a step against the sum over all pairs and all choices of holders.
-module(baguette_cluster_step_time_tests).

-include_lib("proper/include/proper.hrl").
-include_lib("eunit/include/eunit.hrl").

-import(baguette_cluster_step_time, [seat/3, share/2, shares/3, total/1, expected/3, coarse/1]).

it_is_the_sum_over_all_pairs_test_() ->
    Options = [{numtests, 500}, {on_output, fun(_, _) -> ok end}],
    {timeout, 60, ?_assert(proper:quickcheck(prop_exact(), Options))}.

prop_exact() ->
    ?FORALL({Speeds, Rows}, {speeds(), non_empty(list(row()))}, begin
        Seats = [seat(W, Nodes, Speeds) || {W, Nodes} <- Rows],
        Sum = pairs(Rows, Speeds),
        [First | Others] = Seats,
        Parts = share(First, Others) + rest(Others),
        ?WHENFAIL(io:format(user, "~p~n", [{Speeds, Rows, total(Seats), Sum, Parts}]),
            total(Seats) =:= Sum andalso (length(Rows) < 3 orelse Parts =:= Sum))
    end).

rest([_]) -> 0;
rest(Seats) -> total(Seats).

speeds() ->
    ?LET(List, vector(4, {range(1, 9), oneof([0, 3])}),
        maps:from_list(lists:zip([a, b, c, d], List))).

row() ->
    ?LET({W, Nodes}, {range(1, 4), non_empty(list(oneof([a, b, c, d])))}, {W, lists:usort(Nodes)}).

pairs([{W, Nodes}], Speeds) ->
    W * W * lists:min([C + D || N <- Nodes, {C, D} <- [maps:get(N, Speeds)]]);
pairs(Rows, Speeds) ->
    Numbered = lists:zip(lists:seq(1, length(Rows)), Rows),
    lists:sum([
        V * W * lists:min([both(N, M, Speeds) || N <- Ns, M <- Ms])
     || {I, {V, Ns}} <- Numbered, {J, {W, Ms}} <- Numbered, I < J
    ]).

both(N, N, Speeds) -> {C, D} = maps:get(N, Speeds), 2 * C + D;
both(N, M, Speeds) -> lists:max([C + D || X <- [N, M], {C, D} <- [maps:get(X, Speeds)]]).

the_best_place_is_where_the_share_is_least_test_() ->
    Options = [{numtests, 300}, {on_output, fun(_, _) -> ok end}],
    {timeout, 60, ?_assert(proper:quickcheck(prop_shares(), Options))}.

prop_shares() ->
    ?FORALL({Speeds, Rows, W}, {speeds(), list(row()), range(1, 4)}, begin
        Others = [seat(V, Nodes, Speeds) || {V, Nodes} <- Rows],
        Expected = [
            {share(seat(W, [N], Speeds), Others), C + D, N}
         || {N, {C, D}} <- maps:to_list(Speeds)
        ],
        lists:sort(Expected) =:= shares(W, maps:to_list(Speeds), Others)
    end).

two_on_one_node_wait_for_each_other_test() ->
    Speeds = #{a => {100, 10}, b => {100, 10}},
    Weights = #{<<"x">> => 1, <<"y">> => 1},
    ?assertEqual({0, 210}, expected(#{<<"x">> => [a], <<"y">> => [a]}, Speeds, Weights)),
    ?assertEqual({0, 110}, expected(#{<<"x">> => [a], <<"y">> => [b]}, Speeds, Weights)),
    ?assertEqual({0, 110}, expected(#{<<"x">> => [a], <<"y">> => [a, b]}, Speeds, Weights)),
    ?assertEqual({1, 110}, expected(#{<<"x">> => [a], <<"y">> => []}, Speeds, Weights)),
    ?assertEqual({2, 0}, expected(#{<<"x">> => [], <<"y">> => []}, Speeds, Weights)).

a_measurement_enters_by_three_digits_test() ->
    ?assertEqual([0, 7, 8, 896, 1024, 1024], [coarse(Us) || Us <- [0, 7, 9, 1000, 1024, 1279]]).
