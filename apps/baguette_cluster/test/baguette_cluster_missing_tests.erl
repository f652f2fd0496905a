%% @doc Why a component has no holder that can be asked: the reason that a waiting person is told.
-module(baguette_cluster_missing_tests).

-include_lib("eunit/include/eunit.hrl").

-import(baguette_cluster_fleet, [host/1, component/1, report/2]).

%% Node 1 asks for component 1, which has 300 MiB; each of the others says its state of it.
why(Others) -> why(Others, #{}).

why(Others, More) ->
    Reports = [report(1, #{}) | [other(N, Facts) || {N, Facts} <- Others]],
    View = #{
        self => host(1), reports => Reports, plan => #{}, agreed => true,
        links => maps:from_list([{host(N), #{state => up}} || {N, _} <- Others])
    },
    baguette_cluster_missing:why(component(1), maps:merge(View, More)).

other(N, State) when is_atom(State) -> other(N, #{state => State});
other(N, #{state := State} = Facts) ->
    About = #{disk => [{1, 300}], states => #{1 => State}},
    report(N, maps:merge(About, maps:remove(state, Facts))).

a_load_takes_what_its_fastest_node_measured_test_() ->
    Slow = #{state => loading, load_us_per_mib => 10000},
    Fast = #{state => restarting, load_us_per_mib => 2000},
    [
        ?_assertEqual({loading, [host(2)], unknown}, why([{2, loading}])),
        ?_assertEqual({loading, [host(2)], 3000}, why([{2, Slow}])),
        ?_assertEqual({loading, [host(2), host(3)], 600}, why([{3, Fast}, {2, Slow}])),
        ?_assertEqual({loading, [host(2), host(3)], 3000}, why([{2, Slow}, {3, loading}]))
    ].

ready_beyond_a_cut_is_unreachable_test_() ->
    Cut = fun(Links) -> #{links => Links, plan => #{component(1) => [host(2)]}} end,
    Suspect = #{host(2) => #{state => suspect}},
    Leaving = #{state => ready, leaving => true},
    [
        ?_assertEqual({unreachable, [host(2)]}, why([{2, ready}], Cut(#{}))),
        ?_assertEqual({unreachable, [host(2)]}, why([{2, ready}], Cut(Suspect))),
        ?_assertEqual({planned, [host(2)]}, why([{2, Leaving}], Cut(#{}))),
        ?_assertMatch({loading, [_], _}, why([{2, ready}, {3, loading}], Cut(#{})))
    ].

who_is_beyond_a_cut_may_be_reached_by_whoever_is_near_test() ->
    Ready = #{disk => [{1, 300}], states => #{1 => ready}},
    Reports = [
        report(1, #{}), report(2, Ready), report(3, #{}), report(4, Ready),
        report(5, #{leaving => true}), report(6, #{})
    ],
    Up = fun(Us) -> #{state => up, rtt_us => Us} end,
    Links = #{
        host(2) => #{state => suspect, rtt_us => 1}, host(3) => Up(900), host(4) => Up(300),
        host(5) => Up(100), host(6) => #{state => suspect, rtt_us => 1}
    },
    View = #{self => host(1), reports => Reports, links => Links},
    Ways = fun(Component) -> baguette_cluster_missing:ways(Component, View) end,
    Via = [host(4), host(3)],
    ?assertEqual([#{node => host(2), key => <<>>, via => Via}], Ways(component(1))),
    ?assertEqual([], Ways(component(2))).

what_is_not_held_anywhere_has_its_reason_test_() ->
    Planned = #{plan => #{component(1) => [host(2)]}},
    [
        ?_assertEqual({planned, [host(2)]}, why([{2, idle}], Planned)),
        ?_assertEqual(not_settled, why([{2, idle}], Planned#{agreed => false})),
        ?_assertEqual(no_memory, why([{2, idle}, {3, failed}])),
        ?_assertEqual({failed, [host(2), host(3)]}, why([{3, failed}, {2, failed}])),
        ?_assertEqual(nobody_has_it_on_disk, why([]))
    ].
