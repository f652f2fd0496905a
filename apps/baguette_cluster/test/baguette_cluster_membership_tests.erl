%% @doc Up, suspect, gone: three facts, a clock as argument, nobody sleeps.
-module(baguette_cluster_membership_tests).

-include_lib("eunit/include/eunit.hrl").

-import(baguette_cluster_fleet, [host/1, report/2]).
-import(baguette_cluster_membership, [
    new/3, merge/3, hint/3, goodbye/2, link_up/3, link_down/2, heard/3, round_trip/3, judge/2,
    look_ms/1, throughput/3, members/1, hints/1, bodies/2, links/1, floors/1, goodbyes/1
]).

settings() -> #{beat_ms => 500, suspect_ms => 1400, gone_ms => 8000, max_peers => 3}.

alone() -> new(settings(), report(1, #{id => {10, 5}}), 0).

%% Merges at a time; the verdict and what became.
told(N, Id, Now, S) ->
    {Verdict, Events, Next} = merge(report(N, #{id => Id}), Now, S),
    {Verdict, Events, Next}.

%% Judges from one time to another, as often as the process does.
beats(From, To, S) ->
    lists:foldl(
        fun(T, {Events, Sofar}) -> {More, Next} = judge(T, Sofar), {Events ++ More, Next} end,
        {[], S}, lists:seq(From, To, look_ms(settings()))).

with_peer() ->
    {_, Linked} = link_up(host(2), 0, alone()),
    {changed, [{member, _, joined}], S} = told(2, {7, 0}, 0, Linked),
    S.

a_silent_link_is_suspect_and_the_node_stays_test() ->
    {Events, S} = beats(100, 3000, with_peer()),
    ?assertEqual([{link, host(2), suspect}], Events),
    ?assertEqual(2, length(members(S))),
    {Back, _} = heard(host(2), 3100, S),
    ?assertEqual([{link, host(2), up}], Back).

a_report_that_stands_still_is_gone_test() ->
    {Events, S} = beats(100, 9000, with_peer()),
    ?assertEqual([{link, host(2), suspect}, {member, host(2), gone}], Events),
    ?assertMatch([_], members(S)).

news_through_a_third_node_keeps_a_member_test() ->
    {_, S1} = beats(100, 6000, with_peer()),
    {advanced, [], S2} = told(2, {7, 3}, 6000, S1),
    {Events, _} = beats(6100, 13500, S2),
    ?assertEqual([], [E || {member, _, gone} = E <- Events]).

hash(N, Facts) -> baguette_cluster_report:hash(report(N, Facts)).

a_hint_of_a_known_body_is_as_good_as_a_report_test() ->
    H = hash(2, #{}),
    {_, S1} = beats(100, 6000, with_peer()),
    {advanced, S2} = hint({host(2), {7, 3}, H}, 6000, S1),
    ?assertEqual([{host(2), {7, 3}, H}], hints(S2)),
    {Events, _} = beats(6100, 13500, S2),
    ?assertEqual([], [E || {member, _, gone} = E <- Events]),
    ?assertMatch({known, S2}, hint({host(2), {7, 3}, H}, 6000, S2)),
    ?assertMatch({known, S2}, hint({host(2), {7, 2}, H + 1}, 6000, S2)),
    ?assertMatch({{stale, {7, 3}}, S2}, hint({host(2), {6, 9}, H}, 6000, S2)).

a_hint_of_another_body_shows_life_once_and_no_body_test() ->
    {_, S1} = beats(100, 6000, with_peer()),
    Hint = {host(2), {7, 3}, hash(2, #{hash => 9})},
    {wanted, S2} = hint(Hint, 6000, S1),
    {_, Later} = beats(6100, 9000, S2),
    {wanted, S3} = hint(Hint, 9000, Later),
    ?assertEqual(hints(S1), hints(S3)),
    ?assertEqual([report(2, #{id => {7, 0}})], bodies([host(2), host(4)], S3)),
    {Events, Buried} = beats(9100, 14500, S3),
    ?assertEqual([host(2)], [N || {member, N, gone} <- Events]),
    %% The body that was late comes too late: its node had got further when it stopped.
    ?assertMatch({{stale, {7, 3}}, [], _}, told(2, {7, 3}, 15000, Buried)),
    %% In time it is taken, though its identity is no news.
    {changed, [], S4} = merge(report(2, #{id => {7, 3}, hash => 9}), 9000, S3),
    {Again, _} = beats(9100, 14500, S4),
    ?assertEqual([host(2)], [N || {member, N, gone} <- Again]).

a_hint_of_a_stranger_is_wanted_while_there_is_room_test() ->
    ?assertMatch({wanted, _}, hint({host(5), {1, 0}, 1}, 0, alone())),
    Full = lists:foldl(fun(N, S) -> element(3, told(N, {1, 0}, 0, S)) end, alone(), [2, 3, 4]),
    ?assertMatch({full, Full}, hint({host(5), {1, 0}, 1}, 0, Full)),
    {_, _, Parted} = goodbye({host(2), 1}, Full),
    ?assertMatch({{stale, {1, gone}}, _}, hint({host(2), {1, 70}, 1}, 0, Parted)),
    ?assertMatch({wanted, _}, hint({host(2), {2, 0}, 1}, 0, Parted)),
    ?assertMatch({{outrun, {11, 0}}, _}, hint({host(1), {11, 0}, 1}, 0, Full)).

what_a_link_carries_goes_with_it_test() ->
    S = throughput(host(2), 940, with_peer()),
    ?assertMatch(#{mbit := 940}, maps:get(host(2), links(S))),
    {_, Down} = link_down(host(2), S),
    ?assertEqual(Down, throughput(host(2), 940, Down)),
    {_, Again} = link_up(host(2), 0, Down),
    ?assertMatch(#{mbit := 0}, maps:get(host(2), links(Again))).

a_lost_link_is_down_at_once_and_no_more_test() ->
    {Events, S} = link_down(host(2), with_peer()),
    ?assertEqual([{link, host(2), down}], Events),
    ?assertEqual(2, length(members(S))),
    ?assertEqual({[], S}, link_down(host(2), S)).

no_ghost_comes_back_test() ->
    {_, S} = beats(100, 9000, with_peer()),
    ?assertMatch({{stale, {7, 0}}, [], S}, told(2, {7, 0}, 9100, S)),
    ?assertMatch({{stale, {7, 0}}, [], S}, told(2, {6, 99}, 9100, S)),
    ?assertMatch({changed, [{member, _, joined}], _}, told(2, {7, 1}, 9100, S)),
    ?assertMatch({changed, [{member, _, joined}], _}, told(2, {8, 0}, 9100, S)).

a_goodbye_ends_an_incarnation_test() ->
    {changed, [{member, _, gone}], S} = goodbye({host(2), 7}, with_peer()),
    ?assertEqual([{host(2), 7}], goodbyes(S)),
    ?assertMatch({{stale, _}, [], _}, told(2, {7, 4000}, 10, S)),
    {changed, [{member, _, joined}], Again} = told(2, {8, 0}, 20, S),
    ?assertEqual(#{}, floors(Again)),
    ?assertMatch({known, [], Again}, goodbye({host(2), 7}, Again)).

a_judgement_is_not_passed_on_test() ->
    {_, S} = beats(100, 9000, with_peer()),
    ?assertEqual([], goodbyes(S)).

silence_is_noticed_within_a_look_of_suspect_ms_test() ->
    {[], S} = beats(100, 1400, with_peer()),
    ?assertMatch({[{link, _, suspect}], _}, judge(1500, S)).

who_was_frozen_judges_nobody_test() ->
    {[], Silent} = beats(100, 1300, with_peer()),
    {[], Woken} = judge(60000, Silent),
    {Events, S} = beats(60100, 61400, Woken),
    ?assertEqual([], Events),
    {Later, _} = beats(61500, 69000, S),
    ?assertEqual([{link, host(2), suspect}, {member, host(2), gone}], Later).

%% A look that should have come every 100 ms and came every 500: 300 of them are our own lateness.
who_comes_late_himself_waits_as_much_longer_test() ->
    Looks = fun(To) ->
        lists:foldl(
            fun(T, {Events, S}) -> {More, Next} = judge(T, S), {Events ++ More, Next} end,
            {[], with_peer()}, lists:seq(500, To, 500))
    end,
    ?assertMatch({[], _}, Looks(3500)),
    ?assertMatch({[{link, _, suspect}], _}, Looks(4000)).

%% What is heard after the judge's late look is never put off into the future.
lateness_puts_off_no_further_than_now_test() ->
    {[], Heard} = heard(host(2), 1000, with_peer()),
    {[], S} = judge(1000, Heard),
    ?assertMatch(#{heard_ms := 1000}, maps:get(host(2), links(S))).

our_own_echo_is_known_and_a_higher_one_is_outrun_test() ->
    ?assertMatch({known, [], _}, told(1, {10, 5}, 0, alone())),
    ?assertMatch({{outrun, {10, 6}}, [], _}, told(1, {10, 6}, 0, alone())),
    ?assertMatch({{outrun, {10, gone}}, [], _}, goodbye({host(1), 10}, alone())).

there_is_room_for_so_many_test() ->
    Full = lists:foldl(fun(N, S) -> element(3, told(N, {1, 0}, 0, S)) end, alone(), [2, 3, 4]),
    ?assertMatch({full, [], Full}, told(5, {1, 0}, 0, Full)),
    Part = fun(N, S) -> element(3, goodbye({host(N), 1}, S)) end,
    Gone = lists:foldl(Part, Full, lists:seq(2, 60)),
    ?assertEqual(12, map_size(floors(Gone))).

a_frozen_peers_answer_measures_no_way_test() ->
    S = round_trip(host(2), 1400001, round_trip(host(2), 100, with_peer())),
    ?assertMatch(#{rtt_us := 100}, maps:get(host(2), links(S))).

a_round_trip_is_smoothed_test() ->
    S = round_trip(host(2), 800, round_trip(host(2), 100, with_peer())),
    ?assertMatch(#{rtt_us := 187}, maps:get(host(2), links(S))),
    ?assertMatch(#{rtt_us := 143}, maps:get(host(2), links(round_trip(host(2), 100, S)))).

one_measured_while_a_node_started_is_forgotten_with_the_next_test() ->
    S = round_trip(host(2), 300, round_trip(host(2), 200000, with_peer())),
    ?assertMatch(#{rtt_us := 300}, maps:get(host(2), links(S))).

%% Whatever order reports and goodbyes come in, the same is known in the end.
order_does_not_matter_test_() ->
    Options = [{numtests, 300}, {on_output, fun(_, _) -> ok end}],
    {timeout, 60, ?_assert(proper:quickcheck(prop_order(), Options))}.

prop_order() ->
    News = proper_types:list({proper_types:range(2, 4), proper_types:range(1, 3),
        proper_types:oneof([gone, proper_types:range(0, 3)])}),
    proper:forall(News, fun(List) ->
        proper:forall(shuffled(List), fun(Other) -> outcome(List) =:= outcome(Other) end)
    end).

shuffled(List) ->
    Keys = proper_types:vector(length(List), proper_types:integer()),
    proper_types:bind(Keys, fun(Ks) -> [X || {_, X} <- lists:sort(lists:zip(Ks, List))] end, false).

outcome(News) ->
    S = lists:foldl(fun news/2, alone(), News),
    {lists:sort([R || {R, _} <- members(S)]), lists:sort(goodbyes(S))}.

news({N, Incarnation, gone}, S) -> element(3, goodbye({host(N), Incarnation}, S));
news({N, Incarnation, Counter}, S) -> element(3, told(N, {Incarnation, Counter}, 0, S)).
