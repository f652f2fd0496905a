%% @doc The control node's one process: JSON lines on standard input are commands to a running
%% cluster, JSON lines on standard output are what happens there. scripts/cluster.py starts such a
%% node (hidden, not listening), so a prompt is never on a command line and no second protocol
%% exists. The node ends with this process, however it dies.
%%
%% Commands, each a map with `do', and the events that answer them:
%%
%%   connect  deadline_ms             connected | failed
%%   ready    deadline_ms, nodes      readiness ... ready | failed; nodes: how many must be up
%%   join     deadline_ms             joining ... joined | failed; this one node is READY
%%   status                           text
%%   events   id                      text | failed; without id: this node's last
%%   report                           text
%%   figures                          figures; what every node counts, for benchmarks
%%   own_figures                      figures; of that node alone, whomever it can reach
%%   trace    on                      traced | failed; where the time of calls goes, on every node:
%%                                    begun (true), or ended and told (false)
%%   simulate changes                 simulated | failed; of that node's simulated device
%%   leave    deadline_ms             leaving ... left | failed; the node ends
%%   generate request, watch          accepted, state, step, ... done | failed
%%   load     order                   loaded | failed; many pictures at once (baguette_load)
%%   cancel   id                      the generation's own last event
%%
%% `watch' false leaves out all between accepted and the end. One generation at a time. The node
%% ends when standard input ends; its generation is cancelled with it (baguette_draw:relay/4). The
%% node to talk to is the setting control_node: an atom from the launcher's own configuration file,
%% never from a line read here.
-module(baguette_control).
-behaviour(gen_server).

