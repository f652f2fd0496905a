%% @doc The control node's JSON: requests in, facts out. Pure. Names of options come from a list
%% here, so no line that is read ever makes an atom.
-module(baguette_control_json).

-export([request/1, order/1, changes/1, failure/1, encode/1]).

-define(OPTIONS, #{
    <<"prompt">> => prompt,
    <<"negative_prompt">> => negative_prompt,
    <<"n">> => n,
    <<"steps">> => steps,
    <<"guidance_scale">> => guidance_scale,
    <<"top_k">> => top_k,
    <<"seed">> => seed,
    <<"deterministic">> => deterministic,
    <<"cache">> => cache,
    <<"on_missing">> => on_missing
}).
-define(ON_MISSING, #{
    <<"wait">> => wait, <<"degrade">> => degrade, <<"fail">> => fail
}).

%% What can be changed of a simulated device while it runs.
-define(CHANGES, #{
    <<"speed">> => speed,
    <<"batch_us">> => batch_us,
    <<"row_us">> => row_us,
    <<"restart_ms">> => restart_ms,
    <<"skew">> => skew,
    <<"fail">> => fail,
    <<"poison">> => poison,
    <<"exact">> => exact
}).
-define(FAILURES, #{
    <<"none">> => none,
    <<"died">> => died,
    <<"out_of_memory">> => out_of_memory,
    <<"not_finite">> => not_finite,
    <<"failure">> => failure
}).

-spec request(term()) -> {ok, map()} | {error, {unknown_option, map()}}.
request(Given) when is_map(Given) ->
    case maps:keys(maps:without(maps:keys(?OPTIONS), Given)) of
        [] -> {ok, maps:from_list([option(Key, Value) || {Key, Value} <- maps:to_list(Given)])};
        [Unknown | _] -> {error, {unknown_option, #{option => Unknown}}}
    end;
request(_) ->
    {error, {unknown_option, #{}}}.

option(<<"top_k">>, <<"full">>) -> {top_k, full};
option(<<"on_missing">>, Value) -> {on_missing, maps:get(Value, ?ON_MISSING, Value)};
option(Key, Value) -> {maps:get(Key, ?OPTIONS), Value}.

%% @doc Many pictures at once: a request with its first seed, and how many.
-spec order(term()) -> {ok, baguette_load:order()} | {error, {unknown_option | bad_command, map()}}.
order(#{<<"request">> := Request, <<"concurrent">> := Most, <<"images">> := All,
        <<"ms">> := Ms, <<"seeds">> := Seeds, <<"prompts">> := Prompts}) ->
    Counts = [Most, All, Ms, Seeds, Prompts],
    case {request(Request), lists:all(fun(N) -> is_integer(N) andalso N > 0 end, Counts)} of
        {{ok, #{seed := First, prompt := Prompt} = Asked}, true} when
            is_integer(First), is_binary(Prompt)
        ->
            {ok, #{
                request => Asked, concurrent => Most, images => All, ms => Ms,
                seeds => Seeds, prompts => Prompts
            }};
        {{error, _} = Error, _} ->
            Error;
        _ ->
            {error, {bad_command, #{}}}
    end;
order(_) ->
    {error, {bad_command, #{}}}.

%% @doc Changes of a simulated device; values that cannot be are refused by that device's check.
-spec changes(term()) -> {ok, map()} | {error, {unknown_option, map()}}.
changes(Given) when is_map(Given) ->
    case maps:keys(maps:without(maps:keys(?CHANGES), Given)) of
        [] -> {ok, maps:from_list([change(Key, Value) || {Key, Value} <- maps:to_list(Given)])};
        [Unknown | _] -> {error, {unknown_option, #{option => Unknown}}}
    end;
changes(_) ->
    {error, {unknown_option, #{}}}.

change(<<"fail">>, Value) -> {fail, maps:get(Value, ?FAILURES, Value)};
change(<<"poison">>, <<"none">>) -> {poison, none};
change(Key, Value) -> {maps:get(Key, ?CHANGES), Value}.

%% @doc A reason as its name, its facts and its sentence.
-spec failure(term()) -> map().
failure(Reason) ->
    Sentence = unicode:characters_to_binary(baguette_text:error(Reason)),
    maps:merge(named(Reason), #{sentence => Sentence}).

named({bad_request, Field, Got, Allowed}) ->
    #{name => bad_request, facts => #{field => Field, got => Got, allowed => Allowed}};
named({Name, Facts}) when is_atom(Name), is_map(Facts) -> #{name => Name, facts => Facts};
named(_) -> #{name => unexpected, facts => #{}}.

-spec encode(map()) -> iodata().
encode(Facts) ->
    jiffy:encode(json(Facts)).

%% Whatever the rooms put into their facts becomes something JSON has; text that is no UTF-8 (a PNG)
%% becomes base64, tuples become lists, and what has no other form is printed.
json(Map) when is_map(Map) ->
    maps:from_list([{key(K), json(V)} || {K, V} <- maps:to_list(Map)]);
json(List) when is_list(List) ->
    [json(Item) || Item <- List];
json(Tuple) when is_tuple(Tuple) ->
    [json(Item) || Item <- tuple_to_list(Tuple)];
json(undefined) ->
    null;
json(Value) when is_atom(Value); is_number(Value) ->
    Value;
json(Binary) when is_binary(Binary) ->
    case unicode:characters_to_binary(Binary) of
        Binary -> Binary;
        _ -> base64:encode(Binary)
    end;
json(Other) ->
    unicode:characters_to_binary(io_lib:format("~0tp", [Other])).

key(Key) when is_atom(Key); is_binary(Key) -> Key;
key(Key) when is_integer(Key) -> integer_to_binary(Key);
key(Key) -> unicode:characters_to_binary(io_lib:format("~0tp", [Key])).
