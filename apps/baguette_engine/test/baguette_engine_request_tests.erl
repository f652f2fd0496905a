%% @doc What may be asked for: defaults from the model, one refusal a field, each naming its range.
-module(baguette_engine_request_tests).

-include_lib("eunit/include/eunit.hrl").

model() ->
    #{
        name => <<"tiny">>,
        experts => [<<"tiny/expert-0">>, <<"tiny/expert-1">>, <<"tiny/expert-2">>],
        defaults => #{n => 1, steps => 30, guidance_scale => 2.5, top_k => 2, seed => 999},
        example_prompt => <<"a tiny test">>,
        image_size => {16, 16},
        on_disk => []
    }.

new(Options) -> baguette_engine_request:new(Options#{prompt => <<"a dot">>}, model()).

defaults_come_from_the_model_test() ->
    ?assertEqual(
        {ok, #{
            prompt => <<"a dot">>,
            negative_prompt => <<>>,
            n => 1,
            steps => 30,
            guidance_scale => 2.5,
            top_k => 2,
            seed => 999,
            on_missing => wait,
            cache => 0.0,
            deterministic => true
        }},
        new(#{})
    ).

who_asks_for_reuse_asks_for_no_certain_bytes_test() ->
    ?assertMatch({ok, #{cache := 0.25, deterministic := false}}, new(#{cache => 0.25})),
    ?assertMatch({ok, #{cache := 0.0, deterministic := true}}, new(#{cache => 0})),
    ?assertMatch({ok, #{}}, new(#{cache => 0.0, deterministic => true})),
    Both = #{cache => 0.25, deterministic => true},
    ?assertMatch(
        {error, {bad_request, cache, 0.25, <<"0 with deterministic", _/binary>>}}, new(Both)
    ).

bounds_are_taken_test_() ->
    [
        ?_assertMatch({ok, #{Field := _}}, new(#{Field => Value}))
     || {Field, Value} <- [
            {n, 1}, {n, 64}, {steps, 1}, {steps, 250}, {seed, 0}, {seed, 1 bsl 62},
            {guidance_scale, 1}, {guidance_scale, 30.0}, {top_k, 1}, {top_k, 3}, {top_k, full},
            {deterministic, false}, {cache, 0.3}, {cache, 10},
            {on_missing, degrade}, {negative_prompt, "rouge"}
        ]
    ].

refusals_name_the_field_and_the_range_test_() ->
    [
        {atom_to_list(Field),
            ?_assertEqual({error, {bad_request, Field, Got, Allowed}}, new(#{Field => Got}))}
     || {Field, Got, Allowed} <- [
            {n, 0, <<"1..64">>},
            {n, 65, <<"1..64">>},
            {steps, 0, <<"1..250">>},
            {steps, 2.5, <<"1..250">>},
            {seed, -1, <<"0..4611686018427387904">>},
            {guidance_scale, 0.5, <<"a number in 1.0..30.0">>},
            {guidance_scale, fast, <<"a number in 1.0..30.0">>},
            {top_k, 4, <<"1..3 or full">>},
            {top_k, 0, <<"1..3 or full">>},
            {deterministic, 1, <<"true or false">>},
            {cache, -0.1, <<"a number in 0.0..10.0">>},
            {cache, 11, <<"a number in 0.0..10.0">>},
            {cache, some, <<"a number in 0.0..10.0">>},
            {negative_prompt, <<255>>, <<"text in UTF-8">>},
            {negative_prompt, [no, text], <<"text in UTF-8">>}
        ]
    ].

an_empty_prompt_is_refused_test_() ->
    [
        ?_assertMatch(
            {error, {bad_request, prompt, _, <<"some text: say what to draw">>}},
            baguette_engine_request:new(#{prompt => Prompt}, model())
        )
     || Prompt <- [<<>>, <<" \n ">>, ""]
    ].

a_missing_prompt_is_refused_test() ->
    ?assertMatch(
        {error, {bad_request, prompt, missing, _}}, baguette_engine_request:new(#{}, model())
    ).

a_long_prompt_is_named_by_its_size_test() ->
    Long = binary:copy(<<"é"/utf8>>, 2001),
    ?assertEqual(
        {error, {bad_request, prompt, {bytes, 4002}, <<"at most 2000 characters">>}},
        baguette_engine_request:new(#{prompt => Long}, model())
    ),
    Fits = binary:copy(<<"é"/utf8>>, 2000),
    ?assertMatch({ok, _}, baguette_engine_request:new(#{prompt => Fits}, model())).

an_unknown_option_is_refused_test() ->
    ?assertMatch({error, {bad_request, stepz, unknown, _}}, new(#{stepz => 3})).
