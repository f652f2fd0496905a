%% @doc A job as clients see it, and what becomes of it with every event of the engine: pure.
%%
%% Called by baguette_web_job, which is the process, and by baguette_web_jobs for what it reads from
%% files. Keys are atoms here and binaries in what was read back; jiffy writes both alike.
-module(baguette_web_job_record).

-export([new_id/1, new/1, restored/3, again/2, queued/2, begun/2]).
-export([event/2, completed/3, failed/3, cancelled/2, lost/3, summary/1, is_end/1, seconds/0]).
-export_type([job/0, news/0]).

-type job() :: #{atom() => jiffy:json_value()}.
%% An event for watchers; of which kind is for baguette_web_ring.
-type news() :: {other | {preview, non_neg_integer()}, Name :: binary(), jiffy:json_value()}.

-define(FIELDS, [
    id, object, status, created, started, finished, client, node, request, step, steps, phase,
    position, predicted_seconds, seconds, waiting, routing, calls, failovers, hedges, degraded,
    images, resumed, error
]).
-define(NOT_IN_SUMMARY, [routing, calls, hedges, failovers]).
%% Of what happens all the time a job keeps the first so many.
-define(MAX_HAPPENED, 500).

%% @doc A name for a job: names sort by time, and none can be guessed from another.
-spec new_id(Last :: integer()) -> {binary(), Time :: integer()}.
new_id(Last) ->
    Time = max(Last + 1, erlang:system_time(microsecond)),
    Random = binary:decode_unsigned(crypto:strong_rand_bytes(3)),
    {iolist_to_binary(io_lib:format("~14.16.0b~6.16.0b", [Time, Random])), Time}.

%% @doc A job that waits.
-spec new(#{
    id := binary(), client := binary(), options := baguette_web_image_request:options(),
    predicted_seconds := float() | null, created := float()
}) -> job().
new(#{id := Id, client := Client, options := Options, created := Created} = Given) ->
    #{
        id => Id, object => <<"job">>, status => <<"queued">>,
        created => Created, started => null, finished => null,
        client => Client, node => address(node()),
        request => baguette_web_image_request:to_json(Options),
        step => 0, steps => maps:get(steps, Options), phase => null, position => null,
        predicted_seconds => maps:get(predicted_seconds, Given), seconds => null,
        waiting => null, routing => [], calls => [], failovers => [], hedges => [],
        degraded => [], images => [], resumed => 0, error => null
    }.

%% @doc A job that was read from its file; what is missing there is as in a new one.
-spec restored(binary(), map(), baguette_web_image_request:options()) -> job().
restored(Id, Read, Options) ->
    Base = new(#{
        id => Id, client => <<>>, options => Options, created => 0.0, predicted_seconds => null
    }),
    maps:merge(Base, maps:from_list([
        {Key, Value}
     || Key <- ?FIELDS -- [request], {ok, Value} <- [maps:find(atom_to_binary(Key), Read)]
    ])).

%% @doc Taken up again after the node, or the job's process, was started again: with what happened
%% up to the step its checkpoint holds.
-spec again(Step :: non_neg_integer(), job()) -> job().
again(Step, #{resumed := Resumed} = Job) ->
    (happened_before(Step, Job))#{
        status := <<"queued">>, phase := null, waiting := null, position := null, step := Step,
        resumed := Resumed + 1
    }.

