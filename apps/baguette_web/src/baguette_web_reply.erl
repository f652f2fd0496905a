%% @doc Status line and headers of a reply, with the security headers that every reply has. Pure;
%% called by baguette_web_connection.
-module(baguette_web_reply).

-export([head/4, stream_head/3]).

%% @doc Of a reply with a body of Length bytes.
-spec head(100..599, baguette_web_exchange:headers(), non_neg_integer(), keep | close) -> iolist().
head(Status, Headers, Length, Keep) ->
    %% RFC 9110, 8.6: a 204 has no length
    Sized = [{<<"content-length">>, integer_to_binary(Length)} || Status =/= 204],
    lines(Status, Headers, Sized ++ [{<<"connection">>, <<"close">>} || Keep =:= close]).

%% @doc Of a reply that is sent piece by piece, and then the connection closed.
-spec stream_head(100..599, baguette_web_exchange:headers(), Chunked :: boolean()) -> iolist().
stream_head(Status, Headers, Chunked) ->
    lines(Status, Headers, [
        {<<"connection">>, <<"close">>}
        | [{<<"transfer-encoding">>, <<"chunked">>} || Chunked]
    ]).

lines(Status, Headers, Framing) ->
    Named = [Name || {Name, _} <- Headers],
    Defaults = [Header || {Name, _} = Header <- defaults(), not lists:member(Name, Named)],
    [
        <<"HTTP/1.1 ">>, status(Status), <<"\r\n">>,
        [[Name, <<": ">>, Value, <<"\r\n">>] || {Name, Value} <- Framing ++ Headers ++ Defaults],
        <<"\r\n">>
    ].

%% Nothing but a page may load anything (baguette_web_guard:page_policy/1 is the page's own).
defaults() ->
    [
        {<<"server">>, <<"baguette">>},
        {<<"date">>, list_to_binary(httpd_util:rfc1123_date())},
        {<<"cache-control">>, <<"no-store">>},
        {<<"x-content-type-options">>, <<"nosniff">>},
        {<<"x-frame-options">>, <<"DENY">>},
        {<<"referrer-policy">>, <<"no-referrer">>},
        {<<"cross-origin-resource-policy">>, <<"same-origin">>},
        {<<"content-security-policy">>, <<"default-src 'none'; frame-ancestors 'none'">>}
    ].

status(Status) when Status >= 400 ->
    [integer_to_binary(Status), $\s, baguette_web_problem:title(Status)];
status(Status) ->
    [integer_to_binary(Status), $\s, httpd_util:reason_phrase(Status)].
