%% @doc Payloads of the port: bounded msgpack, both ways, pure.
%%
%% The twin of python_worker/baguette/worker/payload.py. Atoms (and map keys) become text, binaries
%% become bytes, `{text, Binary}' becomes text; decoding gives binaries for both and never makes an
%% atom other than true, false and nil. Extension types are refused: nothing here needs them.
-module(baguette_engine_msgpack).

-export([encode/1, decode/1]).

-export_type([value/0]).

-type value() ::
    nil
    | boolean()
    | atom()
    | integer()
    | float()
    | binary()
    | {text, binary()}
    | [value()]
    | #{atom() | binary() => value()}.

-define(MAX_DEPTH, 16).
-define(MAX_ITEMS, 4096).

%% @doc Encode a value. Misuse (a term that has no msgpack form) raises `badarg'.
-spec encode(value()) -> binary().
encode(Value) ->
    iolist_to_binary(enc(Value)).

enc(nil) -> <<16#c0>>;
enc(false) -> <<16#c2>>;
enc(true) -> <<16#c3>>;
enc(Atom) when is_atom(Atom) -> text(atom_to_binary(Atom));
enc(Int) when is_integer(Int) -> int(Int);
enc(Float) when is_float(Float) -> <<16#cb, Float:64/float>>;
enc(Bin) when is_binary(Bin) -> bytes(Bin);
enc({text, Bin}) when is_binary(Bin) -> text(Bin);
enc(List) when is_list(List) -> [array(length(List)) | [enc(Item) || Item <- List]];
enc(Map) when is_map(Map) ->
    %% Sorted, so that equal maps are equal bytes whatever their size.
    Pairs = lists:keysort(1, [{key(K), V} || {K, V} <- maps:to_list(Map)]),
    [map_head(length(Pairs)) | [[text(K), enc(V)] || {K, V} <- Pairs]];
enc(_) -> error(badarg).

key(Atom) when is_atom(Atom) -> atom_to_binary(Atom);
key(Bin) when is_binary(Bin) -> Bin.

int(I) when I >= 0, I < 128 -> <<I>>;
int(I) when I >= -32, I < 0 -> <<I:8/signed>>;
int(I) when I >= 0, I < 1 bsl 8 -> <<16#cc, I:8>>;
int(I) when I >= 0, I < 1 bsl 16 -> <<16#cd, I:16>>;
int(I) when I >= 0, I < 1 bsl 32 -> <<16#ce, I:32>>;
int(I) when I >= 0, I < 1 bsl 64 -> <<16#cf, I:64>>;
int(I) when I < 0, I >= -(1 bsl 63) -> <<16#d3, I:64/signed>>;
int(_) -> error(badarg).

