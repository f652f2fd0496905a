%% Whose calls come next, and in which company: properties of any coming and taking.
-module(baguette_engine_turns_tests).

-include_lib("proper/include/proper.hrl").
-include_lib("eunit/include/eunit.hrl").

-define(TURNS, baguette_engine_turns).

properties_test_() ->
    Properties = [
        prop_all_come_out_once(), prop_batches_are_of_one_kind(), prop_an_asker_keeps_its_order(),
        prop_nobody_waits_longer_than_its_turn_and_a_batch(), prop_no_more_waits_than_may(),
        prop_who_asks_once_passes_nobody_for_ever()
    ],
    {setup, fun bound/0, fun unbound/1, [
        {timeout, 60, ?_assert(proper:quickcheck(P, [{numtests, 200}, {to_file, user}]))}
     || P <- Properties
    ]}.

bound() ->
    _ = application:load(baguette_engine),
    Default = baguette_engine_settings:get(max_asks_mib),
    ok = application:set_env(baguette_engine, max_asks_mib, 1),
    Default.

unbound(Default) ->
    ok = application:set_env(baguette_engine, max_asks_mib, Default).

%% A call is {Asker, Group, Rows, No}.
calls() ->
    ?LET(
        Drawn,
        list({range(1, 5), oneof([a, b, alone]), range(1, 6)}),
        [{A, G, R, No} || {No, {A, G, R}} <- lists:zip(lists:seq(1, length(Drawn)), Drawn)]
    ).

%% Some are taken while others still come.
steps() ->
    ?LET({Calls, Seed}, {calls(), integer()}, begin
        {Steps, _} = lists:mapfoldl(
            fun(Call, Dice0) ->
                {U, Dice} = rand:uniform_s(Dice0),
                {[{in, Call}] ++ [out || U > 0.7], Dice}
            end,
            rand:seed_s(exsss, Seed),
            Calls
        ),
        lists:append(Steps) ++ [all]
    end).

run(Steps, Most) ->
    Take = fun(Step, Acc) -> step(Step, Most, Acc) end,
    {Batches, _} = lists:foldl(Take, {[], ?TURNS:new()}, Steps),
    lists:reverse(Batches).

step({in, {Asker, Group, Rows, _} = Call}, _Most, {Batches, T}) ->
    {Batches, ?TURNS:in(Call, Asker, {Group, Rows}, Rows, T)};
step(out, Most, {Batches, T0}) ->
    case out(Most, T0) of
        {Calls, _Company, _Room, T} -> {[Calls | Batches], T};
        empty -> {Batches, T0}
    end;
step(all, Most, {Batches, T} = Acc) ->
    case ?TURNS:size(T) of
        0 -> {Batches, T};
        _ -> step(all, Most, step(out, Most, Acc))
    end.

prop_all_come_out_once() ->
    ?FORALL({Steps, Most}, {steps(), range(1, 8)}, begin
        In = [Call || {in, Call} <- Steps],
        lists:sort(In) =:= lists:sort(lists:append(run(Steps, Most)))
    end).

prop_batches_are_of_one_kind() ->
    ?FORALL({Steps, Most}, {steps(), range(1, 8)}, lists:all(
        fun(Calls) ->
            Groups = lists:usort([Group || {_, Group, _, _} <- Calls]),
            length(Calls) =:= 1 orelse
                length(Groups) =:= 1 andalso Groups =/= [alone] andalso
                    lists:sum([R || {_, _, R, _} <- Calls]) =< Most
        end,
        run(Steps, Most)
    )).

prop_an_asker_keeps_its_order() ->
    ?FORALL({Steps, Most}, {steps(), range(1, 8)}, begin
        Out = lists:append(run(Steps, Most)),
        lists:all(
            fun({Asker, Group}) ->
                Nos = [No || {A, G, _, No} <- Out, A =:= Asker, G =:= Group],
                Nos =:= lists:sort(Nos)
            end,
            [{A, G} || A <- lists:seq(1, 5), G <- [a, b, alone]]
        )
    end).

