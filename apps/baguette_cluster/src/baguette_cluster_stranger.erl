%% @doc What a long-lived process does with a message it does not know: says so once per shape and
%% drops it. A peer of the next version may send such a thing every beat; a log line every beat
%% helps nobody. Remembers in the caller's process dictionary, a bounded number of shapes.
-module(baguette_cluster_stranger).

-include_lib("kernel/include/logger.hrl").

-export([drop/2]).

-define(MAX_SHAPES, 32).

-spec drop(module(), term()) -> ok.
drop(Module, Message) ->
    Shape = shape(Message),
    Known = case get(?MODULE) of undefined -> []; List -> List end,
    case lists:member(Shape, Known) orelse length(Known) >= ?MAX_SHAPES of
        true ->
            ok;
        false ->
            _ = put(?MODULE, [Shape | Known]),
            ?LOG_NOTICE(#{what => unknown_message_dropped, module => Module, shape => Shape},
                #{domain => [baguette, cluster]})
    end.

%% Names and sizes only: a stranger's content has no place in our log.
shape(Message) when is_tuple(Message) ->
    {tuple, [word(E) || E <- lists:sublist(tuple_to_list(Message), 4)]};
shape(Message) -> word(Message).

word(Atom) when is_atom(Atom) -> Atom;
word(Tuple) when is_tuple(Tuple), tuple_size(Tuple) > 0, is_atom(element(1, Tuple)) ->
    {element(1, Tuple), tuple_size(Tuple)};
word(Tuple) when is_tuple(Tuple) -> tuple;
word(Map) when is_map(Map) -> map;
word(List) when is_list(List) -> list;
word(Bin) when is_binary(Bin) -> binary;
word(Number) when is_number(Number) -> number;
word(_) -> other.
