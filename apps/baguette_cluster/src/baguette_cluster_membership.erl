%% @doc Who is a member, whom I may ask, who is gone: the judge, pure, with the clock as argument.
%% Three facts, never mixed: a link is *up* or down (the runtime says so), an up link is *suspect*
%% (nothing heard over it for suspect_ms), a member is *gone* (its report has not advanced, seen by
%% anyone, for gone_ms). Only gone, or a goodbye, ends a membership.
%% baguette_cluster_gossip performs what this decides. A node's own report lives here too; it is
%% never judged.
-module(baguette_cluster_membership).

-export([new/3, own/1, set_own/2]).
-export([merge/3, goodbye/2, link_up/3, link_down/2, heard/3, round_trip/3, judge/2]).
-export([members/1, links/1, floors/1, goodbyes/1, is_linked/2, restore_floors/2]).
-export_type([state/0, event/0, verdict/0, link/0]).

-type report() :: baguette_cluster_report:report().
-type identity() :: baguette_cluster_report:identity().
-type event() :: {link, node(), up | suspect | down} | {member, node(), joined | gone}.
-type link() :: #{state := up | suspect, heard_ms := integer(), rtt_us := non_neg_integer()}.
-type verdict() ::
    changed                 % a new member, or a new body
    | advanced              % alive, nothing new
    | known                 % not later than what we have
    | {stale, identity()}   % below what we know: its node has to rise above this
    | {outrun, identity()}  % a report of ourselves that we have not written
    | full.                 % a stranger, and no room