%% Of askers that always want more nobody is ever further ahead than by its own turn and a batch.
prop_nobody_waits_longer_than_its_turn_and_a_batch() ->
    ?FORALL({Sizes, Most}, {non_empty(list(range(1, 4))), range(4, 12)}, begin
        Askers = lists:zip(lists:seq(1, length(Sizes)), Sizes),
        Ask = fun({Asker, Rows}, T) -> ?TURNS:in(Asker, Asker, {a, Rows}, Rows, T) end,
        %% Nobody's are ever all taken by one batch.
        T0 = lists:foldl(Ask, ?TURNS:new(), lists:append(lists:duplicate(Most + 1, Askers))),
        {Served, _} = lists:mapfoldl(
            fun(_, T) ->
                {Out, _, _, T1} = out(Most, T),
                {Out, lists:foldl(Ask, T1, [lists:keyfind(A, 1, Askers) || A <- Out])}
            end,
            T0,
            lists:seq(1, 60)
        ),
        Given = [
            Rows * length([A || A <- lists:append(Served), A =:= Asker])
         || {Asker, Rows} <- Askers
        ],
        lists:max(Given) - lists:min(Given) =< 2 * lists:max(Sizes) + Most
    end).

%% New askers come for ever, each with one call and never seen again: one who stays has its turn.
prop_who_asks_once_passes_nobody_for_ever() ->
    ?FORALL({Own, Theirs, Most}, {range(1, 16), range(1, 16), range(1, 16)}, begin
        New = fun(T) -> ?TURNS:in(new, make_ref(), {a, Theirs}, Theirs, T) end,
        T0 = ?TURNS:in(old, old, {a, Own}, Own, New(New(?TURNS:new()))),
        ?WHENFAIL(
            io:format("after ~p~n", [turns_until_old(New, Most, T0)]),
            %% Two of them wait at any time, and each is ahead with what it asks.
            turns_until_old(New, Most, T0) =< 2 * (Own div Theirs + 1) + 1
        )
    end).

turns_until_old(New, Most, T) -> turns_until_old(New, Most, T, 1).

turns_until_old(_New, _Most, _T, 1000) ->
    never;
turns_until_old(New, Most, T0, Turn) ->
    {Calls, _, _, T} = out(Most, T0),
    case lists:member(old, Calls) of
        true -> Turn;
        false ->
            Again = lists:foldl(fun(_, Left) -> New(Left) end, T, Calls),
            turns_until_old(New, Most, Again, Turn + 1)
    end.

%% What waits weighs what its calls weigh, and is under the bound or one call alone.
prop_no_more_waits_than_may() ->
    ?FORALL({Steps, Most}, {bounded_steps(), range(1, 8)}, begin
        Looks = lists:foldl(fun(Step, Acc) -> bounded(Step, Most, Acc) end, [?TURNS:new()], Steps),
        lists:all(fun is_bounded/1, Looks)
    end).

bounded_steps() ->
    list(frequency([
        {5, {in, {range(1, 5), oneof([a, b, alone]), range(1, 6)}, kib()}},
        {1, out}, {1, {drop, range(1, 5)}}
    ])).

kib() -> frequency([{9, range(1, 300)}, {1, range(1000, 1500)}]).

%% What waits after each step, the latest first.
bounded({in, {Asker, Group, Rows}, Kib}, _Most, [Last | _] = Looks) ->
    Payload = binary:copy(<<0>>, Kib * 1024),
    case baguette_engine_room:is_there(expert, Payload, Last) of
        true ->
            Weight = baguette_engine_room:weight(Payload),
            [?TURNS:in({Asker, Weight}, Asker, {Group, Rows}, Weight, Last) | Looks];
        false ->
            Looks
    end;
bounded(out, Most, [Last | _] = Looks) ->
    case out(Most, Last) of
        {_, _, _, Left} -> [Left | Looks];
        empty -> Looks
    end;
bounded({drop, Asker}, _Most, [Last | _] = Looks) ->
    {_, Left} = ?TURNS:drop(fun({A, _}) -> A =:= Asker end, Last),
    [Left | Looks].

is_bounded(Turns) ->
    Weights = [Weight || {_, Weight} <- ?TURNS:to_list(Turns)],
    lists:sum(Weights) =:= ?TURNS:weight(Turns) andalso
        (?TURNS:weight(Turns) =< 1 bsl 20 orelse length(Weights) =:= 1).

