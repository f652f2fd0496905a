%% What a watcher who was cut off is told, for any ring and any place he was cut off at.
-module(baguette_web_ring_tests).
%% PropEr first: both define LET, and EUnit leaves one that is there.
-include_lib("proper/include/proper.hrl").
-include_lib("eunit/include/eunit.hrl").

%% A watcher who has seen everything up to N and then gets since(N) knows of every event but the
%% previews a later one replaced; or he is told that he cannot.
nothing_is_missed_unsaid_test_() ->
    {timeout, 60, ?_assert(proper:quickcheck(prop_nothing_is_missed_unsaid(), [{to_file, user}]))}.

prop_nothing_is_missed_unsaid() ->
    Kind = oneof([other, {preview, range(0, 2)}]),
    ?FORALL({Size, Before, Kinds, N}, {range(1, 8), range(0, 20), list(Kind), range(-2, 60)}, begin
        {Events, Ring} = lists:mapfoldl(
            fun(K, R) -> baguette_web_ring:add(K, {<<"name">>, K}, R) end,
            baguette_web_ring:new(Size, Before),
            Kinds
        ),
        Last = baguette_web_ring:last(Ring),
        case baguette_web_ring:since(N, Ring) of
            {ok, Told} ->
                Missed = [E || {M, _, _} = E <- Events, M > N],
                Last =:= Before + length(Kinds) andalso N =< Last andalso N >= Before andalso
                    Told -- Missed =:= [] andalso
                    lists:all(fun(E) -> is_replaced(E, Told) end, Missed -- Told) andalso
                    length(Told) =< Size;
            resync ->
                %% Said only to who cannot be helped.
                N > Last orelse N < Before orelse Last - N > Size
        end
    end).

is_replaced({N, _, {preview, _} = Kind}, Told) ->
    lists:any(fun({M, _, K}) -> K =:= Kind andalso M > N end, Told);
is_replaced(_, _) ->
    false.

many_previews_are_as_many_as_there_are_images_test() ->
    Ring = lists:foldl(
        fun(I, R) ->
            {_, Added} = baguette_web_ring:add({preview, I rem 3}, {<<"preview">>, I}, R),
            Added
        end,
        baguette_web_ring:new(256, 0),
        lists:seq(1, 1000)
    ),
    ?assertEqual({ok, [{N, <<"preview">>, N} || N <- [998, 999, 1000]]},
        baguette_web_ring:since(0, Ring)).
