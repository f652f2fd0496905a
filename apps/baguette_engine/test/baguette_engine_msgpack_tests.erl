%% @doc Payloads of the port: the properties, the bytes both languages agree on, and the limits.
-module(baguette_engine_msgpack_tests).

-include_lib("eunit/include/eunit.hrl").

-import(baguette_engine_msgpack, [encode/1, decode/1]).

properties_test_() ->
    Options = [{numtests, 500}, {on_output, fun(_, _) -> ok end}],
    [
        {atom_to_list(P), {timeout, 120,
            ?_assert(proper:quickcheck(prop_baguette_engine_msgpack:P(), Options))}}
     || {P, 0} <- prop_baguette_engine_msgpack:module_info(exports),
        lists:prefix("prop_", atom_to_list(P))
    ].

%% The same file is read by python_worker/tests.
golden_test_() ->
    {ok, Json} = file:read_file(golden()),
    Cases = jiffy:decode(Json, [return_maps, {null_term, nil}]),
    ?assert(length(Cases) > 5),
    [
        {binary_to_list(Hex), fun() ->
            Bytes = binary:decode_hex(Hex),
            ?assertEqual({ok, Value}, decode(Bytes)),
            ?assertEqual(Bytes, encode(as_text(Value)))
        end}
     || #{<<"value">> := Value, <<"hex">> := Hex} <- Cases
    ].

golden() ->
    baguette_engine_checkout:path(["python_worker", "tests", "golden", "msgpack.json"]).

as_text(Bin) when is_binary(Bin) -> {text, Bin};
as_text(List) when is_list(List) -> [as_text(Item) || Item <- List];
as_text(Map) when is_map(Map) -> maps:map(fun(_, V) -> as_text(V) end, Map);
as_text(Other) -> Other.

atoms_become_text_and_none_is_made_test() ->
    ?assertEqual({ok, <<"steps">>}, decode(encode(steps))),
    ?assertEqual({ok, #{<<"steps">> => 3}}, decode(encode(#{steps => 3}))).

too_many_items_test() ->
    ?assertEqual({error, malformed}, decode(<<16#dd, (1 bsl 31):32>>)),
    ?assertEqual({error, malformed}, decode(encode(lists:duplicate(5000, nil)))).

too_deep_test() ->
    ?assertEqual({error, malformed}, decode(binary:copy(<<16#91>>, 1000))).

extension_types_are_refused_test() ->
    ?assertEqual({error, malformed}, decode(<<16#d4, 5, 0>>)).

keys_are_text_and_come_once_test() ->
    ?assertEqual({error, malformed}, decode(<<16#81, 1, 2>>)),
    ?assertEqual({error, malformed}, decode(<<16#82, 16#a1, $a, 1, 16#a1, $a, 2>>)).

no_form_is_misuse_test() ->
    ?assertError(badarg, encode(self())),
    ?assertError(badarg, encode(1 bsl 64)).
