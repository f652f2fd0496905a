%% @doc Files of weights that are not as they should be: refused by name where that can be seen,
%% never a picture where it cannot. What is whole is served all the same. Real Python workers.
-module(baguette_engine_weights_SUITE).

-include_lib("stdlib/include/assert.hrl").

-import(baguette_engine_fixture, [until/1]).

-export([all/0, suite/0, init_per_testcase/2, end_per_testcase/2]).
-export([
    a_file_cut_short_is_refused_and_the_others_are_served/1,
    a_file_cut_short_while_it_is_held_is_refused_at_the_next_load/1,
    weights_that_are_not_numbers_make_no_picture/1
]).

-define(BROKEN, <<"paris-tiny/expert-1">>).
-define(REQUEST, #{prompt => <<"any words at all">>, steps => 2}).

suite() -> [{timetrap, {seconds, 120}}].

all() ->
    [
        a_file_cut_short_is_refused_and_the_others_are_served,
        a_file_cut_short_while_it_is_held_is_refused_at_the_next_load,
        weights_that_are_not_numbers_make_no_picture
    ].

init_per_testcase(Case, Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), atom_to_list(Case)),
    ok = filelib:ensure_dir(filename:join(Dir, "model")),
    ok = baguette_engine_fixture:build(Dir),
    Model = baguette_engine_fixture:model(Dir),
    File = filename:join([Model, "expert_1", "diffusion_pytorch_model.safetensors"]),
    [{dir, Dir}, {file, File} | Config].

end_per_testcase(_Case, _Config) ->
    baguette_engine_fixture:stop().

%% Cases ----------------------------------------------------------------------------------------

a_file_cut_short_is_refused_and_the_others_are_served(Config) ->
    ok = cut_short(Config),
    ok = started(Config),
    {ok, #{refused := [Refused]}} = baguette_engine_model:get(),
    ?assertMatch(#{component := ?BROKEN, why := <<"wrong hash: 1000 bytes", _/binary>>}, Refused),
    ?assertEqual([?BROKEN], without_holder()),
    ?assertEqual(nobody_has_it_on_disk, waits_for(1)),
    drawn_without(1).

%% What is in memory is whole; what a restart would read is not. The cluster has it loaded a few
%% times before it believes that.
a_file_cut_short_while_it_is_held_is_refused_at_the_next_load(Config) ->
    ok = started(Config),
    ok = cut_short(Config),
    ?assertMatch({ok, _}, drawn(#{top_k => full})),
    [Os] = [Os || #{kind := expert, os_pid := Os} <- baguette_engine:workers()],
    [] = os:cmd("kill -KILL " ++ integer_to_list(Os)),
    until(fun() -> without_holder() =:= [?BROKEN] andalso baguette_engine_fixture:serving() end),
    until(fun() -> is_hopeless(baguette_cluster:why_missing(?BROKEN)) end),
    ?assert(is_hopeless(waits_for(1))),
    drawn_without(1).

%% Without a manifest the file is as good as any: its first answer tells.
weights_that_are_not_numbers_make_no_picture(Config) ->
    Model = baguette_engine_fixture:model(proplists:get_value(dir, Config)),
    ok = file:delete(filename:join(Model, "manifest.json")),
    Program = baguette_engine_checkout:path(["tests", "faulty", "nan_weights.py"]),
    ok = baguette_engine_fixture:run_python([Program, " ", proplists:get_value(file, Config)]),
    ok = started(Config),
    ?assertMatch({error, {not_finite, #{expert := 1}}}, drawn(#{top_k => full})),
    drawn_without(1).

%% Helpers --------------------------------------------------------------------------------------

started(Config) ->
    baguette_engine_fixture:start(proplists:get_value(dir, Config), #{max_running => 4}).

cut_short(Config) ->
    File = proplists:get_value(file, Config),
    {ok, <<Kept:1000/binary, _/binary>>} = file:read_file(File),
    %% In its place, as a copy that broke off would be.
    file:write_file(File, Kept).

drawn(Options) ->
    {ok, Id} = baguette_engine:generate(maps:merge(?REQUEST, Options)),
    baguette_engine:await(Id, infinity).

without_holder() ->
    [C || #{component := C, holders := []} <- baguette_engine:experts()].

%% The reason that a generation gives which needs this expert; it is then cancelled.
waits_for(Expert) ->
    {ok, Id} = baguette_engine:generate((?REQUEST)#{top_k => full}),
    ok = baguette_engine:watch(Id),
    Reason = receive
        {baguette_engine, Id, {waiting, #{expert := Expert, reason := Why}}} -> Why
    end,
    ok = baguette_engine:cancel(Id),
    Reason.

is_hopeless(Reason) ->
    lists:member(Reason, [nobody_has_it_on_disk, {failed, [node()]}]).

%% A picture that does not ask this expert: one of these seeds has one.
drawn_without(Expert) ->
    Seeds = [Seed || Seed <- lists:seq(0, 15), not asks(Expert, Seed)],
    ?assertMatch([_ | _], Seeds).

asks(Expert, Seed) ->
    {ok, Id} = baguette_engine:generate((?REQUEST)#{seed => Seed, top_k => 1, steps => 1}),
    ok = baguette_engine:watch(Id),
    receive
        {baguette_engine, Id, {waiting, #{expert := Expert}}} ->
            ok = baguette_engine:cancel(Id),
            true;
        {baguette_engine, Id, {failed, {_, #{expert := Expert}}}} ->
            true;
        {baguette_engine, Id, {done, #{routing := [[#{experts := [Asked]}]]}}} ->
            ?assertNotEqual(Expert, Asked),
            false
    end.
