%% The handler in a real logger: it keeps the last events, whoever logs, and never more.
-module(baguette_events_tests).

-include_lib("eunit/include/eunit.hrl").
-include_lib("kernel/include/logger.hrl").

-define(META, #{domain => [baguette, engine]}).

handler_test_() ->
    {foreach, fun add/0, fun remove/1, [
        fun what_is_logged_is_kept_in_order/0,
        fun what_a_dead_process_logged_stays/0,
        fun only_the_last_are_kept/0,
        {timeout, 30, fun many_at_once_lose_nothing/0},
        fun a_generation_is_found_by_its_first_letters/0,
        fun anything_may_be_logged/0
    ]}.

add() ->
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, info),
    ok = logger:set_handler_config(default, level, none),
    ok = logger:add_handler(baguette_events, baguette_events, #{}),
    Level.

remove(Level) ->
    ok = logger:remove_handler(baguette_events),
    ok = logger:set_handler_config(default, level, all),
    ok = logger:set_primary_config(level, Level),
    ?assertEqual([], baguette_events:lately()).

what_is_logged_is_kept_in_order() ->
    ?LOG_INFO(#{what => first}, ?META),
    ?LOG_DEBUG(#{what => not_this}, ?META),
    ?LOG_WARNING(#{what => second, n => 2}, ?META#{generation => <<"ab">>}),
    ?assertMatch(
        [
            #{what := first, level := info, room := engine},
            #{what := second, level := warning, generation := <<"ab">>, facts := #{n := 2}}
        ],
        baguette_events:lately()
    ).

what_a_dead_process_logged_stays() ->
    in_process(fun() -> ?LOG_INFO(#{what => last_words}, ?META) end),
    ?assertMatch([#{what := last_words}], baguette_events:lately()).

only_the_last_are_kept() ->
    [?LOG_INFO(#{what => counted, n => N}, ?META) || N <- lists:seq(1, 2500)],
    Kept = [N || #{facts := #{n := N}} <- baguette_events:lately()],
    ?assertEqual(lists:seq(501, 2500), Kept).

many_at_once_lose_nothing() ->
    Log = fun() -> [?LOG_INFO(#{what => counted}, ?META) || _ <- lists:seq(1, 100)] end,
    Monitors = [element(2, spawn_monitor(Log)) || _ <- lists:seq(1, 15)],
    [receive {'DOWN', M, process, _, Why} -> ?assertEqual(normal, Why) end || M <- Monitors],
    ?assertEqual(1500, length(baguette_events:lately())).

a_generation_is_found_by_its_first_letters() ->
    Ids = [<<"ab1">>, <<"ac1">>, <<"ab1">>],
    [?LOG_INFO(#{what => told}, ?META#{generation => Id}) || Id <- Ids],
    [#{at_us := From}, _, #{at_us := To}] = baguette_events:lately(),
    ?assertEqual(
        [#{generation => <<"ab1">>, from_us => From, to_us => To}], baguette_events:spans(<<"ab">>)
    ),
    ?assertMatch([_, _], baguette_events:spans(<<"a">>)),
    ?assertEqual([], baguette_events:spans(<<"ab12">>)),
    ?assertMatch([_, _, _], baguette_events:between(From, To)),
    ?assertEqual([], baguette_events:between(To + 1, To + 2)).

anything_may_be_logged() ->
    Entry = #{level => info, msg => {report, #{label => [a | b], report => c}}, meta => #{}},
    ?assertEqual(ok, baguette_events:log(Entry, #{})),
    ?assertEqual(ok, baguette_events:log(Entry#{msg := {"~s", improper}}, #{})),
    ?LOG_INFO(#{what => after_that}, ?META),
    ?assertMatch(#{what := after_that}, lists:last(baguette_events:lately())).

in_process(Fun) ->
    {_, Monitor} = spawn_monitor(Fun),
    receive {'DOWN', Monitor, process, _, _} -> ok end.
