%% @doc Whom to ask for a component, best first: what each ready holder is expected to take. Pure;
%% baguette_cluster_gossip writes the answer into its table whenever it changes, so that asking for
%% it is one table read, and with calls in flight a small sort. Not for planning: who *should* hold
%% what is baguette_cluster_placement.
-module(baguette_cluster_holders).

-export([all/3, in_order/4]).
-export_type([holder/0]).

-type holder() :: #{
    node := node(),
    expected_us := non_neg_integer(),   % until the answer is here
    key := binary(),
    call_us := pos_integer(),           % one call, once it is its turn
    rtt_us := non_neg_integer(),
    queue := non_neg_integer(),         % calls before ours
    relayed := boolean(),               % its packets go through somebody else
    leaving := boolean()                % true only of ourselves: nobody else is offered then
}.
-type component() :: baguette_cluster_component:component().

-define(MAX_QUEUE, 1000000).

%% @doc Holders of every component in the given reports; only nodes in Links (and Self) are asked.
-spec all(node(), [baguette_cluster_report:report()], Links) -> #{component() => [holder()]} when
    Links :: #{node() => baguette_cluster_membership:link()}.
all(Self, Reports, Links) ->
    Slowest = baguette_cluster_report:slowest_us(Reports),
    Offers = lists:append([
        offers(R, Way, Slowest) || R <- Reports, {ok, Way} <- [way(Self, R, Links)]
    ]),
    Grouped = lists:foldl(
        fun({C, H}, Sofar) -> Sofar#{C => [H | maps:get(C, Sofar, [])]} end, #{}, Offers),
    maps:map(fun(C, Holders) -> in_order(Self, C, Holders, #{}) end, Grouped).

%% Who leaves is not asked; we ourselves may still have to finish what we began.
way(Self, Report, Links) ->
    Node = baguette_cluster_report:node(Report),
    Leaving = baguette_cluster_report:leaving(Report),
    case Links of
        _ when Node =:= Self -> {ok, {0, false, Leaving}};
        _ when Leaving -> not_asked;
        #{Node := #{state := up, rtt_us := Us} = Link} ->
            {ok, {Us, maps:get(path, Link, unknown) =:= relayed, false}};
        _ -> not_asked
    end.

offers(Report, {Trip, Relayed, Leaving}, Slowest) ->
    Us = baguette_cluster_report:call_us(Report, Slowest),
    Queue = queue(baguette_cluster_report:extra(Report), baguette_cluster_report:held(Report)),
    Holder = #{
        node => baguette_cluster_report:node(Report),
        expected_us => (Queue + 1) * Us + Trip,
        call_us => Us,
        rtt_us => Trip,
        queue => Queue,
        relayed => Relayed,
        leaving => Leaving
    },
    [
        {C, Holder#{key => Key}}
     || #{component := C, key := Key} <- baguette_cluster_report:items(Report),
        baguette_cluster_report:state(C, Report) =:= ready
    ].

%% A node computes its components one after the other: until it says how many calls wait, a call to
%% one is taken to wait behind one to each other that it holds. So work goes to who holds least.
queue(#{queue := N}, _Held) when is_integer(N), N >= 0, N =< ?MAX_QUEUE -> N;
queue(_, Held) -> max(0, length(Held) - 1).

%% @doc The given holders with what the asker has in flight at each node, best first.
-spec in_order(node(), component(), [holder()], #{node() => non_neg_integer()}) -> [holder()].
in_order(Self, Component, Holders, InFlight) ->
    Loaded = [loaded(H, maps:get(Node, InFlight, 0)) || #{node := Node} = H <- Holders],
    [H || {_, H} <- lists:sort([{rank(Self, Component, H), H} || H <- Loaded])].

%% What a holder says of its queue holds our own calls too, as far as it knows of them already.
loaded(#{queue := Queue} = Holder, Own) when Own =< Queue ->
    Holder;
loaded(#{call_us := Us, rtt_us := Trip} = Holder, Own) ->
    Holder#{queue := Own, expected_us := (Own + 1) * Us + Trip}.

%% By class (as in placement): of holders that are about as fast everybody would otherwise ask the
%% same one, and its replicas would idle. Among those, oneself, then a choice that
%% differs from asker to asker and from component to component. A relay is shared by strangers and
%% bounded: a direct way wins, however slow.
rank(Self, Component, #{node := Node, expected_us := Us, relayed := Relayed, leaving := Leaving}) ->
    Class = baguette_cluster_step_time:coarse(Us),
    {Leaving, Relayed, Class, Node =/= Self, erlang:phash2({Self, Component, Node}), Node}.
