%% @doc Everything of the engine that crosses nodes: one function a message, never changed once
%% released. Exchange protocol, version 1:
%%
%%   {ask, 1, To, Ref, Component, {alone | together, Rows}, Payload}
%%       generation -> baguette_engine_expert of a holder.
%%       Payload is the msgpack map of `baguette.worker.expert_entry:velocity', of so many rows,
%%       which may be computed together with others' or not. The holder's worker
%%       answers To with {baguette_engine_worker, Ref, {ok, Payload} | {error, {Class, Facts}}}.
%%       More than may wait there is answered at once with
%%       {error, {unreachable, #{node => Holder, why => busy}}}, as by a relay (below): whoever does
%%       not know of `busy' takes it for a holder that it cannot reach now.
%%   {forget, 1, Ref}                       the answer is no longer wanted.
%%   {relay, 1, To, Ref, Target, {Component, {alone | together, Rows}, Payload}}
%%       generation -> baguette_engine_relay of a node that has a link to Target where we have none.
%%       It asks Target as above, on its own behalf, and passes Target's answer on to To under Ref;
%%       or {error, {unreachable, #{node => Target, why => no_link | lost | busy}}}. No relay asks a
%%       relay. The same `forget', sent to the relay, is passed on.
%%
%% Nothing here connects and nothing blocks: a peer that is not linked now is an error at once. The
%% asker monitors the holder's server, or the relay, so a death in between is noticed without an
%% answer.
-module(baguette_engine_remote_v1).

-export([ask/3, answer/3, busy/2, forget/2, monitor/1]).
-export([ask_via/4, forget_via/2, monitor_via/1]).

-export_type([message/0, relay_message/0, ask/0, company/0]).

-type company() :: {alone | together, Rows :: pos_integer()}.
-type ask() :: {Component :: binary(), company(), Payload :: binary()}.
-type message() ::
    {ask, 1, pid(), reference(), binary(), company(), binary()} | {forget, 1, reference()}.
-type relay_message() ::
    {relay, 1, pid(), reference(), node(), ask()} | {forget, 1, reference()}.

%% @doc Ask a holder; `unreachable' when the message could not even be sent.
-spec ask(node(), reference(), ask()) -> ok | unreachable.
ask(Node, Ref, {Component, Company, Payload}) ->
    send(baguette_engine_expert, Node, {ask, 1, self(), Ref, Component, Company, Payload}).

%% @doc Answer an ask. Who answers everybody must not wait for one whose link is full: another
%% process does.
-spec answer(pid(), reference(), {ok, binary()} | {error, {atom(), map()}}) -> ok.
answer(To, Ref, Answer) ->
    surely(To, {baguette_engine_worker, Ref, Answer}).

%% @doc Answer an ask that there is no room for here.
-spec busy(pid(), reference()) -> ok.
busy(To, Ref) ->
    answer(To, Ref, {error, {unreachable, #{node => node(), why => busy}}}).

%% @doc Tell a holder that an answer is no longer wanted.
-spec forget(node(), reference()) -> ok.
forget(Node, Ref) ->
    surely({baguette_engine_expert, Node}, {forget, 1, Ref}).

%% @doc Watch a holder's expert server and, with it, the link to its node.
-spec monitor(node()) -> reference().
monitor(Node) ->
    erlang:monitor(process, {baguette_engine_expert, Node}).

%% @doc Ask a holder by way of a node that has a link to it (baguette_cluster:beyond/1).
-spec ask_via(node(), reference(), node(), ask()) -> ok | unreachable.
ask_via(Via, Ref, Target, Ask) ->
    send(baguette_engine_relay, Via, {relay, 1, self(), Ref, Target, Ask}).

%% @doc The same as forget/2 of what was asked by way of a node.
-spec forget_via(node(), reference()) -> ok.
forget_via(Via, Ref) ->
    surely({baguette_engine_relay, Via}, {forget, 1, Ref}).

%% @doc Watch a relay and, with it, the link to its node. The relay watches the holder.
-spec monitor_via(node()) -> reference().
monitor_via(Via) ->
    erlang:monitor(process, {baguette_engine_relay, Via}).

surely(To, Message) ->
    case erlang:send(To, Message, [noconnect, nosuspend]) of
        nosuspend ->
            _ = spawn(fun() -> erlang:send(To, Message, [noconnect]) end),
            ok;
        _ ->
            ok
    end.

send(Server, Node, Message) ->
    %% nosuspend: a link whose buffer is full is a slow holder, and must not stop the asker.
    case erlang:send({Server, Node}, Message, [noconnect, nosuspend]) of
        ok -> ok;
        _ -> unreachable
    end.
