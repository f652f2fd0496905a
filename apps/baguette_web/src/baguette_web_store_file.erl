%% @doc What stands in a job's file: a line with a hash, a JSON object, and bytes that only the
%% engine reads. Pure; only baguette_web_store uses it.
%%
%% Files are replaced whole, so one that is torn was torn by the disk or by somebody's hand: the
%% hash says so, whatever is left of it.
-module(baguette_web_store_file).

-export([encode/2, decode/1]).

-define(MAGIC, "baguette-job-1 ").
-define(HASH, 64).    % hexadecimal digits of a SHA-256

%% @doc The file's bytes.
-spec encode(jiffy:json_value(), binary()) -> iolist().
encode(Object, Bytes) ->
    Json = iolist_to_binary(jiffy:encode(Object)),
    Body = [Json, Bytes],
    [?MAGIC, hash(Body), $\s, integer_to_binary(byte_size(Json)), $\n, Body].

%% @doc The object, with binary keys, and the bytes.
-spec decode(binary()) -> {ok, #{binary() => term()}, binary()} | {error, damaged}.
decode(<<?MAGIC, Hash:?HASH/binary, " ", Rest/binary>>) ->
    try
        [Length, Body] = binary:split(Rest, <<"\n">>),
        Hash = hash(Body),
        Size = binary_to_integer(Length),
        <<Json:Size/binary, Bytes/binary>> = Body,
        #{} = Object = jiffy:decode(Json, [return_maps, copy_strings]),
        {ok, Object, Bytes}
    catch
        %% A line that is not ours, a hash that is another, or bytes that are no JSON: jiffy throws.
        _:_ -> {error, damaged}
    end;
decode(_) ->
    {error, damaged}.

hash(Body) -> string:lowercase(binary:encode_hex(crypto:hash(sha256, Body))).