happened_before(Step, #{routing := Routing} = Job) ->
    Job#{routing := [Entry || Entry <- Routing, step(Entry) < Step]}.

step(#{step := Step}) -> Step;
step(#{<<"step">> := Step}) -> Step.

-spec queued(Position :: non_neg_integer(), job()) -> job().
queued(Position, Job) -> Job#{position := Position}.

-spec begun(float(), job()) -> job().
begun(Now, #{started := Started} = Job) ->
    Job#{
        status := <<"running">>, position := null,
        started := case Started of null -> Now; _ -> Started end
    }.

%% @doc What a watcher of a generation hears (baguette_engine:watch/2).
-spec event({atom(), map()}, job()) -> {job(), [news()]}.
event({state, #{state := Phase}}, Job) ->
    status(Job#{phase := atom_to_binary(Phase)});
event({step, #{step := Step, experts := Experts, asked := Asked} = Facts}, Job0) ->
    #{routing := Routing, steps := Steps} = Job = happened_before(Step - 1, Job0),
    Entry = (maps:with([reused], Facts))#{
        step => Step - 1,
        experts => Experts,
        asked => maps:from_list([
            {integer_to_binary(Expert), address(Node)}
         || {Expert, Node} <- maps:to_list(Asked)
        ])
    },
    Moved = Job#{
        routing := Routing ++ [Entry], step := Step - 1, phase := <<"asking">>, waiting := null
    },
    {Moved, [{other, <<"step">>, Entry#{steps => Steps}}]};
event({waiting, Facts}, Job) ->
    Waiting = #{
        expert => maps:get(expert, Facts, null), reason => baguette_web_teller:waiting(Facts)
    },
    {Job#{waiting := Waiting}, [{other, <<"waiting">>, Waiting}]};
event({failover, #{to := To} = Facts}, Job) ->
    happened(failovers, <<"failover">>, (moved(Facts, To))#{why => maps:get(why, Facts)}, Job);
event({hedge, #{to := To} = Facts}, Job) ->
    happened(hedges, <<"hedge">>, moved(Facts, To), Job);
event({degraded, #{step := Step, image := Image, lost := [Expert], mass := Mass}}, Job) ->
    Entry = #{step => Step, image => Image, expert => Expert, mass => Mass},
    happened(degraded, <<"degraded">>, Entry, Job);
event({warning, #{text := Text}}, Job) ->
    {Job, [{other, <<"warning">>, #{text => Text}}]};
event({preview, #{image := Image, step := Step, png := Png}}, Job) ->
    Preview = #{image => Image, step => Step, b64_png => base64:encode(Png)},
    {Job, [{{preview, Image}, <<"preview">>, Preview}]};
event(_OfLaterVersions, Job) ->
    {Job, []}.

moved(#{step := Step, expert := Expert, from := From}, To) ->
    #{step => Step, expert => Expert, from => address(From), to => address(To)}.

happened(Key, Name, Entry, Job) ->
    #{Key := Before} = Job,
    {Job#{Key := lists:sublist(Before ++ [Entry], ?MAX_HAPPENED)}, [{other, Name, Entry}]}.

status(Job) -> {Job, [{other, <<"status">>, summary(Job)}]}.

%% @doc The engine's result: all is drawn.
-spec completed(map(), float(), job()) -> job().
completed(#{images := Images, calls := Calls}, Now, #{id := Id, steps := Steps} = Job) ->
    Numbered = lists:zip(lists:seq(0, length(Images) - 1), Images),
    (ended(<<"completed">>, Now, Job))#{
        step := Steps,
        images := [
            #{
                index => I, seed => Seed, pixels_sha256 => Hash, reused => Reused,
                url => iolist_to_binary(["/v1/jobs/", Id, "/images/", integer_to_list(I), ".png"])
            }
         || {I, #{seed := Seed, pixels_sha256 := Hash, reused := Reused}} <- Numbered
        ],
        calls := [
            #{step => Step, expert => Expert, node => address(Node), ms => Ms}
         || #{step := Step, expert := Expert, node := Node, ms := Ms} <- Calls
        ]
    }.

-spec failed({atom(), map()}, float(), job()) -> job().
failed(Reason, Now, Job) ->
    Problem = baguette_web_job_problem:failure(Reason),
    (ended(<<"failed">>, Now, Job))#{images := [], error := Problem}.

-spec cancelled(float(), job()) -> job().
cancelled(Now, Job) -> ended(<<"cancelled">>, Now, Job).

ended(Status, Now, #{started := Started} = Job) ->
    Job#{
        status := Status, finished := Now, phase := null, position := null, waiting := null,
        seconds := case Started of null -> null; _ -> max(0.0, Now - Started) end
    }.

%% @doc A job of which there is no more than its file's name, or than that it was once accepted.
-spec lost({atom(), map()}, binary(), map()) -> job().
lost(Reason, Id, Read) ->
    Options = #{
        prompt => <<>>, negative_prompt => <<>>, model => <<>>, n => 1, steps => 1, seed => 0,
        guidance_scale => 1.0, top_k => 1, deterministic => false, cache => 0.0, on_missing => wait
    },
    <<Time:14/binary, _/binary>> = Id,
    Created = binary_to_integer(Time, 16) / 1.0e6,
    Job = #{request := Nothing} = restored(Id, Read, Options),
    failed(Reason, Created, Job#{
        request := maps:get(<<"request">>, Read, Nothing), created := Created, started := null
    }).

%% @doc What lists and the status event show.
-spec summary(job() | map()) -> map().
summary(#{failovers := Failovers} = Job) ->
    (maps:without(?NOT_IN_SUMMARY, Job))#{failovers_count => length(Failovers)};
summary(#{<<"failovers">> := Failovers} = Read) ->
    Left = maps:without([atom_to_binary(Key) || Key <- ?NOT_IN_SUMMARY], Read),
    Left#{failovers_count => length(Failovers)}.

%% @doc Whether a job of this status, or one of which this event is told, goes on no more.
-spec is_end(Status :: binary()) -> boolean().
is_end(Status) -> lists:member(Status, [<<"completed">>, <<"failed">>, <<"cancelled">>]).

%% @doc Now, as it stands in jobs: since 1970.
-spec seconds() -> float().
seconds() -> erlang:system_time(microsecond) / 1.0e6.

%% `undefined': nobody.
address(Node) -> baguette_web_json:value(Node).
