%% @doc The room on real nodes: each a beam of its own at its own loopback address, as in a cluster.
%% The test node itself is not distributed; it talks to the nodes over their standard input.
%% Nothing here sleeps: what must come true is waited for, with a deadline.
-module(baguette_cluster_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_testcase/2, end_per_testcase/2]).
-export([
    four_nodes_find_each_other_and_hold_one_each/1,
    one_of_two_takes_several/1,
    who_drains_hands_over_on_a_promise/1,
    a_killed_node_is_down_at_once_gone_later_and_new_when_it_returns/1,
    a_clean_stop_leaves_at_once/1,
    who_was_frozen_judges_nobody/1,
    what_fails_here_is_held_elsewhere/1,
    who_only_watches_has_a_plan_too/1,
    what_crashes_here_three_times_is_held_elsewhere/1,
    what_nobody_else_could_hold_stays_however_often_it_crashes/1,
    the_tables_outlive_their_writers/1,
    strange_messages_and_control_nodes_change_nothing/1,
    a_tailscale_that_fails_is_not_an_empty_tailnet/1,
    who_joins_sees_everybody_within_two_seconds/1,
    who_has_another_secret_is_told/1,
    who_leaves_is_not_offered_once_drain_is_back/1,
    what_a_link_carries_is_measured_unless_busy/1,
    the_handshake_tells_real_nodes_apart/1,
    certificates_of_another_secret_are_told/1
]).

-define(PORT, "9177").
-define(PARTS, [<<"fake/part-1">>, <<"fake/part-2">>, <<"fake/part-3">>, <<"fake/part-4">>]).
-define(FAKE, baguette_cluster_fake_component).
-define(GONE_MS, 2500).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [
        four_nodes_find_each_other_and_hold_one_each,
        one_of_two_takes_several,
        who_drains_hands_over_on_a_promise,
        a_killed_node_is_down_at_once_gone_later_and_new_when_it_returns,
        a_clean_stop_leaves_at_once,
        who_was_frozen_judges_nobody,
        what_fails_here_is_held_elsewhere,
        who_only_watches_has_a_plan_too,
        what_crashes_here_three_times_is_held_elsewhere,
        what_nobody_else_could_hold_stays_however_often_it_crashes,
        the_tables_outlive_their_writers,
        strange_messages_and_control_nodes_change_nothing,
        a_tailscale_that_fails_is_not_an_empty_tailnet,
        who_joins_sees_everybody_within_two_seconds,
        who_has_another_secret_is_told,
        who_leaves_is_not_offered_once_drain_is_back,
        what_a_link_carries_is_measured_unless_busy,
        the_handshake_tells_real_nodes_apart,
        certificates_of_another_secret_are_told
    ].

init_per_testcase(_Case, Config) ->
    persistent_term:put(?MODULE, []),
    Config.

%% Also after a failure: whatever beam was started here ends, frozen or not.
end_per_testcase(_Case, _Config) ->
    End = fun({Peer, OsPid}) -> catch peer:stop(Peer), end_beam(OsPid) end,
    lists:foreach(End, persistent_term:get(?MODULE)).

%% Cases ----------------------------------------------------------------------------------------

