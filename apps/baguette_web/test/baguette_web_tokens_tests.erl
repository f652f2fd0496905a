%% A token names its client to whoever has the key.
-module(baguette_web_tokens_tests).
-include_lib("eunit/include/eunit.hrl").

-define(KEY, <<0:256>>).

%% The same as scripts/launcher/tokens.py makes (tests/test_tokens.py).
as_the_launcher_makes_it_test() ->
    ?assertEqual(
        <<"default.8ZvIH85J8881Bv4FBTUl7Q13rNTF6nG9vPNe6jVatUs">>,
        baguette_web_tokens:new(<<"default">>, ?KEY)
    ).

its_own_name_and_key_only_test() ->
    Token = baguette_web_tokens:new(<<"alice">>, ?KEY),
    ?assertEqual({ok, <<"alice">>}, baguette_web_tokens:name(Token, ?KEY)),
    ?assertEqual(error, baguette_web_tokens:name(Token, <<1:256>>)),
    [_, Mac] = binary:split(Token, <<".">>),
    ?assertEqual(error, baguette_web_tokens:name(<<"bob.", Mac/binary>>, ?KEY)).

anything_else_is_no_token_test_() ->
    Long = binary:copy(<<"a">>, 33),
    Wrong = [
        <<>>, <<".">>, <<"alice">>, <<"alice.">>, <<"..">>, <<"Alice.x">>, <<"a b.x">>,
        <<255, ".x">>,
        baguette_web_tokens:new(<<>>, ?KEY),
        baguette_web_tokens:new(Long, ?KEY),
        baguette_web_tokens:new(<<"ALICE">>, ?KEY),
        <<(baguette_web_tokens:new(<<"a">>, ?KEY))/binary, "=">>
    ],
    [?_assertEqual(error, baguette_web_tokens:name(Token, ?KEY)) || Token <- Wrong].
