%% @doc Server-sent events as bytes (the text/event-stream of the HTML standard). Pure; called by
%% the handlers that stream.
-module(baguette_web_sse).

-export([headers/0, event/3, json/1, keep_alive/0]).
-export_type([value/0]).

%% JSON that was made once already, for many streams, goes into an event as it is.
-type value() :: jiffy:json_value() | {json, iodata()}.

%% @doc What a reply that streams events is sent with.
-spec headers() -> [{binary(), iodata()}].
headers() ->
    [{<<"content-type">>, <<"text/event-stream">>}].

%% @doc One event. JSON has no line ends outside its strings, and jiffy escapes those inside them,
%% so a single data line holds any value.
-spec event(none | non_neg_integer(), Name :: iodata(), value()) -> iolist().
event(Id, Name, Value) ->
    [id(Id), <<"event: ">>, Name, <<"\ndata: ">>, data(Value), <<"\n\n">>].

data({json, Json}) -> Json;
data(Value) -> jiffy:encode(Value).

%% @doc An event's value, made into bytes now: whoever gets it shares them.
-spec json(jiffy:json_value()) -> {json, binary()}.
json(Value) -> {json, iolist_to_binary(jiffy:encode(Value))}.

id(none) -> [];
id(Id) -> [<<"id: ">>, integer_to_binary(Id), $\n].

%% @doc A comment: keeps proxies from closing a silent stream, and shows when the client has gone.
-spec keep_alive() -> binary().
keep_alive() ->
    <<": keep-alive\n\n">>.
