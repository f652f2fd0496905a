%% @doc The exchange between simulated nodes: whatever is lost, doubled or out of order, all know
%% the same once messages flow again, and then no body is sent any more.
-module(baguette_cluster_exchange_tests).

%% In this order: both define LET, eunit only when nobody has.
-include_lib("proper/include/proper.hrl").
-include_lib("eunit/include/eunit.hrl").

-import(baguette_cluster_fleet, [host/1, report/2]).

-define(X, baguette_cluster_exchange).
-define(BEAT_MS, 500).
-define(SETTINGS, #{beat_ms => ?BEAT_MS, suspect_ms => 1400, gone_ms => 8000, max_peers => 16}).

%% A world: nodes by number, messages on their way (oldest first), who is linked to whom, the clock.
-record(world, {
    nodes = #{} :: #{pos_integer() => baguette_cluster_exchange:state()},
    way = [] :: [{From :: pos_integer(), To :: pos_integer(), term()}],
    links = [] :: [{pos_integer(), pos_integer()}],
    left = [] :: [pos_integer()],
    drained = [] :: [pos_integer()],
    now = 0 :: integer()
}).

all_know_the_same_in_the_end_test_() ->
    Options = [{numtests, 300}, {max_size, 60}, {on_output, fun(_, _) -> ok end}],
    {timeout, 120, ?_assert(proper:quickcheck(prop_exchange(), Options))}.

prop_exchange() ->
    ?FORALL(Count, range(3, 6), ?FORALL(Steps, list(step(Count)), begin
        Ended = in_peace(25, connected(lists:foldl(fun step/2, world(Count), Steps))),
        Truth = truth(Ended),
        Known = [{I, known(X)} || {I, X} <- alive(Ended)],
        {_, Last} = beats(Ended),
        Kinds = lists:usort([element(1, M) || {_, _, M} <- Last]),
        ?WHENFAIL(io:format(user, "~p~n~p~n~p~n", [Truth, Known, Kinds]),
            lists:all(fun({_, K}) -> K =:= Truth end, Known) andalso
                Kinds -- [beat, digest, pong] =:= [])
    end)).

step(Count) ->
    Node = range(1, Count),
    Nth = range(0, 50),
    frequency([
        {8, {beat, Node}},
        {16, {deliver, Nth}},
        {3, {lose, Nth}},
        {3, {double, Nth}},
        {3, {say, Node, range(1, 5)}},
        {3, {link, Node, Node}},
        {1, {cut, Node, Node}},
        {1, {restart, Node, oneof([later, earlier])}},
        {1, {leave, Node}}
    ]).

%% The simulation -------------------------------------------------------------------------------

world(Count) ->
    connected(lists:foldl(fun(I, W) -> born(I, 1000, W) end, #world{}, lists:seq(1, Count))).

born(I, Incarnation, #world{nodes = Nodes, now = Now} = W) ->
    Own = report(I, #{id => {Incarnation, 0}, hash => I}),
    Members = baguette_cluster_membership:new(?SETTINGS, Own, Now div 1000),
    W#world{nodes = Nodes#{I => ?X:new(?SETTINGS, Members, Now)}}.

step({beat, I}, #world{now = Now} = W) ->
    Later = Now + ?BEAT_MS * 200,
    act(I, fun(X) -> ?X:beat(in_turn, Later, X) end, looks(W#world{now = Later}));
step({deliver, Nth}, W) -> nth(Nth, fun(M, Rest) -> deliver(M, W#world{way = Rest}) end, W);
step({lose, Nth}, W) -> nth(Nth, fun(_, Rest) -> W#world{way = Rest} end, W);
step({double, Nth}, W) -> nth(Nth, fun(M, Rest) -> W#world{way = [M | Rest] ++ [M]} end, W);
step({say, I, Hash}, #world{now = Now} = W) ->
    act(I, fun(X) ->
        ?X:say(baguette_cluster_report:set(plan_hash, Hash, ?X:own(X)), Now, X)
    end, W);
step({link, I, J}, W) -> link(min(I, J), max(I, J), W);
step({cut, I, J}, W) -> cut(min(I, J), max(I, J), W);
step({restart, I, When}, #world{nodes = Nodes} = W) ->
    {Incarnation, _} = baguette_cluster_report:identity(?X:own(maps:get(I, Nodes))),
    Next = case When of later -> Incarnation + 10; earlier -> max(1, Incarnation - 7) end,
    Alone = isolated(I, W),
    born(I, Next, Alone#world{left = lists:delete(I, W#world.left)});
step({leave, I}, #world{left = Left} = W) ->
    isolated(I, act(I, fun ?X:leave/1, W#world{left = [I | Left]})).

isolated(I, W) ->
    lists:foldl(fun(J, Sofar) -> cut(min(I, J), max(I, J), Sofar) end, W, maps:keys(W#world.nodes)).

nth(_Nth, _Do, #world{way = []} = W) -> W;
nth(Nth, Do, #world{way = Way}) ->
    {Before, [Message | After]} = lists:split(Nth rem length(Way), Way),
    Do(Message, Before ++ After).

link(I, I, W) -> W;
link(I, J, #world{links = Links, left = Left} = W) ->
    case lists:member({I, J}, Links) orelse lists:member(I, Left) orelse lists:member(J, Left) of
        true -> W;
        false ->
            Linked = W#world{links = [{I, J} | Links]},
            up(I, J, up(J, I, Linked))
    end.

up(I, J, #world{now = Now} = W) -> act(I, fun(X) -> ?X:link_up(host(J), Now, X) end, W).

cut(I, J, #world{links = Links} = W) ->
    case lists:member({I, J}, Links) of
        true -> down(I, J, down(J, I, W#world{links = lists:delete({I, J}, Links)}));
        false -> W
    end.

down(I, J, W) -> act(I, fun(X) -> ?X:link_down(host(J), X) end, W).

%% What a node sends can be read at the other end, or it is a bug.
deliver({From, To, Message}, #world{now = Now} = W) ->
    {ok, Read} = baguette_cluster_remote_v1:read(Message, 16),
    act(To, fun(X) -> ?X:hear(host(From), Read, Now, X) end, W).

act(I, Does, #world{nodes = Nodes, way = Way, drained = Drained} = W) ->
    {Effects, X} = Does(maps:get(I, Nodes)),
    Sent = [{I, number(N), M} || {send, To, M} <- Effects, N <- To],
    W#world{
        nodes = Nodes#{I := X}, way = Way ++ Sent,
        drained = Drained ++ [I || drained <- Effects]
    }.

number(Node) ->
    {ok, Address} = baguette_cluster_node_name:to_address(Node),
    list_to_integer(lists:last(string:lexemes(Address, "."))).

connected(#world{nodes = Nodes} = W) ->
    Pairs = [{I, J} || I <- maps:keys(Nodes), J <- maps:keys(Nodes), I < J],
    lists:foldl(fun({I, J}, Sofar) -> link(I, J, Sofar) end, W, Pairs).

in_peace(0, W) -> W;
in_peace(Rounds, W) ->
    {Next, _} = beats(W),
    in_peace(Rounds - 1, Next).

%% One beat of everybody, and all that follows from it.
beats(W) ->
    #world{now = Now} = Looked = lists:foldl(
        fun(_, #world{now = Now} = Sofar) -> looks(Sofar#world{now = Now + ?BEAT_MS * 200}) end,
        W, lists:seq(1, 5)),
    Beaten = lists:foldl(
        fun({I, _}, Sofar) -> act(I, fun(X) -> ?X:beat(in_turn, Now, X) end, Sofar) end,
        Looked, alive(W)),
    quiet(Beaten, []).

looks(#world{now = Now} = W) ->
    Look = fun({I, _}, Sofar) -> act(I, fun(X) -> ?X:look(Now, X) end, Sofar) end,
    lists:foldl(Look, W, alive(W)).

quiet(#world{way = []} = W, Sent) -> {W, Sent};
quiet(#world{way = [M | Rest]} = W, Sent) -> quiet(deliver(M, W#world{way = Rest}), [M | Sent]).

alive(#world{nodes = Nodes, left = Left}) ->
    maps:to_list(maps:without(Left, Nodes)).

truth(W) -> lists:sort([body(?X:own(X)) || {_, X} <- alive(W)]).

known(X) -> lists:sort([body(R) || {R, _} <- baguette_cluster_membership:members(?X:members(X))]).

body(Report) -> maps:remove(id, baguette_cluster_report:to_map(Report)).

%% Single facts ---------------------------------------------------------------------------------

kinds(Messages) -> lists:sort([element(1, M) || {_, _, M} <- Messages]).

a_beat_sends_no_body_test() ->
    {_, Sent} = beats(in_peace(3, world(3))),
    ?assertEqual([beat, beat, beat, beat, beat, beat, digest, digest, digest, pong, pong, pong,
        pong, pong, pong], kinds(Sent)).

%% One node among so many, who answer after Delay; the others ask nothing of it meanwhile. Gives
%% to whom it said a beat when, and when it suspected whom.
among(Peers, Whom, Frozen, Delay, UntilMs) ->
    Linked = lists:foldl(
        fun(I, X) -> element(2, ?X:link_up(host(I), 0, X)) end,
        maps:get(1, (world(1))#world.nodes), lists:seq(2, Peers + 1)),
    {_, _, Said, Suspected} = lists:foldl(
        fun(Ms, State) -> at(Ms, Whom, Frozen, Delay, State) end,
        {Linked, [{host(I), Delay, 0} || I <- lists:seq(2, Peers + 1)], [], []},
        lists:seq(100, UntilMs, 100)),
    {lists:reverse(Said), lists:reverse(Suspected)}.

at(Ms, Whom, {Frozen, Since}, Delay, {X0, Owed, Said, Suspected}) ->
    {Due, Later} = lists:partition(fun({_, At, _}) -> At =< Ms end, Owed),
    X1 = lists:foldl(
        fun({N, _, Token}, X) -> element(2, ?X:hear(N, {pong, Token}, Ms * 1000, X)) end,
        X0, [A || {N, _, _} = A <- Due, N =/= Frozen orelse Ms < Since]),
    {Looked, X2} = ?X:look(Ms * 1000, X1),
    {Beaten, X3} = case Ms rem ?BEAT_MS of
        0 -> ?X:beat(Whom, Ms * 1000, X2);
        _ -> {[], X2}
    end,
    To = [{N, Ms, Token} || {send, Ns, {beat, _, _, Token}} <- Looked ++ Beaten, N <- Ns],
    New = [{N, Ms} || {event, {link, N, suspect}} <- Looked],
    {X3, Later ++ [{N, Ms + Delay, Token} || {N, _, Token} <- To], To ++ Said, New ++ Suspected}.

of_many_peers_some_are_asked_on_a_beat_and_all_in_turn_test() ->
    Of = fun(Peers, Whom) ->
        {Said, []} = among(Peers, Whom, {nobody, 0}, 0, 2900),
        InABeat = [N || {N, Ms, _} <- Said, Ms >= 1000, Ms < 1500],
        InARound = [N || {N, Ms, _} <- Said, Ms >= 500, Ms < 2500],
        AtOnce = [length([N || {N, At, _} <- Said, At =:= Ms]) || Ms <- lists:seq(1000, 1400, 100)],
        {length(InABeat), lists:max(AtOnce), length(InARound), length(lists:usort(InARound))}
    end,
    ?assertEqual({16, 16, 64, 16}, Of(16, in_turn)),
    ?assertMatch({_, _, 34, 17}, Of(17, in_turn)),
    %% However many they are, each is asked once in two seconds.
    {Some, AtOnce, 64, 64} = Of(64, in_turn),
    ?assert(Some < 32),
    ?assert(AtOnce =< 16),
    ?assertMatch({_, _, 100, 100}, Of(100, in_turn)),
    ?assertMatch({64, 16, _, 64}, Of(64, everybody)),
    ?assertMatch({200, 50, _, 200}, Of(200, everybody)).

%% Work that begins asks those whose turn is far without waiting for the beat.
who_begins_to_work_asks_everybody_with_the_next_looks_test() ->
    {Said, []} = among(64, in_turn, {nobody, 0}, 0, 1000),
    Linked = lists:foldl(
        fun(I, X) -> element(2, ?X:link_up(host(I), 0, X)) end,
        maps:get(1, (world(1))#world.nodes), lists:seq(2, 65)),
    ?assert(length(lists:usort([N || {N, _, _} <- Said])) < 64),
    {_, Beaten} = ?X:beat(in_turn, 500000, Linked),
    {Sent, _} = lists:mapfoldl(
        fun(Ms, X) -> ?X:look(Ms * 1000, X) end, ?X:ask_all(Beaten), [600, 700, 800, 900]),
    Asked = [N || {send, To, {beat, _, _, _}} <- lists:append(Sent), N <- To],
    ?assertEqual(64, length(lists:usort(Asked))).

%% Silence is noticed, and nobody is taken for silent who was not asked or has not had the time.
who_is_asked_and_does_not_answer_is_suspected_in_time_test_() ->
    Options = [{numtests, 200}, {on_output, fun(_, _) -> ok end}],
    {timeout, 120, ?_assert(proper:quickcheck(prop_suspected_in_time(), Options))}.

prop_suspected_in_time() ->
    ?FORALL({Peers, Whom, Which, Since, Delay},
        {range(1, 64), oneof([everybody, in_turn]), range(2, 65), range(10, 40), range(0, 12)},
        begin
            Frozen = {host(2 + Which rem Peers), Since * 100},
            {_, Suspected} = among(Peers, Whom, Frozen, Delay * 100, 9000),
            Turn = case Whom of
                in_turn when Peers > 16 -> ((Peers + 15) div 16) * ?BEAT_MS;
                _ -> 0
            end,
            ?WHENFAIL(io:format(user, "~p~n", [Suspected]),
                case Suspected of
                    [{Node, At}] ->
                        Node =:= element(1, Frozen) andalso At - Since * 100 =< 1500 + Turn;
                    _ ->
                        false
                end)
        end).

a_lost_body_is_pulled_once_test() ->
    W = in_peace(3, world(3)),
    Said = (step({say, 1, 77}, W))#world{way = []},
    {Known, Sent} = beats(Said),
    ?assertEqual(2, length([M || {_, 1, {pull, _} = M} <- Sent])),
    ?assertEqual(2, length([M || {1, _, {reports, [_]} = M} <- Sent])),
    ?assertEqual([], [P || {_, To, {pull, _} = P} <- Sent, To =/= 1]),
    [?assertEqual(truth(Known), known(X)) || {_, X} <- alive(Known)].

who_is_not_linked_is_heard_of_through_others_test() ->
    W = in_peace(3, world(3)),
    Apart = in_peace(30, cut(1, 2, W)),
    [?assertEqual(truth(Apart), known(X)) || {_, X} <- alive(Apart)],
    Said = in_peace(3, step({say, 1, 78}, Apart)),
    [?assertEqual(truth(Said), known(X)) || {_, X} <- alive(Said)].

large_answers_come_in_bundles_test() ->
    Big = fun(I, W) ->
        act(I, fun(X) ->
            Extra = #{big => binary:copy(<<I>>, 15000)},
            ?X:say(baguette_cluster_report:set(extra, Extra, ?X:own(X)), 0, X)
        end, W)
    end,
    W = in_peace(2, lists:foldl(Big, world(6), lists:seq(1, 6))),
    Pull = {2, 1, {pull, [host(I) || I <- lists:seq(1, 6)]}},
    #world{way = Answers} = deliver(Pull, W#world{way = []}),
    Sizes = [length(Reports) || {1, 2, {reports, Reports}} <- Answers],
    ?assertEqual([2, 4], lists:sort(Sizes)).

leaving_is_over_when_everybody_who_can_be_asked_knows_test() ->
    W = in_peace(3, world(3)),
    Draining = act(1, fun(X) -> ?X:drain(W#world.now, X) end, W),
    ?assertEqual([], Draining#world.drained),
    %% One report is lost; the next beat is a report again, to that one only.
    {[{1, 2, _}], Way} = lists:partition(fun({_, To, _}) -> To =:= 2 end, Draining#world.way),
    {Half, _} = quiet(Draining#world{way = Way, now = W#world.now + 9}, []),
    ?assertEqual([], Half#world.drained),
    {Whole, Sent} = beats(Half),
    ?assertMatch([2], [To || {1, To, {report, _, _}} <- Sent]),
    ?assertEqual([1], Whole#world.drained),
    [?assertEqual(truth(Whole), known(X)) || {_, X} <- alive(Whole)].

leaving_waits_for_nobody_who_cannot_be_asked_test() ->
    W = in_peace(3, world(2)),
    Draining = act(1, fun(X) -> ?X:drain(W#world.now, X) end, W),
    ?assertEqual([1], (cut(1, 2, Draining))#world.drained),
    Alone = act(1, fun(X) -> ?X:drain(0, X) end, world(1)),
    ?assertEqual([1], Alone#world.drained).

who_said_goodbye_says_no_more_test() ->
    W = in_peace(3, world(2)),
    Left = (act(1, fun ?X:leave/1, W))#world{way = []},
    #world{way = []} = act(1, fun(X) -> ?X:beat(everybody, Left#world.now + 500000, X) end, Left),
    #world{way = []} = deliver({2, 1, {pull, [host(1), host(2)]}}, Left).
