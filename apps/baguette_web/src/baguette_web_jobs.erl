%% @doc The door of jobs: what the handlers call, and nobody beyond this room. A job is taken in,
%% looked at, followed and cancelled here; baguette_web_job_admission decides whose turn it is, and
%% one baguette_web_job each draws.
-module(baguette_web_jobs).

-compile({no_auto_import, [get/1]}).

-export([submit/1, get/1, is_live/1, list/1, cancel/1, image/2, events/3, subscribe_all/1, load/0]).
-export([limits/0, drain/1, tell/1]).
-export_type([ask/0, problem/0]).

-type job() :: map().
-type ask() :: #{
    client := binary(),
    request := baguette_web_image_request:options(),
    body_hash := binary(),                  % in hexadecimal
    key => binary() | undefined,
    owner => pid()                          % the job is cancelled when this process is no more
}.
-type problem() :: {error, {Name :: atom(), Facts :: map()}}.

%% @doc Take a job in. When this returns `new' it is on the disk, and outlives this node's restart.
-spec submit(ask()) -> {ok, new | known, job()} | problem().
submit(#{client := Client, request := #{n := N}, body_hash := Hash} = Ask) ->
    Key = case maps:get(key, Ask, undefined) of undefined -> null; Given -> Given end,
    Reserve = #{client => Client, key => Key, hash => Hash, images => N, trouble => trouble()},
    with_settings(fun(Settings) ->
        case baguette_web_job_admission:reserve(Reserve) of
            {new, Id} -> written(Id, Ask, Key, Settings);
            {known, Id} -> known(Id);
            {error, _} = Error -> Error
        end
    end).

%% It may have been deleted since.
known(Id) ->
    case get(Id) of
        {ok, Job} -> {ok, known, Job};
        {error, _} = Error -> Error
    end.

written(Id, #{client := Client, request := Options, body_hash := Hash} = Ask, Key, Settings) ->
    #{jobs_dir := Dir, checkpoint_ms := CheckpointMs} = Settings,
    %% What can be asked for again by its key is drawn on when its client is cut off.
    Owner = case Key of null -> maps:get(owner, Ask, none); _ -> none end,
    Job = baguette_web_job_record:new(#{
        id => Id, client => Client, options => Options, predicted_seconds => predicted(Id, Options),
        created => baguette_web_job_record:seconds()
    }),
    Kept = #{client => Client, key => Key, hash => Hash, attended => Owner =/= none},
    case baguette_web_store:put_job(Dir, Id, Kept#{job => Job}) of
        ok ->
            ok = baguette_web_job_admission:accepted(Id, #{
                dir => Dir, job => Job, options => Options, kept => Kept, checkpoint => none,
                checkpoint_ms => CheckpointMs, owner => Owner, ends => no
            }),
            {ok, Now} = get(Id),
            {ok, new, Now};
        {error, _} = Error ->
            ok = baguette_engine:came(Id),
            ok = baguette_web_job_admission:abandoned(Id),
            Error
    end.

predicted(Id, Options) ->
    case baguette_engine:expect(Id, maps:without([model], Options)) of
        {ok, #{seconds := Seconds}} -> Seconds;
        {error, _} -> null
    end.

%% Why nothing could be drawn now. Asked before a place is taken, told only to who would get one.
trouble() ->
    case baguette_web_stopping:is() of
        true -> {leaving, #{}};
        false -> lacking()
    end.

lacking() ->
    case baguette_engine:health() of
        ok ->
            none;
        {degraded, Reasons} ->
            case [Expert || {no_holder, Expert} <- Reasons] of
                [Expert | _] ->
                    Why = baguette_web_reason:why_missing(Expert),
                    {expert_missing, #{expert => Expert, why => Why}};
                [] -> {not_ready, #{}}
            end
    end.

%% @doc A job as it is now.
-spec get(binary()) -> {ok, job()} | problem().
get(Id) ->
    with_job(Id, fun(#{pid := Pid}, Dir) ->
        case Pid =/= none andalso baguette_web_job:get(Pid) of
            {ok, Job} -> {ok, Job};
            _ -> {ok, element(1, baguette_web_job_files:last(Dir, Id))}
        end
    end).

%% @doc Whether a process draws it or will; otherwise it has ended, or waits for the node's start.
-spec is_live(binary()) -> {ok, boolean()} | problem().
is_live(Id) ->
    with_job(Id, fun(#{pid := Pid}, _) -> {ok, Pid =/= none andalso is_process_alive(Pid)} end).

%% @doc Summaries, newest first: at most so many of those that came before `after'.
-spec list(#{limit := pos_integer(), 'after' => binary()}) ->
    {ok, [job()], HasMore :: boolean()} | problem().
list(#{limit := Limit} = Page) ->
    with_settings(fun(_) ->
        {Ids, HasMore} = baguette_web_job_index:newest(Limit, maps:get('after', Page, none)),
        Jobs = [baguette_web_job_record:summary(Job) || Id <- Ids, {ok, Job} <- [get(Id)]],
        {ok, Jobs, HasMore}
    end).

%% @doc End a job; one that has ended stays as it is. Its work stops within one step.
-spec cancel(binary()) -> {ok, job()} | problem().
cancel(Id) ->
    with_job(Id, fun(#{pid := Pid}, _) ->
        case Pid =/= none andalso baguette_web_job:cancel(Pid) of
            {ok, Job} -> {ok, Job};
            _ -> get(Id)
        end
    end).

%% @doc A picture of a job that is completed.
-spec image(binary(), non_neg_integer()) -> {ok, binary()} | problem().
image(Id, I) ->
    with_job(Id, fun
        (#{pid := none, images := N}, Dir) when I < N ->
            case baguette_web_store:image(Dir, Id, I) of
                {ok, _} = Ok -> Ok;
                {error, {store_failed, #{why := enoent}}} -> {error, {no_image, #{}}};
                {error, _} = Error -> Error
            end;
        (_, _) ->
            {error, {no_image, #{}}}
    end).

%% @doc Follow a job: its events as {baguette_web_job, Id, Event}, after those that come at once,
%% until the one that tells its end. While it lives, a monitor of its process is there as well: when
%% that ends without such an event the node is about to stop, and the job goes on after its start.
%% Previews are drawn while somebody wants them.
-spec events(binary(), Last :: none | non_neg_integer(), #{previews := boolean()}) ->
    {live, reference(), [baguette_web_job:event()]}
    | {ended, [baguette_web_job:event()]}
    | problem().
events(Id, Last, Wanted) ->
    with_job(Id, fun(#{pid := Pid}, Dir) ->
        case Pid =/= none andalso live(Pid, Last, Wanted) of
            {live, _, _} = Live -> Live;
            _ -> last_event(Last, baguette_web_job_files:last(Dir, Id))
        end
    end).

live(Pid, Last, Wanted) ->
    Monitor = erlang:monitor(process, Pid),
    case baguette_web_job:watch(Pid, Last, Wanted) of
        {ok, Events} ->
            {live, Monitor, Events};
        gone ->
            true = erlang:demonitor(Monitor, [flush]),
            gone
    end.

last_event(Last, {Job, N}) ->
    Status = case Job of #{status := S} -> S; #{<<"status">> := S} -> S end,
    case baguette_web_job_record:is_end(Status) of
        true when Last =:= N -> {ended, []};
        true -> {ended, [{N, Status, Job}]};
        %% Its process was lost, or suspended: it will be begun again.
        false -> {error, {not_ready, #{}}}
    end.

%% @doc Hear of every job: {baguette_web_jobs, {job, Summary} | {step, Step} | {preview, Preview}}.
%% Previews only if they are wanted; who subscribes once more may want otherwise than before.
-spec subscribe_all(#{previews := boolean()}) -> ok | problem().
subscribe_all(#{previews := Previews}) ->
    with_settings(fun(_) -> baguette_web_job_admission:follow(Previews) end).

%% @doc Tell those who hear of every job.
-spec tell({job | step | preview, map()}) -> ok.
tell({preview, _} = News) -> tell(News, baguette_web_job_index:previews());
tell(News) -> tell(News, baguette_web_job_index:followers()).

tell(News, To) ->
    lists:foreach(fun(Pid) -> Pid ! {?MODULE, News} end, To).

-spec load() -> {ok, baguette_web_job_turns:load()} | problem().
load() ->
    with_settings(fun(_) -> baguette_web_job_admission:load() end).

%% @doc What a request may ask for.
-spec limits() -> {ok, baguette_web_image_request:limits()} | problem().
limits() ->
    with_settings(fun(#{max_prompt := Prompt, max_steps := Steps, max_n := N, max_pixels := P}) ->
        {ok, #{prompt_bytes => Prompt, steps => Steps, n => N, pixels => P}}
    end).

%% @doc The node is about to stop: take no more, and write how far every running job is. Back when
%% that is done, or after so many milliseconds; the jobs go on when the node is started again.
-spec drain(pos_integer()) -> ok | problem().
drain(Ms) ->
    with_settings(fun(_) ->
        Asked = [
            element(2, spawn_monitor(fun() -> baguette_web_job:suspend(Pid) end))
         || Pid <- baguette_web_job_admission:close()
        ],
        Until = erlang:monotonic_time(millisecond) + Ms,
        lists:foreach(fun(Monitor) -> suspended(Monitor, Until) end, Asked)
    end).

suspended(Monitor, Until) ->
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    after max(0, Until - erlang:monotonic_time(millisecond)) -> ok
    end.

with_job(Id, Fun) ->
    with_settings(fun(#{jobs_dir := Dir}) ->
        case baguette_web_job_index:find(Id) of
            {ok, Entry} -> Fun(Entry, Dir);
            unknown -> {error, {unknown_job, #{}}}
        end
    end).

%% Without a directory for them this node takes no jobs.
with_settings(Fun) ->
    case baguette_web_jobs_sup:settings() of
        {ok, Settings} -> Fun(Settings);
        none -> {error, {no_jobs_dir, #{}}}
    end.
