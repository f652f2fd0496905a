%% @doc Many pictures at once, for programs that measure throughput (scripts/bench_throughput.py):
%% so many are in the drawing on this node at any time, the next is asked for when one has ended,
%% until all were drawn or the time is over. Spawned on the requesting node for the command `load'
%% of a control node. The pictures are dropped; what is told of each is when it was asked for and
%% ended, the hash of its first image, and how its steps went. What dies with this process: the
%% pictures in the drawing, which are cancelled (baguette_draw:relay/4); it dies with its control
%% node.
-module(baguette_load).

-export([relay/3]).

-export_type([order/0, drawn/0]).

-type order() :: #{
    request := map(),
    concurrent := pos_integer(),
    images := pos_integer(), % at most
    ms := pos_integer(), % no picture is asked for later
    seeds := pos_integer(), % picture I has the request's seed + I rem seeds
    prompts := pos_integer() % its prompt is one of so many: with seed rem prompts behind, if not 0
}.
%% Times since 1970, in microseconds. A step is `[Asked, Answered, Local, Remote]': its first ask
%% and last answer, since the begin; and how long was computed for it, here and where it was longest
%% of the other nodes.
-type drawn() :: #{
    ok := boolean(),
    seed := non_neg_integer(),
    asked_us := integer(),
    ended_us := integer(),
    atom() => term()
}.

-record(?MODULE, {
    control :: reference(), % its monitor
    order :: order(),
    until_ms :: integer(), % of the monotonic clock
    begun = 0 :: non_neg_integer(),
    drawing = #{} :: #{reference() => {Monitor :: reference(), drawn()}},
    drawn = [] :: [drawn()]
}).

%% @doc One message at the end: {baguette_load, Ref, [drawn()]}, in the order in which they ended.
-spec relay(pid(), reference(), order()) -> ok.
relay(Control, Ref, #{ms := Ms} = Order) ->
    Until = erlang:monotonic_time(millisecond) + Ms,
    S = #?MODULE{control = monitor(process, Control), order = Order, until_ms = Until},
    Control ! {?MODULE, Ref, follow(begin_more(S))},
    ok.

begin_more(#?MODULE{order = #{concurrent := Most, images := All}} = S) ->
    #?MODULE{begun = Begun, drawing = Drawing, until_ms = Until} = S,
    InTime = erlang:monotonic_time(millisecond) < Until,
    case InTime andalso Begun < All andalso map_size(Drawing) < Most of
        true -> begin_more(begin_one(S));
        false -> S
    end.

begin_one(#?MODULE{order = Order, begun = Begun, drawing = Drawing} = S) ->
    #{request := #{seed := First, prompt := Prompt} = Request, seeds := Seeds} = Order,
    Seed = First + Begun rem Seeds,
    Numbered = numbered(Prompt, Seed rem maps:get(prompts, Order)),
    Ref = make_ref(),
    Args = [self(), Ref, Request#{seed := Seed, prompt := Numbered}, false],
    {_, Monitor} = spawn_monitor(baguette_draw, relay, Args),
    About = #{seed => Seed, asked_us => erlang:system_time(microsecond)},
    S#?MODULE{begun = Begun + 1, drawing = Drawing#{Ref => {Monitor, About}}}.

numbered(Prompt, 0) -> Prompt;
numbered(Prompt, Number) -> <<Prompt/binary, " ", (integer_to_binary(Number))/binary>>.

follow(#?MODULE{drawing = Drawing, drawn = Drawn}) when map_size(Drawing) =:= 0 ->
    lists:reverse(Drawn);
follow(#?MODULE{control = Control, drawing = Drawing} = S) ->
    receive
        {baguette_draw, Ref, {finished, Outcome}} ->
            follow(ended(Ref, Outcome, S));
        {baguette_draw, _, _} ->
            follow(S);
        {'DOWN', Control, process, _, _} ->
            exit(control_node_gone);
        {'DOWN', Monitor, process, _, Why} ->
            [Ref] = [R || {R, {M, _}} <- maps:to_list(Drawing), M =:= Monitor],
            follow(ended(Ref, {error, {generation_lost, #{why => Why}}}, S))
    end.

ended(Ref, Outcome, #?MODULE{drawing = Drawing, drawn = Drawn} = S) ->
    {{Monitor, About}, Left} = maps:take(Ref, Drawing),
    true = demonitor(Monitor, [flush]),
    Ended = maps:merge(About#{ended_us => erlang:system_time(microsecond)}, told(Outcome)),
    begin_more(S#?MODULE{drawing = Left, drawn = [Ended | Drawn]}).

told({ok, #{images := [#{pixels_sha256 := Pixels} | _], calls := Calls} = Result}) ->
    #{
        ok => true,
        began_us => maps:get(began_us, Result),
        pixels_sha256 => Pixels,
        calls => maps:get(asked, Result),
        failovers => length(maps:get(failovers, Result)),
        hedges => length(maps:get(hedges, Result)),
        steps => steps(Calls)
    };
told({error, Reason}) ->
    #{ok => false, why => baguette_control_json:failure(Reason)}.

steps(Calls) ->
    ByStep = lists:foldl(fun with_call/2, #{}, Calls),
    [step(Calls1) || {_, Calls1} <- lists:keysort(1, maps:to_list(ByStep))].

with_call(#{step := Step} = Call, Steps) ->
    maps:update_with(Step, fun(Before) -> [Call | Before] end, [Call], Steps).

%% A device computes one call after the other.
step(Calls) ->
    Computed = lists:foldl(
        fun(#{node := Node, compute_ms := Ms}, Sums) ->
            maps:update_with(Node, fun(Us) -> Us + us(Ms) end, us(Ms), Sums)
        end,
        #{},
        Calls
    ),
    [
        lists:min([At || #{at_us := At} <- Calls]),
        lists:max([At + us(Ms) || #{at_us := At, ms := Ms} <- Calls]),
        maps:get(node(), Computed, 0),
        lists:max([0 | maps:values(maps:remove(node(), Computed))])
    ].

us(Ms) -> round(1000 * Ms).
