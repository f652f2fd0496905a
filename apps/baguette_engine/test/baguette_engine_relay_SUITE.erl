%% @doc One hop: asks that a node passes on for somebody else. One node with a simulated device is
%% relay and holder at once; what lies between them is the same messages.
-module(baguette_engine_relay_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([
    the_holders_answer_comes_back/1,
    who_may_not_be_asked_is_unreachable/1,
    so_many_at_once_and_no_more/1,
    what_is_forgotten_is_forgotten_by_the_holder/1,
    an_asker_that_ends_is_forgotten/1,
    a_holder_that_dies_is_told/1,
    an_ask_that_crashes_here_is_told/1,
    a_relay_that_dies_takes_its_asks_with_it/1,
    strange_messages_change_nothing/1
]).

-import(baguette_engine_remote_v1, [ask/3, ask_via/4, forget_via/2, monitor_via/1]).

-define(SLOW, #{batch_us => 60000000}).
-define(FAST, #{batch_us => 1000}).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [
        the_holders_answer_comes_back,
        who_may_not_be_asked_is_unreachable,
        so_many_at_once_and_no_more,
        what_is_forgotten_is_forgotten_by_the_holder,
        an_asker_that_ends_is_forgotten,
        a_holder_that_dies_is_told,
        an_ask_that_crashes_here_is_told,
        a_relay_that_dies_takes_its_asks_with_it,
        strange_messages_change_nothing
    ].

init_per_suite(Config) ->
    ok = baguette_engine_fixture:start_simulated(#{
        model => #{experts => 3, steps => 4}, batch_us => 1000, row_us => 1000, encode_us => 0,
        advance_us => 0, decode_us => 0, load_ms => 1, restart_ms => 10
    }),
    persistent_term:put(?MODULE, baguette_engine_fixture:an_ask()),
    Config.

end_per_suite(_Config) ->
    baguette_engine_fixture:stop().

%% Cases ----------------------------------------------------------------------------------------

the_holders_answer_comes_back(_Config) ->
    Direct = make_ref(),
    ok = ask(node(), Direct, ask()),
    Answer = answer(Direct),
    ?assertMatch({ok, _}, Answer),
    ?assertEqual(Answer, answer(via(node()))),
    ?assertMatch({match, _}, re:run(element(2, Answer), <<"velocities">>)),
    %% Its own refusals pass too.
    [Refused, Passed] = [make_ref(), make_ref()],
    ok = ask(node(), Refused, {component(), {alone, 1}, <<"no msgpack">>}),
    ok = ask_via(node(), Passed, node(), {component(), {alone, 1}, <<"no msgpack">>}),
    {error, Why} = answer(Refused),
    ?assertEqual({error, Why}, answer(Passed)),
    at_rest().

who_may_not_be_asked_is_unreachable(_Config) ->
    Elsewhere = 'baguette@127.9.9.9',
    ?assertEqual(
        {error, {unreachable, #{node => Elsewhere, why => no_link}}}, answer(via(Elsewhere))),
    ?assertEqual(unreachable, ask_via(Elsewhere, make_ref(), node(), ask())),
    Ref = make_ref(),
    ok = ask_via(node(), Ref, node(), {<<"held by nobody">>, {alone, 1}, payload()}),
    ?assertMatch({error, {unreachable, #{why := no_link}}}, answer(Ref)).

so_many_at_once_and_no_more(_Config) ->
    ok = baguette_engine:simulate(?SLOW),
    #{allowed := Allowed} = baguette_engine_relay:overview(),
    Refs = [via(node()) || _ <- lists:seq(1, Allowed)],
    ?assertMatch({error, {unreachable, #{why := busy}}}, answer(via(node()))),
    ?assertEqual(Allowed, in_flight()),
    [ok = forget_via(node(), Ref) || Ref <- Refs],
    at_rest(),
    fast_again().

what_is_forgotten_is_forgotten_by_the_holder(_Config) ->
    ok = baguette_engine:simulate(?SLOW),
    First = via(node()),
    baguette_engine_fixture:until(fun() -> at_worker(in_flight) =:= 1 end),
    %% This one waits behind it, and need never be computed.
    Second = via(node()),
    baguette_engine_fixture:until(fun() -> at_worker(waiting) =:= 1 end),
    ok = forget_via(node(), Second),
    baguette_engine_fixture:until(fun() -> at_worker(waiting) =:= 0 end),
    ok = forget_via(node(), First),
    at_rest(),
    fast_again().

an_asker_that_ends_is_forgotten(_Config) ->
    ok = baguette_engine:simulate(?SLOW),
    {Asker, Monitor} = spawn_monitor(fun() -> via(node()), receive the_end -> ok end end),
    baguette_engine_fixture:until(fun() -> in_flight() =:= 1 end),
    exit(Asker, kill),
    receive {'DOWN', Monitor, process, Asker, killed} -> ok end,
    at_rest(),
    fast_again().

a_holder_that_dies_is_told(_Config) ->
    ok = baguette_engine:simulate(?SLOW),
    Ref = via(node()),
    baguette_engine_fixture:until(fun() -> in_flight() =:= 1 end),
    kill_expert(),
    ?assertEqual({error, {unreachable, #{node => node(), why => lost}}}, answer(Ref)),
    at_rest(),
    fast_again().

an_ask_that_crashes_here_is_told(_Config) ->
    ok = baguette_engine:simulate(?SLOW),
    Ref = via(node()),
    baguette_engine_fixture:until(fun() -> in_flight() =:= 1 end),
    [exit(Hop, crashed) || Hop <- processes_of_hops()],
    ?assertMatch({error, {unreachable, #{why := lost}}}, answer(Ref)),
    at_rest(),
    fast_again().

a_relay_that_dies_takes_its_asks_with_it(_Config) ->
    ok = baguette_engine:simulate(?SLOW),
    Monitor = monitor_via(node()),
    Ref = via(node()),
    baguette_engine_fixture:until(fun() -> in_flight() =:= 1 end),
    Before = length(processes_of_hops()),
    exit(whereis(baguette_engine_relay), kill),
    receive {'DOWN', Monitor, process, _, killed} -> ok end,
    baguette_engine_fixture:until(fun() -> length(processes_of_hops()) =:= Before - 1 end),
    receive {baguette_engine_worker, Ref, _} -> error(answered) after 0 -> ok end,
    fast_again().

strange_messages_change_nothing(_Config) ->
    Relay = whereis(baguette_engine_relay),
    [
        Relay ! Strange
     || Strange <- [
            hello,
            {relay, 2, self(), make_ref(), node(), ask()},
            {relay, 1, not_a_pid, make_ref(), node(), ask()},
            {relay, 1, self(), make_ref(), node(), {not_a_binary, {alone, 1}, payload()}},
            {forget, 1, make_ref()},
            {'EXIT', self(), normal}
        ]
    ],
    ok = gen_server:cast(Relay, hello),
    at_rest(),
    ?assertEqual(Relay, whereis(baguette_engine_relay)).

%% Helpers --------------------------------------------------------------------------------------

via(Target) ->
    Ref = make_ref(),
    ok = ask_via(node(), Ref, Target, ask()),
    Ref.

answer(Ref) ->
    receive {baguette_engine_worker, Ref, Answer} -> Answer end.

component() -> element(1, persistent_term:get(?MODULE)).

payload() -> element(2, persistent_term:get(?MODULE)).

ask() -> {component(), {alone, 1}, payload()}.

in_flight() ->
    maps:get(in_flight, baguette_engine_relay:overview()).

at_rest() ->
    baguette_engine_fixture:until(fun() -> in_flight() =:= 0 end).

at_worker(What) ->
    maps:get(What, hd([W || #{kind := expert} = W <- baguette_engine:workers()])).

processes_of_hops() ->
    [P || P <- processes(), {_, {baguette_engine_relay, F, _}} <- [
        erlang:process_info(P, current_function)], F =/= init].

%% What it computes for a minute need not be waited for: a new worker.
fast_again() ->
    ok = baguette_engine:simulate(?FAST),
    kill_expert(),
    %% Not before its probes are over: they would be slow in the next case.
    baguette_engine_fixture:until(fun() ->
        is_pid(whereis(baguette_engine_expert)) andalso loaded() =:= 3 andalso
            at_worker(in_flight) + at_worker(waiting) =:= 0
    end),
    baguette_engine_fixture:until(fun() ->
        case answer(via(node())) of {ok, _} -> true; {error, _} -> false end
    end).

loaded() -> length(maps:get(components, baguette_engine_expert:overview())).

kill_expert() ->
    baguette_engine_fixture:until(fun() -> is_pid(whereis(baguette_engine_expert)) end),
    Pid = whereis(baguette_engine_expert),
    Monitor = monitor(process, Pid),
    exit(Pid, kill),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end.
