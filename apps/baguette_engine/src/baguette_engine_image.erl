%% @doc One image of a generation while it is drawn: its latent, whom its next step asks, and the
%% answers so far. Pure; only baguette_engine_step holds these. Tensors are opaque binaries, and
%% maps with binary keys are the pipeline worker's (docs/internals/port.md).
-module(baguette_engine_image).

-export([new/0, routed/2, experts/1, routing/1]).
-export([row/2, give/4, without/2, answered/1]).
-export_type([image/0, expert/0]).

-type expert() :: non_neg_integer().

-record(?MODULE, {
    latent = <<>> :: binary(),
    experts = [] :: [expert()], % largest weight first
    weights = [] :: [float()],
    velocities = #{} :: #{expert() => binary()},
    routing = [] :: [map()] % one a step, latest first
}).

-opaque image() :: #?MODULE{}.

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
        experts = Experts,
        weights = Weights,
        routing = [Line | I#?MODULE.routing]
    }.

%% @doc The image without this expert in this step, the other weights made to sum to what all did;
%% and the part of the weight (0..1) that the expert had. `last': it has no other one.
-spec without(expert(), image()) -> {Mass :: float(), image()} | last.
without(_Expert, #?MODULE{experts = [_]}) ->
    last;
without(Expert, #?MODULE{experts = Experts, weights = Weights, routing = [Line | Before]} = I) ->
    Sum = lists:sum(Weights),
    Pairs = [Pair || {E, _} = Pair <- lists:zip(Experts, Weights), E =/= Expert],
    {Kept, KeptWeights} = lists:unzip(Pairs),
    Left = lists:sum(KeptWeights),
    Raised = [W * Sum / Left || W <- KeptWeights],
    Without = Line#{
        experts := Kept, weights := Raised, lost => [Expert | maps:get(lost, Line, [])]
    },
    {(Sum - Left) / Sum, I#?MODULE{
        experts = Kept,
        weights = Raised,
        velocities = maps:remove(Expert, I#?MODULE.velocities),
        routing = [Without | Before]
    }}.

-spec experts(image()) -> [expert()].
experts(#?MODULE{experts = Experts}) -> Experts.

%% @doc Experts, weights and margin of every step, first step first.
-spec routing(image()) -> [map()].
routing(#?MODULE{routing = Routing}) -> lists:reverse(Routing).

%% @doc This image's row of an expert call; `Common' is what all rows of the step share.
-spec row(map(), image()) -> map().
row(Common, #?MODULE{latent = Latent}) -> Common#{<<"latent">> => Latent}.

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
