%% @doc The state of a generation after its last whole step, as bytes and back: pure. Called by the
%% door, in its caller's process, with what baguette_engine_step kept; nothing dies with it.
%%
%%   <<"baguette-checkpoint", Version, SHA-256 of the body:32/binary, Body>>
%%
%% The body is one msgpack map: the request's fingerprint, the step, latents with their routing, the
%% keys, and what happened so far. Contexts are not in it, nor is the prompt: the same request is
%% made again, and its texts are encoded again.
%%
%% The bytes come back from a file. The hash tells damage, not malice: whatever is in the body is
%% held against the request and the model, field by field, and makes no atom and no process. Not
%% erlang's own term format, because [safe] would refuse the name of a node not met again yet.
-module(baguette_engine_checkpoint).

-export([fingerprint/2, made_with/1, to_bytes/2, read/3]).
%% For the modules that restore a part of it
-export([integer/3, number/1, list/2, saved_node/1, restored_node/1, bad/1]).

-export_type([state/0, fingerprint/0]).

-define(MAGIC, "baguette-checkpoint").
-define(VERSION, 1).
-define(MAX_BYTES, (64 bsl 20)).
-define(MAX_LATENT, (4 bsl 20)).
-define(MAX_US, (1 bsl 53)).
%% msgpack's lists are bounded; a long picture has more calls than that.
-define(CHUNK, 1024).
-define(PARTS, [encode, route, experts, advance, decode]).

-type state() :: #{
    step := non_neg_integer(), % so many are whole
    t := map(),
    images := [baguette_engine_image:image()],
    record := baguette_engine_record:record(),
    keys := #{baguette_engine_image:expert() => binary()},
    spent := #{atom() => non_neg_integer()},
    elapsed_us := non_neg_integer(),
    made_with := saved()
}.
-type saved() :: baguette_engine_msgpack:value().
-type fingerprint() :: <<_:256>>.

