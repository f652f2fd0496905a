%% @doc The state of the cluster in one word and a few sentences: what is wrong, and what to do.
%%
%% Pure; called by baguette_web_snapshot. `ready': a picture can be drawn and nothing is amiss.
%% `degraded': pictures are drawn, but something needs a look. `down': no picture can be drawn now.
-module(baguette_web_health).

-export([tell/3]).
-export_type([health/0]).

-define(WAIT, "Wait a moment: pictures go on by themselves.").

-type reason() :: #{text := binary(), advice := binary()}.
-type health() :: #{state := ready | degraded | down, reasons := [reason()]}.
-type door() :: ok | {degraded, [term()]}.

%% @doc From what the doors of engine and cluster say, and why each missing expert is missing.
-spec tell(door(), door(), [{non_neg_integer(), term()}]) -> health().
tell(Engine, Cluster, Missing) ->
    case [down(Fact, Missing) || Fact <- facts(Engine)] of
        [] ->
            Reasons = [R || Fact <- facts(Cluster), R <- degraded(Fact)],
            #{state => state(Reasons), reasons => Reasons};
        Reasons ->
            #{state => down, reasons => Reasons}
    end.

facts(ok) -> [];
facts({degraded, Facts}) -> Facts.

state([]) -> ready;
state(_) -> degraded.

%% --- no picture can be drawn

down({no_holder, Expert}, Missing) ->
    Why = proplists:get_value(Expert, Missing, not_settled),
    Text = ["Nobody can be asked for expert ", integer_to_list(Expert), ": "],
    reason([Text, baguette_web_words:missing(Why), "."], advice(Why));
down({not_ready, _}, _) ->
    reason(
        "This node has not read its model yet.",
        "Wait a moment; if this stays, its log says which file is at fault."
    );
down({Name, _}, _) when is_atom(Name) ->
    reason(["This node cannot draw: ", words(Name), "."], "Its log says why.").

%% What is under way needs nobody's help.
advice({loading, _, _}) -> ?WAIT;
advice({planned, _}) -> ?WAIT;
advice(not_settled) -> ?WAIT;
advice({unreachable, _}) -> "Look at the link to that machine: make doctor on both ends.";
advice({failed, _}) -> "make events tells the node's story.";
advice(nobody_has_it_on_disk) -> "python -m baguette check says what a directory lacks.";
advice(no_memory) -> "make join on another machine brings it in.";
advice(_) -> ?WAIT.

%% --- pictures are drawn

degraded({peers_never_met, Peers}) ->
    one("never met", Peers, "Is it running, with the same secret? make doctor there says.");
degraded({unreached, Pairs}) ->
    one("not reached", [Node || {Node, _} <- Pairs], "Is it running? make doctor there says.");
degraded({leaving, Nodes}) ->
    one("leaving the cluster", Nodes, "Nothing to do: others take over what it held.");
degraded({links_down, Nodes}) ->
    one("out of reach", Nodes, "Is it running, and its network up? Others take over its experts.");
degraded({suspects, Nodes}) ->
    one("silent", Nodes, "It is not asked until it is heard again; look at that machine.");
degraded({components_without_holder, Parts}) ->
    [reason(
        ["Held by nobody: ", lists:join(", ", [part(P) || P <- Parts]), "."],
        "If this stays, let another machine join or look at the log."
    )];
degraded({discovery, _}) ->
    [reason("Looking for other machines fails; those known are kept.", "make doctor says why.")];
degraded({inventory, _}) ->
    [reason(
        "This node cannot read its model directory.",
        "python -m baguette check finds what is damaged."
    )];
degraded({Name, _}) when is_atom(Name) ->
    [reason([words(Name), "."], "make status says more.")].

one(_How, [], _Advice) -> [];
one(How, [Node], Advice) -> [reason([name(Node), " is ", How, "."], Advice)];
one(How, Nodes, Advice) -> [reason([names(Nodes), " are ", How, "."], Advice)].

%% --- pieces

reason(Text, Advice) ->
    #{text => unicode:characters_to_binary(Text), advice => unicode:characters_to_binary(Advice)}.

names(Nodes) -> lists:join(", ", [name(N) || N <- lists:sort(Nodes)]).

%% Peers that were never met are known by address only.
name(Node) when is_atom(Node) -> baguette_web_snapshot:address(Node);
name(Address) -> Address.

part(Component) -> lists:last(binary:split(Component, <<"/">>, [global])).

words(Name) -> string:replace(atom_to_list(Name), "_", " ", all).
