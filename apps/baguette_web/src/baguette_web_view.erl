%% @doc What the doors below tell, as values for jiffy: strings are binaries, nothing is a tuple.
%% Pure; called by baguette_web_http.
-module(baguette_web_view).

-export([cluster/2, models/1, reasons/1]).

%% @doc The cluster as this node sees it: members, components, and who can answer for each expert.
-spec cluster(map(), [map()]) -> map().
cluster(#{members := Members, components := Components} = Overview, Experts) ->
    #{
        node => maps:get(node, Overview),
        members => Members,
        components => Components,
        experts => [maps:with([expert, component, holders], Expert) || Expert <- Experts],
        degraded => reasons(maps:get(health, Overview))
    }.

%% @doc The model as OpenAI lists models, with what is special to ours.
-spec models({ok, map()} | {error, term()}) -> [map()].
models({ok, #{name := Name} = Model}) ->
    [Model#{id => Name, object => model, owned_by => <<"baguette">>, created => 0}];
models({error, _}) ->
    [].

%% @doc A room's health as sentences' raw material: [] when all is well.
-spec reasons(ok | {degraded, [term()]}) -> [map()].
reasons(ok) -> [];
reasons({degraded, Facts}) -> [reason(Fact) || Fact <- Facts].

reason({no_holder, Expert}) ->
    #{name => no_holder, expert => Expert};
reason({Name, Facts}) when is_atom(Name), is_map(Facts) ->
    #{name => Name, facts => text(Facts)};
reason({Name, Facts}) when is_atom(Name), is_list(Facts) ->
    #{name => Name, about => [named(Fact) || Fact <- Facts]}.

named(Fact) when is_atom(Fact); is_binary(Fact) -> Fact;
named(Fact) -> text(Fact).

text(Term) -> iolist_to_binary(io_lib:format("~0tp", [Term])).
