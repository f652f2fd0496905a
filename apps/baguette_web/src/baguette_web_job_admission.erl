%% @doc Which jobs are taken, and whose turn it is: bounded, fair between clients, never more with
%% the engine than it draws at a time. Also knows the jobs that have ended, until they are deleted.
%%
%% Called by baguette_web_jobs (the door) and by jobs that end. It writes no job: who submits one
%% does that between reserve/1 and accepted/2, so that nobody waits for another's disk. What dies
%% with it: the order of turns, and all jobs' processes; both are made again from the files.
-module(baguette_web_job_admission).
-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/1, reserve/1, accepted/2, abandoned/1, ended/2, close/0, load/0, follow/1]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2, format_status/1]).
-export_type([ask/0, load/0, settings/0]).

-define(LOG_META, #{domain => [baguette, web]}).
%% A job whose process crashed so often is not taken up again.
-define(MAX_CRASHES, 3).
%% After a start: so long jobs that were taken before wait for every expert to be held.
-define(PATIENCE_MS, 30000).
-define(LOOK_MS, 250).
-define(TIDY_MS, 600000).
%% Who waits is told his position so often.
-define(POSITIONS_MS, 1000).
%% Before any image was drawn here.
-define(IMAGE_S, 5.0).
-define(NEWEST_COUNTS, 0.3).
-define(MAX_RETRY_S, 3600).

-type settings() :: #{
    jobs_dir := baguette_web_store:dir(), max_jobs := pos_integer(),
    max_client_jobs := pos_integer(), checkpoint_ms := non_neg_integer(),
    keep_s := pos_integer(), keep_bytes := pos_integer(), keep_jobs := pos_integer(),
    atom() => term()
}.
-type ask() :: #{
    client := binary(), key := binary() | null, hash := binary(), images := pos_integer(),
    trouble := none | {atom(), map()}    % why nothing new can be taken now
}.
-type load() :: #{
    queued := non_neg_integer(), running := non_neg_integer(), retry_after_seconds := pos_integer()
}.
-type refused() :: {error, {atom(), map()}}.

-record(?MODULE, {
    settings :: settings(),
    waiting = baguette_web_fair:new() :: baguette_web_fair:fair(binary()),
    running = #{} :: #{binary() => Images :: pos_integer()},
    jobs = #{} :: #{pid() => binary()},
    crashes = #{} :: #{binary() => pos_integer()},
    %% Reserved and not yet on the disk; with those who sent the same meanwhile.
    writing = #{} :: #{binary() => {reference(), ask(), [{gen_server:from(), ask()}]}},
    keys = #{} :: #{{Client :: binary(), Key :: binary()} => binary()},
    image_s :: undefined | float(),
    positions = none :: none | reference(),
    last_id = 0 :: non_neg_integer(),
    is_open = false :: boolean(),
    open_by_ms :: integer(),
    is_closed = false :: boolean()
}).

-spec start_link(settings()) -> {ok, pid()} | {error, term()}.
start_link(Settings) ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, Settings, []).

