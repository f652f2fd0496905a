%% @doc A small square of 8-bit RGB pixels as a PNG file with text chunks: what a simulated device
%% hands out as a picture. Pure; real pictures are encoded in Python (baguette/image.py).
-module(baguette_engine_simulated_png).

-export([encode/3]).

-define(SIGNATURE, 137, "PNG", 13, 10, 26, 10).

%% @doc `Pixels' are Side * Side * 3 bytes, row by row; keys and values of `Text' Latin-1.
-spec encode(pos_integer(), Pixels :: binary(), Text :: #{binary() => binary()}) -> binary().
encode(Side, Pixels, Text) when byte_size(Pixels) =:= Side * Side * 3 ->
    Rows = [<<0, Row/binary>> || <<Row:(Side * 3)/binary>> <= Pixels],
    iolist_to_binary([
        <<?SIGNATURE>>,
        chunk("IHDR", <<Side:32, Side:32, 8, 2, 0, 0, 0>>),
        [chunk("tEXt", [Key, 0, Value]) || {Key, Value} <- lists:sort(maps:to_list(Text))],
        chunk("IDAT", zlib:compress(Rows)),
        chunk("IEND", [])
    ]).

chunk(Type, Data) ->
    Body = [Type, Data],
    [<<(iolist_size(Data)):32>>, Body, <<(erlang:crc32(Body)):32>>].
