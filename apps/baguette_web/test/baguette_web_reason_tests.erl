%% What people read when something is not as it should be.
-module(baguette_web_reason_tests).
-include_lib("eunit/include/eunit.hrl").

-define(PEER, 'baguette@127.0.0.9').

who_was_met_is_not_called_never_met_test_() ->
    [
        ?_assertMatch({match, _}, re:run(said(Name), Words))
     || {Name, Words} <- [
            {peers_never_met, "^not met since this node was started: 127.0.0.9; "},
            {peers_gone, "^not heard of any more: 127.0.0.9; "},
            {peers_left, "^left the cluster: 127.0.0.9; "}
        ]
    ].

said(Name) ->
    [#{name := Name, detail := Detail}] =
        baguette_web_reason:cluster({degraded, [{Name, [?PEER]}]}),
    Detail.

%% Facts of a version that knows more are told as they are.
an_unknown_fact_is_told_test() ->
    ?assertMatch(
        [#{name := odd, detail := <<"odd: [1]">>}],
        baguette_web_reason:cluster({degraded, [{odd, [1]}]})
    ).

what_the_engine_lacks_is_told_test() ->
    Why = fun(3) -> not_settled end,
    ?assertMatch(
        [#{name := no_holder, expert := 3}, #{name := not_ready}, #{name := other}],
        baguette_web_reason:engine(
            {degraded, [{no_holder, 3}, {not_ready, #{}}, {other, #{a => 1}}]}, Why
        )
    ).
