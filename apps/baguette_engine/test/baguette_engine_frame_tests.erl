%% @doc ErlPort's messages: the bytes written by hand from its format, and what is no message.
-module(baguette_engine_frame_tests).

-include_lib("eunit/include/eunit.hrl").

-import(baguette_engine_frame, [decode/1]).

a_call_is_erlports_byte_for_byte_test() ->
    Call = baguette_engine_frame:call(7, 'baguette.worker.expert_entry', stats, [<<16#80>>], alone),
    ?assertEqual(golden("erlport_call.hex"), [iolist_to_binary(Call)]).

a_call_that_may_have_company_says_so_behind_erlports_test() ->
    Call = baguette_engine_frame:call(7, a_module, velocity, [<<16#80>>], {9, 2, 4}),
    ?assertEqual(
        {'C', 7, a_module, velocity, [<<16#80>>], {9, 2, 4}},
        binary_to_term(iolist_to_binary(Call))
    ).

what_is_computed_as_one_is_told_test() ->
    ?assertEqual({begun, [3, 4]}, decode(term_to_binary({'M', {begun, [3, 4]}}))).

erlports_answers_are_read_test() ->
    ?assertEqual(
        [{result, 7, [{ok, <<"abc">>}]}, {error, 8, {bad_input, <<"no">>, <<>>}}],
        [decode(Frame) || Frame <- golden("erlport_answers.hex")]
    ).

several_calls_have_as_many_answers_test() ->
    Failed = {python, not_held, <<"no">>, <<>>},
    ?assertEqual(
        {result, 7, [{ok, <<"abc">>}, {error, {not_held, <<"no">>, <<>>}}]},
        decode(term_to_binary({r, 7, [{ok, <<"abc">>}, {error, Failed}]}))
    ).

a_cancel_is_a_message_test() ->
    Bytes = iolist_to_binary(baguette_engine_frame:cancel(3)),
    ?assertEqual({message, {cancel, 3}}, decode(Bytes)).

an_error_class_nobody_knows_is_a_failure_test() ->
    Frame = term_to_binary({e, 1, {python, nothing_known, <<"m">>, <<"t">>}}),
    ?assertEqual({error, 1, {failure, <<"m">>, <<"t">>}}, decode(Frame)).

what_is_no_message_is_malformed_test_() ->
    %% {r, Atom} with an atom that no module of ours names: `safe' must not make it.
    Unknown = <<131, 104, 2, 100, 0, 1, "r", 100, 0, 12, "unheard", "_of_x">>,
    [
        ?_assertEqual(malformed, decode(Frame))
     || Frame <- [
            <<>>,
            <<131>>,
            <<"GET / HTTP/1.1">>,
            term_to_binary({'M', {begun, [3, <<"4">>]}}),
            term_to_binary({r, <<"7">>, <<"abc">>}),
            term_to_binary({r, 7, []}),
            term_to_binary({r, 7, [<<"abc">>]}),
            term_to_binary({r, 7, [<<"abc">>, <<"def">>]}),
            term_to_binary({r, 7, [{ok, <<"abc">>}, {ok, 1}]}),
            term_to_binary({r, 7, [{ok, <<"abc">>}, {error, <<"no">>}]}),
            term_to_binary({r, 7, [{ok, <<"abc">>} | <<"def">>]}),
            term_to_binary({e, 7, {python, bad_input, "text", <<>>}}),
            Unknown
        ]
    ].

golden(Name) ->
    Path = baguette_engine_checkout:path(["python_worker", "tests", "golden", Name]),
    {ok, Text} = file:read_file(Path),
    [
        binary:decode_hex(binary:replace(Line, <<" ">>, <<>>, [global]))
     || Line <- binary:split(Text, <<"\n">>, [global]), Line =/= <<>>
    ].