-export([start/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(ERPC_MS, 5000).
%% Of every node, by way of one (baguette_figures).
-define(FIGURES_MS, 30000).
-define(POLL_MS, 100).

-record(?MODULE, {
    port :: port(), % file descriptors 0 and 1
    node :: node(), % the requester: every command goes to it
    buffer = <<>> :: binary(), % the line begun
    poll = none :: none | poll(), % what is being waited for
    drawing = none :: none | {reference(), reference()}, % events' tag, its monitor
    leaving = none :: none | {reference(), reference()}, % likewise
    loading = none :: none | {reference(), reference()}
}).
-type poll() ::
    {connect | ready | join, Until :: integer(), Wanted :: non_neg_integer(), Last :: map()}.

-spec start() -> ok.
start() ->
    {ok, Node} = application:get_env(baguette, control_node),
    {ok, Pid} = gen_server:start({local, ?MODULE}, ?MODULE, Node, []),
    _ = spawn(fun() -> end_with(Pid) end),
    ok.

%% A launcher that was killed reads no answer any more: an answer on its way then takes the port and
%% this process along before the end of standard input is seen.
end_with(Pid) ->
    Monitor = monitor(process, Pid),
    receive
        {'DOWN', Monitor, process, Pid, _Why} -> init:stop(1)
    end.

-spec init(node()) -> {ok, #?MODULE{}}.
init(Node) ->
    {ok, #?MODULE{port = open_port({fd, 0, 1}, [binary, stream, eof]), node = Node}}.

-spec handle_call(term(), gen_server:from(), #?MODULE{}) ->
    {reply, {error, unknown_call}, #?MODULE{}}.
handle_call(_Request, _From, State) ->
    {reply, {error, unknown_call}, State}.

-spec handle_cast(term(), #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_cast(_Message, State) ->
    {noreply, State}.

-spec handle_info(
    {port(), {data, binary()} | eof}
    | poll
    | {baguette_draw, reference(), term()}
    | {baguette_load, reference(), [baguette_load:drawn()]}
    | {'DOWN', reference(), process, pid(), term()}
    | term(),
    #?MODULE{}
) -> {noreply, #?MODULE{}}.
handle_info({Port, {data, Data}}, #?MODULE{port = Port, buffer = Buffer} = State) ->
    Parts = binary:split(<<Buffer/binary, Data/binary>>, <<"\n">>, [global]),
    [Rest | Lines] = lists:reverse(Parts),
    {noreply, lists:foldr(fun line/2, State#?MODULE{buffer = Rest}, Lines)};
handle_info({Port, eof}, #?MODULE{port = Port} = State) ->
    erlang:halt(0, [{flush, false}]),
    {noreply, State};
handle_info(poll, #?MODULE{poll = Poll} = State) ->
    {noreply, poll(Poll, State)};
handle_info({baguette_draw, Ref, {finished, Outcome}}, #?MODULE{drawing = {Ref, Monitor}} = S) ->
    true = demonitor(Monitor, [flush]),
    {noreply, finished(Outcome, S#?MODULE{drawing = none})};
handle_info({baguette_draw, Ref, {Name, Facts}}, #?MODULE{drawing = {Ref, _}} = State) ->
    {noreply, tell(Name, with_text(Name, Facts), State)};
handle_info({'DOWN', Monitor, process, _, Why}, #?MODULE{drawing = {_, Monitor}} = State) ->
    Reason = {requester_died, #{why => Why}},
    {noreply, failed(Reason, State#?MODULE{drawing = none})};
handle_info({baguette_leave, Ref, {leaving, Left}}, #?MODULE{leaving = {Ref, _}} = State) ->
    {noreply, tell(leaving, Left, State)};
handle_info({baguette_leave, Ref, {finished, Left}}, #?MODULE{leaving = {Ref, Monitor}} = State) ->
    true = demonitor(Monitor, [flush]),
    {noreply, tell(left, Left, State#?MODULE{leaving = none})};
handle_info({'DOWN', Monitor, process, _, Why}, #?MODULE{leaving = {_, Monitor}} = State) ->
    {noreply, failed({leave_failed, #{why => Why}}, State#?MODULE{leaving = none})};
handle_info({baguette_load, Ref, Drawn}, #?MODULE{loading = {Ref, Monitor}} = State) ->
    true = demonitor(Monitor, [flush]),
    {noreply, tell(loaded, #{images => Drawn}, State#?MODULE{loading = none})};
handle_info({'DOWN', Monitor, process, _, Why}, #?MODULE{loading = {_, Monitor}} = State) ->
    {noreply, failed({requester_died, #{why => Why}}, State#?MODULE{loading = none})};
handle_info(_Other, State) ->
    {noreply, State}.

%% --- commands

line(<<>>, State) ->
    State;
line(Line, State) ->
    try jiffy:decode(Line, [return_maps]) of
        #{<<"do">> := Do} = Command -> command(Do, Command, State);
        _ -> failed({bad_command, #{}}, State)
    catch
        _:_ -> failed({bad_command, #{}}, State)
    end.

command(<<"connect">>, #{<<"deadline_ms">> := Ms}, State) ->
    poll({connect, now_ms() + Ms, 0, #{}}, State);
command(<<"ready">>, #{<<"deadline_ms">> := Ms, <<"nodes">> := Nodes}, State) ->
    poll({ready, now_ms() + Ms, Nodes, #{}}, State);
command(<<"join">>, #{<<"deadline_ms">> := Ms}, State) ->
    poll({join, now_ms() + Ms, 0, #{}}, State);
command(<<"status">>, _, State) ->
    text(status_text, State);
command(<<"events">>, #{<<"id">> := Id}, #?MODULE{node = Node} = State) when is_binary(Id) ->
    case remote(Node, events_text, [Id]) of
        {ok, {ok, Text}} -> tell(text, #{text => unicode:characters_to_binary(Text)}, State);
        {ok, {error, Reason}} -> failed(Reason, State);
        {error, Reason} -> failed(Reason, State)
    end;
command(<<"events">>, _, State) ->
    text(events_text, State);
command(<<"report">>, _, State) ->
    text(report_text, State);
command(<<"figures">>, _, #?MODULE{node = Node} = State) ->
    figures(remote(Node, figures, [], ?FIGURES_MS), State);
command(<<"own_figures">>, _, #?MODULE{node = Node} = State) ->
    figures(remote(Node, own_figures, []), State);
command(<<"trace">>, #{<<"on">> := On}, #?MODULE{node = Node} = State) when is_boolean(On) ->
    traced(remote(Node, trace, [case On of true -> on; false -> off end], ?FIGURES_MS), State);
command(<<"simulate">>, #{<<"changes">> := Given}, #?MODULE{node = Node} = State) ->
    case baguette_control_json:changes(Given) of
        {ok, Changes} -> simulated(remote(Node, simulate, [Changes]), State);
        {error, Reason} -> failed(Reason, State)
    end;
command(<<"leave">>, #{<<"deadline_ms">> := Ms}, #?MODULE{leaving = none} = State) when
    is_integer(Ms), Ms > 0
->
    Ref = make_ref(),
    Args = [self(), Ref, Ms],
    {_, Monitor} = spawn_monitor(State#?MODULE.node, baguette_leave, relay, Args),
    State#?MODULE{leaving = {Ref, Monitor}};
command(
    <<"generate">>,
    #{<<"request">> := Given, <<"watch">> := Watch},
    #?MODULE{node = Node, drawing = none} = State
) when is_boolean(Watch) ->
    case baguette_control_json:request(Given) of
        {ok, Request} ->
            Ref = make_ref(),
            Args = [self(), Ref, Request, Watch],
            {_, Monitor} = spawn_monitor(Node, baguette_draw, relay, Args),
            State#?MODULE{drawing = {Ref, Monitor}};
        {error, Reason} ->
            failed(Reason, State)
    end;
command(<<"load">>, #{<<"order">> := Given}, #?MODULE{loading = none} = State) ->
    load(baguette_control_json:order(Given), State);
command(<<"cancel">>, #{<<"id">> := Id}, #?MODULE{node = Node} = State) ->
    _ = remote(Node, cancel, [Id]),
    State;
command(_, _, State) ->
    failed({bad_command, #{}}, State).

load({ok, Order}, #?MODULE{node = Node} = State) ->
    Ref = make_ref(),
    {_, Monitor} = spawn_monitor(Node, baguette_load, relay, [self(), Ref, Order]),
    State#?MODULE{loading = {Ref, Monitor}};
load({error, Reason}, State) ->
    failed(Reason, State).

figures({ok, Figures}, State) -> tell(figures, #{nodes => Figures}, State);
figures({error, Reason}, State) -> failed(Reason, State).

traced({ok, Traces}, State) -> tell(traced, #{nodes => Traces}, State);
traced({error, Reason}, State) -> failed(Reason, State).

simulated({ok, ok}, State) -> tell(simulated, #{}, State);
simulated({ok, {error, {bad_setting, device, Got, Why}}}, State) ->
    failed({bad_request, device, Got, Why}, State);
simulated({ok, {error, Reason}}, State) -> failed(Reason, State);
simulated({error, Reason}, State) -> failed(Reason, State).

text(Function, #?MODULE{node = Node} = State) ->
    case remote(Node, Function, []) of
        {ok, Text} -> tell(text, #{text => unicode:characters_to_binary(Text)}, State);
        {error, Reason} -> failed(Reason, State)
    end.

%% --- waiting, looked at every POLL_MS

poll(none, State) ->
    State;
poll({connect, Until, _, _} = Poll, #?MODULE{node = Node} = State) ->
    case net_kernel:connect_node(Node) of
        true -> tell(connected, #{node => Node}, State#?MODULE{poll = none});
        _ -> again(Poll, Until, {not_connected, #{node => Node}}, State)
    end;
poll({ready, Until, Nodes, Last} = Poll, #?MODULE{node = Node} = State) ->
    case remote(Node, readiness, []) of
        {ok, Last} -> again(Poll, Until, {not_ready, Last}, State);
        {ok, Facts} -> progressed(Facts, Nodes, Until, tell(readiness, Facts, State));
        {error, Reason} -> again(Poll, Until, Reason, State)
    end;
poll({join, Until, _, Last} = Poll, #?MODULE{node = Node} = State) ->
    case remote(Node, joining, []) of
        {ok, Last} -> again(Poll, Until, {not_joined, Last}, State);
        {ok, Facts} -> joining(Facts, Until, tell(joining, Facts, State));
        %% A node that fell is started again by its keeper: the deadline decides.
        {error, Reason} -> again(Poll, Until, Reason, State)
    end.

%% Another secret than everybody here has: nothing to wait for.
joining(#{unreached := [_ | _] = Unreached, linked := []} = Facts, Until, State) ->
    case [Node || #{node := Node, why := wrong_secret} <- Unreached] of
        [] -> joined(Facts, Until, State);
        Nodes -> failed({wrong_secret, #{nodes => Nodes}}, State#?MODULE{poll = none})
    end;
joining(#{workers_failed := [Reason | _]}, _Until, State) ->
    failed(Reason, State#?MODULE{poll = none});
joining(Facts, Until, State) ->
    joined(Facts, Until, State).

joined(Facts, Until, State) ->
    case Facts of
        #{inventory := ok, agreed := true, pipeline := true} ->
            joined_with(Facts, Until, State);
        _ ->
            again({join, Until, 0, Facts}, Until, {not_joined, Facts}, State)
    end.

%% Speed is measured with what is held; where nothing is to be held there is nothing to wait for.
joined_with(#{planned := Planned, ready := Ready, measured := Measured} = Facts, Until, State) ->
    case Planned -- Ready =:= [] andalso (Measured orelse Planned =:= []) of
        true -> tell(joined, Facts, State#?MODULE{poll = none});
        false -> again({join, Until, 0, Facts}, Until, {not_joined, Facts}, State)
    end.

progressed(Facts, Nodes, Until, State) ->
    case Facts of
        #{nodes := Up, ready := All, experts := All, pipeline := true} when All > 0, Up >= Nodes ->
            tell(ready, Facts, State#?MODULE{poll = none});
        #{workers_failed := [Reason | _]} ->
            failed(Reason, State#?MODULE{poll = none});
        #{nodes := Up, failed := [_ | _] = Failed} when Up >= Nodes ->
            failed({cannot_load, #{experts => Failed}}, State#?MODULE{poll = none});
        _ ->
            again({ready, Until, Nodes, Facts}, Until, {not_ready, Facts}, State)
    end.

again(Poll, Until, Reason, State) ->
    case now_ms() < Until of
        true ->
            _ = erlang:send_after(?POLL_MS, self(), poll),
            State#?MODULE{poll = Poll};
        false ->
            failed(Reason, State#?MODULE{poll = none})
    end.

now_ms() ->
    erlang:monotonic_time(millisecond).

remote(Node, Function, Args) ->
    remote(Node, Function, Args, ?ERPC_MS).

remote(Node, Function, Args, Ms) ->
    try
        {ok, erpc:call(Node, baguette, Function, Args, Ms)}
    catch
        error:{erpc, noconnection} -> {error, {not_connected, #{node => Node}}};
        error:{erpc, timeout} -> {error, {no_answer, #{node => Node, waited_ms => Ms}}};
        error:{exception, Reason, _} -> {error, {remote_failed, #{node => Node, why => Reason}}};
        exit:{exception, Reason} -> {error, {remote_failed, #{node => Node, why => Reason}}}
    end.

%% --- answers

with_text(waiting, Facts) ->
    case baguette_text:event({waiting, Facts}) of
        none -> Facts;
        Text -> Facts#{text => unicode:characters_to_binary(Text)}
    end;
with_text(_Name, Facts) ->
    Facts.

finished({ok, Result}, State) -> tell(done, #{result => Result}, State);
finished({error, Reason}, State) -> failed(Reason, State).

failed(Reason, State) ->
    tell(failed, baguette_control_json:failure(Reason), State).

tell(Event, Facts, #?MODULE{port = Port} = State) ->
    true = port_command(Port, [baguette_control_json:encode(Facts#{event => Event}), $\n]),
    State.
