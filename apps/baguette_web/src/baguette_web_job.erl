%% @doc One accepted job, from its acceptance to its end: waits for its turn, has the engine draw
%% it, tells its watchers, and writes to disk what a restart must know.
%%
%% Started by baguette_web_job_admission, which begins it again from its files when it dies. It
%% writes checkpoints itself, so that a slow disk delays no generation. A job has ended when its end
%% is on the disk; watchers hear of it afterwards.
-module(baguette_web_job).
-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/1, begin_now/1, queued/2, get/1, watch/3, cancel/1, suspend/1]).
-export([followers_changed/1]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2]).
-export([format_status/1]).
-export_type([start/0, event/0]).

%% The engine had no room, or was not ready: it is asked again so soon.
-define(AGAIN_MS, 500).
-define(LOG_META, #{domain => [baguette, web]}).

-type event() :: baguette_web_job_watchers:event().
-type start() :: #{
    dir := baguette_web_store:dir(),
    job := baguette_web_job_record:job(),
    options := baguette_web_image_request:options(),
    kept := map(),                          % stands in the file beside the job
    checkpoint := none | binary(),
    checkpoint_ms := non_neg_integer(),
    owner := none | pid(),                  % it is cancelled when this one is no more
    %% What is known of its end before it has begun.
    ends := no | cancelled | {failed, {atom(), map()}}
}.

-record(?MODULE, {
    id :: binary(),
    dir :: baguette_web_store:dir(),
    job :: baguette_web_job_record:job(),
    options :: baguette_web_image_request:options(),
    kept :: map(),
    checkpoint :: none | binary(),
    checkpoint_ms :: non_neg_integer(),
    written_ms :: integer(),
    watchers :: baguette_web_job_watchers:watchers(),
    generation :: undefined | binary(),
    awaiting :: undefined | pid(),
    owner :: undefined | reference(),
    previews = false :: boolean(),          % whether the generation is asked for them
    %% Who wants to hear of the end.
    cancelling = [] :: [gen_server:from()]
}).

-spec start_link(start()) -> {ok, pid()}.
start_link(Start) ->
    gen_server:start_link(?MODULE, Start, []).

%% @doc It is this job's turn.
-spec begin_now(pid()) -> ok.
begin_now(Pid) ->
    gen_server:cast(Pid, begin_now).

%% @doc So many jobs are before it.
-spec queued(pid(), non_neg_integer()) -> ok.
queued(Pid, Position) ->
    gen_server:cast(Pid, {queued, Position}).

