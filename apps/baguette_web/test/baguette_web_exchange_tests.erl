%% Replies as bytes: problems, events, heads; and bodies as objects.
-module(baguette_web_exchange_tests).
-include_lib("eunit/include/eunit.hrl").

a_problem_names_status_field_and_type_test() ->
    More = #{name => no_holder, field => steps, headers => [{<<"retry-after">>, <<"3">>}]},
    {503, Headers, Body} = baguette_web_problem:reply(
        baguette_web_problem:new(503, "nobody holds it", More)
    ),
    ?assertEqual(
        [{<<"content-type">>, <<"application/problem+json">>}, {<<"retry-after">>, <<"3">>}],
        Headers
    ),
    ?assertEqual(
        #{
            <<"type">> => <<"urn:baguette:no_holder">>,
            <<"title">> => <<"Service Unavailable">>,
            <<"status">> => 503,
            <<"detail">> => <<"nobody holds it">>,
            <<"field">> => <<"steps">>
        },
        jiffy:decode(iolist_to_binary(Body), [return_maps])
    ).

an_event_is_one_data_line_whatever_the_value_test() ->
    Value = #{text => <<"a\nb\r\n\r\nevent: evil">>},
    Event = iolist_to_binary(baguette_web_sse:event(7, <<"step">>, Value)),
    [<<"id: 7">>, <<"event: step">>, <<"data: ", Json/binary>>, <<>>, <<>>] =
        binary:split(Event, [<<"\n">>, <<"\r">>], [global]),
    ?assertEqual(
        #{<<"text">> => <<"a\nb\r\n\r\nevent: evil">>}, jiffy:decode(Json, [return_maps])
    ).

a_body_must_be_a_json_object_test_() ->
    Json = "application/json",
    [
        ?_assertEqual({ok, #{<<"a">> => 1}}, object(Json, <<"{\"a\":1}">>)),
        ?_assertEqual({ok, #{}}, object("Application/JSON; charset=utf-8", <<"{}">>)),
        ?_assertEqual(415, object(undefined, <<"{}">>)),
        ?_assertEqual(415, object("text/plain", <<"{}">>)),
        ?_assertEqual(415, object("application/jsonp", <<"{}">>)),
        ?_assertEqual(400, object(Json, <<"{">>)),
        ?_assertEqual(400, object(Json, <<>>)),
        ?_assertEqual(400, object(Json, <<"\"", 255, "\"">>)),
        ?_assertEqual(400, object(Json, binary:copy(<<"[">>, 60000))),
        ?_assertEqual(422, object(Json, <<"[1]">>)),
        ?_assertEqual(422, object(Json, <<"null">>))
    ].

object(Type, Body) ->
    Header = fun("content-type") -> Type end,
    case baguette_web_body:object(#{
        method => 'POST', segments => [], query => #{}, header => Header, client => <<"t">>,
        body => Body
    }) of
        {ok, Object} -> {ok, Object};
        {problem, Problem} -> baguette_web_problem:status(Problem)
    end.

any_term_becomes_json_test() ->
    Term = #{
        'baguette@127.0.0.2' => {ready, [1, 2.5], none}, 3 => true, <<255>> => self(),
        text => <<"é"/utf8>>
    },
    Json = jiffy:encode(baguette_web_json:value(Term)),
    ?assertEqual(
        #{
            <<"127.0.0.2">> => [<<"ready">>, [1, 2.5], null], <<"3">> => true, <<"/w==">> => null,
            <<"text">> => <<"é"/utf8>>
        },
        jiffy:decode(iolist_to_binary(Json), [return_maps])
    ).
