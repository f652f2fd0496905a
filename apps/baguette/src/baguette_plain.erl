%% @doc Any term made small and harmless, so that it can be kept, sent and printed: bounded in
%% depth, length and text, bytes that are no text by their number only, nothing that a terminal
%% would obey. Pure; baguette_event makes the facts of every event with it. fact/2 is for what our
%% own rooms say, text included; shape/1 is for what OTP tells of a crash, where a text may be
%% somebody's prompt.
-module(baguette_plain).

-export([fact/2, shape/1, text/2, line/2, frames/1]).
-export_type([plain/0, limits/0]).

%% Atoms stay atoms and tuples tuples: sentences are made of them.
-type plain() ::
    atom() | number() | binary() | [plain()] | tuple() | #{atom() | binary() => plain()}.
-type limits() :: #{depth := pos_integer(), items := pos_integer(), text := pos_integer()}.

-define(SHAPE_DEPTH, 4).
-define(SHAPE_ITEMS, 8).
-define(FRAMES, 6).
%% Shorter lists of small numbers are taken for numbers: experts, milliseconds.
-define(MIN_CHARACTERS, 4).

%% @doc A fact with its texts, cut to these limits.
-spec fact(term(), limits()) -> plain().
fact(Term, #{depth := Depth} = Limits) ->
    fact(Term, Depth, Limits).

fact(Atom, _Depth, _Limits) when is_atom(Atom) ->
    Atom;
fact(Number, _Depth, _Limits) when is_number(Number) ->
    number(Number);
fact(Binary, _Depth, #{text := Max}) when is_binary(Binary) ->
    case text(Binary, Max) of
        {ok, Text} -> Text;
        none -> bytes(Binary)
    end;
fact([], _Depth, _Limits) ->
    [];
fact(Tuple, _Depth, _Limits) when tuple_size(Tuple) =:= 0 ->
    Tuple;
fact(Compound, 0, _Limits) when is_list(Compound); is_tuple(Compound); is_map(Compound) ->
    <<"...">>;
fact(List, Depth, #{items := Items, text := Max} = Limits) when is_list(List) ->
    case characters(List, Max) of
        {ok, Text} -> Text;
        none -> walk(List, Items, fun(Item) -> fact(Item, Depth - 1, Limits) end)
    end;
fact(Tuple, Depth, Limits) when is_tuple(Tuple) ->
    tuple(Tuple, fun(Item) -> fact(Item, Depth - 1, Limits) end, maps:get(items, Limits));
fact(Map, Depth, #{items := Items} = Limits) when is_map(Map) ->
    First = pairs(maps:next(maps:iterator(Map)), Items),
    maps:from_list([{key(K, Limits), fact(V, Depth - 1, Limits)} || {K, V} <- First]);
fact(Other, _Depth, _Limits) ->
    opaque(Other).

%% @doc What a term is made of, without any text: tags, numbers and sizes.
-spec shape(term()) -> atom() | number() | binary() | [plain()] | tuple().
shape(Term) ->
    shape(Term, ?SHAPE_DEPTH).

shape(Atom, _Depth) when is_atom(Atom) ->
    Atom;
shape(Number, _Depth) when is_number(Number) ->
    number(Number);
shape(Binary, _Depth) when is_binary(Binary) ->
    bytes(Binary);
shape(Map, _Depth) when is_map(Map) ->
    <<"<map of ", (integer_to_binary(map_size(Map)))/binary, ">">>;
shape([], _Depth) ->
    [];
shape(List, Depth) when is_list(List) ->
    %% Numbers in a list may be characters, whatever else is among them.
    case Depth =:= 0 orelse has_number(List) of
        true -> <<"<list>">>;
        false -> walk(List, ?SHAPE_ITEMS, fun(Item) -> shape(Item, Depth - 1) end)
    end;
shape(Tuple, 0) when is_tuple(Tuple) ->
    <<"<tuple>">>;
shape(Tuple, Depth) when is_tuple(Tuple) ->
    tuple(Tuple, fun(Item) -> shape(Item, Depth - 1) end, ?SHAPE_ITEMS);
shape(Other, _Depth) ->
    opaque(Other).

%% @doc The text in these bytes or characters, cut to so many bytes; control characters become
%% blanks.
-spec text(term(), pos_integer()) -> {ok, binary()} | none.
text(Binary, Max) when is_binary(Binary), byte_size(Binary) > Max ->
    Head = binary:part(Binary, 0, Max),
    case unicode:characters_to_list(Head) of
        List when is_list(List) -> printable(List, "...");
        %% the cut went through a character
        {incomplete, List, Rest} when byte_size(Rest) < 4 -> printable(List, "...");
        _ -> none
    end;
text(Binary, _Max) when is_binary(Binary) ->
    case unicode:characters_to_list(Binary) of
        List when is_list(List) -> printable(List, "");
        _ -> none
    end;
text(Chardata, Max) ->
    try unicode:characters_to_binary(Chardata) of
        Binary when is_binary(Binary) -> text(Binary, Max);
        _ -> none
    catch
        error:badarg -> none
    end.

%% @doc Text for one line of a terminal, so many characters of it, whatever names are in it.
-spec line(unicode:chardata(), pos_integer()) -> unicode:chardata().
line(Chardata, Max) ->
    Characters = unicode:characters_to_list(Chardata),
    Cut = case length(Characters) > Max of true -> "..."; false -> "" end,
    [[visible(C) || C <- lists:sublist(Characters, Max)], Cut].

visible(C) ->
    case C >= 32 andalso io_lib:printable_unicode_list([C]) of
        true -> C;
        false -> $\s
    end.

%% @doc The innermost calls of a stack: names and lines, arguments by their number.
-spec frames(term()) -> [binary()].
frames([{_, _, _, _} | _] = Stack) ->
    [Frame || {M, F, A, Where} <- head(Stack, ?FRAMES), Frame <- frame(M, F, A, Where)];
frames(_) ->
    [].

frame(Module, Function, Args, Where) when is_atom(Module), is_atom(Function), is_list(Where) ->
    Arity = case is_list(Args) of true -> length(Args); false -> Args end,
    At = [io_lib:format(" line ~0p", [Line]) || {line, Line} <- Where],
    [unicode:characters_to_binary(io_lib:format("~ts:~ts/~0p~ts", [Module, Function, Arity, At]))];
frame(_Module, _Function, _Args, _Where) ->
    [].

%% --- pieces

number(Integer) when is_integer(Integer), abs(Integer) >= 1 bsl 64 ->
    Size = byte_size(binary:encode_unsigned(abs(Integer))),
    <<"<a number of ", (integer_to_binary(Size))/binary, " bytes>">>;
number(Number) ->
    Number.

bytes(Binary) -> <<"<", (integer_to_binary(byte_size(Binary)))/binary, " bytes>">>.

%% Pids, references, ports, functions; of a bitstring only its size.
opaque(Bits) when is_bitstring(Bits) ->
    <<"<", (integer_to_binary(bit_size(Bits)))/binary, " bits>">>;
opaque(Other) ->
    unicode:characters_to_binary(io_lib:format("~0tp", [Other])).

key(Atom, _Limits) when is_atom(Atom) -> Atom;
key(Key, #{text := Max}) ->
    case is_binary(Key) andalso text(Key, Max) of
        {ok, Text} -> Text;
        _ -> unicode:characters_to_binary(io_lib:format("~0tP", [shape(Key), 9]))
    end.

tuple(Tuple, Fun, Items) when tuple_size(Tuple) =< Items ->
    list_to_tuple([Fun(Item) || Item <- tuple_to_list(Tuple)]);
tuple(Tuple, Fun, Items) ->
    list_to_tuple([Fun(element(I, Tuple)) || I <- lists:seq(1, Items)] ++ [<<"...">>]).

%% Improper tails are items like the others.
walk([], _Left, _Fun) -> [];
walk(_More, 0, _Fun) -> [<<"...">>];
walk([Item | Rest], Left, Fun) -> [Fun(Item) | walk(Rest, Left - 1, Fun)];
walk(Tail, _Left, Fun) -> [Fun(Tail)].

head([Item | Rest], Left) when Left > 0 -> [Item | head(Rest, Left - 1)];
head(_, _) -> [].

pairs(none, _Left) -> [];
pairs(_, 0) -> [{'...', <<"...">>}];
pairs({Key, Value, Next}, Left) -> [{Key, Value} | pairs(maps:next(Next), Left - 1)].

has_number([Item | _]) when is_number(Item) -> true;
has_number([_ | Rest]) -> has_number(Rest);
has_number(_) -> false.

%% A list of characters, not of numbers: all of it can be printed, and some of it is a letter.
characters(List, Max) ->
    Head = head(List, Max),
    Long = length(Head) >= ?MIN_CHARACTERS,
    case Long andalso io_lib:printable_unicode_list(Head) andalso lists:any(fun letter/1, Head) of
        true when length(Head) < Max -> tail_of_text(List, Head);
        true -> printable(Head, "...");
        false -> none
    end.

tail_of_text(List, Head) ->
    case List =:= Head of
        true -> printable(Head, "");
        false -> none
    end.

letter(C) -> (C >= $a andalso C =< $z) orelse (C >= $A andalso C =< $Z).

printable(List, More) ->
    case io_lib:printable_unicode_list(List) of
        true -> {ok, unicode:characters_to_binary([blank(List), More])};
        false -> none
    end.

blank(List) -> [case C < 32 of true -> $\s; false -> C end || C <- List].
