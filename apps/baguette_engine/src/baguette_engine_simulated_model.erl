%% @doc What a simulated device answers, and how long it would compute: pure. Called by
%% baguette_engine_simulated only. The twin of python_worker/baguette/worker/*_entry.py: the same
%% entry points, payloads of the same shape and size. Nothing is computed: a simulated tensor is a
%% hash repeated to its size, a picture eight by eight pixels of two colours from a hash.
%%
%% What it keeps of the real one: a velocity depends on component, latent, time, contexts and
%% guidance and on nothing else, the next latent on the velocities by expert and their weights. So a
%% call that is made again, anywhere, changes no picture, and one that is mixed up does.
-module(baguette_engine_simulated_model).

-export([new/0, answer/4, together_us/3, components/1]).

-export_type([memory/0, outcome/0]).

%% As the real workers: baguette/worker/expert_entry.py.
-define(MAX_ROWS, 256).
%% What a device remembers of texts; it then begins anew, and asks for them again.
-define(MAX_CONTEXTS, 4096).
-define(SIDE, 8).
%% Where the node's own settings name no memory: a pipeline worker's share and two experts.
-define(MIB(Size), 1024 + 2 * Size).

-type settings() :: baguette_engine_simulated_settings:settings().
-type outcome() ::
    {ok, baguette_engine_msgpack:value()}
    | {error, {baguette_engine_frame:error_class(), map()}}
    %% The device died of it.
    | {error, {died, map()}}.

-record(memory, {
    loaded = [] :: [binary()],
    contexts = #{} :: #{Hash :: binary() => true}, % of all components
    calls = 0 :: non_neg_integer()
}).
-opaque memory() :: #memory{}.

%% @doc A device that has just started.
-spec new() -> memory().
new() -> #memory{}.

%% @doc The components a simulated device has on its disk: expert number 0, 1, ...
-spec components(settings()) -> [binary()].
components(#{model := #{name := Name, experts := Experts}}) ->
    Model = model_name(Name),
    [<<Model/binary, "/expert-", (integer_to_binary(E))/binary>> || E <- lists:seq(0, Experts - 1)].

%% A name of its own, so that no cluster ever takes these components for real ones.
model_name(Name) ->
    iolist_to_binary(["simulated-", Name]).

%% @doc Microseconds of computing, and the answer at their end.
-spec answer(atom(), binary(), settings(), memory()) ->
    {Us :: non_neg_integer(), outcome(), memory()}.
answer(Function, Payload, Settings, Memory) ->
    try
        {ok, #{} = Values} = baguette_engine_msgpack:decode(Payload),
        entry(Function, Values, Settings, Memory)
    catch
        throw:{Class, Message} ->
            {0, {error, {Class, #{message => Message}}}, Memory};
        error:Reason ->
            %% As the real runner: whatever else goes wrong in a call is that call's failure.
            {0, {error, {failure, #{message => name(Reason)}}}, Memory}
    end.

%% @doc What calls take that go as one: what each has besides its rows is had once.
-spec together_us(Function :: atom(), [Us :: non_neg_integer()], settings()) ->
    non_neg_integer().
together_us(velocity, Times, #{batch_us := Batch}) ->
    %% What asks for contexts, or fails, takes none.
    Computed = length([Us || Us <- Times, Us > 0]),
    lists:sum(Times) - max(0, Computed - 1) * Batch;
together_us(_, Times, _Settings) ->
    lists:sum(Times).

name(Reason) when is_atom(Reason) -> atom_to_binary(Reason);
name(Reason) when is_tuple(Reason), is_atom(element(1, Reason)) -> name(element(1, Reason));
name(_) -> <<"unknown">>.

%% The expert worker

entry(machine, _, #{model := #{size_mib := Size}}, M) ->
    Hardware = #{
        cpu => {text, <<"simulated device">>}, cores => 1, ram_mib => ?MIB(Size), gpu => nil,
        vram_mib => 0, driver => nil, no_gpu => {text, <<"simulated device">>}
    },
    About = #{hardware => Hardware, device => {text, <<"simulated">>}, memory_mib => ?MIB(Size)},
    {0, {ok, About#{figures => #{}}}, M};
entry(inventory, _, Settings, M) ->
    {0, {ok, inventory(Settings)}, M};
entry(warm, _, _, M) ->
    {0, {ok, #{}}, M};
entry(load, #{<<"component">> := C, <<"key">> := Key}, Settings, M) ->
    lists:member(C, components(Settings)) andalso Key =:= key(C, Settings) orelse
        throw({bad_weights, <<"no simulated component of this name and key">>}),
    Us = 1000 * maps:get(load_ms, Settings),
    #{model := #{size_mib := Size}} = Settings,
    Answer = #{micros => Us, us_per_mib => max(1, Us div Size)},
    {Us, {ok, Answer}, M#memory{loaded = lists:usort([C | M#memory.loaded])}};
entry(load, Values, _, M) when not is_map_key(<<"component">>, Values) ->
    %% Of the pipeline worker: text encoder, router, VAE.
    {0, {ok, #{}}, M};
entry(unload, #{<<"component">> := C}, _, M) ->
    {0, {ok, #{}}, M#memory{loaded = lists:delete(C, M#memory.loaded)}};
entry(velocity, Values, Settings, M) ->
    velocity(Values, Settings, M);
entry(probe, #{<<"component">> := C, <<"batches">> := Batches}, Settings, M) ->
    ok = holding(C, M),
    Micros = maps:from_list([{integer_to_binary(B), call_us(B, Settings)} || B <- Batches]),
    {0, {ok, #{micros => Micros, skipped => []}}, M};
entry(explore, _, Settings, M) ->
    Calls = maps:from_list([{integer_to_binary(B), call_us(B, Settings)} || B <- [1, 4, 16]]),
    Speed = #{
        device => {text, <<"simulated">>}, call_us => Calls, skipped => [], rows_equal => []
    },
    {0, {ok, #{done => true, speed => Speed}}, M};
entry(stats, _, Settings, M) ->
    {0, {ok, stats(Settings, M)}, M};
%% The pipeline worker
entry(encode, #{<<"prompt">> := Prompt, <<"negative_prompt">> := Negative}, Settings, M) ->
    Us = maps:get(encode_us, Settings),
    Answer = #{
        context => context(Prompt, Settings),
        null => context(Negative, Settings),
        warnings => [{text, <<"a simulated device: the picture is none">>}],
        keys => #{pipeline => {text, <<"simulated">>}},
        threads => 0,
        micros => Us,
        simulated => true
    },
    {Us, {ok, Answer}, M};
entry(start, #{<<"seeds">> := Seeds, <<"steps">> := Steps} = Values, Settings, M) ->
    Tags = [hash({seed, Seed}) || Seed <- Seeds],
    Us = length(Seeds) * maps:get(advance_us, Settings),
    {Us, {ok, (routed(Tags, 0, Steps, Values, Settings))#{route_micros => Us}}, M};
entry(advance, #{<<"images">> := Images, <<"step">> := Step, <<"steps">> := Steps} = V, Settings, M)
    when is_integer(Step), Step >= 0, Step < Steps
->
    Tags = [advanced(Image, Settings) || Image <- Images],
    Us = length(Images) * maps:get(advance_us, Settings),
    {Us, {ok, moved(Tags, Step + 1, Steps, V, Settings, Us)}, M};
entry(prepare, _, _, M) ->
    {0, {ok, #{done => true}}, M};
entry(preview, #{<<"images">> := Images, <<"step">> := Step}, Settings, M) when is_integer(Step) ->
    Pngs = [maps:get(png, picture(advanced(Image, Settings), #{})) || Image <- Images],
    {0, {ok, #{pngs => Pngs}}, M};
entry(decode, #{<<"latents">> := Latents, <<"text">> := Texts}, Settings, M) ->
    Us = length(Latents) * maps:get(decode_us, Settings),
    Images = lists:zipwith(fun(L, T) -> picture(tag(L, Settings), T) end, Latents, Texts),
    {Us, {ok, #{images => Images, micros => Us}}, M};
entry(_, _, _, _) ->
    throw({failure, <<"no entry point of a simulated device, or not its fields">>}).

stats(#{model := #{size_mib := Size}} = Settings, #memory{loaded = Loaded, calls = Calls}) ->
    #{
        device => {text, <<"simulated">>}, rss_mib => 0, rss_peak_mib => 0, vram_mib => 0,
        vram_peak_mib => 0, uptime_s => 0, os_pid => nil, calls => Calls,
        ram_free_mib => 0, vram_free_mib => 0,
        image_us => case Calls of 0 -> 0; _ -> call_us(1, Settings) end,
        components => [{text, C} || C <- Loaded],
        device_now => #{
            name => {text, <<"simulated device">>}, memory_mib => ?MIB(Size),
            used_mib => length(Loaded) * Size, utilisation => nil, temperature_c => nil,
            power_w => nil
        }
    }.

inventory(#{model := Model} = Settings) ->
    #{name := Name, size_mib := Size, top_k := TopK, steps := Steps} = Model,
    Components = components(Settings),
    #{
        name => {text, model_name(Name)},
        experts => [{text, C} || C <- Components],
        defaults => #{n => 1, steps => Steps, guidance_scale => 1.0, top_k => TopK, seed => 0},
        example_prompt => {text, <<"anything: this device is simulated">>},
        side => ?SIDE,
        components => [
            #{name => {text, C}, number => E, size_mib => Size, key => {text, key(C, Settings)}}
         || {E, C} <- lists:zip(lists:seq(0, length(Components) - 1), Components)
        ],
        refused => []
    }.

key(Component, #{model := Model}) ->
    <<Short:16/binary, _/binary>> = hex(hash({Component, maps:without([name, steps], Model)})),
    <<"simulated-", Short/binary>>.

holding(Component, #memory{loaded = Loaded}) ->
    lists:member(Component, Loaded) orelse throw({not_held, <<"not loaded in this worker">>}),
    ok.

velocity(#{<<"component">> := C, <<"rows">> := Rows} = Values, Settings, M0) ->
    ok = holding(C, M0),
    Count = length(Rows),
    Count >= 1 andalso Count =< ?MAX_ROWS orelse throw({bad_input, <<"1..256 rows">>}),
    M = learn(maps:get(<<"contexts">>, Values), M0),
    Named = lists:usort(lists:append([named(Row) || Row <- Rows])),
    case [H || H <- Named, not is_map_key(H, M#memory.contexts)] of
        [] ->
            Us = rows_us(Count, maps:get(<<"canonical">>, Values), Settings),
            {Us, computed(C, Rows, Us, Settings), M#memory{calls = M#memory.calls + 1}};
        Unknown ->
            {0, {ok, #{unknown => [{text, H} || H <- Unknown]}}, M}
    end.

computed(C, Rows, Us, #{poison := Poison} = Settings) ->
    case Poison =/= none andalso lists:any(fun(Row) -> asks_for(Poison, Row) end, Rows) of
        true -> {error, {died, #{}}};
        false -> {ok, #{velocities => [guided(C, R, Settings) || R <- Rows], micros => Us}}
    end.

asks_for(Prompt, #{<<"context">> := Hash}) ->
    Hash =:= hex(hash({text, unicode:characters_to_binary(Prompt)})).

named(#{<<"context">> := Context, <<"null">> := Null}) -> [Context, Null].

learn([], M) ->
    M;
learn(Contexts, #memory{contexts = Before} = M) ->
    Known = case map_size(Before) + length(Contexts) > ?MAX_CONTEXTS of
        true -> #{};
        false -> Before
    end,
    %% Copied: a part of a payload would keep the whole of it.
    New = [{binary:copy(H), true} || #{<<"hash">> := H, <<"tensor">> := _} <- Contexts],
    M#memory{contexts = maps:merge(Known, maps:from_list(New))}.

rows_us(Rows, true, Settings) -> Rows * call_us(1, Settings);
rows_us(Rows, false, Settings) -> call_us(Rows, Settings).

call_us(Rows, #{batch_us := Batch, row_us := Row}) -> Batch + Rows * Row.

guided(C, #{<<"latent">> := Latent, <<"t">> := T, <<"scale">> := Scale} = Row, Settings) ->
    latent(hash({C, tag(Latent, Settings), T, Scale, named(Row)}), Settings).

%% The way of a picture

advanced(#{<<"latent">> := Latent, <<"experts">> := Experts} = Image, Settings) ->
    #{<<"weights">> := Weights, <<"velocities">> := Velocities} = Image,
    Given = lists:sort([{E, tag(V, Settings)} || [E, V] <- Velocities]),
    [E || {E, _} <- Given] =:= lists:sort(Experts) orelse
        throw({bad_input, <<"velocities of other experts than were chosen">>}),
    hash({tag(Latent, Settings), lists:zip(Experts, Weights), Given}).

moved(Tags, Steps, Steps, _Values, Settings, Us) ->
    #{images => [#{latent => latent(Tag, Settings)} || Tag <- Tags], advance_micros => Us};
moved(Tags, Step, Steps, #{<<"cache">> := Cache, <<"images">> := Before} = Values, Settings, Us) ->
    #{images := Images} = Routed = routed(Tags, Step, Steps, Values, Settings),
    Left = Steps - 1 - Step,
    Routed#{
        images := [
            reusing(Cache, Image, Last#{<<"change">> := Change + 1 / Steps}, Left)
         || {Image, #{<<"change">> := Change} = Last} <- lists:zip(Images, Before)
        ],
        route_micros => 0, advance_micros => Us
    }.

%% As python_worker/baguette/reuse.py, for images of which each step moves all equally far.
reusing(Cache, #{experts := Chosen} = Image, #{<<"experts">> := Before, <<"change">> := C}, Left) ->
    case Left > 0 andalso C < Cache andalso lists:sort(Chosen) =:= lists:sort(Before) of
        true -> Image#{change => C};
        false -> Image
    end.

routed(Tags, Step, Steps, Values, Settings) ->
    T = 1.0 - Step / Steps,
    TopK = maps:get(<<"top_k">>, Values),
    Images = [
        (route(Tag, Step, TopK, Settings))#{latent => latent(Tag, Settings)}
     || Tag <- Tags
    ],
    #{images => Images, t => T, network_t => 1000 * T}.

%% Efraimidis and Spirakis' draw without replacement: the smallest -ln(u)/weight come first.
route(Tag, Step, TopK, #{model := #{experts := N}, skew := Skew}) ->
    <<Seed:64, _/binary>> = hash({route, Tag, Step}),
    {Drawn, _} = lists:mapfoldl(
        fun(E, Dice0) ->
            {U, Dice} = rand:uniform_s(Dice0),
            {{-math:log(1.0 - U) * math:pow(E + 1, Skew), E}, Dice}
        end,
        rand:seed_s(exsss, Seed),
        lists:seq(0, N - 1)
    ),
    Scores = [{1 / (Far + 0.01), E} || {Far, E} <- lists:sort(Drawn)],
    Sum = lists:sum([S || {S, _} <- Scores]),
    chosen([{S / Sum, E} || {S, E} <- Scores], TopK).

chosen(Shares, nil) ->
    chosen(Shares, length(Shares));
chosen(Shares, K) when is_integer(K), K >= 1, K =< length(Shares) ->
    {First, Left} = lists:split(K, Shares),
    Sum = lists:sum([S || {S, _} <- First]),
    {Last, _} = lists:last(First),
    #{
        experts => [E || {_, E} <- First],
        weights => [S / Sum || {S, _} <- First],
        margin => case Left of [{Next, _} | _] -> Last - Next; [] -> 1.0 end
    }.

context(Text, #{model := #{context_bytes := Bytes}}) ->
    Tag = hash({text, Text}),
    #{hash => {text, hex(Tag)}, tensor => blob(Tag, [1, Bytes div 4], Bytes)}.

latent(Tag, #{model := #{latent_bytes := Bytes}}) ->
    blob(Tag, [1, 1, Bytes div 4], Bytes).

blob(Tag, Shape, Bytes) ->
    Data = binary:copy(Tag, Bytes div byte_size(Tag)),
    baguette_engine_msgpack:encode([{text, <<"f32">>}, Shape, Data]).

%% The hash a latent or velocity repeats; one of another size is refused as the real worker would.
tag(Blob, #{model := #{latent_bytes := Bytes}}) ->
    case baguette_engine_msgpack:decode(Blob) of
        {ok, [<<"f32">>, [1, 1, _], <<Tag:32/binary, _/binary>> = Data]} when
            byte_size(Data) =:= Bytes
        ->
            Tag;
        _ ->
            throw({bad_input, <<"not a latent of this simulated model">>})
    end.

picture(Tag, Text) ->
    <<Ground:3/binary, Figure:3/binary, _/binary>> = Tag,
    Half = ?SIDE div 2,
    Pixels = iolist_to_binary([binary:copy(C, ?SIDE * Half) || C <- [Ground, Figure]]),
    #{
        png => baguette_engine_simulated_png:encode(?SIDE, Pixels, Text#{
            <<"baguette:simulated">> => <<"true">>
        }),
        pixels_sha256 => {text, hex(crypto:hash(sha256, Pixels))},
        latent_sha256 => {text, hex(Tag)}
    }.

hash(Term) -> crypto:hash(sha256, term_to_binary(Term)).

hex(Bin) -> string:lowercase(binary:encode_hex(Bin)).
