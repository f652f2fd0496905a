%% @doc Jobs over HTTP: /v1/jobs and what lies below it. Handlers of baguette_web_routes.
-module(baguette_web_jobs_h).

-export([create/1, list/1, show/1, cancel/1, events/1, image/1]).
-export([submitted/3]).

-define(MAX_PAGE, 100).
-define(PAGE, <<"20">>).
-define(MAX_KEY, 255).
-define(KEEP_ALIVE_MS, 15000).

-type exchange() :: baguette_web_exchange:exchange().
-type answer() :: baguette_web_exchange:answer().

%% @doc POST /v1/jobs
-spec create(exchange()) -> answer().
create(Exchange) ->
    case baguette_web_body:object(Exchange) of
        {ok, Body} ->
            case submitted(Body, Exchange, #{}) of
                {ok, Known, #{id := Id} = Job} -> accepted(Known, Id, Job);
                {ok, Known, #{<<"id">> := Id} = Job} -> accepted(Known, Id, Job);
                {problem, _} = Problem -> Problem
            end;
        {problem, _} = Problem ->
            Problem
    end.

%% A job that was there already may have ended: then there is nothing to come back for.
accepted(Known, Id, Job) ->
    Status = case Known =:= known andalso maps:get(<<"finished">>, Job, null) of
        Finished when is_number(Finished) -> 200;
        _ -> 202
    end,
    {json, Status, [{<<"location">>, [<<"/v1/jobs/">>, Id]}], Job}.

%% @doc What a body asks for, taken in as a job of this client. `More' goes with it to
%% baguette_web_jobs:submit/1; with `seed => random' a body without one does not get the model's.
-spec submitted(map(), exchange(), map()) ->
    {ok, new | known, map()} | {problem, baguette_web_problem:problem()}.
submitted(Body, #{client := Client} = Exchange, More) ->
    case {key(Exchange), options(Body)} of
        {{problem, _} = Problem, _} ->
            Problem;
        {_, {problem, _} = Problem} ->
            Problem;
        {{ok, Key}, {ok, Options}} ->
            Ask = #{
                client => Client, request => seeded(More, Body, Options), key => Key,
                body_hash => hash(Options)
            },
            case baguette_web_jobs:submit(maps:merge(Ask, maps:remove(seed, More))) of
                {ok, _, _} = Ok -> Ok;
                {error, Reason} -> baguette_web_job_problem:new(Reason)
            end
    end.

%% Who cannot name a seed would otherwise get the same picture for the same words for ever.
seeded(_, #{<<"seed">> := Seed}, Options) when Seed =/= null ->
    Options;
seeded(#{seed := random}, _, Options) ->
    <<Seed:31, _:1>> = crypto:strong_rand_bytes(4),
    Options#{seed := Seed};
seeded(_, _, Options) ->
    Options.

%% The same request is one that asks for the same, however it is written.
hash(Options) ->
    Canonical = lists:sort(maps:to_list(Options)),
    string:lowercase(binary:encode_hex(crypto:hash(sha256, term_to_binary(Canonical)))).

options(Body) ->
    case {baguette_web_jobs:limits(), baguette_engine:model()} of
        {{ok, Limits}, {ok, Model}} ->
            case baguette_web_image_request:new(Body, Model, Limits) of
                {ok, Options} -> {ok, Options};
                {error, Refused} -> baguette_web_job_problem:unusable(Refused)
            end;
        {{error, Reason}, _} ->
            baguette_web_job_problem:new(Reason);
        {_, {error, _}} ->
            baguette_web_job_problem:new({not_ready, #{}})
    end.

key(#{header := Header}) ->
    case Header("idempotency-key") of
        undefined ->
            {ok, undefined};
        Key when length(Key) >= 1, length(Key) =< ?MAX_KEY ->
            case lists:all(fun(C) -> C >= 32 andalso C =< 126 end, Key) of
                true -> {ok, list_to_binary(Key)};
                false -> bad_key()
            end;
        _ ->
            bad_key()
    end.

bad_key() ->
    Detail = "Idempotency-Key must be 1 to 255 printable ASCII characters",
    {problem, baguette_web_problem:new(422, Detail, #{field => <<"Idempotency-Key">>})}.

%% @doc GET /v1/jobs
-spec list(exchange()) -> answer().
list(#{query := Query}) ->
    Page = case Query of #{<<"after">> := After} -> #{'after' => After}; _ -> #{} end,
    case limit(maps:get(<<"limit">>, Query, ?PAGE)) of
        {ok, Limit} ->
            case baguette_web_jobs:list(Page#{limit => Limit}) of
                {ok, Jobs, HasMore} ->
                    {json, 200, [], #{object => list, data => Jobs, has_more => HasMore}};
                {error, Reason} ->
                    baguette_web_job_problem:new(Reason)
            end;
        error ->
            Detail = "limit must be a whole number in 1..100",
            {problem, baguette_web_problem:new(422, Detail, #{field => limit})}
    end.

limit(Text) ->
    case baguette_web_number:read(Text) of
        {ok, Limit} when Limit >= 1, Limit =< ?MAX_PAGE -> {ok, Limit};
        _ -> error
    end.

%% @doc GET /v1/jobs/ID
-spec show(exchange()) -> answer().
show(#{segments := [_, _, Id]}) -> job(baguette_web_jobs:get(Id)).

%% @doc DELETE /v1/jobs/ID
-spec cancel(exchange()) -> answer().
cancel(#{segments := [_, _, Id]}) -> job(baguette_web_jobs:cancel(Id)).

job({ok, Job}) -> {json, 200, [], Job};
job({error, Reason}) -> baguette_web_job_problem:new(Reason).

%% @doc GET /v1/jobs/ID/images/I.png
-spec image(exchange()) -> answer().
image(#{segments := [_, _, Id, _, File]}) ->
    case image_of(Id, filename:extension(File), filename:rootname(File)) of
        {ok, Png} -> {reply, 200, [{<<"content-type">>, <<"image/png">>}], Png};
        {error, Reason} -> baguette_web_job_problem:new(Reason)
    end.

image_of(Id, <<".png">>, Text) ->
    case baguette_web_number:read(Text) of
        {ok, I} -> baguette_web_jobs:image(Id, I);
        error -> {error, {no_image, #{}}}
    end;
image_of(_Id, _Extension, _Text) ->
    {error, {no_image, #{}}}.

%% @doc GET /v1/jobs/ID/events
-spec events(exchange()) -> answer().
events(#{segments := [_, _, Id, _], header := Header}) ->
    Last = last(Header("last-event-id")),
    case baguette_web_jobs:is_live(Id) of
        %% Nobody follows before the stream begins: to a HEAD none does.
        {ok, true} -> stream(fun(Send) -> follow(Id, Last, Send) end);
        {ok, false} -> last_events(Id, Last);
        {error, Reason} -> baguette_web_job_problem:new(Reason)
    end.

last_events(Id, Last) ->
    case baguette_web_jobs:events(Id, Last, #{previews => true}) of
        %% To a browser it says: do not connect again.
        {ended, []} when Last =/= none -> {reply, 204, [], <<>>};
        {ended, Events} -> stream(fun(Send) -> send(Events, Send) end);
        {live, Monitor, Events} -> stream(fun(Send) -> live(Id, Monitor, Events, Send) end);
        {error, Reason} -> baguette_web_job_problem:new(Reason)
    end.

stream(Fun) -> {stream, baguette_web_sse:headers(), Fun}.

%% What is no number of ours is the number of no event: resync.
last(undefined) ->
    none;
last(Text) ->
    case baguette_web_number:read(Text) of
        {ok, N} -> N;
        error -> unknown()
    end.

unknown() -> 1 bsl 62.

follow(Id, Last, Send) ->
    case baguette_web_jobs:events(Id, Last, #{previews => true}) of
        {live, Monitor, Events} ->
            live(Id, Monitor, Events, Send);
        {ended, Events} ->
            send(Events, Send);
        {error, _DeletedOrInterruptedMeanwhile} ->
            ok
    end.

live(Id, Monitor, Events, Send) ->
    ok = send(Events, Send),
    live(Id, Monitor, Send).

live(Id, Monitor, Send) ->
    receive
        {baguette_web_job, Id, {_, Name, _} = Event} ->
            ok = send([Event], Send),
            case baguette_web_job_record:is_end(Name) of
                true -> ok;
                false -> live(Id, Monitor, Send)
            end;
        {'DOWN', Monitor, process, _, _} ->
            %% The client comes again with the last number it has seen.
            ok
    after ?KEEP_ALIVE_MS ->
        ok = Send(baguette_web_sse:keep_alive()),
        live(Id, Monitor, Send)
    end.

send(Events, Send) ->
    lists:foreach(
        fun({N, Name, Value}) -> ok = Send(baguette_web_sse:event(N, Name, Value)) end, Events
    ).
