%% Checkpoints as bytes: the same state back, and of anything else only an error. A checkpoint is
%% taken of a pure generation in the middle of its second step.
-module(baguette_engine_checkpoint_tests).

-include_lib("proper/include/proper.hrl").
-include_lib("eunit/include/eunit.hrl").

-define(EXPERTS, [<<"e0">>, <<"e1">>, <<"e2">>]).
-define(HEADER, (byte_size(<<"baguette-checkpoint">>) + 1 + 32)).

a_checkpoint_comes_back_as_it_was_test() ->
    {Fingerprint, State} = taken(),
    Bytes = baguette_engine_checkpoint:to_bytes(Fingerprint, State),
    {ok, Back} = read(Bytes),
    ?assertEqual(seen(State), seen(Back)).

everything_that_happened_is_in_it_test() ->
    {_, #{record := Record}} = taken(),
    ?assertMatch(
        #{
            calls := [#{expert := 0, node := _}, #{expert := 2}],
            failovers := [#{why := died, to := undefined}],
            hedges := [], degraded := [], asked := 3, resumed := []
        },
        baguette_engine_record:to_map(Record)
    ).

a_long_picture_has_more_calls_than_a_list_may_have_test() ->
    {Fingerprint, #{record := Record} = State} = taken(),
    Call = #{node => node(), asked_us => 7},
    Long = lists:foldl(
        fun(_, R) -> baguette_engine_record:answered(1, Call, 1, 9, R) end,
        Record,
        lists:seq(1, 5000)
    ),
    Many = State#{record := Long},
    {ok, Back} = read(baguette_engine_checkpoint:to_bytes(Fingerprint, Many)),
    ?assert(seen(Many) =:= seen(Back)).

nodes_are_ourselves_and_members_test() ->
    ?assertEqual(node(), restored(atom_to_binary(node()))),
    ?assertEqual('baguette@127.0.0.77', restored(<<"baguette@127.0.0.77">>)),
    [
        ?assertThrow({bad_checkpoint, _}, restored(Name))
     || Name <- [<<"baguette@elsewhere">>, <<"true">>, <<>>, 7]
    ].

damage_is_seen_test() ->
    Bytes = bytes(),
    Size = byte_size(Bytes),
    [
        ?assertMatch({error, {bad_checkpoint, _}}, read(binary:part(Bytes, 0, Kept)))
     || Kept <- [0, 5, 20, ?HEADER, Size div 2, Size - 1]
    ],
    ?assertEqual(why(damaged), read(<<Bytes/binary, 0>>)),
    ?assertEqual(why(another_version), read(<<"baguette-checkpoint", 2, 0:256>>)).

another_request_is_not_gone_on_with_test() ->
    #{seed := Seed} = Request = request(),
    Other = Request#{seed := Seed + 1},
    ?assertEqual(why(another_request), baguette_engine_checkpoint:read(bytes(), Other, model())),
    Larger = #{experts => ?EXPERTS ++ [<<"e3">>]},
    ?assertEqual(
        why(another_request), baguette_engine_checkpoint:read(bytes(), Request, Larger)
    ).

%% Whoever can write the file can write its hash.
nothing_in_the_body_is_believed_test_() ->
    {timeout, 60, fun() ->
        ?assert(proper:quickcheck(prop_body(), [quiet, {numtests, 1000}]))
    end}.

prop_body() ->
    <<_:?HEADER/binary, Body/binary>> = bytes(),
    {ok, Whole} = baguette_engine_msgpack:decode(Body),
    ?FORALL(
        {Where, Value},
        {list(range(0, 9)), oneof([nil, -1, 1 bsl 40, 0.5, <<"x">>, [], [[]], #{}, true])},
        %% proper itself cannot tell of an exception on this release.
        case catch read(sealed(baguette_engine_msgpack:encode(changed(Where, Value, Whole)))) of
            {ok, #{step := Step, images := [_, _]}} -> Step =:= 1;
            {error, {bad_checkpoint, #{why := Why}}} -> is_atom(Why);
            {'EXIT', Crash} -> ?debugFmt("~0tP", [Crash, 40]) =/= ok
        end
    ).

%% Another value somewhere below: Where says which item of which item.
changed([], Value, _) -> Value;
changed([I | Where], Value, Map) when is_map(Map), map_size(Map) > 0 ->
    Key = lists:nth(1 + I rem map_size(Map), lists:sort(maps:keys(Map))),
    Map#{Key := changed(Where, Value, maps:get(Key, Map))};
changed([I | Where], Value, [_ | _] = List) ->
    {Before, [Item | After]} = lists:split(I rem length(List), List),
    Before ++ [changed(Where, Value, Item) | After];
changed(_, Value, _) -> Value.

%% Going on -------------------------------------------------------------------------------------

what_goes_on_asks_what_was_asked_test() ->
    {_, #{step := 1} = From} = taken(),
    {S0, _} = event(begin_now, 1000, baguette_engine_step:resumed(From, new())),
    {_, Effects} = event({called, {ok, encoded()}}, 1001, S0),
    ?assertMatch(
        [
            {publish, {step, #{step := 2, routing := [[1], [1]], experts := [[1], [1]]}}},
            {ask, _, a, <<"e1">>, alone, #{
                rows := [#{<<"latent">> := <<"l0">>}, #{<<"latent">> := <<"l1">>}]
            }}
        ],
        Effects
    ).

another_pipeline_does_not_go_on_with_it_test() ->
    {_, From} = taken(),
    {S0, _} = event(begin_now, 1000, baguette_engine_step:resumed(From, new())),
    Other = (encoded())#{<<"keys">> := #{<<"vae">> => <<"another">>}},
    ?assertMatch(
        {_, [{failed, {bad_checkpoint, #{why := another_pipeline}}}]},
        event({called, {ok, Other}}, 1001, S0)
    ).

before_the_first_routing_there_is_none_test() ->
    {S0, _} = event(begin_now, 0, new()),
    ?assertEqual(
        {error, {no_checkpoint, #{state => encoding}}}, baguette_engine_step:checkpoint(S0)
    ).

%% What was kept of what is gone on with, before it went on.
a_checkpoint_of_what_waits_to_go_on_is_the_same_test() ->
    {Fingerprint, From} = taken(),
    ?assertEqual(
        {ok, {Fingerprint, From}},
        baguette_engine_step:checkpoint(baguette_engine_step:resumed(From, new()))
    ).

%% Helpers --------------------------------------------------------------------------------------

bytes() ->
    {Fingerprint, State} = taken(),
    baguette_engine_checkpoint:to_bytes(Fingerprint, State).

read(Bytes) -> baguette_engine_checkpoint:read(Bytes, request(), model()).

%% When it began by a clock that is no more, and its step, are set when it goes on.
seen(#{record := Record} = State) ->
    State#{record := baguette_engine_record:to_map(Record)}.

sealed(Body) -> <<"baguette-checkpoint", 1, (crypto:hash(sha256, Body))/binary, Body/binary>>.

why(Why) -> {error, {bad_checkpoint, #{why => Why}}}.

restored(Name) -> baguette_engine_checkpoint:restored_node(Name).

taken() ->
    Answers = [begin_now, {called, {ok, encoded()}}, {called, {ok, routed([[2], [0]])}}],
    S0 = lists:foldl(fun(Event, S) -> element(1, event(Event, 7, S)) end, new(), Answers),
    {S1, _} = event({answered, 1, velocity()}, 9, S0),
    {S2, _} = event({answered, 2, {error, {died, #{}}}}, 10, S1),
    {S3, Again} = event(tick, 600000, S2),
    [No] = [No || {ask, No, _, _, _, _} <- Again],
    {S4, _} = event({answered, No, velocity()}, 600009, S3),
    {S5, [_ | _]} = event({called, {ok, routed([[1], [1]])}}, 600010, S4),
    %% In the middle of the step that follows: what it asks is asked again.
    {ok, Taken} = baguette_engine_step:checkpoint(S5),
    Taken.

new() ->
    Limits = #{ask_floor_ms => 1000, missing_ms => 1000},
    baguette_engine_step:new(<<"id">>, request(), ?EXPERTS, Limits).

event(Event, Now, S) ->
    Holder = #{node => a, key => <<"k">>, expected_us => 10, call_us => 10},
    View = #{
        now_us => Now, holders => fun(_, _) -> [Holder#{node := node_of(S)}] end,
        why_missing => fun(_) -> nobody end, hedge => fun() -> none end, typical => 1.0
    },
    {S1, Effects} = baguette_engine_step:event(Event, View, S),
    {S1, [E || E <- Effects, not lists:member(element(1, E), [paced, measured])]}.

%% A holder whose name can be restored while the checkpoint is made.
node_of(S) ->
    case maps:get(step, baguette_engine_step:overview(S)) of
        0 -> node();
        _ -> a
    end.

request() ->
    #{
        prompt => <<"a star">>, negative_prompt => <<>>, n => 2, steps => 3,
        guidance_scale => 2.0, top_k => 1, seed => 7, deterministic => true, on_missing => wait
    }.

model() -> #{experts => ?EXPERTS}.

velocity() -> {ok, #{<<"velocities">> => [<<"v">>], <<"micros">> => 1}}.

encoded() ->
    #{
        <<"context">> => #{<<"hash">> => <<"c">>, <<"tensor">> => <<"tc">>},
        <<"null">> => #{<<"hash">> => <<"n">>, <<"tensor">> => <<"tn">>},
        <<"warnings">> => [], <<"keys">> => #{<<"vae">> => <<"k">>}, <<"threads">> => 1
    }.

routed(Experts) ->
    Images = [
        #{
            <<"latent">> => <<"l", (integer_to_binary(I))/binary>>, <<"experts">> => Asked,
            <<"weights">> => [1.0], <<"margin">> => 0.5
        }
     || {I, Asked} <- lists:zip([0, 1], Experts)
    ],
    #{
        <<"images">> => Images, <<"t">> => 0.5, <<"network_t">> => 500.0,
        <<"route_micros">> => 2, <<"advance_micros">> => 3
    }.
