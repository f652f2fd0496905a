%% @doc Addresses that become names, and everything else that does not.
-module(baguette_cluster_node_name_tests).

-include_lib("eunit/include/eunit.hrl").

-import(baguette_cluster_node_name, [from_address/1, to_address/1, is_member_name/1]).

there_and_back_test() ->
    {ok, Node} = from_address(<<"100.64.0.7">>),
    ?assertEqual('baguette@100.64.0.7', Node),
    ?assertEqual({ok, Node}, from_address("100.64.0.7")),
    ?assertEqual({ok, "100.64.0.7"}, to_address(Node)).

no_atom_from_anything_else_test_() ->
    Bad = [
        "", "1.2.3", "1.2.3.4.5", "256.1.1.1", "010.0.0.1", "0x7f.0.0.1", " 1.2.3.4", "1.2.3.4\n",
        "::1", "host", <<"1.2.3.4 ; rm">>, <<255, 254>>, lists:duplicate(1000, $1), 17, [a],
        ["1.2.3.4"], [49 | 50], undefined
    ],
    [?_assertEqual({error, bad_address}, from_address(B)) || B <- Bad].

asking_for_nonsense_makes_no_atoms_test() ->
    Before = erlang:system_info(atom_count),
    [from_address("999.0.0." ++ integer_to_list(N)) || N <- lists:seq(1, 200)],
    ?assertEqual(Before, erlang:system_info(atom_count)).

names_that_are_no_members_test_() ->
    Others = ['ctl-1@127.0.0.1', nonode@nohost, 'baguette@host', 'baguette@', 1],
    [?_assertNot(is_member_name(N)) || N <- Others].

a_members_name_from_a_file_is_its_node_test_() ->
    From = fun baguette_cluster_node_name:from_name/1,
    [?_assertEqual({ok, 'baguette@127.0.0.9'}, From(<<"baguette@127.0.0.9">>))] ++
        [
            ?_assertEqual({error, bad_address}, From(Name))
         || Name <- [<<>>, <<"true">>, <<"baguette@">>, <<"baguette@host">>, <<"x@127.0.0.1">>]
        ].
