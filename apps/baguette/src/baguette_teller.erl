%% @doc The event log as sentences, for the web room: config/sys.config names this module as its
%% `teller', because the room below knows nothing of the face. Pure but for the table it reads.
-module(baguette_teller).

-export([recent/1]).

%% @doc The last Count events of this node, oldest first, as values for JSON. `at' is in seconds
%% since 1970, and with the microseconds it has tells events apart.
-spec recent(non_neg_integer()) -> [map()].
recent(Count) ->
    Events = baguette_events:lately(),
    [told(Event) || Event <- lists:nthtail(max(0, length(Events) - Count), Events)].

told(#{at_us := At, level := Level, room := Room} = Event) ->
    maps:merge(maps:with([generation], Event), #{
        at => At / 1.0e6,
        level => Level,
        room => Room,
        text => unicode:characters_to_binary(baguette_story:sentence(Event))
    }).
