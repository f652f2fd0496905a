%% @doc What becomes of images that do without an expert nobody holds: pure, for
%% baguette_engine_step, where the request says `degrade'.
-module(baguette_engine_degrade).

-export([without/3]).

-type overdue() :: [
    {baguette_engine_image:expert(), Images :: [non_neg_integer()], Why :: term()}
].
-type images() :: [baguette_engine_image:image()].
-type asking() :: baguette_engine_ask:asking().

%% @doc Each of these images without that expert; its other experts' weights sum to what all did.
%% Never without all of them: the last one is waited for.
-spec without(overdue(), images(), asking()) ->
    {images(), asking(), [baguette_engine_step:effect()]}.
without(Overdue, Images, Asking) ->
    Pairs = [{Expert, Number} || {Expert, Numbers, _Why} <- Overdue, Number <- Numbers],
    lists:foldl(fun one/2, {Images, Asking, []}, Pairs).

one({Expert, Number}, {Images, Asking, Effects}) ->
    {Before, [Image | After]} = lists:split(Number, Images),
    case baguette_engine_image:without(Expert, Image) of
        last ->
            {Images, Asking, Effects};
        {Mass, Less} ->
            {Noted, More} = degraded(Expert, Number, Mass, Asking),
            {Before ++ [Less | After], Noted, Effects ++ More}
    end.

degraded(Expert, Number, Mass, Asking) ->
    {Dropped, Forgets} = baguette_engine_ask:drop(Expert, [Number], Asking),
    Write = fun(R) -> baguette_engine_record:degraded(Number, Expert, Mass, R) end,
    {Entry, Noted} = baguette_engine_ask:note(Write, Dropped),
    {Noted, [{publish, {degraded, Entry}} | Forgets]}.