four_nodes_find_each_other_and_hold_one_each(Config) ->
    Nodes = cluster([2, 3, 4, 5], Config),
    [?assertEqual(ok, ask(P, health, [])) || P <- Nodes],
    Plan = ask(hd(Nodes), plan, []),
    ?assertEqual([[host(N)] || N <- [2, 3, 4, 5]], lists:sort(maps:values(Plan))),
    [?assertEqual(Plan, ask(P, plan, [])) || P <- Nodes],
    [#{self := true, link := up} | Others] = ask(hd(Nodes), nodes, []),
    ?assertEqual([host(N) || N <- [3, 4, 5]], [N || #{node := N, link := up} <- Others]),
    [#{node := Holder, expected_us := Us}] = ask(hd(Nodes), holders, [<<"fake/part-4">>]),
    ?assertEqual([Holder], maps:get(<<"fake/part-4">>, Plan)),
    ?assert(Us >= 1000),
    ?assertEqual(nobody_has_it_on_disk, ask(hd(Nodes), why_missing, [<<"fake/part-9">>])).

one_of_two_takes_several(Config) ->
    [A, B] = cluster([2, 3], Config),
    ?assertEqual([2, 2], [length(held(P)) || P <- [A, B]]),
    ok = ask(A, publish, [call_us, 50]),
    ?assertMatch({error, {fact_too_large, _}}, ask(A, publish, [big, binary:copy(<<0>>, 3000)])),
    [Mine | _] = held(A),
    until(fun() -> [100] =:= [Us || #{expected_us := Us} <- ask(A, holders, [Mine])] end),
    [#{queue := 2, expected_us := 150}] = ask(A, holders, [Mine, #{host(2) => 2}]).

who_drains_hands_over_on_a_promise(Config) ->
    [A, B] = cluster([2, 3], Config),
    ok = ask(B, publish, [leaving, true]),
    until(fun() -> [[host(2)]] =:= lists:usort([ready(A, Part) || Part <- ?PARTS]) end),
    until(fun() -> [] =:= held(B) end),
    ?assertEqual(4, length(held(A))),
    %% Wishes that are over bind nobody any more.
    Facts = fun(P, N) -> maps:get(extra, maps:get(report, listed(P, N))) end,
    until(fun() -> #{promises => []} =:= maps:with([promises], Facts(B, 2)) end),
    ?assertMatch(#{letting_go := []}, Facts(B, 3)),
    %% Back again: it takes what pays, and takes nothing away.
    ok = ask(B, publish, [leaving, false]),
    until(fun() -> [] =/= held(B) end),
    ?assertEqual(4, length(held(A))).

a_killed_node_is_down_at_once_gone_later_and_new_when_it_returns(Config) ->
    [A, B, C, D] = cluster([2, 3, 4, 5], Config),
    [Lost] = held(D),
    #{incarnation := First} = listed(A, 5),
    Killed = erlang:monotonic_time(millisecond),
    kill(D),
    until(fun() -> [] =:= ask(A, holders, [Lost]) end),
    ?assert(erlang:monotonic_time(millisecond) - Killed < ?GONE_MS),
    ?assertMatch(#{link := down}, listed(A, 5)),
    until(fun() -> not lists:any(fun(P) -> is_listed(P, 5) end, [A, B, C]) end),
    ?assert(erlang:monotonic_time(millisecond) - Killed >= ?GONE_MS - 500),
    ?assertEqual({none, [host(5)], none}, absent(A)),
    until(fun() -> [] =/= ask(A, holders, [Lost]) end),
    [Held] = [held(P) || P <- [A, B, C], lists:member(Lost, held(P))],
    ?assertEqual(2, length(Held)),
    Again = start(5, [2, 3, 4, 5], [], Config),
    until(fun() -> #{link => up} =:= maps:with([link], listed(A, 5)) end),
    #{incarnation := Second} = listed(A, 5),
    ?assert(Second > First),
    until(fun() -> [length(held(P)) || P <- [Again]] =:= [1] end),
    until(fun() -> [ok] =:= lists:usort([ask(P, health, []) || P <- [A, B, C, Again]]) end),
    ?assert(lists:member(Lost, lists:append([held(P) || P <- [A, B, C]]))).

a_clean_stop_leaves_at_once(Config) ->
    [A, B, C] = cluster([2, 3, 4], Config),
    [ok = peer:call(P, ?FAKE, watch, []) || P <- [A, B]],
    Stopped = erlang:monotonic_time(millisecond),
    ok = peer:call(C, application, stop, [baguette_cluster]),
    until(fun() -> not is_listed(A, 4) andalso not is_listed(B, 4) end),
    ?assert(erlang:monotonic_time(millisecond) - Stopped < ?GONE_MS div 2),
    [?assert(lists:member({member, host(4), gone}, events(P))) || P <- [A, B]],
    ?assertEqual({none, none, [host(4)]}, absent(A)),
    until(fun() -> lists:all(fun(Part) -> [] =/= ask(A, holders, [Part]) end, ?PARTS) end),
    {ok, _} = peer:call(C, application, ensure_all_started, [baguette_cluster]),
    until(fun() -> is_listed(A, 4) andalso is_listed(B, 4) andalso is_listed(C, 2) end).

%% Of those that discovery names: who was never met, who is gone, who has left.
absent(Peer) ->
    {degraded, Facts} = ask(Peer, health, []),
    Found = fun(Name) -> proplists:get_value(Name, Facts, none) end,
    {Found(peers_never_met), Found(peers_gone), Found(peers_left)}.

who_was_frozen_judges_nobody(Config) ->
    [A, B, C] = cluster([2, 3, 4], Config),
    ok = peer:call(A, ?FAKE, watch, []),
    Before = held(A),
    signal(A, "STOP"),
    until(fun() -> not is_listed(B, 2) andalso not is_listed(C, 2) end),
    signal(A, "CONT"),
    until(fun() -> is_listed(B, 2) andalso is_listed(C, 2) end),
    until(fun() -> [ok] =:= lists:usort([ask(P, health, []) || P <- [A, B, C]]) end),
    ?assertEqual([], [E || {member, _, gone} = E <- events(A)]),
    ?assertEqual([], [E || {link, _, suspect} = E <- events(A)]),
    ?assertEqual([], Before -- held(A)).

what_fails_here_is_held_elsewhere(Config) ->
    Peers = [2, 3],
    A = start(2, Peers, ?PARTS, Config),
    B = start(3, Peers, [], Config),
    until(fun() -> lists:all(fun(Part) -> [host(3)] =:= ready(B, Part) end, ?PARTS) end),
    until(fun() -> [] =:= held(A) end),
    ?assertEqual(4, length(held(B))),
    %% What B had taken before A could fail with it is merely idle there.
    Said = fun() -> maps:values(maps:get(states, maps:get(report, listed(B, 2)))) end,
    until(fun() -> [] =:= [S || S <- Said(), S =/= failed, S =/= idle] end),
    ?assert(lists:member(failed, Said())).

who_only_watches_has_a_plan_too(Config) ->
    Watcher = boot("baguette", 2, [], Config),
    Env = [{peers, [address(2)]}, {component_module, undefined}],
    [ok = peer:call(Watcher, application, set_env, [baguette_cluster, K, V]) || {K, V} <- Env],
    {ok, _} = peer:call(Watcher, application, ensure_all_started, [baguette_cluster]),
    ?assertEqual(#{}, ask(Watcher, plan, [])),
    ?assertMatch(#{held := []}, ask(Watcher, overview, [])),
    ?assertEqual(#{}, ask(Watcher, components, [])).

what_crashes_here_three_times_is_held_elsewhere(Config) ->
    [A, B] = cluster([2, 3], Config),
    [Part | Others] = held(A),
    crash(A, Part),
    crash(A, Part),
    ?assertEqual([Part | Others], held(A)),
    ok = ask(A, component_state, [Part, restarting]),
    until(fun() -> [host(3)] =:= ready(A, Part) end),
    ?assert(lists:member(Part, held(B))),
    ?assertEqual([], Others -- held(A)).

what_nobody_else_could_hold_stays_however_often_it_crashes(Config) ->
    [A] = cluster([2], Config),
    [Part | _] = Held = held(A),
    [crash(A, Part) || _ <- lists:seq(1, 4)],
    ?assertEqual(Held, held(A)),
    ?assertEqual([host(2)], ready(A, Part)).

the_tables_outlive_their_writers(Config) ->
    [A, B] = cluster([2, 3], Config),
    ok = peer:call(A, ?FAKE, watch, []),
    #{incarnation := Incarnation} = listed(B, 2),
    Held = held(A),
    [fell(A, list_to_atom("baguette_cluster_" ++ P)) || P <- [
        "gossip", "holdings", "connector", "discovery"
    ]],
    until(fun() -> [ok] =:= lists:usort([ask(P, health, []) || P <- [A, B]]) end),
    ?assertEqual(Held, held(A)),
    ?assertMatch(#{incarnation := Incarnation}, listed(B, 2)),
    %% A watcher is still told.
    kill(B),
    until(fun() -> lists:member({link, host(3), down}, events(A)) end).

strange_messages_and_control_nodes_change_nothing(Config) ->
    [A, B] = cluster([2, 3], Config),
    Gossip = {baguette_cluster_gossip, host(2)},
    Pid = peer:call(A, erlang, whereis, [baguette_cluster_gossip]),
    [
        peer:call(B, erlang, send, [Gossip, Strange])
     || Strange <- [
            hello,
            {baguette_cluster_v2, host(3), #{}},
            {baguette_cluster_v1, 17, {pong, 1}},
            {baguette_cluster_v1, host(3), {weather, 1}},
            {baguette_cluster_v1, host(3), {pong, 1 bsl 70}},
            {baguette_cluster_v1, host(3), {report, #{v => 1}, 0}},
            {baguette_cluster_v1, host(3), {beat, {0, 0}, -1, 0}},
            {baguette_cluster_v1, host(3), {digest, [a | b], []}},
            {baguette_cluster_v1, host(3), {digest, [junk, {host(3), 7, 7}], [junk, {'x@y', 3}]}},
            {baguette_cluster_v1, host(3), {pull, [junk, 'ctl-1@127.0.1.3']}},
            {baguette_cluster_v1, host(3), {reports, [junk, #{}]}},
            {baguette_cluster_v1, host(3), {train, 1, 1, 4, <<>>}},
            {baguette_cluster_v1, host(3), {stale, {1, gone}}}
        ]
    ],
    {error, unknown_call} = peer:call(B, gen_server, call, [Gossip, hello]),
    Control = boot("ctl-7", 9, ["-hidden", "-dist_listen", "false"], Config),
    true = peer:call(Control, net_kernel, connect_node, [host(2)]),
    Hidden = fun() -> peer:call(A, erlang, nodes, [hidden]) end,
    until(fun() -> lists:member('ctl-7@127.0.1.9', Hidden()) end),
    ?assertEqual([host(2), host(3)], [N || #{node := N} <- ask(A, nodes, [])]),
    ?assertEqual(Pid, peer:call(A, erlang, whereis, [baguette_cluster_gossip])),
    ?assertEqual(ok, ask(A, health, [])).

a_tailscale_that_fails_is_not_an_empty_tailnet(Config) ->
    Cli = filename:join(proplists:get_value(priv_dir, Config), "tailscale"),
    Says = fun(Does) ->
        %% Renamed into place: the node may run it at any moment.
        ok = file:write_file(Cli ++ ".new", ["#!/bin/sh\n", Does, "\n"]),
        ok = file:change_mode(Cli ++ ".new", 8#755),
        ok = file:rename(Cli ++ ".new", Cli)
    end,
    Machine = fun(Address) -> #{'HostName' => baguette, 'TailscaleIPs' => [Address]} end,
    Status = fun(Peers) ->
        Self = Machine(<<"100.64.0.1">>),
        Said = #{'BackendState' => 'Running', 'Self' => Self, 'Peer' => Peers},
        ["echo '", jiffy:encode(Said), "'"]
    end,
    ok = Says(Status(#{k => Machine(<<"100.64.0.2">>)})),
    Node = boot("baguette", 2, [], Config),
    Finder = baguette_cluster_discovery_tailscale,
    Env = [{finder, Finder}, {tailscale, Cli}, {find_ms, 50}, {component_module, undefined}],
    [ok = peer:call(Node, application, set_env, [baguette_cluster, K, V]) || {K, V} <- Env],
    {ok, _} = peer:call(Node, application, ensure_all_started, [baguette_cluster]),
    Known = fun() -> peer:call(Node, baguette_cluster_discovery, known, []) end,
    until(fun() -> Known() =:= ['baguette@100.64.0.2'] end),
    ok = Says("exit 1"),
    Failed = {error, {tailscale_exit, 1}},
    until(fun() -> Failed =:= peer:call(Node, baguette_cluster_discovery, last_error, []) end),
    ?assertEqual(['baguette@100.64.0.2'], Known()),
    ok = Says(Status(null)),
    until(fun() -> Known() =:= [] end).

%% With the beats of real life, knowing one member only.
who_joins_sees_everybody_within_two_seconds(Config) ->
    Beats = [{beat_ms, 500}, {suspect_ms, 2000}, {gone_ms, 8000}],
    Peers = [boot("baguette", N, [], Config) || N <- [2, 3, 4, 5]],
    [ok = start_room(P, [2, 3, 4], [], Beats) || P <- lists:sublist(Peers, 3)],
    Sees = fun(P, Count) -> Count =:= length([up || #{link := up} <- ask(P, nodes, [])]) end,
    until(fun() -> lists:all(fun(P) -> Sees(P, 3) end, lists:sublist(Peers, 3)) end),
    Began = erlang:monotonic_time(millisecond),
    ok = start_room(lists:last(Peers), [2], [], Beats),
    until(fun() -> lists:all(fun(P) -> Sees(P, 4) end, Peers) end),
    Took = erlang:monotonic_time(millisecond) - Began,
    ct:log("four see each other after ~b ms", [Took]),
    ?assert(Took < 2000).

who_has_another_secret_is_told(Config) ->
    A = start(2, [2], [], Config),
    Home = filename:join(proplists:get_value(priv_dir, Config), "stranger"),
    ok = filelib:ensure_dir(filename:join(Home, "x")),
    B = start(3, [2, 3, 9], [], [{priv_dir, Home} | Config]),
    Why = fun() -> [{N, W} || #{node := N, why := W} <- ask(B, unreached, [])] end,
    until(fun() -> [{host(2), wrong_secret}, {host(9), refused}] =:= Why() end),
    #{unreached := [#{node := Told, name := <<>>} | _]} = ask(B, overview, []),
    ?assertEqual(host(2), Told),
    {degraded, Facts} = ask(B, health, []),
    ?assertEqual(Why(), proplists:get_value(unreached, Facts)),
    ?assertEqual({[host(2), host(9)], none, none}, absent(B)),
    ?assertEqual(ok, ask(A, health, [])),
    ?assertEqual([host(2)], [N || #{node := N} <- ask(A, nodes, [])]).

who_leaves_is_not_offered_once_drain_is_back(Config) ->
    [A, B, C] = cluster([2, 3, 4], Config),
    [Part | _] = held(C),
    Offered = fun(P) -> [N || #{node := N} <- ask(P, holders, [Part])] end,
    ?assert(lists:member(host(4), Offered(A))),
    Began = erlang:monotonic_time(millisecond),
    ok = ask(C, drain, []),
    ?assert(erlang:monotonic_time(millisecond) - Began < 2000),
    [?assertNot(lists:member(host(4), Offered(P))) || P <- [A, B]],
    [?assertMatch(#{leaving := true}, listed(P, 4)) || P <- [A, B, C]],
    {degraded, Facts} = ask(A, health, []),
    ?assertEqual([host(4)], proplists:get_value(leaving, Facts)),
    %% Nobody to wait for is no reason to wait.
    signal(A, "STOP"),
    kill(B),
    until(fun() -> [] =:= [up || #{link := up, self := false} <- ask(C, nodes, [])] end),
    ok = ask(C, drain, []),
    signal(A, "CONT").

what_a_link_carries_is_measured_unless_busy(Config) ->
    [A, B] = [boot("baguette", N, [], Config) || N <- [2, 3]],
    ok = start_room(A, [2], []),
    ok = ask(A, busy, [asking]),
    ok = start_room(B, [2, 3], []),
    Carries = fun(P, N) -> maps:get(mbit, listed(P, N), 0) end,
    until(fun() -> Carries(B, 2) > 0 end),
    ?assertEqual(0, Carries(A, 3)),
    ?assertMatch(#{path := unknown, name := <<>>}, listed(B, 2)),
    ok = ask(A, busy, [none]),
    until(fun() -> Carries(A, 3) > 0 end),
    ct:log("~b and ~b Mbit/s", [Carries(A, 3), Carries(B, 2)]),
    %% It outlives the process that keeps it.
    fell(A, baguette_cluster_gossip),
    until(fun() -> up =:= maps:get(link, listed(A, 3), down) end),
    ?assert(Carries(A, 3) > 0),
    #{gossip := #{messages_sent := M, bytes_sent := Bytes, since_ms := Ms}} = ask(A, overview, []),
    ?assert(M > 0 andalso Bytes > M andalso Ms > 0).

the_handshake_tells_real_nodes_apart(Config) ->
    Node = boot("baguette", 2, [], Config),
    Other = boot("croissant", 3, [], Config),
    Port = list_to_integer(?PORT),
    Right = peer:call(Node, erlang, get_cookie, []),
    Why = fun(N, Cookie) ->
        Own = #{port => Port, cookie => Cookie, name => "probe@127.0.1.1", tls => none, ms => 3000},
        baguette_cluster_handshake:why(host(N), Own)
    end,
    %% Again and again: the name is the same every time.
    ?assertEqual(lists:duplicate(20, none_found), [Why(2, Right) || _ <- lists:seq(1, 20)]),
    ?assertEqual(wrong_secret, Why(2, wrong)),
    ?assertEqual(other_node, Why(3, Right)),
    ?assertEqual(refused, Why(4, Right)),
    ?assertEqual([], peer:call(Node, erlang, nodes, [visible])),
    signal(Other, "STOP"),
    ?assertEqual(no_answer, Why(3, Right)).

certificates_of_another_secret_are_told(Config) ->
    Dir = proplists:get_value(priv_dir, Config),
    [{Ours, OurClient}, {Theirs, Strangers}] = [certificates(I, Dir) || I <- ["ours", "theirs"]],
    Flags = fun(File) -> ["-proto_dist", "inet_tls", "-ssl_dist_optfile", File] end,
    Node = boot("baguette", 2, Flags(Ours), Config),
    Own = #{
        port => list_to_integer(?PORT), cookie => peer:call(Node, erlang, get_cookie, []),
        name => "probe@127.0.1.1", tls => OurClient, ms => 5000
    },
    Why = fun(How) -> baguette_cluster_handshake:why(host(2), maps:merge(Own, How)) end,
    ?assertEqual(none_found, Why(#{})),
    ?assertEqual(wrong_secret, Why(#{cookie => wrong})),
    ?assertEqual(wrong_secret, Why(#{tls => Strangers})),
    %% Only the node itself minds: it refuses us, after our side of the handshake was done.
    Blind = [{verify, verify_none} | lists:keydelete(verify, 1, Strangers)],
    ?assertEqual(wrong_secret, Why(#{tls => Blind})),
    ?assertEqual(wants_tls, Why(#{tls => none})),
    {ok, Dials} = peer:call(Node, baguette_cluster_handshake, own, []),
    ?assertMatch(#{port := 9177, name := "probe@127.0.1.2", tls := [_ | _]}, Dials),
    Stranger = boot("baguette", 3, Flags(Theirs), Config),
    ok = start_room(Stranger, [2], []),
    until(fun() -> [wrong_secret] =:= [W || #{why := W} <- ask(Stranger, unreached, [])] end).

%% A chain of certificates for 127.0.1.2, the options file made of it, and its client's options.
certificates(Name, Dir) ->
    %% The record of public_key.hrl, whose other records have no types: id-ce-subjectAltName.
    San = {'Extension', {2, 5, 29, 17}, false, [{dNSName, "127.0.1.2"}]},
    Chain = #{root => [], intermediates => [], peer => [{extensions, [San]}]},
    #{server_config := Server, client_config := Client} =
        public_key:pkix_test_data(#{server_chain => Chain, client_chain => Chain}),
    Checks = [{verify, verify_peer}, {fail_if_no_peer_cert, true}],
    Calls = [{verify, verify_peer} | Client],
    File = filename:join(Dir, Name ++ ".tls"),
    Options = [{server, Checks ++ Server}, {client, Calls}],
    ok = file:write_file(File, io_lib:format("~p.~n", [Options])),
    {File, Calls}.

%% Nodes ----------------------------------------------------------------------------------------

cluster(Numbers, Config) ->
    %% All beams first: a young node waits for those it expects, but not for ever.
    Peers = [boot("baguette", N, [], Config) || N <- Numbers],
    [ok = start_room(P, Numbers, []) || P <- Peers],
    until(fun() ->
        [ok] =:= lists:usort([ask(P, health, []) || P <- Peers]) andalso
            [length(Numbers)] =:= lists:usort([length(ask(P, nodes, [])) || P <- Peers]) andalso
            %% Before a node knows what it has, nothing is missing either.
            [] =:= [Part || P <- Peers, Part <- ?PARTS, [] =:= ready(P, Part)]
    end),
    Peers.

start(Number, Numbers, Failing, Config) ->
    Peer = boot("baguette", Number, [], Config),
    ok = start_room(Peer, Numbers, Failing),
    Peer.

start_room(Peer, Numbers, Failing) ->
    start_room(Peer, Numbers, Failing, []).

start_room(Peer, Numbers, Failing, Settings) ->
    ok = peer:call(Peer, ?FAKE, setup, [?PARTS, Failing]),
    Env = [
        {peers, [address(N) || N <- Numbers]}, {component_module, ?FAKE},
        {beat_ms, 100}, {suspect_ms, 700}, {gone_ms, ?GONE_MS}, {settle_ms, 300},
        {find_ms, 1000} | Settings
    ],
    [ok = peer:call(Peer, application, set_env, [baguette_cluster, K, V]) || {K, V} <- Env],
    {ok, _} = peer:call(Peer, application, ensure_all_started, [baguette_cluster]),
    ok.

boot(Name, Number, Flags, Config) ->
    Interface = lists:flatten(io_lib:format("{127,0,1,~b}", [Number])),
    Modules = [?MODULE, baguette_cluster, ?FAKE],
    Paths = lists:usort([filename:dirname(code:which(M)) || M <- Modules]),
    %% The nodes share a home of their own, so their cookie is a file there and on no command line.
    Home = proplists:get_value(priv_dir, Config),
    {ok, Peer, _} = peer:start(#{
        name => list_to_atom(Name), host => address(Number), longnames => true,
        connection => standard_io, wait_boot => 30000,
        env => [{"HOME", Home}, {"XDG_CONFIG_HOME", Home}],
        args => Flags ++ [
            "-start_epmd", "false", "-erl_epmd_port", ?PORT,
            "-kernel", "inet_dist_use_interface", Interface,
            "-kernel", "dist_auto_connect", "never",
            "-kernel", "prevent_overlapping_partitions", "false",
            "-kernel", "net_ticktime", "8", "-kernel", "logger_level", "warning",
            "+sbwt", "none", "+S", "1:1", "-pa" | Paths
        ]
    }),
    OsPid = peer:call(Peer, os, getpid, []),
    persistent_term:put(?MODULE, [{Peer, OsPid} | persistent_term:get(?MODULE)]),
    Peer.

address(N) -> "127.0.1." ++ integer_to_list(N).

host(N) -> list_to_atom("baguette@" ++ address(N)).

ask(Peer, Function, Args) -> peer:call(Peer, baguette_cluster, Function, Args).

events(Peer) -> peer:call(Peer, ?FAKE, events, []).

listed(Peer, N) ->
    case [Info || #{node := Node} = Info <- ask(Peer, nodes, []), Node =:= host(N)] of
        [Info] -> Info;
        [] -> #{}
    end.

is_listed(Peer, N) -> listed(Peer, N) =/= #{}.

held(Peer) -> maps:get(held, ask(Peer, overview, [])).

ready(Peer, Part) -> maps:get(ready, maps:get(Part, ask(Peer, components, []), #{}), []).

%% Kills a process of the room and waits until another has its name.
fell(Peer, Name) ->
    Old = peer:call(Peer, erlang, whereis, [Name]),
    true = peer:call(Peer, erlang, exit, [Old, kill]),
    until(fun() -> is_pid(peer:call(Peer, erlang, whereis, [Name])) andalso
        peer:call(Peer, erlang, whereis, [Name]) =/= Old end).

%% A worker that died and is back.
crash(Peer, Part) ->
    [ok = ask(Peer, component_state, [Part, State]) || State <- [restarting, ready]].

kill(Peer) -> signal(Peer, "KILL").

signal(Peer, Signal) ->
    {Peer, OsPid} = lists:keyfind(Peer, 1, persistent_term:get(?MODULE)),
    [] = os:cmd("kill -" ++ Signal ++ " " ++ OsPid),
    ok.

%% Only if it is still one of ours: pids are used again.
end_beam(OsPid) ->
    case file:read_file("/proc/" ++ OsPid ++ "/cmdline") of
        {ok, Line} ->
            Ours = binary:match(Line, <<"@127.0.1.">>) =/= nomatch,
            _ = Ours andalso os:cmd("kill -KILL " ++ OsPid),
            ok;
        {error, _} ->
            ok
    end.

until(Holds) -> until(Holds, erlang:monotonic_time(millisecond) + 20000).

until(Holds, Deadline) ->
    case {Holds(), erlang:monotonic_time(millisecond) < Deadline} of
        {true, _} -> ok;
        {false, true} -> receive after 25 -> until(Holds, Deadline) end;
        {false, false} -> error({never_came_true, Holds})
    end.
