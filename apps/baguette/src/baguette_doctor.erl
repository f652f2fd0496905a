%% @doc The part of `make doctor' that Erlang knows: the tailnet, through the finder that a node
%% uses. Runs in a small beam of its own before any node is started, prints one JSON line and ends.
%% The launcher (scripts/launcher/doctor.py) adds what it knows and prints it all. Facts become
%% sentences here, each with what to type.
-module(baguette_doctor).

-export([main/0]).
-export([tailnet/1]).

-type check() :: #{
    name := binary(),
    state := ok | bad | warn,
    text := unicode:chardata(),
    todo := unicode:chardata()
}.

%% @doc Entry point of the small beam; which CLI to run is a setting of baguette_cluster.
-spec main() -> no_return().
main() ->
    _ = application:load(baguette_cluster),
    Settings = maps:from_list(application:get_all_env(baguette_cluster)),
    Answer = baguette_cluster:tailnet(maps:with([tailscale], Settings)),
    Json = baguette_control_json:encode(found(Answer)),
    Port = open_port({fd, 0, 1}, [out]),
    true = port_command(Port, [Json, $\n]),
    true = port_close(Port),
    erlang:halt(0).

found({ok, #{own := Own}, Selected} = Answer) ->
    #{
        own => list_to_binary(Own),
        peers => [list_to_binary(Address) || Address <- Selected],
        checks => [flat(Check) || Check <- tailnet(Answer)]
    };
found({error, _} = Answer) ->
    #{own => null, peers => [], checks => [flat(Check) || Check <- tailnet(Answer)]}.

flat(#{text := Text, todo := Todo} = Check) ->
    Check#{
        text := unicode:characters_to_binary(Text),
        todo := unicode:characters_to_binary(Todo)
    }.

%% @doc What the answer of `baguette_cluster:tailnet/1' means for a person who wants to join: every
%% check up to the first that failed.
-spec tailnet({ok, map(), [string()]} | {error, term()}) -> [check()].
tailnet({ok, #{own := Own, peers := Peers, health := Health} = Status, Selected}) ->
    Counts = io_lib:format(
        "~b other machines on this tailnet, ~b of them marked as Baguette's",
        [length(Peers), length(Selected)]
    ),
    passed(address) ++
        [ok(<<"tailnet address">>, Own), marks(Counts, maps:get(marked, Status), Selected)] ++
        [warn(<<"tailnet">>, shortened(Text)) || Text <- lists:sublist(Health, 3)];
tailnet({error, Reason}) ->
    {Stage, Text, Todo} = trouble(Reason),
    passed(Stage) ++ [#{name => name(Stage), state => bad, text => Text, todo => Todo}].

%% Two machines of which neither is marked never meet.
marks(Counts, true, _Selected) ->
    ok(<<"tailnet">>, Counts);
marks(Counts, false, [_ | _]) ->
    ok(<<"tailnet">>, [Counts, "; this one is not, and finds them"]);
marks(Counts, false, []) ->
    #{
        name => <<"tailnet">>,
        state => warn,
        text => [Counts, ", nor is this one: machines that are not do not find each other"],
        todo => "sudo tailscale set --hostname=baguette-$(hostname)   (or give it tag:baguette)"
    }.

%% In the order in which one thing needs the other.
stages() -> [cli, daemon, login, networking, address].

name(cli) -> <<"tailscale command">>;
name(daemon) -> <<"tailscale daemon">>;
name(login) -> <<"tailscale login">>;
name(networking) -> <<"tailscale networking">>;
name(address) -> <<"tailnet address">>.

passed(Stage) ->
    [ok(name(S), text(S)) || S <- lists:takewhile(fun(S) -> S =/= Stage end, stages())].

text(cli) -> "it is there";
text(daemon) -> "it answers";
text(login) -> "this machine is on a tailnet";
text(networking) -> "through the kernel".

ok(Name, Text) -> #{name => Name, state => ok, text => Text, todo => ""}.

warn(Name, Text) -> #{name => Name, state => warn, text => Text, todo => "tailscale status"}.

trouble({tailscale_cli, not_found}) ->
    {cli, "there is no tailscale command",
        "install Tailscale (https://tailscale.com/download), or join without it: "
        "make join PEERS=host1,host2"};
trouble({tailscale_cli, timeout}) ->
    {daemon, "the tailscale command does not come back", "sudo systemctl restart tailscaled"};
trouble({tailscale_cli, _}) ->
    {cli, "the tailscale command does not answer as it should", "tailscale status --json"};
trouble({tailscale_exit, Status}) ->
    {daemon, io_lib:format("tailscale ends with status ~b: its daemon does not run", [Status]),
        "sudo systemctl enable --now tailscaled"};
trouble(not_json) ->
    {daemon, "tailscale answers something that is not JSON", "update Tailscale"};
trouble({backend_state, State}) ->
    login(State);
trouble(userspace_networking) ->
    {networking, "Tailscale runs in userspace networking, which carries nothing outward",
        "give this machine /dev/net/tun and start tailscaled without --tun=userspace-networking"};
trouble(no_ipv4_address) ->
    {address, "this machine has no IPv4 address on the tailnet",
        "allow IPv4 for it in the admin console (it may be switched off in the tailnet's policy)"};
trouble(Other) ->
    {cli, io_lib:format("something unexpected: ~0tP", [Other, 10]), "tailscale status"}.

login(<<"Stopped">>) ->
    {login, "Tailscale is stopped", "sudo tailscale up"};
login(<<"NeedsLogin">>) ->
    {login, "this machine is logged out", "sudo tailscale login"};
login(<<"NeedsMachineAuth">>) ->
    {login, "this machine waits for approval", "approve it in Tailscale's admin console"};
login(<<"InUseOtherUser">>) ->
    {login, "another user of this machine has Tailscale", "sudo tailscale up --operator=$USER"};
login(<<"Starting">>) ->
    {login, "Tailscale is starting", "wait a moment, then try again"};
login(State) ->
    {login, ["Tailscale is in the state ", shortened(State)], "sudo tailscale up"}.

shortened(Text) -> string:slice(Text, 0, 160).