bytes(B) when byte_size(B) < 1 bsl 8 -> [<<16#c4, (byte_size(B)):8>>, B];
bytes(B) when byte_size(B) < 1 bsl 16 -> [<<16#c5, (byte_size(B)):16>>, B];
bytes(B) when byte_size(B) < 1 bsl 32 -> [<<16#c6, (byte_size(B)):32>>, B].

text(B) when byte_size(B) < 32 -> [<<2#101:3, (byte_size(B)):5>>, B];
text(B) when byte_size(B) < 1 bsl 8 -> [<<16#d9, (byte_size(B)):8>>, B];
text(B) when byte_size(B) < 1 bsl 16 -> [<<16#da, (byte_size(B)):16>>, B];
text(B) when byte_size(B) < 1 bsl 32 -> [<<16#db, (byte_size(B)):32>>, B].

array(N) when N < 16 -> <<2#1001:4, N:4>>;
array(N) when N < 1 bsl 16 -> <<16#dc, N:16>>;
array(N) when N < 1 bsl 32 -> <<16#dd, N:32>>.

map_head(N) when N < 16 -> <<2#1000:4, N:4>>;
map_head(N) when N < 1 bsl 16 -> <<16#de, N:16>>;
map_head(N) when N < 1 bsl 32 -> <<16#df, N:32>>.

%% @doc Decode exactly one value. Text and bytes both come back as binaries, which share the
%% memory of `Bin'. Errors: `malformed' for anything cut short, left over, too deep, too long or
%% of an unknown type.
-spec decode(binary()) -> {ok, value()} | {error, malformed}.
decode(Bin) when is_binary(Bin) ->
    try dec(Bin, 0) of
        {Value, <<>>} -> {ok, Value};
        {_, _} -> {error, malformed}
    catch
        throw:malformed -> {error, malformed}
    end.

dec(_, Depth) when Depth > ?MAX_DEPTH -> throw(malformed);
dec(<<16#c0, R/binary>>, _) -> {nil, R};
dec(<<16#c2, R/binary>>, _) -> {false, R};
dec(<<16#c3, R/binary>>, _) -> {true, R};
dec(<<0:1, I:7, R/binary>>, _) -> {I, R};
dec(<<2#111:3, I:5, R/binary>>, _) -> {I - 32, R};
dec(<<16#cc, I:8, R/binary>>, _) -> {I, R};
dec(<<16#cd, I:16, R/binary>>, _) -> {I, R};
dec(<<16#ce, I:32, R/binary>>, _) -> {I, R};
dec(<<16#cf, I:64, R/binary>>, _) -> {I, R};
dec(<<16#d0, I:8/signed, R/binary>>, _) -> {I, R};
dec(<<16#d1, I:16/signed, R/binary>>, _) -> {I, R};
dec(<<16#d2, I:32/signed, R/binary>>, _) -> {I, R};
dec(<<16#d3, I:64/signed, R/binary>>, _) -> {I, R};
dec(<<16#ca, F:32/float, R/binary>>, _) -> {F, R};
dec(<<16#cb, F:64/float, R/binary>>, _) -> {F, R};
dec(<<2#101:3, N:5, B:N/binary, R/binary>>, _) -> {B, R};
dec(<<16#d9, N:8, B:N/binary, R/binary>>, _) -> {B, R};
dec(<<16#da, N:16, B:N/binary, R/binary>>, _) -> {B, R};
dec(<<16#db, N:32, B:N/binary, R/binary>>, _) -> {B, R};
dec(<<16#c4, N:8, B:N/binary, R/binary>>, _) -> {B, R};
dec(<<16#c5, N:16, B:N/binary, R/binary>>, _) -> {B, R};
dec(<<16#c6, N:32, B:N/binary, R/binary>>, _) -> {B, R};
dec(<<2#1001:4, N:4, R/binary>>, D) -> list(N, R, D, []);
dec(<<16#dc, N:16, R/binary>>, D) -> list(N, R, D, []);
dec(<<16#dd, N:32, R/binary>>, D) -> list(N, R, D, []);
dec(<<2#1000:4, N:4, R/binary>>, D) -> map(N, R, D, #{});
dec(<<16#de, N:16, R/binary>>, D) -> map(N, R, D, #{});
dec(<<16#df, N:32, R/binary>>, D) -> map(N, R, D, #{});
dec(_, _) -> throw(malformed).

list(N, _, _, _) when N > ?MAX_ITEMS -> throw(malformed);
list(0, R, _, Acc) -> {lists:reverse(Acc), R};
list(N, R, D, Acc) ->
    {Item, R1} = dec(R, D + 1),
    list(N - 1, R1, D, [Item | Acc]).

map(N, _, _, _) when N > ?MAX_ITEMS -> throw(malformed);
map(0, R, _, Acc) -> {Acc, R};
map(N, R, D, Acc) ->
    case dec(R, D + 1) of
        {Key, R1} when is_binary(Key), not is_map_key(Key, Acc) ->
            {Value, R2} = dec(R1, D + 1),
            map(N - 1, R2, D, Acc#{Key => Value});
        _ ->
            throw(malformed)
    end.
