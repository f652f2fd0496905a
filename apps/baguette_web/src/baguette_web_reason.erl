%% @doc Why a node is not ready, or a cluster not whole, in sentences: what is, and what helps.
%% Reads settings and tables only; called by handlers, views and baguette_web_jobs.
-module(baguette_web_reason).

-export([engine/2, cluster/1, why_missing/1]).
-export_type([reason/0]).

-type reason() :: #{name := atom(), detail := binary(), expert => non_neg_integer()}.

%% @doc Why no picture could be drawn now. WhyMissing tells of an expert: a fact of
%% baguette_cluster:why_missing/1.
-spec engine(ok | {degraded, [term()]}, fun((Expert :: non_neg_integer()) -> term())) ->
    [reason()].
engine(ok, _) -> [];
engine({degraded, Facts}, WhyMissing) -> [lacking(Fact, WhyMissing) || Fact <- Facts].

lacking({no_holder, Expert}, WhyMissing) ->
    Why = baguette_web_teller:missing(WhyMissing(Expert)),
    (new(no_holder, "no node holds expert ~b: ~ts", [Expert, Why]))#{expert => Expert};
lacking({not_ready, _}, _) ->
    new(not_ready, "this node has not read its model yet; if this stays, its log says why", []);
lacking({Name, Facts}, _) ->
    new(Name, "~ts: ~0tP", [Name, Facts, 12]).

%% @doc Why an expert that nobody holds cannot be asked, as baguette_cluster:why_missing/1 tells.
-spec why_missing(Expert :: non_neg_integer()) -> term().
why_missing(Expert) ->
    Experts = baguette_engine:experts(),
    case [C || #{expert := E, component := C} <- Experts, E =:= Expert] of
        [Component] -> baguette_cluster:why_missing(Component);
        %% The model is being read anew.
        [] -> not_settled
    end.

%% @doc What is not as it should be among the nodes, though pictures may be drawn.
-spec cluster(ok | {degraded, [{atom(), [term()]}]}) -> [reason()].
cluster(ok) -> [];
cluster({degraded, Facts}) -> [about(Name, Found) || {Name, Found} <- Facts].

about(peers_never_met, Nodes) ->
    Text = "not met since this node was started: ~ts; is Baguette running there?",
    new(peers_never_met, Text, [names(Nodes)]);
about(peers_gone, Nodes) ->
    Text = "not heard of any more: ~ts; start Baguette there again, or see to its network",
    new(peers_gone, Text, [names(Nodes)]);
about(peers_left, Nodes) ->
    new(peers_left, "left the cluster: ~ts; `make join` there brings it back", [names(Nodes)]);
about(unreached, Peers) ->
    Told = [[baguette_web_json:address(Node), " (", why(Why), ")"] || {Node, Why} <- Peers],
    new(unreached, "no link could be made to ~ts", [lists:join(", ", Told)]);
about(leaving, Nodes) ->
    new(leaving, "~ts is about to leave and is asked no more", [names(Nodes)]);
about(links_down, Nodes) ->
    new(links_down, "the link to ~ts is down; `make status` there says more", [names(Nodes)]);
about(suspects, Nodes) ->
    new(suspects, "~ts is silent and is not asked until it is heard of again", [names(Nodes)]);
about(components_without_holder, Components) ->
    new(components_without_holder, "nobody has loaded ~ts", [lists:join(", ", Components)]);
about(discovery, Errors) ->
    new(discovery, "peers cannot be looked for (~0tP); those that are known stay", [Errors, 12]);
about(Name, Found) ->
    new(Name, "~ts: ~0tP", [Name, Found, 12]).

names(Nodes) ->
    lists:join(", ", [baguette_web_json:address(Node) || Node <- Nodes]).

why(Why) when is_atom(Why) -> string:replace(atom_to_list(Why), "_", " ", all);
why(Why) -> io_lib:format("~0tP", [Why, 8]).

new(Name, Format, Args) ->
    #{name => Name, detail => unicode:characters_to_binary(io_lib:format(Format, Args))}.
