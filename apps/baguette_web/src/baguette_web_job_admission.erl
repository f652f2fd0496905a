%% @doc Which jobs are taken, and when each begins: bounded, fair between clients, never more with
%% the engine than it draws at a time. Promises are kept in baguette_web_job_places, turns in
%% baguette_web_job_turns. Also knows the jobs that have ended, until they are deleted.
%%
%% Called by baguette_web_jobs (the door) and by jobs that end. It writes no job: who submits one
%% does that between reserve/1 and accepted/2, so that nobody waits for another's disk. What dies
%% with it: the order of turns, and all jobs' processes; both are made again from the files.
-module(baguette_web_job_admission).
-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/1, reserve/1, accepted/2, abandoned/1, ended/2, close/0, load/0, follow/1]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2, format_status/1]).
-export_type([settings/0]).

-define(LOG_META, #{domain => [baguette, web]}).
%% A job whose process crashed so often is not taken up again.
-define(MAX_CRASHES, 3).
%% After a start: so long jobs that were taken before wait for every expert to be held.
-define(PATIENCE_MS, 30000).
-define(LOOK_MS, 250).
-define(TIDY_MS, 600000).
%% Who waits is told his position so often.
-define(POSITIONS_MS, 1000).

-type settings() :: #{
    jobs_dir := baguette_web_store:dir(), max_jobs := pos_integer(),
    max_client_jobs := pos_integer(), checkpoint_ms := non_neg_integer(),
    keep_s := pos_integer(), keep_bytes := pos_integer(), keep_jobs := pos_integer(),
    atom() => term()
}.
-type refused() :: {error, {atom(), map()}}.

