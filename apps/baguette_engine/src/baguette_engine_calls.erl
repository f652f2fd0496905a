%% @doc The calls one worker has: with its OS process, waiting, and not urgent; who asked for each,
%% and what each of them is told. A part of baguette_engine_worker, whose process it runs in and
%% which sends what is to be sent.
%%
%% An idle device starts at once. What may join the last frame goes after it, a batch at most beyond
%% what is computed: the process takes along what is there when it begins. All else waits here, in
%% turn, and calls that may go together then go as one frame (baguette_engine_turns).
%%
%% Whoever asks is monitored, by one monitor a call that goes with the call: a caller that dies, or
%% whose node is gone, is computed for no more. Answers go straight to the caller, as
%% `{baguette_engine_worker, Ref, {ok, Payload} | {error, {Class, Facts}}}'.
-module(baguette_engine_calls).

-export([new/1, take/2, sent/2, next/2]). % on their way
-export([as_one/2, answered/3, cancel/2, asker_gone/2, forsake/4, refuse/2]). % to their end
-export([in_flight/1, is_busy/1, is_in_doubt/1, overview/1]). % looked at

-export_type([calls/0, call/0, company/0, asked/0, own/0]).

%% One computing, one read ahead: the OS process never waits for its next call. Of another group
%% than the last, what more calls could join is not sent ahead.
-define(WINDOW, 2).
%% What a process that stands still has not read, the port's driver holds: no more frames than these
%% that somebody waits for, of two batches, and that were cancelled there, of any size.
-define(WAITED_FOR, 32).
-define(CANCELLED, 8).

-type call() :: {Function :: atom(), Payload :: binary()}.
-type company() :: baguette_engine_turns:company().
-type most() :: fun((Function :: atom()) -> {Rows :: pos_integer(), Bytes :: pos_integer()}).
-type asked() ::
    {request, reference(), To :: pid(), call(), company()}
    | {when_idle, reference(), To :: pid(), call()}.
%% What the worker itself asks of its process.
-type own() :: boot | are_you_there.
-type answer() :: {ok, binary()} | {error, {atom(), map()}}.
-type id() :: baguette_engine_frame:id().

-record(asked, {
    ref :: reference(),
    to :: pid(),
    monitor :: reference(),
    call :: call(),
    company :: company() | when_idle
}).

%% What went as one frame.
-record(frame, {
    function :: atom(),
    company :: company(),
    %% Rows of the batch that it was computed in; 0: another frame of it counts them.
    rows :: non_neg_integer(),
    weight :: non_neg_integer(),
    %% In its order; `gone': nobody waits for it any longer.
    asked :: [#asked{} | gone, ...]
}).

