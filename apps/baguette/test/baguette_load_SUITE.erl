%% @doc Many pictures at once for those who measure, on an engine with a simulated device.
-module(baguette_load_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([
    all_are_drawn_and_no_more_at_once_than_asked_for/1,
    a_seed_has_its_own_prompt/1,
    none_is_begun_when_the_time_is_over/1,
    a_step_is_told_with_what_was_computed_for_it/1,
    what_is_refused_is_told_and_holds_nobody_up/1,
    a_control_node_that_goes_away_cancels_them/1
]).

-define(STEPS, 4).
-define(CALL_US, 4000).

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [
        all_are_drawn_and_no_more_at_once_than_asked_for,
        a_seed_has_its_own_prompt,
        none_is_begun_when_the_time_is_over,
        a_step_is_told_with_what_was_computed_for_it,
        what_is_refused_is_told_and_holds_nobody_up,
        a_control_node_that_goes_away_cancels_them
    ].

init_per_suite(Config) ->
    ok = baguette_engine_fixture:start_simulated(#{
        model => #{experts => 3, steps => ?STEPS}, batch_us => ?CALL_US - 1000, row_us => 1000,
        encode_us => 0, advance_us => 0, decode_us => 0, load_ms => 1
    }),
    ok = application:set_env(baguette_engine, max_running, 8),
    Config.

end_per_suite(_Config) ->
    baguette_engine_fixture:stop().

%% Cases ----------------------------------------------------------------------------------------

all_are_drawn_and_no_more_at_once_than_asked_for(_Config) ->
    Drawn = loaded(order(#{concurrent => 3, images => 7, seeds => 2})),
    ?assertEqual([5, 5, 5, 5, 6, 6, 6], lists:sort([Seed || #{seed := Seed} <- Drawn])),
    ?assertEqual(2, length(lists:usort([{S, P} || #{seed := S, pixels_sha256 := P} <- Drawn]))),
    Times = [{Asked, Ended} || #{asked_us := Asked, ended_us := Ended} <- Drawn],
    AtOnce = [length([x || {A, E} <- Times, A =< At, At < E]) || {At, _} <- Times],
    ?assertEqual(3, lists:max(AtOnce)).

a_seed_has_its_own_prompt(_Config) ->
    Pictures = fun(Prompts) ->
        Drawn = loaded(order(#{images => 4, seeds => 2, prompts => Prompts})),
        maps:from_list([{Seed, Pixels} || #{seed := Seed, pixels_sha256 := Pixels} <- Drawn])
    end,
    One = Pictures(1),
    %% Seeds 5 and 6: the request's prompt, and it with a 1 behind.
    #{5 := Other, 6 := Same} = Pictures(2),
    ?assertMatch(#{6 := Same}, One),
    ?assertNotMatch(#{5 := Other}, One).

none_is_begun_when_the_time_is_over(_Config) ->
    Drawn = loaded(order(#{images => 1000000, ms => 1})),
    ?assertMatch([#{ok := true}], Drawn).

%% Both experts are asked of this one node, which computes one call after the other.
a_step_is_told_with_what_was_computed_for_it(_Config) ->
    [#{steps := Steps, calls := Calls}] = loaded(order(#{images => 1})),
    ?assert(Calls >= 2 * ?STEPS),
    ?assertEqual(?STEPS, length(Steps)),
    Asked = [At || [At | _] <- Steps],
    ?assertEqual(Asked, lists:sort(Asked)),
    [
        begin
            ?assertEqual({2 * ?CALL_US, 0}, {Here, Elsewhere}),
            ?assert(Done - At >= 2 * ?CALL_US - 2000)
        end
     || [At, Done, Here, Elsewhere] <- Steps
    ].

what_is_refused_is_told_and_holds_nobody_up(_Config) ->
    Drawn = loaded(order(#{images => 2, request => #{prompt => <<"a">>, seed => 5, steps => 0}})),
    ?assertMatch([#{ok := false, why := #{name := bad_request}}, #{ok := false}], Drawn).

a_control_node_that_goes_away_cancels_them(_Config) ->
    Control = spawn(fun() -> receive stop -> ok end end),
    Long = #{prompt => <<"a">>, seed => 5, steps => 250},
    Order = order(#{concurrent => 2, images => 2, request => Long}),
    {Relay, Monitor} = spawn_monitor(baguette_load, relay, [Control, make_ref(), Order]),
    ok = baguette_engine_fixture:until(fun() -> length(running()) =:= 2 end),
    Control ! stop,
    ?assertEqual(control_node_gone, receive {'DOWN', Monitor, process, Relay, Why} -> Why end),
    ok = baguette_engine_fixture:until(fun() -> running() =:= [] end).

%% Helpers --------------------------------------------------------------------------------------

order(More) ->
    Request = #{prompt => <<"a">>, seed => 5, steps => ?STEPS},
    maps:merge(
        #{
            request => Request, concurrent => 1, images => 1, ms => 60000, seeds => 1,
            prompts => 1
        },
        More
    ).

loaded(Order) ->
    Ref = make_ref(),
    _ = spawn_link(baguette_load, relay, [self(), Ref, Order]),
    receive {baguette_load, Ref, Drawn} -> Drawn end.

running() ->
    [
        Id
     || #{id := Id, state := State} <- baguette_engine:generations(),
        not lists:member(State, [done, failed, cancelled])
    ].
