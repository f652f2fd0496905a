%% @doc What those who watch the dashboard's stream get, on one node with a simulated device.
-module(baguette_web_stream_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2]).
-export([end_per_testcase/2]).
-export([
    the_whole_state_comes_at_once_and_again_when_it_changes/1,
    all_watchers_get_the_same_bytes/1,
    who_does_not_read_is_dropped_and_nobody_else/1,
    a_watcher_that_goes_is_forgotten/1
]).

-define(PORT, 1).    % nothing listens in these tests

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [
        the_whole_state_comes_at_once_and_again_when_it_changes,
        all_watchers_get_the_same_bytes,
        who_does_not_read_is_dropped_and_nobody_else,
        a_watcher_that_goes_is_forgotten
    ].

init_per_suite(Config) ->
    ok = baguette_engine_fixture:start_simulated(#{
        model => #{experts => 3, steps => 4}, batch_us => 1000, row_us => 1000,
        encode_us => 0, advance_us => 0, decode_us => 0, load_ms => 1, restart_ms => 1500
    }),
    Config.

end_per_suite(_Config) ->
    baguette_engine_fixture:stop().

init_per_testcase(_Case, Config) ->
    {ok, Stream} = baguette_web_stream:start_link(?PORT),
    unlink(Stream),
    [{stream, Stream} | Config].

end_per_testcase(_Case, Config) ->
    gen_server:stop(proplists:get_value(stream, Config)).

%% Cases ----------------------------------------------------------------------------------------

the_whole_state_comes_at_once_and_again_when_it_changes(_Config) ->
    ok = baguette_web_stream:watch(),
    #{<<"health">> := #{<<"state">> := <<"ready">>}} = Whole = next(<<"snapshot">>),
    ?assertMatch(#{<<"experts">> := [_, _, _], <<"nodes">> := [_]}, Whole),
    %% Its own worker is told of a moment later.
    #{<<"nodes">> := [#{<<"workers">> := [_, _]}]} = next(<<"snapshot">>),
    ok = baguette_engine:simulate(#{fail => died}),
    {ok, Id} = baguette_engine:generate(#{prompt => <<"a">>, n => 1}),
    #{<<"health">> := #{<<"state">> := <<"down">>, <<"reasons">> := [Reason | _]}} =
        next(<<"snapshot">>),
    ?assertMatch(#{<<"detail">> := <<"no node holds", _/binary>>}, Reason),
    ok = baguette_engine:cancel(Id),
    ok = baguette_engine:simulate(#{fail => none}),
    until_ready().

all_watchers_get_the_same_bytes(_Config) ->
    Test = self(),
    Watchers = [spawn_link(fun() -> watcher(Test) end) || _ <- lists:seq(1, 20)],
    [receive {Watcher, watches} -> ok end || Watcher <- Watchers],
    tell(<<"one">>),
    tell(<<"two">>),
    Got = [receive {Watcher, job, Bytes} -> Bytes end || Watcher <- Watchers],
    ?assertMatch([_], lists:usort(Got)),
    %% Both in one batch
    ?assertEqual(2, count(<<"event: job">>, hd(Got))).

who_does_not_read_is_dropped_and_nobody_else(_Config) ->
    Test = self(),
    Reader = spawn_link(fun() -> watcher(Test) end),
    receive {Reader, watches} -> ok end,
    {Deaf, Monitor} = spawn_monitor(fun() ->
        ok = baguette_web_stream:watch(),
        Test ! {self(), watches},
        receive never -> ok end
    end),
    receive {Deaf, watches} -> ok end,
    ?assertEqual(killed, until_down(Monitor)),
    ?assert(is_process_alive(Reader)).

a_watcher_that_goes_is_forgotten(Config) ->
    Test = self(),
    {Watcher, Monitor} = spawn_monitor(fun() ->
        ok = baguette_web_stream:watch(),
        Test ! {self(), watches}
    end),
    receive {Watcher, watches} -> ok end,
    receive {'DOWN', Monitor, process, _, _} -> ok end,
    Status = sys:get_status(proplists:get_value(stream, Config)),
    ?assertNotEqual(nomatch, string:find(io_lib:format("~p", [Status]), "{watchers,0}")).

%% Pieces ---------------------------------------------------------------------------------------

watcher(Test) ->
    ok = baguette_web_stream:watch(),
    Test ! {self(), watches},
    pass_on(Test).

pass_on(Test) ->
    receive
        {baguette_web_stream, Bytes} ->
            _ = count(<<"event: job">>, Bytes) > 0 andalso (Test ! {self(), job, Bytes}),
            pass_on(Test)
    end.

%% As baguette_web_jobs tells its followers.
tell(Id) ->
    baguette_web_stream ! {baguette_web_jobs, {job, #{id => Id}}}.

until_down(Monitor) ->
    tell(<<"more">>),
    receive
        {'DOWN', Monitor, process, _, Reason} -> Reason
    after 20 -> until_down(Monitor)
    end.

until_ready() ->
    case next(<<"snapshot">>) of
        #{<<"health">> := #{<<"state">> := <<"ready">>}} -> ok;
        _ -> until_ready()
    end.

%% The data of the next event of that name.
next(Name) ->
    receive
        {baguette_web_stream, Bytes} ->
            Head = <<"event: ", Name/binary, "\ndata: ">>,
            case binary:split(Bytes, Head) of
                [_, Rest] ->
                    [Data | _] = binary:split(Rest, <<"\n">>),
                    jiffy:decode(Data, [return_maps]);
                [_] ->
                    next(Name)
            end
    end.

count(Text, Bytes) -> length(binary:matches(Bytes, Text)).
