%% What the launcher sends becomes a request, and whatever the rooms say becomes JSON.
-module(baguette_control_json_tests).

-include_lib("proper/include/proper.hrl").
-include_lib("eunit/include/eunit.hrl").

known_options_become_atoms_test() ->
    Given = #{<<"prompt">> => <<"ü"/utf8>>, <<"top_k">> => <<"full">>, <<"n">> => 2},
    ?assertEqual(
        {ok, #{prompt => <<"ü"/utf8>>, top_k => full, n => 2}}, baguette_control_json:request(Given)
    ).

an_unknown_option_makes_no_atom_test() ->
    Name = <<"never_an_atom_before_this_test">>,
    ?assertEqual(
        {error, {unknown_option, #{option => Name}}},
        baguette_control_json:request(#{Name => 1})
    ),
    ?assertError(badarg, binary_to_existing_atom(Name)).

what_is_no_request_is_refused_test() ->
    ?assertMatch({error, {unknown_option, _}}, baguette_control_json:request([1, 2])).

many_pictures_are_a_request_and_counts_test() ->
    Given = #{
        <<"request">> => #{<<"prompt">> => <<"a">>, <<"seed">> => 5}, <<"concurrent">> => 2,
        <<"images">> => 9, <<"ms">> => 100, <<"seeds">> => 3, <<"prompts">> => 2
    },
    ?assertEqual(
        {ok, #{
            request => #{prompt => <<"a">>, seed => 5}, concurrent => 2, images => 9, ms => 100,
            seeds => 3, prompts => 2
        }},
        baguette_control_json:order(Given)
    ),
    Refused = [
        Given#{<<"images">> := 0}, Given#{<<"ms">> := <<"1">>}, maps:remove(<<"seeds">>, Given),
        Given#{<<"request">> := #{<<"prompt">> => <<"a">>}},
        Given#{<<"request">> := #{<<"seed">> => 5}}, []
    ],
    [?assertMatch({error, {bad_command, _}}, baguette_control_json:order(Bad)) || Bad <- Refused],
    ?assertMatch(
        {error, {unknown_option, _}},
        baguette_control_json:order(Given#{<<"request">> := #{<<"colour">> => 1}})
    ).

bytes_that_are_no_text_become_base64_test() ->
    ?assertEqual(#{<<"png">> => <<"iVBORw==">>}, coded(#{png => <<137, "PNG">>})).

lists_and_maps_keep_their_shape_test() ->
    ?assertEqual(
        #{<<"routing">> => [[#{<<"experts">> => [3, 1]}]], <<"asked">> => #{<<"3">> => <<"a@b">>}},
        coded(#{routing => [[#{experts => [3, 1]}]], asked => #{3 => 'a@b'}})
    ).

a_refusal_carries_its_sentence_test() ->
    ?assertMatch(
        #{
            name := bad_request,
            facts := #{field := steps},
            sentence := <<"steps is 0, but must be 1..9.">>
        },
        baguette_control_json:failure({bad_request, steps, 0, <<"1..9">>})
    ).

every_fact_has_a_json_form_test_() ->
    {timeout, 60,
        ?_assert(
            proper:quickcheck(
                ?FORALL(
                    Facts,
                    list({atom(), any()}),
                    is_map(coded(maps:from_list(Facts)))
                ),
                [quiet, {numtests, 200}]
            )
        )}.

coded(Facts) ->
    jiffy:decode(baguette_control_json:encode(Facts), [return_maps]).
