%% @doc POST /v1/images/generations, in the shape OpenAI's clients speak: a job that somebody waits
%% for. Handler of baguette_web_routes.
%%
%% The job is cancelled when the connection ends before it: this process is its owner. With an
%% Idempotency-Key it is drawn on, for whoever asks for it again.
-module(baguette_web_images_h).

-export([create/1]).

%% So often it is looked whether the client is still there: who waits sends nothing.
-define(LOOK_MS, 500).
-define(LOOKS_A_KEEP_ALIVE, 30).

-type answer() :: baguette_web_exchange:answer().

-spec create(baguette_web_exchange:exchange()) -> answer().
create(Exchange) ->
    case baguette_web_body:object(Exchange) of
        {ok, Body} -> answered(baguette_web_image_request:answer(Body), Exchange);
        {problem, _} = Problem -> Problem
    end.

answered({error, Refused}, _Exchange) ->
    baguette_web_job_problem:unusable(Refused);
answered({ok, How, Body}, Exchange) ->
    case baguette_web_jobs_h:submitted(Body, Exchange, #{owner => self(), seed => random}) of
        {ok, _, Job} -> drawn(plain(Job), How, Exchange);
        {problem, _} = Problem -> Problem
    end.

drawn(#{<<"id">> := Id} = Job, #{stream := true} = How, #{gone := Gone}) ->
    {stream, baguette_web_sse:headers(), fun(Send) ->
        Partial = #{
            job => Job, send => Send, most => maps:get(partial_images, How), told => #{},
            gone => Gone, looks => 0
        },
        Wanted = #{previews => maps:get(most, Partial) > 0},
        End = follow(Id, Wanted, fun(Event) -> streamed(Event, Partial) end),
        ended_stream(End, Send)
    end};
drawn(#{<<"id">> := Id}, #{format := Format}, #{gone := Gone, header := Header}) ->
    Quiet = fun
        Waiting(look) ->
            ok = still_there(Gone),
            Waiting;
        Waiting(_) ->
            Waiting
    end,
    case follow(Id, #{previews => false}, Quiet) of
        {<<"completed">>, Job} -> images(Job, Format, Header("host"));
        Other -> problem(Other, Id)
    end.

still_there(Gone) ->
    _ = Gone() andalso exit({shutdown, client_gone}),
    ok.

%% Each event, and `look' every now and then, is taken by a function that gives back the one for the
%% next.
follow(Id, Wanted, Take) ->
    case baguette_web_jobs:events(Id, none, Wanted) of
        {live, Monitor, Events} -> taken(Events, Id, Monitor, next_look(), Take);
        {ended, [{_, Name, Job}]} -> {Name, plain(Job)};
        {error, _} = Error -> Error
    end.

%% Its process ended, and it did not.
interrupted() ->
    case baguette_web_stopping:is() of
        true -> leaving;
        false -> interrupted
    end.

next_look() -> erlang:monotonic_time(millisecond) + ?LOOK_MS.

taken(Events, Id, Monitor, LookAt, Take) ->
    Next = lists:foldl(fun(Event, Fun) -> Fun(Event) end, Take, Events),
    receive
        {baguette_web_job, Id, {_, Name, Value} = Event} ->
            case baguette_web_job_record:is_end(Name) of
                true ->
                    true = erlang:demonitor(Monitor, [flush]),
                    {Name, plain(Value)};
                false ->
                    taken([Event], Id, Monitor, LookAt, Next)
            end;
        {'DOWN', Monitor, process, _, _} ->
            {error, {interrupted(), #{}}}
    after max(0, LookAt - erlang:monotonic_time(millisecond)) ->
        taken([look], Id, Monitor, next_look(), Next)
    end.

%% One answer --------------------------------------------------------------------------------------

images(#{<<"id">> := Id, <<"created">> := Created, <<"images">> := Images}, Format, Host) ->
    {json, 200, [], #{
        created => trunc(Created),
        data => [image(Format, Id, Image, Host) || Image <- Images],
        output_format => png,
        job => Id
    }}.

image(url, _Id, #{<<"url">> := Path}, Host) ->
    #{url => unicode:characters_to_binary(["http://", Host, Path])};
image(b64_json, Id, #{<<"index">> := I}, _Host) ->
    #{b64_json => b64(Id, I)}.

b64(Id, I) ->
    {ok, Png} = baguette_web_jobs:image(Id, I),
    base64:encode(Png).

problem({<<"cancelled">>, _}, Id) ->
    problem(409, <<"cancelled">>, <<"the job was cancelled while it was drawn; ask again">>, Id);
problem({<<"failed">>, #{<<"error">> := Error}}, Id) ->
    #{<<"type">> := <<"urn:baguette:", Name/binary>>, <<"status">> := Status} = Error,
    problem(Status, Name, maps:get(<<"detail">>, Error), Id);
problem({error, Reason}, _Id) ->
    baguette_web_job_problem:new(Reason).

problem(Status, Name, Detail, Id) ->
    Instance = <<"/v1/jobs/", Id/binary>>,
    {problem, baguette_web_problem:new(Status, Detail, #{name => Name, instance => Instance})}.

%% A stream ----------------------------------------------------------------------------------------

streamed(look, #{gone := Gone, send := Send, looks := Looks} = Partial) ->
    ok = still_there(Gone),
    _ = (Looks + 1) rem ?LOOKS_A_KEEP_ALIVE =:= 0 andalso Send(baguette_web_sse:keep_alive()),
    fun(Event) -> streamed(Event, Partial#{looks := Looks + 1}) end;
streamed({_, <<"preview">>, Preview}, Partial) ->
    After = partial(plain(Preview), Partial),
    fun(Event) -> streamed(Event, After) end;
streamed(_Other, Partial) ->
    fun(Event) -> streamed(Event, Partial) end.

%% Spread over the steps: of three the second is due half way.
partial(#{<<"image">> := I, <<"step">> := Step, <<"b64_png">> := B64}, Partial) ->
    #{job := #{<<"steps">> := Steps} = Job, send := Send, most := Most, told := Told} = Partial,
    Number = maps:get(I, Told, 0),
    case Number < Most andalso Step * (Most + 1) >= Steps * (Number + 1) of
        true ->
            Event = event(<<"image_generation.partial_image">>, B64, Job),
            ok = send(Send, Event#{partial_image_index => Number, image_index => I}),
            Partial#{told := Told#{I => Number + 1}};
        false ->
            Partial
    end.

ended_stream({<<"completed">>, #{<<"id">> := Id, <<"images">> := Images} = Job}, Send) ->
    lists:foreach(
        fun(#{<<"index">> := I}) ->
            Event = event(<<"image_generation.completed">>, b64(Id, I), Job),
            ok = send(Send, Event#{image_index => I})
        end,
        Images
    );
ended_stream({<<"failed">>, #{<<"error">> := #{<<"detail">> := Detail}}}, Send) ->
    failed(Detail, Send);
ended_stream({<<"cancelled">>, _}, Send) ->
    failed(<<"the job was cancelled while it was drawn; ask again">>, Send);
ended_stream({error, Reason}, Send) ->
    {problem, Problem} = baguette_web_job_problem:new(Reason),
    #{detail := Detail} = baguette_web_problem:document(Problem),
    failed(Detail, Send).

event(Type, B64, #{<<"created">> := Created, <<"id">> := Id}) ->
    #{
        type => Type, b64_json => B64, created_at => trunc(Created), output_format => png,
        background => opaque, size => auto, quality => auto, job => Id
    }.

send(Send, #{type := Type} = Event) ->
    Send(baguette_web_sse:event(none, Type, Event)).

%% As OpenAI's client expects it: it raises what stands here.
failed(Detail, Send) ->
    Error = #{error => #{message => Detail, type => server_error, code => null}},
    Send(baguette_web_sse:event(none, <<"error">>, Error)).

%% What came from a file and what came from a process look alike once they are JSON.
plain({json, Json}) -> jiffy:decode(Json, [return_maps]);
plain(Value) -> plain({json, jiffy:encode(Value)}).
