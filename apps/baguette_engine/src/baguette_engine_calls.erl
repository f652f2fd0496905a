%% @doc The calls one worker has: with its OS process, waiting, and not urgent; who asked for each,
%% and what each of them is told. A part of baguette_engine_worker, whose process it runs in and
%% which sends what is to be sent.
%%
%% Whoever asks is monitored, by one monitor a call that goes with the call: a caller that dies, or
%% whose node is gone, is computed for no more. Answers go straight to the caller, as
%% `{baguette_engine_worker, Ref, {ok, Payload} | {error, {Class, Facts}}}'.
-module(baguette_engine_calls).

-export([new/0, take/3, sent/2, next/1]). % on their way
-export([answered/3, cancel/2, asker_gone/2, forsake/4, refuse/2]). % to their end
-export([in_flight/1, waiting/1, is_busy/1, is_in_doubt/1]). % looked at

-export_type([calls/0, call/0, own/0]).

%% One computing, one read ahead: the OS process never waits for its next call.
-define(WINDOW, 2).

-type call() :: {Function :: atom(), Payload :: binary()}.
%% What the worker itself asks of its process.
-type own() :: boot | are_you_there.
-type answer() :: {ok, binary()} | {error, {atom(), map()}}.
-type id() :: baguette_engine_frame:id().

-record(asked, {
    ref :: reference(),
    to :: pid(),
    monitor :: reference(),
    call :: call()
}).

-record(?MODULE, {
    window = baguette_engine_window:new() :: baguette_engine_window:window(#asked{} | own()),
    waiting = queue:new() :: queue:queue(#asked{}),
    %% Not urgent: taken one at a time, when all of the above is empty.
    idle = queue:new() :: queue:queue(#asked{})
}).
-opaque calls() :: #?MODULE{}.

%% @doc None yet.
-spec new() -> calls().
new() -> #?MODULE{}.

%% @doc One more is asked for.
-spec take(request | when_idle, {reference(), pid(), call()}, calls()) -> calls().
take(request, Asked, #?MODULE{waiting = Waiting} = C) ->
    C#?MODULE{waiting = queue:in(asked(Asked), Waiting)};
take(when_idle, Asked, #?MODULE{idle = Idle} = C) ->
    C#?MODULE{idle = queue:in(asked(Asked), Idle)}.

asked({Ref, To, Call}) ->
    #asked{ref = Ref, to = To, monitor = erlang:monitor(process, To), call = Call}.

%% @doc The worker sends a call of its own, under the id given back.
-spec sent(own(), calls()) -> {id(), calls()}.
sent(Own, C) ->
    add(Own, C).

add(What, #?MODULE{window = Window0} = C) ->
    {Id, Window} = baguette_engine_window:add(What, Window0),
    {Id, C#?MODULE{window = Window}}.

%% @doc The call to be sent now, and under which id; none while the window is full or nobody waits.
-spec next(calls()) -> {send, id(), call(), calls()} | none.
next(#?MODULE{waiting = Waiting, idle = Idle} = C) ->
    case {in_flight(C), queue:out(Waiting), queue:out(Idle)} of
        {InFlight, {{value, Asked}, Rest}, _} when InFlight < ?WINDOW ->
            send(Asked, C#?MODULE{waiting = Rest});
        {0, {empty, _}, {{value, Asked}, Rest}} ->
            send(Asked, C#?MODULE{idle = Rest});
        _ ->
            none
    end.

send(#asked{call = Call} = Asked, C0) ->
    {Id, C} = add(Asked, C0),
    {send, Id, Call, C}.

%% @doc The process answers: whoever asked is told. Says what it was; `stray' answers nothing.
-spec answered(id(), answer(), calls()) -> {call | cancelled | own(), calls()} | stray.
answered(Id, Answer, #?MODULE{window = Window} = C) ->
    case baguette_engine_window:answered(Id, Window) of
        {answered, #asked{} = Asked, Left} ->
            ok = answer(Asked, Answer),
            {call, C#?MODULE{window = Left}};
        {answered, Own, Left} ->
            {Own, C#?MODULE{window = Left}};
        {cancelled, Left} ->
            {cancelled, C#?MODULE{window = Left}};
        stray ->
            stray
    end.

%% @doc Forget a call. The ids are those the process has to be told of.
-spec cancel(reference(), calls()) -> {[id()], calls()}.
cancel(Ref, C) ->
    drop(fun(Asked) -> Asked#asked.ref =:= Ref end, C).

%% @doc Forget the call whose caller is gone.
-spec asker_gone(Monitor :: reference(), calls()) -> {[id()], calls()}.
asker_gone(Monitor, C) ->
    drop(fun(Asked) -> Asked#asked.monitor =:= Monitor end, C).

drop(Is, #?MODULE{waiting = Waiting0, idle = Idle0, window = Window0} = C) ->
    {Gone1, Waiting} = lists:partition(Is, queue:to_list(Waiting0)),
    {Gone2, Idle} = lists:partition(Is, queue:to_list(Idle0)),
    %% A dropped call is not waited for, so its place in the window is given back here.
    IsAsked = fun(Sent) -> is_record(Sent, asked) andalso Is(Sent) end,
    {Dropped, Window} = baguette_engine_window:drop(IsAsked, Window0),
    {Ids, Gone3} = lists:unzip(Dropped),
    ok = lists:foreach(fun forget/1, Gone1 ++ Gone2 ++ Gone3),
    {Ids, C#?MODULE{
        waiting = queue:from_list(Waiting), idle = queue:from_list(Idle), window = Window
    }}.

%% @doc The process is dead. Whoever it was computing for is told that it died of it; the owner's
%% calls are forgotten; what it had not begun waits for the next process or is answered `not_held'.
-spec forsake(How :: map(), Owner :: pid(), wait | not_held, calls()) -> calls().
forsake(How, Owner, Rest, #?MODULE{window = Window, waiting = Waiting} = C) ->
    {Begun, Sent} = baguette_engine_window:begun(Window),
    Asked = [A || #asked{} = A <- Begun ++ Sent] ++ queue:to_list(Waiting),
    {Own, Others} = lists:partition(fun(#asked{to = To}) -> To =:= Owner end, Asked),
    ok = lists:foreach(fun forget/1, Own),
    {Died, Left} = lists:partition(fun(A) -> lists:member(A, Begun) end, Others),
    ok = lists:foreach(fun(A) -> answer(A, {error, {died, How}}) end, Died),
    Kept = C#?MODULE{window = baguette_engine_window:new(), waiting = queue:from_list(Left)},
    case Rest of
        wait -> refuse_idle({not_held, #{}}, Kept);
        not_held -> refuse({not_held, #{}}, Kept)
    end.

%% @doc Answer all that waits with this error.
-spec refuse({atom(), map()}, calls()) -> calls().
refuse(Reason, #?MODULE{waiting = Waiting} = C) ->
    ok = lists:foreach(fun(A) -> answer(A, {error, Reason}) end, queue:to_list(Waiting)),
    refuse_idle(Reason, C#?MODULE{waiting = queue:new()}).

refuse_idle(Reason, #?MODULE{idle = Idle} = C) ->
    ok = lists:foreach(fun(A) -> answer(A, {error, Reason}) end, queue:to_list(Idle)),
    C#?MODULE{idle = queue:new()}.

answer(#asked{to = To, ref = Ref} = Asked, Answer) ->
    ok = forget(Asked),
    baguette_engine_remote_v1:answer(To, Ref, Answer).

forget(#asked{monitor = Monitor}) ->
    true = erlang:demonitor(Monitor, [flush]),
    ok.

%% @doc How many are with the process and waited for.
-spec in_flight(calls()) -> non_neg_integer().
in_flight(#?MODULE{window = Window}) -> baguette_engine_window:size(Window).

%% @doc How many wait here, those that are not urgent aside.
-spec waiting(calls()) -> non_neg_integer().
waiting(#?MODULE{waiting = Waiting}) -> queue:len(Waiting).

%% @doc Whether the process may be computing.
-spec is_busy(calls()) -> boolean().
is_busy(#?MODULE{window = Window}) -> baguette_engine_window:is_busy(Window).

%% @doc Whether only an answer to something new can show that the process is well.
-spec is_in_doubt(calls()) -> boolean().
is_in_doubt(#?MODULE{window = Window}) -> baguette_engine_window:is_in_doubt(Window).
