%% @doc One image of a generation while it is drawn: its latent, whom its next step asks, and the
%% answers so far. Pure; only baguette_engine_step holds these. Tensors are opaque binaries, and
%% maps with binary keys are the pipeline worker's (docs/internals/port.md).
-module(baguette_engine_image).

-export([new/0, routed/2, experts/1, routing/1]).
-export([row/2, give/4, without/2, answered/1]).
-export([save/1, restore/2]).
-export_type([image/0, expert/0, shape/0]).

-type expert() :: non_neg_integer().

-record(?MODULE, {
    latent = <<>> :: binary(),
    %% What experts are sent: the latent, or fewer bytes of it.
    ask = <<>> :: binary(),
    experts = [] :: [expert()], % largest weight first
    weights = [] :: [float()],
    %% What the router said; weights are others once an expert is done without.
    chosen = #{} :: #{expert() => float()},
    velocities = #{} :: #{expert() => binary()},
    routing = [] :: [map()] % one a step, latest first
}).

-opaque image() :: #?MODULE{}.

%% What a saved image must look like: of so many experts so many are asked in each of so many steps.
-type shape() :: #{
    experts := pos_integer(),
    asked := pos_integer(),
    steps := pos_integer(),
    max_latent := pos_integer(),
    atom() => term()
}.

%% @doc An image that has not been routed.
-spec new() -> image().
new() -> #?MODULE{}.

%% @doc The latent moved and the router spoke: a new step with nobody's answer yet.
-spec routed(map(), image()) -> image().
routed(#{<<"latent">> := Latent, <<"experts">> := Experts, <<"weights">> := Weights} = Routed, I) ->
    %% The margin lies between the last expert chosen and the first left out: how close it was.
    Line = #{experts => Experts, weights => Weights, margin => maps:get(<<"margin">>, Routed)},
    #?MODULE{
        latent = Latent,
        ask = maps:get(<<"ask">>, Routed, Latent),
        experts = Experts,
        weights = Weights,
        chosen = maps:from_list(lists:zip(Experts, Weights)),
        routing = [Line | I#?MODULE.routing]
    }.

%% @doc The image without this expert in this step, the other weights made to sum to what all did;
%% and the part of the router's weight (0..1) that the expert had. `last': no other one has any.
-spec without(expert(), image()) -> {Mass :: float(), image()} | last.
without(Expert, #?MODULE{experts = Experts, weights = Weights} = I) ->
    Left = [Pair || {E, _} = Pair <- lists:zip(Experts, Weights), E =/= Expert],
    case lists:sum([Weight || {_, Weight} <- Left]) of
        Sum when Sum > 0 -> {mass(Expert, I), only(Left, lists:sum(Weights) / Sum, Expert, I)};
        _ -> last
    end.

mass(Expert, #?MODULE{chosen = Chosen}) ->
    maps:get(Expert, Chosen) / lists:sum(maps:values(Chosen)).

only(Pairs, Factor, Lost, #?MODULE{routing = [Line | Before]} = I) ->
    {Experts, Weights} = lists:unzip([{E, Weight * Factor} || {E, Weight} <- Pairs]),
    Used = Line#{experts := Experts, weights := Weights, lost => [Lost | maps:get(lost, Line, [])]},
    I#?MODULE{
        experts = Experts,
        weights = Weights,
        velocities = maps:remove(Lost, I#?MODULE.velocities),
        routing = [Used | Before]
    }.

-spec experts(image()) -> [expert()].
experts(#?MODULE{experts = Experts}) -> Experts.

%% @doc Experts, weights and margin of every step, first step first.
-spec routing(image()) -> [map()].
routing(#?MODULE{routing = Routing}) -> lists:reverse(Routing).

%% @doc This image's row of an expert call; `Common' is what all rows of the step share.
-spec row(map(), image()) -> map().
row(Common, #?MODULE{ask = Ask}) -> Common#{<<"latent">> => Ask}.

%% @doc Hand an expert's velocities to the images with these numbers, in their order.
-spec give(expert(), [non_neg_integer()], [binary()], [image()]) -> [image()].
give(Expert, Numbers, Velocities, Images) ->
    Given = maps:from_list(lists:zip(Numbers, Velocities)),
    [
        case Given of
            #{Number := Velocity} ->
                Image#?MODULE{velocities = (Image#?MODULE.velocities)#{Expert => Velocity}};
            _ ->
                Image
        end
     || {Number, Image} <- lists:zip(lists:seq(0, length(Images) - 1), Images)
    ].

%% @doc All the pipeline worker needs to advance it.
-spec answered(image()) -> map().
answered(#?MODULE{velocities = Velocities} = Image) ->
    #{
        latent => Image#?MODULE.latent,
        experts => Image#?MODULE.experts,
        weights => Image#?MODULE.weights,
        velocities => [[E, V] || {E, V} <- lists:sort(maps:to_list(Velocities))]
    }.

%% @doc An image that was routed and has no answer yet, for baguette_engine_checkpoint.
-spec save(image()) -> map().
save(#?MODULE{latent = Latent, routing = Routing}) ->
    #{latent => Latent, routing => Routing}.

%% @doc The same image back; throws what baguette_engine_checkpoint:read/3 catches.
-spec restore(map(), shape()) -> image().
restore(#{<<"latent">> := Latent, <<"routing">> := Lines}, #{max_latent := Most} = Shape) when
    is_binary(Latent), byte_size(Latent) =< Most
->
    restored(Latent, [line(Line, Shape) || Line <- Lines], Shape);
restore(_, _) ->
    baguette_engine_checkpoint:bad(another_shape).

restored(Latent, [#{experts := Experts, weights := Weights} | _] = Routing, Shape) when
    length(Experts) =:= map_get(asked, Shape), length(Routing) =:= map_get(steps, Shape)
->
    #?MODULE{
        latent = Latent,
        ask = Latent,
        experts = Experts,
        weights = Weights,
        chosen = maps:from_list(lists:zip(Experts, Weights)),
        routing = Routing
    };
restored(_, _, _) ->
    baguette_engine_checkpoint:bad(another_shape).

line(#{<<"experts">> := Es, <<"weights">> := Ws, <<"margin">> := Margin} = Line, Shape) when
    is_list(Es), is_list(Ws), length(Es) =:= length(Ws)
->
    Number = fun(E) -> baguette_engine_checkpoint:integer(E, 0, maps:get(experts, Shape) - 1) end,
    Weight = fun baguette_engine_checkpoint:number/1,
    Lost = [
        {lost, baguette_engine_checkpoint:list(Number, L)} || #{<<"lost">> := L} <- [Line]
    ],
    (maps:from_list(Lost))#{
        experts => lists:map(Number, Es),
        weights => baguette_engine_checkpoint:list(Weight, Ws),
        margin => Weight(Margin)
    };
line(_, _) ->
    baguette_engine_checkpoint:bad(another_shape).
