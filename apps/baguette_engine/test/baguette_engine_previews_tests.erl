%% Previews as calls: what the pipeline worker is asked when, seen by a process that stands in its
%% server's place and answers when it is told to.
-module(baguette_engine_previews_tests).

-include_lib("eunit/include/eunit.hrl").

-export([
    an_image_a_call_one_after_the_other/0,
    a_step_that_comes_while_one_is_out_is_not_shown/0,
    the_next_round_begins_after_a_while/0,
    what_is_not_there_yet_is_asked_for_with_the_next_step/0,
    a_failure_ends_the_round_and_nothing_else/0,
    nothing_is_wanted_any_more/0
]).

-define(PAYLOAD, #{step => 4, steps => 9, top_k => 2, images => [#{latent => <<"a">>},
    #{latent => <<"b">>}]}).

previews_test_() ->
    [
        {atom_to_list(Case), fun() -> in_its_place(fun ?MODULE:Case/0) end}
     || Case <- [
            an_image_a_call_one_after_the_other, a_step_that_comes_while_one_is_out_is_not_shown,
            the_next_round_begins_after_a_while,
            what_is_not_there_yet_is_asked_for_with_the_next_step,
            a_failure_ends_the_round_and_nothing_else, nothing_is_wanted_any_more
        ]
    ].

in_its_place(Case) ->
    true = register(baguette_engine_pipeline, self()),
    try Case()
    after
        true = unregister(baguette_engine_pipeline),
        _ = asked()
    end.

an_image_a_call_one_after_the_other() ->
    P0 = baguette_engine_previews:offer(?PAYLOAD, 0, baguette_engine_previews:new()),
    {Ref0, #{<<"step">> := 4, <<"images">> := [#{<<"latent">> := <<"a">>}]}} = asked(),
    {[First], P1} = baguette_engine_previews:answered(Ref0, png(<<"0">>), P0),
    ?assertEqual({preview, #{image => 0, step => 5, png => <<"0">>}}, First),
    {Ref1, #{<<"images">> := [#{<<"latent">> := <<"b">>}]}} = asked(),
    {[{preview, #{image := 1}}], P2} = baguette_engine_previews:answered(Ref1, png(<<"1">>), P1),
    ?assertEqual(none, asked()),
    ?assertEqual(stray, baguette_engine_previews:answered(Ref1, png(<<"1">>), P2)).

a_step_that_comes_while_one_is_out_is_not_shown() ->
    P0 = baguette_engine_previews:offer(?PAYLOAD, 0, baguette_engine_previews:new()),
    {_, _} = asked(),
    ?assertEqual(P0, baguette_engine_previews:offer(?PAYLOAD, 100000, P0)),
    ?assertEqual(none, asked()).

the_next_round_begins_after_a_while() ->
    P = whole_round(baguette_engine_previews:offer(?PAYLOAD, 0, baguette_engine_previews:new())),
    ?assertEqual(P, baguette_engine_previews:offer(?PAYLOAD, 499, P)),
    ?assertEqual(none, asked()),
    _ = baguette_engine_previews:offer(?PAYLOAD, 500, P),
    ?assertMatch({_, _}, asked()).

what_is_not_there_yet_is_asked_for_with_the_next_step() ->
    P0 = baguette_engine_previews:offer(?PAYLOAD, 0, baguette_engine_previews:new()),
    {Ref0, Asked} = asked(),
    {[], P1} = baguette_engine_previews:answered(Ref0, {ok, #{<<"pngs">> => nil}}, P0),
    ?assertEqual(none, asked()),
    P2 = baguette_engine_previews:offer(?PAYLOAD, 1, P1),
    {Ref1, Asked} = asked(),
    ?assertMatch({[_], _}, baguette_engine_previews:answered(Ref1, png(<<"0">>), P2)).

a_failure_ends_the_round_and_nothing_else() ->
    P0 = baguette_engine_previews:offer(?PAYLOAD, 0, baguette_engine_previews:new()),
    {Ref0, _} = asked(),
    {[], P1} = baguette_engine_previews:answered(Ref0, {error, {died, #{}}}, P0),
    ?assertEqual(none, asked()),
    P2 = baguette_engine_previews:offer(?PAYLOAD, 500, P1),
    {Ref1, _} = asked(),
    {ok, P3} = baguette_engine_previews:lost(Ref1, P2),
    ?assertEqual(stray, baguette_engine_previews:lost(Ref1, P3)),
    _ = baguette_engine_previews:offer(?PAYLOAD, 1000, P3),
    ?assertMatch({_, _}, asked()).

nothing_is_wanted_any_more() ->
    P0 = baguette_engine_previews:offer(?PAYLOAD, 0, baguette_engine_previews:new()),
    {Ref, _} = asked(),
    P1 = baguette_engine_previews:leave(P0),
    receive {'$gen_cast', {cancel, Ref}} -> ok after 0 -> error(not_cancelled) end,
    ?assertEqual(stray, baguette_engine_previews:answered(Ref, png(<<"0">>), P1)),
    ?assertEqual(baguette_engine_previews:new(), baguette_engine_previews:leave(P1)).

%% Helpers --------------------------------------------------------------------------------------

whole_round(P) ->
    case asked() of
        none -> P;
        {Ref, _} -> whole_round(element(2, baguette_engine_previews:answered(Ref, png(<<"x">>), P)))
    end.

png(Png) -> {ok, #{<<"pngs">> => [Png]}}.

%% What the pipeline server was sent: only ever what is not urgent.
asked() ->
    receive
        {'$gen_cast', {when_idle, Ref, To, {preview, Bytes}}} when To =:= self() ->
            {ok, Payload} = baguette_engine_msgpack:decode(Bytes),
            {Ref, Payload}
    after 0 -> none
    end.
