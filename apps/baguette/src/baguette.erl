%% @doc Baguette for a person in the Erlang shell: draw, look, cancel. help/0 says how.
%% Every function prints for people and returns for programs. Sentences and tables are made in
%% baguette_text; nothing is decided here. Programs that want events talk to baguette_engine.
-module(baguette).

%% Drawing
-export([generate/1, generate/2, result/1, generations/0, cancel/1]).
%% Looking
-export([status/0, events/0, events/1, report/0, nodes/0, experts/0, help/0]).
%% For the control node (baguette_control)
-export([readiness/0, joining/0, figures/0, own_figures/0, trace/1, simulate/1]).
-export([status_text/0, report_text/0, events_text/0, events_text/1]).

-export_type([options/0, result/0]).

%% A screenful or two; all that is kept is in the log.
-define(EVENTS, 100).
-define(FAULTS, 5).

-type options() :: #{
    n => pos_integer(),
    steps => pos_integer(),
    guidance_scale => number(),
    top_k => pos_integer() | full,
    seed => non_neg_integer(),
    negative_prompt => unicode:chardata(),
    deterministic => boolean(),
    cache => number(), % use velocities again below this; 0: never
    out_dir => file:name_all() % where the pictures go; default: the setting out_dir
}.
-type result() :: #{images := [#{png := file:filename_all(), atom() => term()}], atom() => term()}.

