%% @doc Which experts the router really asks: a histogram of this node's own asks, as a moving
%% average, published in its report, so that nodes to spare become replicas of what is asked most
%% (baguette_cluster_placement). Generations count into a table that baguette_engine_sup owns; this
%% process looks at it now and then. When it dies, nothing is counted twice or lost but its average.
-module(baguette_engine_usage).
-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/0, table/0, asked/1]).
-export([average/3, per_mille/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(LOOK_MS, 5000).
%% After so long without an ask half of what was counted is forgotten.
-define(HALF_LIFE_MS, 600000).
%% Fewer than this say nothing about the next picture.
-define(LEAST_ASKS, 50).

-type average() :: #{Component :: binary() => float()}.
-record(?MODULE, {
    average = #{} :: average(), % asks, older ones counting less
    looked_ms :: integer(),
    published = #{} :: #{binary() => 0..1000}
}).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

-spec table() -> ok.
table() ->
    ?MODULE = ets:new(?MODULE, [named_table, public, {write_concurrency, true}]),
    ok.

%% @doc One more ask of this component.
-spec asked(binary()) -> ok.
asked(Component) ->
    _ = ets:update_counter(?MODULE, Component, 1, {Component, 0}),
    ok.

-spec init([]) -> {ok, #?MODULE{}}.
init([]) ->
    _ = erlang:send_after(?LOOK_MS, self(), look),
    {ok, #?MODULE{looked_ms = now_ms()}}.

-spec handle_call(term(), gen_server:from(), #?MODULE{}) ->
    {reply, {error, unknown_call}, #?MODULE{}}.
handle_call(_Request, _From, S) ->
    {reply, {error, unknown_call}, S}.

-spec handle_cast(term(), #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_cast(_Message, S) ->
    {noreply, S}.

-spec handle_info(look | term(), #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_info(look, #?MODULE{average = Before, looked_ms = Looked} = S) ->
    _ = erlang:send_after(?LOOK_MS, self(), look),
    Now = now_ms(),
    Average = average(taken(), Now - Looked, Before),
    {noreply, published(S#?MODULE{average = Average, looked_ms = Now})};
handle_info(_Other, S) ->
    {noreply, S}.

%% Counted since the last look. Taken row by row: an ask in between is counted with the next.
taken() ->
    maps:from_list(lists:append([ets:take(?MODULE, C) || {C, _} <- ets:tab2list(?MODULE)])).

%% @doc The average after Ms more milliseconds in which so many asks were made.
-spec average(#{binary() => non_neg_integer()}, non_neg_integer(), average()) -> average().
average(Asked, Ms, Before) ->
    Weight = math:pow(0.5, Ms / ?HALF_LIFE_MS),
    Faded = maps:map(fun(_, Count) -> Count * Weight end, Before),
    Both = maps:fold(
        fun(C, N, Sofar) -> maps:update_with(C, fun(Old) -> Old + N end, float(N), Sofar) end,
        Faded,
        Asked
    ),
    maps:filter(fun(_, Count) -> Count >= 0.01 end, Both).

%% @doc Each component's share of all asks; nothing while there were too few.
-spec per_mille(average()) -> #{binary() => 0..1000}.
per_mille(Average) ->
    case lists:sum(maps:values(Average)) of
        Sum when Sum < ?LEAST_ASKS -> #{};
        Sum -> maps:map(fun(_, Count) -> round(1000 * Count / Sum) end, Average)
    end.

published(#?MODULE{average = Average, published = Before} = S) ->
    Share = per_mille(Average),
    case differs(Share, Before) of
        false ->
            S;
        true ->
            _ = said(baguette_cluster:publish(usage, Share)),
            S#?MODULE{published = Share}
    end.

said(ok) ->
    ok;
said({error, Reason}) ->
    %% More components than a report has room for: the plan then takes all as equal.
    ?LOG_NOTICE(#{what => usage_not_published, reason => Reason}, #{domain => [baguette, engine]}).

%% By a fifth or more somewhere: gossip is not for noise.
differs(Share, Before) ->
    Keys = lists:usort(maps:keys(Share) ++ maps:keys(Before)),
    lists:any(
        fun(C) ->
            New = maps:get(C, Share, 0),
            Old = maps:get(C, Before, 0),
            abs(New - Old) * 5 > max(10, Old)
        end,
        Keys
    ).

now_ms() -> erlang:monotonic_time(millisecond).
