%% @doc Who is a member, whom I may ask, who is gone: the judge, pure, with the clock as argument.
%% Three facts, never mixed: a link is *up* or down (the runtime says so), an up link is *suspect*
%% (asked, and nothing heard over it for suspect_ms), a member is *gone* (its report has not
%% advanced, seen by anyone, for gone_ms). Only gone, or a goodbye, ends a membership.
%% baguette_cluster_gossip performs what this decides. A node's own report lives here too; it is
%% never judged.
-module(baguette_cluster_membership).

-export([new/3, own/1, own_hash/1, set_own/2]).
-export([merge/3, hint/3, goodbye/2, judge/2, look_ms/1]).
-export([link_up/3, link_down/2, asked/3, heard/3, round_trip/3, throughput/3]).
-export([members/1, hashes/1, bodies/2, hints/1, links/1, floors/1, goodbyes/1, is_linked/2]).
-export([restore_floors/2]).
-export_type([state/0, event/0, verdict/0, hint/0, link/0]).

-type report() :: baguette_cluster_report:report().
-type identity() :: baguette_cluster_report:identity().
-type event() :: {link, node(), up | suspect | down} | {member, node(), joined | gone}.
-type link() :: #{
    state := up | suspect,
    heard_ms := integer(),
    asked_ms := integer() | answered,   % since when it owes us a word
    rtt_us := non_neg_integer(),    % 0 = not measured yet
    mbit := non_neg_integer(),      % from here to there; 0 = not measured yet
    path => direct | relayed | unknown  % what the finder says of it, as the table shows it
}.
%% That somebody has such a body of a node, under such an identity.
-type hint() :: {node(), identity(), BodyHash :: non_neg_integer()}.
-type verdict() ::
    changed                 % a new member, or a new body
    | advanced              % alive, nothing new
    | wanted                % (of a hint) there is a body that we do not have
    | known                 % not later than what we have
    | {stale, identity()}   % below what we know: its node has to rise above this
    | {outrun, identity()}  % a report of ourselves that we have not written
    | full.                 % a stranger, and no room

-record(member, {
    report :: report(),
    hash :: non_neg_integer(),  % of its body
    %% The highest identity seen of it: above the report's while we lack its latest body.
    seen :: identity(),
    advanced_ms :: integer()    % when that last rose, on my clock
}).
-record(?MODULE, {
    own :: report(),
    own_hash :: non_neg_integer(),
    limits :: #{atom() => term()},
    looked_ms :: integer(),     % last judgement; a long gap means that it was I who slept
    members = #{} :: #{node() => #member{}},
    links = #{} :: #{node() => link()},   % absent = down
    %% What somebody who left has left behind: no report at or below it makes him a member again.
    floors = #{} :: #{node() => identity()}
}).
-opaque state() :: #?MODULE{}.

-spec new(baguette_cluster_settings:settings(), report(), integer()) -> state().
new(Settings, Own, Now) ->
    Hash = baguette_cluster_report:hash(Own),
    #?MODULE{own = Own, own_hash = Hash, limits = Settings, looked_ms = Now}.

