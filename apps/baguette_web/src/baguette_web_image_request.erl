%% @doc What a client wants drawn: a JSON body becomes the engine's options, or a problem that names
%% the field. Pure; called by the handlers of jobs and images, and by baguette_web_job for a job
%% that is read back from its file.
%%
%% Every bound is a setting. What is omitted, or null, is filled in from the model here and stands
%% in the job, so that a job begun again after a restart is still the same one.
-module(baguette_web_image_request).

-export([new/3, restored/1, to_json/1, answer/1]).
-export_type([options/0, limits/0, model/0, refused/0]).

%% What the engine's own limits are; settings may be lower.
-define(MAX_PROMPT_CHARACTERS, 2000).
-define(MAX_GUIDANCE, 30).
-define(MAX_SEED, (1 bsl 62)).
-define(MAX_CACHE, 10).
-define(MAX_PARTIAL_IMAGES, 3).
-define(SHOWN_CHARACTERS, 40).

-define(FIELDS, [
    <<"prompt">>,
    <<"negative_prompt">>,
    <<"model">>,
    <<"n">>,
    <<"size">>,
    <<"steps">>,
    <<"guidance_scale">>,
    <<"top_k">>,
    <<"seed">>,
    <<"deterministic">>,
    <<"cache">>,
    <<"on_missing">>
]).
-define(OPENAI_FIELDS, [
    <<"response_format">>, <<"stream">>, <<"partial_images">>, <<"output_format">>
]).
%% OpenAI's client may send them; here they change nothing.
-define(OPENAI_IGNORED, [
    <<"user">>, <<"quality">>, <<"background">>, <<"style">>, <<"moderation">>,
    <<"output_compression">>
]).

-type options() :: #{atom() => binary() | number() | atom()}.
-type limits() :: #{
    prompt_bytes := pos_integer(),
    steps := pos_integer(),
    n := pos_integer(),
    pixels := pos_integer()    % of all images of a request together
}.
%% As baguette_engine:model/0 tells it.
-type model() :: #{
    name := binary(),
    defaults := #{atom() => number()},
    num_experts := pos_integer(),
    image_size := {Width :: pos_integer(), Height :: pos_integer()} | unknown,
    atom() => term()
}.
-type refused() :: #{field := binary(), detail := binary()}.

