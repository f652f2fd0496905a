%% @doc What a simulated device is like: the map in the setting `device => {simulated, Map}'; its
%% defaults and the check that names the culprit. Pure; called by baguette_engine_settings (once at
%% start, and for every change at run time) and by baguette_engine_simulated (at every call, so that
%% a change counts from the next one on). The default times are round numbers and nobody's
%% measurement: who compares with them gives times of his own, and says where they come from.
-module(baguette_engine_simulated_settings).

-export([check/1, in_effect/1, change/2]).

-export_type([settings/0, model/0]).

-type model() :: #{
    name := unicode:chardata(), % of the components too, after "simulated-"
    experts := pos_integer(),
    size_mib := pos_integer(), % of each expert
    latent_bytes := pos_integer(), % of one image's latent and of one velocity
    context_bytes := pos_integer(), % of one text context
    top_k := pos_integer(),
    steps := pos_integer() % of a request that does not say how many
}.
-type settings() :: #{
    model := model(),
    %% An expert call takes batch_us + rows * row_us; a canonical one computes row by row.
    batch_us := non_neg_integer(),
    row_us := non_neg_integer(),
    %% The pipeline worker: a request's text; an image's step with the next routing; an image.
    encode_us := non_neg_integer(),
    advance_us := non_neg_integer(),
    decode_us := non_neg_integer(),
    load_ms := non_neg_integer(),
    %% From the death of a simulated worker to its next start.
    restart_ms := non_neg_integer(),
    %% Expert E is chosen with a weight of 1/(E+1)^skew: 0 asks all alike.
    skew := number(),
    %% All times are divided by it: 0.1 is a straggler.
    speed := number(),
    %% What becomes of every expert call: `died' is the death of the worker at the call's end.
    fail := none | baguette_engine_frame:error_class() | died,
    %% An expert call for this prompt is the death of the worker at its end.
    poison := none | unicode:chardata(),
    %% Answers come at their microsecond, not at the nearest millisecond: a core spins for it.
    exact := boolean()
}.

-define(CLASSES, [
    none, died, bad_input, not_held, not_finite, out_of_memory, device_lost, failure
]).

-define(TIMES, [batch_us, row_us, encode_us, advance_us, decode_us]).

-spec defaults() -> settings().
defaults() ->
    #{
        model => model(),
        batch_us => 20000,
        row_us => 5000,
        encode_us => 10000,
        advance_us => 500,
        decode_us => 20000,
        load_ms => 1000,
        restart_ms => 1000,
        skew => 0.5,
        speed => 1.0,
        fail => none,
        poison => none,
        exact => false
    }.

-spec model() -> model().
model() ->
    #{
        name => <<"model">>,
        experts => 8,
        size_mib => 1200,
        latent_bytes => 16384,
        context_bytes => 65536,
        top_k => 2,
        steps => 30
    }.

%% @doc Every value given is usable, or the first that is not, in a sentence.
-spec check(term()) -> true | binary().
check(Given) when is_map(Given) ->
    Model = maps:get(model, Given, #{}),
    case is_map(Model) of
        true ->
            Flat = maps:to_list(maps:remove(model, Given)) ++ maps:to_list(Model),
            together(first_wrong(lists:sort(Flat)), Given);
        false ->
            <<"a map with a map as its model">>
    end;
check(_) ->
    <<"{simulated, Map}">>.

%% @doc The settings with the defaults of what was left out, and every time as `speed' makes it.
-spec in_effect(map()) -> settings().
in_effect(Given) ->
    Model = maps:merge(model(), maps:get(model, Given, #{})),
    #{speed := Speed} = Settings = maps:merge(defaults(), Given#{model => Model}),
    Times = maps:with([load_ms | ?TIMES], Settings),
    maps:merge(Settings, maps:map(fun(_, Time) -> round(Time / Speed) end, Times)).

%% @doc What is given, changed. The model stays: its components are known to the cluster.
-spec change(map(), map()) -> {ok, map()} | {error, binary()}.
change(Changes, Given) ->
    Allowed = check(Changes),
    case {maps:is_key(model, Changes), Allowed} of
        {true, _} -> {error, <<"the same model as at the start">>};
        {false, true} -> {ok, maps:merge(Given, Changes)};
        {false, Why} -> {error, Why}
    end.

first_wrong([]) ->
    true;
first_wrong([{Key, Value} | Rest]) ->
    case one(Key, Value) of
        true -> first_wrong(Rest);
        Why -> iolist_to_binary(io_lib:format("~0tp is ~ts", [Key, Why]))
    end.

one(name, Value) -> is_name(Value) orelse "1..64 characters of a-z, 0-9, - and _";
one(experts, Value) -> within(Value, 1, 256);
one(size_mib, Value) -> within(Value, 1, 1 bsl 20);
one(latent_bytes, Value) -> blob_bytes(Value);
one(context_bytes, Value) -> blob_bytes(Value);
one(top_k, Value) -> within(Value, 1, 256);
one(steps, Value) -> within(Value, 1, 250);
one(Key, Value) when Key =:= load_ms; Key =:= restart_ms -> within(Value, 0, 3600000);
one(skew, Value) -> (is_number(Value) andalso Value >= 0 andalso Value =< 10) orelse "0..10";
one(speed, Value) ->
    (is_number(Value) andalso Value >= 0.001 andalso Value =< 1000) orelse "0.001..1000";
one(fail, Value) -> lists:member(Value, ?CLASSES) orelse io_lib:format("one of ~0p", [?CLASSES]);
one(poison, none) -> true;
one(poison, Value) -> is_text(Value) orelse "none or a prompt";
one(exact, Value) -> is_boolean(Value) orelse "true or false";
one(Key, Value) ->
    case lists:member(Key, ?TIMES) of
        true -> within(Value, 0, 3600000000);
        false -> "no setting of a simulated device"
    end.

together(true, Given) ->
    #{model := #{top_k := TopK, experts := Experts}} = in_effect(Given),
    TopK =< Experts orelse <<"top_k is at most the number of experts">>;
together(Why, _Given) ->
    Why.

%% A simulated tensor repeats a hash of 32 bytes.
blob_bytes(Value) ->
    (is_integer(Value) andalso Value >= 32 andalso Value =< 1 bsl 24 andalso
        Value rem 32 =:= 0) orelse "a multiple of 32, 32..16777216".

within(Value, Low, High) ->
    (is_integer(Value) andalso Value >= Low andalso Value =< High) orelse
        io_lib:format("an integer in ~b..~b", [Low, High]).

is_text(Value) when is_list(Value); is_binary(Value) ->
    try is_binary(unicode:characters_to_binary(Value))
    catch error:badarg -> false
    end;
is_text(_) ->
    false.

is_name(Value) when is_list(Value); is_binary(Value) ->
    re:run(Value, "^[a-z0-9_-]{1,64}$", [{capture, none}, dollar_endonly]) =:= match;
is_name(_) ->
    false.