what_is_last_is_after_all_that_waits_test() ->
    Ask = fun({Asker, Call}, T) -> ?TURNS:in(Call, Asker, {a, 1}, 1, T) end,
    T0 = lists:foldl(Ask, ?TURNS:new(), [{x, 1}, {x, 2}, {y, 3}]),
    T1 = ?TURNS:in(unload, owner, last, 1, T0),
    ?assertEqual([1, 3, 2, unload], ?TURNS:to_list(T1)),
    {[1, 3, 2], {a, 3}, 5, T2} = out(8, T1),
    {[unload], {alone, 1}, 0, T3} = out(8, T2),
    ?assertEqual(empty, out(8, T3)).

what_does_not_fit_is_not_passed_test() ->
    Ask = fun({Asker, Rows}, T) -> ?TURNS:in(Asker, Asker, {a, Rows}, Rows, T) end,
    T0 = lists:foldl(Ask, ?TURNS:new(), [{x, 1}, {y, 8}, {z, 3}, {z, 3}, {z, 3}]),
    {[x, z, z], {a, 7}, 0, T1} = out(8, T0),
    {[y], {a, 8}, 0, T2} = out(8, T1),
    ?assertMatch({[z], {a, 3}, 5, _}, out(8, T2)).

what_is_too_much_for_a_frame_does_not_go_together_test() ->
    Ask = fun({Asker, Weight}, T) -> ?TURNS:in(Asker, Asker, {a, 1}, Weight, T) end,
    T0 = lists:foldl(Ask, ?TURNS:new(), [{x, 40}, {y, 20}, {z, 10}]),
    {[x, y], {a, 2}, 0, T1} = ?TURNS:out(fun(_) -> {8, 64} end, T0),
    ?assertMatch({[z], {a, 1}, 7, _}, ?TURNS:out(fun(_) -> {8, 64} end, T1)),
    %% One alone may be as large as it is.
    Large = ?TURNS:in(x, x, {a, 1}, 100, ?TURNS:new()),
    ?assertMatch({[x], {a, 1}, _, _}, ?TURNS:out(fun(_) -> {8, 64} end, Large)).

who_may_join_comes_in_turn_and_as_far_as_there_is_room_test() ->
    Ask = fun({Asker, Group, Rows}, T) -> ?TURNS:in(Asker, Asker, {Group, Rows}, Rows, T) end,
    T0 = lists:foldl(Ask, ?TURNS:new(), [{u, a, 2}, {v, b, 3}, {x, a, 4}, {y, a, 5}]),
    ?assertEqual(none, ?TURNS:join(b, {8, 8}, T0)), % its turn comes later
    ?assertEqual(none, ?TURNS:join(a, {1, 8}, T0)),
    ?assertEqual(none, ?TURNS:join(a, {8, 1}, T0)),
    {[u, x], {a, 6}, 0, T1} = ?TURNS:join(a, {8, 8}, T0),
    ?assertEqual(none, ?TURNS:join(a, {8, 8}, T1)),
    ?assertMatch({[v], {b, 3}, 5, _}, ?TURNS:join(b, {8, 8}, T1)),
    ?assertEqual(none, ?TURNS:join(a, {8, 8}, ?TURNS:new())).

what_is_alone_is_joined_by_nobody_test() ->
    T = ?TURNS:in(x, x, {alone, 1}, 1, ?TURNS:new()),
    ?assertEqual(none, ?TURNS:join(alone, {8, 8}, T)).

what_is_dropped_does_not_come_test() ->
    T = lists:foldl(fun(No, T) -> ?TURNS:in(No, No, {a, 1}, 1, T) end, ?TURNS:new(), [1, 2, 3]),
    {[2], Left} = ?TURNS:drop(fun(No) -> No =:= 2 end, T),
    ?assertEqual([1, 3], ?TURNS:to_list(Left)),
    ?assertEqual(2, ?TURNS:size(Left)).

out(Most, T) -> ?TURNS:out(fun(_Call) -> {Most, 1 bsl 40} end, T).