%% @doc The engine's options. A field that is not known is refused.
-spec new(#{binary() => term()}, model(), limits()) -> {ok, options()} | {error, refused()}.
new(Body, #{defaults := Defaults} = Model, Limits) ->
    case given(Body) -- ?FIELDS of
        [] ->
            Base = Defaults#{
                negative_prompt => <<>>, deterministic => false, cache => 0, on_missing => wait,
                model => maps:get(name, Model), size => <<"auto">>
            },
            checked(?FIELDS, Body, Base, {Model, Limits}, #{});
        [Unknown | _] ->
            Names = lists:join(", ", ?FIELDS),
            refused(Unknown, ["there is no such field; a job's are ", Names])
    end.

%% @doc How the body of OpenAI's endpoint wants its answer, and the body without that.
-spec answer(#{binary() => term()}) ->
    {ok, #{format := url | b64_json, stream := boolean(), partial_images := 0..3}, map()}
    | {error, refused()}.
answer(Body) ->
    Rest = maps:without(?OPENAI_FIELDS ++ ?OPENAI_IGNORED, Body),
    Read = [
        {format, <<"response_format">>, b64_json},
        {stream, <<"stream">>, false},
        {partial_images, <<"partial_images">>, 0},
        {output_format, <<"output_format">>, png}
    ],
    case answer(Read, Body, #{}) of
        {ok, Answer} -> {ok, maps:remove(output_format, Answer), Rest};
        {error, _} = Error -> Error
    end.

answer([], _Body, Answer) ->
    {ok, Answer};
answer([{Key, Name, Default} | Rest], Body, Answer) ->
    case value(Name, Body) of
        absent ->
            answer(Rest, Body, Answer#{Key => Default});
        Value ->
            case openai(Key, Value) of
                {ok, Checked} -> answer(Rest, Body, Answer#{Key => Checked});
                Expected -> refused(Name, ["must be ", Expected])
            end
    end.

openai(format, <<"b64_json">>) -> {ok, b64_json};
openai(format, <<"url">>) -> {ok, url};
openai(format, _) -> "b64_json or url";
openai(stream, Value) -> boolean(Value);
openai(partial_images, Value) -> integer(Value, 0, ?MAX_PARTIAL_IMAGES);
openai(output_format, <<"png">>) -> {ok, png};
openai(output_format, _) -> "png: pictures are drawn as PNG files only".

%% @doc The options of a job that was accepted before, from what to_json/1 made of them. They were
%% checked then; a file may have been changed by anybody since, so their types are checked again.
-spec restored(#{binary() => term()}) -> {ok, options()} | {error, refused()}.
restored(#{<<"model">> := Name} = Request) when is_binary(Name) ->
    Limits = #{
        prompt_bytes => 4 * ?MAX_PROMPT_CHARACTERS, steps => 1 bsl 16, n => 1 bsl 16,
        pixels => 1 bsl 62
    },
    Model = #{
        name => Name, defaults => #{}, num_experts => 1 bsl 16, image_size => unknown
    },
    new(Request, Model, Limits);
restored(_) ->
    refused(<<"model">>, "must be text").

%% @doc What a job shows of its request.
-spec to_json(options()) -> #{atom() => binary() | number() | boolean()}.
to_json(#{on_missing := OnMissing, top_k := TopK} = Options) ->
    Options#{
        on_missing := atom_to_binary(OnMissing),
        top_k := case TopK of full -> <<"full">>; _ -> TopK end
    }.

%% A null is what a client sends for "not given".
given(Body) -> [Field || {Field, Value} <- maps:to_list(Body), Value =/= null].

value(Name, Body) ->
    case Body of
        #{Name := null} -> absent;
        #{Name := Value} -> Value;
        _ -> absent
    end.

checked([], _Body, _Base, _Context, #{deterministic := true, cache := Cache}) when Cache > 0 ->
    refused(<<"cache">>, "must be 0 with deterministic: give one of them");
checked([], _Body, _Base, {#{image_size := unknown}, _}, Options) ->
    {ok, maps:remove(size, Options)};
checked([], _Body, _Base, {#{image_size := {Width, Height}}, #{pixels := Most}}, Options) ->
    #{n := N} = Options,
    case N * Width * Height =< Most of
        true ->
            {ok, maps:remove(size, Options)};
        false ->
            Fit = max(1, Most div (Width * Height)),
            refused(<<"n">>, ["ask for at most ", integer_to_list(Fit), " images of this size"])
    end;
checked([Name | Rest], Body, Base, Context, Options) ->
    Key = key(Name),
    Value = case value(Name, Body) of absent -> maps:get(Key, Base, absent); Given -> Given end,
    case field(Key, Value, Context) of
        {ok, Checked} -> checked(Rest, Body, Base, Context, Options#{Key => Checked});
        Expected -> refused(Name, ["must be ", Expected])
    end.

key(<<"prompt">>) -> prompt;
key(<<"negative_prompt">>) -> negative_prompt;
key(<<"model">>) -> model;
key(<<"n">>) -> n;
key(<<"size">>) -> size;
key(<<"steps">>) -> steps;
key(<<"guidance_scale">>) -> guidance_scale;
key(<<"top_k">>) -> top_k;
key(<<"seed">>) -> seed;
key(<<"deterministic">>) -> deterministic;
key(<<"cache">>) -> cache;
key(<<"on_missing">>) -> on_missing.

field(prompt, Value, {_, Limits}) ->
    case text(Value, Limits) of
        {ok, Text} ->
            case string:is_empty(string:trim(Text)) of
                true -> "some text: say what to draw";
                false -> {ok, Text}
            end;
        Expected ->
            Expected
    end;
field(negative_prompt, Value, {_, Limits}) ->
    text(Value, Limits);
field(model, Name, {#{name := Name}, _}) ->
    {ok, Name};
field(model, _, {#{name := Name}, _}) ->
    [Name, ", the model this cluster draws with"];
field(n, Value, {_, #{n := Most}}) ->
    integer(Value, 1, Most);
field(size, <<"auto">>, _) ->
    {ok, <<"auto">>};
field(size, _, {#{image_size := unknown}, _}) ->
    "auto: this node does not know its model's size";
field(size, Value, {#{image_size := {Width, Height}}, _}) ->
    Own = iolist_to_binary(io_lib:format("~bx~b", [Width, Height])),
    case Value of
        Own -> {ok, Value};
        _ -> ["auto or ", Own, ", the size this model draws"]
    end;
field(steps, Value, {_, #{steps := Most}}) ->
    integer(Value, 1, Most);
field(guidance_scale, Value, _) when is_number(Value), Value >= 1, Value =< ?MAX_GUIDANCE ->
    {ok, float(Value)};
field(guidance_scale, _, _) ->
    io_lib:format("a number in 1..~b", [?MAX_GUIDANCE]);
field(top_k, <<"full">>, _) ->
    {ok, full};
field(top_k, Value, {#{num_experts := Experts}, _}) ->
    case integer(Value, 1, Experts) of
        {ok, _} = Ok -> Ok;
        Expected -> [Expected, " or full"]
    end;
field(seed, Value, _) ->
    integer(Value, 0, ?MAX_SEED);
field(deterministic, Value, _) ->
    boolean(Value);
field(cache, Value, _) when is_number(Value), Value >= 0, Value =< ?MAX_CACHE ->
    {ok, float(Value)};
field(cache, _, _) ->
    io_lib:format("a number in 0..~b; 0 never uses a velocity again", [?MAX_CACHE]);
field(on_missing, Value, _) ->
    on_missing(Value).

on_missing(wait) -> {ok, wait};
on_missing(<<"wait">>) -> {ok, wait};
on_missing(<<"degrade">>) -> {ok, degrade};
on_missing(<<"fail">>) -> {ok, fail};
on_missing(_) -> "wait, degrade or fail".

%% JSON has one kind of number: 30.0 is an integer too.
integer(Value, Low, High) when is_float(Value), Value >= Low, Value =< High ->
    case trunc(Value) == Value of
        true -> {ok, trunc(Value)};
        false -> range(Low, High)
    end;
integer(Value, Low, High) when is_integer(Value), Value >= Low, Value =< High ->
    {ok, Value};
integer(_, Low, High) ->
    range(Low, High).

range(Low, High) -> io_lib:format("a whole number in ~b..~b", [Low, High]).

boolean(Value) when is_boolean(Value) -> {ok, Value};
boolean(_) -> "true or false".

text(Value, #{prompt_bytes := Most}) when is_binary(Value), byte_size(Value) =< Most ->
    case string:length(Value) =< ?MAX_PROMPT_CHARACTERS of
        true -> {ok, Value};
        false -> io_lib:format("at most ~b characters long", [?MAX_PROMPT_CHARACTERS])
    end;
text(Value, #{prompt_bytes := Most}) when is_binary(Value) ->
    io_lib:format("at most ~b bytes long", [Most]);
text(_, _) ->
    "text".

refused(Field, Detail) ->
    Shown = string:slice(Field, 0, ?SHOWN_CHARACTERS),
    {error, #{field => Shown, detail => unicode:characters_to_binary([Shown, ": ", Detail])}}.
