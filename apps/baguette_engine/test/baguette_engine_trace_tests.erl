%% @doc What a trace sees, and that it leaves nothing behind. Whether the functions it names are
%% those that a call passes through is seen where whole clusters are measured (tests/test_bench.py).
-module(baguette_engine_trace_tests).

-include_lib("eunit/include/eunit.hrl").

what_is_called_is_seen_with_its_time_test() ->
    ok = baguette_engine_trace:on(),
    _ = baguette_engine_msgpack:encode(#{}),
    _ = baguette_engine_frame:call(7, 'baguette.worker.expert_entry', velocity, [<<>>], alone),
    #{node := Node, events := Events, frames := []} = baguette_engine_trace:off(),
    ?assertEqual(node(), Node),
    Process = list_to_binary(pid_to_list(self())),
    [#{at_ns := Packing}, #{at_ns := Framing} = Frame, #{at_ns := Framed}] = Own =
        [Event || #{process := P} = Event <- Events, P =:= Process],
    ?assertEqual([packing, framing, framed], [What || #{what := What} <- Own]),
    ?assertMatch(#{frame := 7, function := velocity}, Frame),
    ?assert(Packing < Framing andalso Framing < Framed).

a_call_has_the_same_name_on_every_node_test() ->
    Ref = make_ref(),
    ok = baguette_engine_trace:on(),
    ok = baguette_engine_remote_v1:answer(self(), Ref, {error, {not_held, #{}}}),
    #{events := Events} = baguette_engine_trace:off(),
    receive
        {baguette_engine_worker, Ref, _} -> ok
    end,
    [#{ref := Name}] = [Event || #{what := answered} = Event <- Events],
    "#Ref<" ++ Printed = ref_to_list(Ref),
    [_Maker, Same] = string:split(Printed, "."),
    ?assertEqual(list_to_binary(Same), Name).

nothing_is_traced_afterwards_test() ->
    ok = baguette_engine_trace:on(),
    %% Somebody measures anew, without an end.
    ok = baguette_engine_trace:on(),
    _ = baguette_engine_trace:off(),
    ?assertEqual({flags, []}, erlang:trace_info(self(), flags)),
    Traced = {baguette_engine_msgpack, encode, 1},
    ?assertEqual({traced, false}, erlang:trace_info(Traced, traced)),
    ?assertMatch(#{events := []}, baguette_engine_trace:off()).
