%% @doc Who may start and who waits: bounded, first come first served.
%%
%% The only writer of the table of generations (owned by baguette_engine_sup). At most `max_running'
%% generations work at a time and `max_waiting' wait; beyond that a request is refused at the door.
%% Finished generations are kept, the newest ?KEPT of them, so that their results can be fetched.
%% What dies with this process: the order of those waiting; they are taken up again from the table.
-module(baguette_engine_admission).
-behaviour(gen_server).

-export([start_link/0, submit/1, close/0, overview/0, finished/1, lookup/1, list/0, table/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, format_status/1]).

-define(KEPT, 64).

-record(?MODULE, {
    running = #{} :: #{pid() => true},
    waiting = queue:new() :: queue:queue(pid()),
    finished = queue:new() :: queue:queue(pid()),
    ids = #{} :: #{pid() => binary()},
    closed = false :: boolean() % the node is leaving
}).

%% @doc Start the one admission of this node.
-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc The table of generations, made by the supervisor: {Id, Pid, StartedMs}.
-spec table() -> ok.
table() ->
    ?MODULE = ets:new(?MODULE, [named_table, public, {read_concurrency, true}]),
    ok.

%% @doc Take a checked request in, or refuse it because too many wait.
-spec submit(baguette_engine_generation:order()) ->
    {ok, binary()} | {error, {overloaded | not_ready | leaving, map()}}.
submit(Order) ->
    try
        gen_server:call(?MODULE, {submit, Order})
    catch
        %% The exit's term holds the request, and with it the prompt: it goes no further.
        exit:{_, _} -> {error, {not_ready, #{reason => no_answer_at_the_door}}}
    end.

%% @doc From now on every submit is refused with `leaving'.
-spec close() -> ok.
close() ->
    gen_server:call(?MODULE, close).

%% @doc How many work and wait, and how many may; no call.
-spec overview() ->
    #{
        running := non_neg_integer(),
        waiting := non_neg_integer(),
        max_running := pos_integer(),
        max_waiting := non_neg_integer()
    }.
overview() ->
    #{
        running => baguette_engine_metrics:value(generations_running),
        waiting => baguette_engine_metrics:value(generations_waiting),
        max_running => baguette_engine_settings:get(max_running),
        max_waiting => baguette_engine_settings:get(max_waiting)
    }.

%% @doc A generation tells that it works no more.
-spec finished(pid()) -> ok.
finished(Pid) ->
    gen_server:cast(?MODULE, {finished, Pid}).

%% @doc The process of a generation.
-spec lookup(binary()) -> {ok, pid()} | {error, {unknown_generation, map()}}.
lookup(Id) ->
    case ets:lookup(?MODULE, Id) of
        [{_, Pid, _}] -> {ok, Pid};
        [] -> {error, {unknown_generation, #{}}}
    end.

%% @doc All generations known here, newest first, with when they came (monotonic ms).
-spec list() -> [{binary(), pid(), integer()}].
list() ->
    lists:reverse(lists:keysort(3, ets:tab2list(?MODULE))).

-spec init([]) -> {ok, #?MODULE{}}.
init([]) ->
    %% After a crash of ours the generations still live: whoever has not begun is told to.
    Known = [{Pid, Id} || {Id, Pid, _} <- lists:reverse(list())],
    [erlang:monitor(process, Pid) || {Pid, _} <- Known],
    Waiting = queue:from_list([Pid || {Pid, _} <- Known]),
    {ok, admit(#?MODULE{ids = maps:from_list(Known), waiting = Waiting})}.

-spec handle_call({submit, baguette_engine_generation:order()} | close, term(), #?MODULE{}) ->
    {reply, ok | {ok, binary()} | {error, {overloaded | not_ready | leaving, map()}}, #?MODULE{}}.
handle_call(close, _From, S) ->
    {reply, ok, S#?MODULE{closed = true}};
handle_call({submit, _}, _From, #?MODULE{closed = true} = S) ->
    {reply, {error, {leaving, #{}}}, S};
handle_call({submit, Order}, _From, #?MODULE{waiting = Waiting, ids = Ids} = S) ->
    Full = map_size(S#?MODULE.running) >= baguette_engine_settings:get(max_running),
    case Full andalso queue:len(Waiting) >= baguette_engine_settings:get(max_waiting) of
        true ->
            {reply, {error, {overloaded, #{waiting => queue:len(Waiting)}}}, S};
        false ->
            Id = string:lowercase(binary:encode_hex(crypto:strong_rand_bytes(8))),
            case supervisor:start_child(baguette_engine_generation_sup, [Id, Order]) of
                {ok, Pid} ->
                    _ = erlang:monitor(process, Pid),
                    true = ets:insert(?MODULE, {Id, Pid, erlang:monotonic_time(millisecond)}),
                    S1 = S#?MODULE{waiting = queue:in(Pid, Waiting), ids = Ids#{Pid => Id}},
                    {reply, {ok, Id}, admit(S1)};
                {error, _HoldsTheRequest} ->
                    {reply, {error, {not_ready, #{reason => generation_not_started}}}, S}
            end
    end.

-spec handle_cast({finished, pid()}, #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_cast({finished, Pid}, #?MODULE{finished = Finished} = S) ->
    Kept = queue:in(Pid, Finished),
    {noreply, admit(let_go((without(Pid, S))#?MODULE{finished = Kept}))}.

-spec handle_info({'DOWN', reference(), process, pid(), term()}, #?MODULE{}) ->
    {noreply, #?MODULE{}}.
handle_info({'DOWN', _, process, Pid, _}, #?MODULE{ids = Ids} = S) ->
    ok = baguette_engine_in_flight:forget(Pid),
    ok = baguette_engine_foretold:forget(Pid),
    case maps:take(Pid, Ids) of
        {Id, Rest} ->
            true = ets:delete(?MODULE, Id),
            {noreply, admit((without(Pid, S))#?MODULE{ids = Rest})};
        error ->
            {noreply, S}
    end.

%% @doc A submitted request holds a prompt.
-spec format_status(gen_server:format_status()) -> gen_server:format_status().
format_status(Status) ->
    baguette_engine_private:status(Status, fun(S) -> S end).

admit(#?MODULE{running = Running, waiting = Waiting} = S) ->
    case map_size(Running) < baguette_engine_settings:get(max_running) andalso queue:out(Waiting) of
        {{value, Pid}, Rest} ->
            ok = baguette_engine_generation:begin_now(Pid),
            admit(S#?MODULE{running = Running#{Pid => true}, waiting = Rest});
        _ ->
            shown(S)
    end.

%% Every change ends in admit/1.
shown(#?MODULE{running = Running, waiting = Waiting} = S) ->
    ok = baguette_engine_metrics:set(generations_running, map_size(Running)),
    ok = baguette_engine_metrics:set(generations_waiting, queue:len(Waiting)),
    S.

without(Pid, #?MODULE{running = Running, waiting = Waiting, finished = Finished} = S) ->
    Other = fun(P) -> P =/= Pid end,
    S#?MODULE{
        running = maps:remove(Pid, Running),
        waiting = queue:filter(Other, Waiting),
        finished = queue:filter(Other, Finished)
    }.

let_go(#?MODULE{finished = Finished} = S) ->
    case queue:len(Finished) > ?KEPT of
        true ->
            {{value, Pid}, Rest} = queue:out(Finished),
            _ = supervisor:terminate_child(baguette_engine_generation_sup, Pid),
            S#?MODULE{finished = Rest};
        false ->
            S
    end.
