%% @doc What a job's files say: whether it has ended, or from what to begin it again. Reads only;
%% called by baguette_web_job_admission at its start and by baguette_web_jobs for jobs that ended.
%%
%% Nothing in a file is taken on trust: what cannot be made sense of is a job that failed because
%% its file was damaged.
-module(baguette_web_job_files).

-export([start/3, last/2, too_many/3]).

-type entry() :: baguette_web_job_index:entry().

%% @doc How a job that was found on the disk goes on, if it does. `Ends' is how it ends if it has
%% not; one that somebody waited for, whose connection went with the node, has been cancelled by
%% that, unless he can ask for it again by its key.
-spec start(binary(), no | {failed, {atom(), map()}}, baguette_web_job_admission:settings()) ->
    {ended, entry()} | {unended, entry(), baguette_web_job:start()}.
start(Id, Ends, #{jobs_dir := Dir} = Settings) ->
    case found(baguette_web_store:job(Dir, Id)) of
        {unended, File, Entry} ->
            unended(Id, File, Entry, Ends, Settings);
        {ended, Entry} ->
            sized(Id, Entry, Dir)
    end.

found({ok, #{<<"job">> := #{<<"status">> := Status} = Job} = File}) ->
    IsJob = baguette_web_job_shape:is_job(Job),
    case {baguette_web_job_record:is_end(Status), entry(File)} of
        {_, Entry} when not IsJob; Entry =:= damaged -> {ended, damaged()};
        {true, Entry} -> {ended, Entry};
        {false, Entry} -> {unended, File, Entry}
    end;
found({lost, File}) ->
    {ended, entry_or_damaged(File)};
found({error, damaged}) ->
    {ended, damaged()};
found({ok, _}) ->
    {ended, damaged()}.

%% In the file stands what its pictures take.
sized(Id, #{bytes := Pictures} = Entry, Dir) ->
    {ended, Entry#{bytes := Pictures + baguette_web_store:size(Dir, Id)}}.

unended(Id, #{<<"job">> := First} = File, Entry, Ends, #{jobs_dir := Dir} = Settings) ->
    {Last, Step, Checkpoint} = last_step(Dir, Id, First),
    case baguette_web_image_request:restored(maps:get(<<"request">>, First)) of
        {ok, Options} ->
            %% Its own file is written at every start: it knows best how often there was one.
            Job = (baguette_web_job_record:restored(Id, Last, Options))#{
                resumed := maps:get(<<"resumed">>, First, 0)
            },
            {unended, Entry, #{
                dir => Dir,
                job => baguette_web_job_record:again(Step, Job),
                options => Options,
                kept => maps:with([<<"client">>, <<"key">>, <<"hash">>, <<"attended">>], File),
                checkpoint => Checkpoint,
                checkpoint_ms => maps:get(checkpoint_ms, Settings),
                owner => none,
                ends => ends(Ends, File)
            }};
        {error, _} ->
            sized(Id, damaged(), Dir)
    end.

last_step(Dir, Id, First) ->
    case baguette_web_store:step(Dir, Id) of
        {ok, #{<<"job">> := Last, <<"step">> := Step}, Checkpoint} when
            is_integer(Step), Step >= 0
        ->
            case baguette_web_job_shape:is_job(Last) of
                true -> {Last, Step, Checkpoint};
                false -> {First, 0, none}
            end;
        _ ->
            {First, 0, none}
    end.

ends(no, #{<<"attended">> := true, <<"key">> := null}) -> cancelled;
ends(Ends, _) -> Ends.

entry(#{<<"client">> := Client, <<"key">> := Key, <<"hash">> := Hash, <<"job">> := Job} = File) when
    is_binary(Client), is_binary(Key) orelse Key =:= null, is_binary(Hash)
->
    case {Job, maps:get(<<"bytes">>, File, 0)} of
        {#{<<"request">> := #{<<"n">> := N}} = Job, Bytes} when
            is_integer(N), N > 0, is_integer(Bytes)
        ->
            #{
                pid => none, client => Client, key => Key, hash => Hash, images => N,
                bytes => Bytes, finished => number(maps:get(<<"finished">>, Job, null))
            };
        _ ->
            damaged
    end;
entry(_) ->
    damaged.

entry_or_damaged(File) ->
    case entry(File) of
        damaged -> damaged();
        Entry -> Entry
    end.

damaged() ->
    #{
        pid => none, client => <<>>, key => null, hash => <<>>, images => 1, bytes => 0,
        finished => now_s()
    }.

number(Value) when is_number(Value) -> Value;
number(_) -> now_s().

%% Who asks for a job whose end nobody could write shall find out that it is lost: it is kept as
%% long as one that has just ended.
now_s() -> baguette_web_job_record:seconds().

%% @doc A job without a process, with the number of its last event: it has ended, unless it is about
%% to be begun again.
-spec last(baguette_web_store:dir(), binary()) -> {map(), Last :: non_neg_integer()}.
last(Dir, Id) ->
    case baguette_web_store:job(Dir, Id) of
        {ok, #{<<"job">> := Job} = File} ->
            read(baguette_web_job_shape:is_job(Job), Id, Job, maps:get(<<"last_event">>, File, 0));
        {lost, #{<<"job">> := Job}} ->
            Known = case baguette_web_job_shape:is_job(Job) of true -> Job; false -> #{} end,
            {baguette_web_job_record:lost({store_failed, #{why => enospc}}, Id, Known), 0};
        _ ->
            read(false, Id, none, 0)
    end.

read(true, _Id, Job, Last) when is_integer(Last), Last >= 0 -> {Job, Last};
read(_, Id, _Job, _Last) -> {baguette_web_job_record:lost({damaged, #{}}, Id, #{}), 0}.

%% @doc Of those that have ended, oldest first, the ones that are to be deleted: older than they may
%% be, or more than there may be, in number or in bytes.
-spec too_many([{binary(), entry()}], float(), #{
    keep_s := pos_integer(), keep_bytes := pos_integer(), keep_jobs := pos_integer(), atom() => _
}) -> [{binary(), entry()}].
too_many(Ended, Now, #{keep_s := Age, keep_bytes := Bytes, keep_jobs := Jobs}) ->
    {Gone, _, _} = lists:foldl(
        fun({_, #{bytes := Size, finished := Finished}} = Job, {Before, Count, Sum}) ->
            IsKept = Count < Jobs andalso Sum + Size =< Bytes andalso Now - Finished =< Age,
            case IsKept of
                true -> {Before, Count + 1, Sum + Size};
                false -> {[Job | Before], Count, Sum}
            end
        end,
        {[], 0, 0},
        lists:reverse(Ended)
    ),
    Gone.
