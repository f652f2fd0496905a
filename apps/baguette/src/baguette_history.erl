%% @doc One generation's story, gathered from the nodes that took part: what its requester logged of
%% it, and between its begin and its end what happened around it, so that a cause stands beside its
%% effect. Behind baguette:events/1. Two rounds of calls to whoever is linked; nothing is kept here.
%%
%% Times are each node's own clock: across machines the order is as good as their clocks agree.
-module(baguette_history).

-export([of_generation/1, story/3]).
-export_type([told/0]).

%% An event and the node that logged it.
-type told() :: {node(), baguette_event:event()}.

-define(ANSWER_MS, 2000).

%% @doc All of the generation whose id begins so, oldest first.
-spec of_generation(binary()) -> {ok, [told()]} | {error, {atom(), map()}}.
of_generation(Prefix) ->
    Found = [{Node, Span} || {Node, Spans} <- ask(spans, [Prefix]), Span <- Spans],
    case lists:usort([Id || {_, #{generation := Id}} <- Found]) of
        [Id] ->
            From = lists:min([At || {_, #{from_us := At}} <- Found]),
            To = lists:max([At || {_, #{to_us := At}} <- Found]),
            Requesters = [Node || {Node, _} <- Found],
            {ok, story(Id, Requesters, ask(between, [From, To]))};
        [] ->
            {error, {unknown_generation, #{id => Prefix}}};
        Several ->
            {error, {ambiguous_generation, #{id => Prefix, could_be => Several}}}
    end.

%% @doc The generation's own events, all else its requester logged meanwhile but other generations,
%% and of the other nodes what happened to their workers and components: whom they had links with
%% is another story.
-spec story(binary(), [node()], [{node(), [baguette_event:event()]}]) -> [told()].
story(Id, Requesters, Logged) ->
    Told = [
        {Node, Event}
     || {Node, Events} <- Logged,
        Event <- Events,
        belongs(Event, Id, lists:member(Node, Requesters))
    ],
    lists:sort(fun({_, #{at_us := A}}, {_, #{at_us := B}}) -> A =< B end, Told).

belongs(#{generation := Id}, Id, _IsRequester) -> true;
belongs(#{generation := _}, _Id, _IsRequester) -> false;
belongs(_Event, _Id, true) -> true;
belongs(#{room := engine}, _Id, false) -> true;
belongs(#{what := What}, _Id, false) -> lists:member(What, [holding, component_failed]).

%% Who does not answer has nothing to tell.
ask(Function, Args) ->
    Nodes = [node() | nodes()],
    Answers = erpc:multicall(Nodes, baguette_events, Function, Args, ?ANSWER_MS),
    [{Node, Answer} || {Node, {ok, Answer}} <- lists:zip(Nodes, Answers)].
