%% @doc Words for facts, from the module that the setting `teller' names: this room makes none of
%% its own about the engine or the log. Without one there are no events, and a fact is its name.
-module(baguette_web_teller).

-export([recent/1, missing/1, error/1]).

-callback recent(pos_integer()) -> [#{atom() => number() | binary()}].
-callback missing(Why :: term()) -> binary().
-callback error(Reason :: term()) -> binary().

%% @doc The last events of this node, oldest first: at (seconds), level, room, what, text, and
%% generation where it is of one.
-spec recent(pos_integer()) -> [#{atom() => number() | binary()}].
recent(N) ->
    ask(recent, N, fun(_) -> [] end).

%% @doc Why an expert cannot be asked now.
-spec missing(term()) -> binary().
missing(Why) ->
    ask(missing, Why, fun plain/1).

%% @doc What an error of the engine means, and what to do next.
-spec error(term()) -> binary().
error(Reason) ->
    ask(error, Reason, fun plain/1).

ask(Function, Fact, Otherwise) ->
    case application:get_env(baguette_web, teller, undefined) of
        undefined -> Otherwise(Fact);
        Teller -> Teller:Function(Fact)
    end.

plain(Fact) ->
    unicode:characters_to_binary(io_lib:format("~0tP", [Fact, 12])).
