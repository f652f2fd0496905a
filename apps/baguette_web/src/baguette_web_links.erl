%% @doc Every node's links, as last asked for: asking waits for the slowest peer, so whoever can do
%% with what is a few seconds old takes that. A table of the supervisor's; who asks anew writes it
%% (the dashboard's look every two seconds, or a client when nobody watches), the last one wins.
-module(baguette_web_links).

-export([new/0, recent/0, asked/0]).

-define(FRESH_MS, 3000).

%% @doc Makes the table; its owner is the caller, baguette_web_sup.
-spec new() -> ok.
new() ->
    ?MODULE = ets:new(?MODULE, [named_table, public, {read_concurrency, true}]),
    ok.

%% @doc As known, when it is not too old.
-spec recent() -> [map()].
recent() ->
    Now = erlang:monotonic_time(millisecond),
    case ets:lookup(?MODULE, links) of
        [{links, At, Links}] when Now - At < ?FRESH_MS -> Links;
        _ -> asked()
    end.

%% @doc Asks all nodes.
-spec asked() -> [map()].
asked() ->
    Links = baguette_cluster:links(),
    true = ets:insert(?MODULE, {links, erlang:monotonic_time(millisecond), Links}),
    Links.
