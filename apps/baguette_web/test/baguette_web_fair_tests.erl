%% Fairness, for any number of clients, jobs and cancellations.
-module(baguette_web_fair_tests).
%% PropEr first: both define LET, and EUnit leaves one that is there.
-include_lib("proper/include/proper.hrl").
-include_lib("eunit/include/eunit.hrl").

-import(baguette_web_fair, [new/0, in/3, out/1, remove/3, order/1]).

turns_are_taken_test() ->
    Waiting = [{<<"a">>, a1}, {<<"a">>, a2}, {<<"a">>, a3}, {<<"b">>, b1}, {<<"c">>, c1}],
    Fair = fill(Waiting),
    ?assertEqual([a1, b1, c1, a2, a3], order(Fair)),
    {a1, Rest} = out(Fair),
    %% Who has just been served is not served again before the others.
    ?assertEqual([b1, c1, a2, d1, a3], order(in(<<"d">>, d1, Rest))),
    ?assertEqual([b1, a2, a3], order(remove(<<"c">>, c1, Rest))),
    ?assertEqual(3, baguette_web_fair:size(<<"a">>, Fair)),
    ?assertEqual(empty, out(new())).

whoever_waits_is_served_in_turn_test_() ->
    {timeout, 60, [
        ?_assert(proper:quickcheck(Property, [{to_file, user}]))
     || Property <- [prop_everything_comes_out_once(), prop_nobody_is_served_twice_before_another()]
    ]}.

waiting() -> list({elements([<<"a">>, <<"b">>, <<"c">>]), range(1, 1000)}).

prop_everything_comes_out_once() ->
    ?FORALL({Asked, Gone}, {waiting(), waiting()}, begin
        Fair = lists:foldl(fun({C, I}, F) -> remove(C, {C, I}, F) end, fill_pairs(Asked), Gone),
        Left = [Pair || Pair <- Asked, not lists:member(Pair, Gone)],
        Out = order(Fair),
        lists:sort(Out) =:= lists:sort(Left) andalso
            baguette_web_fair:size(Fair) =:= length(Left) andalso
            [order_of(C, Out) || C <- clients()] =:= [order_of(C, Left) || C <- clients()]
    end).

%% Between two turns of one client everybody else who waits has had one.
prop_nobody_is_served_twice_before_another() ->
    ?FORALL(Asked, waiting(), is_fair([C || {C, _} <- order(fill_pairs(Asked))])).

is_fair([C | Rest]) ->
    {Between, Again} = lists:splitwith(fun(D) -> D =/= C end, Rest),
    Left = lists:usort(Rest) -- [C],
    (Again =:= [] orelse Left -- Between =:= []) andalso is_fair(Rest);
is_fair([]) ->
    true.

order_of(Client, Pairs) -> [I || {C, I} <- Pairs, C =:= Client].

clients() -> [<<"a">>, <<"b">>, <<"c">>].

fill(Waiting) -> lists:foldl(fun({C, I}, F) -> in(C, I, F) end, new(), Waiting).

fill_pairs(Asked) -> fill([{C, {C, I}} || {C, I} <- Asked]).
