%% @doc The log's formatter: one JSON line an event, never over ?BYTES, whatever was logged. Named
%% in config/sys.config and called by the handler in the process that logs. The fields are listed in
%% docs/internals/events.md; the workers (baguette.worker) write `at', `level' and `what' alike.
-module(baguette_log).

-export([format/2, check_config/1]).

-define(BYTES, 4000).
%% What a line that is too long is cut to, in turn; facts that are still too many are left out.
-define(NARROWER, [
    #{depth => 4, items => 12, text => 120},
    #{depth => 2, items => 8, text => 40}
]).

-spec check_config(logger:formatter_config()) -> ok.
check_config(_Config) -> ok.

-spec format(logger:log_event(), logger:formatter_config()) -> unicode:chardata().
format(#{level := Level, meta := Meta} = Entry, _Config) ->
    try
        [line(baguette_event:from_log(Entry)), $\n]
    catch
        %% The stock formatter would take our place and print all that we leave out.
        Class:_ ->
            Facts = #{class => Class},
            At = maps:get(time, Meta, 0),
            Failed = #{what => not_formatted, level => Level, room => face, facts => Facts},
            [encode(Failed#{at_us => At}, Facts, false), $\n]
    end.

line(#{facts := Facts} = Event) ->
    Told = Event#{text => sentence(Event)},
    within(encode(Told, Facts, false), Told, ?NARROWER).

within(Line, _Event, _Limits) when byte_size(Line) =< ?BYTES -> Line;
within(_Line, #{facts := Facts} = Event, [Limits | Narrower]) ->
    within(encode(Event, baguette_plain:fact(Facts, Limits), true), Event, Narrower);
within(_Line, Event, []) ->
    encode(Event, #{}, true).

encode(#{at_us := At, level := Level, what := What, room := Room} = Event, Facts, Cut) ->
    iolist_to_binary(jiffy:encode({
        [{at, stamp(At)}, {level, Level}, {what, json(What)}] ++
            [{generation, text(Id)} || #{generation := Id} <- [Event]] ++
            [{node, baguette_event:address(node())}, {room, json(Room)}] ++
            [{text, Text} || #{text := Text} <- [Event]] ++
            [{facts, json(Facts)}] ++
            [{cut, true} || Cut]
    })).

sentence(Event) ->
    unicode:characters_to_binary(baguette_story:sentence(Event)).

stamp(Micros) ->
    Options = [{unit, millisecond}, {offset, "Z"}],
    list_to_binary(calendar:system_time_to_rfc3339(Micros div 1000, Options)).

json(undefined) -> null;
json(Atom) when is_boolean(Atom); Atom =:= null -> Atom;
json(Atom) when is_atom(Atom) -> baguette_event:address(Atom);
json(Number) when is_number(Number) -> Number;
json(Text) when is_binary(Text) -> text(Text);
json(List) when is_list(List) -> [json(Item) || Item <- List];
json(Tuple) when is_tuple(Tuple) -> [json(Item) || Item <- tuple_to_list(Tuple)];
json(Map) when is_map(Map) ->
    Named = maps:from_list([{key(Key), json(Value)} || {Key, Value} <- maps:to_list(Map)]),
    {maps:to_list(Named)}.

key(Key) when is_atom(Key) -> baguette_event:address(Key);
key(Key) -> text(Key).

%% A generation's id is no fact, so it has not been made plain.
text(Bytes) ->
    case baguette_plain:text(Bytes, ?BYTES) of
        {ok, Text} -> Text;
        none -> <<"no text">>
    end.
