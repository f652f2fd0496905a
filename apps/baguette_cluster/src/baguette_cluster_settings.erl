%% @doc Every setting of this room: its default and the check that names the culprit. Pure; the
%% application calls it once at start and hands the map to the processes, which then trust it.
%% Defaults stand here and nowhere else.
-module(baguette_cluster_settings).

-export([check/2, defaults/0]).
-export_type([settings/0, bad/0]).

-type settings() :: #{
    finder := module(),                 % a baguette_cluster_discovery callback module
    peers := [string()],                % IPv4 addresses, for the static finder
    tailscale := file:filename(),       % for the tailscale finder: the CLI
    tailscale_ms := pos_integer(),      % how long it may take to answer
    tailscale_tag := string(),          % peers with this tag ...
    tailscale_host_prefix := string(),  % ... or, where nobody has it, with such a host name
    address := string() | undefined,    % our own; undefined on a node without distribution
    beat_ms := pos_integer(),           % how often our report goes out
    suspect_ms := pos_integer(),        % silence after which a linked node is not asked
    gone_ms := pos_integer(),           % standstill of a report that ends a membership
    settle_ms := non_neg_integer(),     % how long plans must agree before anything moves
    find_ms := pos_integer(),           % how often the finder is asked
    measure_ms := pos_integer(),        % how often the throughput of a link is measured
    max_peers := pos_integer(),
    component_module := module() | undefined
}.
-type bad() :: {bad_setting, Key :: term(), Value :: term(), Why :: string()}.

-spec defaults() -> #{atom() => term()}.
defaults() ->
    #{
        finder => baguette_cluster_discovery_static,
        peers => [],
        tailscale => "tailscale",
        tailscale_ms => 4000,
        tailscale_tag => "tag:baguette",
        tailscale_host_prefix => "baguette",
        address => undefined,
        beat_ms => 500,
        suspect_ms => 1400,
        gone_ms => 8000,
        settle_ms => 2000,
        find_ms => 5000,
        measure_ms => 600000,
        max_peers => 64,
        component_module => undefined
    }.

%% @doc Checks an application environment against the node that is to run with it.
-spec check([{atom(), term()}], node()) -> {ok, settings()} | {error, bad()}.
check(Env, Node) ->
    Given = lists:keydelete(included_applications, 1, Env),
    Settings = maps:merge(defaults(), maps:from_list(Given)),
    Checks = [fun() -> one(Key, Value) end || {Key, Value} <- lists:sort(maps:to_list(Settings))],
    first_bad(Checks ++ [fun() -> together(Settings) end], Settings, Node).

first_bad([], Settings, Node) ->
    own_address(Settings, baguette_cluster_node_name:to_address(Node));
first_bad([Check | Rest], Settings, Node) ->
    case Check() of
        ok -> first_bad(Rest, Settings, Node);
        {Key, Why} -> bad(Key, maps:get(Key, Settings), Why)
    end.

bad(Key, Value, Why) ->
    {error, {bad_setting, Key, Value, Why}}.

one(finder, Value) -> must(is_atom(Value), finder, "must be a module");
one(component_module, Value) -> must(is_atom(Value), component_module, "must be a module");
one(address, undefined) -> ok;
one(address, Value) -> must(is_address(Value), address, "must be an IPv4 address");
one(tailscale_ms, Value) -> within(tailscale_ms, Value, 10, 60000);
one(Key, Value) when
    Key =:= tailscale; Key =:= tailscale_tag; Key =:= tailscale_host_prefix
->
    must(is_text(Value), Key, "must be text");
one(beat_ms, Value) -> within(beat_ms, Value, 10, 60000);
one(suspect_ms, Value) -> within(suspect_ms, Value, 10, 600000);
one(gone_ms, Value) -> within(gone_ms, Value, 10, 3600000);
one(settle_ms, Value) -> within(settle_ms, Value, 0, 600000);
one(find_ms, Value) -> within(find_ms, Value, 10, 3600000);
one(measure_ms, Value) -> within(measure_ms, Value, 100, 86400000);
one(max_peers, Value) -> within(max_peers, Value, 1, 1024);
one(peers, Value) when is_list(Value) ->
    must(lists:all(fun is_address/1, Value), peers, "must be a list of IPv4 addresses");
one(peers, _) -> {peers, "must be a list of IPv4 addresses"};
one(Key, _) -> {Key, "is not a setting of baguette_cluster"}.

within(_Key, Value, Low, High) when is_integer(Value), Value >= Low, Value =< High -> ok;
within(Key, _Value, Low, High) ->
    {Key, lists:flatten(io_lib:format("must be a whole number, ~b..~b", [Low, High]))}.

must(true, _Key, _Why) -> ok;
must(false, Key, Why) -> {Key, Why}.

is_text(Value) ->
    Value =/= [] andalso io_lib:printable_unicode_list(Value).

is_address(Value) ->
    baguette_cluster_node_name:is_address(Value).

together(#{beat_ms := Beat, suspect_ms := Suspect}) when Beat * 2 > Suspect ->
    {suspect_ms, "must be at least twice beat_ms: one late beat is no reason to doubt a node"};
together(#{suspect_ms := Suspect, gone_ms := Gone}) when Suspect >= Gone ->
    {gone_ms, "must be more than suspect_ms"};
together(_) ->
    ok.

own_address(#{address := undefined} = Settings, {ok, Own}) -> {ok, Settings#{address := Own}};
own_address(#{address := Own} = Settings, {ok, Own}) -> {ok, Settings};
own_address(#{address := Other}, {ok, Own}) ->
    bad(address, Other, "is not this node's, which is " ++ Own);
own_address(Settings, {error, _}) -> {ok, Settings}.
