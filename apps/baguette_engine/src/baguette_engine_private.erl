%% @doc What a crash report may show of a process that handles prompts and pictures: its state
%% without them, and of messages only that there were some. Used by the format_status/1 of every
%% such process. A reason is shown by name, because a failed match holds what it was matched with.
-module(baguette_engine_private).

-export([status/2, shape/1]).

%% @doc `Redact' takes what is private out of the state.
-spec status(map(), fun((term()) -> term())) -> map().
status(Status, Redact) ->
    maps:map(fun(Key, Value) -> shown(Key, Value, Redact) end, Status).

shown(state, State, Redact) -> Redact(State);
shown(data, Data, Redact) -> Redact(Data);
shown(message, _, _) -> not_shown;
shown(reason, {Reason, [{_, _, _, _} | _]}, _) -> name(Reason);
shown(reason, Reason, _) -> name(Reason);
shown(log, _, _) -> [];
shown(queue, _, _) -> [];
shown(postponed, _, _) -> [];
shown(_, Value, _) -> Value.

name(Reason) when is_atom(Reason) -> Reason;
name(Reason) when is_tuple(Reason), is_atom(element(1, Reason)) -> element(1, Reason);
name(_) -> other.

%% @doc What may be told of a message that nobody here understands, say of a later version.
-spec shape(term()) -> {pos_integer(), term()} | other.
shape(Term) when is_tuple(Term), tuple_size(Term) > 0 -> {tuple_size(Term), element(1, Term)};
shape(_) -> other.
