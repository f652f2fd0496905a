%% @doc A report: which of two wins, and what is not taken for one.
-module(baguette_cluster_report_tests).

%% In this order: both define LET, eunit only when nobody has.
-include_lib("proper/include/proper.hrl").
-include_lib("eunit/include/eunit.hrl").

-import(baguette_cluster_fleet, [report/2]).
-import(baguette_cluster_report, [newest/2, check/1, identity/1, call_us/2]).

merging_is_a_semilattice_test_() ->
    Options = [{numtests, 500}, {on_output, fun(_, _) -> ok end}],
    {timeout, 60, ?_assert(proper:quickcheck(prop_newest(), Options))}.

prop_newest() ->
    ?FORALL({A, B, C}, {any_report(), any_report(), any_report()},
        newest(A, A) =:= A andalso newest(A, B) =:= newest(B, A) andalso
            newest(A, newest(B, C)) =:= newest(newest(A, B), C)).

any_report() ->
    Facts = {proper_types:range(1, 3), proper_types:range(0, 3), proper_types:range(0, 2)},
    proper_types:bind(Facts,
        fun({I, N, Hash}) -> report(1, #{id => {I, N}, hash => Hash}) end, false).

a_goodbye_is_above_its_incarnation_and_below_the_next_test() ->
    ?assert({3, gone} > identity(report(1, #{id => {3, 999}}))),
    ?assert({3, gone} < identity(report(1, #{id => {4, 0}}))).

fields_of_a_next_version_ride_along_test() ->
    Next = (report(1, #{}))#{v := 2, weather => sunny},
    ?assertEqual({ok, Next}, check(Next)).

call_time_is_guessed_until_it_is_a_sane_number_test() ->
    ?assertEqual(1000, call_us(report(1, #{}), 0)),
    ?assertEqual(1000, call_us(report(1, #{call_us => -4}), 0)),
    ?assertEqual(77, call_us(report(1, #{call_us => 77}), 0)).

who_has_not_measured_itself_is_no_faster_than_who_has_test() ->
    Measured = [report(N, #{call_us => N * 30000}) || N <- [1, 2]],
    Slowest = baguette_cluster_report:slowest_us([report(3, #{}) | Measured]),
    ?assertEqual(60000, call_us(report(3, #{}), Slowest)),
    ?assertEqual(30000, call_us(hd(Measured), Slowest)).

a_fact_of_the_wrong_shape_is_as_one_that_is_missing_test_() ->
    Says = fun(Fact, Value) -> baguette_cluster_report:Fact(report(1, #{Fact => Value})) end,
    Many = maps:from_list([{integer_to_binary(N), 1} || N <- lists:seq(1, 257)]),
    [
        ?_assertEqual(unknown, Says(measured_us, 5)),
        ?_assertEqual({ok, 5}, baguette_cluster_report:measured_us(report(1, #{call_us => 5}))),
        ?_assertEqual([5000, 5000, 5000, 7], [Says(load_us_per_mib, V) || V <- [0, a, 1.5, 7]]),
        ?_assertEqual([0, 0, 0, 7], [Says(distance_us, V) || V <- [-1, a, 1 bsl 40, 7]]),
        ?_assertEqual([false, false, true], [Says(leaving, V) || V <- [1, false, true]]),
        ?_assertEqual(#{}, usage([a])),
        ?_assertEqual(#{}, usage(Many)),
        ?_assertEqual(#{<<"a">> => 0}, usage(#{<<"a">> => 0, <<"b">> => 1001, c => 1})),
        ?_assertEqual([], Says(letting_go, #{})),
        ?_assertEqual([{<<"a">>, 1}], Says(letting_go, [{<<"a">>, 1}, {a, 1}, b | improper])),
        ?_assertEqual([], Says(promises, <<>>)),
        ?_assertEqual([{n, <<"a">>, 1}], Says(promises, [{1, <<"a">>, 1}, {n, <<"a">>, 1} | x])),
        ?_assertEqual(64, length(Says(promises, lists:duplicate(99, {n, <<"a">>, 1}))))
    ].

%% As from the network: our own tests name components by number.
usage(Usage) ->
    Report = baguette_cluster_report:set(extra, #{usage => Usage}, report(1, #{})),
    baguette_cluster_report:usage(Report).

what_is_no_report_is_refused_with_its_field_test_() ->
    Good = report(1, #{disk => [{1, 2}]}),
    Item = #{component => <<"a">>, size_mib => 1, key => <<>>},
    [
        {atom_to_list(Why), ?_assertEqual({error, Why}, check(Bad))}
     || {Why, Bad} <- [
            {shape, hello},
            {shape, maps:remove(id, Good)},
            {version, Good#{v := 0}},
            {identity, Good#{id := {0, 1}}},
            {identity, Good#{id := {1, gone}}},
            {memory_mib, Good#{memory_mib := 1.5}},
            {components, Good#{components := [Item#{size_mib := 0}]}},
            {components, Good#{components := [Item#{component := binary:copy(<<"x">>, 129)}]}},
            {components, Good#{components := lists:duplicate(257, Item)}},
            {components, Good#{components := [Item | improper]}},
            {states, Good#{states := #{<<"not on disk">> => ready}}},
            {states, Good#{states := #{<<"model/part-1">> => asleep}}},
            {components, Good#{components := [Item, Item], states := #{}}},
            {plan_hash, Good#{plan_hash := -1}},
            {extra, Good#{extra := #{"not an atom" => 1}}},
            {extra, Good#{extra := #{a => binary:copy(<<0>>, 20000)}}},
            {too_large, Good#{big => binary:copy(<<0>>, 300000)}}
        ]
    ].
