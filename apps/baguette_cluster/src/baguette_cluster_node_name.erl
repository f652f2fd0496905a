%% @doc IPv4 address <-> node name, and the only place where atoms are made from outside input.
%% An atom is for ever, so only a strict, canonical, dotted IPv4 address becomes one, and none at
%% all once the atom table is four fifths full. Pure but for that look at the table.
%% Use it too to tell a member's name ('baguette@A.B.C.D') from any other node's.
-module(baguette_cluster_node_name).

-export([from_address/1, from_name/1, to_address/1, is_address/1, is_member_name/1]).

-define(PREFIX, "baguette@").
-define(LONGEST, 15). % "255.255.255.255"

-spec from_address(term()) -> {ok, node()} | {error, bad_address | atom_table_nearly_full}.
from_address(Address) ->
    case canonical(Address) of
        {ok, Text} -> to_atom(list_to_binary([?PREFIX, Text]));
        error -> {error, bad_address}
    end.

%% @doc The same for a whole name.
-spec from_name(binary()) -> {ok, node()} | {error, bad_address | atom_table_nearly_full}.
from_name(<<?PREFIX, Address/binary>>) -> from_address(Address);
from_name(_) -> {error, bad_address}.

-spec to_address(node()) -> {ok, string()} | {error, not_a_member_name}.
to_address(Node) ->
    case atom_to_list(Node) of
        ?PREFIX ++ Text ->
            case canonical(Text) of
                {ok, Text} -> {ok, Text};
                _ -> {error, not_a_member_name}
            end;
        _ ->
            {error, not_a_member_name}
    end.

-spec is_address(term()) -> boolean().
is_address(Address) ->
    canonical(Address) =/= error.

-spec is_member_name(term()) -> boolean().
is_member_name(Node) when is_atom(Node) ->
    to_address(Node) =/= {error, not_a_member_name};
is_member_name(_) ->
    false.

%% "010.0.0.1" is 8.0.0.1 to inet: only the spelling that inet itself would print is taken.
canonical(Address) when is_binary(Address), byte_size(Address) =< ?LONGEST ->
    canonical(binary_to_list(Address));
canonical(Address) when is_list(Address), length(Address) =< ?LONGEST ->
    case lists:all(fun is_digit_or_dot/1, Address) of
        true -> canonical_digits(Address);
        false -> error
    end;
canonical(_) ->
    error.

is_digit_or_dot(C) ->
    C =:= $. orelse (is_integer(C) andalso C >= $0 andalso C =< $9).

canonical_digits(Address) ->
    case inet:parse_ipv4strict_address(Address) of
        {ok, Ip} ->
            case inet:ntoa(Ip) of
                Address -> {ok, Address};
                _ -> error
            end;
        {error, _} ->
            error
    end.

to_atom(Name) ->
    try
        {ok, binary_to_existing_atom(Name, latin1)}
    catch
        error:badarg ->
            new_atom(Name, erlang:system_info(atom_count), erlang:system_info(atom_limit))
    end.

new_atom(Name, Count, Limit) when Count * 5 < Limit * 4 -> {ok, binary_to_atom(Name, latin1)};
new_atom(_Name, _Count, _Limit) -> {error, atom_table_nearly_full}.
