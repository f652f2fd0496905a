%% @doc Whom to ask for a component, best first: what each ready holder is expected to take. Pure;
%% baguette_cluster_gossip writes the answer into its table whenever it changes, so that asking for
%% it is one table read. Not for planning: who *should* hold what is baguette_cluster_placement.
-module(baguette_cluster_holders).

-export([all/3]).
-export_type([holder/0]).

-type holder() :: #{node := node(), expected_us := non_neg_integer(), key := binary()}.

%% @doc Holders of every component in the given reports; only nodes in Links (and Self) are asked.
-spec all(node(), [baguette_cluster_report:report()], Links) -> #{Component => [holder()]} when
    Links :: #{node() => baguette_cluster_membership:link()},
    Component :: baguette_cluster_component:component().
all(Self, Reports, Links) ->
    Offers = lists:append([offers(R, Trip) || R <- Reports, {ok, Trip} <- [trip(Self, R, Links)]]),
    Best = lists:sort([{C, rank(Self, C, Holder), Holder} || {C, Holder} <- Offers]),
    %% From the worst to the best, so that the best comes to stand in front.
    lists:foldr(fun({C, _, H}, Sofar) -> Sofar#{C => [H | maps:get(C, Sofar, [])]} end, #{}, Best).

trip(Self, Report, Links) ->
    Node = baguette_cluster_report:node(Report),
    case Links of
        _ when Node =:= Self -> {ok, 0};
        #{Node := #{state := up, rtt_us := Us}} -> {ok, Us};
        _ -> not_asked
    end.

%% A node computes its components one after the other: with three of them, a call to one waits
%% behind two others when all are in use. So work goes to the holder that holds least.
offers(Report, Trip) ->
    Node = baguette_cluster_report:node(Report),
    Held = length(baguette_cluster_report:held(Report)),
    Expected = baguette_cluster_report:call_us(Report) * Held + Trip,
    [
        {C, #{node => Node, expected_us => Expected, key => Key}}
     || #{component := C, key := Key} <- baguette_cluster_report:items(Report),
        baguette_cluster_report:state(C, Report) =:= ready
    ].

%% By class (binary digits, as placement does): of holders that are about as fast everybody would
%% otherwise ask the same one, and its replicas would idle. Among those, oneself, then a choice that
%% differs from asker to asker and from component to component.
rank(Self, Component, #{node := Node, expected_us := Us}) ->
    Class = length(integer_to_list(Us, 2)),
    {Class, Node =/= Self, erlang:phash2({Self, Component, Node}), Node}.
