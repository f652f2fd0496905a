%% @doc Sentences and tables for people; the only place of the shell's face that makes them. Pure:
%% facts in, Unicode text out. An error's sentence says what happened and what to do next.
-module(baguette_text).

-export([error/1, event/1, missing/1, result/1, status/1, help/0, table/2]).

-spec help() -> unicode:chardata().
help() ->
    <<
        "Draw:    baguette:generate(\"a green star on a white background\").\n"
        "         baguette:generate(P, #{steps => 20, seed => 7, n => 4}).\n"
        "         options: n steps guidance_scale top_k (a number or full) seed negative_prompt\n"
        "                  deterministic out_dir; what is left out is the model's own default\n"
        "                  cache (use velocities again below this; 0: never)\n"
        "                  on_missing (what to do about an expert that nobody holds): wait,\n"
        "                  degrade (do without, and say so) or fail\n"
        "Look:    baguette:status().  baguette:report().  baguette:nodes().  baguette:experts().\n"
        "         baguette:generations().  baguette:result(Id).\n"
        "         baguette:events().  What happened here lately; baguette:events(Id). tells one\n"
        "         generation's story, gathered from all nodes (the first letters of Id will do)\n"
        "Stop:    baguette:cancel(Id).   Leave an attached shell: q().   The node goes on.\n"
    >>.

%% --- what went wrong

-spec error(term()) -> unicode:chardata().
error({bad_request, Field, Got, Allowed}) ->
    io_lib:format("~ts is ~0tp, but must be ~ts.", [Field, printable(Got), Allowed]);
