%% Sentences, told by the face's own module and without one.
-module(baguette_web_teller_tests).
-include_lib("eunit/include/eunit.hrl").

-define(LATE, {late, 'baguette@127.0.0.3'}).
-define(FAILED, {device_lost, #{}}).

%% Who is slow is not gone.
with_a_teller_its_sentences_are_told_test_() ->
    {setup, fun() -> set(baguette_teller) end, fun unset/1, [
        ?_assertEqual(
            <<"expert 3: 127.0.0.3 has it and takes longer than usual">>,
            baguette_web_teller:waiting(#{expert => 3, reason => ?LATE})
        ),
        ?_assertMatch(
            <<"this node's own worker", _/binary>>,
            baguette_web_teller:waiting(#{reason => pipeline_late})
        ),
        ?_assertMatch(
            #{
                type := <<"urn:baguette:device_lost">>, status := 500,
                title := <<"Internal Server Error">>, detail := <<"A device failed", _/binary>>
            },
            baguette_web_job_problem:failure(?FAILED)
        ),
        ?_assertMatch(
            #{status := 503, detail := <<"expert 2 could not be asked: ", _/binary>>},
            baguette_web_job_problem:failure({no_holder, #{expert => 2, why => not_settled}})
        )
    ]}.

without_one_there_are_plain_ones_test_() ->
    {setup, fun() -> unset(none) end, fun unset/1, [
        ?_assertEqual([], baguette_web_teller:recent(10)),
        ?_assertEqual(
            <<"expert 3: it cannot be asked now">>,
            baguette_web_teller:waiting(#{expert => 3, reason => ?LATE})
        ),
        ?_assertMatch(
            #{detail := <<"the cluster could not draw it", _/binary>>},
            baguette_web_job_problem:failure(?FAILED)
        )
    ]}.

set(Teller) -> application:set_env(baguette_web, teller, Teller).

unset(_) -> application:unset_env(baguette_web, teller).
