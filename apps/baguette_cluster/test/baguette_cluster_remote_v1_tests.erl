%% @doc What comes from other nodes is taken only in the shapes and sizes that we send.
-module(baguette_cluster_remote_v1_tests).

-include_lib("eunit/include/eunit.hrl").

-import(baguette_cluster_fleet, [host/1, report/2]).
-import(baguette_cluster_remote_v1, [read/2, read_train/1]).

-define(MAX, 4).

what_is_ours_is_read_test_() ->
    Id = {7, 3},
    [
        ?_assertEqual({ok, Message}, read(Message, ?MAX))
     || Message <- [
            {beat, Id, 0, -5},
            {report, report(2, #{}), 9},
            {pong, 9},
            {digest, [{host(2), Id, 1 bsl 32 - 1}], [{host(3), 7}]},
            {pull, [host(2)]},
            {reports, [report(2, #{}), report(3, #{})]},
            {goodbye, 7},
            {stale, {7, gone}}
        ]
    ].

what_is_not_is_unknown_test_() ->
    Many = lists:duplicate(4 * ?MAX + 1, host(2)),
    Packet = binary:copy(<<0>>, baguette_cluster_remote_v1:train_bytes()),
    [?_assertEqual(unknown, read(Message, ?MAX)) || Message <- [
        {beat, {7, gone}, 0, 0},
        {beat, {0, 1}, 0, 0},
        {beat, {7, 1}, 1 bsl 32, 0},
        {beat, {7, 1}, 0, 1 bsl 70},
        {report, #{}, 0},
        {digest, [{N, {7, 1}, 0} || N <- Many], []},
        {digest, [a | b], []},
        {pull, Many},
        {pull, [host(2) | host(3)]},
        {reports, [report(2, #{}) || _ <- Many]},
        {stale, {7, soon}},
        {train, 1, 1, 4, Packet},
        hello
    ]] ++ [?_assertEqual(unknown, read_train(Message)) || Message <- [
        {train, 1, 0, 4, Packet},
        {train, 1, 5, 4, Packet},
        {train, 1, 1, 17, Packet},
        {train, 1, 1, 4, <<Packet/binary, 0>>},
        {train, 1, 1, 4, "text"},
        {trained, 1, 0, 5},
        {trained, 1, 1 bsl 21, 5},
        {trained, 1, 65536, -1},
        {beat, {7, 1}, 0, 0}
    ]] ++ [?_assertMatch({ok, _}, read_train(Message)) || Message <- [
        {train, 1, 4, 4, Packet},
        {trained, 1, 3 * 65536, 0}
    ]].

good_entries_of_a_list_are_kept_test() ->
    Hint = {host(2), {7, 3}, 5},
    Junk = [junk, {'ctl-1@10.0.0.2', {7, 3}, 5}, {host(3), {7, gone}, 5}, {host(3), {7, 3}, -1}],
    ?assertEqual({ok, {digest, [Hint], [{host(2), 7}]}},
        read({digest, [Hint | Junk], [{host(2), 7}, {'x@y', 7}, {host(2), soon}]}, ?MAX)),
    ?assertEqual({ok, {pull, [host(2)]}}, read({pull, ['x@y', host(2), 17]}, ?MAX)),
    ?assertEqual({ok, {reports, [report(2, #{})]}}, read({reports, [#{}, report(2, #{})]}, ?MAX)).