error({cannot_write, #{path := Path, why := Why, id := Id}}) ->
    io_lib:format(
        "~ts cannot be written: ~ts. Nothing is lost: baguette:result(<<\"~ts\">>) has the picture "
        "while this node keeps it. Make room, or give another place with the option out_dir.",
        [Path, file:format_error(Why), Id]
    );
error({no_holder, #{expert := Expert, why := Why}}) ->
    ["No node holds ", expert_name(Expert), ", which is needed: ", missing(Why),
        " - ask with on_missing wait or degrade, or see baguette:status()."];
error({Name, Facts}) when is_atom(Name), is_map(Facts) ->
    {What, Next} = maps:get(Name, sentences(), unknown(Name)),
    [What, facts(Facts), ". ", Next];
error(Other) ->
    io_lib:format("Something unexpected came back: ~0tP. The node's log says more.", [Other, 20]).

%% What happened, and what to do next.
sentences() ->
    #{
        overloaded => {"This node has all it can draw", "Try again when one has ended."},
        not_ready => {"This node cannot draw yet", "baguette:status() shows what is missing."},
        not_connected => {"The node cannot be reached", "Is it running, with the same cookie?"},
        requester_died => {
            "The node that was asked has died, and its pictures with it", "Ask another node."
        },
        no_answer => {"The node did not answer in time", "Its log says more."},
        not_simulated => {"This node's device is real", "Only a simulated one can be changed."},
        unknown_generation => {"No such generation here", "baguette:generations() lists all."},
        ambiguous_generation => {"Several generations begin so", "Give more of the Id."},
        unknown_option => {"There is no such option", "baguette:help() lists all."},
        cannot_load => {"No node could load every expert", "The nodes' logs say why."},
        python_not_started => {"Python could not be started", "Run make setup."},
        worker_not_started => {"A worker dies at every start", "The node's log says why."},
        not_joined => {"This node is not READY yet", "Its log says more."},
        wrong_secret => {
            "These nodes have another secret", "Run make invite there, and the line it prints here."
        },
        leaving => {"This node is leaving the cluster", "Ask another one."},
        leave_failed => {"The node could not leave in order", "Its log says why."},
        still_running => {"It is not finished", "baguette:generations() shows its step."},
        generation_lost => {"The generation's process crashed", "The node's log says why."},
        cancelled => {"The generation was cancelled", ""},
        no_holder => {"No node holds an expert that is needed", "See baguette:status()."},
        deadline => {"The generation took longer than it may", "Ask for fewer steps or images."},
        expert_call_died => {
            "The call of one expert failed wherever it was asked",
            "Try other words or options; the logs of the nodes say what each of them died of."
        },
        pipeline_died => {
            "This node's own worker died of the same call again and again",
            "Try other words or options; the node's log says what it died of."
        },
        device_lost => {"A device failed while it computed", "Try again: its worker is restarted."},
        failure => {"A worker could not do what it was asked", "The node's log says more."},
        not_finite => {
            "The model computed no picture",
            "Try a lower guidance_scale; if that does not help, fetch the model's files again."
        },
        out_of_memory => {"A device ran out of memory", "Ask for fewer images at once."},
        bad_input => {"The model refused the request", "Try other words or options."},
        bad_weights => {"The model's files are not as they should be", "Make or fetch them again."}
    }.

unknown(Name) ->
    {["The generation failed: ", words(Name)], "The node's log says more."}.

facts(Facts) when map_size(Facts) =:= 0 -> "";
facts(Facts) -> [" (", lists:join(", ", [fact(F) || F <- lists:sort(maps:to_list(Facts))]), ")"].

fact({Key, Value}) when is_binary(Value) -> [words(Key), " ", Value];
fact({Key, Value}) -> io_lib:format("~ts ~0tP", [words(Key), Value, 12]).

words(Name) when is_atom(Name) -> string:replace(atom_to_list(Name), "_", " ", all);
words(Name) -> io_lib:format("~0tp", [Name]).

printable(Got) when is_binary(Got) -> unicode:characters_to_list(Got);
printable(Got) -> Got.

%% --- one generation

%% @doc A line for an event, or none where there is nothing to tell.
-spec event(baguette_draw:event()) -> unicode:chardata() | none.
event({step, #{step := Step, steps := Steps, experts := Experts}}) ->
    Asked = lists:usort(lists:append(Experts)),
    Line = [bar(Step, Steps), Step, Steps, expert_names(Asked)],
    io_lib:format("~ts step ~b/~b  asking ~ts", Line);
event({state, #{state := State}}) when State =:= encoding; State =:= decoding ->
    words(State);
event({warning, #{text := Text}}) ->
    [Text, "\n"];
event({waiting, #{expert := Expert, reason := {loading, Nodes, Ms}}}) ->
    io_lib:format("expert ~b is loading on ~ts~ts", [Expert, node_names(Nodes), about(Ms)]);
event({waiting, #{expert := Expert, reason := Reason}}) ->
    ["waiting for ", expert_name(Expert), ": ", missing(Reason)];
event({waiting, #{reason := Reason}}) ->
    ["waiting: ", missing(Reason)];
event({failover, #{expert := Expert, from := From, why := Why} = Facts}) ->
    Line = [expert_name(Expert), short(From), fault(Why), instead(maps:get(to, Facts, undefined))],
    io_lib:format("~ts: ~ts~ts, ~ts", Line);
event({hedge, #{expert := Expert, from := From, to := To}}) ->
    Line = [expert_name(Expert), short(From), short(To)],
    io_lib:format("~ts: ~ts is slow, asking ~ts besides", Line);
event({degraded, #{lost := Lost, mass := Mass}}) ->
    io_lib:format("going on without ~ts, ~b % of the router's weight", [
        expert_names(Lost), round(100 * Mass)
    ]);
event(_) ->
    none.

%% @doc Why an expert cannot be asked now (`baguette_cluster:why_missing/1'), or why else a
%% generation waits, and what helps.
-spec missing(term()) -> unicode:chardata().
missing({loading, Nodes, Ms}) -> ["it is loading on ", node_names(Nodes), about(Ms)];
missing({unreachable, [Node]}) ->
    [short(Node), " holds it, but this machine cannot reach it; is its link up?"];
missing({unreachable, Nodes}) ->
    [node_names(Nodes), " hold it, but this machine cannot reach them; are their links up?"];
missing({planned, Nodes}) -> [node_names(Nodes), " is about to load it"];
missing({failed, Nodes}) -> [node_names(Nodes), " could not load it; the log there says why"];
missing(nobody_has_it_on_disk) ->
    "nobody has it whole on its disk; copy it to a node's model directory "
    "(python -m baguette check finds what is damaged)";
missing({another_version, Nodes}) ->
    ["only ", node_names(Nodes), " can be asked, and has another version than the picture's"];
missing({suspect, Node}) -> [short(Node), " has it and is silent"];
missing(no_memory) -> "no node that has it on its disk has the memory for it; let another join";
missing(not_settled) -> "the nodes have not agreed yet who holds it";
missing({late, Node}) -> [short(Node), " has it and takes longer than usual"];
missing({busy, Node}) ->
    [short(Node), " has it and too much to do; it is asked again, more nodes would help"];
missing(pipeline_restarting) -> "this node's own worker died; it is being started again";
missing(pipeline_late) -> "this node's own worker takes longer than usual";
missing(Other) -> io_lib:format("~0tP", [Other, 12]).

about(unknown) -> "";
about(Ms) -> io_lib:format(", about ~b s", [max(1, (Ms + 500) div 1000)]).

%% What made us ask somebody else.
fault(died) -> "'s worker died";
fault(lost) -> " is gone, or the link to it";
fault(suspect) -> " has not been heard of for too long";
fault(late) -> " did not answer in time";
fault(not_held) -> " does not hold it now";
fault(unreachable) -> " cannot be reached";
fault(out_of_memory) -> " ran out of memory";
fault(failure) -> " could not compute it";
fault(not_finite) -> " computed something that is no number";
fault(Other) -> [" failed (", text(Other), ")"].

instead(undefined) -> "nobody else can be asked now";
instead(Node) -> ["asking ", short(Node)].

bar(Step, Steps) ->
    Full = 20 * Step div max(Steps, 1),
    [lists:duplicate(Full, $█), lists:duplicate(20 - Full, $░)].

expert_names(Experts) -> lists:join(" ", [expert_name(E) || E <- Experts]).

expert_name(Expert) -> [$E | integer_to_list(Expert)].

-spec result(map()) -> unicode:chardata().
result(#{images := Images, seconds := #{total := Total}} = Result) ->
    [
        [[Path, "\n"] || #{png := Path} <- Images],
        ["drawn on a simulated device: these are no pictures\n" || is_map_key(simulated, Result)],
        io_lib:format("~b steps in ~.1f s, seed ~b, asked: ~ts~n", [
            maps:get(steps, Result), Total, maps:get(seed, Result), who(maps:get(who, Result))
        ])
    ].

who(Counts) ->
    Parts = [
        io_lib:format("~ts ~b", [short(Node), N])
     || {Node, N} <- lists:sort(maps:to_list(Counts))
    ],
    lists:join(", ", Parts).

%% --- status

-spec status(map()) -> unicode:chardata().
status(#{model := Model, generations := Generations} = Facts) ->
    lists:join($\n, [
        model(Model),
        nodes_table(Facts),
        [experts(Facts) | lacking(Facts)],
        workers(Facts),
        generations(Generations)
        | lately(Facts)
    ]).

%% What went wrong last, so that nobody has to look for it.
lately(#{lately := [_ | _] = Events}) ->
    Lines = baguette_story:lines([{none, Event} || Event <- Events]),
    [["Lately, and more in baguette:events():\n", Lines]];
lately(_) ->
    [].

model({ok, #{name := Name}}) -> ["Model ", Name, $\n];
model({error, Reason}) -> ["No model: ", ?MODULE:error(Reason), $\n].

nodes_table(#{nodes := Nodes, components := Components} = Facts) ->
    Since = maps:get(link_ms, Facts, #{}),
    table(["Node", "Link", "Trip", "Mbit/s", "ms a call", "Ready", "Loading", "Last heard"], [
        [
            [short(Node), [" (this)" || maps:get(self, N, false)]],
            [link_state(N), for(N, Since)],
            ms(maps:get(rtt_us, N, 0)),
            known(maps:get(mbit, N, 0)),
            ms(call_us(N)),
            held(Node, ready, Components),
            held(Node, loading, Components),
            age(N)
        ]
     || #{node := Node} = N <- Nodes
    ]).

link_state(#{gone := true}) -> "gone";
link_state(#{self := true}) -> "-";
link_state(#{report := #{extra := #{leaving := true}}}) -> "leaving";
link_state(#{link := up, path := relayed}) -> "relayed";
link_state(#{link := Link}) -> atom_to_list(Link).

%% How long it has been so, where that is bad news and known.
for(#{node := Node, link := Link, self := false}, Since) when Link =/= up ->
    case Since of
        #{Node := Ms} -> io_lib:format(" for ~b s", [Ms div 1000]);
        #{} -> ""
    end;
for(_, _) ->
    "".

%% 0: not measured yet.
ms(0) -> "-";
ms(Us) when Us < 99950 -> io_lib:format("~.1f", [Us / 1000]);
ms(Us) -> integer_to_list((Us + 500) div 1000).

times(0) -> "-";
times(1) -> "once";
times(N) -> [integer_to_list(N), " times"].

known(0) -> "-";
known(N) -> integer_to_list(N).

call_us(#{report := #{extra := #{call_us := Us}}}) -> Us;
call_us(_) -> 0.

age(#{self := true}) -> "-";
age(#{age_ms := Ms}) -> io_lib:format("~b ms", [Ms]);
age(_) -> "-".

held(Node, State, Components) ->
    Names = [
        part(C)
     || {C, #{State := Nodes}} <- lists:sort(maps:to_list(Components)), lists:member(Node, Nodes)
    ],
    lists:join(" ", Names).

experts(#{experts := Experts, components := Components}) ->
    table(["Expert", "Held by", "Loading on", "On disk of"], [
        [
            expert_name(Expert),
            node_names(Holders),
            node_names(nodes_of(loading, Component, Components)),
            count(length(nodes_of(on_disk, Component, Components)), "node")
        ]
     || #{expert := Expert, component := Component, holders := Holders} <- Experts
    ]).

lacking(Facts) ->
    [
        [expert_name(Expert), ": ", missing(Why), $\n]
     || {Expert, Why} <- maps:get(missing, Facts, [])
    ].

nodes_of(State, Component, Components) ->
    maps:get(State, maps:get(Component, Components, #{}), []).

node_names([]) -> "-";
node_names(Nodes) -> lists:join(" ", [short(N) || N <- lists:sort(Nodes)]).

workers(#{workers := Workers}) ->
    table(["Worker here", "State", "OS process", "Died", "Holds"], [
        [
            atom_to_list(Kind),
            text(State),
            os_process(W),
            times(maps:get(deaths, W, 0)),
            lists:join(" ", [part(C) || C <- maps:get(components, W, []), is_binary(C)])
        ]
     || #{kind := Kind, state := State} = W <- Workers
    ]).

%% What computes nothing is never shown as if it did.
os_process(#{simulated := true}) -> "none: simulated device";
os_process(Worker) -> text(maps:get(os_pid, Worker, undefined)).

generations([]) ->
    "No generations yet.\n";
generations(Generations) ->
    table(["Generation", "State", "Step", "Images", "Started", "Failovers"], [
        [
            text(maps:get(id, G)),
            text(maps:get(state, G)),
            io_lib:format("~ts/~ts", [text(maps:get(step, G, 0)), text(maps:get(steps, G, 0))]),
            text(maps:get(n, G, 1)),
            io_lib:format("~.1f s ago", [maps:get(started_ms_ago, G, 0) / 1000]),
            known(maps:get(failovers, G, 0))
        ]
     || G <- lists:sublist(Generations, 20)
    ]).

%% --- pieces

%% "paris-mini/expert-3" is expert-3 where the model is known.
part(Component) -> lists:last(binary:split(Component, <<"/">>, [global])).

short(Node) -> lists:last(string:split(text(Node), "@")).

count(1, Noun) -> ["1 ", Noun];
count(N, Noun) -> [integer_to_list(N), $\s, Noun, $s].

text(undefined) -> "-";
text(Value) when is_atom(Value) -> atom_to_list(Value);
text(Value) when is_binary(Value) -> Value;
text(Value) -> io_lib:format("~0tp", [Value]).

%% @doc Columns as wide as their widest cell, a line under the head.
-spec table([unicode:chardata()], [[unicode:chardata()]]) -> unicode:chardata().
table(Head, Rows) ->
    Cells = [[unicode:characters_to_list(Cell) || Cell <- Row] || Row <- [Head | Rows]],
    Widths = lists:foldl(fun widen/2, [0 || _ <- Head], Cells),
    [HeadLine | Lines] = [line(Row, Widths) || Row <- Cells],
    %% A column of sentences may be wider than the terminal, the line under its head is not.
    Rule = lists:join("  ", [lists:duplicate(min(Width, 60), $─) || Width <- Widths]),
    [[Line, $\n] || Line <- [HeadLine, Rule | Lines]].

widen(Row, Widths) ->
    lists:zipwith(fun(Cell, Width) -> max(string:length(Cell), Width) end, Row, Widths).

line(Row, Widths) ->
    Cells = lists:zipwith(fun(Cell, Width) -> string:pad(Cell, Width) end, Row, Widths),
    string:trim(lists:join("  ", Cells), trailing).