-record(?MODULE, {
    kind :: pipeline | expert,
    window = baguette_engine_window:new() :: baguette_engine_window:window(#frame{} | own()),
    waiting = baguette_engine_turns:new() :: baguette_engine_turns:turns(#asked{}),
    %% Not urgent: taken one at a time, when all of the above is empty.
    idle = queue:new() :: queue:queue(#asked{})
}).
-opaque calls() :: #?MODULE{}.

%% @doc None yet.
-spec new(pipeline | expert) -> calls().
new(Kind) -> #?MODULE{kind = Kind}.

%% @doc One more is asked for; it is refused where too much waits (baguette_engine_room).
-spec take(asked(), calls()) -> calls().
take({request, Ref, To, {_, Payload} = Call, Company}, #?MODULE{waiting = Waiting} = C) ->
    %% `last' is what the node asks of itself.
    case Company =:= last orelse baguette_engine_room:is_there(C#?MODULE.kind, Payload, Waiting) of
        true ->
            C#?MODULE{waiting = in(asked(Ref, To, Call, Company), Waiting)};
        false ->
            ok = baguette_engine_room:refuse(To, Ref),
            C
    end;
take({when_idle, Ref, To, Call}, #?MODULE{idle = Idle} = C) ->
    C#?MODULE{idle = queue:in(asked(Ref, To, Call, when_idle), Idle)}.

in(#asked{to = To, call = {_, Payload}, company = Company} = Asked, Waiting) ->
    baguette_engine_turns:in(Asked, To, Company, baguette_engine_room:weight(Payload), Waiting).

asked(Ref, To, Call, Company) ->
    Monitor = erlang:monitor(process, To),
    #asked{ref = Ref, to = To, monitor = Monitor, call = Call, company = Company}.

%% @doc The worker sends a call of its own, under the id given back.
-spec sent(own(), calls()) -> {id(), calls()}.
sent(Own, C) ->
    add(Own, C).

add(What, #?MODULE{window = Window0} = C) ->
    {Id, Window} = baguette_engine_window:add(What, Window0),
    {Id, C#?MODULE{window = Window}}.

%% @doc What is to be sent now, and under which id: calls of one function, of no more than `Most'
%% says of it where they are several. None while the window is full, or nobody waits; `in_doubt'
%% where all that it is full of was cancelled, so that nobody knows what the process has still to
%% read.
-spec next(most(), calls()) ->
    {send, id(), {Function :: atom(), [Payload :: binary(), ...]}, company(), calls()}
    | in_doubt
    | none.
next(Most, #?MODULE{window = Window} = C) ->
    Frames = in_flight(C),
    Cancelled = baguette_engine_window:unanswered(Window) - Frames,
    case Frames < ?WAITED_FOR andalso Cancelled < ?CANCELLED of
        true -> next_of(Most, C);
        false -> case is_in_doubt(C) of true -> in_doubt; false -> none end
    end.

next_of(Most, C) ->
    case joining(Most, C) of
        {Asked, Company, _Room, Left} -> send(Asked, Company, C#?MODULE{waiting = Left});
        none -> next_batch(Most, in_flight(C), C)
    end.

%% Of those whose turn it is, if they may join the last frame: a batch at most that is not begun.
joining(Most, #?MODULE{waiting = Waiting, window = Window}) ->
    {Begun, Ahead} = baguette_engine_window:begun(Window),
    case lists:reverse(Begun ++ Ahead) of
        [#frame{function = Function, company = {Group, _}} | _] ->
            {MostRows, MostWeight} = Most(Function),
            Rows = lists:sum([R || #frame{rows = R} <- Ahead]),
            %% Of all: the first may not have begun, and then they are one batch.
            Weight = lists:sum([W || #frame{weight = W} <- Begun ++ Ahead]),
            Room = {MostRows - Rows, MostWeight - Weight},
            baguette_engine_turns:join(Group, Room, Waiting);
        _ ->
            none
    end.

next_batch(Most, InFlight, #?MODULE{waiting = Waiting, idle = Idle} = C) ->
    Of = fun(#asked{call = {Function, _}}) -> Most(Function) end,
    case InFlight < ?WINDOW andalso baguette_engine_turns:out(Of, Waiting) of
        {Asked, Company, Room, Left} when InFlight =:= 0; Room =:= 0 ->
            send(Asked, Company, C#?MODULE{waiting = Left});
        empty when InFlight =:= 0 ->
            case queue:out(Idle) of
                {{value, Asked}, Left} -> send([Asked], {alone, 1}, C#?MODULE{idle = Left});
                {empty, _} -> none
            end;
        _ ->
            none
    end.

send([#asked{call = {Function, _}} | _] = Asked, {_, Rows} = Company, C0) ->
    Payloads = [Payload || #asked{call = {_, Payload}} <- Asked],
    Weight = lists:sum([baguette_engine_room:weight(Payload) || Payload <- Payloads]),
    {Id, C} = add(
        #frame{
            function = Function, company = Company, rows = Rows, weight = Weight, asked = Asked
        },
        C0
    ),
    {send, Id, {Function, Payloads}, Company, C}.

%% @doc The process says that it computes these frames as one.
-spec as_one([id()], calls()) -> calls().
as_one(Ids, #?MODULE{window = Window} = C) ->
    C#?MODULE{window = baguette_engine_window:as_one(Ids, fun counted_once/1, Window)}.

counted_once(Frames) ->
    {Counted, 0} = lists:mapfoldl(
        fun
            (#frame{} = Frame, Rows) -> {Frame#frame{rows = Rows}, 0};
            (Own, Rows) -> {Own, Rows}
        end,
        lists:sum([Rows || #frame{rows = Rows} <- Frames]),
        Frames
    ),
    Counted.

%% @doc The process answers, each call of the frame or all of them alike: whoever asked is told.
%% Says what it was, of calls the rows that were one batch, 0 where they were told with others;
%% `stray' answers nothing, `malformed' not as many calls as there are.
-spec answered(id(), [answer()] | {error, {atom(), map()}}, calls()) ->
    {{Function :: atom(), Rows :: non_neg_integer()} | cancelled | own(), calls()}
    | stray
    | malformed.
answered(Id, Answer, #?MODULE{window = Window} = C) ->
    case baguette_engine_window:answered(Id, Window) of
        {answered, #frame{asked = Asked}, _} when
            is_list(Answer), length(Asked) =/= length(Answer)
        ->
            malformed;
        {answered, #frame{asked = Asked, function = Function, rows = Rows}, Left} ->
            ok = lists:foreach(fun({A, Told}) -> answer(A, Told) end, each(Asked, Answer)),
            {{Function, Rows}, C#?MODULE{window = Left}};
        {answered, Own, Left} ->
            {Own, C#?MODULE{window = Left}};
        {cancelled, Left} ->
            {cancelled, C#?MODULE{window = Left}};
        stray ->
            stray
    end.

each(Asked, Answers) when is_list(Answers) -> lists:zip(Asked, Answers);
each(Asked, Error) -> [{A, Error} || A <- Asked].

%% @doc Forget a call. The ids are those the process has to be told of.
-spec cancel(reference(), calls()) -> {[id()], calls()}.
cancel(Ref, C) ->
    drop(fun(Asked) -> Asked#asked.ref =:= Ref end, C).

%% @doc Forget the call whose caller is gone.
-spec asker_gone(Monitor :: reference(), calls()) -> {[id()], calls()}.
asker_gone(Monitor, C) ->
    drop(fun(Asked) -> Asked#asked.monitor =:= Monitor end, C).

drop(Is, #?MODULE{waiting = Waiting0, idle = Idle0, window = Window0} = C) ->
    {Gone1, Waiting} = baguette_engine_turns:drop(Is, Waiting0),
    {Gone2, Idle} = lists:partition(Is, queue:to_list(Idle0)),
    ok = lists:foreach(fun forget/1, Gone1 ++ Gone2),
    %% A frame that nobody waits for gives its place in the window back here.
    {Ids, Window} = baguette_engine_window:revise(fun(Sent) -> without(Is, Sent) end, Window0),
    {Ids, C#?MODULE{waiting = Waiting, idle = queue:from_list(Idle), window = Window}}.

without(Is, #frame{asked = Asked} = Frame) ->
    Left = [gone_if(Is, A) || A <- Asked],
    case lists:all(fun(A) -> A =:= gone end, Left) of
        true -> drop;
        false -> Frame#frame{asked = Left}
    end;
without(_Is, Own) ->
    Own.

gone_if(_Is, gone) ->
    gone;
gone_if(Is, Asked) ->
    case Is(Asked) of
        true ->
            ok = forget(Asked),
            gone;
        false ->
            Asked
    end.

%% @doc The process is dead. Whoever it was computing for is told that it died of it; the owner's
%% calls are forgotten; what it had not begun waits for the next process or is answered `not_held'.
-spec forsake(How :: map(), Owner :: pid(), wait | not_held, calls()) -> calls().
forsake(How, Owner, Rest, #?MODULE{window = Window, waiting = Waiting} = C) ->
    {Begun0, Sent} = baguette_engine_window:begun(Window),
    IsOwn = fun(#asked{to = To}) -> To =:= Owner end,
    {Own1, Begun} = lists:partition(IsOwn, asked_for(Begun0)),
    {Own2, Ahead} = lists:partition(IsOwn, asked_for(Sent)),
    {Own3, Left} = baguette_engine_turns:drop(IsOwn, Waiting),
    ok = lists:foreach(fun forget/1, Own1 ++ Own2 ++ Own3),
    ok = lists:foreach(fun(A) -> answer(A, {error, {died, How}}) end, Begun),
    Kept = C#?MODULE{window = baguette_engine_window:new()},
    case Rest of
        wait ->
            refuse_idle({not_held, #{}}, Kept#?MODULE{waiting = again(Ahead, Left)});
        not_held ->
            ok = lists:foreach(fun(A) -> answer(A, {error, {not_held, #{}}}) end, Ahead),
            refuse({not_held, #{}}, Kept#?MODULE{waiting = Left})
    end.

asked_for(Frames) -> [A || #frame{asked = Asked} <- Frames, #asked{} = A <- Asked].

again(Ahead, Waiting) ->
    lists:foldl(fun in/2, Waiting, [A || A <- Ahead, A#asked.company =/= when_idle]).

%% @doc Answer all that waits with this error.
-spec refuse({atom(), map()}, calls()) -> calls().
refuse(Reason, #?MODULE{waiting = Waiting} = C) ->
    Refused = baguette_engine_turns:to_list(Waiting),
    ok = lists:foreach(fun(A) -> answer(A, {error, Reason}) end, Refused),
    refuse_idle(Reason, C#?MODULE{waiting = baguette_engine_turns:new()}).

refuse_idle(Reason, #?MODULE{idle = Idle} = C) ->
    ok = lists:foreach(fun(A) -> answer(A, {error, Reason}) end, queue:to_list(Idle)),
    C#?MODULE{idle = queue:new()}.

answer(gone, _Answer) ->
    ok;
answer(#asked{to = To, ref = Ref} = Asked, Answer) ->
    ok = forget(Asked),
    baguette_engine_remote_v1:answer(To, Ref, Answer).

forget(#asked{monitor = Monitor}) ->
    true = erlang:demonitor(Monitor, [flush]),
    ok.

%% @doc How many frames are with the process and waited for.
-spec in_flight(calls()) -> non_neg_integer().
in_flight(#?MODULE{window = Window}) -> baguette_engine_window:size(Window).

%% @doc How many calls are with the process and wait here, what is not urgent aside, and what those
%% that wait weigh. A frame of several counts as several: others choose by it whom to ask.
-spec overview(calls()) -> #{in_flight | waiting | waiting_bytes := non_neg_integer()}.
overview(#?MODULE{waiting = Waiting, window = Window}) ->
    #{
        in_flight => lists:sum([calls(F) || F <- baguette_engine_window:to_list(Window)]),
        waiting => baguette_engine_turns:size(Waiting),
        waiting_bytes => baguette_engine_turns:weight(Waiting)
    }.

calls(#frame{asked = Asked}) -> length([A || #asked{} = A <- Asked]);
calls(_Own) -> 1.

%% @doc Whether the process may be computing.
-spec is_busy(calls()) -> boolean().
is_busy(#?MODULE{window = Window}) -> baguette_engine_window:is_busy(Window).

%% @doc Whether only an answer to something new can show that the process is well.
-spec is_in_doubt(calls()) -> boolean().
is_in_doubt(#?MODULE{window = Window}) -> baguette_engine_window:is_in_doubt(Window).
