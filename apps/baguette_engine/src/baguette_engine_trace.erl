%% @doc Where the time of an expert call goes on this node, for whoever measures: Erlang's own
%% tracing of the functions a call passes through, with the time of each, and what the workers tell
%% of their last frames. Nothing of it is in the way of a call while nobody measures.
%%
%% `on/0' starts a process that traces for ?MOST_MS at most, `off/0' ends it and gives back what was
%% seen. Events go to another process that is suspended until then, so that nobody is woken by them
%% in the middle of what is measured. What dies with these two: the trace, as far as it got.
%%
%% What is traced are names of functions: baguette_engine_trace_SUITE holds them against the code.
-module(baguette_engine_trace).

-export([on/0, off/0]).

-export_type([trace/0, event/0]).

-define(MOST_MS, 600000).
-define(ANSWER_MS, 5000).

%% `ref' is the call's own, the same on every node; `frame' and `function' are of a worker's frame.
-type event() :: #{
    process := binary(),
    what := atom(),
    at_ns := integer(), % of a clock of this node's own
    ref => binary(),
    frame => non_neg_integer(),
    function => atom()
}.
-type trace() :: #{
    node := node(),
    events := [event()],
    %% worker/spent.py
    frames := [map()]
}.

%% @doc Begin; a trace that was begun before is given up.
-spec on() -> ok.
on() ->
    _ = stop(),
    {Pid, Monitor} = spawn_monitor(fun trace/0),
    Pid ! {started, self()},
    receive
        {?MODULE, Pid, tracing} ->
            true = demonitor(Monitor, [flush]),
            ok;
        {'DOWN', Monitor, process, Pid, Why} ->
            error({not_traced, Why})
    end.

%% @doc End; nothing where none was begun, or its time was over.
-spec off() -> trace().
off() ->
    #{
        node => node(),
        events => lists:flatmap(fun event/1, stop()),
        frames => frames(baguette_engine_expert) ++ frames(baguette_engine_pipeline)
    }.

stop() ->
    try
        Monitor = monitor(process, ?MODULE),
        ?MODULE ! {stop, self(), Monitor},
        receive
            {?MODULE, Monitor, Seen} ->
                true = demonitor(Monitor, [flush]),
                Seen;
            {'DOWN', Monitor, process, _, _} ->
                []
        end
    catch
        error:badarg -> []
    end.

%% The process that traces -----------------------------------------------------------------------

trace() ->
    true = register(?MODULE, self()),
    Tracer = spawn_link(fun collect/0),
    true = erlang:suspend_process(Tracer),
    ok = lists:foreach(fun begin_pattern/1, patterns()),
    Flags = [call, arity, monotonic_timestamp, {tracer, Tracer}],
    _ = erlang:trace(processes, true, Flags),
    receive
        {started, From} -> From ! {?MODULE, self(), tracing}
    end,
    receive
        {stop, To, Ref} -> To ! {?MODULE, Ref, ended(Tracer)}
    after ?MOST_MS -> ended(Tracer)
    end.

ended(Tracer) ->
    _ = erlang:trace(processes, false, [call, arity, monotonic_timestamp]),
    _ = [erlang:trace_pattern(Traced, false, []) || {_, Traced, _} <- patterns()],
    true = erlang:resume_process(Tracer),
    Tracer ! {tell, self()},
    receive
        {Tracer, Seen} -> Seen
    end.

begin_pattern({_, {Module, _, _} = Traced, Match}) ->
    {module, Module} = code:ensure_loaded(Module),
    1 = erlang:trace_pattern(Traced, Match, []),
    ok.

collect() ->
    receive
        {tell, To} -> To ! {self(), seen()}
    end.

seen() ->
    receive
        Event -> [Event | seen()]
    after 0 -> []
    end.

%% A call from its asker to the worker and back, in this order.
patterns() ->
    [
        {packing, {baguette_engine_msgpack, encode, 1}, [{['_'], [], []}]},
        {asked, {baguette_engine_remote_v1, ask, 3}, ref(['_', '$1', '_'])},
        {called, {baguette_engine_pipeline, request, 3}, ref(['$1', '_', '_'])},
        {passed, {baguette_engine_worker, request, 5}, ref(['_', '$1', '_', '_', '_'])},
        {taken, {baguette_engine_calls, take, 2}, ref([{request, '$1', '_', '_', '_'}, '_'])},
        {framing, {baguette_engine_frame, call, 5}, [
            {['$1', '_', '$2', '_', '_'], [], [{message, {{'$1', '$2'}}}, {return_trace}]}
        ]},
        {received, {baguette_engine_frame, decode, 1}, [{['_'], [], []}]},
        {read, {baguette_engine_calls, answered, 3}, [{['$1', '_', '_'], [], [{message, '$1'}]}]},
        {answered, {baguette_engine_remote_v1, answer, 3}, ref(['_', '$1', '_'])},
        {unpacking, {baguette_engine_payload, answer, 1}, [{['_'], [], []}]},
        {known, {baguette_engine_asks, answered, 3}, ref(['$1', '_', '_'])},
        {decided, {baguette_engine_step, event, 3}, [{['_', '_', '_'], [], []}]}
    ].

ref(Arguments) -> [{Arguments, [], [{message, '$1'}]}].

%% What was seen ---------------------------------------------------------------------------------

event({trace_ts, Pid, return_from, Traced, _, At}) ->
    {framing, Traced, _} = lists:keyfind(Traced, 2, patterns()),
    [new(Pid, framed, At)];
event({trace_ts, Pid, call, Traced, At}) ->
    [new(Pid, what(Traced), At)];
event({trace_ts, Pid, call, Traced, Said, At}) ->
    [maps:merge(new(Pid, what(Traced), At), said(Said))].

what(Traced) ->
    {What, _, _} = lists:keyfind(Traced, 2, patterns()),
    What.

new(Pid, What, At) ->
    #{
        process => list_to_binary(pid_to_list(Pid)),
        what => What,
        at_ns => erlang:convert_time_unit(At, native, nanosecond)
    }.

said({Frame, Function}) -> #{frame => Frame, function => Function};
said(Frame) when is_integer(Frame) -> #{frame => Frame};
%% The first number says where it was made, as this node sees that.
said(Ref) when is_reference(Ref) ->
    [_, Same] = string:split(ref_to_list(Ref), "."),
    #{ref => list_to_binary(Same)}.

%% The workers ------------------------------------------------------------------------------------

%% A worker that does not run has computed nothing, and a simulated one has no frames.
frames(Server) ->
    Ref = monitor(process, Server),
    ok = Server:when_idle(Ref, {frames, baguette_engine_msgpack:encode(#{})}),
    receive
        {baguette_engine_worker, Ref, {ok, Payload}} ->
            true = demonitor(Ref, [flush]),
            {ok, #{<<"frames">> := Frames}} = baguette_engine_msgpack:decode(Payload),
            Frames;
        {baguette_engine_worker, Ref, {error, {_, _}}} ->
            true = demonitor(Ref, [flush]),
            [];
        {'DOWN', Ref, process, _, _} ->
            []
    after ?ANSWER_MS ->
        true = demonitor(Ref, [flush]),
        []
    end.