%% @doc What a request must have in common with the one that a checkpoint was taken of: everything.
-spec fingerprint(baguette_engine_request:request(), Experts :: [binary()]) -> fingerprint().
fingerprint(Request, Experts) ->
    crypto:hash(sha256, baguette_engine_msgpack:encode(#{request => Request, experts => Experts})).

%% @doc What the pipeline worker's answer to `encode' says of itself: a picture's bytes are promised
%% for one version of its parts and one thread count.
-spec made_with(Encoded :: map()) -> saved().
made_with(Encoded) -> maps:with([<<"keys">>, <<"threads">>], Encoded).

%% @doc The bytes to be kept.
-spec to_bytes(fingerprint(), state()) -> binary().
to_bytes(Fingerprint, #{images := Images, record := Record, keys := Keys} = State) ->
    Plain = maps:with([step, t, spent, elapsed_us, made_with], State),
    Body = baguette_engine_msgpack:encode(Plain#{
        fingerprint => Fingerprint,
        images => [chunked(baguette_engine_image:save(Image), [routing]) || Image <- Images],
        record => chunked(baguette_engine_record:save(Record), baguette_engine_record:lists()),
        keys => [[Expert, Key] || {Expert, Key} <- lists:sort(maps:to_list(Keys))]
    }),
    <<?MAGIC, ?VERSION, (crypto:hash(sha256, Body))/binary, Body/binary>>.

%% @doc The state, if these are the bytes of a checkpoint of this request to this model.
-spec read(binary(), baguette_engine_request:request(), baguette_engine_model:model()) ->
    {ok, state()} | {error, {bad_checkpoint, #{why := atom()}}}.
read(Bytes, Request, #{experts := Experts}) ->
    try
        Body = map(body(Bytes)),
        Fingerprint = fingerprint(Request, Experts),
        is(maps:get(<<"fingerprint">>, Body, none) =:= Fingerprint, another_request),
        {ok, state(Body, Request, length(Experts))}
    catch
        throw:{bad_checkpoint, Why} -> {error, {bad_checkpoint, #{why => Why}}}
    end.

body(Bytes) when not is_binary(Bytes) ->
    bad(not_bytes);
body(Bytes) when byte_size(Bytes) > ?MAX_BYTES ->
    bad(too_large);
body(<<?MAGIC, ?VERSION, Hash:32/binary, Body/binary>>) ->
    is(crypto:hash(sha256, Body) =:= Hash, damaged),
    case baguette_engine_msgpack:decode(Body) of
        {ok, Value} -> Value;
        {error, malformed} -> bad(malformed)
    end;
body(<<?MAGIC, _Version, _/binary>>) ->
    bad(another_version);
body(_) ->
    bad(not_a_checkpoint).

state(#{
    <<"step">> := Step,
    <<"t">> := #{<<"t">> := T, <<"network_t">> := NetworkT},
    <<"images">> := Images,
    <<"record">> := Record,
    <<"keys">> := Keys,
    <<"spent">> := Spent,
    <<"elapsed_us">> := Elapsed,
    <<"made_with">> := #{<<"keys">> := #{}, <<"threads">> := _} = MadeWith
}, #{n := N, steps := Steps, top_k := TopK}, Experts) ->
    integer(Step, 0, Steps - 1),
    Shape = #{
        experts => Experts, steps => Step + 1, images => N, max_latent => ?MAX_LATENT,
        asked => case TopK of full -> Experts; _ -> TopK end
    },
    is(length(list(fun(I) -> I end, Images)) =:= N, another_shape),
    #{
        step => Step,
        t => #{<<"t">> => number(T), <<"network_t">> => number(NetworkT)},
        images => [
            baguette_engine_image:restore(whole(map(I), [<<"routing">>]), Shape) || I <- Images
        ],
        record => baguette_engine_record:restore(whole(map(Record), names()), Shape),
        keys => maps:from_list(list(fun(Pair) -> key(Pair, Experts) end, Keys)),
        spent => spent(map(Spent)),
        elapsed_us => integer(Elapsed, 0, ?MAX_US),
        made_with => MadeWith
    };
state(_, _, _) ->
    bad(another_shape).

key([Expert, Key], Experts) when is_binary(Key) -> {integer(Expert, 0, Experts - 1), Key};
key(_, _) -> bad(another_shape).

spent(Spent) ->
    maps:from_list([
        {Part, integer(maps:get(Name, Spent), 0, ?MAX_US)}
     || Part <- ?PARTS, Name <- [atom_to_binary(Part)], is_map_key(Name, Spent)
    ]).

names() -> [atom_to_binary(Name) || Name <- baguette_engine_record:lists()].

%% Long lists, in pieces and whole again.

chunked(Map, Names) ->
    lists:foldl(fun(Name, M) -> maps:update_with(Name, fun chunks/1, M) end, Map, Names).

chunks([]) -> [];
chunks(List) ->
    {Chunk, Rest} = lists:split(min(?CHUNK, length(List)), List),
    [Chunk | chunks(Rest)].

whole(Map, Names) ->
    lists:foldl(
        fun
            (Name, M) when is_map_key(Name, M) ->
                Chunks = list(fun(Chunk) -> list(fun(E) -> E end, Chunk) end, maps:get(Name, M)),
                M#{Name := lists:append(Chunks)};
            (_, _) ->
                bad(another_shape)
        end,
        Map,
        Names
    ).

%% Checks: what is not as it should be throws.

%% @doc This integer, if it lies within these bounds.
-spec integer(term(), integer(), integer()) -> integer().
integer(Value, Low, High) when is_integer(Value), Value >= Low, Value =< High -> Value;
integer(_, _, _) -> bad(another_shape).

%% @doc This number.
-spec number(term()) -> number().
number(Value) when is_number(Value) -> Value;
number(_) -> bad(another_shape).

%% @doc A list with each of its items checked.
-spec list(fun((saved()) -> Item), term()) -> [Item].
list(Check, Items) when is_list(Items) -> lists:map(Check, Items);
list(_, _) -> bad(another_shape).

%% @doc How a node stands in the bytes.
-spec saved_node(node()) -> binary().
saved_node(Node) -> atom_to_binary(Node).

%% @doc The node of that name: ourselves or a member, whether it is there or not.
-spec restored_node(term()) -> node().
restored_node(Name) when is_binary(Name) ->
    case {atom_to_binary(node()), baguette_cluster:member(Name)} of
        {Name, _} -> node();
        {_, {ok, Node}} -> Node;
        {_, {error, _}} -> bad(another_shape)
    end;
restored_node(_) ->
    bad(another_shape).

map(Value) when is_map(Value) -> Value;
map(_) -> bad(another_shape).

is(true, _) -> ok;
is(false, Why) -> bad(Why).

%% @doc These are not the bytes of such a checkpoint, for this reason.
-spec bad(atom()) -> no_return().
bad(Why) -> throw({bad_checkpoint, Why}).
