%% @doc One image of a generation while it is drawn: its latent, whom its next step asks, and the
%% answers so far. Pure; only baguette_engine_step holds these. Tensors are opaque binaries, and
%% maps with binary keys are the pipeline worker's (docs/internals/port.md).
-module(baguette_engine_image).

-export([new/0, routed/2, experts/1, routing/1]).
-export([row/2, give/3, answered/1]).
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

-spec experts(image()) -> [expert()].
experts(#?MODULE{experts = Experts}) -> Experts.

%% @doc Experts, weights and margin of every step, first step first.
-spec routing(image()) -> [map()].
routing(#?MODULE{routing = Routing}) -> lists:reverse(Routing).

%% @doc This image's row of an expert call; `Common' is what all rows of the step share.
-spec row(map(), image()) -> map().
row(Common, #?MODULE{latent = Latent}) -> Common#{<<"latent">> => Latent}.

%% @doc Hand an expert's velocities, in the order of the rows, to the images that chose it.
-spec give(expert(), [binary()], [image()]) -> [image()].
give(_Expert, [], Images) ->
    Images;
give(Expert, [Velocity | More], [#?MODULE{experts = Experts} = Image | Images]) ->
    case lists:member(Expert, Experts) of
        true ->
            Given = (Image#?MODULE.velocities)#{Expert => Velocity},
            [Image#?MODULE{velocities = Given} | give(Expert, More, Images)];
        false ->
            [Image | give(Expert, [Velocity | More], Images)]
    end.

%% @doc All the pipeline worker needs to advance it.
-spec answered(image()) -> map().
answered(#?MODULE{velocities = Velocities} = Image) ->
    #{
        latent => Image#?MODULE.latent,
        experts => Image#?MODULE.experts,
        weights => Image#?MODULE.weights,
        velocities => [[E, V] || {E, V} <- lists:sort(maps:to_list(Velocities))]
    }.