-record(member, {
    report :: report(),
    advanced_ms :: integer()    % when it last advanced, on my clock
}).
-record(?MODULE, {
    own :: report(),
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
    #?MODULE{own = Own, limits = Settings, looked_ms = Now}.

-spec own(state()) -> report().
own(#?MODULE{own = Own}) -> Own.

-spec set_own(report(), state()) -> state().
set_own(Own, S) -> S#?MODULE{own = Own}.

%% Reports ---------------------------------------------------------------------------------------

%% @doc Takes in a report, from whomever it came.
-spec merge(report(), integer(), state()) -> {verdict(), [event()], state()}.
merge(Report, Now, #?MODULE{own = Own, members = Members, floors = Floors} = S) ->
    Node = baguette_cluster_report:node(Report),
    Id = identity(Report),
    case {baguette_cluster_report:node(Own), Members, Floors} of
        {Node, _, _} -> {about_us(Id, Own), [], S};
        {_, #{Node := #member{report = Old}}, _} -> merge_known(Node, Report, Old, Now, S);
        {_, _, #{Node := Floor}} when Id =< Floor -> {{stale, Floor}, [], S};
        _ -> admit(Node, Report, Now, S)
    end.

about_us(Id, Own) ->
    case Id > baguette_cluster_report:identity(Own) of
        true -> {outrun, Id};
        false -> known
    end.

merge_known(Node, Report, Old, Now, #?MODULE{members = Members} = S) ->
    case baguette_cluster_report:newest(Report, Old) of
        Old ->
            {older(identity(Report), identity(Old)), [], S};
        Report ->
            Verdict = case baguette_cluster_report:same_body(Report, Old) of
                true -> advanced;
                false -> changed
            end,
            Member = #member{report = Report, advanced_ms = Now},
            {Verdict, [], S#?MODULE{members = Members#{Node := Member}}}
    end.

identity(Report) -> baguette_cluster_report:identity(Report).

older({Incarnation, _}, {Known, _} = Id) when Incarnation < Known -> {stale, Id};
older(_, _) -> known.

admit(Node, Report, Now, #?MODULE{members = Members, floors = Floors, limits = Limits} = S) ->
    case maps:size(Members) < maps:get(max_peers, Limits) of
        true ->
            {changed, [{member, Node, joined}], S#?MODULE{
                members = Members#{Node => #member{report = Report, advanced_ms = Now}},
                floors = maps:remove(Node, Floors)
            }};
        false ->
            {full, [], S}
    end.

%% @doc A node said that this incarnation of it is over. A goodbye said over an own, later
%% incarnation is answered like any report about ourselves.
-spec goodbye({node(), pos_integer()}, state()) -> {verdict(), [event()], state()}.
goodbye({Node, Incarnation}, #?MODULE{own = Own, members = Members} = S) ->
    Id = {Incarnation, gone},
    case {baguette_cluster_report:node(Own), Members} of
        {Node, _} ->
            {about_us(Id, Own), [], S};
        {_, #{Node := #member{report = Report}}} ->
            case baguette_cluster_report:identity(Report) < Id of
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

-spec link_up(node(), integer(), state()) -> {[event()], state()}.
link_up(Node, Now, #?MODULE{links = Links} = S) when not is_map_key(Node, Links) ->
    Link = #{state => up, heard_ms => Now, rtt_us => 0},
    {[{link, Node, up}], S#?MODULE{links = Links#{Node => Link}}};
link_up(_Node, _Now, S) ->
    {[], S}.

-spec link_down(node(), state()) -> {[event()], state()}.
link_down(Node, #?MODULE{links = Links} = S) when is_map_key(Node, Links) ->
    {[{link, Node, down}], S#?MODULE{links = maps:remove(Node, Links)}};
link_down(_Node, S) ->
    {[], S}.

%% @doc Something came over the link itself (not by way of a third node).
-spec heard(node(), integer(), state()) -> {[event()], state()}.
heard(Node, Now, #?MODULE{links = Links} = S) ->
    case Links of
        #{Node := #{state := State} = Link} ->
            Up = Link#{state := up, heard_ms := Now},
            {[{link, Node, up} || State =:= suspect], S#?MODULE{links = Links#{Node := Up}}};
        _ ->
            {[], S}
    end.

%% @doc A measured round trip, smoothed: one hiccup is no reason to ask somebody else. It falls
%% faster than it rises, since the first is measured while both nodes start.
-spec round_trip(node(), non_neg_integer(), state()) -> state().
round_trip(Node, Us, #?MODULE{links = Links} = S) ->
    case Links of
        #{Node := #{rtt_us := 0} = Link} -> S#?MODULE{links = Links#{Node := Link#{rtt_us := Us}}};
        #{Node := #{rtt_us := Old} = Link} when Us < Old ->
            S#?MODULE{links = Links#{Node := Link#{rtt_us := (Old + Us) div 2}}};
        #{Node := #{rtt_us := Old} = Link} ->
            S#?MODULE{links = Links#{Node := Link#{rtt_us := (7 * Old + Us) div 8}}};
        _ -> S
    end.

%% Judging ---------------------------------------------------------------------------------------

%% @doc Once a beat. Who finds his own beat late by more than suspect_ms was frozen himself: all
%% deadlines start afresh and nobody is judged on what was missed.
-spec judge(integer(), state()) -> {[event()], state()}.
judge(Now, #?MODULE{looked_ms = Looked, limits = #{beat_ms := Beat, suspect_ms := Late}} = S) when
    Now - Looked > Beat + Late
->
    Members = maps:map(fun(_, M) -> M#member{advanced_ms = Now} end, S#?MODULE.members),
    Links = maps:map(fun(_, L) -> L#{heard_ms := Now} end, S#?MODULE.links),
    {[], S#?MODULE{looked_ms = Now, members = Members, links = Links}};
judge(Now, #?MODULE{members = Members, links = Links} = S) ->
    #{suspect_ms := SuspectMs, gone_ms := GoneMs} = S#?MODULE.limits,
    Silent = [N || {N, #{state := up, heard_ms := T}} <- maps:to_list(Links), Now - T > SuspectMs],
    Gone = [N || {N, #member{advanced_ms = T}} <- maps:to_list(Members), Now - T > GoneMs],
    Suspected = lists:foldl(fun suspect/2, S#?MODULE{looked_ms = Now}, Silent),
    {
        [{link, N, suspect} || N <- Silent] ++ [{member, N, gone} || N <- Gone],
        lists:foldl(fun bury/2, Suspected, Gone)
    }.

suspect(Node, #?MODULE{links = Links} = S) ->
    S#?MODULE{links = maps:update_with(Node, fun(L) -> L#{state := suspect} end, Links)}.

bury(Node, #?MODULE{members = Members} = S) ->
    #{Node := #member{report = Report}} = Members,
    remove(Node, baguette_cluster_report:identity(Report), S).

%% Looking ---------------------------------------------------------------------------------------

%% @doc Everybody in the cluster with the time of the last advance, ourselves included.
-spec members(state()) -> [{report(), AdvancedMs :: integer() | self}].
members(#?MODULE{own = Own, members = Members}) ->
    [{Own, self} | [{R, T} || #member{report = R, advanced_ms = T} <- maps:values(Members)]].

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
