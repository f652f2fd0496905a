%% @doc Jobs on disk: one file a job, what it has drawn so far and its pictures in files beside it.
%%
%%     ID.job      the job, written before it is accepted and when it has ended
%%     ID.step     while it runs: what happened so far, and the engine's checkpoint
%%     ID.I.png    picture I, once all is drawn
%%     ID.lost     a job whose end could not be written: its .job under another name
%%
%% Every file is written beside its place, synced, renamed, and the directory synced: after a crash
%% it is there as it was before or as it is now. No process: whoever calls writes. Only the modules
%% of jobs call this one, and none of a job's files is written by two processes at a time.
-module(baguette_web_store).

-export([prepare/1, scan/1, put_job/3, put_end/3, put_step/4, put_images/3]).
-export([job/2, step/2, image/3, size/2, drop_step/2, drop_images/3, lose/2, delete/2]).
-export_type([dir/0, id/0, found/0, reason/0]).

-type dir() :: file:filename().
-type id() :: binary().
-type reason() :: {store_failed, #{why := file:posix() | badarg | terminated | system_limit}}.

%% lost: it has ended, and its end could not be written; as it was before.
-type found() :: {ok, map()} | {lost, map()} | {error, damaged}.

%% A job of the largest size has a checkpoint of some megabytes; what is larger is not ours.
-define(MAX_BYTES, (256 bsl 20)).
-define(ID_LENGTH, 20).
-define(NEW, ".new").

%% @doc Make the directory, for nobody but us.
-spec prepare(dir()) -> ok | {error, reason()}.
prepare(Dir) ->
    ok_or_reason(first_error([
        fun() -> filelib:ensure_dir(filename:join(Dir, "any")) end,
        fun() -> file:change_mode(Dir, 8#700) end
    ])).

%% @doc Every job here, oldest name first. What a crash left half done is removed: files that were
%% not yet renamed, and what belongs to no job.
-spec scan(dir()) -> {ok, [id()]} | {error, reason()}.
scan(Dir) ->
    case file:list_dir(Dir) of
        {ok, Names} ->
            Split = [string:split(Name, ".") || Name <- Names],
            Parts = [{Id, Kind} || [Id, Kind] <- Split, is_id(Id)],
            Jobs = lists:usort([Id || {Id, Kind} <- Parts, Kind =:= "job" orelse Kind =:= "lost"]),
            ok = lists:foreach(
                fun({Id, Kind}) -> _ = file:delete(path(Dir, Id, Kind)) end,
                [Part || {Id, Kind} = Part <- Parts, is_stray(Kind, lists:member(Id, Jobs))]
            ),
            {ok, [list_to_binary(Id) || Id <- Jobs]};
        {error, Why} ->
            {error, {store_failed, #{why => Why}}}
    end.

%% Whatever else lies here is not ours.
is_id(Text) -> length(Text) =:= ?ID_LENGTH andalso lists:all(fun is_hex/1, Text).

is_hex(C) -> (C >= $0 andalso C =< $9) orelse (C >= $a andalso C =< $f).

is_stray(Kind, IsJobs) -> not IsJobs orelse lists:suffix(?NEW, Kind).

%% @doc Write a job: it is on the disk when this returns.
-spec put_job(dir(), id(), jiffy:json_value()) -> ok | {error, reason()}.
put_job(Dir, Id, Job) ->
    write(Dir, path(Dir, Id, "job"), baguette_web_store_file:encode(Job, <<>>)).

%% @doc Write how far a job is.
-spec put_step(dir(), id(), jiffy:json_value(), binary()) -> ok | {error, reason()}.
put_step(Dir, Id, Facts, Checkpoint) ->
    write(Dir, path(Dir, Id, "step"), baguette_web_store_file:encode(Facts, Checkpoint)).

%% @doc Write a job's end. How far it was goes only when that is there: of a job without either, all
%% would be drawn anew.
-spec put_end(dir(), id(), jiffy:json_value()) -> ok | {error, reason()}.
put_end(Dir, Id, Job) ->
    Written = put_job(Dir, Id, Job),
    ok = drop_step(Dir, Id),
    case Written of
        ok -> ok;
        %% On a full disk there is room now.
        {error, _} -> put_job(Dir, Id, Job)
    end.

%% @doc Write all its pictures.
-spec put_images(dir(), id(), [binary()]) -> ok | {error, reason()}.
put_images(Dir, Id, Pngs) ->
    first_error([
        fun() -> write(Dir, path(Dir, Id, png(I)), Png) end
     || {I, Png} <- lists:zip(lists:seq(0, length(Pngs) - 1), Pngs)
    ]).

%% @doc A job as it was written last.
-spec job(dir(), id()) -> found().
job(Dir, Id) ->
    case {read(path(Dir, Id, "lost")), read(path(Dir, Id, "job"))} of
        {{ok, Object, _}, _} -> {lost, Object};
        {_, {ok, Object, _}} -> {ok, Object};
        _ -> {error, damaged}
    end.

%% @doc How far a job was, and the checkpoint to go on from; `none' means: from the beginning.
-spec step(dir(), id()) -> {ok, map(), binary()} | none.
step(Dir, Id) ->
    case read(path(Dir, Id, "step")) of
        {ok, _, _} = Step -> Step;
        {error, _} -> none
    end.

-spec image(dir(), id(), non_neg_integer()) -> {ok, binary()} | {error, reason()}.
image(Dir, Id, I) ->
    case file:read_file(path(Dir, Id, png(I))) of
        {ok, Png} -> {ok, Png};
        {error, Why} -> {error, {store_failed, #{why => Why}}}
    end.

%% @doc Bytes of a job's own file.
-spec size(dir(), id()) -> non_neg_integer().
size(Dir, Id) ->
    filelib:file_size(path(Dir, Id, "job")) + filelib:file_size(path(Dir, Id, "lost")).

-spec drop_step(dir(), id()) -> ok.
drop_step(Dir, Id) ->
    _ = file:delete(path(Dir, Id, "step")),
    ok.

-spec drop_images(dir(), id(), Images :: non_neg_integer()) -> ok.
drop_images(Dir, Id, Images) ->
    %% What cannot be removed now goes with the job.
    _ = remove(Dir, Id, pngs(Images)),
    ok.

pngs(Images) -> [png(I) || I <- lists:seq(0, Images - 1)].

%% @doc A job has ended and that cannot be written: the disk is full. A rename needs no room.
-spec lose(dir(), id()) -> ok | {error, reason()}.
lose(Dir, Id) ->
    ok_or_reason(first_error([
        fun() -> file:rename(path(Dir, Id, "job"), path(Dir, Id, "lost")) end,
        fun() -> sync_directory(Dir) end
    ])).

%% @doc Nothing is left of these jobs of so many images. The job itself goes first: without it the
%% others are nobody's. The error is the first there was; what is left is found by the next scan.
-spec delete(dir(), [{id(), Images :: non_neg_integer()}]) -> ok | {error, reason()}.
delete(Dir, Jobs) ->
    Removed = [
        fun() -> remove(Dir, Id, ["job", "lost", "step" | pngs(Images)]) end
     || {Id, Images} <- Jobs
    ],
    ok_or_reason(all_done(Removed ++ [fun() -> sync_directory(Dir) end])).

%% What is not there need not be removed.
remove(Dir, Id, Kinds) ->
    all_done([fun() -> removed(path(Dir, Id, Kind)) end || Kind <- Kinds]).

removed(Path) ->
    case file:delete(Path) of
        {error, enoent} -> ok;
        Done -> Done
    end.

path(Dir, Id, Kind) when is_binary(Id) -> path(Dir, binary_to_list(Id), Kind);
path(Dir, Id, Kind) -> filename:join(Dir, Id ++ "." ++ Kind).

png(I) -> integer_to_list(I) ++ ".png".

read(Path) ->
    case filelib:file_size(Path) =< ?MAX_BYTES andalso file:read_file(Path) of
        {ok, Bytes} -> baguette_web_store_file:decode(Bytes);
        _ -> {error, damaged}
    end.

write(Dir, Path, Bytes) ->
    New = Path ++ ?NEW,
    Written = first_error([
        fun() -> write_synced(New, Bytes) end,
        fun() -> file:rename(New, Path) end,
        fun() -> sync_directory(Dir) end
    ]),
    %% What is half written would take up room that a full disk has not.
    _ = Written =:= ok orelse file:delete(New),
    ok_or_reason(Written).

write_synced(New, Bytes) ->
    case file:open(New, [write, raw]) of
        {ok, File} ->
            Written = first_error([
                fun() -> file:write(File, Bytes) end, fun() -> file:sync(File) end
            ]),
            Closed = file:close(File),
            first_error([fun() -> Written end, fun() -> Closed end]);
        {error, _} = Error ->
            Error
    end.

%% A rename is on the disk when its directory is.
sync_directory(Dir) ->
    case file:open(Dir, [read, raw, directory]) of
        {ok, File} ->
            Synced = file:sync(File),
            _ = file:close(File),
            Synced;
        {error, _} = Error ->
            Error
    end.

first_error([]) ->
    ok;
first_error([Do | Rest]) ->
    case Do() of
        ok -> first_error(Rest);
        {error, _} = Error -> Error
    end.

%% As first_error/1, and the rest is done in spite of an error.
all_done(Doings) ->
    lists:foldl(
        fun
            (Error, ok) -> Error;
            (_, Error) -> Error
        end,
        ok,
        [Do() || Do <- Doings]
    ).

ok_or_reason(ok) -> ok;
ok_or_reason({error, Why}) -> {error, {store_failed, #{why => Why}}}.
