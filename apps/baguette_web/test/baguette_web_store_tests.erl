%% Jobs on a real disk: what comes back, whatever happened to the files; and a disk that is full.
-module(baguette_web_store_tests).
-include_lib("eunit/include/eunit.hrl").
-include_lib("kernel/include/file.hrl").

-import(baguette_web_store, [put_job/3, put_step/4, put_images/3, job/2, step/2, image/3, scan/1]).

-define(ID, <<"0123456789abcdef0123">>).
-define(JOB, #{<<"prompt">> => <<"ein Käse"/utf8>>, <<"n">> => 1}).
-define(CHECKPOINT, <<0, 255, "\n", 7:64>>).

store_test_() ->
    {foreach, fun directory/0, fun remove/1, [
        fun(Dir) -> {atom_to_list(Name), fun() -> Test(Dir) end} end
     || {Name, Test} <- [
            {what_is_written_is_read, fun what_is_written_is_read/1},
            {the_directory_is_ours_alone, fun the_directory_is_ours_alone/1},
            {a_torn_file_is_said_to_be, fun a_torn_file_is_said_to_be/1},
            {a_changed_byte_is_noticed, fun a_changed_byte_is_noticed/1},
            {a_start_tidies_up, fun a_start_tidies_up/1},
            {nothing_is_left_of_a_deleted_job, fun nothing_is_left_of_a_deleted_job/1}
        ]
    ]}.

what_is_written_is_read(Dir) ->
    ok = put_job(Dir, ?ID, #{}),
    ok = put_job(Dir, ?ID, ?JOB),
    ok = put_step(Dir, ?ID, #{step => 3}, ?CHECKPOINT),
    ok = put_images(Dir, ?ID, [<<"png">>]),
    ?assertEqual({ok, [?ID]}, scan(Dir)),
    ?assertEqual({ok, ?JOB}, job(Dir, ?ID)),
    ?assertEqual({ok, #{<<"step">> => 3}, ?CHECKPOINT}, step(Dir, ?ID)),
    ?assertEqual({ok, <<"png">>}, image(Dir, ?ID, 0)),
    ?assertMatch({error, {store_failed, #{why := enoent}}}, image(Dir, ?ID, 1)).

the_directory_is_ours_alone(Dir) ->
    {ok, #file_info{mode = Mode}} = file:read_file_info(Dir),
    ?assertEqual(8#700, Mode band 8#777).

%% Cut at every length: never a crash, never half a job.
a_torn_file_is_said_to_be(Dir) ->
    ok = put_job(Dir, ?ID, ?JOB),
    ok = put_step(Dir, ?ID, #{step => 3}, ?CHECKPOINT),
    [Job, Step] = [filename:join(Dir, binary_to_list(?ID) ++ Kind) || Kind <- [".job", ".step"]],
    [
        begin
            {ok, Whole} = file:read_file(File),
            [
                begin
                    ok = file:write_file(File, binary:part(Whole, 0, Length)),
                    ?assertEqual(Expected, Read())
                end
             || Length <- lists:seq(0, byte_size(Whole) - 1)
            ],
            ok = file:write_file(File, [Whole, 0]),
            ?assertEqual(Expected, Read())
        end
     || {File, Read, Expected} <- [
            {Job, fun() -> job(Dir, ?ID) end, {error, damaged}},
            {Step, fun() -> step(Dir, ?ID) end, none}
        ]
    ].

a_changed_byte_is_noticed(Dir) ->
    ok = put_job(Dir, ?ID, ?JOB),
    File = filename:join(Dir, binary_to_list(?ID) ++ ".job"),
    {ok, Whole} = file:read_file(File),
    [
        begin
            <<Before:At/binary, Byte, After/binary>> = Whole,
            ok = file:write_file(File, <<Before/binary, (Byte bxor 32), After/binary>>),
            ?assertEqual({error, damaged}, job(Dir, ?ID))
        end
     || At <- lists:seq(0, byte_size(Whole) - 1)
    ].

a_start_tidies_up(Dir) ->
    ok = put_job(Dir, ?ID, ?JOB),
    Other = "ffffffffffffffffffff",
    Left = [binary_to_list(?ID) ++ ".job.new", Other ++ ".step", Other ++ ".0.png"],
    Foreign = ["README", "x.job", "..job"],
    [ok = file:write_file(filename:join(Dir, Name), "x") || Name <- Left ++ Foreign],
    ?assertEqual({ok, [?ID]}, scan(Dir)),
    {ok, Names} = file:list_dir(Dir),
    ?assertEqual(lists:sort([binary_to_list(?ID) ++ ".job" | Foreign]), lists:sort(Names)).

nothing_is_left_of_a_deleted_job(Dir) ->
    ok = put_job(Dir, ?ID, ?JOB),
    ok = put_step(Dir, ?ID, #{}, <<>>),
    ok = put_images(Dir, ?ID, [<<"png">>, <<"png">>]),
    ok = baguette_web_store:lose(Dir, ?ID),
    ?assertEqual({ok, [?ID]}, scan(Dir)),
    ?assertEqual({lost, ?JOB}, job(Dir, ?ID)),
    ok = baguette_web_store:delete(Dir, [{?ID, 2}]),
    ?assertEqual({ok, []}, file:list_dir(Dir)),
    %% What cannot be removed is said, and keeps nothing else.
    ok = put_job(Dir, ?ID, ?JOB),
    ok = file:make_dir(filename:join(Dir, binary_to_list(?ID) ++ ".0.png")),
    ?assertMatch({error, {store_failed, _}}, baguette_web_store:delete(Dir, [{?ID, 1}])),
    ?assertEqual({error, damaged}, job(Dir, ?ID)).

directory() ->
    Name = "baguette-store-" ++ os:getpid(),
    Dir = filename:join(os:getenv("TMPDIR", "/tmp"), Name),
    ok = baguette_web_store:prepare(Dir),
    Dir.

remove(Dir) -> ok = file:del_dir_r(Dir).
