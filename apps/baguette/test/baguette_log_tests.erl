%% The log's lines, field by field; that any term becomes one is a property.
-module(baguette_log_tests).

-include_lib("eunit/include/eunit.hrl").

-export([line/2]).

%% 2026-11-21T17:45:16.123456Z
-define(AT, 1795283116123456).

properties_test_() ->
    [
        {atom_to_list(Property), {timeout, 120, fun() ->
            ?assert(proper:quickcheck(prop_baguette_log:Property(), [quiet, {numtests, Tests}]))
        end}}
     || {Property, Tests} <- [
            {prop_any_facts_are_one_bounded_line, 150},
            {prop_any_message_is_one_bounded_line, 150},
            {prop_a_crash_shows_no_text, 200}
        ]
    ].

a_line_has_its_fields_in_order_test() ->
    Facts = #{what => worker_died, kind => expert, exit_status => 137, seen_by =>
        ['baguette@127.0.0.3'], error => undefined, ok => true},
    Meta = #{domain => [baguette, engine], generation => <<"0a1b">>},
    ?assertEqual(
        <<
            "{\"at\":\"2026-11-21T17:45:16.123Z\",\"level\":\"warning\",\"what\":\"worker_died\","
            "\"generation\":\"0a1b\",\"node\":\"nonode@nohost\",\"room\":\"engine\","
            "\"text\":\"the expert worker died (killed, SIGKILL); it is started again "
            "(error undefined, ok true, seen by 127.0.0.3)\","
            "\"facts\":{\"error\":null,\"exit_status\":137,\"kind\":\"expert\",\"ok\":true,"
            "\"seen_by\":[\"127.0.0.3\"]}}\n"
        >>,
        line({report, Facts}, Meta)
    ).

what_is_no_text_is_its_size_test() ->
    #{<<"facts">> := Facts} = decoded(#{
        png => <<137, "PNG", 0, 1, 2>>, experts => [3, 9], path => "/tmp/ü", tuple => {a, [1 | b]},
        who => #{'baguette@127.0.0.3' => 2}
    }),
    ?assertEqual(
        #{
            <<"png">> => <<"<7 bytes>">>,
            <<"experts">> => [3, 9],
            <<"who">> => #{<<"127.0.0.3">> => 2},
            <<"path">> => <<"/tmp/ü"/utf8>>,
            <<"tuple">> => [<<"a">>, [1, <<"b">>]]
        },
        Facts
    ).

a_line_that_is_too_long_is_cut_and_says_so_test() ->
    Long = maps:from_list([{I, binary:copy(<<"word ">>, 100)} || I <- lists:seq(1, 30)]),
    Line = decoded(Long),
    ?assertMatch(#{<<"cut">> := true, <<"what">> := <<"something">>}, Line),
    ?assert(map_size(maps:get(<<"facts">>, Line)) > 1),
    ?assertNot(is_map_key(<<"cut">>, decoded(#{}))).

a_crash_says_where_and_why_test() ->
    Stack = [{m, f, [<<"my prompt">>], [{file, "m.erl"}, {line, 3}]}],
    Report = #{label => {proc_lib, crash}, report => [[
        {initial_call, {m, init, ['Argument__1']}}, {registered_name, m_server},
        {error_info, {error, {badmatch, <<"my prompt">>}, Stack}}
    ], []]},
    #{<<"what">> := What, <<"room">> := Room, <<"facts">> := Facts} =
        jiffy:decode(line({report, Report}, #{domain => [otp, sasl]}), [return_maps]),
    ?assertEqual({<<"process_crashed">>, <<"otp">>}, {What, Room}),
    ?assertEqual(
        #{
            <<"class">> => <<"error">>,
            <<"module">> => <<"m">>,
            <<"name">> => <<"m_server">>,
            <<"reason">> => [<<"badmatch">>, <<"<9 bytes>">>],
            <<"stack">> => [<<"m:f/1 line 3">>]
        },
        Facts
    ).

decoded(Facts) ->
    Line = line({report, Facts#{what => something}}, #{domain => [baguette, cluster]}),
    jiffy:decode(Line, [return_maps]).

line(Message, Meta) ->
    Entry = #{level => warning, msg => Message, meta => maps:merge(#{time => ?AT}, Meta)},
    iolist_to_binary(baguette_log:format(Entry, #{})).
