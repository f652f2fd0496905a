%% @doc The finder of a tailnet: asks the local tailscale CLI who else is there. No key of the
%% control plane is needed, and none is read.
-module(baguette_cluster_discovery_tailscale).

-behaviour(baguette_cluster_discovery).

-export([find/1, status/1, selected/2, whois/2]).

-export_type([reason/0]).

%% 200 peers are about 400 KB.
-define(MAX_BYTES, 16 bsl 20).

-type reason() ::
    baguette_cluster_tailscale:reason()
    %% the CLI itself
    | {tailscale_cli, baguette_cluster_command:error()}
    %% it could not reach its daemon, most likely
    | {tailscale_exit, pos_integer()}.

-spec find(baguette_cluster_settings:settings()) ->
    {ok, [baguette_cluster_discovery:peer()]} | {error, reason()}.
find(Settings) ->
    case status(Settings) of
        {ok, Status} ->
            {ok, [
                #{address => Address, path => Path, name => Name}
             || #{address := Address, path := Path, host_name := Name} <- selected(Status, Settings)
            ]};
        {error, _} = Error ->
            Error
    end.

%% @doc Of the machines on the tailnet those that are marked as ours.
-spec selected(#{peers := [baguette_cluster_tailscale:peer()], atom() => term()},
    baguette_cluster_settings:settings()) ->
    [baguette_cluster_tailscale:peer()].
selected(#{peers := Peers}, #{tailscale_tag := Tag, tailscale_host_prefix := Prefix}) ->
    baguette_cluster_tailscale:select(Peers, #{tag => Tag, host_prefix => Prefix}).

%% @doc The tailnet as this machine sees it.
-spec status(baguette_cluster_settings:settings()) ->
    {ok, baguette_cluster_tailscale:status()} | {error, reason()}.
status(Settings) ->
    case run(["status", "--json"], Settings) of
        {ok, Output} -> baguette_cluster_tailscale:parse(Output);
        {error, _} = Error -> Error
    end.

%% @doc The login name of the user whose machine has this address.
-spec whois(string(), baguette_cluster_settings:settings()) ->
    {ok, binary()} | {error, nobody | reason()}.
whois(Address, Settings) ->
    case run(["whois", "--json", Address], Settings) of
        {ok, Output} -> baguette_cluster_tailscale:user(Output, Address);
        {error, _} = Error -> Error
    end.

run(Args, #{tailscale := Cli, tailscale_ms := Ms}) ->
    case baguette_cluster_command:run(Cli, Args, #{ms => Ms, bytes => ?MAX_BYTES}) of
        {ok, {0, Output}} -> {ok, Output};
        {ok, {Status, _}} -> {error, {tailscale_exit, Status}};
        {error, Why} -> {error, {tailscale_cli, Why}}
    end.
