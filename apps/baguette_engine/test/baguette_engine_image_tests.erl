%% Steps in which an image uses its velocities again, and so asks nobody. Whether it does is the
%% pipeline worker's to say; here a generation is told so, on the way and after a restart.
-module(baguette_engine_image_tests).

-include_lib("eunit/include/eunit.hrl").

-define(EXPERTS, [<<"e0">>, <<"e1">>]).
-define(STEPS, 4).

only_images_that_are_to_be_asked_are_asked_test() ->
    Second = second_step([{[0, 1], none}, {[1, 0], 0.25}]),
    ?assertEqual([{<<"e0">>, [<<"l0">>]}, {<<"e1">>, [<<"l0">>]}], asked(Second)),
    ?assertMatch([#{experts := [[0, 1], [1, 0]], reused := [[], [1, 0]]}], steps(Second)),
    {_, Effects} = answered(Second),
    ?assertMatch(
        {call, advance, #{cache := 0.5, images := [
            #{change := 0.0, velocities := [[0, <<"v0-l0">>], [1, <<"v1-l0">>]]},
            %% Those of the step before.
            #{change := 0.25, velocities := [[0, <<"v0-l1">>], [1, <<"v1-l1">>]]}
        ]}, _},
        lists:last(Effects)
    ).

a_step_in_which_nobody_is_asked_goes_on_at_once_test() ->
    {S, Effects} = Second = second_step([{[0, 1], 0.1}, {[0, 1], 0.25}]),
    ?assertEqual([], asked(Second)),
    ?assertMatch({call, advance, #{step := 1}, _}, lists:last(Effects)),
    ?assertEqual(advancing, baguette_engine_step:phase(S)),
    ?assertMatch([#{reused := [[0, 1], [0, 1]], asked := Asked}] when Asked =:= #{}, steps(Second)).

what_was_used_again_is_told_of_each_picture_test() ->
    Second = second_step([{[0, 1], none}, {[0, 1], 0.25}]),
    Third = called(routed([{[0, 1], 0.1}, {[0, 1], none}]), answered(Second)),
    Last = called(routed([{[0, 1], none}, {[0, 1], none}]), answered(Third)),
    {_, Decoding} = Decoded =
        called(#{<<"images">> => [#{<<"latent">> => <<"x">>} || _ <- [1, 2]],
            <<"advance_micros">> => 1}, answered(Last)),
    Texts = [#{'baguette:cache' => {text, <<"0.5">>}, 'baguette:reused' => {text, <<"2">>}}
        || _ <- [1, 2]],
    {call, decode, #{text := Told}, _} = lists:last(Decoding),
    ?assertEqual(Texts, [maps:with(['baguette:cache', 'baguette:reused'], T) || T <- Told]),
    Png = #{<<"png">> => <<"p">>, <<"pixels_sha256">> => <<"h">>, <<"latent_sha256">> => <<"h">>},
    {_, Done} = called(#{<<"images">> => [Png, Png]}, Decoded),
    [Result] = [R || {done, R} <- Done],
    ?assertMatch(#{cache := 0.5, images := [#{reused := 2}, #{reused := 2}], asked := 8}, Result),
    #{routing := [First, Other]} = Result,
    Reused = fun(Lines) -> [maps:get(reused, Line, false) || Line <- Lines] end,
    ?assertEqual([false, false, true, false], Reused(First)),
    ?assertEqual([false, true, false, false], Reused(Other)).

velocities_of_other_experts_are_never_used_test() ->
    ?assertError({badmatch, false}, second_step([{[0, 1], none}, {[1], 0.25}])).

a_restart_changes_nothing_test() ->
    {S, _} = Second = second_step([{[0, 1], none}, {[0, 1], 0.25}]),
    {_, Undisturbed} = answered(Second),
    {ok, Back} = read(bytes(S)),
    Fresh = baguette_engine_step:resumed(Back, new()),
    Resumed = {Again, _} = called(encoded(), event(begin_now, {Fresh, []})),
    ?assertEqual(asked(Second), asked(Resumed)),
    {_, GoneOn} = answered(Resumed),
    ?assertEqual(lists:last(Undisturbed), lists:last(GoneOn)),
    ?assertEqual(asking, baguette_engine_step:phase(Again)).

what_is_used_again_is_checked_after_a_restart_test_() ->
    Change = fun(Name, Value) -> fun(Image) -> Image#{Name => Value} end end,
    [
        ?_assertEqual({error, {bad_checkpoint, #{why => another_shape}}}, read(damaged(Damage)))
     || Damage <- [
            Change(<<"change">>, <<"x">>),
            Change(<<"velocities">>, nil),
            Change(<<"velocities">>, [[0, <<"v">>]]),
            Change(<<"velocities">>, [[0, <<"v">>], [7, <<"v">>]]),
            Change(<<"velocities">>, [[0, <<"v">>], [1, 3]]),
            Change(<<"velocities">>, [[0, <<"v">>], 1]),
            fun(Image) -> maps:remove(<<"velocities">>, Image) end,
            fun(Image) -> maps:remove(<<"change">>, Image) end
        ]
    ].

%% Helpers --------------------------------------------------------------------------------------

request() ->
    #{
        prompt => <<"a star">>, negative_prompt => <<>>, n => 2, steps => ?STEPS,
        guidance_scale => 2.0, top_k => 2, seed => 7, deterministic => false, cache => 0.5,
        on_missing => wait
    }.

new() ->
    Limits = #{ask_floor_ms => 1000, missing_ms => 1000},
    baguette_engine_step:new(<<"id">>, request(), ?EXPERTS, Limits).

%% Two images, each asked both experts in its first step, then routed so.
second_step(Routed) ->
    Begun = called(encoded(), event(begin_now, {new(), []})),
    called(routed(Routed), answered(called(routed([{[0, 1], none}, {[0, 1], none}]), Begun))).

event(Event, {S, _}) ->
    Holder = #{node => node(), key => <<"k">>, expected_us => 10, call_us => 10},
    View = #{
        now_us => 7, holders => fun(_, _) -> [Holder] end, why_missing => fun(_) -> nobody end,
        hedge => fun() -> none end, typical => 1.0
    },
    baguette_engine_step:event(Event, View, S).

called(Answer, World) -> event({called, {ok, Answer}}, World).

%% Each call's velocities are named by expert and latent.
answered({_, Effects} = World) ->
    lists:foldl(
        fun({No, <<"e", Expert/binary>>, Latents}, W) ->
            Velocities = [<<"v", Expert/binary, "-", Latent/binary>> || Latent <- Latents],
            event({answered, No, {ok, #{<<"velocities">> => Velocities, <<"micros">> => 1}}}, W)
        end,
        World,
        asks(Effects)
    ).

asks(Effects) ->
    [
        {No, Component, [Latent || #{<<"latent">> := Latent} <- Rows]}
     || {ask, No, _, Component, _, #{rows := Rows}} <- Effects
    ].

asked({_, Effects}) -> [{Component, Latents} || {_, Component, Latents} <- asks(Effects)].

steps({_, Effects}) -> [Facts || {publish, {step, Facts}} <- Effects].

encoded() ->
    #{
        <<"context">> => #{<<"hash">> => <<"c">>, <<"tensor">> => <<"tc">>},
        <<"null">> => #{<<"hash">> => <<"n">>, <<"tensor">> => <<"tn">>},
        <<"warnings">> => [], <<"keys">> => #{}, <<"threads">> => 1
    }.

routed(Images) ->
    Numbered = lists:zip([<<"l0">>, <<"l1">>], Images),
    #{
        <<"images">> => [image(Latent, Experts, Change) || {Latent, {Experts, Change}} <- Numbered],
        <<"t">> => 0.5, <<"network_t">> => 500.0, <<"route_micros">> => 2,
        <<"advance_micros">> => 3
    }.

image(Latent, Experts, none) ->
    #{
        <<"latent">> => Latent, <<"experts">> => Experts, <<"margin">> => 0.5,
        <<"weights">> => [0.5 || _ <- Experts]
    };
image(Latent, Experts, Change) ->
    (image(Latent, Experts, none))#{<<"change">> => Change}.

bytes(S) ->
    {ok, {Fingerprint, State}} = baguette_engine_step:checkpoint(S),
    baguette_engine_checkpoint:to_bytes(Fingerprint, State).

read(Bytes) -> baguette_engine_checkpoint:read(Bytes, request(), #{experts => ?EXPERTS}).

%% The bytes with the second image changed, and a hash that fits.
damaged(Damage) ->
    {S, _} = second_step([{[0, 1], none}, {[0, 1], 0.25}]),
    <<Head:20/binary, _Hash:32/binary, Body/binary>> = bytes(S),
    {ok, #{<<"images">> := [First, Second]} = Map} = baguette_engine_msgpack:decode(Body),
    Changed = baguette_engine_msgpack:encode(Map#{<<"images">> := [First, Damage(Second)]}),
    <<Head/binary, (crypto:hash(sha256, Changed))/binary, Changed/binary>>.
