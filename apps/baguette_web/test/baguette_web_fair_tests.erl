%% Fairness by work, for any number of clients, jobs and cancellations.
-module(baguette_web_fair_tests).
%% PropEr first: both define LET, and EUnit leaves one that is there.
-include_lib("proper/include/proper.hrl").
-include_lib("eunit/include/eunit.hrl").

-import(baguette_web_fair, [new/0, in/4, out/1, remove/3, order/1]).

-define(MAX_WORK, 4000).

turns_are_taken_test() ->
    Fair = fill([{<<"a">>, a1}, {<<"a">>, a2}, {<<"a">>, a3}, {<<"b">>, b1}, {<<"c">>, c1}]),
    ?assertEqual([a1, b1, c1, a2, a3], order(Fair)),
    {a1, 1, Rest} = out(Fair),
    %% Who comes now is before who has begun one, and behind those who wait for their first.
    ?assertEqual([b1, c1, d1, a2, a3], order(in(<<"d">>, d1, 1, Rest))),
    ?assertEqual([b1, a2, a3], order(remove(<<"c">>, c1, Rest))),
    ?assertEqual(3, baguette_web_fair:size(<<"a">>, Fair)),
    ?assertEqual(5, baguette_web_fair:work(Fair)),
    ?assertEqual(empty, out(new())).

%% Sixteen images of 250 steps are as much as two thousand of one image and two steps.
large_jobs_count_as_much_as_they_are_test() ->
    Large = [{<<"large">>, {large, N}, 4000} || N <- [1, 2]],
    Small = [{<<"small">>, {small, N}, 2} || N <- lists:seq(1, 2500)],
    [{large, 1} | Order] = order(fill(Large ++ Small)),
    {Before, [{large, 2} | _]} = lists:splitwith(fun({Whose, _}) -> Whose =:= small end, Order),
    ?assertEqual(2000, length(Before)).

%% Otherwise who asks for one job at a time would get one for each of the others', however large.
who_goes_and_comes_again_is_still_ahead_test() ->
    {first, 4000, Begun} = out(fill([{<<"comes">>, first, 4000}])),
    Steady = fill([{<<"steady">>, N, 2} || N <- lists:seq(1, 3000)], Begun),
    Order = order(in(<<"comes">>, again, 4000, Steady)),
    {Before, [again | _]} = lists:splitwith(fun erlang:is_integer/1, Order),
    ?assertEqual(2000, length(Before)).

many_clients_leave_little_test() ->
    Crowd = [{integer_to_binary(N), N, 2} || N <- lists:seq(1, 1000)],
    Served = lists:foldl(
        fun(_, F) -> {_, _, Rest} = out(F), Rest end, fill(Crowd), Crowd
    ),
    Later = fill([{<<"later">>, N, 1} || N <- lists:seq(1, 4)], Served),
    ?assertEqual(1001, baguette_web_fair:clients(Later)),
    {_, _, Once} = out(Later),
    {_, _, Twice} = out(Once),
    {_, _, Thrice} = out(Twice),
    ?assertEqual(1, baguette_web_fair:clients(Thrice)).

whoever_waits_is_served_in_turn_test_() ->
    {timeout, 60, [
        ?_assert(proper:quickcheck(Property, [{to_file, user}, {numtests, 300}]))
     || Property <- [
            prop_everything_comes_out_once(), prop_nobody_gets_more_than_a_job_ahead(),
            prop_nobody_starves()
        ]
    ]}.

prop_everything_comes_out_once() ->
    ?FORALL({Asked, Gone}, {waiting(), list({client(), range(1, 60)})}, begin
        Numbered = numbered(Asked),
        Fair = lists:foldl(fun({C, I}, F) -> remove(C, I, F) end, fill(Numbered), Gone),
        Left = [{C, I} || {C, I, _} <- Numbered, not lists:member({C, I}, Gone)],
        Whose = maps:from_list([{I, C} || {C, I, _} <- Numbered]),
        Out = [{maps:get(I, Whose), I} || I <- order(Fair)],
        lists:sort(Out) =:= lists:sort(Left) andalso
            baguette_web_fair:size(Fair) =:= length(Left) andalso
            baguette_web_fair:work(Fair) =:=
                lists:sum([W || {C, I, W} <- Numbered, lists:member({C, I}, Left)]) andalso
            [order_of(C, Out) || C <- clients()] =:= [order_of(C, Left) || C <- clients()]
    end).

