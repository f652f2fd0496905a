%% Every state of Tailscale becomes checks of which the last failed one says what to type.
-module(baguette_doctor_tests).

-include_lib("eunit/include/eunit.hrl").

-define(STATES, [
    {{tailscale_cli, not_found}, <<"tailscale command">>, "install Tailscale"},
    {{tailscale_cli, timeout}, <<"tailscale daemon">>, "restart tailscaled"},
    {{tailscale_cli, too_much_output}, <<"tailscale command">>, "tailscale status"},
    {{tailscale_exit, 1}, <<"tailscale daemon">>, "enable --now tailscaled"},
    {not_json, <<"tailscale daemon">>, "update"},
    {{backend_state, <<"Stopped">>}, <<"tailscale login">>, "tailscale up"},
    {{backend_state, <<"NeedsLogin">>}, <<"tailscale login">>, "tailscale login"},
    {{backend_state, <<"NeedsMachineAuth">>}, <<"tailscale login">>, "admin console"},
    {{backend_state, <<"Starting">>}, <<"tailscale login">>, "wait"},
    {{backend_state, <<"InUseOtherUser">>}, <<"tailscale login">>, "operator"},
    {{backend_state, <<"NeverHeardOf">>}, <<"tailscale login">>, "tailscale up"},
    {userspace_networking, <<"tailscale networking">>, "/dev/net/tun"},
    {no_ipv4_address, <<"tailnet address">>, "admin console"},
    {something_new, <<"tailscale command">>, "tailscale status"}
]).

each_trouble_is_named_with_what_to_type_test_() ->
    [
        {lists:flatten(io_lib:format("~0tp", [Reason])), fun() ->
            #{name := Found, state := State, todo := Todo} =
                lists:last(baguette_doctor:tailnet({error, Reason})),
            ?assertEqual({Name, bad}, {Found, State}),
            ?assertMatch({match, _}, re:run(Todo, Type))
        end}
     || {Reason, Name, Type} <- ?STATES
    ].

what_was_passed_before_is_said_too_test() ->
    Checks = baguette_doctor:tailnet({error, {backend_state, <<"Stopped">>}}),
    ?assertEqual([ok, ok, bad], [State || #{state := State} <- Checks]).

a_good_tailnet_says_who_is_there_test() ->
    Peer = #{address => "100.64.0.2", host_name => <<"two">>, tags => [], online => true},
    Status = #{own => "100.64.0.1", peers => [Peer], health => [], marked => true},
    Checks = baguette_doctor:tailnet({ok, Status, ["100.64.0.2"]}),
    ?assertEqual([], [C || #{state := State} = C <- Checks, State =/= ok]),
    #{text := Text} = lists:last(Checks),
    ?assertEqual(
        "1 other machines on this tailnet, 1 of them marked as Baguette's", lists:flatten(Text)
    ).

machines_that_nobody_could_find_are_warned_of_test() ->
    Status = #{own => "100.64.0.1", peers => [], health => [], marked => false},
    ?assertMatch(#{state := warn}, lists:last(baguette_doctor:tailnet({ok, Status, []}))),
    Found = baguette_doctor:tailnet({ok, Status, ["100.64.0.2"]}),
    ?assertMatch(#{state := ok}, lists:last(Found)).

complaints_of_tailscale_itself_are_handed_on_test() ->
    Status = #{own => "100.64.0.1", peers => [], health => [<<"no DNS">>], marked => true},
    ?assertMatch(
        #{state := warn, text := <<"no DNS">>},
        lists:last(baguette_doctor:tailnet({ok, Status, []}))
    ).
