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

directory() ->
    Number = integer_to_list(erlang:unique_integer([positive])),
    Dir = filename:join("/tmp", "baguette_draw_" ++ os:getpid() ++ "_" ++ Number),
    ok = file:make_dir(Dir),
    Dir.
