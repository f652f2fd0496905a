%% @doc What the workers are told in each call of a generation, before it is packed, and what they
%% answer, unpacked. Called by baguette_engine_step and baguette_engine_generation. The twin of the
%% entry points' docstrings in python_worker/baguette/worker; docs/internals/port.md lists them.
%% Text is {text, Binary}: msgpack tells it from bytes.
-module(baguette_engine_payload).

-export([encode/1, start/1, ask/5, advance/3, decode/4]).
-export([answer/1, counted/1]).

-type request() :: baguette_engine_request:request().

-spec encode(request()) -> map().
encode(#{prompt := Prompt, negative_prompt := Negative}) ->
    #{prompt => {text, Prompt}, negative_prompt => {text, Negative}}.

-spec start(request()) -> map().
start(Request) ->
    (steps(Request))#{seeds => baguette_engine_result:seeds(Request)}.

%% @doc A row for each image that chose the expert. `T' and `Encoded' are the pipeline worker's own
%% answers. Its contexts go along if they are to be told, also the one that the holder did know: it
%% may have forgotten that one until it gets to the call.
-spec ask(binary(), [Image], T :: map(), {Encoded :: map(), told | untold}, request()) -> map() when
    Image :: baguette_engine_image:image().
ask(Component, Images, T, {Encoded, Told}, Request) ->
    #{<<"context">> := Context, <<"null">> := Null} = Encoded,
    #{<<"hash">> := ContextHash} = Context,
    #{<<"hash">> := NullHash} = Null,
    Common = T#{
        <<"context">> => {text, ContextHash},
        <<"null">> => {text, NullHash},
        <<"scale">> => maps:get(guidance_scale, Request)
    },
    #{
        component => {text, Component},
        canonical => maps:get(deterministic, Request),
        rows => [baguette_engine_image:row(Common, Image) || Image <- Images],
        contexts => [
            #{hash => {text, Hash}, tensor => Tensor}
         || Told =:= told,
            #{<<"hash">> := Hash, <<"tensor">> := Tensor} <- [Context, Null]
        ]
    }.

%% @doc `Step' counts from 0.
-spec advance(non_neg_integer(), [baguette_engine_image:image()], request()) -> map().
advance(Step, Images, Request) ->
    Answered = [baguette_engine_image:answered(Image) || Image <- Images],
    (steps(Request))#{step => Step, cache => maps:get(cache, Request), images => Answered}.

%% @doc `Moved' are the images of the last `advance'; a few of them in each call.
-spec decode([map()], [baguette_engine_image:image()], request(), baguette_engine_record:record())
    -> [map()].
decode(Moved, Images, Request, Record) ->
    Latents = [Latent || #{<<"latent">> := Latent} <- Moved],
    Saved = [baguette_engine_image:saved(Image) || Image <- Images],
    Texts = baguette_engine_result:texts(Request, Saved, Record),
    Parts = few(lists:zip(Latents, Texts), baguette_engine_batch:decoded()),
    [
        (canonical(Request))#{latents => Some, text => Their}
     || {Some, Their} <- lists:map(fun lists:unzip/1, Parts)
    ].

few(Images, Most) when length(Images) =< Most ->
    [Images];
few(Images, Most) ->
    {First, Rest} = lists:split(Most, Images),
    [First | few(Rest, Most)].

steps(#{top_k := full} = Request) -> steps(Request#{top_k := nil});
steps(#{steps := Steps, top_k := TopK} = Request) ->
    (canonical(Request))#{steps => Steps, top_k => TopK}.

canonical(#{deterministic := Deterministic}) -> #{canonical => Deterministic}.

%% @doc What came back, unpacked.
-spec answer({ok, binary()} | {error, Reason}) -> {ok, map()} | {error, Reason | {failure, map()}}.
answer({ok, Payload}) ->
    case baguette_engine_msgpack:decode(Payload) of
        {ok, Map} when is_map(Map) -> {ok, Map};
        _ -> {error, {failure, #{message => <<"the worker's answer is not a msgpack map">>}}}
    end;
answer({error, _} = Error) ->
    Error.

%% @doc An expert answered: so many bytes came.
-spec counted({ok, binary()} | {error, term()}) -> ok.
counted({ok, Payload}) ->
    baguette_engine_metrics:count(answer_bytes_total, none, byte_size(Payload));
counted({error, _}) ->
    ok.
