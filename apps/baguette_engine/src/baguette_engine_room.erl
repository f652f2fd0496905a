%% @doc How much may wait for this node's experts, and what is told to whoever asks for more.
%% Called by baguette_engine_calls and baguette_engine_simulated, in whose process it runs; what
%% waits is in baguette_engine_turns.
%%
%% The bound is on bytes (the setting `max_asks_mib'), for memory is what a queue takes: nodes that
%% ask know nothing of each other, and all of them may ask one holder. Who finds no room is answered
%% at once and comes again in a moment, or asks somebody else (baguette_engine_ask): nothing died of
%% it and nothing is lost. A pipeline worker has calls of its own node only, one a generation that
%% runs, and those are bounded at the door (baguette_engine_admission).
-module(baguette_engine_room).

-export([weight/1, is_there/3, refuse/2]).

%% What a call takes beside its payload: its terms, a monitor, a place in the order.
-define(OF_ITSELF, 1024).
-define(MIB, (1 bsl 20)).

%% @doc How many bytes a call of this payload counts as.
-spec weight(binary()) -> pos_integer().
weight(Payload) -> byte_size(Payload) + ?OF_ITSELF.

%% @doc Whether one more may wait. Where nobody waits one may, however large: it fits nowhere else.
-spec is_there(pipeline | expert, binary(), baguette_engine_turns:turns(_)) -> boolean().
is_there(pipeline, _Payload, _Waiting) ->
    true;
is_there(expert, Payload, Waiting) ->
    Most = baguette_engine_settings:get(max_asks_mib) * ?MIB,
    case baguette_engine_turns:weight(Waiting) of
        0 -> true;
        Weight -> Weight + weight(Payload) =< Most
    end.

%% @doc Tell who asked that there is none.
-spec refuse(pid(), reference()) -> ok.
refuse(To, Ref) ->
    ok = baguette_engine_metrics:count(asks_refused_total, none),
    baguette_engine_remote_v1:busy(To, Ref).
