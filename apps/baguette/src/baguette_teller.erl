%% @doc What the web room is told in words: the event log, why an expert is missing, what an error
%% means. The setting `teller' of baguette_web names this module (config/sys.config), because the
%% web room knows nothing of the face. Reads tables; calls nobody.
-module(baguette_teller).

-export([recent/1, missing/1, error/1]).

%% @doc The last N events of this node, oldest first, each with its sentence.
-spec recent(pos_integer()) -> [#{atom() => number() | binary()}].
recent(N) ->
    Events = lists:sort(fun earlier/2, baguette_events:lately()),
    [told(Event) || Event <- lists:nthtail(max(0, length(Events) - N), Events)].

earlier(#{at_us := A}, #{at_us := B}) -> A =< B.

told(#{at_us := At, level := Level, what := What, room := Room} = Event) ->
    Told = #{
        at => At / 1000000,
        level => atom_to_binary(Level),
        what => text(What),
        room => text(Room),
        text => unicode:characters_to_binary(baguette_story:sentence(Event))
    },
    maps:merge(Told, maps:with([generation], Event)).

text(Name) when is_atom(Name) -> atom_to_binary(Name);
text(Name) -> Name.

%% @doc Why an expert cannot be asked now (a fact of baguette_cluster:why_missing/1), or for what
%% else a generation waits.
-spec missing(term()) -> binary().
missing(Why) ->
    unicode:characters_to_binary(baguette_text:missing(Why)).

%% @doc What an error of the engine means, and what to do next.
-spec error(term()) -> binary().
error(Reason) ->
    unicode:characters_to_binary(baguette_text:error(Reason)).
