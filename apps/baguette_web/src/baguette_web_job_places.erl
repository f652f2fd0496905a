%% @doc Places in the queue that are promised and not yet written, and which job answers to which
%% key: pure. Only baguette_web_job_admission holds one; a promise is kept or given up by who got it
%% (baguette_web_jobs), and those who sent the same meanwhile wait for that.
-module(baguette_web_job_places).

-export([new/0, named/2, waits/4, promise/4, take/2, of_monitor/2, count/1, count/2]).
-export([keyed/4, forget/3]).
-export_type([places/0, ask/0, promise/0]).

-type ask() :: #{
    client := binary(), key := binary() | null, hash := binary(), images := pos_integer(),
    trouble := none | {atom(), map()}    % why nothing new can be taken now
}.
%% The monitor of who writes it, what he asked for, and who sent the same since, newest first.
-type promise() :: {reference(), ask(), [{gen_server:from(), ask()}]}.

-record(?MODULE, {
    promised = #{} :: #{binary() => promise()},
    keys = #{} :: #{{Client :: binary(), Key :: binary()} => binary()}
}).
-opaque places() :: #?MODULE{}.

-spec new() -> places().
new() -> #?MODULE{}.

%% @doc The job that this client asked for under this key.
-spec named(ask(), places()) -> {ok, binary()} | unknown.
named(#{client := Client, key := Key}, #?MODULE{keys = Keys}) ->
    case Keys of
        #{{Client, Key} := Id} -> {ok, Id};
        _ -> unknown
    end.

%% @doc Who asks for what is promised to another is answered when that is written. `no' if this is
%% not promised, or what he asks for is not the same.
-spec waits(binary(), gen_server:from(), ask(), places()) -> {wait, places()} | no.
waits(Id, From, #{hash := Hash} = Ask, #?MODULE{promised = Promised} = P) ->
    case Promised of
        #{Id := {Monitor, #{hash := Hash} = First, Same}} ->
            {wait, P#?MODULE{promised = Promised#{Id := {Monitor, First, [{From, Ask} | Same]}}}};
        _ ->
            no
    end.

-spec promise(binary(), reference(), ask(), places()) -> places().
promise(Id, Monitor, #{client := Client, key := Key} = Ask, #?MODULE{promised = Promised} = P) ->
    keyed(Client, Key, Id, P#?MODULE{promised = Promised#{Id => {Monitor, Ask, []}}}).

%% @doc It is promised no more: written, or given up. Its key stays.
-spec take(binary(), places()) -> {promise(), places()}.
take(Id, #?MODULE{promised = Promised} = P) ->
    {Promise, Rest} = maps:take(Id, Promised),
    {Promise, P#?MODULE{promised = Rest}}.

%% @doc What the process of this monitor was to write.
-spec of_monitor(reference(), places()) -> [binary()].
of_monitor(Monitor, #?MODULE{promised = Promised}) ->
    [Id || {Id, {M, _, _}} <- maps:to_list(Promised), M =:= Monitor].

-spec count(places()) -> non_neg_integer().
count(#?MODULE{promised = Promised}) -> map_size(Promised).

-spec count(Client :: binary(), places()) -> non_neg_integer().
count(Client, #?MODULE{promised = Promised}) ->
    length([C || {_, #{client := C}, _} <- maps:values(Promised), C =:= Client]).

%% @doc A client's name for a job; null is none.
-spec keyed(Client :: binary(), binary() | null, Id :: binary(), places()) -> places().
keyed(_Client, null, _Id, P) -> P;
keyed(Client, Key, Id, #?MODULE{keys = Keys} = P) -> P#?MODULE{keys = Keys#{{Client, Key} => Id}}.

-spec forget(Client :: binary(), binary() | null, places()) -> places().
forget(Client, Key, #?MODULE{keys = Keys} = P) ->
    P#?MODULE{keys = maps:remove({Client, Key}, Keys)}.
