%% @doc A checked request: bounds, defaults, one clause per field; pure.
%%
%% Called by the door before anything is started. The single-process pipeline checks the same
%% bounds (python_worker/baguette/request.py).
-module(baguette_engine_request).

-export([new/2, limits/0]).

-export_type([request/0, reason/0]).

-define(MAX_PROMPT, 2000).
-define(MAX_IMAGES, 64).
-define(MAX_STEPS, 250).
-define(MAX_GUIDANCE, 30.0).
-define(MAX_SEED, (1 bsl 62)).
-define(MAX_CACHE, 10.0).

-type request() :: #{
    prompt := binary(),
    negative_prompt := binary(),
    n := pos_integer(),
    steps := pos_integer(),
    guidance_scale := float(),
    top_k := pos_integer() | full,
    seed := non_neg_integer(),
    %% Canonical calls only: the picture's bytes do not depend on company.
    deterministic := boolean(),
    %% The threshold below which velocities are used again; 0.0: never.
    cache := float(),
    %% What becomes of it when nobody holds an expert for a while: it waits, does without it, fails.
    on_missing := wait | degrade | fail
}.
-type reason() :: {bad_request, Field :: atom(), Got :: term(), Allowed :: binary()}.

%% @doc The most that any request may ask for.
-spec limits() -> #{n | steps := pos_integer()}.
limits() ->
    #{n => ?MAX_IMAGES, steps => ?MAX_STEPS}.

%% @doc Fill in the model's defaults and check every field.
-spec new(map(), baguette_engine_model:model()) -> {ok, request()} | {error, reason()}.
new(Options, #{defaults := Defaults, experts := Experts}) when is_map(Options) ->
    Cache = maps:get(cache, Options, 0.0),
    Base = Defaults#{
        negative_prompt => <<>>, cache => Cache, deterministic => Cache == 0, on_missing => wait
    },
    Given = maps:merge(Base, Options),
    Fields = [
        prompt, negative_prompt, n, steps, guidance_scale, top_k, seed, deterministic, cache,
        on_missing
    ],
    case maps:keys(maps:without(Fields, Given)) of
        [] -> check(Fields, Given, length(Experts), #{});
        [Unknown | _] -> {error, {bad_request, Unknown, unknown, names(Fields)}}
    end.

check([], _Given, _Experts, #{deterministic := true, cache := Cache}) when Cache > 0 ->
    {error, {bad_request, cache, Cache, <<"0 with deterministic: give one of them">>}};
check([], _Given, _Experts, Request) ->
    {ok, Request};
check([Field | Rest], Given, Experts, Request) ->
    Got = maps:get(Field, Given, missing),
    case field(Field, Got, Experts) of
        {ok, Value} -> check(Rest, Given, Experts, Request#{Field => Value});
        Allowed -> {error, {bad_request, Field, shown(Got), Allowed}}
    end.

field(prompt, Got, _) ->
    case text(Got) of
        {ok, Text} ->
            case string:is_empty(string:trim(Text)) of
                true -> <<"some text: say what to draw">>;
                false -> {ok, Text}
            end;
        Allowed ->
            Allowed
    end;
field(negative_prompt, Got, _) ->
    text(Got);
field(n, Got, _) ->
    integer(Got, 1, ?MAX_IMAGES);
field(steps, Got, _) ->
    integer(Got, 1, ?MAX_STEPS);
field(seed, Got, _) ->
    integer(Got, 0, ?MAX_SEED);
field(guidance_scale, Got, _) when is_number(Got), Got >= 1, Got =< ?MAX_GUIDANCE ->
    {ok, float(Got)};
field(guidance_scale, _, _) ->
    iolist_to_binary(io_lib:format("a number in 1.0..~.1f", [?MAX_GUIDANCE]));
field(top_k, full, _) ->
    {ok, full};
field(top_k, Got, Experts) ->
    case integer(Got, 1, Experts) of
        {ok, _} = Ok -> Ok;
        Range -> <<Range/binary, " or full">>
    end;
field(deterministic, Got, _) when is_boolean(Got) ->
    {ok, Got};
field(deterministic, _, _) ->
    <<"true or false">>;
field(cache, Got, _) when is_number(Got), Got >= 0, Got =< ?MAX_CACHE ->
    {ok, float(Got)};
field(cache, _, _) ->
    iolist_to_binary(io_lib:format("a number in 0.0..~.1f", [?MAX_CACHE]));
field(on_missing, Got, _) when Got =:= wait; Got =:= degrade; Got =:= fail ->
    {ok, Got};
field(on_missing, _, _) ->
    <<"wait, degrade or fail">>.

integer(Got, Low, High) when is_integer(Got), Got >= Low, Got =< High ->
    {ok, Got};
integer(_, Low, High) ->
    iolist_to_binary(io_lib:format("~b..~b", [Low, High])).

text(Got) when is_binary(Got); is_list(Got) ->
    case to_binary(Got) of
        Text when is_binary(Text), byte_size(Text) =< 4 * ?MAX_PROMPT ->
            case string:length(Text) =< ?MAX_PROMPT of
                true -> {ok, Text};
                false -> too_long()
            end;
        Text when is_binary(Text) ->
            too_long();
        _ ->
            <<"text in UTF-8">>
    end;
text(_) ->
    <<"text: a binary or a string">>.

%% A list may hold anything.
to_binary(Got) ->
    try
        unicode:characters_to_binary(Got)
    catch
        error:badarg -> error
    end.

too_long() ->
    iolist_to_binary(io_lib:format("at most ~b characters", [?MAX_PROMPT])).

%% An error is shown to people and logged: a long value is named by its size, never repeated.
shown(Got) when is_binary(Got), byte_size(Got) > 60 -> {bytes, byte_size(Got)};
shown(Got) when is_list(Got), length(Got) > 60 -> {length, length(Got)};
shown(Got) -> Got.

names(Fields) ->
    iolist_to_binary(lists:join(", ", [atom_to_binary(Field) || Field <- Fields])).