-spec own(state()) -> report().
own(#?MODULE{own = Own}) -> Own.

-spec own_hash(state()) -> non_neg_integer().
own_hash(#?MODULE{own_hash = Hash}) -> Hash.

-spec set_own(report(), state()) -> state().
set_own(New, #?MODULE{own = Old} = S) ->
    case baguette_cluster_report:same_body(New, Old) of
        true -> S#?MODULE{own = New};
        false -> S#?MODULE{own = New, own_hash = baguette_cluster_report:hash(New)}
    end.

%% Reports ---------------------------------------------------------------------------------------

%% @doc Takes in a report, from whomever it came.
-spec merge(report(), integer(), state()) -> {verdict(), [event()], state()}.
merge(Report, Now, #?MODULE{own = Own, members = Members, floors = Floors} = S) ->
    Node = baguette_cluster_report:node(Report),
    Id = identity(Report),
    case {baguette_cluster_report:node(Own), Members, Floors} of
        {Node, _, _} -> {about_us(Id, Own), [], S};
        {_, #{Node := Member}, _} -> merge_known(Node, Report, Member, Now, S);
        {_, _, #{Node := Floor}} when Id =< Floor -> {{stale, Floor}, [], S};
        _ -> admit(Node, Report, Now, S)
    end.

about_us(Id, Own) ->
    case Id > baguette_cluster_report:identity(Own) of
        true -> {outrun, Id};
        false -> known
    end.

merge_known(Node, Report, #member{report = Old} = Member, Now, S) ->
    Id = identity(Report),
    case baguette_cluster_report:newest(Report, Old) of
        Old ->
            {older(Id, identity(Old)), [], S};
        Report ->
            Verdict = case baguette_cluster_report:same_body(Report, Old) of
                true -> advanced;
                false -> changed
            end,
            Hash = baguette_cluster_report:hash(Report),
            {Verdict, [], put(Node, seen(Id, Now, Member#member{report = Report, hash = Hash}), S)}
    end.

%% A body may come after its identity was seen: that is no news of its node.
seen(Id, Now, #member{seen = Before} = Member) when Id > Before ->
    Member#member{seen = Id, advanced_ms = Now};
seen(_Id, _Now, Member) ->
    Member.

put(Node, Member, #?MODULE{members = Members} = S) ->
    S#?MODULE{members = Members#{Node => Member}}.

identity(Report) -> baguette_cluster_report:identity(Report).

older({Incarnation, _}, {Known, _} = Id) when Incarnation < Known -> {stale, Id};
older(_, _) -> known.

admit(Node, Report, Now, #?MODULE{floors = Floors} = S) ->
    case has_room(S) of
        true ->
            Member = #member{
                report = Report,
                hash = baguette_cluster_report:hash(Report),
                seen = identity(Report),
                advanced_ms = Now
            },
            Admitted = put(Node, Member, S#?MODULE{floors = maps:remove(Node, Floors)}),
            {changed, [{member, Node, joined}], Admitted};
        false ->
            {full, [], S}
    end.

has_room(#?MODULE{members = Members, limits = #{max_peers := Max}}) ->
    maps:size(Members) < Max.

%% @doc Takes in that a node's report has such an identity and such a body. With the body known,
%% that is as good as the report; otherwise it shows that the node lives, and the body is `wanted'.
-spec hint(hint(), integer(), state()) -> {verdict(), state()}.
hint({Node, Id, Hash}, Now, #?MODULE{own = Own, members = Members, floors = Floors} = S) ->
    case {baguette_cluster_report:node(Own), Members, Floors} of
        {Node, _, _} ->
            {about_us(Id, Own), S};
        {_, #{Node := Member}, _} ->
            {Verdict, Next} = hint_known(Id, Hash, Now, Member),
            {Verdict, put(Node, Next, S)};
        {_, _, #{Node := Floor}} when Id =< Floor ->
            {{stale, Floor}, S};
        _ ->
            {case has_room(S) of true -> wanted; false -> full end, S}
    end.

hint_known(Id, Hash, Now, #member{report = Report, hash = Known} = Member) ->
    case {Id > identity(Report), Id =:= identity(Report)} of
        {true, _} when Hash =:= Known ->
            Advanced = Member#member{report = baguette_cluster_report:at(Id, Report)},
            {advanced, seen(Id, Now, Advanced)};
        {true, _} ->
            {wanted, seen(Id, Now, Member)};
        {false, true} when Hash =/= Known ->
            {wanted, Member};
        _ ->
            {older(Id, identity(Report)), Member}
    end.

%% @doc A node said that this incarnation of it is over. A goodbye said over an own, later
%% incarnation is answered like any report about ourselves.
-spec goodbye({node(), pos_integer()}, state()) -> {verdict(), [event()], state()}.
goodbye({Node, Incarnation}, #?MODULE{own = Own, members = Members} = S) ->
    Id = {Incarnation, gone},
    case {baguette_cluster_report:node(Own), Members} of
        {Node, _} ->
            {about_us(Id, Own), [], S};
        {_, #{Node := #member{seen = Seen}}} ->
            case Seen < Id of
                true -> {changed, [{member, Node, gone}], remove(Node, Id, S)};
                false -> {known, [], S}
            end;
        _ ->
            {known, [], remove(Node, Id, S)}
    end.

%% Floors are few and small, but a network may have many strangers: the oldest fall first.
remove(Node, Id, #?MODULE{members = Members, floors = Floors, limits = Limits} = S) ->
    Higher = max(Id, maps:get(Node, Floors, Id)),
    Room = 4 * maps:get(max_peers, Limits),
    ByAge = lists:reverse(lists:keysort(2, maps:to_list(Floors#{Node => Higher}))),
    S#?MODULE{
        members = maps:remove(Node, Members),
        floors = maps:from_list(lists:sublist(ByAge, Room))
    }.

-spec restore_floors([{node(), identity()}], state()) -> state().
restore_floors(Floors, S) ->
    S#?MODULE{floors = maps:from_list(Floors)}.

%% Links -----------------------------------------------------------------------------------------

%% @doc Whoever is linked anew is asked at once.
-spec link_up(node(), integer(), state()) -> {[event()], state()}.
link_up(Node, Now, #?MODULE{links = Links} = S) when not is_map_key(Node, Links) ->
    Link = #{state => up, heard_ms => Now, asked_ms => Now, rtt_us => 0, mbit => 0},
    {[{link, Node, up}], S#?MODULE{links = Links#{Node => Link}}};
link_up(_Node, _Now, S) ->
    {[], S}.

-spec link_down(node(), state()) -> {[event()], state()}.
link_down(Node, #?MODULE{links = Links} = S) when is_map_key(Node, Links) ->
    {[{link, Node, down}], S#?MODULE{links = maps:remove(Node, Links)}};
link_down(_Node, S) ->
    {[], S}.

%% @doc These were sent what a node answers at once; those who owe us a word already do so since
%% before.
-spec asked([node()], SinceMs :: integer(), state()) -> state().
asked(Nodes, Since, #?MODULE{links = Links} = S) ->
    Owing = maps:map(fun(_, Link) -> owing(Since, Link) end, maps:with(Nodes, Links)),
    S#?MODULE{links = maps:merge(Links, Owing)}.

owing(Since, #{asked_ms := answered} = Link) -> Link#{asked_ms := Since};
owing(_Since, Link) -> Link.

%% @doc Something came over the link itself (not by way of a third node).
-spec heard(node(), integer(), state()) -> {[event()], state()}.
heard(Node, Now, #?MODULE{links = Links} = S) ->
    case Links of
        #{Node := #{state := State} = Link} ->
            Up = Link#{state := up, heard_ms := Now, asked_ms := answered},
            {[{link, Node, up} || State =:= suspect], S#?MODULE{links = Links#{Node := Up}}};
        _ ->
            {[], S}
    end.

%% @doc A measured round trip, smoothed: one hiccup is no reason to ask somebody else. It falls
%% faster than it rises, and at once where what was known is over twice as much: the first is
%% measured while both nodes start, and nobody would ask whoever seems that far. One longer than
%% suspect_ms measures how long somebody was frozen, and not the way.
-spec round_trip(node(), non_neg_integer(), state()) -> state().
round_trip(_Node, Us, #?MODULE{limits = #{suspect_ms := SuspectMs}} = S) when
    Us > SuspectMs * 1000
->
    S;
round_trip(Node, Us, #?MODULE{links = Links} = S) ->
    case Links of
        #{Node := #{rtt_us := Old} = Link} ->
            S#?MODULE{links = Links#{Node := Link#{rtt_us := smoothed(Us, Old)}}};
        _ ->
            S
    end.

smoothed(Us, 0) -> Us;
smoothed(Us, Old) when Us < Old div 2 -> Us;
smoothed(Us, Old) when Us < Old -> (Old + Us) div 2;
smoothed(Us, Old) -> (7 * Old + Us) div 8.

%% @doc What one link carries, as its other end measured it.
-spec throughput(node(), non_neg_integer(), state()) -> state().
throughput(Node, Mbit, #?MODULE{links = Links} = S) ->
    case Links of
        #{Node := Link} -> S#?MODULE{links = Links#{Node := Link#{mbit := Mbit}}};
        _ -> S
    end.

%% Judging ---------------------------------------------------------------------------------------

%% @doc How often judge/2 wants to be called: so late at most is what it says.
-spec look_ms(baguette_cluster_settings:settings()) -> pos_integer().
look_ms(#{beat_ms := Beat}) -> max(1, Beat div 5).

%% @doc Time in which we did not run ourselves is held against nobody: a look that comes late, on a
%% machine with too much to do, puts off every deadline by as much. Who was late by more than
%% suspect_ms was frozen: all deadlines start afresh.
-spec judge(integer(), state()) -> {[event()], state()}.
judge(Now, #?MODULE{looked_ms = Looked, limits = #{suspect_ms := SuspectMs} = Limits} = S) ->
    case Now - Looked - 2 * look_ms(Limits) of
        Late when Late > SuspectMs -> {[], put_off(fun(_) -> Now end, Now, S)};
        Late when Late > 0 -> judge_each(Now, put_off(fun(T) -> min(Now, T + Late) end, Now, S));
        _ -> judge_each(Now, S#?MODULE{looked_ms = Now})
    end.

put_off(To, Now, #?MODULE{members = Members, links = Links} = S) ->
    S#?MODULE{
        looked_ms = Now,
        members = maps:map(fun(_, #member{advanced_ms = T} = M) ->
            M#member{advanced_ms = To(T)}
        end, Members),
        links = maps:map(fun(_, Link) -> link_put_off(To, Link) end, Links)
    }.

link_put_off(To, #{heard_ms := Heard, asked_ms := answered} = Link) ->
    Link#{heard_ms := To(Heard)};
link_put_off(To, #{heard_ms := Heard, asked_ms := Asked} = Link) ->
    Link#{heard_ms := To(Heard), asked_ms := To(Asked)}.

judge_each(Now, #?MODULE{members = Members, links = Links, limits = Limits} = S) ->
    #{gone_ms := GoneMs} = Limits,
    Silent = [N || {N, #{state := up} = L} <- maps:to_list(Links), is_silent(Now, L, Limits)],
    Gone = [N || {N, #member{advanced_ms = T}} <- maps:to_list(Members), Now - T > GoneMs],
    Suspected = lists:foldl(fun suspect/2, S, Silent),
    {
        [{link, N, suspect} || N <- Silent] ++ [{member, N, gone} || N <- Gone],
        lists:foldl(fun bury/2, Suspected, Gone)
    }.

%% Who was not asked has nothing to say.
is_silent(_Now, #{asked_ms := answered}, _Limits) ->
    false;
is_silent(Now, #{heard_ms := Heard, asked_ms := Asked}, #{suspect_ms := SuspectMs}) ->
    Now - max(Heard, Asked) > SuspectMs.

suspect(Node, #?MODULE{links = Links} = S) ->
    S#?MODULE{links = maps:update_with(Node, fun(L) -> L#{state := suspect} end, Links)}.

bury(Node, #?MODULE{members = Members} = S) ->
    #{Node := #member{seen = Seen}} = Members,
    remove(Node, Seen, S).

%% Looking ---------------------------------------------------------------------------------------

%% @doc Everybody in the cluster with the time of the last advance, ourselves included.
-spec members(state()) -> [{report(), AdvancedMs :: integer() | self}].
members(#?MODULE{own = Own, members = Members}) ->
    [{Own, self} | [{R, T} || #member{report = R, advanced_ms = T} <- maps:values(Members)]].

%% @doc The hash of every member's body, ours included.
-spec hashes(state()) -> #{node() => non_neg_integer()}.
hashes(#?MODULE{own = Own, own_hash = Hash, members = Members}) ->
    Others = maps:map(fun(_, #member{hash = H}) -> H end, Members),
    Others#{baguette_cluster_report:node(Own) => Hash}.

%% @doc The reports of those among the given nodes that are known.
-spec bodies([node()], state()) -> [report()].
bodies(Nodes, S) ->
    Wanted = maps:from_keys(Nodes, wanted),
    [R || {R, _} <- members(S), is_map_key(baguette_cluster_report:node(R), Wanted)].

%% @doc Which bodies of others we have.
-spec hints(state()) -> [hint()].
hints(#?MODULE{members = Members}) ->
    [{N, identity(R), H} || {N, #member{report = R, hash = H}} <- maps:to_list(Members)].

-spec links(state()) -> #{node() => link()}.
links(#?MODULE{links = Links}) -> Links.

-spec is_linked(node(), state()) -> boolean().
is_linked(Node, #?MODULE{links = Links}) -> is_map_key(Node, Links).

-spec floors(state()) -> #{node() => identity()}.
floors(#?MODULE{floors = Floors}) -> Floors.

%% @doc Goodbyes travel; our own judgement that somebody is gone does not: a node cut off from all
%% the others would otherwise bring its verdict on them back with it.
-spec goodbyes(state()) -> [{node(), pos_integer()}].
goodbyes(#?MODULE{floors = Floors}) ->
    [{N, I} || {N, {I, gone}} <- maps:to_list(Floors)].
