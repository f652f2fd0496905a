%% Pictures on disk: names that are free, and a place that cannot be written.
-module(baguette_draw_tests).

-include_lib("eunit/include/eunit.hrl").

write_test_() ->
    {setup, fun directory/0, fun file:del_dir_r/1, fun(Dir) ->
        Result = #{id => <<"g1">>, images => [#{png => <<"one">>}, #{png => <<"two">>}]},
        {ok, #{images := [#{png := First}, #{png := Second}]}} = baguette_draw:write(Result, Dir),
        {ok, #{images := [#{png := Again} | _]}} = baguette_draw:write(Result, Dir),
        Unwritable = baguette_draw:write(Result, "/proc/nowhere"),
        [
            ?_assertEqual("g1_1.png", filename:basename(First)),
            ?_assertEqual({ok, <<"two">>}, file:read_file(Second)),
            ?_assertNotEqual(First, Again),
            ?_assertMatch({error, {cannot_write, #{path := _}}}, Unwritable)
        ]
    end}.

%% A name that is taken beside its place, or at it, is somebody's: neither is touched.
a_name_in_the_making_is_left_alone_test() ->
    Dir = directory(),
    Result = #{id => <<"g1">>, images => [#{png => <<"mine">>}]},
    ok = file:write_file(filename:join(Dir, "g1_1.png.new"), <<"theirs">>),
    {ok, #{images := [#{png := Path}]}} = baguette_draw:write(Result, Dir),
    ?assertEqual("g1_1_again.png", filename:basename(Path)),
    ?assertEqual(
        {ok, ["g1_1.png.new", "g1_1_again.png"]},
        case file:list_dir(Dir) of {ok, Names} -> {ok, lists:sort(Names)} end
    ),
    ok = file:del_dir_r(Dir).

%% A file system of sixteen kilobytes; there is no such test where none can be mounted.
a_full_disk_leaves_whole_pictures_only_test_() ->
    {setup, fun small_disk/0, fun unmounted/1, fun
        ({mounted, Dir}) ->
            Whole = #{png => binary:copy(<<"w">>, 4000)},
            Large = #{png => binary:copy(<<"l">>, 20000)},
            Written = baguette_draw:write(#{id => <<"g1">>, images => [Whole, Large]}, Dir),
            Path = filename:join(Dir, "g1_2.png"),
            [
                ?_assertEqual(
                    {error, {cannot_write, #{path => Path, why => enospc, id => <<"g1">>}}}, Written
                ),
                ?_assertEqual({ok, ["g1_1.png"]}, file:list_dir(Dir)),
                ?_assertEqual(4000, filelib:file_size(filename:join(Dir, "g1_1.png")))
            ];
        ({not_mounted, _}) ->
            []
    end}.

small_disk() ->
    Dir = directory(),
    Mounted = os:cmd("mount -t tmpfs -o size=16k baguette_test " ++ Dir ++ " && echo mounted"),
    case Mounted of
        "mounted\n" -> {mounted, Dir};
        _ -> {not_mounted, Dir}
    end.

unmounted({mounted, Dir}) ->
    [] = os:cmd("umount " ++ Dir),
    ok = file:del_dir(Dir);
unmounted({not_mounted, Dir}) ->
    ok = file:del_dir(Dir).

directory() ->
    Number = integer_to_list(erlang:unique_integer([positive])),
    Dir = filename:join("/tmp", "baguette_draw_" ++ os:getpid() ++ "_" ++ Number),
    ok = file:make_dir(Dir),
    Dir.
