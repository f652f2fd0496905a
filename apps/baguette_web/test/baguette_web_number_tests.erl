%% Digits only, as text or as a list of characters.
-module(baguette_web_number_tests).
-include_lib("eunit/include/eunit.hrl").

digits_are_a_number_test_() ->
    N18 = 999999999999999999,
    [
        ?_assertEqual({ok, N}, baguette_web_number:read(Text))
     || {N, Digits} <- [{0, "0"}, {7, "007"}, {250, "250"}, {N18, integer_to_list(N18)}],
        Text <- [Digits, list_to_binary(Digits)]
    ].

nothing_else_is_test_() ->
    [
        ?_assertEqual(error, baguette_web_number:read(Text))
     || Other <- ["", "+0", "-0", "-1", " 1", "1 ", "1.0", "1e3", "0x1", "1\n", [255],
            lists:duplicate(19, $1)],
        Text <- [Other, list_to_binary(Other)]
    ].

%% Not ASCII's.
digits_of_others_are_none_test() ->
    ?assertEqual(error, baguette_web_number:read([16#0663])),
    ?assertEqual(error, baguette_web_number:read(<<16#0663/utf8>>)).
