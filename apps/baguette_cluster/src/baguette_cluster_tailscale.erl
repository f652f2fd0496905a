%% @doc What `tailscale status --json' says, read tolerantly: any key may be missing or null, and
%% unknown ones appear with every release. Pure. Called by baguette_cluster_discovery_tailscale.
%%
%% Facts (Tailscale 1.103): it exits with 0 even when it is stopped or logged out, so only
%% BackendState counts; `Peer' is a map by public key, or null; `Online' means connected to the
%% control plane, not reachable from here; host names are self-asserted, tags are not.
-module(baguette_cluster_tailscale).

-export([parse/1, select/2, user/2]).

-export_type([status/0, peer/0, reason/0]).

-type peer() :: #{
    address := string(),
    host_name := binary(),
    tags := [binary()],
    online := boolean(),
    path := direct | relayed | unknown  % unknown: nothing goes that way now
}.
-type status() :: #{own := string(), self := peer(), peers := [peer()], health := [binary()]}.
-type reason() ::
    not_json
    %% Stopped, NeedsLogin, ...: anything but Running
    | {backend_state, binary()}
    %% Erlang distribution cannot leave through it
    | userspace_networking
    | no_ipv4_address.

%% More than any tailnet has; whoever answers for the CLI cannot make us remember more.
-define(MAX_PEERS, 10000).

%% @doc The status, or why this machine is not on a tailnet. Peers that were shared into this
%% tailnet or have expired, or that have no IPv4 address, are left out.
-spec parse(binary()) -> {ok, status()} | {error, reason()}.
parse(Json) ->
    try jiffy:decode(Json, [return_maps]) of
        Status when is_map(Status) -> status(Status);
        _ -> {error, not_json}
    catch
        _:_ -> {error, not_json}
    end.

status(#{<<"BackendState">> := <<"Running">>, <<"TUN">> := false}) ->
    {error, userspace_networking};
status(#{<<"BackendState">> := <<"Running">>} = Status) ->
    case ipv4(own(Status)) of
        {ok, Own} ->
            Listed = maps:values(value(<<"Peer">>, Status, #{})),
            Peers = [P || #{} = L <- lists:sublist(Listed, ?MAX_PEERS), {ok, P} <- [peer(L)]],
            Health = [H || H <- value(<<"Health">>, Status, []), is_binary(H)],
            {ok, Self} = peer(maps:without([<<"ShareeNode">>, <<"Expired">>], own(Status))),
            {ok, #{own => Own, self => Self, peers => Peers, health => Health}};
        error ->
            {error, no_ipv4_address}
    end;
status(Status) ->
    State = value(<<"BackendState">>, Status, <<"unknown">>),
    {error, {backend_state, binary:part(State, 0, min(40, byte_size(State)))}}.

own(Status) -> value(<<"Self">>, Status, #{}).

peer(#{<<"ShareeNode">> := true}) -> skipped;
peer(#{<<"Expired">> := true}) -> skipped;
peer(Peer) ->
    case ipv4(Peer) of
        {ok, Address} ->
            {ok, #{
                address => Address,
                host_name => value(<<"HostName">>, Peer, <<>>),
                tags => [Tag || Tag <- value(<<"Tags">>, Peer, []), is_binary(Tag)],
                online => value(<<"Online">>, Peer, false),
                path => path(Peer)
            }};
        error ->
            skipped
    end.

%% CurAddr is empty for a peer one does not talk to, too.
path(Peer) ->
    Direct = value(<<"CurAddr">>, Peer, <<>>) =/= <<>>,
    case value(<<"Active">>, Peer, false) of
        _ when Direct -> direct;
        true -> relayed;
        false -> unknown
    end.

%% The first address of Tailscale's own range, 100.64.0.0/10; the order of v4 and v6 is any.
ipv4(#{} = Node) ->
    Listed = value(<<"TailscaleIPs">>, Node, []),
    case [A || A <- lists:sublist(Listed, 16), is_binary(A), is_tailscale(A)] of
        [Address | _] -> {ok, binary_to_list(Address)};
        [] -> error
    end.

is_tailscale(Address) ->
    baguette_cluster_node_name:is_address(Address) andalso
        case inet:parse_ipv4strict_address(binary_to_list(Address)) of
            {ok, {100, B, _, _}} -> B >= 64 andalso B < 128;
            _ -> false
        end.

%% Null, absent and of another kind are all the same to us.
value(Key, Map, Default) ->
    case Map of
        #{Key := Value} when is_map(Value), is_map(Default) -> Value;
        #{Key := Value} when is_list(Value), is_list(Default) -> Value;
        #{Key := Value} when is_binary(Value), is_binary(Default) -> Value;
        #{Key := Value} when is_boolean(Value), is_boolean(Default) -> Value;
        _ -> Default
    end.

%% @doc Whom `tailscale whois --json' names: the user of the machine that has this address. A tagged
%% machine is no user's, whatever the profile beside it says.
-spec user(binary(), Address :: string()) -> {ok, binary()} | {error, nobody | not_json}.
user(Json, Address) ->
    try jiffy:decode(Json, [return_maps]) of
        #{<<"Node">> := #{} = Node, <<"UserProfile">> := #{} = Profile} ->
            Tagged = value(<<"Tags">>, Node, []) =/= [],
            Ours = lists:member(<<(list_to_binary(Address))/binary, "/32">>, addresses(Node)),
            login(not Tagged andalso Ours, value(<<"LoginName">>, Profile, <<>>));
        _ ->
            {error, nobody}
    catch
        _:_ -> {error, not_json}
    end.

addresses(Node) -> value(<<"Addresses">>, Node, []).

login(true, Login) when byte_size(Login) > 0, byte_size(Login) =< 255 -> {ok, Login};
login(_, _) -> {error, nobody}.

%% @doc The peers that may be ours, those the control plane sees first: all with the
%% tag, which nobody can give himself; only where nobody has it, all whose host name begins so.
-spec select([peer()], #{tag := string(), host_prefix := string()}) -> [peer()].
select(Peers, #{tag := Tag, host_prefix := Prefix}) ->
    Wanted = unicode:characters_to_binary(Tag),
    case [P || #{tags := Tags} = P <- Peers, lists:member(Wanted, Tags)] of
        [] -> in_order([P || #{host_name := Name} = P <- Peers, begins(Name, Prefix)]);
        Tagged -> in_order(Tagged)
    end.

in_order(Peers) ->
    {Online, Others} = lists:partition(fun(#{online := Online}) -> Online end, Peers),
    lists:sort(Online) ++ lists:sort(Others).

begins(Name, Prefix) ->
    string:prefix(string:lowercase(Name), string:lowercase(Prefix)) =/= nomatch.
