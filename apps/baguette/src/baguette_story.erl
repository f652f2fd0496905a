%% @doc What happened, told to a person who was not there: a sentence for every event our rooms log,
%% and the lines of baguette:events(). Pure; one clause a `what', grouped by room. A sentence names
%% what it is made of; facts that it does not name follow in brackets, so nothing that was logged is
%% lost, and an event without a clause is its name and facts.
-module(baguette_story).

-export([sentence/1, lines/1, links/1, is_fault/1]).

-type event() :: baguette_event:event().
%% A sentence, and which facts are in it.
-type clause() :: {unicode:chardata(), [atom()]}.

-define(CHARACTERS, 500).
-define(SHORT_ID, 8).

-spec sentence(event()) -> unicode:chardata().
sentence(#{what := What, facts := Facts}) ->
    {Text, Named} = clause(What, Facts),
    Rest = maps:without([at_us | Named], Facts),
    baguette_plain:line([Text, facts(Rest)], ?CHARACTERS).

%% Facts of another form than a clause expects, say of another version, are told by their names.
clause(What, Facts) ->
    try told(What, Facts) of
        {Text, Named} -> {unicode:characters_to_binary(Text), Named}
    catch
        error:_ -> {words(What), []}
    end.

%% @doc A line an event, each with the node that logged it, or none where it is all of one node.
-spec lines([{node() | none, event()}]) -> unicode:chardata().
lines(Told) ->
    Several = lists:any(fun({Node, _}) -> Node =/= none end, Told),
    Head = ["", "When (UTC)"] ++ ["Where" || Several] ++ ["Generation", "What happened"],
    baguette_text:table(Head, [
        [mark(Event), clock(Event)] ++
            [baguette_event:address(Node) || Several] ++
            [short_id(maps:get(generation, Event, <<"-">>)), sentence(Event)]
     || {Node, Event} <- Told
    ]).

%% @doc When each link was last said to be what it is now, in microseconds of system time.
-spec links([event()]) -> #{node() => integer()}.
links(Events) ->
    maps:from_list([
        {Peer, At}
     || #{what := link, at_us := At, facts := #{peer := Peer}} <- Events
    ]).

%% @doc Whether it is a warning or worse.
-spec is_fault(event()) -> boolean().
is_fault(#{level := Level}) ->
    logger:compare_levels(Level, warning) =/= lt.

%% What is typed of a generation's id.
short_id(Id) -> binary:part(Id, 0, min(?SHORT_ID, byte_size(Id))).

%% Stands out when one looks down the lines.
mark(Event) ->
    case is_fault(Event) of
        true -> "!";
        false -> " "
    end.

clock(#{at_us := At}) ->
    Options = [{unit, millisecond}, {offset, "Z"}, {time_designator, $\s}],
    lists:droplast(calendar:system_time_to_rfc3339(At div 1000, Options)).

%% --- the generation

-spec told(atom() | binary(), map()) -> clause().
told(generation_began, _) ->
    {"the generation began", []};
told(generation_done, #{seconds := Seconds, asked := Asked}) when is_number(Seconds) ->
    {io_lib:format("the generation is done in ~.1f s, after ~b expert calls", [
        float(Seconds), Asked
    ]), [seconds, asked]};
told(generation_done, _) ->
    {"the generation is done", []};
told(warning, _) ->
    {"the model has a remark about the prompt; whoever asked was told", []};
told(generation_failed, #{reason := Reason}) ->
    {["the generation failed: ", baguette_text:error(Reason)], [reason]};
told(generation_failed, _) ->
    {"the generation failed", []};
told(generation_cancelled, _) ->
    {"the generation was cancelled", []};
told(What, Facts) when
    What =:= failover; What =:= hedge; What =:= degraded; What =:= waiting
->
    case baguette_text:event({What, Facts}) of
        none -> {words(What), []};
        Text -> {[Text, step(Facts)], [expert, reason, from, to, why, lost, mass, step]}
    end;
told(What, Facts) ->
    worker(What, Facts).

%% --- this node's workers

worker(worker_started, #{kind := Kind}) ->
    {["the ", words(Kind), " worker was started"], [kind]};
worker(worker_died, #{kind := Kind, exit_status := Status}) ->
    {["the ", words(Kind), " worker died (", status(Status), "); it is started again"],
        [kind, exit_status]};
worker(worker_hung, #{kind := Kind, idle_ms := Ms}) ->
    Text = io_lib:format("the ~ts worker has computed nothing for ~.1f s and is killed", [
        words(Kind), Ms / 1000
    ]),
    {Text, [kind, idle_ms]};
worker(worker_not_watched, #{kind := Kind}) ->
    {["whether the ", words(Kind), " worker hangs cannot be seen on this system"], [kind, why]};
worker(relayed_ask_crashed, #{peer := Peer}) ->
    {["a call passed on to ", short(Peer), " failed here by our own mistake"],
        [peer]};
worker(pipeline_worker_failed, #{reason := Reason}) ->
    {["the pipeline worker does not start: ", baguette_text:error(Reason)], [reason]};
worker(stray_answer, _) ->
    {"a worker answered what nobody had asked; the answer was dropped", []};
worker(worker_not_started, #{kind := Kind, reason := Reason}) ->
    {["the ", words(Kind), " worker could not be started: ", words(Reason)], [kind, reason]};
worker(worker_boot_failed, #{kind := Kind, reason := Reason}) ->
    {["the ", words(Kind), " worker did not come up: ", baguette_text:error(Reason)],
        [kind, reason]};
worker(expert_worker_failed, #{reason := Reason}) ->
    {["this node can hold no expert: ", baguette_text:error(Reason)], [reason]};
worker(simulated_device, #{kind := Kind}) ->
    {["a simulated device stands where the ", words(Kind), " worker would"], [kind]};
worker(simulated_worker_died, #{kind := Kind}) ->
    {["the simulated ", words(Kind), " worker died; it is started again"], [kind]};
worker(call_failed, #{class := Class, message := Message}) ->
    {["a call failed in the worker, ", words(Class), ": ", words(Message)], [class, message]};
worker(message_dropped, #{from := worker}) ->
    {"the worker said something that is no answer; it was dropped", [from]};
worker(message_dropped, _) ->
    {"a message of unknown form was dropped", []};
worker(malformed_frame, _) ->
    {"the worker sent bytes that are no message; it is killed and started again", [from]};
worker(probe_failed, #{reason := Reason}) ->
    {["this node could not measure itself: ", baguette_text:error(Reason)], [reason]};
worker(usage_not_published, _) ->
    {"how often experts are asked could not be told to the others", []};
worker(What, Facts) ->
    component(What, Facts).

%% --- this node's components

component(component_ready, #{component := Component}) ->
    {[part(Component), " is loaded here"], [component]};
component(component_failed, #{component := Component}) ->
    {[part(Component), " could not be loaded here"], [component]};
component(component_not_loaded, #{component := Component, reason := Reason}) ->
    {[part(Component), " was not loaded: ", baguette_text:error(Reason)], [component, reason]};
component(component_not_on_disk, #{component := Component}) ->
    {[part(Component), " is to be loaded here but is not on the disk"], [component]};
component(component_refused, _) ->
    {"files of the model here are not as they should be and are not used", []};
component(holding, #{new := [], let_go := []}) ->
    {"this node holds what it held", [new, let_go]};
component(holding, #{new := New, let_go := Gone}) ->
    Parts = [["takes ", parts(New)] || New =/= []] ++ [["lets go of ", parts(Gone)] || Gone =/= []],
    {["this node ", lists:join(" and ", Parts)], [new, let_go]};
component(no_inventory_yet, #{why := Why}) ->
    {["what is on this disk is not known yet: ", words(Why)], [why]};
component(fact_not_published, #{why := Why}) ->
    {["a fact about this node could not be told to the others: ", words(Why)], [why]};
component(hold_not_taken, _) ->
    {"the engine did not take the list of what to hold; it is told again", []};
component(What, Facts) ->
    around(What, Facts).

%% --- the others

around(link, #{peer := Peer, state := State}) ->
    {link(State, short(Peer)), [peer, state]};
around(member, #{peer := Peer, state := joined}) ->
    {[short(Peer), " joined the cluster"], [peer, state]};
around(member, #{peer := Peer, state := left}) ->
    {[short(Peer), " has left the cluster"], [peer, state]};
around(member, #{peer := Peer, state := gone}) ->
    {[short(Peer), " was silent for too long and is gone: what it held goes to others"],
        [peer, state]};
around(no_connection, #{peer := Peer, why := Why}) ->
    {["no link to ", short(Peer), ": ", words(Why)], [peer, why]};
around(incarnation_raised, _) ->
    {"the others knew a later start of this node than this one; it counts on from there", []};
around(leaving_not_acknowledged_by_all, _) ->
    {"not everybody acknowledged in time that this node is leaving; it goes on leaving", []};
around(address_refused, #{address := Address}) ->
    {["an address that was found is no usable one: ", words(Address)], [address]};
around(discovery_failed, #{why := Why}) ->
    {["looking for other machines failed, those known are kept: ", words(Why)], [why]};
around(unknown_message_dropped, _) ->
    {"a message of unknown form was dropped, perhaps of another version", []};
around(What, Facts) ->
    asked_over_http(What, Facts).

%% --- the web room

asked_over_http(job_ended, #{how := How, client := Client, seconds := Seconds}) ->
    {["the job of ", words(Client), " is ", words(How), after_seconds(Seconds)],
        [how, client, seconds]};
asked_over_http(job_crashed, #{job := Id}) ->
    {["job ", words(Id), " failed by our own mistake"], [job]};
asked_over_http(job_not_watched, _) ->
    {"a job's generation ended before it could be watched", []};
asked_over_http(job_not_written, _) ->
    {"the end of a job could not be written: it counts as failed", []};
asked_over_http(job_not_renamed, _) ->
    {"a job that is lost could not be marked so: it is begun again at the next start", []};
asked_over_http(jobs_not_deleted, #{why := Why}) ->
    {["files of old jobs cannot be deleted: ", words(Why)], [why]};
asked_over_http(checkpoint_not_written, _) ->
    {"how far a job is could not be written: after a restart it goes on from before", []};
asked_over_http(checkpoint_refused, _) ->
    {"what was written of a job does not fit this node any more: it begins anew", []};
asked_over_http(handler_crashed, _) ->
    {"a request over HTTP failed here by our own mistake", [class]};
asked_over_http(dashboard_look_failed, _) ->
    {"the dashboard could not look at this node by our own mistake", [look]};
asked_over_http(What, Facts) ->
    node_itself(What, Facts).

after_seconds(Seconds) when is_number(Seconds) ->
    io_lib:format(", in ~.1f s", [float(Seconds)]);
after_seconds(_) ->
    "".

%% --- the node itself

node_itself(start_refused, #{app := App, reason := Reason}) ->
    {["the node cannot start, ", words(App), " refuses: ", words(Reason)], [app, reason]};
node_itself(launcher_gone, _) ->
    {"whoever started this node is gone, so it ends", []};
node_itself(process_crashed, #{reason := Reason} = Facts) ->
    {["a process crashed", where(Facts), ": ", words(Reason)], [reason, class, module, stack]};
node_itself(process_ended, #{reason := Reason} = Facts) ->
    {["a process ended by a fault", where(Facts), ": ", words(Reason)], [reason, class, stack]};
node_itself(supervisor_report, #{child := Child, reason := Reason, context := Context}) ->
    {["a supervisor tells of its child ", words(Child), ", ", words(Context), ": ", words(Reason)],
        [child, reason, context, stack]};
node_itself(application_ended, #{application := App, reason := Reason}) ->
    {["the application ", words(App), " ended: ", words(Reason)], [application, reason]};
node_itself(text, #{text := Text}) when is_binary(Text) ->
    {Text, [text]};
node_itself(What, _) ->
    {words(What), []}.

link(up, Peer) -> ["the link to ", Peer, " is up"];
link(suspect, Peer) -> ["nothing heard of ", Peer, " for too long: it is not asked until it is"];
link(down, Peer) -> ["the link to ", Peer, " is down: it is not asked until it is up again"];
link(State, Peer) -> ["the link to ", Peer, " is ", words(State)].

%% The innermost call; all of them are in the log.
where(#{stack := [Frame | _]}) -> [" in ", Frame];
where(_) -> "".

%% People count from one.
step(#{step := Step}) when is_integer(Step) -> io_lib:format(", in step ~b", [Step + 1]);
step(_) -> "".

%% 128 and the signal's number, as shells have it.
status(137) -> "killed, SIGKILL";
status(139) -> "a memory fault, SIGSEGV";
status(134) -> "aborted, SIGABRT";
status(143) -> "told to end, SIGTERM";
status(Status) when is_integer(Status) -> ["exit status ", integer_to_list(Status)];
status(Status) -> words(Status).

%% --- pieces

facts(Facts) when map_size(Facts) =:= 0 -> "";
facts(Facts) ->
    Named = [[words(Name), $\s, words(Value)] || {Name, Value} <- lists:sort(maps:to_list(Facts))],
    [" (", lists:join(", ", Named), ")"].

parts([]) -> "nothing";
parts(Components) when is_list(Components) -> lists:join(", ", [part(C) || C <- Components]);
parts(Other) -> words(Other).

part(Component) when is_binary(Component) ->
    lists:last(binary:split(Component, <<"/">>, [global]));
part(Other) ->
    words(Other).

short(Node) when is_atom(Node) -> baguette_event:address(Node);
short(Other) -> words(Other).

words(Name) when is_atom(Name) ->
    string:replace(baguette_event:address(Name), "_", " ", all);
words(Text) when is_binary(Text) -> Text;
words([First | _] = List) when not is_number(First) -> lists:join("; ", [word(I) || I <- List]);
words(Tuple) when is_tuple(Tuple) -> lists:join(" ", [word(I) || I <- tuple_to_list(Tuple)]);
words(Map) when is_map(Map) ->
    lists:join("; ", [[words(K), $\s, word(V)] || {K, V} <- lists:sort(maps:to_list(Map))]);
words(Other) -> io_lib:format("~0tP", [Other, 12]).

word(Compound) when is_tuple(Compound); is_list(Compound) -> [$(, words(Compound), $)];
word(Simple) -> words(Simple).
