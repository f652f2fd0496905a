%% @doc A node's line about itself: what every other node knows of it. Pure, opaque, versioned;
%% integers only where something is computed from it, so that every node computes the same.
%% A report is known by its identity {Incarnation, Counter}: the higher one wins. A report from the
%% network enters by check/1 and in no other way. Fields of a next version ride along untouched.
-module(baguette_cluster_report).

-export([new/2, next/1, reborn/2, at/2, set/3, check/1]).
-export([identity/1, node/1, newest/2, same_body/2, hash/1, to_map/1]).
-export([items/1, states/1, state/2, held/1, memory_mib/1, plan_hash/1, extra/1]).
%% Facts in extra: optional, and whatever stands there is believed only in its own shape and range
-export([call_us/2, slowest_us/1, measured_us/1, load_us_per_mib/1, measured_load_us/1, usage/1]).
-export([distance_us/1, leaving/1]).
-export([letting_go/1, promises/1]).
-export_type([report/0, identity/0, field/0]).

-define(VERSION, 1).
-define(MAX_BYTES, 1 bsl 18).
-define(MAX_EXTRA_KEYS, 16).
-define(MAX_EXTRA_BYTES, 16384).
-define(DEFAULT_CALL_US, 1000).
-define(DEFAULT_LOAD_US_PER_MIB, 5000).
-define(MAX_US, 1000000000).
-define(MAX_USAGES, 256).
-define(MAX_PROMISES, 64).

%% Numbers sort before atoms, so {I, gone} - said by the node itself when it leaves - is above
%% every report of that incarnation and below the next one's first.
-type identity() :: {Incarnation :: pos_integer(), Counter :: non_neg_integer() | gone}.
-type field() :: components | memory_mib | plan_hash | extra.
-opaque report() :: #{
    v := pos_integer(),
    node := node(),
    id := identity(),
    memory_mib := non_neg_integer(),
    %% Everything on the node's disk; what it holds of that is in the states.
    components := [baguette_cluster_component:item()],
    states := #{baguette_cluster_component:component() => baguette_cluster_component:state()},
    plan_hash := non_neg_integer(),
    extra := #{atom() => term()},
    atom() => term()
}.

-spec new(node(), pos_integer()) -> report().
new(Node, Incarnation) ->
    #{
        v => ?VERSION,
        node => Node,
        id => {Incarnation, 0},
        memory_mib => 0,
        components => [],
        states => #{},
        plan_hash => 0,
        extra => #{}
    }.

