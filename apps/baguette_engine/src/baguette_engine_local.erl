%% @doc The call that a generation has with its own node's pipeline worker: made again when the
%% worker dies or its server is away, and said to be late when it is. Pure; held by
%% baguette_engine_step. Nobody else has our pipeline, so a late call is waited for. Times are
%% microseconds.
-module(baguette_engine_local).

-export([new/1, call/4, answered/1]).
-export([died/2, away/2, look/2, thawed/2]). % what may come instead of an answer
-export([is_out/1, next_us/1, took_us/2]).

-export_type([local/0, effect/0]).

-define(MAX_DEATHS, 3).
%% A call that nobody took is made again after so long.
-define(RECALL_US, 250000).

-type call() :: {Function :: atom(), map(), {together | alone, Rows :: pos_integer()}}.
-type effect() ::
    %% call the pipeline worker, together with others' calls of the function or alone
    {call, Function :: atom(), map(), baguette_engine_calls:company()}
    | {publish, term()}.

-record(?MODULE, {
    floor_us :: pos_integer(),
    %% To be made again if its worker dies.
    call = none :: none | call(),
    called_us = 0 :: integer(),
    late_us = 0 :: integer(),
    %% Nobody took it: it is made again then.
    recall_us = never :: never | integer(),
    deaths = 0 :: non_neg_integer()
}).
-opaque local() :: #?MODULE{}.

%% @doc None is out. A call is late after `FloorUs' at the earliest.
-spec new(FloorUs :: pos_integer()) -> local().
new(FloorUs) -> #?MODULE{floor_us = FloorUs}.

%% @doc Make a call; its answer is what ends it.
-spec call(call(), NowUs :: integer(), [effect()], local()) -> {local(), [effect()]}.
call({Function, Payload, _} = Call, Now, Before, #?MODULE{floor_us = Floor} = L) ->
    Called = L#?MODULE{
        call = Call, called_us = Now, late_us = Now + Floor, recall_us = never
    },
    {Called, Before ++ [{call, Function, Payload, company(Called)}]}.

%% After a death of its worker it is made alone: it may be what the worker died of.
company(#?MODULE{call = {Function, _, {together, Rows}}, deaths = 0}) -> {Function, Rows};
company(#?MODULE{call = {_, _, {_, Rows}}}) -> {alone, Rows}.

%% @doc It was answered: which one it was.
-spec answered(local()) -> {Function :: atom(), local()}.
answered(#?MODULE{call = {Function, _, _}} = L) ->
    {Function, L#?MODULE{call = none, deaths = 0}}.

%% @doc Its worker died.
-spec died(NowUs :: integer(), local()) -> {local(), [effect()]} | {failed, {atom(), map()}}.
died(_Now, #?MODULE{deaths = Deaths, call = {Function, _, _}}) when Deaths + 1 >= ?MAX_DEATHS ->
    {failed, {pipeline_died, #{during => Function, deaths => Deaths + 1}}};
died(Now, #?MODULE{deaths = Deaths, call = Call} = L) ->
    call(Call, Now, [restarting(L)], L#?MODULE{deaths = Deaths + 1}).

%% @doc Its server is being restarted. That is no death: no worker died of this call.
-spec away(NowUs :: integer(), local()) -> {local(), [effect()]}.
away(Now, L) ->
    {L#?MODULE{recall_us = Now + ?RECALL_US}, [restarting(L)]}.

restarting(#?MODULE{call = {Function, _, _}}) ->
    {publish, {waiting, #{reason => pipeline_restarting, during => Function}}}.

%% @doc What the clock says of it.
-spec look(NowUs :: integer(), local()) -> {local(), [effect()]}.
look(Now, #?MODULE{recall_us = At, call = Call} = L) when At =< Now ->
    call(Call, Now, [], L);
look(Now, #?MODULE{late_us = At, called_us = Called, call = {Function, _, _}} = L) when At =< Now ->
    Late = {publish, {waiting, #{reason => pipeline_late, during => Function}}},
    {L#?MODULE{late_us = Now + (Now - Called)}, [Late]};
look(_Now, L) ->
    {L, []}.

%% @doc We ourselves were frozen for so long.
-spec thawed(Us :: non_neg_integer(), local()) -> local().
thawed(Us, #?MODULE{late_us = Late, recall_us = never} = L) ->
    L#?MODULE{late_us = Late + Us};
thawed(Us, #?MODULE{late_us = Late, recall_us = At} = L) ->
    L#?MODULE{late_us = Late + Us, recall_us = At + Us}.

-spec is_out(local()) -> boolean().
is_out(#?MODULE{call = Call}) -> Call =/= none.

%% @doc When it is to be looked at next.
-spec next_us(local()) -> integer().
next_us(#?MODULE{recall_us = never, late_us = Late}) -> Late;
next_us(#?MODULE{recall_us = Recall}) -> Recall.

%% @doc How long the last one has taken by now.
-spec took_us(NowUs :: integer(), local()) -> integer().
took_us(Now, #?MODULE{called_us = Called}) -> Now - Called.
