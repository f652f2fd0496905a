%% @doc What a finished generation tells whoever asked, and what its PNG files say. Pure; called by
%% baguette_engine_step. Provenance goes with the result: seed, settings, keys, experts and weights
%% of every step, and who answered what.
-module(baguette_engine_result).

-export([new/4, seeds/1, texts/3]).

%% @doc `Encoded' and `Decoded' are the pipeline worker's answers (docs/internals/port.md), `Drawn'
%% what the generation itself knows.
-spec new(baguette_engine_request:request(), map(), [map()], map()) -> map().
new(Request, Encoded, Decoded, #{calls := Calls, keys := Keys, saved := Saved} = Drawn0) ->
    Told = [seed, steps, guidance_scale, top_k, deterministic, cache, on_missing],
    {Asked, Drawn} = {maps:with(Told, Request), maps:remove(saved, Drawn0)},
    %% Only a simulated device says so.
    Simulated = [{simulated, true} || #{<<"simulated">> := true} <- [Encoded]],
    maps:merge(maps:merge(Drawn, maps:from_list(Simulated)), Asked#{
        prompt_sha256 => hex(crypto:hash(sha256, maps:get(prompt, Request))),
        threads => maps:get(<<"threads">>, Encoded),
        keys => maps:fold(fun expert_key/3, maps:get(<<"keys">>, Encoded), Keys),
        warnings => maps:get(<<"warnings">>, Encoded),
        images => lists:zipwith3(fun picture/3, Decoded, seeds(Request), Saved),
        who => who(Calls)
    }).

%% @doc The seed of each image: images are independent.
-spec seeds(baguette_engine_request:request()) -> [non_neg_integer()].
seeds(#{seed := Seed, n := N}) -> lists:seq(Seed, Seed + N - 1).

%% @doc What each PNG carries: only what does not change from run to run, and not the prompt; and
%% where it was drawn without an expert, that it was.
-spec texts(
    baguette_engine_request:request(), Saved :: [non_neg_integer()],
    baguette_engine_record:record()
) -> [#{atom() => {text, binary()}}].
texts(Request, Saved, Record) ->
    #{degraded := Degraded} = baguette_engine_record:to_map(Record),
    Numbered = lists:zip3(lists:seq(0, maps:get(n, Request) - 1), seeds(Request), Saved),
    [
        lists:foldl(fun maps:merge/2, picture_text(Seed, Request), [
            reused(Reused, Request),
            degraded([D || #{image := Image} = D <- Degraded, Image =:= Number])
        ])
     || {Number, Seed, Reused} <- Numbered
    ].

reused(_, #{cache := Off}) when Off == 0 ->
    #{};
reused(Reused, #{cache := Threshold}) ->
    #{
        'baguette:cache' => {text, float_to_binary(Threshold, [short])},
        'baguette:reused' => {text, integer_to_binary(Reused)}
    }.

degraded([]) ->
    #{};
degraded(Entries) ->
    Steps = [
        io_lib:format("step ~b without expert ~b (~.2f of its weight)", [Step + 1, Expert, Mass])
     || #{step := Step, lost := [Expert], mass := Mass} <- Entries
    ],
    #{'baguette:degraded' => {text, iolist_to_binary(lists:join("; ", Steps))}}.

picture_text(Seed, #{steps := Steps, guidance_scale := Scale, top_k := TopK}) ->
    maps:map(fun(_, Value) -> {text, Value} end, #{
        'baguette:seed' => integer_to_binary(Seed),
        'baguette:steps' => integer_to_binary(Steps),
        'baguette:guidance_scale' => float_to_binary(Scale, [short]),
        'baguette:top_k' =>
            case TopK of
                full -> <<"full">>;
                _ -> integer_to_binary(TopK)
            end
    }).

expert_key(Expert, Key, Keys) ->
    Keys#{<<"expert-", (integer_to_binary(Expert))/binary>> => Key}.

picture(#{<<"png">> := Png} = Decoded, Seed, Saved) ->
    #{<<"pixels_sha256">> := Pixels, <<"latent_sha256">> := Latent} = Decoded,
    #{
        png => Png, pixels_sha256 => Pixels, latent_sha256 => Latent, seed => Seed,
        reused => Saved
    }.

who(Calls) ->
    lists:foldl(
        fun(#{node := Node}, Count) -> maps:update_with(Node, fun(N) -> N + 1 end, 1, Count) end,
        #{},
        Calls
    ).

hex(Bin) ->
    string:lowercase(binary:encode_hex(Bin)).
