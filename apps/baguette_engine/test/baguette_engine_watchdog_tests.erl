%% Who is hung and who is only slow, judged by looks and not by a clock.
-module(baguette_engine_watchdog_tests).

-include_lib("eunit/include/eunit.hrl").

-define(HUNG_MS, 3000).

no_cpu_time_in_so_many_looks_is_hung_test() ->
    ?assertEqual([alive, alive, alive, hung], verdicts([7, 7, 7, 7])).

the_least_cpu_time_is_life_test() ->
    ?assertEqual([alive, alive, alive, alive, alive, alive], verdicts([7, 7, 7, 8, 8, 8])),
    ?assertEqual([alive, alive, alive, alive, alive, hung], verdicts([7, 7, 8, 8, 8, 8])).

an_answer_is_life_though_it_took_no_tick_test() ->
    ?assertEqual(
        [alive, alive, alive, alive, alive, hung], verdicts([7, 7, 7, answered, 7, 7, 7])
    ).

who_cannot_be_looked_at_is_not_judged_test() ->
    ?assertEqual([alive || _ <- lists:seq(1, 9)], verdicts([unknown || _ <- lists:seq(1, 9)])),
    ?assertEqual([alive, alive, alive, alive, alive], verdicts([7, 7, 7, unknown, 7])).

%% This beam has used CPU time by now; nobody has the number zero.
a_process_has_used_cpu_time_test() ->
    Own = baguette_engine_watchdog:cpu(list_to_integer(os:getpid())),
    ?assert(is_integer(Own) andalso Own > 0),
    ?assertEqual(unknown, baguette_engine_watchdog:cpu(0)),
    ?assert(baguette_engine_watchdog:is_possible()).

verdicts(Looks) ->
    verdicts(Looks, baguette_engine_watchdog:new(?HUNG_MS)).

verdicts([], _Watch) ->
    [];
verdicts([answered | Looks], Watch) ->
    verdicts(Looks, baguette_engine_watchdog:answered(Watch));
verdicts([Cpu | Looks], Watch) ->
    {Verdict, Next} = baguette_engine_watchdog:seen(Cpu, Watch),
    [Verdict | verdicts(Looks, Next)].
