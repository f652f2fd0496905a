%% The cluster as the dashboard is told of it.
-module(baguette_web_snapshot_tests).
-include_lib("eunit/include/eunit.hrl").

-define(A, 'baguette@127.0.0.2').
-define(B, 'baguette@127.0.0.3').

it_is_a_value_for_json_test() ->
    Value = jiffy:decode(jiffy:encode(build(#{})), [return_maps]),
    ?assertMatch(#{<<"node">> := <<"127.0.0.2">>, <<"nodes">> := [_, _]}, Value).

a_node_holds_what_its_report_says_test() ->
    [#{experts := A}, #{experts := B}] = nodes_of(#{}),
    ?assertEqual([#{expert => 0, state => ready, since => 7}], A),
    ?assertEqual([#{expert => 1, state => loading, since => null}], B).

nodes_answer_http_on_one_port_test() ->
    ?assertMatch([_, #{url := <<"http://127.0.0.3:8100">>}], nodes_of(#{})).

the_state_and_its_reasons_test_() ->
    Reason = #{name => no_holder, detail => <<"no node holds expert 1">>},
    [
        ?_assertMatch(#{health := #{state := ready, reasons := []}}, build(#{})),
        ?_assertMatch(
            #{health := #{state := degraded, reasons := [Reason]}}, build(#{degraded => [Reason]})
        ),
        ?_assertMatch(#{health := #{state := down}}, build(#{down => [Reason]}))
    ].

weights_of_their_own_are_shown_where_they_are_rarer_test() ->
    C = info('baguette@127.0.0.4', <<"k">>, #{}),
    Odd = info(?B, <<"other">>, #{}),
    Nodes = nodes_of(#{nodes => [info(?A, <<"k">>, #{}), Odd, C]}),
    ?assertEqual(
        [[], [<<"expert 0">>, <<"expert 1">>], []], [M || #{mismatch := M} <- Nodes]
    ).

what_a_device_says_is_shown_test() ->
    Now = #{
        name => <<"H200">>, memory_mib => 1000, used_mib => 250, utilisation => 0.5,
        temperature_c => 61, power_w => undefined
    },
    ?assertMatch(
        #{
            device := <<"H200">>, memory := #{used_mib := 250, total_mib := 1000, about := device},
            utilisation := 0.5, temperature_c := 61, power_w := null
        },
        hd(nodes_of(#{nodes => [info(?A, <<"k">>, #{device_now => Now})]}))
    ).

nonsense_of_a_peer_is_left_out_test() ->
    Extra = #{device_now => nonsense, hardware => #{cpu => self(), gpu => <<255, 254>>}},
    Node = hd(nodes_of(#{nodes => [info(?B, <<"k">>, Extra)], looks => #{?B => #{workers => 3}}})),
    ?assertMatch(#{device := null, utilisation := null, workers := []}, Node),
    _ = jiffy:encode(Node).

a_long_name_is_cut_test() ->
    Extra = #{hardware => #{cpu => binary:copy(<<"ä"/utf8>>, 5000)}},
    #{device := Device} = hd(nodes_of(#{nodes => [info(?B, <<"k">>, Extra)]})),
    ?assertEqual(120, string:length(Device)).

worker_deaths_are_shown_test() ->
    Looks = #{?B => #{workers => [#{kind => expert, state => ready, deaths => 2}, #{odd => 1}]}},
    [_, #{workers := Workers}] = nodes_of(#{looks => Looks}),
    ?assertEqual([#{kind => <<"expert">>, state => <<"ready">>, deaths => 2}], Workers).

links_stand_in_the_row_of_who_told_test() ->
    Link = #{from => ?B, to => ?A, state => up, path => direct, rtt_us => 1234, mbit => 940},
    [A, B] = baguette_web_snapshot:links([?A, ?B], [Link]),
    ?assertEqual(#{from => <<"127.0.0.2">>, to => []}, A),
    ?assertMatch(#{to := [#{node := <<"127.0.0.2">>, rtt_ms := 1.2, mbit := 940}]}, B).

a_trip_alone_changes_nothing_essential_test() ->
    Row = #{from => ?B, to => ?A, state => up, path => direct, rtt_us => 1000, mbit => 940},
    Essence = fun(Links) ->
        baguette_web_snapshot:links_essence(baguette_web_snapshot:links([?A, ?B], Links))
    end,
    ?assertEqual(Essence([Row]), Essence([Row#{rtt_us := 9000}])),
    ?assertNotEqual(Essence([Row]), Essence([Row#{state := down}])).

figures_alone_change_nothing_essential_test() ->
    Device = #{name => <<"GPU">>, memory_mib => 9, used_mib => 4, temperature_c => 60},
    Build = fun(Now, Link) ->
        A = info(?A, <<"k">>, #{device_now => Now}),
        build(#{nodes => [A#{link := Link}, info(?B, <<"k">>, #{})]})
    end,
    Before = Build(Device, up),
    Hotter = Build(Device#{temperature_c := 61}, up),
    Silent = Build(Device, suspect),
    [Essence | Others] = [baguette_web_snapshot:essence(S) || S <- [Before, Hotter, Silent]],
    ?assertMatch([Essence, _], Others),
    ?assertNotEqual(Essence, lists:last(Others)),
    [#{node := Node}] =
        baguette_web_snapshot:figures(Hotter) -- baguette_web_snapshot:figures(Before),
    ?assertEqual(<<"127.0.0.2">>, Node).

a_state_has_the_age_of_its_first_sight_test() ->
    Loading = #{{?A, <<"m/e0">>} => {loading, 1}},
    Since = baguette_web_snapshot:since([info(?A, <<"k">>, #{})], Loading, 5),
    ?assertEqual({ready, 5}, maps:get({?A, <<"m/e0">>}, Since)),
    ?assertEqual(Since, baguette_web_snapshot:since([info(?A, <<"k">>, #{})], Since, 9)).

%% --- a cluster of two

nodes_of(Changes) ->
    #{nodes := Nodes} = build(Changes),
    Nodes.

build(Changes) ->
    baguette_web_snapshot:build(maps:merge(
        #{
            node => ?A, port => 8100,
            nodes => [info(?A, <<"k">>, #{}), info(?B, <<"k">>, #{})],
            experts => [
                #{expert => 0, component => <<"m/e0">>, holders => [?A]},
                #{expert => 1, component => <<"m/e1">>, holders => []}
            ],
            model => {ok, #{name => <<"m">>, defaults => #{steps => 30}}},
            down => [], degraded => [], calls => [], looks => #{},
            load => #{queued => 0, running => 0},
            since => #{{?A, <<"m/e0">>} => {ready, 7}}
        },
        Changes
    )).

info(Node, Key, Extra) ->
    States = case Node of
        ?A -> #{<<"m/e0">> => ready};
        _ -> #{<<"m/e1">> => loading}
    end,
    #{
        node => Node, self => Node =:= ?A, link => up, name => <<>>, path => unknown,
        leaving => false,
        report => #{
            memory_mib => 100, states => States, extra => Extra,
            components => [
                #{component => C, size_mib => 10, key => Key} || C <- [<<"m/e0">>, <<"m/e1">>]
            ]
        }
    }.