-record(?MODULE, {
    settings :: settings(),
    turns = baguette_web_job_turns:new() :: baguette_web_job_turns:turns(),
    places = baguette_web_job_places:new() :: baguette_web_job_places:places(),
    jobs = #{} :: #{pid() => binary()},
    crashes = #{} :: #{binary() => pos_integer()},
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
-spec reserve(baguette_web_job_places:ask()) -> {new, binary()} | {known, binary()} | refused().
reserve(Ask) -> ask({reserve, Ask}).

%% @doc What was reserved is on the disk.
-spec accepted(binary(), baguette_web_job:start()) -> ok.
accepted(Id, Start) -> gen_server:call(?MODULE, {accepted, Id, Start}, infinity).

%% @doc What was reserved could not be written.
-spec abandoned(binary()) -> ok.
abandoned(Id) -> gen_server:call(?MODULE, {abandoned, Id}, infinity).

%% @doc A job's end is on the disk.
-spec ended(binary(), Bytes :: non_neg_integer()) -> ok.
ended(Id, Bytes) -> gen_server:call(?MODULE, {ended, Id, Bytes}, infinity).

%% @doc From now on no job is taken and none is begun; the processes of those there are.
-spec close() -> [pid()].
close() -> gen_server:call(?MODULE, close).

-spec load() -> {ok, baguette_web_job_turns:load()} | refused().
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
handle_call({accepted, Id, Start}, _From, #?MODULE{places = Places} = S) ->
    {{Monitor, Ask, Same}, Rest} = baguette_web_job_places:take(Id, Places),
    true = erlang:demonitor(Monitor, [flush]),
    Started = started(Id, Ask, Start, S#?MODULE{places = Rest}),
    _ = [gen_server:reply(From, {known, Id}) || {From, _} <- Same],
    {reply, ok, position(Id, turns(Started))};
handle_call({abandoned, Id}, _From, S) ->
    {reply, ok, given_up(Id, S)};
handle_call({ended, Id, Bytes}, _From, S) ->
    {reply, ok, turns(tidied(has_ended(Id, Bytes, S)))};
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
handle_info({'DOWN', Monitor, process, Pid, Reason}, #?MODULE{places = Places} = S) ->
    Left = baguette_web_job_places:of_monitor(Monitor, Places),
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

reserved(Ask, From, #?MODULE{places = Places} = S) ->
    case baguette_web_job_places:named(Ask, Places) of
        {ok, Id} -> again(Id, Ask, From, S);
        unknown -> new(Ask, From, S)
    end.

again(Id, #{hash := Hash} = Ask, From, #?MODULE{places = Places} = S) ->
    case {baguette_web_job_places:waits(Id, From, Ask, Places), find(Id)} of
        {{wait, Waiting}, _} -> {wait, S#?MODULE{places = Waiting}};
        {no, {ok, #{hash := Hash}}} -> {{known, Id}, S};
        {no, {ok, #{pid := none}}} -> {{error, {key_used, #{}}}, S};
        {no, _} -> {{error, {key_in_progress, #{}}}, S}
    end.

new(_Ask, _From, #?MODULE{is_closed = true} = S) ->
    {{error, {leaving, #{}}}, S};
new(#{trouble := {Name, Facts}}, _From, S) ->
    {{error, {Name, Facts#{retry_after => retry_after(S)}}}, S};
new(#{client := Client} = Ask, {Pid, _}, #?MODULE{places = Places} = S) ->
    case full_for(Client, S) of
        no ->
            {Id, Time} = baguette_web_job_record:new_id(S#?MODULE.last_id),
            Monitor = erlang:monitor(process, Pid),
            Promised = baguette_web_job_places:promise(Id, Monitor, Ask, Places),
            {{new, Id}, S#?MODULE{last_id = Time, places = Promised}};
        Whose ->
            {{error, {overloaded, #{whose => Whose, retry_after => retry_after(S)}}}, S}
    end.

full_for(Client, #?MODULE{turns = Turns, places = Places, settings = Settings}) ->
    #{max_jobs := Most, max_client_jobs := MostOfOne} = Settings,
    Own = baguette_web_job_turns:waiting(Client, Turns) +
        baguette_web_job_places:count(Client, Places),
    All = baguette_web_job_turns:waiting(Turns) + baguette_web_job_places:count(Places),
    %% Who waits for nothing is not shut out by those who wait for much; nor may there be ever more.
    case All >= Most andalso (Own > 0 orelse All >= 2 * Most) of
        true -> everybody;
        false when Own >= MostOfOne -> own;
        false -> no
    end.

%% Whoever sent the same meanwhile is treated as if he came only now.
given_up(Id, #?MODULE{places = Places} = S0) ->
    {{Monitor, #{images := N} = Ask, Same}, Rest} = baguette_web_job_places:take(Id, Places),
    true = erlang:demonitor(Monitor, [flush]),
    ok = baguette_web_job_remover:remove([{Id, N}]),
    S = without_key(Ask, S0#?MODULE{places = Rest}),
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
followers_changed(#?MODULE{turns = Turns} = S) ->
    _ = [
        baguette_web_job:followers_changed(Pid)
     || Id <- baguette_web_job_turns:running(Turns), {ok, #{pid := Pid}} <- [find(Id)], is_pid(Pid)
    ],
    S.

without_key(#{client := Client, key := Key}, #?MODULE{places = Places} = S) ->
    S#?MODULE{places = baguette_web_job_places:forget(Client, Key, Places)}.

load(#?MODULE{turns = Turns}) ->
    Seconds = baguette_engine:work_seconds(baguette_web_job_turns:work(Turns)),
    baguette_web_job_turns:load(Seconds, Turns).

retry_after(S) ->
    #{retry_after_seconds := Seconds} = load(S),
    Seconds.

at_once() ->
    #{max_running := AtOnce} = baguette_engine:admission(),
    AtOnce.

find(Id) -> baguette_web_job_index:find(Id).

%% Turns -----------------------------------------------------------------------------------------

started(Id, #{client := Client, key := Key, hash := Hash, images := N}, Start, S) ->
    {ok, Pid} = baguette_web_job_sup:start_child(Start),
    _ = erlang:monitor(process, Pid),
    ok = baguette_web_job_index:put(Id, #{
        pid => Pid, client => Client, key => Key, hash => Hash, images => N
    }),
    #?MODULE{jobs = Jobs, turns = Turns} = S,
    Waiting = baguette_web_job_turns:in(Client, Id, work_left(Start), Turns),
    S#?MODULE{jobs = Jobs#{Pid => Id}, turns = Waiting}.

%% What its checkpoint holds was counted when it began.
work_left(#{options := #{n := Images, steps := Steps}, job := #{step := Step}}) ->
    Images * max(1, Steps - Step).

turns(#?MODULE{is_open = IsOpen, is_closed = IsClosed} = S) when not IsOpen; IsClosed ->
    positions(S);
turns(#?MODULE{turns = Turns} = S) ->
    case baguette_web_job_turns:next(at_once(), Turns) of
        {Id, Begun} ->
            {ok, #{pid := Pid}} = find(Id),
            ok = baguette_web_job:begin_now(Pid),
            turns(S#?MODULE{turns = Begun});
        none ->
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

in_order(#?MODULE{turns = Turns}) ->
    Order = baguette_web_job_turns:order(Turns),
    lists:zip(lists:seq(0, length(Order) - 1), Order).

queued(Places) ->
    _ = [
        baguette_web_job:queued(Pid, Position)
     || {Position, Id} <- Places, {ok, #{pid := Pid}} <- [find(Id)]
    ],
    ok.

has_ended(Id, Bytes, S) ->
    {ok, #{pid := Pid, client := Client} = Entry} = find(Id),
    Finished = baguette_web_job_record:seconds(),
    ok = baguette_web_job_index:put(Id, Entry#{pid := none, bytes => Bytes, finished => Finished}),
    #?MODULE{jobs = Jobs, turns = Turns, crashes = Crashes} = S,
    S#?MODULE{
        jobs = maps:remove(Pid, Jobs), crashes = maps:remove(Id, Crashes),
        turns = baguette_web_job_turns:left(Client, Id, Turns)
    }.

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
        jobs = Rest, turns = baguette_web_job_turns:left(Client, Id, S#?MODULE.turns),
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

keyed(Id, #{client := Client, key := Key}, #?MODULE{places = Places} = S) ->
    S#?MODULE{places = baguette_web_job_places:keyed(Client, Key, Id, Places)}.

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
