%% What is drawn beside a picture: how it adds up, what is worth telling, what is believed.
-module(baguette_engine_beside_tests).

-include_lib("proper/include/proper.hrl").
-include_lib("eunit/include/eunit.hrl").

-import(baguette_engine_beside, [none/0, of_one/2, sum/1, mean/3, clearly_differs/2, read/1]).

properties_test_() ->
    [
        {atom_to_list(Name), {timeout, 60, ?_assert(
            proper:quickcheck(Property, [quiet, {numtests, 200}])
        )}}
     || {Name, Property} <- [
            {its_own_is_taken_off_again, prop_its_own_is_taken_off_again()},
            {what_is_told_is_believed, prop_what_is_told_is_believed()},
            {whatever_is_told_is_bounded, prop_whatever_is_told_is_bounded()}
        ]
    ].

two_images_may_ask_the_same_expert_test() ->
    ?assertEqual(#{pictures => 1, asks => 4, rows => 4}, asked(2, 2)),
    ?assertEqual(#{pictures => 1, asks => 8, rows => 24}, asked(3, full)).

one_picture_more_is_told_and_nearly_the_same_is_not_test() ->
    Three = #{pictures => 3, asks => 12, rows => 20},
    ?assert(clearly_differs(none(), Three)),
    ?assert(clearly_differs(Three, none())),
    ?assert(clearly_differs(Three, Three#{pictures := 4})),
    ?assertNot(clearly_differs(Three, Three)),
    ?assertNot(clearly_differs(Three, Three#{asks := 13, rows := 22})).

prop_its_own_is_taken_off_again() ->
    ?FORALL({Own, Others, Steps}, {one(), list(one()), range(1, 250)}, begin
        Beside = sum(Others),
        Steadily = sum(lists:duplicate(Steps, sum([Own, Beside]))),
        maps:map(fun(_, N) -> round(N) end, mean(Steadily, Steps, Own)) =:= Beside
    end).

prop_what_is_told_is_believed() ->
    ?FORALL(Pictures, resize(10, list(one())), read(sum(Pictures)) =:= sum(Pictures)).

prop_whatever_is_told_is_bounded() ->
    ?FORALL(Told, oneof([any(), told()]), begin
        #{pictures := Pictures, asks := Asks, rows := Rows} = Read = read(Told),
        map_size(Read) =:= 3 andalso
            lists:all(
                fun(N) -> is_integer(N) andalso N >= 0 andalso N =< 1000 end, [Pictures, Asks, Rows]
            )
    end).

told() ->
    ?LET({Pictures, Asks, Rows}, {number_told(), number_told(), number_told()},
        #{pictures => Pictures, asks => Asks, rows => Rows}).

number_told() -> oneof([any(), integer(), range(-2000, 1 bsl 70)]).

one() -> ?LET({N, K}, {range(1, 8), oneof([full, range(1, 8)])}, asked(N, K)).

asked(Images, TopK) -> of_one(#{n => Images, steps => 1, top_k => TopK}, 8).
