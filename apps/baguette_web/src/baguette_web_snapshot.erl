%% @doc The cluster as one node sees it, as the value that the dashboard draws. Pure; called by
%% baguette_web_stream with what the doors of engine and cluster say and what other nodes told of
%% themselves (baguette_web_remote_v1).
%%
%% What comes from peers is taken in its own shape and range only: a number, or a short text.
%% Times in it are absolute, so that a cluster where nothing happens is an equal value, and need not
%% be sent again.
-module(baguette_web_snapshot).

-export([build/1, essence/1, figures/1, links/2, links_essence/1, since/3]).
-export_type([view/0, since/0]).

-type since() :: #{{node(), Component :: binary()} => {State :: atom(), At :: number()}}.
-type view() :: #{
    at := number(),
    node := node(),
    port := inet:port_number(),
    nodes := [map()],                % baguette_cluster:nodes/0
    experts := [map()],              % baguette_engine:experts/0
    model := {ok, map()} | {error, term()},
    down := [baguette_web_reason:reason()],
    degraded := [baguette_web_reason:reason()],
    load := map() | null,            % baguette_web_jobs:load/0
    calls := [map()],                % baguette_engine:calls/0
    looks := #{node() => map()},     % what nodes told of themselves
    since := since()
}.

-define(MAX_TEXT, 120).
-define(FIGURES, [memory, utilisation, temperature_c, power_w, calls]).

%% @doc All but the links.
-spec build(view()) -> map().
build(#{node := Node, nodes := Nodes, experts := Experts} = View) ->
    #{
        node => baguette_web_json:address(Node),
        model => model(maps:get(model, View)),
        health => health(View),
        nodes => [node_card(N, View) || N <- Nodes],
        experts => [
            #{expert => E, holders => [baguette_web_json:address(H) || H <- lists:sort(Holders)]}
         || #{expert := E, holders := Holders} <- Experts
        ],
        queue => maps:get(load, View)
    }.

