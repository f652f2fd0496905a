%% @doc The tailscale CLI in every state it can be in, played by an executable that answers as it
%% does: what is found, what is refused and why, and that nothing is left behind.
-module(baguette_cluster_tailscale_tests).

-include_lib("eunit/include/eunit.hrl").

-import(baguette_cluster_tailscale, [parse/1, select/2]).

-define(FILTER, #{tag => "tag:baguette", host_prefix => "baguette"}).

%% --- what it says

peers_are_read_whatever_is_missing_or_null_test() ->
    {ok, #{own := Own, peers := Peers}} = parse(running([
        peer("100.64.0.2", #{<<"HostName">> => <<"Baguette-2">>, <<"Online">> => true}),
        #{<<"TailscaleIPs">> => [<<"fd7a:115c:a1e0::3">>, <<"100.64.0.3">>], <<"Tags">> => null},
        #{<<"TailscaleIPs">> => null},
        #{<<"TailscaleIPs">> => [<<"fd7a:115c:a1e0::4">>]},
        #{<<"TailscaleIPs">> => [<<"192.168.1.7">>, <<"100.63.0.1">>, <<"100.128.0.1">>, 7]},
        peer("100.64.0.5", #{<<"ShareeNode">> => true}),
        peer("100.64.0.6", #{<<"Expired">> => true}),
        peer("100.64.0.7", #{<<"HostName">> => 17, <<"Tags">> => [<<"tag:x">>, 3]}),
        null,
        <<"what?">>
    ])),
    ?assertEqual("100.64.0.1", Own),
    ?assertEqual(
        [
            {"100.64.0.2", <<"Baguette-2">>, [], true},
            {"100.64.0.3", <<>>, [], false},
            {"100.64.0.7", <<>>, [<<"tag:x">>], false}
        ],
        lists:sort([
            {A, N, T, O}
         || #{address := A, host_name := N, tags := T, online := O} <- Peers
        ])
    ).

a_machine_that_is_alone_has_no_peers_test_() ->
    [
        ?_assertMatch({ok, #{peers := []}}, parse(running(Peers)))
     || Peers <- [[], null, <<"none">>]
    ].

what_is_wrong_is_named_test_() ->
    [
        {atom_to_list(element(1, {Why})), ?_assertEqual({error, Reason}, parse(Json))}
     || {Why, Reason, Json} <- [
            {stopped, {backend_state, <<"Stopped">>}, backend(<<"Stopped">>)},
            {logged_out, {backend_state, <<"NeedsLogin">>}, backend(<<"NeedsLogin">>)},
            {no_state, {backend_state, <<"unknown">>}, <<"{}">>},
            {long_state, {backend_state, xs(40)}, backend(xs(99))},
            {userspace, userspace_networking, running([], #{<<"TUN">> => false})},
            {no_ipv4, no_ipv4_address, running([], #{<<"Self">> => #{
                <<"TailscaleIPs">> => [<<"fd7a:115c:a1e0::1">>]
            }})},
            {no_self, no_ipv4_address, running([], #{<<"Self">> => null})},
            {garbage, not_json, <<"{\"BackendState\": \"Runn">>},
            {not_an_object, not_json, <<"[1, 2]">>},
            {nothing, not_json, <<>>}
        ]
    ].

tagged_peers_are_taken_and_only_without_any_the_host_name_counts_test() ->
    Tag = #{<<"Tags">> => [<<"tag:baguette">>]},
    {ok, #{peers := Mixed}} = parse(running([
        peer("100.64.0.4", Tag),
        peer("100.64.0.3", Tag#{<<"Online">> => true}),
        peer("100.64.0.2", #{<<"HostName">> => <<"baguette-evil">>, <<"Online">> => true})
    ])),
    ?assertEqual(["100.64.0.3", "100.64.0.4"], selected(Mixed)),
    {ok, #{peers := Named}} = parse(running([
        peer("100.64.0.2", #{<<"HostName">> => <<"BAGUETTE">>}),
        peer("100.64.0.3", #{<<"HostName">> => <<"laptop">>})
    ])),
    ?assertEqual(["100.64.0.2"], selected(Named)).

selected(Peers) -> [A || #{address := A} <- select(Peers, ?FILTER)].

a_path_is_known_only_while_something_goes_there_test_() ->
    Peer = fun(Active, CurAddr) ->
        peer("100.64.0.2", #{<<"Active">> => Active, <<"CurAddr">> => CurAddr})
    end,
    Path = fun(P) -> {ok, #{peers := [#{path := Path}]}} = parse(running([P])), Path end,
    [
        ?_assertEqual(direct, Path(Peer(true, <<"1.2.3.4:41641">>))),
        ?_assertEqual(relayed, Path(Peer(true, <<>>))),
        ?_assertEqual(unknown, Path(Peer(false, <<>>))),
        ?_assertEqual(unknown, Path(peer("100.64.0.2", #{})))
    ].

%% --- the executable

cli_test_() ->
    {foreach, fun directory/0, fun file:del_dir_r/1, [
        fun(Dir) -> {atom_to_list(Name), {timeout, 30, fun() -> Case(Dir) end}} end
     || {Name, Case} <- [
            {found, fun two_hundred_peers_are_found/1},
            {daemon_down, fun a_daemon_that_is_down_is_told/1},
            {hung, fun a_hung_cli_is_killed_in_time/1},
            {endless, fun a_cli_that_prints_for_ever_is_killed/1},
            {caller, fun a_cli_goes_with_its_caller/1},
            {absent, fun no_cli_is_told/1},
            {doctor, fun the_door_tells_without_the_application/1}
        ]
    ]}.

two_hundred_peers_are_found(Dir) ->
    Addresses = ["100.64.1." ++ integer_to_list(N) || N <- lists:seq(1, 200)],
    Peers = [peer(A, #{<<"Tags">> => [<<"tag:baguette">>], <<"X">> => xs(2000)}) || A <- Addresses],
    ok = file:write_file(filename:join(Dir, "status.json"), running(Peers)),
    Cli = cli(Dir, "[ \"$1 $2\" = \"status --json\" ] && cat \"$(dirname \"$0\")/status.json\""),
    {ok, Found} = find(Cli),
    ?assertEqual(lists:sort(Addresses), [A || #{address := A} <- Found]),
    ?assertMatch([#{name := <<>>, path := unknown} | _], Found).

a_daemon_that_is_down_is_told(Dir) ->
    ?assertEqual({error, {tailscale_exit, 1}}, find(cli(Dir, "exit 1"))).

a_hung_cli_is_killed_in_time(Dir) ->
    Cli = cli(Dir, "echo $$ > \"$0.pid\"; printf '{'; exec sleep 600"),
    ?assertEqual({error, {tailscale_cli, timeout}}, find(Cli)),
    gone(Cli).

a_cli_that_prints_for_ever_is_killed(Dir) ->
    Cli = cli(Dir, "echo $$ > \"$0.pid\"; exec yes"),
    ?assertEqual({error, {tailscale_cli, too_much_output}}, find(Cli, 20000)),
    gone(Cli).

a_cli_goes_with_its_caller(Dir) ->
    Cli = cli(Dir, "echo $$ > \"$0.new\"; mv \"$0.new\" \"$0.pid\"; exec sleep 600"),
    Caller = spawn(fun() -> find(Cli, 60000) end),
    until(fun() -> filelib:is_file(Cli ++ ".pid") end),
    exit(Caller, kill),
    gone(Cli).

no_cli_is_told(Dir) ->
    Absent = filename:join(Dir, "absent"),
    ?assertEqual({error, {tailscale_cli, not_found}}, find(Absent)),
    ok = file:write_file(Absent, "not a program"),
    ?assertEqual({error, {tailscale_cli, not_found}}, find(Absent)),
    ?assertEqual({error, {tailscale_cli, not_found}}, find("no-such-program-anywhere")).

the_door_tells_without_the_application(Dir) ->
    Peer = peer("100.64.0.2", #{<<"HostName">> => <<"laptop">>, <<"CurAddr">> => <<"1.2.3.4:5">>}),
    ok = file:write_file(filename:join(Dir, "status.json"), running([Peer])),
    Cli = cli(Dir, "cat \"$(dirname \"$0\")/status.json\""),
    {ok, #{own := "100.64.0.1", peers := [Found], health := []}, []} =
        baguette_cluster:tailnet(#{tailscale => Cli}),
    ?assertMatch(#{address := "100.64.0.2", host_name := <<"laptop">>, path := direct}, Found),
    Absent = #{tailscale => filename:join(Dir, "absent")},
    ?assertEqual({error, {tailscale_cli, not_found}}, baguette_cluster:tailnet(Absent)),
    ?assertMatch({error, {bad_setting, tailscale_ms, 0, _}},
        baguette_cluster:tailnet(#{tailscale_ms => 0})).

%% --- helpers

find(Cli) -> find(Cli, 1000).

find(Cli, Ms) ->
    Given = #{tailscale => Cli, tailscale_ms => Ms},
    Settings = maps:merge(baguette_cluster_settings:defaults(), Given),
    baguette_cluster_discovery_tailscale:find(Settings).

running(Peers) -> running(Peers, #{}).

running(Peers, Over) ->
    Keyed =
        case is_list(Peers) of
            true -> maps:from_list(lists:zip([key(I) || I <- lists:seq(1, length(Peers))], Peers));
            false -> Peers
        end,
    Status = #{
        <<"BackendState">> => <<"Running">>, <<"TUN">> => true, <<"Health">> => null,
        <<"Self">> => peer("100.64.0.1", #{}), <<"Peer">> => Keyed, <<"NewKey">> => [#{}]
    },
    iolist_to_binary(jiffy:encode(maps:merge(Status, Over))).

backend(State) -> running([], #{<<"BackendState">> => State}).

peer(Address, More) ->
    maps:merge(#{<<"TailscaleIPs">> => [list_to_binary(Address), <<"fd7a::1">>]}, More).

key(I) -> <<"nodekey:", (integer_to_binary(I))/binary>>.

xs(N) -> binary:copy(<<"x">>, N).

directory() ->
    Number = integer_to_list(erlang:unique_integer([positive])),
    Dir = filename:join("/tmp", "baguette_tailscale_" ++ os:getpid() ++ "_" ++ Number),
    ok = file:make_dir(Dir),
    Dir.

cli(Dir, Does) ->
    Path = filename:join(Dir, "tailscale"),
    ok = file:write_file(Path, ["#!/bin/sh\n", Does, "\n"]),
    ok = file:change_mode(Path, 8#755),
    Path.

gone(Cli) ->
    {ok, Text} = file:read_file(Cli ++ ".pid"),
    Stat = "/proc/" ++ string:trim(binary_to_list(Text)) ++ "/stat",
    until(fun() ->
        case file:read_file(Stat) of
            {ok, Line} -> binary:match(Line, <<") Z ">>) =/= nomatch;
            {error, _} -> true
        end
    end).

until(Holds) -> until(Holds, erlang:monotonic_time(millisecond) + 20000).

until(Holds, Deadline) ->
    case {Holds(), erlang:monotonic_time(millisecond) < Deadline} of
        {true, _} -> ok;
        {false, true} -> receive after 10 -> until(Holds, Deadline) end;
        {false, false} -> error({never_came_true, Holds})
    end.

%% --- whois

the_user_of_a_machine_is_named_test() ->
    ?assertEqual({ok, <<"ann@example.com">>}, user(#{})).

nobody_is_named_for_another_address_or_a_tagged_machine_test_() ->
    Nobody = [
        #{<<"Node">> => #{<<"Addresses">> => [<<"100.64.0.8/32">>]}},
        #{<<"Node">> => #{<<"Addresses">> => null}},
        #{<<"Node">> => #{
            <<"Addresses">> => [<<"100.64.0.7/32">>], <<"Tags">> => [<<"tag:baguette">>]
        }},
        #{<<"Node">> => null},
        #{<<"UserProfile">> => null},
        #{<<"UserProfile">> => #{<<"LoginName">> => <<>>}},
        #{<<"UserProfile">> => #{<<"LoginName">> => binary:copy(<<"a">>, 256)}}
    ],
    [?_assertEqual({error, nobody}, user(Changed)) || Changed <- Nobody].

whois_that_is_no_json_is_refused_test() ->
    ?assertEqual({error, not_json}, baguette_cluster_tailscale:user(<<"peer not found">>, "a")).

user(Changed) ->
    Whois = #{
        <<"Node">> => #{<<"Addresses">> => [<<"100.64.0.7/32">>, <<"fd7a::7/128">>]},
        <<"UserProfile">> => #{<<"LoginName">> => <<"ann@example.com">>}
    },
    Json = iolist_to_binary(jiffy:encode(maps:merge(Whois, Changed))),
    baguette_cluster_tailscale:user(Json, "100.64.0.7").
