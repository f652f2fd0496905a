%% What a client may ask for, field by field.
-module(baguette_web_image_request_tests).
-include_lib("eunit/include/eunit.hrl").

-define(MODEL, #{
    name => <<"mini">>,
    defaults => #{n => 1, steps => 30, guidance_scale => 5, top_k => 2, seed => 0},
    example_prompt => <<"a">>, num_experts => 8, image_size => {64, 48}
}).
-define(LIMITS, #{prompt_bytes => 100, steps => 50, n => 8, pixels => 4 * 64 * 48}).

new(Body) ->
    baguette_web_image_request:new(Body#{<<"prompt">> => <<"a red circle">>}, ?MODEL, ?LIMITS).

what_is_omitted_or_null_comes_from_the_model_test() ->
    Expected = #{
        prompt => <<"a red circle">>, negative_prompt => <<>>, model => <<"mini">>, n => 1,
        steps => 30, guidance_scale => 5.0, top_k => 2, seed => 0, deterministic => false,
        cache => 0.0, on_missing => wait
    },
    ?assertEqual({ok, Expected}, new(#{})),
    ?assertEqual({ok, Expected}, new(#{<<"n">> => null, <<"size">> => null})),
    ?assertEqual({ok, Expected}, new(#{<<"size">> => <<"64x48">>, <<"steps">> => 30.0})).

what_is_given_is_taken_test() ->
    Given = #{
        <<"top_k">> => <<"full">>, <<"on_missing">> => <<"degrade">>, <<"seed">> => 7,
        <<"deterministic">> => true, <<"cache">> => 0, <<"n">> => 4
    },
    ?assertMatch(
        {ok, #{top_k := full, on_missing := degrade, seed := 7, deterministic := true, n := 4}},
        new(Given)
    ).

a_bad_field_is_named_test_() ->
    Bad = [
        {<<"prompt">>, <<"  ">>}, {<<"prompt">>, 7}, {<<"prompt">>, binary:copy(<<"a">>, 101)},
        {<<"negative_prompt">>, []}, {<<"model">>, <<"dall-e-3">>}, {<<"model">>, 1},
        {<<"n">>, 0}, {<<"n">>, 9}, {<<"n">>, 1.5}, {<<"n">>, 1.0e300}, {<<"n">>, <<"1">>},
        {<<"n">>, 5},
        {<<"size">>, <<"1024x1024">>}, {<<"size">>, 64}, {<<"steps">>, 51}, {<<"steps">>, true},
        {<<"guidance_scale">>, 0.5}, {<<"guidance_scale">>, 31}, {<<"guidance_scale">>, <<>>},
        {<<"top_k">>, 9}, {<<"top_k">>, 0}, {<<"top_k">>, <<"all">>}, {<<"seed">>, -1},
        {<<"seed">>, 1 bsl 63}, {<<"deterministic">>, 1}, {<<"cache">>, -1},
        {<<"cache">>, 11}, {<<"cache">>, <<"0.1">>}, {<<"on_missing">>, <<"retry">>},
        {<<"colour">>, <<"red">>}, {<<"response_format">>, <<"url">>}
    ],
    [
        {lists:flatten(io_lib:format("~ts ~0tp", [Field, Value])), fun() ->
            Body = #{<<"prompt">> => <<"a">>, Field => Value},
            {error, #{field := Named, detail := Detail}} =
                baguette_web_image_request:new(Body, ?MODEL, ?LIMITS),
            ?assertEqual(Field, Named),
            ?assertMatch({0, _}, binary:match(Detail, Field))
        end}
     || {Field, Value} <- Bad
    ].

reuse_and_certain_bytes_exclude_each_other_test() ->
    ?assertMatch({ok, #{cache := 0.25, deterministic := false}}, new(#{<<"cache">> => 0.25})),
    {error, #{field := <<"cache">>, detail := Detail}} =
        new(#{<<"cache">> => 0.25, <<"deterministic">> => true}),
    ?assertMatch({_, _}, binary:match(Detail, <<"deterministic">>)).

without_a_prompt_nothing_is_drawn_test() ->
    ?assertMatch(
        {error, #{field := <<"prompt">>}}, baguette_web_image_request:new(#{}, ?MODEL, ?LIMITS)
    ).

a_long_name_is_not_repeated_test() ->
    Field = binary:copy(<<"é"/utf8>>, 5000),
    {error, #{field := Named}} = new(#{Field => 1}),
    ?assertEqual(40, string:length(Named)).

what_a_job_shows_can_be_read_back_test() ->
    {ok, Options} = new(#{<<"top_k">> => <<"full">>, <<"on_missing">> => <<"fail">>}),
    Json = jiffy:encode(baguette_web_image_request:to_json(Options)),
    Read = jiffy:decode(Json, [return_maps]),
    ?assertEqual({ok, Options}, baguette_web_image_request:restored(Read)),
    [
        ?assertMatch({error, _}, baguette_web_image_request:restored(Read#{Field => []}))
     || Field <- maps:keys(Read)
    ].

openais_fields_test() ->
    Answer = fun baguette_web_image_request:answer/1,
    ?assertEqual(
        {ok, #{format => b64_json, stream => false, partial_images => 0}, #{<<"n">> => 2}},
        Answer(#{<<"n">> => 2, <<"user">> => <<"me">>, <<"quality">> => <<"hd">>})
    ),
    ?assertMatch(
        {ok, #{format := url, stream := true, partial_images := 3}, _},
        Answer(#{
            <<"response_format">> => <<"url">>, <<"stream">> => true, <<"partial_images">> => 3,
            <<"output_format">> => <<"png">>
        })
    ),
    [
        ?assertMatch({error, #{field := Field}}, Answer(#{Field => Value}))
     || {Field, Value} <- [
            {<<"response_format">>, <<"jpeg">>}, {<<"stream">>, 1}, {<<"partial_images">>, 4},
            {<<"output_format">>, <<"webp">>}
        ]
    ].
