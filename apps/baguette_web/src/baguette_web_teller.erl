%% @doc Sentences, from the module that the setting `teller' names: they are the face's, which this
%% room knows nothing of. Without one there are plain ones, and no event log in words. Called by
%% whatever here tells of events, missing experts and errors.
-module(baguette_web_teller).

-export([recent/1, missing/1, waiting/1, error/1]).

-callback recent(pos_integer()) -> [map()].
-callback missing(Why :: term()) -> binary().
-callback error(Reason :: term()) -> binary().

%% @doc The last events of this node, oldest first: at (seconds since 1970), level, room, text, and
%% generation where it is of one.
-spec recent(pos_integer()) -> [map()].
recent(Count) ->
    told(fun(Teller) -> Teller:recent(Count) end, []).

%% @doc Why an expert cannot be asked now (baguette_cluster:why_missing/1), or for what else of this
%% kind a generation waits.
-spec missing(Why :: term()) -> binary().
missing(Why) ->
    told(fun(Teller) -> Teller:missing(Why) end, <<"it cannot be asked now">>).

%% @doc What a generation waits for (its event `waiting').
-spec waiting(#{reason := term(), atom() => term()}) -> binary().
waiting(#{expert := Expert, reason := Why}) ->
    <<"expert ", (integer_to_binary(Expert))/binary, ": ", (missing(Why))/binary>>;
waiting(#{reason := Why}) ->
    missing(Why).

%% @doc What an error of the engine means, and what to do next.
-spec error({Name :: atom(), Facts :: map()}) -> binary().
error(Reason) ->
    told(
        fun(Teller) -> Teller:error(Reason) end,
        <<"the cluster could not draw it; the node's log says more, and asking again may help">>
    ).

told(Ask, Plain) ->
    case application:get_env(baguette_web, teller, undefined) of
        undefined -> Plain;
        Teller -> Ask(Teller)
    end.
