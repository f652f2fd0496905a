%% @doc The event log in words, from the module that the setting `teller' names: sentences are the
%% face's, which this room knows nothing of. Called by baguette_web_cluster_h.
-module(baguette_web_teller).

-export([recent/1]).

-callback recent(non_neg_integer()) -> [map()].

%% @doc The last events of this node, oldest first: at (seconds since 1970), level, room, text, and
%% generation where it is of one. Without a teller there are none.
-spec recent(non_neg_integer()) -> [map()].
recent(Count) ->
    case application:get_env(baguette_web, teller, undefined) of
        undefined -> [];
        Teller -> Teller:recent(Count)
    end.
