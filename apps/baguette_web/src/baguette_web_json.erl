%% @doc Any term of the rooms below as a value that jiffy encodes: atoms are text, a node is its
%% address, tuples are lists, keys are text, bytes that are no UTF-8 are base64. Pure; called by
%% the views, whose facts come from other nodes too.
-module(baguette_web_json).

-export([value/1, address/1]).

-spec value(term()) -> jiffy:json_value().
value(Nothing) when Nothing =:= undefined; Nothing =:= none -> null;
value(Atom) when is_boolean(Atom); Atom =:= null -> Atom;
value(Atom) when is_atom(Atom) -> address(Atom);
value(Number) when is_number(Number) -> Number;
value(Bytes) when is_binary(Bytes) -> text(Bytes);
value(List) when is_list(List) -> [value(Item) || Item <- List];
value(Tuple) when is_tuple(Tuple) -> value(tuple_to_list(Tuple));
value(Map) when is_map(Map) -> maps:fold(fun(K, V, M) -> M#{key(K) => value(V)} end, #{}, Map);
value(_) -> null.

key(Key) when is_atom(Key) -> address(Key);
key(Key) when is_integer(Key) -> integer_to_binary(Key);
key(Key) when is_binary(Key) -> text(Key);
key(_) -> <<"?">>.

text(Bytes) ->
    case unicode:characters_to_binary(Bytes) of
        Bytes -> Bytes;
        _ -> base64:encode(Bytes)
    end.

%% @doc A node by its address, any other name as it is.
-spec address(atom()) -> binary().
address(Name) ->
    case binary:split(atom_to_binary(Name), <<"@">>) of
        [<<"baguette">>, Address] -> Address;
        _ -> atom_to_binary(Name)
    end.
