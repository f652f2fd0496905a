%% @doc ErlPort's messages as frames, pure; the twin of python_worker/baguette/worker/runner.py.
%%
%% The port driver adds {packet,4}'s length. Called by baguette_engine_worker only.
%% Version history: 1 - ErlPort 0.11's 'C', 'r', 'e', 'M', and {cancel, Id} as an 'M' to Python.
%% 2 - a 'C' with several payloads is as many calls; its 'r' has a list of their answers, in order:
%% {ok, Payload} | {error, {python, Class, Message, Traceback}}.
%% 3 - a 'C' may say which others it may be computed with, and {begun, Ids} as an 'M' from Python
%% says which were.
-module(baguette_engine_frame).

-export([call/5, cancel/1, decode/1]).

-export_type([id/0, error/0, error_class/0, incoming/0]).

-type id() :: non_neg_integer().
%% The names of python_worker/baguette/errors.py; decoding with `safe' needs the atoms to exist.
-type error_class() ::
    bad_input | bad_weights | not_held | not_finite | out_of_memory | device_lost | failure.
-type error() :: {error_class(), Message :: binary(), Traceback :: binary()}.
-type incoming() ::
    {result, id(), [{ok, binary()} | {error, error()}, ...]}
    | {error, id(), error()}
    | {begun, [id()]}
    | {message, term()}
    | malformed.

%% @doc Calls of an entry point, each of them bytes in, bytes out. They may be computed with others
%% of their group that are there by then, while all of them have no more rows than `Most'.
-spec call(id(), module(), atom(), [binary(), ...], alone | {Group, Rows, Most}) -> [binary()] when
    Group :: non_neg_integer(), Rows :: pos_integer(), Most :: pos_integer().
call(Id, Module, Function, Payloads, alone) ->
    erlang:term_to_iovec({'C', Id, Module, Function, Payloads});
call(Id, Module, Function, Payloads, {_Group, _Rows, _Most} = Company) ->
    erlang:term_to_iovec({'C', Id, Module, Function, Payloads, Company}).

%% @doc Ask the worker to drop a call that it has not begun.
-spec cancel(id()) -> [binary()].
cancel(Id) ->
    erlang:term_to_iovec({'M', {cancel, Id}}).

%% @doc What a frame from the worker says. Anything unexpected is `malformed': the owner then ends
%% the worker, because a stream that is wrong once cannot be trusted again.
-spec decode(binary()) -> incoming().
decode(Frame) ->
    try
        read(binary_to_term(Frame, [safe]))
    catch
        error:_ -> malformed
    end.

read({r, Id, Result}) when is_integer(Id), is_binary(Result) ->
    {result, Id, [{ok, Result}]};
read({r, Id, [_, _ | _] = Results}) when is_integer(Id) ->
    {result, Id, lists:map(fun one/1, Results)};
read({e, Id, Error}) when is_integer(Id) ->
    {error, Id, failure(Error)};
read({'M', {begun, [_ | _] = Ids}}) ->
    true = lists:all(fun is_integer/1, Ids),
    {begun, Ids};
read({'M', Message}) ->
    {message, Message};
read(_) ->
    malformed.

one({ok, Payload}) when is_binary(Payload) -> {ok, Payload};
one({error, Error}) -> {error, failure(Error)}.

failure({python, Class, Message, Trace}) when is_binary(Message), is_binary(Trace) ->
    {class(Class), Message, Trace}.

class(bad_input) -> bad_input;
class(bad_weights) -> bad_weights;
class(not_held) -> not_held;
class(not_finite) -> not_finite;
class(out_of_memory) -> out_of_memory;
class(device_lost) -> device_lost;
class(_) -> failure.