%% @doc The same body under the next identity: what a beat sends.
-spec next(report()) -> report().
next(#{id := {Incarnation, Counter}} = Report) ->
    Report#{id := {Incarnation, Counter + 1}}.

%% @doc The same body above an identity that others hold against us (our clock went back).
-spec reborn(report(), identity()) -> report().
reborn(#{id := {Own, _}} = Report, {Known, _}) ->
    Report#{id := {max(Own, Known) + 1, 0}}.

%% @doc The same body under an identity at which its node still had it.
-spec at(identity(), report()) -> report().
at(Id, Report) ->
    Report#{id := Id}.

-spec set(components | states | memory_mib | plan_hash | extra, term(), report()) -> report().
set(Field, Value, Report) ->
    maps:update(Field, Value, Report).

-spec identity(report()) -> identity().
identity(#{id := Id}) -> Id.

-spec node(report()) -> node().
node(#{node := Node}) -> Node.

%% @doc Of two reports of one node the later; equal identities are settled by term order, so that
%% the answer does not depend on who came first.
-spec newest(report(), report()) -> report().
newest(#{id := A} = Report, #{id := B}) when A > B -> Report;
newest(#{id := A}, #{id := B} = Report) when A < B -> Report;
newest(A, B) -> max(A, B).

-spec same_body(report(), report()) -> boolean().
same_body(A, B) ->
    maps:remove(id, A) =:= maps:remove(id, B).

%% @doc Names a body without sending or reading it. phash2 is the same on every release and machine;
%% 32 bits, since one change in four thousand million that it hides ends with the next.
-spec hash(report()) -> non_neg_integer().
hash(Report) ->
    erlang:phash2(maps:remove(id, Report), 1 bsl 32).

-spec to_map(report()) -> map().
to_map(Report) -> Report.

-spec items(report()) -> [baguette_cluster_component:item()].
items(#{components := Items}) -> Items.

-spec states(report()) ->
    #{baguette_cluster_component:component() => baguette_cluster_component:state()}.
states(#{states := States}) -> States.

-spec state(baguette_cluster_component:component(), report()) -> baguette_cluster_component:state().
state(Component, #{states := States}) ->
    maps:get(Component, States, idle).

%% @doc What counts as held when plans are made: also what is on its way or coming back.
-spec held(report()) -> [baguette_cluster_component:component()].
held(#{components := Items, states := States}) ->
    [C || #{component := C} <- Items, counts_as_held(maps:get(C, States, idle))].

counts_as_held(ready) -> true;
counts_as_held(loading) -> true;
counts_as_held(restarting) -> true;
counts_as_held(_) -> false.

-spec memory_mib(report()) -> non_neg_integer().
memory_mib(#{memory_mib := Mib}) -> Mib.

-spec plan_hash(report()) -> non_neg_integer().
plan_hash(#{plan_hash := Hash}) -> Hash.

-spec extra(report()) -> #{atom() => term()}.
extra(#{extra := Extra}) -> Extra.

%% @doc Microseconds this node takes for one call, as it published them. Who has not measured itself
%% yet counts as no faster than the slowest who has (slowest_us/1): nothing is moved, and nobody
%% asked, for a hope. A newcomer that took a general guess would seem a thousand times faster than a
%% CPU. Where nobody has, a guess.
-spec call_us(report(), Slowest :: non_neg_integer()) -> pos_integer().
call_us(Report, Slowest) ->
    case measured_us(Report) of
        {ok, Us} -> Us;
        unknown when Slowest > 0 -> Slowest;
        unknown -> ?DEFAULT_CALL_US
    end.

%% @doc Of those who have measured themselves the slowest; 0 where nobody has.
-spec slowest_us([report()]) -> non_neg_integer().
slowest_us(Reports) ->
    lists:max([0 | [Us || R <- Reports, {ok, Us} <- [measured_us(R)]]]).

%% @doc The same only where it was measured.
-spec measured_us(report()) -> {ok, pos_integer()} | unknown.
measured_us(#{extra := #{call_us := Us}}) when is_integer(Us), Us > 0, Us < ?MAX_US -> {ok, Us};
measured_us(_) -> unknown.

%% @doc Microseconds to load one MiB of a component from this node's disk.
-spec load_us_per_mib(report()) -> pos_integer().
load_us_per_mib(Report) ->
    case measured_load_us(Report) of
        {ok, Us} -> Us;
        unknown -> ?DEFAULT_LOAD_US_PER_MIB
    end.

%% @doc The same only where it was measured.
-spec measured_load_us(report()) -> {ok, pos_integer()} | unknown.
measured_load_us(#{extra := #{load_us_per_mib := Us}}) when is_integer(Us), Us > 0, Us < ?MAX_US ->
    {ok, Us};
measured_load_us(_) ->
    unknown.

%% @doc What this node asks for, per mille of its own asks. Nothing known: empty.
-spec usage(report()) -> #{baguette_cluster_component:component() => 0..1000}.
usage(#{extra := #{usage := Usage}}) when is_map(Usage), map_size(Usage) =< ?MAX_USAGES ->
    maps:filter(
        fun(C, N) -> is_binary(C) andalso is_integer(N) andalso N >= 0 andalso N =< 1000 end,
        Usage);
usage(_) ->
    #{}.

%% @doc The round trip between this node and its peers, as it published it; 0 while unknown or near.
-spec distance_us(report()) -> non_neg_integer().
distance_us(#{extra := #{distance_us := Us}}) when is_integer(Us), Us >= 0, Us < ?MAX_US -> Us;
distance_us(_) -> 0.

%% @doc Whether the node drains: it gets nothing more, and gives away what it holds.
-spec leaving(report()) -> boolean().
leaving(#{extra := #{leaving := true}}) -> true;
leaving(_) -> false.

%% @doc What this node would unload if somebody promised to keep it; the number tells one such wish
%% from the next.
-spec letting_go(report()) -> [{baguette_cluster_component:component(), integer()}].
letting_go(#{extra := #{letting_go := Wishes}}) when is_list(Wishes) ->
    some(fun({C, Serial}) -> is_binary(C) andalso is_integer(Serial); (_) -> false end, Wishes);
letting_go(_) ->
    [].

%% @doc To whom this node has promised to keep what, and for which wish of theirs.
-spec promises(report()) -> [{node(), baguette_cluster_component:component(), integer()}].
promises(#{extra := #{promises := Promises}}) when is_list(Promises) ->
    some(
        fun
            ({N, C, Serial}) -> is_atom(N) andalso is_binary(C) andalso is_integer(Serial);
            (_) -> false
        end,
        Promises);
promises(_) ->
    [].

%% The good ones among the first few, of a list that may be no proper one.
some(IsGood, List) -> some(IsGood, List, ?MAX_PROMISES).

some(IsGood, [Entry | Rest], Left) when Left > 0 ->
    [Entry || IsGood(Entry)] ++ some(IsGood, Rest, Left - 1);
some(_IsGood, _EndOrTooMany, _Left) ->
    [].

%% @doc A term from the network, or from our own hands, is a report only if this says so.
-spec check(term()) -> {ok, report()} | {error, atom()}.
check(#{v := V, node := Node, id := Id, memory_mib := Mib, components := Items, states := States,
        plan_hash := Hash, extra := Extra} = Report) ->
    first_false([
        {version, fun() -> is_integer(V) andalso V >= 1 end},
        {too_large, fun() -> erlang:external_size(Report) =< ?MAX_BYTES end},
        {node, fun() -> is_atom(Node) end},
        {identity, fun() -> is_identity(Id) end},
        {memory_mib, fun() -> is_integer(Mib) andalso Mib >= 0 andalso Mib < 1 bsl 40 end},
        {components, fun() -> baguette_cluster_component:check(Items) =:= ok end},
        {states, fun() -> are_states(States, Items) end},
        {plan_hash, fun() -> is_integer(Hash) andalso Hash >= 0 andalso Hash < 1 bsl 64 end},
        {extra, fun() -> is_extra(Extra) end}
    ], Report);
check(_) ->
    {error, shape}.

first_false([], Report) -> {ok, Report};
first_false([{Field, Holds} | Rest], Report) ->
    case Holds() of
        true -> first_false(Rest, Report);
        false -> {error, Field}
    end.

is_identity({Incarnation, Counter}) when
    is_integer(Incarnation), Incarnation > 0, Incarnation < 1 bsl 64,
    is_integer(Counter), Counter >= 0, Counter < 1 bsl 64
-> true;
is_identity(_) -> false.

are_states(States, Items) when is_map(States), map_size(States) =< length(Items) ->
    Names = [C || #{component := C} <- Items],
    maps:keys(States) -- Names =:= [] andalso lists:all(fun is_state/1, maps:values(States));
are_states(_, _) ->
    false.

is_state(State) ->
    lists:member(State, [idle, loading, ready, restarting, failed]).

is_extra(Extra) ->
    is_map(Extra) andalso map_size(Extra) =< ?MAX_EXTRA_KEYS andalso
        lists:all(fun is_atom/1, maps:keys(Extra)) andalso
        erlang:external_size(Extra) =< ?MAX_EXTRA_BYTES.