%% @doc What must be told at once when it changes: all but what always does.
-spec essence(map()) -> map().
essence(#{nodes := Cards} = Snapshot) ->
    Snapshot#{nodes := [maps:without(?FIGURES, Card) || Card <- Cards]}.

%% @doc What always changes: how busy each node is and how fast it answers, by node.
-spec figures(map()) -> [map()].
figures(#{nodes := Cards}) ->
    [maps:with([node | ?FIGURES], Card) || Card <- Cards].

%% @doc Who can ask whom: a row for each of these nodes, of baguette_cluster:links/0.
-spec links([node()], [map()]) -> [map()].
links(Nodes, Links) ->
    From = maps:groups_from_list(fun(#{from := Node}) -> Node end, Links),
    [row(Node, maps:get(Node, From, [])) || Node <- Nodes].

%% @doc Of that, what must be told at once: all but how far they are from each other.
-spec links_essence([map()]) -> [map()].
links_essence(Rows) ->
    [
        Row#{to := [maps:without([rtt_ms, mbit], Link) || Link <- Links]}
     || #{to := Links} = Row <- Rows
    ].

%% @doc When each component's state was first seen to be what it is.
-spec since([map()], since(), number()) -> since().
since(Nodes, Before, Now) ->
    maps:from_list([
        {{Node, Component}, kept(State, maps:get({Node, Component}, Before, none), Now)}
     || #{node := Node, report := #{states := States}} <- Nodes,
        {Component, State} <- maps:to_list(States)
    ]).

kept(State, {State, At}, _Now) -> {State, At};
kept(State, _, Now) -> {State, Now}.

%% --- the whole

model({ok, #{name := Name} = Model}) ->
    maps:merge(#{name => text(Name)}, maps:with([defaults, example_prompt], Model));
model({error, _}) ->
    null.

%% That an expert is missing is told once, with what is known of it.
health(#{down := Down, degraded := Degraded}) ->
    Others = [
        Reason
     || #{name := Name} = Reason <- Degraded, Down =:= [] orelse Name =/= components_without_holder
    ],
    #{state => baguette_web_view:state(Down, Degraded), reasons => Down ++ Others}.

%% --- a node's card

node_card(#{node := Node, report := Report} = Info, #{looks := Looks} = View) ->
    Extra = maps:get(extra, Report, #{}),
    Look = maps:get(Node, Looks, #{}),
    maps:merge(device(Extra, Report), #{
        node => baguette_web_json:address(Node),
        name => text(maps:get(name, Info, <<>>)),
        self => maps:get(self, Info, false),
        link => maps:get(link, Info, down),
        leaving => maps:get(leaving, Info, false),
        path => maps:get(path, Info, unknown),
        url => url(Node, maps:get(port, View)),
        experts => held(Info, View),
        calls => calls(baguette_web_json:address(Node), maps:get(calls, View)),
        workers => [
            #{kind => text(Kind), state => text(State), deaths => number(Deaths)}
         || #{kind := Kind, state := State, deaths := Deaths} <- list(maps:get(workers, Look, []))
        ],
        mismatch => mismatch(Info, View)
    }).

device(Extra, Report) ->
    Now = map(maps:get(device_now, Extra, #{})),
    Hardware = map(maps:get(hardware, Extra, #{})),
    #{
        device => device_name([
            maps:get(name, Now, none), maps:get(gpu, Hardware, none), maps:get(cpu, Hardware, none)
        ]),
        memory => memory(Now, Hardware, Report),
        utilisation => number(maps:get(utilisation, Now, undefined)),
        temperature_c => number(maps:get(temperature_c, Now, undefined)),
        power_w => number(maps:get(power_w, Now, undefined))
    }.

device_name(Names) ->
    case [Text || Name <- Names, Text <- [text(Name)], Text =/= null, Text =/= <<>>] of
        [First | _] -> First;
        [] -> null
    end.

%% What the device says of itself; until it does, what its experts take of the room for them.
memory(#{memory_mib := Total, used_mib := Used}, _, _) when is_number(Total), is_number(Used) ->
    #{used_mib => Used, total_mib => Total, about => device};
memory(_, _, #{memory_mib := Room, components := Items, states := States}) ->
    Used = [
        Mib
     || #{component := C, size_mib := Mib} <- Items,
        State <- [maps:get(C, States, idle)], State =/= idle, State =/= failed
    ],
    #{used_mib => lists:sum(Used), total_mib => max(Room, lists:sum(Used)), about => experts}.

held(#{node := Node, report := #{states := States}}, #{experts := Experts, since := Since}) ->
    [
        #{expert => Number, state => State, since => at(maps:get({Node, C}, Since, none))}
     || #{expert := Number, component := C} <- Experts,
        State <- [maps:get(C, States, idle)], State =/= idle
    ].

at({_, At}) -> At;
at(none) -> null.

calls(Address, Calls) ->
    [
        #{
            expert => Expert, count => number(Count), p50_ms => number(P50), p95_ms => number(P95)
        }
     || #{expert := Expert, node := N, count := Count, p50_ms := P50, p95_ms := P95} <- Calls,
        called(N) =:= Address
    ].

called(Node) when is_atom(Node) -> baguette_web_json:address(Node);
called(Address) -> Address.

%% Components that this node has in another version than most have.
mismatch(#{report := #{components := Items}}, #{nodes := Nodes, experts := Experts}) ->
    [
        number_of(C, Experts)
     || #{component := C, key := Key} <- Items, Key =/= most_common(C, Nodes)
    ].

number_of(Component, Experts) ->
    case [E || #{component := C, expert := E} <- Experts, C =:= Component] of
        [Expert] -> <<"expert ", (integer_to_binary(Expert))/binary>>;
        [] -> text(Component)
    end.

most_common(Component, Nodes) ->
    Keys = [
        Key
     || #{report := #{components := Items}} <- Nodes,
        #{component := C, key := Key} <- Items, C =:= Component
    ],
    Counted = [{length([K || K <- Keys, K =:= Key]), Key} || Key <- lists:usort(Keys)],
    {_, Most} = lists:max(Counted),
    Most.

%% All nodes of a cluster answer HTTP on the same port.
url(Node, Port) ->
    iolist_to_binary(["http://", baguette_web_json:address(Node), $:, integer_to_list(Port)]).

%% --- links

%% Whom each node can ask, as it says itself: nothing is known of the silent.
row(Node, Links) ->
    #{
        from => baguette_web_json:address(Node),
        to => [link_of(Link) || Link <- Links]
    }.

link_of(#{to := To, state := State, path := Path, rtt_us := Us, mbit := Mbit}) ->
    #{
        node => baguette_web_json:address(To), link => text(State), path => text(Path),
        rtt_ms => trip(Us), mbit => number(Mbit)
    }.

%% Two digits: the third changes with every beat and says nothing.
trip(Us) when is_integer(Us), Us > 0 ->
    Unit = power(length(integer_to_list(Us)) - 2),
    round(Us / Unit) * Unit / 1000;
trip(_) ->
    null.

power(N) when N > 0 -> 10 * power(N - 1);
power(_) -> 1.

%% --- what peers say

number(N) when is_number(N) -> N;
number(_) -> null.

text(Atom) when is_atom(Atom), Atom =/= none, Atom =/= undefined -> atom_to_binary(Atom);
text(Bin) when is_binary(Bin) ->
    case unicode:characters_to_list(binary:part(Bin, 0, min(byte_size(Bin), 4 * ?MAX_TEXT))) of
        Text when is_list(Text) ->
            unicode:characters_to_binary(string:slice(Text, 0, ?MAX_TEXT));
        _ ->
            null
    end;
text(_) -> null.

map(Value) when is_map(Value) -> Value;
map(_) -> #{}.

list(Value) when is_list(Value) -> lists:filter(fun is_map/1, Value);
list(_) -> [].
