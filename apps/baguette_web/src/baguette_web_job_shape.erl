%% @doc Whether what was read from a job's file is a job: every field there is and is of its kind.
%% Pure; called by baguette_web_job_files before anything of it is believed. A file may be of
%% another version, or somebody's work.
-module(baguette_web_job_shape).

-export([is_job/1]).

%% @doc Whether this is a job as baguette_web_job_record makes them, keys as binaries.
-spec is_job(term()) -> boolean().
is_job(#{} = Job) ->
    lists:all(
        fun({Key, Is}) ->
            case Job of
                #{Key := Value} -> Is(Value);
                _ -> false
            end
        end,
        fields()
    );
is_job(_) ->
    false.

fields() ->
    Number = or_null(fun erlang:is_number/1),
    Text = fun erlang:is_binary/1,
    [{Key, Text} || Key <- [<<"id">>, <<"status">>, <<"client">>, <<"node">>]] ++
        [{Key, fun is_count/1} || Key <- [<<"step">>, <<"steps">>, <<"resumed">>]] ++
        [{Key, Number} || Key <- [<<"started">>, <<"finished">>, <<"predicted_seconds">>]] ++
        [{Key, list_of(fun erlang:is_map/1)} || Key <- [<<"calls">>, <<"failovers">>]] ++
        [{Key, list_of(fun erlang:is_map/1)} || Key <- [<<"hedges">>, <<"degraded">>]] ++
        [{Key, or_null(fun erlang:is_map/1)} || Key <- [<<"waiting">>, <<"error">>]] ++
        [
            {<<"created">>, fun erlang:is_number/1},
            {<<"seconds">>, Number},
            {<<"position">>, or_null(fun is_count/1)},
            {<<"phase">>, or_null(Text)},
            {<<"request">>, fun erlang:is_map/1},
            {<<"routing">>, list_of(fun is_routed/1)},
            {<<"images">>, list_of(fun erlang:is_map/1)}
        ].

is_count(Value) -> is_integer(Value) andalso Value >= 0.

is_routed(#{<<"step">> := Step, <<"experts">> := Experts, <<"asked">> := #{}}) ->
    is_count(Step) andalso is_list(Experts);
is_routed(_) ->
    false.

or_null(Is) -> fun(Value) -> Value =:= null orelse Is(Value) end.

list_of(Is) -> fun(Value) -> is_list(Value) andalso lists:all(Is, Value) end.
