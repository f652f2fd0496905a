%% @doc A generation followed to its end by the face, on a real engine.
-module(baguette_draw_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([
    events_reach_the_observer_and_the_result_the_caller/1,
    a_refusal_is_passed_on/1,
    a_generation_that_crashes_is_an_error/1,
    a_relay_tells_its_control_node/1,
    a_relay_that_is_not_watched_tells_begin_and_end/1,
    a_relay_cancels_when_its_control_node_is_gone/1,
    the_shell_gets_what_fits_a_screen_and_the_rest_when_asked/1,
    a_full_disk_loses_no_picture/1
]).

-define(REQUEST, #{prompt => <<"any words at all">>, steps => 6}).
-define(LONG, #{prompt => <<"any words at all">>, steps => 250, n => 16}).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [
        events_reach_the_observer_and_the_result_the_caller,
        a_refusal_is_passed_on,
        a_generation_that_crashes_is_an_error,
        a_relay_tells_its_control_node,
        a_relay_that_is_not_watched_tells_begin_and_end,
        a_relay_cancels_when_its_control_node_is_gone,
        the_shell_gets_what_fits_a_screen_and_the_rest_when_asked,
        a_full_disk_loses_no_picture
    ].

init_per_suite(Config) ->
    ok = baguette_engine_fixture:start(proplists:get_value(priv_dir, Config)),
    Config.

end_per_suite(_Config) ->
    baguette_engine_fixture:stop().

%% Cases ----------------------------------------------------------------------------------------

events_reach_the_observer_and_the_result_the_caller(_Config) ->
    Self = self(),
    {ok, #{id := Id}} = baguette_draw:run(?REQUEST, fun(Event) -> Self ! {seen, Event} end),
    Seen = seen(),
    ?assertMatch([{accepted, #{id := Id}} | _], Seen),
    ?assertEqual([1, 2, 3, 4, 5, 6], [Step || {step, #{step := Step}} <- Seen]),
    ?assertEqual([], [E || {Kind, _} = E <- Seen, Kind =:= done]),
    ?assertEqual([], mailbox()).

a_refusal_is_passed_on(_Config) ->
    Refusal = {error, {bad_request, steps, 0, <<"1..250">>}},
    ?assertEqual(Refusal, baguette_draw:run((?REQUEST)#{steps => 0}, fun(_) -> ok end)).

a_generation_that_crashes_is_an_error(_Config) ->
    Kill = fun
        ({step, _}) -> [exit(Pid, kill) || {_, Pid, _} <- baguette_engine_admission:list()];
        (_) -> ok
    end,
    ?assertMatch({error, {generation_lost, _}}, baguette_draw:run(?LONG, Kill)).

a_relay_tells_its_control_node(_Config) ->
    Told = relayed(?REQUEST, true),
    ?assertMatch([{accepted, _} | _], Told),
    ?assertMatch({finished, {ok, #{images := [_]}}}, lists:last(Told)),
    ?assertEqual(6, length([Step || {step, Step} <- Told])).

a_relay_that_is_not_watched_tells_begin_and_end(_Config) ->
    ?assertMatch([{accepted, _}, {finished, {ok, _}}], relayed(?REQUEST, false)).

a_relay_cancels_when_its_control_node_is_gone(_Config) ->
    Control = spawn(fun() -> receive {baguette_draw, _, {step, _}} -> gone end end),
    Args = [Control, make_ref(), ?LONG, true],
    {Relay, Monitor} = spawn_monitor(baguette_draw, relay, Args),
    ?assertEqual(normal, receive {'DOWN', Monitor, process, Relay, Why} -> Why end),
    [#{state := State} | _] = baguette_engine:generations(),
    ?assertEqual(cancelled, State).

the_shell_gets_what_fits_a_screen_and_the_rest_when_asked(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), "pictures"),
    {ok, Shown} = baguette:generate("any words at all", #{steps => 2, out_dir => Dir}),
    #{id := Id, images := [#{png := Path, pixels_sha256 := Pixels}]} = Shown,
    ?assertMatch({ok, <<137, "PNG", _/binary>>}, file:read_file(Path)),
    ?assertNot(is_map_key(routing, Shown)),
    {ok, Whole} = baguette:result(Id),
    ?assertMatch(#{images := [#{pixels_sha256 := Pixels}], routing := [[_, _]]}, Whole),
    ?assertMatch({error, {unknown_generation, _}}, baguette:result(<<"nobody">>)).

%% On a file system that is full.
a_full_disk_loses_no_picture(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), "full"),
    ok = file:make_dir(Dir),
    case os:cmd("mount -t tmpfs -o size=4k baguette_test " ++ Dir ++ " && echo mounted") of
        "mounted\n" ->
            try full_disk(Dir)
            after [] = os:cmd("umount " ++ Dir)
            end;
        Why ->
            {skip, Why}
    end.

full_disk(Dir) ->
    ok = file:write_file(filename:join(Dir, "filler"), binary:copy(<<0>>, 4096)),
    {error, {cannot_write, #{why := enospc, id := Id}}} =
        baguette:generate("any words at all", #{steps => 2, out_dir => Dir}),
    ?assertEqual({ok, ["filler"]}, file:list_dir(Dir)),
    {ok, #{images := [#{png := Png}]}} = baguette:result(Id),
    ?assertMatch(<<137, "PNG", _/binary>>, Png).

%% Helpers --------------------------------------------------------------------------------------

relayed(Request, Watch) ->
    Ref = make_ref(),
    _ = spawn_link(baguette_draw, relay, [self(), Ref, Request, Watch]),
    told(Ref).

told(Ref) ->
    receive
        {baguette_draw, Ref, {finished, _} = Last} -> [Last];
        {baguette_draw, Ref, Event} -> [Event | told(Ref)]
    end.

seen() ->
    receive {seen, Event} -> [Event | seen()]
    after 0 -> []
    end.

mailbox() ->
    receive Message -> [Message | mailbox()]
    after 0 -> []
    end.
