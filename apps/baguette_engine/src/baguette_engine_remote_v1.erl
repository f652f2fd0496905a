%% @doc Everything of the engine that crosses nodes: one function a message, never changed once
%% released. Exchange protocol, version 1:
%%
%%   {ask, 1, To, Ref, Component, Payload}  generation -> baguette_engine_expert of a holder.
%%       Payload is the msgpack map of `baguette.worker.expert_entry:velocity'. The holder's worker
%%       answers To with {baguette_engine_worker, Ref, {ok, Payload} | {error, {Class, Facts}}}.
%%   {forget, 1, Ref}                       the answer is no longer wanted.
%%
%% Nothing here connects and nothing blocks: a peer that is not linked now is an error at once. The
%% asker monitors the holder's server, so a death in between is noticed without an answer.
-module(baguette_engine_remote_v1).

-export([ask/4, forget/2, monitor/1]).

-export_type([message/0]).

-type message() ::
    {ask, 1, pid(), reference(), binary(), binary()} | {forget, 1, reference()}.

%% @doc Ask a holder; `unreachable' when the message could not even be sent.
-spec ask(node(), reference(), binary(), binary()) -> ok | unreachable.
ask(Node, Ref, Component, Payload) ->
    send(Node, {ask, 1, self(), Ref, Component, Payload}).

%% @doc Tell a holder that an answer is no longer wanted.
-spec forget(node(), reference()) -> ok | unreachable.
forget(Node, Ref) ->
    send(Node, {forget, 1, Ref}).

%% @doc Watch a holder's expert server and, with it, the link to its node.
-spec monitor(node()) -> reference().
monitor(Node) ->
    erlang:monitor(process, {baguette_engine_expert, Node}).

send(Node, Message) ->
    %% nosuspend: a link whose buffer is full is a slow holder, and must not stop the asker.
    case erlang:send({baguette_engine_expert, Node}, Message, [noconnect, nosuspend]) of
        ok -> ok;
        _ -> unreachable
    end.
