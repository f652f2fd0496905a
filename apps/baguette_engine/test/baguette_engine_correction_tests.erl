%% How many times what was counted pictures take: properties of what is learnt of any pictures.
-module(baguette_engine_correction_tests).

-include_lib("proper/include/proper.hrl").
-include_lib("eunit/include/eunit.hrl").

-import(baguette_engine_correction, [features/3, unknown/0, factor/2, learnt/3]).

-define(EXPERTS, 8).

properties_test_() ->
    [
        {atom_to_list(Name), {timeout, 60, ?_assert(
            proper:quickcheck(Property, [quiet, {numtests, 200}])
        )}}
     || {Name, Property} <- [
            {what_is_always_so_is_foretold, prop_what_is_always_so_is_foretold()},
            {one_picture_moves_towards_it, prop_one_picture_moves_towards_it()},
            {no_single_picture_counts_for_more, prop_no_single_picture_counts_for_more()},
            {what_has_changed_is_learnt_anew, prop_what_has_changed_is_learnt_anew()},
            {it_is_bounded, prop_it_is_bounded()}
        ]
    ].

without_evidence_it_is_as_counted_test() ->
    ?assertEqual(1.0, factor(of_kind(#{}, 0), unknown())).

load_and_shape_are_learnt_apart_test() ->
    Times = [{0, 1, 1.0}, {6, 1, 2.0}, {0, 4, 0.5}],
    Learnt = lists:foldl(
        fun(_, Before) ->
            lists:foldl(
                fun({Beside, N, Ratio}, Sofar) ->
                    learnt(Ratio, of_kind(#{n => N}, Beside), Sofar)
                end,
                Before,
                Times
            )
        end,
        unknown(),
        lists:seq(1, 30)
    ),
    %% Four images beside others were never seen: both are known all the same.
    Never = factor(of_kind(#{n => 4}, 6), Learnt),
    ?assert(abs(Never - 1.0) < 0.1, Never).

those_that_share_batches_and_those_that_reuse_are_of_other_kinds_test() ->
    Slow = lists:foldl(
        fun(_, Sofar) ->
            Once = learnt(3.0, of_kind(#{deterministic => true}, 4), Sofar),
            Again = learnt(1.0, of_kind(#{}, 4), Once),
            learnt(0.5, of_kind(#{cache => 0.3}, 4), Again)
        end,
        unknown(),
        lists:seq(1, 30)
    ),
    Kinds = [#{deterministic => true}, #{}, #{cache => 0.3}],
    [Alone, Together, Reusing] = [factor(of_kind(Kind, 4), Slow) || Kind <- Kinds],
    ?assert(abs(Alone - 3.0) < 0.2 andalso abs(Together - 1.0) < 0.1, {Alone, Together}),
    ?assert(abs(Reusing - 0.5) < 0.1, Reusing).

%% Properties -----------------------------------------------------------------------------------

prop_what_is_always_so_is_foretold() ->
    ?FORALL({Kind, Ratio}, {kind(), ratio()}, begin
        Learnt = lists:foldl(
            fun(_, Sofar) -> learnt(Ratio, Kind, Sofar) end, unknown(), lists:seq(1, 20)
        ),
        Foretold = factor(Kind, Learnt),
        ?WHENFAIL(io:format("~p: ~p~n", [Ratio, Foretold]), abs(Foretold / Ratio - 1) < 0.1)
    end).

prop_one_picture_moves_towards_it() ->
    ?FORALL({Pictures, Kind, Ratio}, {list({kind(), ratio()}), kind(), ratio()}, begin
        Before = story(Pictures),
        Was = factor(Kind, Before),
        Is = factor(Kind, learnt(Ratio, Kind, Before)),
        ?WHENFAIL(
            io:format("~p -> ~p by ~p~n", [Was, Is, Ratio]),
            %% What was known before counts for a little less as well.
            Is >= 0.95 * min(Was, Ratio) andalso Is =< 1.05 * max(Was, Ratio)
        )
    end).

prop_no_single_picture_counts_for_more() ->
    ?FORALL({Pictures, Kind}, {list({kind(), ratio()}), kind()}, begin
        Before = story(Pictures),
        Was = factor(Kind, Before),
        Is = factor(Kind, learnt(1.0e9, Kind, Before)),
        ?WHENFAIL(io:format("~p -> ~p~n", [Was, Is]), Is =< 4.2 * Was)
    end).

prop_what_has_changed_is_learnt_anew() ->
    ?FORALL({Kinds, Before, After}, {non_empty(list(kind())), ratio(), ratio()}, begin
        Drawn = fun(Ratio, Count) -> [{Kind, Ratio} || _ <- lists:seq(1, Count), Kind <- Kinds] end,
        Learnt = story(Drawn(Before, 20) ++ Drawn(After, 200)),
        Errors = [abs(factor(Kind, Learnt) / After - 1) || Kind <- Kinds],
        %% In the mean: of what is drawn rarely less is believed.
        ?WHENFAIL(io:format("~p~n", [Errors]), lists:sum(Errors) < 0.1 * length(Errors))
    end).

prop_it_is_bounded() ->
    ?FORALL({Pictures, Images, Beside}, {story_of(), range(1, 64), range(0, 10000)}, begin
        Factor = factor(of_kind(#{n => Images}, Beside), story(Pictures)),
        Factor >= 1 / 20.001 andalso Factor =< 20.001
    end).

kind() ->
    ?LET(
        {N, K, Company, Beside},
        {
            range(1, 16), oneof([full, range(1, ?EXPERTS)]),
            oneof([#{}, #{deterministic => true}, #{cache => 0.3}]), range(0, 30)
        },
        of_kind(Company#{n => N, top_k => K}, Beside)
    ).

story_of() -> list({kind(), ratio()}).

ratio() -> ?LET(Log, float(-1.3, 1.3), math:exp(Log)).

%% Helpers --------------------------------------------------------------------------------------

of_kind(Kind, Beside) ->
    Usual = #{n => 1, steps => 10, top_k => 2, deterministic => false, cache => 0.0},
    Others = lists:duplicate(Beside, baguette_engine_beside:of_one(Usual, ?EXPERTS)),
    features(maps:merge(Usual, Kind), ?EXPERTS, baguette_engine_beside:sum(Others)).

story(Pictures) ->
    lists:foldl(fun({Kind, Ratio}, Sofar) -> learnt(Ratio, Kind, Sofar) end, unknown(), Pictures).
