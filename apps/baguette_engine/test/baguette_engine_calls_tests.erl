%% Which calls go to an OS process and when, and who is told that it died.
-module(baguette_engine_calls_tests).

-include_lib("eunit/include/eunit.hrl").

-define(C, baguette_engine_calls).

what_may_join_goes_after_the_last_frame_and_waits_there_test() ->
    {[0], C0} = asked([{g, 1}], ?C:new(pipeline)),
    {[1, 2], _} = asked([{g, 1}, {g, 2}], C0).

a_batch_at_most_goes_ahead_test() ->
    {[0], C0} = asked([{g, 4}], ?C:new(pipeline)),
    {[1, 2], C1} = asked([{g, 2}, {g, 2}, {g, 1}], C0),
    %% What goes is bounded again once the process is at the next batch.
    {{f, 4}, C2} = ?C:answered(0, [{ok, <<>>}], C1),
    {send, 3, {f, [_]}, {g, 1}, _} = ?C:next(fun most/1, C2).

who_is_of_another_group_waits_until_nothing_is_there_test() ->
    {[0], C0} = asked([{g, 1}], ?C:new(pipeline)),
    {[], C1} = asked([{h, 1}], C0),
    %% And is not passed by those who could join.
    {[], C2} = asked([{g, 1}], C1),
    {{f, 1}, C3} = ?C:answered(0, [{ok, <<>>}], C2),
    {send, 1, {f, [_]}, {h, 1}, _} = ?C:next(fun most/1, C3).

nobody_joins_who_is_alone_test() ->
    {[0], C0} = asked([{alone, 1}], ?C:new(pipeline)),
    {[], C1} = asked([{g, 1}], C0),
    {{f, 1}, C2} = ?C:answered(0, [{ok, <<>>}], C1),
    {send, 1, {f, [_]}, {g, 1}, C3} = ?C:next(fun most/1, C2),
    %% One that is alone is read ahead: nobody could join it.
    {[2], C4} = asked([{alone, 1}], C3),
    {[], _} = asked([{alone, 1}], C4).

of_a_batch_all_died_and_the_rest_was_not_begun_test() ->
    _ = told(),
    {[0], C0} = asked([{g, 1}], ?C:new(pipeline)),
    {[1, 2], C1} = asked([{g, 1}, {g, 1}], C0),
    C2 = ?C:as_one([0, 1], C1),
    _ = ?C:forsake(#{exit_status => 9}, owner(), not_held, C2),
    Died = {error, {died, #{exit_status => 9}}},
    ?assertEqual([Died, Died, {error, {not_held, #{}}}], told()).

rows_that_were_one_batch_are_counted_once_test() ->
    {[0], C0} = asked([{g, 1}], ?C:new(pipeline)),
    {[1], C1} = asked([{g, 3}], C0),
    C2 = ?C:as_one([0, 1], C1),
    {{f, 4}, C3} = ?C:answered(0, [{ok, <<>>}], C2),
    {{f, 0}, _} = ?C:answered(1, [{ok, <<>>}], C3).

%% Helpers --------------------------------------------------------------------------------------

most(f) -> {4, 1 bsl 20}.

%% One call after the other; the frames that went.
asked(Companies, C0) ->
    {Ids, C} = lists:mapfoldl(fun one/2, C0, Companies),
    {lists:append(Ids), C}.

one(Company, C0) ->
    all_sent(?C:take({request, make_ref(), self(), {f, <<>>}, Company}, C0), []).

all_sent(C0, Ids) ->
    case ?C:next(fun most/1, C0) of
        {send, Id, {f, [_]}, _, C} -> all_sent(C, [Id | Ids]);
        none -> {lists:reverse(Ids), C0}
    end.

owner() -> spawn(fun() -> ok end).

%% All that was answered since, in order.
told() ->
    receive
        {baguette_engine_worker, _, Answer} -> [Answer | told()]
    after 0 -> []
    end.
