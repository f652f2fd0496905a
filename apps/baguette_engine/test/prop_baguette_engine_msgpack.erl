%% @doc Properties of the port's payloads. Run by baguette_engine_msgpack_tests.
-module(prop_baguette_engine_msgpack).

-include_lib("proper/include/proper.hrl").

-export([
    prop_what_is_encoded_is_decoded/0,
    prop_equal_maps_are_equal_bytes/0,
    prop_any_bytes_get_an_answer/0,
    prop_cut_short_is_malformed/0,
    prop_left_over_is_malformed/0
]).

value() -> ?SIZED(Size, value(Size)).

value(0) ->
    oneof([
        nil, true, false, binary(), float(),
        integer(-(1 bsl 63), (1 bsl 64) - 1), integer(-40, 300)
    ]);
value(Size) ->
    Smaller = Size div 3,
    ?LAZY(frequency([
        {3, value(0)},
        {1, resize(min(Size, 20), list(value(Smaller)))},
        {1, object(Smaller)}
    ])).

object(Size) ->
    ?LET(Pairs, resize(8, list({binary(), value(Size)})), maps:from_list(Pairs)).

prop_what_is_encoded_is_decoded() ->
    ?FORALL(Value, resize(30, value()), begin
        Bytes = baguette_engine_msgpack:encode(Value),
        ?WHENFAIL(
            io:format("~p~n~p~n", [Value, Bytes]),
            baguette_engine_msgpack:decode(Bytes) =:= {ok, Value}
        )
    end).

prop_equal_maps_are_equal_bytes() ->
    ?FORALL(Pairs, list({binary(), integer()}), begin
        %% The later of two equal keys counts, so only the order of different keys is turned round.
        Map = maps:from_list(Pairs),
        Turned = maps:from_list(lists:reverse(maps:to_list(Map))),
        baguette_engine_msgpack:encode(Map) =:= baguette_engine_msgpack:encode(Turned)
    end).

prop_any_bytes_get_an_answer() ->
    ?FORALL(Bytes, binary(), case baguette_engine_msgpack:decode(Bytes) of
        {ok, Value} -> is_binary(baguette_engine_msgpack:encode(Value));
        {error, malformed} -> true
    end).

prop_cut_short_is_malformed() ->
    ?FORALL(Value, resize(20, value()), begin
        Bytes = baguette_engine_msgpack:encode(Value),
        ?FORALL(Length, range(0, byte_size(Bytes) - 1),
            baguette_engine_msgpack:decode(binary:part(Bytes, 0, Length)) =:= {error, malformed})
    end).

prop_left_over_is_malformed() ->
    ?FORALL({Value, More}, {resize(20, value()), non_empty(binary())}, begin
        Bytes = baguette_engine_msgpack:encode(Value),
        baguette_engine_msgpack:decode(<<Bytes/binary, More/binary>>) =:= {error, malformed}
    end).
