%% Files that are whole and say nonsense: another version's, or somebody's work. Each is a job that
%% failed, or one that goes on; none ends the node.
-module(baguette_web_job_files_tests).
-include_lib("eunit/include/eunit.hrl").

-define(ID, <<"0123456789abcdef0123">>).
-define(NONSENSE, [null, true, -1, 1.5, 5, <<"x">>, [], [5], [[#{}]], #{}, #{a => 1}]).

files_test_() ->
    {setup, fun directory/0, fun(Dir) -> ok = file:del_dir_r(Dir) end, fun(Dir) ->
        [
            {atom_to_list(Key), {timeout, 60, fun() -> each_value(Key, Dir) end}}
         || Key <- maps:keys(job())
        ]
    end}.

directory() ->
    Name = "job_files_" ++ integer_to_list(erlang:unique_integer([positive])),
    Dir = filename:join("/tmp", Name),
    ok = baguette_web_store:prepare(Dir),
    Dir.

each_value(Key, Dir) ->
    [
        begin
            Job = (job())#{Key := Value, status := Status},
            ok = baguette_web_store:put_job(Dir, ?ID, (kept())#{job => Job}),
            ok = baguette_web_store:put_step(Dir, ?ID, (kept())#{job => Job, step => 1}, <<>>),
            begun(baguette_web_job_files:start(?ID, no, #{jobs_dir => Dir, checkpoint_ms => 1}))
        end
     || Value <- ?NONSENSE, Status <- [<<"running">>, <<"completed">>]
    ],
    [
        begin
            Job = maps:put(Key, Value, (job())#{status := <<"completed">>}),
            ok = baguette_web_store:put_job(Dir, ?ID, (kept())#{job => Job}),
            {Read, Last} = baguette_web_job_files:last(Dir, ?ID),
            ?assert(is_integer(Last)),
            ?assert(is_binary(iolist_to_binary(jiffy:encode(Read)))),
            ?assertMatch(#{failovers_count := _}, baguette_web_job_record:summary(Read))
        end
     || Value <- ?NONSENSE
    ].

begun({ended, #{images := N}}) when is_integer(N) -> ok;
begun({unended, #{images := N}, #{job := Job}}) when is_integer(N) ->
    %% What the job's process does with it first.
    {#{}, _} = baguette_web_job_record:event({state, #{state => asking}}, Job),
    {#{}, _} = baguette_web_job_record:event(
        {step, #{step => 2, steps => 4, experts => [[0]], asked => #{}}}, Job
    ),
    ok.

kept() ->
    #{client => <<"phone">>, key => null, hash => <<"h">>, attended => false, last_event => 3}.

job() ->
    (baguette_web_job_record:new(#{
        id => ?ID, client => <<"phone">>, created => 1.0, predicted_seconds => 2.0,
        options => #{
            prompt => <<"a">>, negative_prompt => <<>>, model => <<"m">>, n => 1, steps => 4,
            seed => 0, guidance_scale => 1.0, top_k => 1, deterministic => true,
            cache => 0.0, on_missing => wait
        }
    }))#{node := <<"127.0.0.2">>}.
