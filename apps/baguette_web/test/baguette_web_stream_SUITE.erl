%% @doc What those who watch the dashboard's stream get, on one node with a simulated device: most
%% of it from the stream alone, some with the whole room.
-module(baguette_web_stream_SUITE).

-include_lib("stdlib/include/assert.hrl").

-import(baguette_engine_fixture, [until/1]).

-behaviour(baguette_web_teller).

-export([recent/1, missing/1, error/1]).
-export([all/0, suite/0, init_per_suite/1, end_per_suite/1, init_per_testcase/2]).
-export([end_per_testcase/2]).
-export([
    the_whole_state_comes_at_once_and_again_when_it_changes/1,
    all_watchers_get_the_same_bytes/1,
    who_does_not_read_is_dropped_and_nobody_else/1,
    a_watcher_that_goes_is_forgotten/1,
    what_was_told_once_is_not_told_again/1,
    jobs_are_heard_of_when_they_began_anew/1,
    no_metric_is_told_twice/1
]).

-define(PORT, 1).    % nothing listens in these tests

suite() -> [{timetrap, {seconds, 60}}].

all() ->
    [
        the_whole_state_comes_at_once_and_again_when_it_changes,
        all_watchers_get_the_same_bytes,
        who_does_not_read_is_dropped_and_nobody_else,
        a_watcher_that_goes_is_forgotten,
        what_was_told_once_is_not_told_again,
        jobs_are_heard_of_when_they_began_anew,
        no_metric_is_told_twice
    ].

init_per_suite(Config) ->
    ok = baguette_engine_fixture:start_simulated(#{
        model => #{experts => 3, steps => 4}, batch_us => 1000, row_us => 1000,
        encode_us => 0, advance_us => 0, decode_us => 0, load_ms => 1, restart_ms => 1500
    }),
    Config.

end_per_suite(_Config) ->
    baguette_engine_fixture:stop().

init_per_testcase(Case, Config) when
    Case =:= jobs_are_heard_of_when_they_began_anew; Case =:= no_metric_is_told_twice
->
    {ok, Probe} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Probe),
    ok = gen_tcp:close(Probe),
    ok = case application:load(baguette_web) of
        {error, {already_loaded, _}} -> ok;
        Loaded -> Loaded
    end,
    Dir = filename:join(proplists:get_value(priv_dir, Config), Case),
    [
        ok = application:set_env(baguette_web, Key, Value)
     || {Key, Value} <- [{port, Port}, {address, "127.0.0.1"}, {auth, none}, {jobs_dir, Dir}]
    ],
    {ok, _} = application:ensure_all_started(baguette_web),
    Config;
init_per_testcase(_Case, Config) ->
    ok = baguette_web_links:new(),
    {ok, Stream} = baguette_web_stream:start_link(?PORT),
    unlink(Stream),
    [{stream, Stream} | Config].

end_per_testcase(_Case, Config) ->
    case proplists:get_value(stream, Config) of
        undefined -> ok = application:stop(baguette_web);
        Stream -> ok = gen_server:stop(Stream)
    end.

%% Cases ----------------------------------------------------------------------------------------

