%% @doc Server-sent events as bytes (the text/event-stream of the HTML standard). Pure; called by
%% the handlers that stream.
-module(baguette_web_sse).

-export([headers/0, event/3, keep_alive/0]).

%% @doc What a reply that streams events is sent with.
-spec headers() -> [{binary(), iodata()}].
headers() ->
    [{<<"content-type">>, <<"text/event-stream">>}].

%% @doc One event. JSON has no line ends outside its strings, and jiffy escapes those inside them,
%% so a single data line holds any value.
-spec event(none | non_neg_integer(), Name :: iodata(), Value) -> iolist() when
    Value :: jiffy:json_value() | {json, Encoded :: iodata()}.
event(Id, Name, Value) ->
    [id(Id), <<"event: ">>, Name, <<"\ndata: ">>, encoded(Value), <<"\n\n">>].

%% An event with many readers is encoded once.
encoded({json, Encoded}) -> Encoded;
encoded(Value) -> jiffy:encode(Value).

id(none) -> [];
id(Id) -> [<<"id: ">>, integer_to_binary(Id), $\n].

%% @doc A comment: keeps proxies from closing a silent stream, and shows when the client has gone.
-spec keep_alive() -> binary().
keep_alive() ->
    <<": keep-alive\n\n">>.