%% @doc A place in the queue for what the caller is about to write; let go when the caller dies.
%% `known': the same was asked for before, under the same key.
-spec reserve(ask()) -> {new, binary()} | {known, binary()} | refused().
reserve(Ask) -> ask({reserve, Ask}).

%% @doc What was reserved is on the disk.
-spec accepted(binary(), baguette_web_job:start()) -> ok.
accepted(Id, Start) -> gen_server:call(?MODULE, {accepted, Id, Start}, infinity).

%% @doc What was reserved could not be written.
-spec abandoned(binary()) -> ok.
abandoned(Id) -> gen_server:call(?MODULE, {abandoned, Id}, infinity).

%% @doc A job's end is on the disk.
-spec ended(binary(), #{
    status := binary(), bytes := non_neg_integer(), images := pos_integer(),
    seconds := float() | null
}) -> ok.
ended(Id, How) -> gen_server:call(?MODULE, {ended, Id, How}, infinity).

%% @doc From now on no job is taken and none is begun; the processes of those there are.
-spec close() -> [pid()].
close() -> gen_server:call(?MODULE, close).

-spec load() -> {ok, load()} | refused().
load() -> ask(load).

%% @doc The caller hears of every job (baguette_web_jobs:subscribe_all/1).
-spec follow(Previews :: boolean()) -> ok | refused().
follow(Previews) -> ask({follow, self(), Previews}).

%% The exit's term may hold what was asked, which is for no log.
ask(Question) ->
    try
        gen_server:call(?MODULE, Question, infinity)
    catch
        exit:{_, _} -> {error, {not_ready, #{}}}
    end.

-spec init(settings()) -> {ok, #?MODULE{}, {continue, scan}} | {stop, term()}.
init(#{jobs_dir := Dir} = Settings) ->
    case baguette_web_store:prepare(Dir) of
        ok ->
            OpenBy = erlang:monotonic_time(millisecond) + ?PATIENCE_MS,
            {ok, #?MODULE{settings = Settings, open_by_ms = OpenBy}, {continue, scan}};
        {error, {store_failed, #{why := Why}}} ->
            {stop, {bad_setting, jobs_dir, Dir, file:format_error(Why)}}
    end.

-spec handle_continue(scan, #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_continue(scan, #?MODULE{settings = #{jobs_dir := Dir}} = S0) ->
    ok = baguette_web_job_index:clear(),
    _ = [erlang:monitor(process, Pid) || Pid <- baguette_web_job_index:followers()],
    {ok, Found} = baguette_web_store:scan(Dir),
    S = lists:foldl(fun found/2, S0, Found),
    self() ! look,
    self() ! tidy,
    {noreply, S}.

-spec handle_call(term(), gen_server:from(), #?MODULE{}) ->
    {reply, term(), #?MODULE{}} | {noreply, #?MODULE{}}.
handle_call({reserve, Ask}, From, S) ->
    case reserved(Ask, From, S) of
        {wait, Waiting} -> {noreply, Waiting};
        {Reply, S1} -> {reply, Reply, S1}
    end;
handle_call({accepted, Id, Start}, _From, #?MODULE{writing = Writing} = S) ->
    {{Monitor, Ask, Same}, Rest} = maps:take(Id, Writing),
    true = erlang:demonitor(Monitor, [flush]),
    Started = started(Id, Ask, Start, S#?MODULE{writing = Rest}),
    _ = [gen_server:reply(From, {known, Id}) || {From, _} <- Same],
    {reply, ok, position(Id, turns(Started))};
handle_call({abandoned, Id}, _From, S) ->
    {reply, ok, given_up(Id, S)};
handle_call({ended, Id, How}, _From, S) ->
    {reply, ok, turns(tidied(has_ended(Id, How, S)))};
handle_call(close, _From, #?MODULE{jobs = Jobs} = S) ->
    {reply, maps:keys(Jobs), S#?MODULE{is_closed = true}};
handle_call(load, _From, S) ->
    {reply, {ok, load(S)}, S};
handle_call({follow, Pid, Previews}, _From, S) ->
    _ = lists:member(Pid, baguette_web_job_index:followers()) orelse erlang:monitor(process, Pid),
    ok = baguette_web_job_index:follow(Pid, Previews),
    {reply, ok, followers_changed(S)}.

-spec handle_cast(term(), #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_cast(_Unknown, S) ->
    {noreply, S}.

-spec handle_info(term(), #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_info(look, #?MODULE{open_by_ms = By} = S) ->
    case baguette_engine:health() =:= ok orelse erlang:monotonic_time(millisecond) >= By of
        true ->
            {noreply, turns(S#?MODULE{is_open = true})};
        false ->
            _ = erlang:send_after(?LOOK_MS, self(), look),
            {noreply, S}
    end;
handle_info(positions, S) ->
    ok = queued(in_order(S)),
    {noreply, S#?MODULE{positions = none}};
handle_info(tidy, S) ->
    _ = erlang:send_after(?TIDY_MS, self(), tidy),
    {noreply, tidied(S)};
handle_info({'DOWN', Monitor, process, Pid, Reason}, #?MODULE{writing = Writing} = S) ->
    Left = [Id || {Id, {M, _, _}} <- maps:to_list(Writing), M =:= Monitor],
    ok = baguette_web_job_index:unfollow(Pid),
    _ = followers_changed(S),
    {noreply, down(Pid, Reason, lists:foldl(fun given_up/2, S, Left))};
handle_info(_Unknown, S) ->
    {noreply, S}.

%% @doc What a crash would print of it holds prompts on their way to a job.
-spec format_status(gen_server:format_status()) -> gen_server:format_status().
format_status(Status) ->
    maps:map(
        fun
            (state, S) -> load(S);
            (Key, _) when Key =:= message; Key =:= log -> not_shown;
            (_, Value) -> Value
        end,
        Status
    ).

%% At the door -----------------------------------------------------------------------------------

reserved(#{client := Client, key := Key} = Ask, From, #?MODULE{keys = Keys} = S) ->
    case Keys of
        #{{Client, Key} := Id} -> again(Id, Ask, From, S);
        _ -> new(Ask, From, S)
    end.

again(Id, #{hash := Hash} = Ask, From, #?MODULE{writing = Writing} = S) ->
    case {Writing, baguette_web_job_index:find(Id)} of
        {#{Id := {Monitor, #{hash := Hash} = First, Same}}, _} ->
            {wait, S#?MODULE{writing = Writing#{Id := {Monitor, First, [{From, Ask} | Same]}}}};
        {_, {ok, #{hash := Hash}}} ->
            {{known, Id}, S};
        {_, {ok, #{pid := none}}} ->
            {{error, {key_used, #{}}}, S};
        _ ->
            {{error, {key_in_progress, #{}}}, S}
    end.

new(_Ask, _From, #?MODULE{is_closed = true} = S) ->
    {{error, {leaving, #{}}}, S};
new(#{trouble := {Name, Facts}}, _From, S) ->
    {{error, {Name, Facts#{retry_after => retry_after(S)}}}, S};
new(#{client := Client, key := Key} = Ask, {Pid, _}, #?MODULE{settings = Settings} = S) ->
    #{max_jobs := Most, max_client_jobs := MostOfOne} = Settings,
    #?MODULE{waiting = Waiting, writing = Writing, keys = Keys} = S,
    Before = [C || {_, #{client := C}, _} <- maps:values(Writing)],
    Own = baguette_web_fair:size(Client, Waiting) + length([C || C <- Before, C =:= Client]),
    All = baguette_web_fair:size(Waiting) + length(Before),
    %% Who waits for nothing is not shut out by those who wait for much; nor may there be ever more.
    IsFull = All >= Most andalso (Own > 0 orelse All >= 2 * Most),
    case {IsFull, Own >= MostOfOne} of
        {false, false} ->
            {Id, Time} = baguette_web_job_record:new_id(S#?MODULE.last_id),
            {{new, Id}, S#?MODULE{
                last_id = Time,
                keys = case Key of null -> Keys; _ -> Keys#{{Client, Key} => Id} end,
                writing = Writing#{Id => {erlang:monitor(process, Pid), Ask, []}}
            }};
        {AllTaken, _} ->
            Whose = case AllTaken of true -> everybody; false -> own end,
            {{error, {overloaded, #{whose => Whose, retry_after => retry_after(S)}}}, S}
    end.

%% Whoever sent the same meanwhile is treated as if he came only now.
given_up(Id, #?MODULE{writing = Writing} = S0) ->
    {{Monitor, #{images := N} = Ask, Same}, Rest} = maps:take(Id, Writing),
    true = erlang:demonitor(Monitor, [flush]),
    ok = baguette_web_job_remover:remove([{Id, N}]),
    S = without_key(Ask, S0#?MODULE{writing = Rest}),
    lists:foldl(
        fun({From, Again}, Before) ->
            case reserved(Again, From, Before) of
                {wait, After} -> After;
                {Reply, After} -> gen_server:reply(From, Reply), After
            end
        end,
        S,
        lists:reverse(Same)
    ).

%% Whether previews are wanted may have changed.
followers_changed(#?MODULE{running = Running} = S) ->
    _ = [
        baguette_web_job:followers_changed(Pid)
     || Id <- maps:keys(Running), {ok, #{pid := Pid}} <- [find(Id)], is_pid(Pid)
    ],
    S.

without_key(#{client := Client, key := Key}, #?MODULE{keys = Keys} = S) ->
    S#?MODULE{keys = maps:remove({Client, Key}, Keys)}.

load(#?MODULE{waiting = Waiting, running = Running} = S) ->
    #{
        queued => baguette_web_fair:size(Waiting), running => map_size(Running),
        retry_after_seconds => retry_after(S)
    }.

retry_after(#?MODULE{waiting = Waiting, running = Running, image_s = Measured}) ->
    Images = [N || Id <- baguette_web_fair:order(Waiting), {ok, #{images := N}} <- [find(Id)]],
    Second = case Measured of undefined -> ?IMAGE_S; _ -> Measured end,
    #{max_running := AtOnce} = baguette_engine:admission(),
    Seconds = Second * lists:sum(Images ++ maps:values(Running)) / AtOnce,
    max(1, min(?MAX_RETRY_S, ceil(Seconds))).

find(Id) -> baguette_web_job_index:find(Id).

%% Turns -----------------------------------------------------------------------------------------

started(Id, #{client := Client, key := Key, hash := Hash, images := N}, Start, S) ->
    {ok, Pid} = baguette_web_job_sup:start_child(Start),
    _ = erlang:monitor(process, Pid),
    ok = baguette_web_job_index:put(Id, #{
        pid => Pid, client => Client, key => Key, hash => Hash, images => N
    }),
    #?MODULE{jobs = Jobs, waiting = Waiting} = S,
    S#?MODULE{jobs = Jobs#{Pid => Id}, waiting = baguette_web_fair:in(Client, Id, Waiting)}.

turns(#?MODULE{is_open = IsOpen, is_closed = IsClosed} = S) when not IsOpen; IsClosed ->
    positions(S);
turns(#?MODULE{running = Running, waiting = Waiting} = S) ->
    #{max_running := AtOnce} = baguette_engine:admission(),
    case map_size(Running) < AtOnce andalso baguette_web_fair:out(Waiting) of
        {Id, Rest} ->
            {ok, #{pid := Pid, images := N}} = find(Id),
            ok = baguette_web_job:begin_now(Pid),
            turns(S#?MODULE{running = Running#{Id => N}, waiting = Rest});
        _ ->
            positions(S)
    end.

%% One more or one less moves all that wait: they are told together, every now and then.
positions(#?MODULE{positions = none} = S) ->
    S#?MODULE{positions = erlang:send_after(?POSITIONS_MS, self(), positions)};
positions(S) ->
    S.

%% Who has just come is told at once.
position(Id, S) ->
    ok = queued([At || {_, I} = At <- in_order(S), I =:= Id]),
    S.

in_order(#?MODULE{waiting = Waiting}) ->
    Order = baguette_web_fair:order(Waiting),
    lists:zip(lists:seq(0, length(Order) - 1), Order).

queued(Places) ->
    _ = [
        baguette_web_job:queued(Pid, Position)
     || {Position, Id} <- Places, {ok, #{pid := Pid}} <- [find(Id)]
    ],
    ok.

has_ended(Id, How, S) ->
    #{status := Status, bytes := Bytes, images := N, seconds := Seconds} = How,
    {ok, #{pid := Pid, client := Client} = Entry} = find(Id),
    Finished = baguette_web_job_record:seconds(),
    ok = baguette_web_job_index:put(Id, Entry#{pid := none, bytes => Bytes, finished => Finished}),
    #?MODULE{jobs = Jobs, running = Running, waiting = Waiting, crashes = Crashes} = S,
    measured(Status, Seconds, N, S#?MODULE{
        jobs = maps:remove(Pid, Jobs), running = maps:remove(Id, Running),
        waiting = baguette_web_fair:remove(Client, Id, Waiting), crashes = maps:remove(Id, Crashes)
    }).

measured(<<"completed">>, Seconds, N, #?MODULE{image_s = Before} = S) when is_number(Seconds) ->
    Now = Seconds / N,
    S#?MODULE{image_s = case Before of
        undefined -> Now;
        _ -> Before + ?NEWEST_COUNTS * (Now - Before)
    end};
measured(_, _, _, S) ->
    S.

down(Pid, _Reason, #?MODULE{jobs = Jobs, is_closed = IsClosed} = S) when
    IsClosed; not is_map_key(Pid, Jobs)
->
    S;
down(Pid, Reason, #?MODULE{jobs = Jobs, settings = Settings} = S) ->
    {Id, Rest} = maps:take(Pid, Jobs),
    Crashes = 1 + maps:get(Id, S#?MODULE.crashes, 0),
    ?LOG_ERROR(#{what => job_crashed, job => Id, why => name(Reason)}, ?LOG_META),
    {ok, #{client := Client} = Entry} = find(Id),
    Left = S#?MODULE{
        jobs = Rest, running = maps:remove(Id, S#?MODULE.running),
        waiting = baguette_web_fair:remove(Client, Id, S#?MODULE.waiting),
        crashes = (S#?MODULE.crashes)#{Id => Crashes}
    },
    Ends = case Crashes of ?MAX_CRASHES -> {failed, {job_crashed, #{}}}; _ -> no end,
    case baguette_web_job_files:start(Id, Ends, Settings) of
        {unended, _, Start} -> turns(started(Id, Entry, Start, Left));
        {ended, Read} -> turns(known(Id, Read, Left))
    end.

name(Reason) when is_atom(Reason) -> Reason;
name(Reason) when is_tuple(Reason), is_atom(element(1, Reason)) -> element(1, Reason);
name(_) -> other.

%% What is on the disk ---------------------------------------------------------------------------

found(Id, #?MODULE{settings = #{jobs_dir := Dir} = Settings} = S) ->
    case baguette_web_job_files:start(Id, no, Settings) of
        {ended, Entry} ->
            %% There is one if the node was killed between the job's end and its removal.
            ok = baguette_web_store:drop_step(Dir, Id),
            known(Id, Entry, S);
        {unended, Entry, Start} -> started(Id, Entry, Start, keyed(Id, Entry, S))
    end.

known(Id, Entry, S) ->
    ok = baguette_web_job_index:put(Id, Entry),
    keyed(Id, Entry, S).

keyed(_Id, #{key := null}, S) ->
    S;
keyed(Id, #{client := Client, key := Key}, #?MODULE{keys = Keys} = S) ->
    S#?MODULE{keys = Keys#{{Client, Key} => Id}}.

%% The oldest go first; a job that has not ended is never deleted.
tidied(#?MODULE{settings = Settings} = S) ->
    Ended = baguette_web_job_index:ended(),
    Gone = baguette_web_job_files:too_many(Ended, baguette_web_job_record:seconds(), Settings),
    ok = baguette_web_job_remover:remove([{Id, N} || {Id, #{images := N}} <- Gone]),
    lists:foldl(
        fun({Id, Entry}, Before) ->
            ok = baguette_web_job_index:delete(Id),
            without_key(Entry, Before)
        end,
        S,
        Gone
    ).
