%% @doc Fleets for tests: reports of nodes that do not exist. Used by the EUnit and PropEr modules.
-module(baguette_cluster_fleet).

-export([host/1, component/1, report/2, apply_plan/2]).

-spec host(pos_integer()) -> node().
host(N) ->
    {ok, Node} = baguette_cluster_node_name:from_address("10.0.0." ++ integer_to_list(N)),
    Node.

-spec component(pos_integer()) -> binary().
component(N) ->
    iolist_to_binary(io_lib:format("model/part-~b", [N])).

%% @doc A report; Facts: room, disk => [{N, Size}], states => #{N => State}, id, hash, and all
%% facts that stand in extra (usage => #{N => PerMille}).
-spec report(pos_integer(), map()) -> baguette_cluster_report:report().
report(N, Facts) ->
    Disk = maps:get(disk, Facts, []),
    Fields = #{
        memory_mib => maps:get(room, Facts, 1000),
        components => [#{component => component(C), size_mib => S, key => <<>>} || {C, S} <- Disk],
        states => maps:from_list([
            {component(C), State}
         || {C, State} <- maps:to_list(maps:get(states, Facts, #{}))
        ]),
        plan_hash => maps:get(hash, Facts, 0),
        extra => extra(Facts)
    },
    {Incarnation, Counter} = maps:get(id, Facts, {1, 0}),
    New = baguette_cluster_report:new(host(N), Incarnation),
    Body = maps:fold(fun baguette_cluster_report:set/3, New, Fields),
    {ok, Report} = baguette_cluster_report:check(lists:foldl(
        fun(_, R) -> baguette_cluster_report:next(R) end, Body, lists:seq(1, Counter))),
    Report.

extra(Facts) ->
    Extra = maps:without([room, disk, states, id, hash], Facts),
    case Extra of
        #{usage := Usage} when is_map(Usage) ->
            Extra#{usage := maps:from_list([{component(C), N} || {C, N} <- maps:to_list(Usage)])};
        _ ->
            Extra
    end.

%% @doc The same fleet once it has done what the plan says.
-spec apply_plan(baguette_cluster_placement:plan(), [baguette_cluster_report:report()]) ->
    [baguette_cluster_report:report()].
apply_plan(Plan, Reports) ->
    Line = fun(R) -> baguette_cluster_placement:line(baguette_cluster_report:node(R), Plan) end,
    [obey(Line(R), R) || R <- Reports].

obey(Line, Report) ->
    Failed = maps:filter(fun(_, S) -> S =:= failed end, baguette_cluster_report:states(Report)),
    States = maps:merge(Failed, maps:from_list([{C, ready} || C <- Line])),
    baguette_cluster_report:set(states, States, Report).
