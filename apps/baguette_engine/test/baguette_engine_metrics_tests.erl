%% What is counted and timed: a table as baguette_engine_sup makes it, and no process.
-module(baguette_engine_metrics_tests).

-include_lib("eunit/include/eunit.hrl").

-define(EXPERTS, [<<"m/expert-0">>, <<"m/expert-1">>]).

metrics_test_() ->
    {foreach,
        fun() ->
            ok = baguette_engine_metrics:table(),
            baguette_engine_model:put(#{experts => ?EXPERTS})
        end,
        fun(_) ->
            true = ets:delete(baguette_engine_metrics),
            baguette_engine_model:forget()
        end,
        [
            fun nothing_happened_yet/0,
            fun what_happens_is_counted_by_its_labels/0,
            fun buckets_are_cumulative_and_in_seconds/0,
            fun a_call_is_named_by_expert_and_address/0,
            fun what_a_part_takes_is_of_late_and_of_those_that_hardly_waited/0,
            fun calls_of_a_model_that_is_no_more_are_not_shown/0,
            fun many_writers_lose_nothing/0
        ]}.

nothing_happened_yet() ->
    ?assertEqual([], baguette_engine_metrics:calls()),
    ?assertEqual(undefined, baguette_engine_metrics:unhindered_us(decode)),
    ?assertEqual([{[], 0}], samples(hedges_total)),
    ?assertEqual([], samples(step_seconds)),
    [
        ?assertMatch(#{name := _, type := _, help := <<_, _/binary>>, samples := _}, Metric)
     || Metric <- baguette_engine_metrics:all()
    ].

what_happens_is_counted_by_its_labels() ->
    ok = baguette_engine_metrics:count(worker_deaths_total, expert),
    ok = baguette_engine_metrics:count(worker_deaths_total, expert),
    ok = baguette_engine_metrics:count(worker_deaths_total, pipeline),
    ?assertEqual(
        [{[{<<"kind">>, <<"expert">>}], 2}, {[{<<"kind">>, <<"pipeline">>}], 1}],
        samples(worker_deaths_total)
    ),
    ok = baguette_engine_metrics:set(generations_waiting, 3),
    ?assertEqual([{[], 3}], samples(generations_waiting)).

buckets_are_cumulative_and_in_seconds() ->
    [ok = baguette_engine_metrics:took(step, Us) || Us <- [900, 1000, 30000, 70000000]],
    [{[], #{buckets := Buckets, sum := Sum, count := 4}}] = samples(step_seconds),
    ?assertEqual(70.0319, Sum),
    ?assertEqual(
        [{0.001, 2}, {0.025, 2}, {0.05, 3}, {60.0, 3}, {infinity, 4}],
        [B || {Bound, _} = B <- Buckets, lists:member(Bound, [0.001, 0.025, 0.05, 60.0, infinity])]
    ),
    ok = baguette_engine_metrics:observe(batch_rows, none, 3),
    [{[], #{buckets := [{1.0, 0}, {2.0, 0}, {4.0, 1} | _], sum := 3.0}}] = samples(batch_rows).

a_call_is_named_by_expert_and_address() ->
    Node = 'baguette@127.0.0.9',
    [ok = baguette_engine_metrics:called(<<"m/expert-1">>, Node, Ms * 1000)
     || Ms <- lists:seq(1, 20)],
    ?assertEqual(
        [#{expert => 1, node => Node, count => 20, p50_ms => 10.0, p95_ms => 19.0}],
        baguette_engine_metrics:calls()
    ),
    ?assertMatch(
        [{[{<<"expert">>, <<"1">>}, {<<"node">>, <<"127.0.0.9">>}], #{count := 20}}],
        samples(expert_call_seconds)
    ).

what_a_part_takes_is_of_late_and_of_those_that_hardly_waited() ->
    Take = fun(Us) -> baguette_engine_metrics:took(decode, Us) end,
    lists:foreach(Take, lists:duplicate(1000, 5)),
    ?assertEqual(5, baguette_engine_metrics:unhindered_us(decode)),
    lists:foreach(Take, lists:append(lists:duplicate(16, [7, 90, 30, 70]))),
    ?assertEqual(7, baguette_engine_metrics:unhindered_us(decode)).

calls_of_a_model_that_is_no_more_are_not_shown() ->
    ok = baguette_engine_metrics:called(<<"other/expert-0">>, node(), 10),
    ?assertEqual([], baguette_engine_metrics:calls()),
    ?assertEqual([], samples(expert_call_seconds)).

many_writers_lose_nothing() ->
    Each = fun() ->
        [ok = baguette_engine_metrics:called(<<"m/expert-0">>, node(), N) || N <- lists:seq(1, 500)]
    end,
    Writers = [spawn_monitor(Each) || _ <- lists:seq(1, 8)],
    [receive {'DOWN', Ref, process, _, normal} -> ok end || {_, Ref} <- Writers],
    ?assertMatch([#{count := 4000}], baguette_engine_metrics:calls()).

samples(Name) ->
    [Samples] = [
        S || #{name := N, samples := S} <- baguette_engine_metrics:all(), N =:= atom_to_binary(Name)
    ],
    Samples.