the_whole_state_comes_at_once_and_again_when_it_changes(_Config) ->
    ok = baguette_web_stream:watch(),
    #{<<"health">> := #{<<"state">> := <<"ready">>}} = Whole = next(<<"snapshot">>),
    ?assertMatch(#{<<"experts">> := [_, _, _], <<"nodes">> := [_]}, Whole),
    %% Its own worker may be told of a moment later.
    Both = fun(#{<<"nodes">> := [#{<<"workers">> := Workers}]}) -> length(Workers) =:= 2 end,
    _ = until_snapshot(Both, Whole),
    ok = baguette_engine:simulate(#{fail => died}),
    {ok, Id} = baguette_engine:generate(#{prompt => <<"a">>, n => 1}),
    #{<<"health">> := #{<<"reasons">> := [Reason | _]}} = until_state(<<"down">>),
    ?assertMatch(#{<<"detail">> := <<"no node holds", _/binary>>}, Reason),
    ok = baguette_engine:cancel(Id),
    ok = baguette_engine:simulate(#{fail => none}),
    _ = until_state(<<"ready">>),
    ok.

all_watchers_get_the_same_bytes(_Config) ->
    Test = self(),
    Watchers = [spawn_link(fun() -> watcher(Test) end) || _ <- lists:seq(1, 20)],
    [receive {Watcher, watches} -> ok end || Watcher <- Watchers],
    tell(<<"one">>),
    tell(<<"two">>),
    Got = [jobs_of(Watcher, 2) || Watcher <- Watchers],
    ?assertMatch([_], lists:usort(Got)).

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
    Stream = proplists:get_value(stream, Config),
    %% The stream's DOWN is not ours.
    until(fun() ->
        Status = io_lib:format("~p", [sys:get_status(Stream)]),
        string:find(Status, "{watchers,0}") =/= nomatch
    end).

what_was_told_once_is_not_told_again(_Config) ->
    %% More than are kept for newcomers.
    Old = [event(N) || N <- lists:seq(1001, 1400)],
    ok = application:set_env(baguette_web, teller, ?MODULE),
    ok = persistent_term:put(?MODULE, Old),
    ok = baguette_web_stream:watch(),
    ?assertEqual(lists:seq(1101, 1400), next_events()),
    %% The clock was set back.
    ok = persistent_term:put(?MODULE, Old ++ [event(7)]),
    ?assertEqual([7], next_events()),
    ok = persistent_term:put(?MODULE, Old ++ [event(7), event(8)]),
    ?assertEqual([8], next_events()),
    true = persistent_term:erase(?MODULE),
    ok = application:unset_env(baguette_web, teller).

%% As baguette_web_teller asks it.
recent(_Count) -> persistent_term:get(?MODULE).

missing(_Why) -> <<"nobody has it">>.

error(_Reason) -> <<"it went wrong">>.

event(At) -> #{at => At, level => info, room => web, text => <<"something">>}.

next_events() ->
    case next(<<"log">>) of
        #{<<"events">> := []} -> next_events();
        #{<<"events">> := Events} -> [At || #{<<"at">> := At} <- Events]
    end.

jobs_are_heard_of_when_they_began_anew(_Config) ->
    Listener = listener(),
    [Jobs, Stream] = [whereis(Name) || Name <- [baguette_web_jobs_sup, baguette_web_stream]],
    ok = gen_server:stop(Jobs, crashed, infinity),
    until(fun() -> is_new(baguette_web_stream, Stream) end),
    ?assert(is_new(baguette_web_jobs_sup, Jobs)),
    ?assertEqual(Listener, listener()),
    ok = baguette_web_stream:watch(),
    {ok, Model} = baguette_engine:model(),
    {ok, Limits} = baguette_web_jobs:limits(),
    {ok, Request} = baguette_web_image_request:new(#{<<"prompt">> => <<"a">>}, Model, Limits),
    {ok, new, #{id := Id}} = baguette_web_jobs:submit(#{
        client => <<"me">>, body_hash => <<>>, key => undefined, request => Request
    }),
    ?assertMatch(#{<<"id">> := Id}, next(<<"job">>)).

listener() ->
    {listener, Pid, _, _} = lists:keyfind(listener, 1, supervisor:which_children(baguette_web_sup)),
    Pid.

is_new(Name, Before) ->
    Now = whereis(Name),
    is_pid(Now) andalso Now =/= Before.

no_metric_is_told_twice(_Config) ->
    Names = [Name || #{name := Name} <- baguette_web_metrics_h:all()],
    ?assertEqual([], Names -- lists:usort(Names)).

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

until_state(State) ->
    Is = fun(#{<<"health">> := #{<<"state">> := Now}}) -> Now =:= State end,
    until_snapshot(Is, next(<<"snapshot">>)).

%% The first snapshot, this one or one after it, of which it holds: several may tell of one change.
until_snapshot(Holds, Snapshot) ->
    case Holds(Snapshot) of
        true -> Snapshot;
        false -> until_snapshot(Holds, next(<<"snapshot">>))
    end.

%% What a watcher got with that many jobs in it, in one batch or several.
jobs_of(_Watcher, Jobs) when Jobs =< 0 ->
    [];
jobs_of(Watcher, Jobs) ->
    receive
        {Watcher, job, Bytes} ->
            [Bytes | jobs_of(Watcher, Jobs - count(<<"event: job">>, Bytes))]
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
