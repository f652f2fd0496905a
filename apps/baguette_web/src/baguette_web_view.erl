%% @doc What the doors below tell, as values for jiffy. Pure; called by the handlers and by the
%% dashboard's stream. docs/API.md lists the fields.
-module(baguette_web_view).

-export([cluster/1, models/1, state/2]).

-type facts() :: #{
    node := node(),
    model := {ok, map()} | {error, term()},
    down := [baguette_web_reason:reason()],
    degraded := [baguette_web_reason:reason()],
    overview := map(),    % baguette_cluster:overview()
    nodes := [map()],
    experts := [map()],
    links := [map()],
    events := [map()]
}.

%% @doc The cluster as this node sees it.
-spec cluster(facts()) -> map().
cluster(#{overview := Overview, down := Down, degraded := Degraded} = Facts) ->
    #{unreached := Unreached, components := Components, agreed := Agreed} = Overview,
    #{node := Node, nodes := Nodes, experts := Experts, links := Links, events := Events} = Facts,
    #{
        node => baguette_web_json:address(Node),
        state => state(Down, Degraded),
        reasons => Down ++ Degraded,
        model => model(maps:get(model, Facts)),
        nodes => [node_view(Info) || Info <- Nodes],
        unreached => baguette_web_json:value(Unreached),
        experts => [expert(Expert, Components) || Expert <- Experts],
        plan => #{
            agreed => Agreed,
            components => maps:map(fun(_, #{planned := P}) -> names(P) end, Components)
        },
        links => [link_view(Link) || Link <- Links],
        events => Events
    }.

%% @doc down: no picture can be drawn now. degraded: it can, but something needs a look.
-spec state(Down :: [map()], Degraded :: [map()]) -> down | degraded | ready.
state([_ | _], _) -> down;
state([], [_ | _]) -> degraded;
state([], []) -> ready.

model({ok, Model}) -> baguette_web_json:value(Model);
model({error, _}) -> null.

node_view(#{node := Node, report := Report} = Info) ->
    Kept = maps:with([name, self, link, path, age_ms, leaving, incarnation], Info),
    #{extra := Facts, states := States, components := Items} = Report,
    maps:merge(baguette_web_json:value(Kept), #{
        <<"node">> => baguette_web_json:address(Node),
        <<"rtt_ms">> => measured_ms(maps:get(rtt_us, Info)),
        <<"mbit">> => measured(maps:get(mbit, Info)),
        <<"report">> => #{
            memory_mib => maps:get(memory_mib, Report),
            plan_hash => maps:get(plan_hash, Report),
            components => [component(Item, States) || Item <- Items],
            facts => baguette_web_json:value(Facts)
        }
    }).

component(#{component := Component} = Item, States) ->
    Told = maps:with([component, size_mib, key], Item),
    baguette_web_json:value(Told#{state => maps:get(Component, States, idle)}).

expert(#{expert := Expert, component := Component, holders := Holders}, Components) ->
    Info = maps:get(Component, Components, #{on_disk => [], loading => [], planned => []}),
    #{
        expert => Expert,
        component => Component,
        holders => names(Holders),
        on_disk => names(maps:get(on_disk, Info)),
        loading => names(maps:get(loading, Info)),
        planned => names(maps:get(planned, Info))
    }.

link_view(#{from := From, to := To, state := State, rtt_us := Us, mbit := Mbit, path := Path}) ->
    #{
        from => baguette_web_json:address(From),
        to => baguette_web_json:address(To),
        state => State,
        rtt_ms => measured_ms(Us),
        mbit => measured(Mbit),
        path => Path
    }.

%% 0 is what nobody has measured yet.
measured(0) -> null;
measured(N) -> N.

measured_ms(0) -> null;
measured_ms(Us) -> Us / 1000.

names(Nodes) ->
    [baguette_web_json:address(Node) || Node <- Nodes].

%% @doc The model as OpenAI lists models, with what is special to ours.
-spec models({ok, map()} | {error, term()}) -> [map()].
models({ok, #{name := Name} = Model}) ->
    Own = maps:with([defaults, example_prompt, num_experts], Model),
    [Own#{id => Name, object => model, owned_by => <<"baguette">>, created => 0}];
models({error, _}) ->
    [].
