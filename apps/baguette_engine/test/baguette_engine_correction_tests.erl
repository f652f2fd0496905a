%% How many times what was counted pictures take: properties of what is learnt of any pictures.
-module(baguette_engine_correction_tests).

-include_lib("proper/include/proper.hrl").
-include_lib("eunit/include/eunit.hrl").

-import(baguette_engine_correction, [keys/2, unknown/0, faded/3, factor/1, learnt/2]).

-define(DAY_US, 86400000000).

properties_test_() ->
    [
        {atom_to_list(Name), {timeout, 60, ?_assert(
            proper:quickcheck(Property, [quiet, {numtests, 200}])
        )}}
     || {Name, Property} <- [
            {what_is_always_so_is_foretold, prop_what_is_always_so_is_foretold()},
            {one_picture_moves_towards_it, prop_one_picture_moves_towards_it()},
            {no_single_picture_counts_for_more, prop_no_single_picture_counts_for_more()},
            {what_is_old_is_forgotten, prop_what_is_old_is_forgotten()}
        ]
    ].

without_evidence_it_is_as_counted_test() ->
    ?assertEqual(1.0, foretold(keys(shape(1, 2, true), 1), #{})).

load_and_shape_are_learnt_apart_test() ->
    Times = #{{1, 1} => 1.0, {4, 1} => 2.0, {1, 4} => 0.5},
    Learnt = lists:foldl(
        fun(_, Before) ->
            maps:fold(
                fun({Load, N}, Ratio, Sofar) -> drawn(Ratio, of_kind(Load, N), Sofar) end,
                Before,
                Times
            )
        end,
        #{},
        lists:seq(1, 30)
    ),
    %% Four images while four are drawn were never seen: both are known all the same.
    Never = foretold(of_kind(4, 4), Learnt),
    ?assert(abs(Never - 1.0) < 0.15, Never).

those_that_share_batches_are_of_another_kind_test() ->
    Together = keys(shape(1, 2, false), 4),
    Alone = keys(shape(1, 2, true), 4),
    ?assertEqual([{load, 4}, lately], [Key || Key <- Together, lists:member(Key, Alone)]),
    Reusing = keys((shape(1, 2, false))#{cache => 0.3}, 4),
    ?assertEqual([{load, 4}, lately], [Key || Key <- Reusing, lists:member(Key, Together)]).

there_are_few_terms_test() ->
    All = [
        keys(Shape#{cache => Cache}, AtOnce)
     || N <- lists:seq(1, 16), K <- [full | lists:seq(1, 64)],
        {Alone, Cache} <- [{true, 0.0}, {false, 0.0}, {false, 0.3}],
        Shape <- [shape(N, K, Alone)],
        AtOnce <- [1, 2, 3, 4, 64, 1000]
    ],
    ?assert(length(lists:usort(lists:append(All))) < 220).

%% Properties -----------------------------------------------------------------------------------

prop_what_is_always_so_is_foretold() ->
    ?FORALL({Kind, Ratio}, {kind(), ratio()}, begin
        Learnt = lists:foldl(fun(_, Sofar) -> drawn(Ratio, Kind, Sofar) end, #{}, lists:seq(1, 12)),
        Foretold = foretold(Kind, Learnt),
        ?WHENFAIL(io:format("~p: ~p~n", [Ratio, Foretold]), abs(Foretold / Ratio - 1) < 0.05)
    end).

prop_one_picture_moves_towards_it() ->
    ?FORALL({Pictures, Kind, Ratio}, {list({kind(), ratio()}), kind(), ratio()}, begin
        Before = story(Pictures),
        Was = foretold(Kind, Before),
        Is = foretold(Kind, drawn(Ratio, Kind, Before)),
        ?WHENFAIL(
            io:format("~p -> ~p by ~p~n", [Was, Is, Ratio]),
            %% More evidence lets what was known before count for more as well.
            Is >= 0.9 * min(Was, Ratio) andalso Is =< 1.1 * max(Was, Ratio)
        )
    end).

prop_no_single_picture_counts_for_more() ->
    ?FORALL({Pictures, Kind}, {list({kind(), ratio()}), kind()}, begin
        Before = story(Pictures),
        Was = foretold(Kind, Before),
        Is = foretold(Kind, drawn(1.0e9, Kind, Before)),
        ?WHENFAIL(io:format("~p -> ~p~n", [Was, Is]), Is =< 4.0001 * Was)
    end).

prop_what_is_old_is_forgotten() ->
    ?FORALL({Pictures, Kind}, {list({kind(), ratio()}), kind()}, begin
        Learnt = story(Pictures),
        Old = maps:map(fun(Key, Term) -> faded(Key, Term, ?DAY_US) end, Learnt),
        abs(foretold(Kind, Old) - 1.0) < 1.0e-6
    end).

kind() ->
    ?LET(
        {N, K, Alone, AtOnce},
        {range(1, 16), oneof([full, range(1, 8)]), boolean(), range(1, 8)},
        keys(shape(N, K, Alone), AtOnce)
    ).

ratio() -> ?LET(Log, float(-1.3, 1.3), math:exp(Log)).

%% Helpers --------------------------------------------------------------------------------------

shape(N, TopK, Alone) ->
    #{n => N, steps => 10, top_k => TopK, deterministic => Alone, cache => 0.0}.

of_kind(Load, N) -> keys(shape(N, 2, true), Load).

story(Pictures) ->
    lists:foldl(fun({Kind, Ratio}, Sofar) -> drawn(Ratio, Kind, Sofar) end, #{}, Pictures).

drawn(Ratio, Keys, Terms) ->
    Learnt = learnt(Ratio, [{Key, maps:get(Key, Terms, unknown())} || Key <- Keys]),
    maps:merge(Terms, maps:from_list(Learnt)).

foretold(Keys, Terms) -> factor([maps:get(Key, Terms, unknown()) || Key <- Keys]).
