%% @doc Acts on this node's line of the plan: makes the plan from the reports, says what this node
%% has and holds, and tells the component module what to hold. baguette_cluster_placement makes the
%% plan, baguette_cluster_line says what may be done now; this performs.
%% Its table (the plan, what is held, the states) is owned by the supervisor and read by the door;
%% after a crash this goes on from it. When it is down, nothing moves and all that is held stays.
-module(baguette_cluster_holdings).

-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/1, look/0, replan/0, component_state/2]).
%% Looking: table reads
-export([plan/0, overview/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(TABLE, ?MODULE).
-define(LOG_META, #{domain => [baguette, cluster]}).
-define(INVENTORY_MS, 60000).       % how often the disk is looked at again
-define(INVENTORY_RETRY_MS, 200).  % after an error: the application above may not be up yet
-define(REMIND_BEATS, 10).          % how often the list is told again unchanged
-define(MEASURE_BEATS, 10).         % how often the round trips are looked at
-define(STRIKES, 3).                % failures to load or crashes, within
-define(STRIKES_MS, 60000).         % this time, and the component is planned elsewhere
-define(FAILED_MS, 120000).         % for this long

-type component() :: baguette_cluster_component:component().
-record(?MODULE, {
    settings :: baguette_cluster_settings:settings(),
    line :: baguette_cluster_line:state(),
    items = [] :: [baguette_cluster_component:item()],
    memory_mib = 0 :: non_neg_integer(),
    inventory = unknown :: unknown | ok | {error, term()},
    asking :: {pid(), reference()} | undefined,     % the process that looks at the disk
    held = [] :: [component()],
    states = #{} :: #{component() => baguette_cluster_component:state()}, % of what is held
    strikes = #{} :: #{component() => [integer()]},
    failed = #{} :: #{component() => Until :: integer()},
    %% All reports, ours first, as they are while no body is another; what the plan was made for.
    seen = {#{}, []} :: {#{node() => non_neg_integer()}, [baguette_cluster_report:report()]},
    fleet :: baguette_cluster_draft:fleet() | undefined,
    plan = #{} :: baguette_cluster_placement:plan(),
    said = #{} :: #{atom() => term()},              % our facts in the report, as last published
    distance = baguette_cluster_distance:new() :: baguette_cluster_distance:state(),
    told = false :: boolean(),                      % the component module has our latest list
    try_again = false :: boolean(),                 % tell it with the next beat: a load failed
    beats = 0 :: non_neg_integer()
}).
-type state() :: #?MODULE{}.

-spec start_link(baguette_cluster_settings:settings()) -> gen_server:start_ret().
start_link(Settings) ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, Settings, []).

%% @doc Something in the reports or links changed.
-spec look() -> ok.
look() ->
    gen_server:cast(?MODULE, look).

%% @doc The same, done when this returns.
-spec replan() -> ok.
replan() ->
    gen_server:call(?MODULE, replan).

-spec component_state(component(), baguette_cluster_component:state()) -> ok.
component_state(Component, State) ->
    gen_server:cast(?MODULE, {component_state, Component, State}).

-spec plan() -> baguette_cluster_placement:plan().
plan() ->
    ets:lookup_element(?TABLE, plan, 2).

-spec overview() ->
    #{agreed := boolean(), settled := boolean(), held := [component()], inventory := term()}.
overview() ->
    ets:lookup_element(?TABLE, overview, 2).

-spec init(baguette_cluster_settings:settings()) -> {ok, state()}.
init(#{settle_ms := Settle, beat_ms := Beat} = Settings) ->
    %% Readers may come before there is anything to plan.
    _ = ets:insert_new(?TABLE, {plan, #{}}),
    %% The clock is above every number that a process of this name has counted to before.
    Line = baguette_cluster_line:new(Settle, erlang:system_time(microsecond)),
    S = #?MODULE{settings = Settings, line = Line},
    Remembered = case ets:lookup(?TABLE, memory) of
        [{memory, Items, Mib, Held, States}] ->
            Resumed = baguette_cluster_line:resumed(now_ms(), Line),
            S#?MODULE{
                items = Items, memory_mib = Mib, held = Held, states = States, line = Resumed
            };
        [] ->
            S
    end,
    self() ! inventory,
    _ = erlang:send_after(Beat, self(), beat),
    {ok, act(Remembered)}.

-spec handle_call(replan | term(), gen_server:from(), state()) ->
    {reply, ok | {error, unknown_call}, state()}.
handle_call(replan, _From, S) ->
    {reply, ok, act(S)};
handle_call(Unknown, _From, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Unknown),
    {reply, {error, unknown_call}, S}.

-spec handle_cast(Message, state()) -> {noreply, state()} when
    Message :: look | {component_state, component(), baguette_cluster_component:state()}.
handle_cast(look, S) ->
    ok = swallow_looks(),
    {noreply, act(S)};
handle_cast({component_state, Component, State}, #?MODULE{held = Held} = S) ->
    case lists:member(Component, Held) of
        true -> {noreply, act(new_state(Component, State, S))};
        false -> {noreply, S} % the last word of something we let go
    end;
handle_cast(Unknown, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Unknown),
    {noreply, S}.

-spec handle_info(beat | inventory | {inventory, pid(), term()}
    | {'DOWN', reference(), process, pid(), term()}, state()) -> {noreply, state()}.
handle_info(beat, #?MODULE{settings = #{beat_ms := Beat}, beats = Beats} = S) ->
    _ = erlang:send_after(Beat, self(), beat),
    Remind = S#?MODULE.try_again orelse (Beats + 1) rem ?REMIND_BEATS =:= 0,
    Told = S#?MODULE.told andalso not Remind,
    Next = S#?MODULE{beats = Beats + 1, told = Told, try_again = false},
    {noreply, act(measure(forgive(Next)))};
handle_info(inventory, S) ->
    {noreply, ask_inventory(S)};
handle_info({inventory, Pid, Answer}, #?MODULE{asking = {Pid, Ref}} = S) ->
    true = demonitor(Ref, [flush]),
    {noreply, act(inventory(Answer, S#?MODULE{asking = undefined}))};
handle_info({'DOWN', Ref, process, Pid, Why}, #?MODULE{asking = {Pid, Ref}} = S) ->
    {noreply, inventory({error, {crashed, exit_name(Why)}}, S#?MODULE{asking = undefined})};
handle_info(Unknown, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Unknown),
    {noreply, S}.

%% Sixty-three reports that came together are one reason to plan, not sixty-three.
swallow_looks() ->
    receive
        {'$gen_cast', look} -> swallow_looks()
    after 0 -> ok
    end.

%% What is on the disk --------------------------------------------------------------------------

%% In a process of its own: hashing a large file takes longer than a beat.
ask_inventory(#?MODULE{settings = #{component_module := undefined}} = S) ->
    S;
ask_inventory(#?MODULE{settings = #{component_module := Module}} = S) ->
    Self = self(),
    S#?MODULE{asking = spawn_monitor(fun() ->
        Answer = {Module:inventory(), Module:memory_mib()},
        Self ! {inventory, self(), Answer}
    end)}.

inventory({{ok, Items}, Mib}, S) when is_integer(Mib), Mib >= 0 ->
    case baguette_cluster_component:check(Items) of
        ok ->
            _ = erlang:send_after(?INVENTORY_MS, self(), inventory),
            %% Asked once: what is free when components are loaded is not what there is for them.
            Memory = case knows_its_disk(S) of
                true -> S#?MODULE.memory_mib;
                false -> Mib
            end,
            S#?MODULE{items = lists:usort(Items), memory_mib = Memory, inventory = ok};
        {error, Why} ->
            no_inventory(Why, S)
    end;
inventory({{error, Why}, _}, S) -> no_inventory(Why, S);
inventory({error, Why}, S) -> no_inventory(Why, S);
inventory(_, S) -> no_inventory(bad_answer, S).

%% An error is not an empty disk: what was known stays.
no_inventory(Why, #?MODULE{inventory = Before} = S) ->
    _ = erlang:send_after(?INVENTORY_RETRY_MS, self(), inventory),
    Before =:= {error, Why} orelse
        ?LOG_NOTICE(#{what => no_inventory_yet, why => Why}, ?LOG_META),
    S#?MODULE{inventory = {error, Why}}.

exit_name({{Name, _}, Stack}) when is_list(Stack) -> Name;
exit_name({Name, Stack}) when is_list(Stack) -> Name;
exit_name(Name) when is_atom(Name) -> Name;
exit_name(_) -> other.

%% What became of what is held ------------------------------------------------------------------

new_state(C, failed, #?MODULE{strikes = Strikes} = S) ->
    Now = now_ms(),
    Recent = [Now | [T || T <- maps:get(C, Strikes, []), Now - T < ?STRIKES_MS]],
    ?LOG_WARNING(#{what => component_failed, component => C, strike => length(Recent)}, ?LOG_META),
    strike(C, length(Recent), Now, S#?MODULE{strikes = Strikes#{C => Recent}});
new_state(C, restarting, #?MODULE{states = States, strikes = Strikes} = S) ->
    %% Its worker died. That is a strike too, but where nobody else could hold the component, moving
    %% it would only take it from everybody.
    Now = now_ms(),
    Recent = [Now | [T || T <- maps:get(C, Strikes, []), Now - T < ?STRIKES_MS]],
    S1 = S#?MODULE{states = States#{C => restarting}, strikes = Strikes#{C => Recent}},
    case length(Recent) >= ?STRIKES andalso elsewhere(C, S1) of
        true -> strike(C, length(Recent), Now, S1);
        false -> S1
    end;
new_state(C, idle, S) ->
    new_state(C, loading, S#?MODULE{told = false});
new_state(C, State, #?MODULE{states = States} = S) ->
    S#?MODULE{states = States#{C => State}}.

%% Whether somebody that can be reached would take it if we could not hold it any more.
elsewhere(C, S) ->
    [Own | Others] = [R || {R, _} <- baguette_cluster_table:reports()],
    Current = current(Own, S),
    States = (baguette_cluster_report:states(Current))#{C => failed},
    Failed = baguette_cluster_report:set(states, States, Current),
    Links = baguette_cluster_table:links(),
    Plan = baguette_cluster_placement:plan([Failed | Others]),
    lists:any(fun(Node) -> is_up(maps:find(Node, Links)) end, maps:get(C, Plan, [])).

strike(C, Count, _Now, #?MODULE{states = States} = S) when Count < ?STRIKES ->
    S#?MODULE{states = States#{C => loading}, try_again = true};
strike(C, _Count, Now, #?MODULE{failed = Failed, held = Held, states = States} = S) ->
    S#?MODULE{
        failed = Failed#{C => Now + ?FAILED_MS},
        held = lists:delete(C, Held),
        states = maps:remove(C, States),
        strikes = maps:remove(C, S#?MODULE.strikes),
        told = false
    }.

forgive(#?MODULE{failed = Failed} = S) ->
    Now = now_ms(),
    S#?MODULE{failed = maps:filter(fun(_, Until) -> Until > Now end, Failed)}.

%% Planning and acting --------------------------------------------------------------------------

act(#?MODULE{seen = Before} = S0) ->
    #?MODULE{seen = {_, Reports} = Seen} = S = seen(S0),
    Planned = case Seen of
        Before -> S;
        _ -> plan(Reports, S)
    end,
    View = view(Reports, Planned),
    Now = now_ms(),
    Looked = baguette_cluster_line:look(View, Now, Planned#?MODULE.line),
    {Held, Line} = baguette_cluster_line:next(Planned#?MODULE.held, View, Now, Looked),
    tell_module(report(hold(Held, Planned#?MODULE{line = Line}))).

%% Most looks find every body as it was: then the reports are not even read. What we just learned
%% of ourselves counts now: gossip's table has it a moment later.
seen(#?MODULE{seen = {Before, Known}} = S) ->
    {Hashes, [Own | Others]} = case baguette_cluster_table:hashes() of
        Before -> {Before, Known};
        _ -> baguette_cluster_table:bodies()
    end,
    S#?MODULE{seen = {Hashes, [current(Own, S) | Others]}}.

%% Few of the others find anything new that a plan depends on: it is made again only when they do.
plan(Reports, #?MODULE{fleet = Before} = S) ->
    case baguette_cluster_draft:fleet(Reports) of
        Before -> S;
        Fleet -> note_plan(baguette_cluster_placement:plan_for(Fleet), S#?MODULE{fleet = Fleet})
    end.

view([_ | Others] = Reports, #?MODULE{plan = Plan} = S) ->
    Links = baguette_cluster_table:links(),
    #{
        plan => Plan,
        reports => Reports,
        up => [N || N <- nodes_of(Others), is_up(maps:find(N, Links))],
        expected => expected(baguette_cluster_discovery:has_answered()),
        knows_its_disk => knows_its_disk(S)
    }.

current(Own, #?MODULE{items = Items, memory_mib = Mib} = S) ->
    Fields = #{components => Items, states => said_states(S), memory_mib => Mib},
    maps:fold(fun baguette_cluster_report:set/3, Own, Fields).

expected(true) -> baguette_cluster_discovery:known();
expected(false) -> unknown.

nodes_of(Reports) -> [baguette_cluster_report:node(R) || R <- Reports].

is_up({ok, #{state := up}}) -> true;
is_up(_) -> false.

note_plan(Plan, #?MODULE{plan = Plan} = S) ->
    S;
note_plan(Plan, S) ->
    true = ets:insert(?TABLE, {plan, Plan}),
    ok = baguette_cluster_gossip:announce({plan, Plan}),
    S#?MODULE{plan = Plan}.

hold(Held, #?MODULE{held = Held} = S) ->
    S;
hold(Held, #?MODULE{held = Before, states = States} = S) ->
    ?LOG_INFO(#{what => holding, new => Held -- Before, let_go => Before -- Held}, ?LOG_META),
    S#?MODULE{held = Held, states = maps:with(Held, States), told = false}.

%% What is no longer in the list is idle in the report before the component module hears of it, so
%% that nobody asks for it any more when it goes.
report(#?MODULE{items = Items, memory_mib = Mib, held = Held, states = States} = S) ->
    Own = #{components => Items, states => said_states(S), memory_mib => Mib},
    ok = baguette_cluster_gossip:say(Own#{plan_hash => said_hash(S)}),
    Said = maps:fold(fun publish/3, S#?MODULE.said, facts(S)),
    Now = now_ms(),
    true = ets:insert(?TABLE, [
        {memory, Items, Mib, Held, States},
        {overview, #{
            agreed => baguette_cluster_line:agreed(S#?MODULE.line),
            settled => baguette_cluster_line:settled(Now, S#?MODULE.line),
            held => Held,
            inventory => S#?MODULE.inventory
        }}
    ]),
    S#?MODULE{said = Said}.

facts(#?MODULE{line = Line, distance = Distance}) ->
    (baguette_cluster_line:says(Line))#{distance_us => baguette_cluster_distance:us(Distance)}.

%% A fact that was never anything but nothing is not said at all. One that does not fit is logged:
%% an unheard wish or promise moves nothing.
publish(Key, Nothing, Said) when Nothing =:= [] orelse Nothing =:= 0, not is_map_key(Key, Said) ->
    Said;
publish(Key, Fact, Said) ->
    case Said of
        #{Key := Fact} -> ok;
        _ -> published(baguette_cluster_gossip:publish(Key, Fact))
    end,
    Said#{Key => Fact}.

published(ok) -> ok;
published({error, Why}) -> ?LOG_WARNING(#{what => fact_not_published, why => Why}, ?LOG_META).

%% How far we are from the others, now and then.
measure(#?MODULE{beats = Beats, distance = Distance} = S) when Beats rem ?MEASURE_BEATS =:= 0 ->
    Trips = [
        Us
     || #{state := up, rtt_us := Us} <- maps:values(baguette_cluster_table:links()), Us > 0
    ],
    S#?MODULE{distance = baguette_cluster_distance:measured(Trips, Distance)};
measure(S) ->
    S.

said_states(#?MODULE{items = Items, held = Held, states = States, failed = Failed}) ->
    maps:from_list([{C, said(C, Held, States, Failed)} || #{component := C} <- Items]).

said(C, Held, States, Failed) ->
    case lists:member(C, Held) of
        true -> maps:get(C, States, loading);
        false when is_map_key(C, Failed) -> failed;
        false -> idle
    end.

%% Before we know our own disk our plan is nobody's business: the others would agree with it, and
%% share out what we are about to hold.
said_hash(S) ->
    case knows_its_disk(S) of
        true -> baguette_cluster_placement:hash(S#?MODULE.plan);
        false -> baguette_cluster_line:no_plan_yet()
    end.

knows_its_disk(#?MODULE{settings = #{component_module := undefined}}) -> true;
knows_its_disk(#?MODULE{inventory = ok}) -> true;
knows_its_disk(#?MODULE{items = Items}) -> Items =/= [].

tell_module(#?MODULE{told = true} = S) ->
    S;
tell_module(#?MODULE{settings = #{component_module := undefined}} = S) ->
    S#?MODULE{told = true};
tell_module(#?MODULE{settings = #{component_module := Module}, held = Held} = S) ->
    try knows_its_disk(S) andalso Module:hold(Held) of
        false -> S;
        ok -> S#?MODULE{told = true}
    catch
        Class:Reason ->
            Why = exit_name(Reason),
            ?LOG_WARNING(#{what => hold_not_taken, class => Class, why => Why}, ?LOG_META),
            S
    end.

now_ms() -> erlang:monotonic_time(millisecond).
