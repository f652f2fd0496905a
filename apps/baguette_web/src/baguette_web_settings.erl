%% @doc The web room's settings: where it listens. Pure; baguette_web_app calls it once at start.
%%
%% The address is the node's own by default. Only loopback is taken for now, because nothing here
%% asks who is calling; a tailnet address comes with tokens.
-module(baguette_web_settings).

-export([check/2]).
-export_type([settings/0]).

-type settings() :: #{
    address := inet:ip4_address(),
    port := inet:port_number() | undefined    % undefined: no listener
}.

%% @doc Checks an application environment against the node that runs with it.
-spec check([{atom(), term()}], node()) ->
    {ok, settings()} | {error, {bad_setting, Key :: atom(), Value :: term(), Why :: string()}}.
check(Env, Node) ->
    Port = proplists:get_value(port, Env),
    Address = address(proplists:get_value(address, Env), Port, Node),
    case {Address, Port} of
        {_, P} when P =/= undefined, not (is_integer(P) andalso P > 0 andalso P < 65536) ->
            {error, {bad_setting, port, Port, "must be a port number, 1..65535"}};
        {{127, _, _, _} = Loopback, _} ->
            {ok, #{address => Loopback, port => Port}};
        _ ->
            {error, {bad_setting, address, Address, "must be a loopback address, e.g. 127.0.0.1"}}
    end.

address(_, undefined, _Node) -> {127, 0, 0, 1};
address(undefined, _Port, Node) -> parse(host(atom_to_list(Node)));
address(Given, _Port, _Node) -> parse(Given).

host(Name) ->
    case string:split(Name, "@") of
        [_, "nohost"] -> "127.0.0.1";
        [_, Host] -> Host
    end.

parse(Text) ->
    case is_list(Text) andalso inet:parse_ipv4strict_address(Text) of
        {ok, Address} -> Address;
        _ -> Text
    end.
