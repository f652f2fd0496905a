%% @doc ErlPort's messages as frames, pure; the twin of python_worker/baguette/worker/runner.py.
%%
%% The port driver adds {packet,4}'s length. Called by baguette_engine_worker only.
%% Version history: 1 - ErlPort 0.11's 'C', 'r', 'e', 'M', and {cancel, Id} as an 'M' to Python.
-module(baguette_engine_frame).

-export([call/4, cancel/1, decode/1]).

-export_type([id/0, error_class/0, incoming/0]).

-type id() :: non_neg_integer().
%% The names of python_worker/baguette/errors.py; decoding with `safe' needs the atoms to exist.
-type error_class() ::
    bad_input | bad_weights | not_held | not_finite | out_of_memory | device_lost | failure.
-type incoming() ::
    {result, id(), binary()}
    | {error, id(), error_class(), Message :: binary(), Traceback :: binary()}
    | {message, term()}
    | malformed.

%% @doc A call of an entry point: bytes in, bytes out.
-spec call(id(), module(), atom(), binary()) -> [binary()].
call(Id, Module, Function, Payload) ->
    erlang:term_to_iovec({'C', Id, Module, Function, [Payload]}).

%% @doc Ask the worker to drop a call that it has not begun.
-spec cancel(id()) -> [binary()].
cancel(Id) ->
    erlang:term_to_iovec({'M', {cancel, Id}}).

%% @doc What a frame from the worker says. Anything unexpected is `malformed': the owner then ends
%% the worker, because a stream that is wrong once cannot be trusted again.
-spec decode(binary()) -> incoming().
decode(Frame) ->
    try binary_to_term(Frame, [safe]) of
        {r, Id, Result} when is_integer(Id), is_binary(Result) ->
            {result, Id, Result};
        {e, Id, {python, Class, Message, Trace}} when
            is_integer(Id), is_binary(Message), is_binary(Trace)
        ->
            {error, Id, class(Class), Message, Trace};
        {'M', Message} ->
            {message, Message};
        _ ->
            malformed
    catch
        error:badarg -> malformed
    end.

class(bad_input) -> bad_input;
class(bad_weights) -> bad_weights;
class(not_held) -> not_held;
class(not_finite) -> not_finite;
class(out_of_memory) -> out_of_memory;
class(device_lost) -> device_lost;
class(_) -> failure.
