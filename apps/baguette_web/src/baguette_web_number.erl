%% @doc A number that a client wrote: digits, and nothing else that Erlang would read as one. Pure;
%% called for headers, queries and paths.
-module(baguette_web_number).

-export([read/1]).

%% Enough for every number here, few enough for a small one.
-define(MAX_DIGITS, 18).

%% @doc The number, if this is one of ours: no sign, no blank, no more digits than any has.
-spec read(binary() | string()) -> {ok, non_neg_integer()} | error.
read(Text) when is_binary(Text), byte_size(Text) =< ?MAX_DIGITS -> of_digits(binary_to_list(Text));
read(Text) when is_list(Text), length(Text) =< ?MAX_DIGITS -> of_digits(Text);
read(_) -> error.

of_digits([_ | _] = Text) ->
    case lists:all(fun(C) -> C >= $0 andalso C =< $9 end, Text) of
        true -> {ok, list_to_integer(Text)};
        false -> error
    end;
of_digits([]) ->
    error.
