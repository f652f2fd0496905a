%% @doc Tokens: NAME "." base64url(HMAC-SHA256(Key, "baguette http token 1:" NAME)). Pure.
%%
%% A token is checked, not looked up: every node that has the cluster's key knows every token, and
%% no list of them lies anywhere (docs/decisions/0013). NAME is who asks, for fairness and for the
%% list of jobs; scripts/launcher/tokens.py makes the same tokens.
-module(baguette_web_tokens).

-export([new/2, name/2]).

-define(LABEL, "baguette http token 1:").

%% @doc The token of a name.
-spec new(Name :: binary(), Key :: binary()) -> binary().
new(Name, Key) ->
    <<Name/binary, ".", (mac(Name, Key))/binary>>.

%% @doc Whose token this is.
-spec name(Token :: binary(), Key :: binary()) -> {ok, Name :: binary()} | error.
name(Token, Key) ->
    case binary:split(Token, <<".">>) of
        [Name, Mac] -> checked(is_name(Name), Name, Mac, Key);
        _ -> error
    end.

checked(true, Name, Mac, Key) ->
    Wanted = mac(Name, Key),
    %% hash_equals takes the same time wherever they differ, and wants them of one size
    case byte_size(Mac) =:= byte_size(Wanted) andalso crypto:hash_equals(Mac, Wanted) of
        true -> {ok, Name};
        false -> error
    end;
checked(false, _, _, _) ->
    error.

is_name(Name) ->
    byte_size(Name) >= 1 andalso byte_size(Name) =< 32 andalso
        lists:all(fun is_name_byte/1, binary_to_list(Name)).

is_name_byte($-) -> true;
is_name_byte(C) -> (C >= $a andalso C =< $z) orelse (C >= $0 andalso C =< $9).

mac(Name, Key) ->
    Digest = crypto:mac(hmac, sha256, Key, [?LABEL, Name]),
    << <<(url_byte(C))>> || <<C>> <= base64:encode(Digest), C =/= $= >>.

url_byte($+) -> $-;
url_byte($/) -> $_;
url_byte(C) -> C.
