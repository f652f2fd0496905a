%% @doc A holder that is asked for more than it has room for. One node with a simulated device is
%% asker and holder at once.
-module(baguette_engine_room_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([
    what_there_is_no_room_for_is_refused_at_once/1,
    what_waits_no_more_makes_room/1,
    what_the_node_asks_of_itself_is_always_taken/1,
    a_call_that_fits_nowhere_is_taken_where_none_waits/1,
    a_picture_waits_for_room_and_is_the_same/1
]).

-import(baguette_engine_remote_v1, [ask/3, forget/2]).

-define(MIB, (1 bsl 20)).
-define(FAST, #{batch_us => 1000}).
-define(SLOW, #{batch_us => 60000000}).
-define(A_WHILE, #{batch_us => 2000000}).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [
        what_there_is_no_room_for_is_refused_at_once,
        what_waits_no_more_makes_room,
        what_the_node_asks_of_itself_is_always_taken,
        a_call_that_fits_nowhere_is_taken_where_none_waits,
        a_picture_waits_for_room_and_is_the_same
    ].

%% An expert that is missing is missing at once here.
init_per_suite(Config) ->
    ok = baguette_engine_fixture:start_simulated(#{
        model => #{experts => 3, steps => 4}, batch_us => 1000, row_us => 1000, encode_us => 0,
        advance_us => 0, decode_us => 0, load_ms => 1, restart_ms => 10
    }),
    [
        ok = application:set_env(baguette_engine, Key, Value)
     || {Key, Value} <- [{max_asks_mib, 1}, {missing_ms, 0}]
    ],
    persistent_term:put(?MODULE, baguette_engine_fixture:an_ask()),
    Config.

end_per_suite(_Config) ->
    baguette_engine_fixture:stop().

%% Cases ----------------------------------------------------------------------------------------

what_there_is_no_room_for_is_refused_at_once(_Config) ->
    Before = refused(),
    Computing = occupy(?SLOW),
    Asked = [send(?MIB div 4) || _ <- lists:seq(1, 10)],
    %% Three quarters of the room, and what each takes of itself.
    {Waiting, Refused} = lists:split(3, Asked),
    [?assertEqual(busy(), answer(Ref)) || Ref <- Refused],
    ?assertMatch(#{waiting := 3, waiting_bytes := B} when B =< ?MIB, worker()),
    ?assertEqual(7, refused() - Before),
    let_go([Computing | Waiting]).

what_waits_no_more_makes_room(_Config) ->
    Computing = occupy(?SLOW),
    First = send(?MIB div 2),
    ?assertEqual(busy(), answer(send(?MIB div 2))),
    ok = forget(node(), First),
    Second = send(?MIB div 2),
    ?assertMatch(#{waiting := 1}, until_waiting(1)),
    ok = forget(node(), Second),
    let_go([Computing]),
    ?assertMatch(#{waiting_bytes := 0}, until_waiting(0)).

what_the_node_asks_of_itself_is_always_taken(_Config) ->
    Computing = occupy(?SLOW),
    Asked = send(?MIB - 2048),
    ?assertEqual(busy(), answer(send(1024))),
    ok = baguette_engine_worker:request(
        own_worker(), make_ref(), self(), {unload, binary:copy(<<0>>, ?MIB)}, last
    ),
    ?assertMatch(#{waiting := 2}, until_waiting(2)),
    let_go([Computing, Asked]).

a_call_that_fits_nowhere_is_taken_where_none_waits(_Config) ->
    Computing = occupy(?SLOW),
    Large = send(2 * ?MIB),
    ?assertMatch(#{waiting := 1}, until_waiting(1)),
    ?assertEqual(busy(), answer(send(1))),
    let_go([Computing, Large]).

%% Nobody failed, nobody is missing, and nothing is lost.
a_picture_waits_for_room_and_is_the_same(_Config) ->
    Request = #{prompt => <<"a">>, seed => 3, steps => 4, on_missing => degrade},
    {ok, Undisturbed} = await(Request),
    Failovers = counted(<<"failovers_total">>),
    _ = occupy(?A_WHILE),
    ok = baguette_engine:simulate(?FAST),
    _ = send(2 * ?MIB),
    {ok, Id} = baguette_engine:generate(Request),
    ok = baguette_engine:watch(Id),
    receive
        {baguette_engine, Id, {waiting, Facts}} ->
            ?assertMatch(#{expert := _, reason := {busy, _}}, Facts)
    end,
    {ok, Result} = baguette_engine:await(Id, infinity),
    ?assertEqual(pictures(Undisturbed), pictures(Result)),
    ?assertMatch(#{failovers := [], degraded := []}, Result),
    ?assertEqual(Failovers, counted(<<"failovers_total">>)),
    ?assertMatch(#{deaths := 0}, worker()).

%% Helpers --------------------------------------------------------------------------------------

%% The device computes for so long from now on.
occupy(Device) ->
    ok = baguette_engine:simulate(Device),
    Ref = make_ref(),
    {Component, Payload} = persistent_term:get(?MODULE),
    ok = ask(node(), Ref, {Component, {alone, 1}, Payload}),
    baguette_engine_fixture:until(fun() -> maps:get(in_flight, worker()) =:= 1 end),
    Ref.

%% A call of so many bytes.
send(Bytes) ->
    Ref = make_ref(),
    {Component, _} = persistent_term:get(?MODULE),
    ok = ask(node(), Ref, {Component, {alone, 1}, binary:copy(<<0>>, Bytes)}),
    Ref.

answer(Ref) ->
    receive {baguette_engine_worker, Ref, Answer} -> Answer end.

busy() -> {error, {unreachable, #{node => node(), why => busy}}}.

%% What a device computes for a minute need not be waited for: another worker.
let_go(Refs) ->
    [ok = forget(node(), Ref) || Ref <- Refs],
    ok = baguette_engine:simulate(?FAST),
    Server = whereis(baguette_engine_expert),
    Monitor = monitor(process, Server),
    exit(Server, kill),
    receive {'DOWN', Monitor, process, Server, _} -> ok end,
    baguette_engine_fixture:until(fun() ->
        is_pid(whereis(baguette_engine_expert)) andalso baguette_engine_fixture:ready() andalso
            length(maps:get(components, baguette_engine_expert:overview())) =:= 3 andalso
            maps:get(in_flight, worker()) + maps:get(waiting, worker()) =:= 0
    end).

worker() ->
    hd([W || #{kind := expert} = W <- baguette_engine:workers()]).

until_waiting(Count) ->
    baguette_engine_fixture:until(fun() -> maps:get(waiting, worker()) =:= Count end),
    worker().

own_worker() ->
    {links, Links} = process_info(whereis(baguette_engine_expert), links),
    hd([P || P <- Links, is_worker(proc_lib:translate_initial_call(P))]).

is_worker({Module, _, _}) -> Module =:= baguette_engine_simulated.

refused() -> counted(<<"asks_refused_total">>).

counted(Name) ->
    [Count] = [C || #{name := N, samples := [{[], C}]} <- baguette_engine:metrics(), N =:= Name],
    Count.

await(Request) ->
    {ok, Id} = baguette_engine:generate(Request),
    baguette_engine:await(Id, infinity).

pictures(#{images := Images}) -> [Hash || #{pixels_sha256 := Hash} <- Images].