%% Whatever comes, begins and goes: while a client waits, no other one begins more than it by more
%% than one job of that other one. What it began itself just before it came to wait counts.
prop_nobody_gets_more_than_a_job_ahead() ->
    ?FORALL(Moves, list(move()), begin
        {_, _, _, Waits} = played(Moves),
        ?WHENFAIL(io:format("~p~n", [Waits]), lists:all(fun is_fair/1, Waits))
    end).

is_fair({Client, Begun}) ->
    {Own, _} = maps:get(Client, Begun, {0, 0}),
    lists:all(fun({Sum, Largest}) -> Sum - Own =< Largest end, maps:values(Begun)).

%% Before one that comes, each that waits already begins one job at most.
prop_nobody_starves() ->
    ?FORALL({Moves, Work}, {list(move()), work()}, begin
        {Fair, Items, _, _} = played(Moves),
        Before = before(last, in(<<"last">>, last, Work, Fair)),
        length(Before) =:= length(lists:usort([C || {C, _} <- Before])) andalso
            Before -- Items =:= []
    end).

before(Item, Fair) ->
    case out(Fair) of
        {Item, _, _} -> [];
        {Other, _, Rest} -> [Other | before(Item, Rest)]
    end.

move() -> frequency([{3, {in, client(), work()}}, {2, out}, {1, {remove, client()}}]).

%% What is in the queue after these moves, what waits, what each client began last, and of each time
%% that a client waited what everybody began meanwhile: the sum, and the largest of it.
played(Moves) ->
    {Fair, Items, Last, Now, Over} = lists:foldl(fun play/2, {new(), [], #{}, #{}, []}, Moves),
    {Fair, Items, Last, maps:to_list(Now) ++ Over}.

play({in, Client, Work}, {Fair, Items, Last, Waits, Over}) ->
    Item = {Client, make_ref()},
    Own = maps:get(Client, Last, 0),
    Begun = maps:get(Client, Waits, #{Client => {Own, Own}}),
    {in(Client, Item, Work, Fair), Items ++ [Item], Last, Waits#{Client => Begun}, Over};
play({remove, Client}, {Fair, Items, Last, Waits, Over}) ->
    case lists:keyfind(Client, 1, Items) of
        false -> {Fair, Items, Last, Waits, Over};
        Item -> settled(remove(Client, Item, Fair), lists:delete(Item, Items), Last, Waits, Over)
    end;
play(out, {Fair, Items, Last, Waits, Over}) ->
    case out(Fair) of
        empty ->
            {Fair, Items, Last, Waits, Over};
        {{Client, _} = Item, Work, Rest} ->
            Counted = maps:map(
                fun(_, Begun) ->
                    {Sum, Largest} = maps:get(Client, Begun, {0, 0}),
                    Begun#{Client => {Sum + Work, max(Largest, Work)}}
                end,
                Waits
            ),
            settled(Rest, lists:delete(Item, Items), Last#{Client => Work}, Counted, Over)
    end.

settled(Fair, Items, Last, Waits, Over) ->
    Done = [C || C <- maps:keys(Waits), baguette_web_fair:size(C, Fair) =:= 0],
    Ended = maps:to_list(maps:with(Done, Waits)),
    {Fair, Items, Last, maps:without(Done, Waits), Ended ++ Over}.

waiting() -> list({client(), work()}).
client() -> elements(clients()).
clients() -> [<<"a">>, <<"b">>, <<"c">>].
work() -> oneof([range(1, 4), range(1, ?MAX_WORK)]).

numbered(Asked) -> [{C, I, W} || {I, {C, W}} <- lists:enumerate(Asked)].

order_of(Client, Pairs) -> [I || {C, I} <- Pairs, C =:= Client].

fill(Waiting) -> fill(Waiting, new()).

fill(Waiting, Fair) ->
    lists:foldl(
        fun
            ({C, I, W}, F) -> in(C, I, W, F);
            ({C, I}, F) -> in(C, I, 1, F)
        end,
        Fair,
        Waiting
    ).
