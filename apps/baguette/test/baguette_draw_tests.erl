%% A generation followed to its end, with an engine that does what the test says.
-module(baguette_draw_tests).

-include_lib("eunit/include/eunit.hrl").

draw_test_() ->
    {foreach,
        fun() ->
            Dir = filename:join(["/tmp", "baguette_draw_" ++ os:getpid() ++ unique()]),
            meck:new(baguette_engine, [non_strict]),
            meck:expect(baguette_engine, generate, fun(_) -> {ok, <<"g1">>} end),
            meck:expect(baguette_engine, cancel, fun(_) -> ok end),
            Dir
        end,
        fun(Dir) ->
            meck:unload(baguette_engine),
            ok = file_del(Dir)
        end,
        [
            fun events_reach_the_observer_and_the_result_the_caller/1,
            fun a_refusal_is_passed_on/1,
            fun a_generation_that_crashes_is_an_error/1,
            fun a_relay_cancels_when_its_control_node_is_gone/1,
            fun pictures_get_names_that_are_free/1
        ]}.

events_reach_the_observer_and_the_result_the_caller(_Dir) ->
    Self = self(),
    meck:expect(baguette_engine, watch, fun(Id) ->
        self() ! {baguette_engine, Id, {step, #{step => 1}}},
        self() ! {baguette_engine, Id, {done, #{}}},
        ok
    end),
    meck:expect(baguette_engine, await, fun(_, infinity) -> wait_for(finish, {ok, #{id => g}}) end),
    Observe = fun
        ({step, _} = Event) ->
            Self ! Event,
            finisher() ! finish;
        (_) ->
            ok
    end,
    Outcome = baguette_draw:run(#{}, Observe),
    Seen = receive {step, #{step := Step}} -> Step after 0 -> none end,
    ?_assertEqual({{ok, #{id => g}}, 1}, {Outcome, Seen}).

a_refusal_is_passed_on(_Dir) ->
    Refusal = {error, {bad_request, steps, 0, <<"1..250">>}},
    meck:expect(baguette_engine, generate, fun(_) -> Refusal end),
    ?_assertEqual(Refusal, baguette_draw:run(#{}, fun(_) -> ok end)).

a_generation_that_crashes_is_an_error(_Dir) ->
    meck:expect(baguette_engine, watch, fun(_) -> ok end),
    meck:expect(baguette_engine, await, fun(_, infinity) -> exit(crashed) end),
    ?_assertMatch(
        {error, {generation_lost, #{why := _}}}, baguette_draw:run(#{}, fun(_) -> ok end)
    ).

a_relay_cancels_when_its_control_node_is_gone(_Dir) ->
    Self = self(),
    meck:expect(baguette_engine, watch, fun(_) -> ok end),
    meck:expect(baguette_engine, await, fun(_, infinity) -> wait_for(never, ok) end),
    meck:expect(baguette_engine, cancel, fun(Id) -> Self ! {cancelled, Id}, ok end),
    Control = spawn(fun() -> receive stop -> ok end end),
    {Relay, Monitor} = spawn_monitor(baguette_draw, relay, [Control, make_ref(), #{}, true]),
    Control ! stop,
    Cancelled = receive {cancelled, Id} -> Id end,
    Ended = receive {'DOWN', Monitor, process, Relay, Why} -> Why end,
    ?_assertEqual({<<"g1">>, normal}, {Cancelled, Ended}).

pictures_get_names_that_are_free(Dir) ->
    Result = #{id => <<"g1">>, images => [#{png => <<"one">>}, #{png => <<"two">>}]},
    {ok, #{images := [#{png := First}, #{png := Second}]}} = baguette_draw:write(Result, Dir),
    {ok, #{images := [#{png := Again} | _]}} = baguette_draw:write(Result, Dir),
    Unwritable = baguette_draw:write(Result, "/proc/nowhere"),
    [
        ?_assertEqual("g1_1.png", filename:basename(First)),
        ?_assertEqual({ok, <<"two">>}, file:read_file(Second)),
        ?_assertNotEqual(First, Again),
        ?_assertMatch({error, {cannot_write, #{path := _}}}, Unwritable)
    ].

%% --- doubles

%% The waiter that run/2 started: the one process that waits for `finish'.
finisher() ->
    case [P || P <- processes(), {current_function, F} <- info(P), F =:= {?MODULE, wait_for, 2}] of
        [Waiter | _] -> Waiter;
        [] -> finisher()
    end.

info(Pid) ->
    case process_info(Pid, current_function) of
        undefined -> [];
        Info -> [Info]
    end.

wait_for(Message, Value) ->
    receive
        Message -> Value
    end.

unique() ->
    integer_to_list(erlang:unique_integer([positive])).

file_del(Dir) ->
    case file:del_dir_r(Dir) of
        ok -> ok;
        {error, enoent} -> ok
    end.
