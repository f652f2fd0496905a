%% @doc The expert calls a generation has out, as messages: which reference stands for which ask,
%% by which way it went, and the monitors of whoever it went to. A part of
%% baguette_engine_generation, in whose process it runs; what is asked, and why, is
%% baguette_engine_ask's to know. The messages are told in baguette_engine_remote_v1.
-module(baguette_engine_asks).

-export([new/0, ask/3, forget/3, answered/3, lost/3, leave/1]).

-export_type([asks/0]).

-type way() :: baguette_engine_part:way().
-type server() :: {baguette_engine_expert | baguette_engine_relay, node()}.
-type ask() :: {No :: pos_integer(), way(), Component :: binary(), SentUs :: integer()}.
-record(?MODULE, {
    out = #{} :: #{reference() => ask()},
    monitors = #{} :: #{server() => reference()}
}).
-opaque asks() :: #?MODULE{}.

%% @doc None yet.
-spec new() -> asks().
new() -> #?MODULE{}.

%% @doc Ask for a component. The answer comes as `{baguette_engine_worker, Ref, Answer}', and
%% `unreachable' at once where there is no link.
-spec ask({No :: pos_integer(), way()}, baguette_engine_remote_v1:ask(), asks()) -> asks().
ask({No, Way}, {Component, _, Payload} = Ask, A0) ->
    #?MODULE{out = Out} = A = monitored(Way, A0),
    Ref = make_ref(),
    ok = baguette_engine_metrics:count(ask_bytes_total, none, byte_size(Payload)),
    Asked = case Way of
        {Holder, Via} -> baguette_engine_remote_v1:ask_via(Via, Ref, Holder, Ask);
        Holder -> baguette_engine_remote_v1:ask(Holder, Ref, Ask)
    end,
    _ = Asked =:= ok orelse (self() ! {baguette_engine_worker, Ref, {error, {unreachable, #{}}}}),
    shown(A#?MODULE{out = Out#{Ref => {No, Way, Component, now_us()}}}).

%% @doc The answer to this ask is no longer wanted.
-spec forget(No :: pos_integer(), way(), asks()) -> asks().
forget(No, Way, #?MODULE{out = Out} = A) ->
    Gone = [Ref || {Ref, {N, _, _, _}} <- maps:to_list(Out), N =:= No],
    ok = lists:foreach(fun(Ref) -> forget(Way, Ref) end, Gone),
    shown(A#?MODULE{out = maps:without(Gone, Out)}).

%% @doc Which ask this reference stands for, which is answered so; `stray' for one that is over.
-spec answered(reference(), {ok, map()} | {error, term()}, asks()) ->
    {No :: pos_integer(), asks()} | stray.
answered(Ref, Answer, #?MODULE{out = Out} = A) ->
    case maps:take(Ref, Out) of
        {{No, Way, Component, Sent}, Rest} ->
            ok = timed(Answer, Component, Way, Sent),
            {No, shown(A#?MODULE{out = Rest})};
        error ->
            stray
    end.

%% Who asks for contexts, or fails, has computed nothing.
timed({ok, #{<<"velocities">> := _}}, Component, Way, Sent) ->
    baguette_engine_metrics:called(Component, holder(Way), max(0, now_us() - Sent));
timed(_, _, _, _) ->
    ok.

now_us() -> erlang:monotonic_time(microsecond).

%% @doc What is lost with a server that is gone, or the link to it: all that went its way.
-spec lost(server(), Monitor :: reference(), asks()) -> {node() | {via, node()}, asks()} | stray.
lost({Name, Node} = Server, Ref, #?MODULE{monitors = Monitors, out = Out} = A) ->
    case Monitors of
        #{Server := Ref} ->
            Left = maps:filter(fun(_, {_, Way, _, _}) -> server(Way) =/= Server end, Out),
            Lost = case Name of baguette_engine_relay -> {via, Node}; _ -> Node end,
            {Lost, shown(A#?MODULE{monitors = maps:remove(Server, Monitors), out = Left})};
        _ ->
            stray
    end.

%% @doc Nothing is wanted any more.
-spec leave(asks()) -> asks().
leave(#?MODULE{out = Out, monitors = Monitors}) ->
    maps:foreach(fun(Ref, {_, Way, _, _}) -> forget(Way, Ref) end, Out),
    _ = [erlang:demonitor(Ref, [flush]) || Ref <- maps:values(Monitors)],
    shown(new()).

shown(#?MODULE{out = Out} = A) ->
    ok = baguette_engine_in_flight:show([holder(Way) || {_, Way, _, _} <- maps:values(Out)]),
    A.

forget({_Holder, Via}, Ref) -> baguette_engine_remote_v1:forget_via(Via, Ref);
forget(Holder, Ref) -> baguette_engine_remote_v1:forget(Holder, Ref).

holder({Holder, _Via}) -> Holder;
holder(Holder) -> Holder.

%% Whoever a call goes to first, and with it our link there.
monitored(Way, #?MODULE{monitors = Monitors} = A) ->
    case server(Way) of
        Server when is_map_key(Server, Monitors) -> A;
        {baguette_engine_relay, Via} = Server ->
            A#?MODULE{monitors = Monitors#{Server => baguette_engine_remote_v1:monitor_via(Via)}};
        {baguette_engine_expert, Holder} = Server ->
            A#?MODULE{monitors = Monitors#{Server => baguette_engine_remote_v1:monitor(Holder)}}
    end.

server({_Holder, Via}) -> {baguette_engine_relay, Via};
server(Holder) -> {baguette_engine_expert, Holder}.