%% @doc The job as clients see it; `gone' when it has ended meanwhile.
-spec get(pid()) -> {ok, baguette_web_job_record:job()} | gone.
get(Pid) -> ask(Pid, get).

%% @doc Send the job's events to the caller as {baguette_web_job, Id, event()}; those after the one
%% with this number come at once.
-spec watch(pid(), Last :: none | non_neg_integer(), #{previews := boolean()}) ->
    {ok, [event()]} | gone.
watch(Pid, Last, #{previews := Previews}) -> ask(Pid, {watch, self(), Previews, Last}).

%% @doc Those who hear of every job are others, or want something else.
-spec followers_changed(pid()) -> ok.
followers_changed(Pid) ->
    gen_server:cast(Pid, followers_changed).

%% @doc End it. Back when the end is on the disk.
-spec cancel(pid()) -> {ok, baguette_web_job_record:job()} | gone.
cancel(Pid) -> ask(Pid, cancel).

%% @doc The node is about to end: write how far it is, and stop. It is no end.
-spec suspend(pid()) -> {ok, suspended} | gone.
suspend(Pid) -> ask(Pid, suspend).

ask(Pid, Question) ->
    try
        gen_server:call(Pid, Question, infinity)
    catch
        %% It ends by itself, and then it is asked no more.
        exit:{_, _} -> gone
    end.

-spec init(start()) -> {ok, #?MODULE{}, {continue, start()}}.
init(#{job := #{id := Id, resumed := Resumed} = Job} = Start) ->
    logger:set_process_metadata(#{job => Id, domain => [baguette, web]}),
    #{dir := Dir, options := Options, kept := Kept, checkpoint := Checkpoint} = Start,
    {ok, #?MODULE{
        id = Id, dir = Dir, job = Job, options = Options, kept = Kept, checkpoint = Checkpoint,
        checkpoint_ms = maps:get(checkpoint_ms, Start),
        written_ms = erlang:monotonic_time(millisecond),
        watchers = baguette_web_job_watchers:new(Id, Resumed),
        owner = owner(maps:get(owner, Start))
    }, {continue, Start}}.

owner(none) -> undefined;
owner(Pid) -> erlang:monitor(process, Pid).

-spec handle_continue(start(), #?MODULE{}) ->
    {noreply, #?MODULE{}} | {stop, normal, #?MODULE{}}.
handle_continue(#{ends := cancelled}, S) ->
    ended(baguette_web_job_record:cancelled(now_s(), S#?MODULE.job), S);
handle_continue(#{ends := {failed, Reason}}, S) ->
    failed(Reason, S);
handle_continue(#{ends := no}, #?MODULE{job = #{resumed := 0}} = S) ->
    {noreply, tell_all(S)};
handle_continue(#{ends := no}, #?MODULE{dir = Dir, id = Id, job = Job, kept = Kept} = S) ->
    %% Before a first event is told: its number says how often the job was taken up.
    case baguette_web_store:put_job(Dir, Id, Kept#{job => Job}) of
        ok -> {noreply, tell_all(S)};
        {error, Reason} -> failed(Reason, S)
    end.

-spec handle_call(
    get | cancel | suspend | {watch, pid(), boolean(), none | non_neg_integer()},
    gen_server:from(), #?MODULE{}
) ->
    {reply, {ok, term()}, #?MODULE{}} | {noreply, #?MODULE{}} | {stop, normal, #?MODULE{}}
    | {stop, normal, {ok, term()}, #?MODULE{}}.
handle_call(get, _From, #?MODULE{job = Job} = S) ->
    {reply, {ok, Job}, S};
handle_call({watch, Pid, Previews, Last}, _From, #?MODULE{job = Job, watchers = Before} = S) ->
    {Missed, Watchers} = baguette_web_job_watchers:watch({Pid, Previews}, Last, Job, Before),
    {reply, {ok, Missed}, previews(S#?MODULE{watchers = Watchers})};
handle_call(cancel, From, #?MODULE{cancelling = Before} = S) ->
    cancelled(S#?MODULE{cancelling = [From | Before]});
handle_call(suspend, _From, S0) ->
    {stop, normal, {ok, suspended}, write_step(S0)}.

-spec handle_cast(begin_now | followers_changed | {queued, non_neg_integer()}, #?MODULE{}) ->
    {noreply, #?MODULE{}} | {stop, normal, #?MODULE{}}.
handle_cast(begin_now, S) ->
    begun(S);
handle_cast(followers_changed, S) ->
    {noreply, previews(S)};
handle_cast({queued, Position}, #?MODULE{job = #{position := Position}} = S) ->
    {noreply, S};
handle_cast({queued, Position}, #?MODULE{job = Job} = S) ->
    {noreply, status(baguette_web_job_record:queued(Position, Job), S)}.

-spec handle_info(term(), #?MODULE{}) -> {noreply, #?MODULE{}} | {stop, normal, #?MODULE{}}.
handle_info(begin_now, S) ->
    begun(S);
handle_info({baguette_engine, Id, {Kind, _}}, #?MODULE{generation = Id} = S) when
    Kind =:= done; Kind =:= failed; Kind =:= cancelled
->
    %% The same comes as the answer of await, which also comes when the generation has crashed.
    {noreply, S};
handle_info({baguette_engine, Id, Event}, #?MODULE{generation = Id, job = Job} = S) ->
    {Moved, News} = baguette_web_job_record:event(Event, Job),
    Told = lists:foldl(fun publish/2, S#?MODULE{job = Moved}, News),
    {noreply, after_event(Event, News, Told)};
handle_info({awaited, Pid, Outcome}, #?MODULE{awaiting = Pid} = S) ->
    outcome(Outcome, S);
handle_info({'DOWN', Owner, process, _, _}, #?MODULE{owner = Owner} = S) ->
    cancelled(S);
handle_info({'DOWN', Monitor, process, _, _}, #?MODULE{watchers = Watchers} = S) ->
    {noreply, previews(S#?MODULE{watchers = baguette_web_job_watchers:unwatch(Monitor, Watchers)})};
handle_info(_LateOrUnknown, S) ->
    {noreply, S}.

%% @doc Prompts, pictures and checkpoints are not printed.
-spec format_status(gen_server:format_status()) -> gen_server:format_status().
format_status(Status) ->
    maps:map(
        fun
            (state, #?MODULE{id = Id, job = #{status := Is}}) -> #{id => Id, status => Is};
            (Key, _) when Key =:= message; Key =:= log; Key =:= reason -> not_shown;
            (_, Value) -> Value
        end,
        Status
    ).

%% Drawing --------------------------------------------------------------------------------------

begun(#?MODULE{id = Id, options = Options, checkpoint = Checkpoint, generation = undefined} = S) ->
    Asked = maps:without([model], Options),
    Resume = case Checkpoint of none -> #{}; _ -> #{resume => Checkpoint} end,
    Begun = baguette_engine:generate(maps:merge(Asked, Resume)),
    ok = baguette_engine:came(Id),
    case Begun of
        {ok, Generation} ->
            {noreply, drawing(Generation, S)};
        {error, {Busy, _}} when Busy =:= overloaded; Busy =:= not_ready; Busy =:= leaving ->
            _ = erlang:send_after(?AGAIN_MS, self(), begin_now),
            {noreply, S};
        {error, Reason} when Checkpoint =/= none ->
            begun_anew(Reason, S);
        {error, {bad_request, Field, _Got, Allowed}} ->
            failed({bad_request, #{field => atom_to_binary(Field), allowed => Allowed}}, S);
        {error, Reason} ->
            failed(Reason, S)
    end;
begun(S) ->
    {noreply, S}.

%% Of another version of the model, say: what was drawn of it is drawn again.
begun_anew(Reason, S) ->
    ?LOG_WARNING(#{what => checkpoint_refused, reason => name(Reason)}, ?LOG_META),
    begun(S#?MODULE{checkpoint = none}).

name(Reason) -> element(1, Reason).

drawing(Generation, #?MODULE{job = Job} = S) ->
    Self = self(),
    %% Whether its process lives is not seen by who watches a generation; await says it.
    Awaiting = spawn_link(fun() ->
        Self ! {awaited, self(), baguette_engine:await(Generation, infinity)}
    end),
    ok = cancel_after(Self, Generation),
    Begun = status(baguette_web_job_record:begun(now_s(), Job), S),
    watched(wanted(S), Begun#?MODULE{generation = Generation, awaiting = Awaiting}).

watched(Previews, #?MODULE{generation = Generation} = S) ->
    Watched = baguette_engine:watch(Generation, #{previews => Previews}),
    %% One that has ended already is known by its await.
    _ = Watched =:= ok orelse ?LOG_INFO(#{what => job_not_watched}, ?LOG_META),
    S#?MODULE{previews = Previews}.

%% Previews cost the pipeline worker time: they are asked for while somebody looks.
previews(#?MODULE{generation = undefined} = S) ->
    S;
previews(#?MODULE{previews = Before} = S) ->
    case wanted(S) of
        Before -> S;
        Wanted -> watched(Wanted, S)
    end.

wanted(#?MODULE{watchers = Watchers}) ->
    baguette_web_job_watchers:want_previews(Watchers) orelse
        baguette_web_job_index:previews() =/= [].

%% A generation that nobody waits for is not drawn on, however its job came to its end; to one that
%% is done it is nothing.
cancel_after(Job, Generation) ->
    _ = spawn(fun() ->
        Monitor = erlang:monitor(process, Job),
        receive
            {'DOWN', Monitor, process, _, _} -> baguette_engine:cancel(Generation)
        end
    end),
    ok.

after_event({step, Facts}, _News, #?MODULE{id = Id} = S) ->
    #{step := Step, steps := Steps, experts := Experts} = Facts,
    %% Steps come often: a summary each would be mostly what is known.
    Told = #{job => Id, step => Step - 1, steps => Steps, experts => Experts},
    ok = baguette_web_jobs:tell({step, Told}),
    #?MODULE{written_ms = Written, checkpoint_ms = Every} = S,
    case erlang:monotonic_time(millisecond) - Written >= Every of
        true -> write_step(S);
        false -> S
    end;
after_event({preview, _}, [{_, _, Preview}], #?MODULE{id = Id} = S) ->
    ok = baguette_web_jobs:tell({preview, Preview#{job => Id}}),
    S;
after_event({Kind, _}, _News, S) when Kind =:= failover; Kind =:= waiting ->
    tell_all(S);
after_event(_, _News, S) ->
    S.

%% A job that cannot be written now goes on: it was accepted, and may come to its end before the
%% node dies.
write_step(#?MODULE{generation = undefined} = S) ->
    S;
write_step(#?MODULE{generation = Generation, id = Id, dir = Dir, job = Job, kept = Kept} = S) ->
    case baguette_engine:checkpoint(Generation) of
        {ok, #{step := Step, bytes := Bytes}} ->
            File = Kept#{job => Job, step => Step},
            case baguette_web_store:put_step(Dir, Id, File, Bytes) of
                ok -> ok;
                {error, Reason} ->
                    ?LOG_WARNING(#{what => checkpoint_not_written, reason => Reason}, ?LOG_META)
            end;
        {error, _NothingDrawnYet} ->
            ok
    end,
    S#?MODULE{written_ms = erlang:monotonic_time(millisecond)}.

%% Ending ---------------------------------------------------------------------------------------

outcome({ok, Result}, S) ->
    completed(Result, S#?MODULE{generation = undefined});
outcome({error, {cancelled, _}}, #?MODULE{job = Job} = S) ->
    ended(baguette_web_job_record:cancelled(now_s(), Job), S#?MODULE{generation = undefined});
outcome({error, {bad_checkpoint, _} = Reason}, #?MODULE{checkpoint = <<_/binary>>} = S) ->
    %% That is known only once the pipeline worker has encoded the prompt.
    begun_anew(Reason, S#?MODULE{generation = undefined, awaiting = undefined});
outcome({error, Reason}, S) ->
    failed(Reason, S#?MODULE{generation = undefined}).

cancelled(#?MODULE{generation = undefined, job = Job} = S) ->
    ended(baguette_web_job_record:cancelled(now_s(), Job), S);
cancelled(#?MODULE{generation = Generation} = S) ->
    _ = baguette_engine:cancel(Generation),
    {noreply, S}.

failed(Reason, #?MODULE{job = Job} = S) ->
    ended(baguette_web_job_record:failed(Reason, now_s(), Job), S).

completed(#{images := Images} = Result, #?MODULE{id = Id, dir = Dir, job = Job} = S) ->
    Pngs = [Png || #{png := Png} <- Images],
    case baguette_web_store:put_images(Dir, Id, Pngs) of
        ok -> ended(baguette_web_job_record:completed(Result, now_s(), Job), sizes(Pngs), S);
        {error, Reason} -> failed(Reason, S)
    end.

sizes(Pngs) -> lists:sum([byte_size(Png) || Png <- Pngs]).

ended(Job, S) ->
    %% Pictures that were written before the disk was full are of no use.
    #{request := #{n := N}} = Job,
    ok = baguette_web_store:drop_images(S#?MODULE.dir, S#?MODULE.id, N),
    ended(Job, 0, S).

ended(#{status := Status} = Job, Bytes, #?MODULE{id = Id, dir = Dir, kept = Kept} = S) ->
    {Event, Watchers} = baguette_web_job_watchers:add({other, Status, Job}, S#?MODULE.watchers),
    {Last, _, _} = Event,
    File = Kept#{job => Job, last_event => Last, bytes => Bytes},
    case baguette_web_store:put_end(Dir, Id, File) of
        ok ->
            Size = Bytes + baguette_web_store:size(Dir, Id),
            told(Event, S#?MODULE{job = Job, watchers = Watchers}, Size);
        {error, Reason} -> lost(Reason, S)
    end.

%% No room even for that it has ended: the file's name says it.
lost(Reason, #?MODULE{dir = Dir, id = Id, job = Job, watchers = Before} = S) ->
    ?LOG_ERROR(#{what => job_not_written, reason => Reason}, ?LOG_META),
    #{request := #{n := N}} = Job,
    ok = baguette_web_store:drop_images(Dir, Id, N),
    case baguette_web_store:lose(Dir, Id) of
        ok -> ok;
        {error, Why} -> ?LOG_ERROR(#{what => job_not_renamed, reason => Why}, ?LOG_META)
    end,
    Failed = baguette_web_job_record:failed(Reason, now_s(), Job),
    {Event, Watchers} = baguette_web_job_watchers:add({other, <<"failed">>, Failed}, Before),
    told(Event, S#?MODULE{job = Failed, watchers = Watchers}, baguette_web_store:size(Dir, Id)).

told(Event, #?MODULE{id = Id, job = Job, cancelling = Cancelling} = S, Bytes) ->
    #{status := Status, seconds := Seconds, client := Client} = Job,
    ?LOG_INFO(#{what => job_ended, how => Status, client => Client, seconds => Seconds}, ?LOG_META),
    ok = baguette_web_job_admission:ended(Id, Bytes),
    ok = baguette_web_job_watchers:send(Event, S#?MODULE.watchers),
    _ = tell_all(S),
    _ = [gen_server:reply(From, {ok, Job}) || From <- Cancelling],
    {stop, normal, S}.

%% Telling --------------------------------------------------------------------------------------

status(Job, S) ->
    Summary = baguette_web_job_record:summary(Job),
    tell_all(publish({other, <<"status">>, Summary}, S#?MODULE{job = Job})).

publish(News, #?MODULE{watchers = Watchers} = S) ->
    S#?MODULE{watchers = baguette_web_job_watchers:publish(News, Watchers)}.

tell_all(#?MODULE{job = Job} = S) ->
    ok = baguette_web_jobs:tell({job, baguette_web_job_record:summary(Job)}),
    S.

now_s() -> baguette_web_job_record:seconds().