%% @doc Draws with the model's own defaults.
-spec generate(unicode:chardata()) -> {ok, result()} | {error, term()}.
generate(Prompt) ->
    generate(Prompt, #{}).

%% @doc Draws, shows the step and the experts asked (on a terminal), and writes each picture to a
%% file of its own. What is wrong is printed as a sentence and returned as a name and facts. What
%% fills a screen in the shell (routing of every step, every call) is left to result/1.
-spec generate(unicode:chardata(), options()) -> {ok, result()} | {error, term()}.
generate(Prompt, Options) when is_map(Options) ->
    Dir = maps:get(out_dir, Options, application:get_env(?MODULE, out_dir, "out")),
    Request = as_binaries((maps:remove(out_dir, Options))#{prompt => Prompt}),
    case baguette_draw:run(Request, progress()) of
        {ok, Result} -> written(baguette_draw:write(Result, Dir));
        {error, Reason} -> refused(Reason)
    end.

%% @doc All that is known of a finished generation: pictures as bytes, experts and weights of every
%% step, who answered what and how fast, the keys of what was asked.
-spec result(binary()) -> {ok, map()} | {error, term()}.
result(Id) ->
    case baguette_engine:result(Id) of
        {ok, Result} -> {ok, Result};
        {error, Reason} -> refused(Reason)
    end.

%% @doc The generations of this node, newest first.
-spec generations() -> [map()].
generations() ->
    baguette_engine:generations().

-spec cancel(binary()) -> ok | {error, term()}.
cancel(Id) ->
    case baguette_engine:cancel(Id) of
        ok -> ok;
        {error, Reason} -> refused(Reason)
    end.

%% @doc Prints nodes, experts and generations as tables.
-spec status() -> ok.
status() ->
    say(status_text()).

%% @doc Prints what happened on this node lately, a line an event, newest last.
-spec events() -> ok.
events() ->
    say(events_text()).

%% @doc Prints one generation's story: what its own node told of it, and what happened to workers
%% and links meanwhile. The first letters of an id that nobody else has are enough.
-spec events(binary()) -> ok | {error, {atom(), map()}}.
events(Id) ->
    case events_text(Id) of
        {ok, Text} -> say(Text);
        {error, Reason} -> refused(Reason)
    end.

%% @doc Prints this node's capability report: hardware, measured speed, links, what it holds.
-spec report() -> ok.
report() ->
    say(report_text()).

-spec nodes() -> [map()].
nodes() ->
    baguette_cluster:nodes().

-spec experts() -> [map()].
experts() ->
    baguette_engine:experts().

-spec help() -> ok.
help() ->
    say(baguette_text:help()).

%% @doc How far this node's view of the cluster is from being able to draw.
-spec readiness() ->
    #{
        nodes := non_neg_integer(),
        ready := non_neg_integer(),
        experts := non_neg_integer(),
        failed := [non_neg_integer()],
        workers_failed := [Reason :: term()],
        pipeline := boolean()
    }.
readiness() ->
    Experts = baguette_engine:experts(),
    Workers = baguette_engine:workers(),
    Linked = [Node || #{node := Node, link := up} <- baguette_cluster:nodes()],
    #{
        nodes => length(lists:usort([node() | Linked])),
        ready => length([E || #{holders := [_ | _]} = E <- Experts]),
        experts => length(Experts),
        failed => [E || #{expert := E, component := C, holders := []} <- Experts, has_failed(C)],
        workers_failed => failures(Workers),
        pipeline => lists:any(fun is_ready_pipeline/1, Workers)
    }.

%% @doc How far this one node is from being READY: in the cluster, measured, holding its share.
-spec joining() ->
    #{
        node := node(),
        linked := [node()],
        unreached := [map()],
        inventory := term(),
        agreed := boolean(),
        planned := [binary()],
        ready := [binary()],
        measured := boolean(),
        pipeline := boolean(),
        workers_failed := [Reason :: term()]
    }.
joining() ->
    #{agreed := Agreed, inventory := Inventory} = baguette_cluster:overview(),
    Workers = baguette_engine:workers(),
    #{
        node => node(),
        linked => [N || #{node := N, link := up, self := false} <- baguette_cluster:nodes()],
        unreached => baguette_cluster:unreached(),
        inventory => Inventory,
        agreed => Agreed,
        planned => [C || {C, Nodes} <- plan(), lists:member(node(), Nodes)],
        ready => own_ready(),
        measured => is_measured(own_facts()),
        pipeline => lists:any(fun is_done_pipeline/1, Workers),
        workers_failed => failures(Workers)
    }.

failures(Workers) -> [Reason || #{state := {failed, Reason}} <- Workers].

%% @doc What every node that can be reached counts about itself (baguette_figures).
-spec figures() -> [map()].
figures() ->
    baguette_figures:all().

%% @doc The same of this node alone.
-spec own_figures() -> [map()].
own_figures() ->
    [baguette_figures:this()].

%% @doc Watch on every node where the time of calls goes, from now on or until now.
-spec trace(on | off) -> [map()].
trace(What) ->
    baguette_figures:trace(What).

%% @doc Changes the simulated device of this node, e.g. #{speed => 0.1}; refused by a real one.
-spec simulate(map()) -> ok | {error, term()}.
simulate(Changes) ->
    baguette_engine:simulate(Changes).

plan() -> lists:sort(maps:to_list(baguette_cluster:plan())).

own_ready() ->
    Components = lists:sort(maps:to_list(baguette_cluster:components())),
    [C || {C, #{ready := Nodes}} <- Components, lists:member(node(), Nodes)].

%% What is kept on the disk is told at once; the rest is measured when the experts are loaded.
is_measured(#{speed := #{cpu_gflops := _, memory_mib_s := _, call_us := #{1 := _}}}) -> true;
is_measured(_) -> false.

own_facts() ->
    [#{report := #{extra := Facts}} | _] = baguette_cluster:nodes(),
    Facts.

-spec report_text() -> unicode:chardata().
report_text() ->
    Experts = baguette_engine:experts(),
    Missing = [expert_name(E) || #{expert := E, holders := []} <- Experts],
    [#{leaving := Leaving} | Peers] = baguette_cluster:nodes(),
    Facts = maps:with([hardware, speed, memory], own_facts()),
    baguette_capability:box(Facts#{
        peers => [
            maps:merge(#{node => address(N)}, maps:with([rtt_us, mbit, path], Info))
         || #{node := N, link := up} = Info <- Peers
        ],
        holds => [name(C) || C <- own_ready()],
        status => status_word((joining())#{leaving => Leaving}, Missing)
    }).

address(Node) -> list_to_binary(lists:last(string:split(atom_to_list(Node), "@"))).

%% A component by the number of its expert, or by its own name where there is no model.
name(Component) ->
    case [E || #{expert := E, component := C} <- baguette_engine:experts(), C =:= Component] of
        [Expert] -> expert_name(Expert);
        [] -> Component
    end.

expert_name(Expert) -> [$E | integer_to_list(Expert)].

status_word(#{leaving := true}, _Missing) ->
    "LEAVING";
status_word(#{inventory := ok, agreed := true, planned := Planned, ready := Ready}, Missing) ->
    case {Planned -- Ready, Missing} of
        {[], []} -> "READY";
        {[], _} -> ["READY, the cluster waits for ", lists:join(" ", Missing)];
        {Loading, _} -> ["LOADING ", lists:join(" ", [name(C) || C <- Loading])]
    end;
status_word(_, _Missing) ->
    "STARTING".

%% Every node that has it on disk has tried: waiting longer changes nothing.
has_failed(Component) ->
    case baguette_cluster:why_missing(Component) of
        {failed, _} -> true;
        _ -> false
    end.

is_ready_pipeline(#{kind := pipeline, state := ready}) -> true;
is_ready_pipeline(_) -> false.

%% Idle: it is started at the first request, because this node need not serve any.
is_done_pipeline(#{kind := pipeline, state := State}) -> State =:= ready orelse State =:= idle;
is_done_pipeline(_) -> false.

-spec events_text() -> unicode:chardata().
events_text() ->
    baguette_story:lines([{none, Event} || Event <- last(?EVENTS, baguette_events:lately())]).

-spec events_text(binary()) -> {ok, unicode:chardata()} | {error, {atom(), map()}}.
events_text(Id) ->
    case baguette_history:of_generation(Id) of
        {ok, Told} -> {ok, baguette_story:lines(Told)};
        {error, _} = Error -> Error
    end.

last(Count, List) -> lists:nthtail(max(0, length(List) - Count), List).

-spec status_text() -> unicode:chardata().
status_text() ->
    Experts = baguette_engine:experts(),
    Events = baguette_events:lately(),
    Now = erlang:system_time(microsecond),
    baguette_text:status(#{
        model => baguette_engine:model(),
        nodes => baguette_cluster:nodes(),
        components => baguette_cluster:components(),
        experts => Experts,
        missing => [
            {E, baguette_cluster:why_missing(C)}
         || #{expert := E, component := C, holders := []} <- Experts
        ],
        workers => baguette_engine:workers(),
        generations => baguette_engine:generations(),
        link_ms => maps:map(fun(_, At) -> (Now - At) div 1000 end, baguette_story:links(Events)),
        lately => last(?FAULTS, [Event || Event <- Events, baguette_story:is_fault(Event)])
    }).

%% --- printing

as_binaries(Request) ->
    maps:map(
        fun
            (Key, Text) when Key =:= prompt; Key =:= negative_prompt -> as_binary(Text);
            (_Key, Value) -> Value
        end,
        Request
    ).

%% What is no text goes on as it is: the engine's refusal names the option.
as_binary(Text) ->
    try unicode:characters_to_binary(Text) of
        Binary when is_binary(Binary) -> Binary;
        _ -> Text
    catch
        error:badarg -> Text
    end.

%% One line that is written over at each step, and only where that can be seen.
progress() ->
    case io:columns() of
        {ok, Width} ->
            fun(Event) ->
                case baguette_text:event(Event) of
                    none -> ok;
                    Text -> say(["\r\e[K", string:slice(Text, 0, Width - 1)])
                end
            end;
        {error, enotsup} ->
            fun(_Event) -> ok end
    end.

written({ok, Result}) ->
    say([["\r\e[K" || {ok, _} <- [io:columns()]], baguette_text:result(Result)]),
    {ok, maps:without([routing, calls, keys], Result)};
written({error, Reason}) ->
    refused(Reason).

refused(Reason) ->
    say([["\r\e[K" || {ok, _} <- [io:columns()]], baguette_text:error(Reason), "\n"]),
    {error, Reason}.

say(Text) ->
    io:put_chars(Text).
