%% Which events make a generation's story: causes beside effects, nobody else's business.
-module(baguette_history_tests).

-include_lib("eunit/include/eunit.hrl").

-define(HERE, 'baguette@127.0.0.2').
-define(THERE, 'baguette@127.0.0.3').

causes_stand_beside_effects_test() ->
    Here = [
        event(1, generation_began, #{generation => <<"me">>}),
        event(2, generation_began, #{generation => <<"other">>}),
        event(4, link, #{room => cluster}),
        event(5, failover, #{generation => <<"me">>}),
        event(9, generation_done, #{generation => <<"me">>})
    ],
    There = [
        event(3, worker_died, #{}),
        event(4, link, #{room => cluster}),
        event(6, holding, #{room => cluster}),
        event(7, call_failed, #{generation => <<"other">>})
    ],
    ?assertEqual(
        [
            {?HERE, generation_began},
            {?THERE, worker_died},
            {?HERE, link},
            {?HERE, failover},
            {?THERE, holding},
            {?HERE, generation_done}
        ],
        [
            {Node, What}
         || {Node, #{what := What}} <- baguette_history:story(
                <<"me">>, [?HERE], [{?HERE, Here}, {?THERE, There}]
            )
        ]
    ).

event(At, What, More) ->
    maps:merge(#{at_us => At, level => info, what => What, room => engine, facts => #{}}, More).
