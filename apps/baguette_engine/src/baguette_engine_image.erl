%% @doc One image of a generation while it is drawn: its latent, whom its next step asks, and the
%% answers so far. Pure; only baguette_engine_step holds these. Tensors are opaque binaries, and
%% maps with binary keys are the pipeline worker's (docs/internals/port.md).
-module(baguette_engine_image).

-export([new/0, routed/2, experts/1, asks/1, reuses/1, routing/1, saved/1]).
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
    %% Nobody is asked in this step: the velocities are those of the step before. How far the image
    %% moved since they were answered is for the pipeline worker, which keeps nothing.
    reused = false :: boolean(),
    change = 0.0 :: number(),
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

%% @doc The latent moved and the router spoke: a new step with nobody's answer yet, or, where the
%% worker says by how little it changed, with those of the step before.
-spec routed(map(), image()) -> image().
routed(#{<<"latent">> := Latent, <<"experts">> := Experts, <<"weights">> := Weights} = Routed, I) ->
    %% The margin lies between the last expert chosen and the first left out: how close it was.
    Line = #{experts => Experts, weights => Weights, margin => maps:get(<<"margin">>, Routed)},
    reusing(Routed, I#?MODULE.velocities, #?MODULE{
        latent = Latent,
        ask = maps:get(<<"ask">>, Routed, Latent),
        experts = Experts,
        weights = Weights,
        chosen = maps:from_list(lists:zip(Experts, Weights)),
        routing = [Line | I#?MODULE.routing]
    }).

reusing(#{<<"change">> := Change}, Velocities, #?MODULE{routing = [Line | Before]} = I) when
    is_number(Change)
->
    #?MODULE{experts = Experts} = I,
    %% They are of the same experts: another set is always asked.
    true = lists:sort(Experts) =:= lists:sort(maps:keys(Velocities)),
    I#?MODULE{
        velocities = Velocities, reused = true, change = Change,
        routing = [Line#{reused => true} | Before]
    };
reusing(_Routed, _Velocities, I) ->
    I.

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

%% @doc The experts whose answers this step waits for.
-spec asks(image()) -> [expert()].
asks(#?MODULE{reused = true}) -> [];
asks(#?MODULE{experts = Experts}) -> Experts.

%% @doc The experts whose last answers this step uses again.
-spec reuses(image()) -> [expert()].
reuses(#?MODULE{reused = true, experts = Experts}) -> Experts;
reuses(#?MODULE{}) -> [].

%% @doc How many answers were used again so far.
-spec saved(image()) -> non_neg_integer().
saved(#?MODULE{routing = Routing}) ->
    lists:sum([length(Experts) || #{reused := true, experts := Experts} <- Routing]).

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
        change => Image#?MODULE.change,
        velocities => pairs(Velocities)
    }.

pairs(Velocities) -> [[E, V] || {E, V} <- lists:sort(maps:to_list(Velocities))].

%% @doc An image that was routed and waits for its answers or has no need of any, for
%% baguette_engine_checkpoint.
-spec save(image()) -> map().
save(#?MODULE{reused = true, change = Change, velocities = Velocities} = Image) ->
    (save(Image#?MODULE{reused = false}))#{change => Change, velocities => pairs(Velocities)};
save(#?MODULE{latent = Latent, routing = Routing}) ->
    #{latent => Latent, routing => Routing}.

%% @doc The same image back; throws what baguette_engine_checkpoint:read/3 catches.
-spec restore(map(), shape()) -> image().
restore(#{<<"latent">> := Latent, <<"routing">> := Lines} = Saved, Shape) ->
    Image = restored(tensor(Latent, Shape), [line(Line, Shape) || Line <- Lines], Shape),
    again(Saved, Image, Shape);
restore(_, _) ->
    baguette_engine_checkpoint:bad(another_shape).

tensor(Tensor, #{max_latent := Most}) when is_binary(Tensor), byte_size(Tensor) =< Most -> Tensor;
tensor(_, _) -> baguette_engine_checkpoint:bad(another_shape).

%% What is used again is in the bytes where the last line of the routing says so, and only there.
again(
    #{<<"change">> := Change, <<"velocities">> := Pairs},
    #?MODULE{routing = [#{reused := true} | _], experts = Experts} = Image,
    Shape
) ->
    Known = maps:from_list(
        baguette_engine_checkpoint:list(fun(Pair) -> velocity(Pair, Experts, Shape) end, Pairs)
    ),
    case map_size(Known) =:= length(Experts) of
        true ->
            Number = baguette_engine_checkpoint:number(Change),
            Image#?MODULE{reused = true, change = Number, velocities = Known};
        false ->
            baguette_engine_checkpoint:bad(another_shape)
    end;
again(_, #?MODULE{routing = [#{reused := true} | _]}, _Shape) ->
    baguette_engine_checkpoint:bad(another_shape);
again(_, Image, _Shape) ->
    Image.

velocity([Expert, Velocity], Experts, Shape) ->
    case lists:member(Expert, Experts) of
        true -> {Expert, tensor(Velocity, Shape)};
        false -> baguette_engine_checkpoint:bad(another_shape)
    end;
velocity(_, _, _) ->
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
    Reused = [{reused, true} || #{<<"reused">> := true} <- [Line]],
    (maps:from_list(Lost ++ Reused))#{
        experts => lists:map(Number, Es),
        weights => baguette_engine_checkpoint:list(Weight, Ws),
        margin => Weight(Margin)
    };
line(_, _) ->
    baguette_engine_checkpoint:bad(another_shape).
