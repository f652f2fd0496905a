%% @doc The last ?KEPT events of this node, for baguette:events(): a handler of kernel's logger,
%% named in config/sys.config so that it hears the rooms start.
%%
%% log/2 runs in whatever process logs: it makes the event small, inserts it, takes the oldest one
%% away, and never calls anybody. The table is public and belongs to a process that does nothing
%% else, started when the handler is added and ended when it is removed; who logs may die at will.
-module(baguette_events).

-export([lately/0, between/2, spans/1]).
-export([adding_handler/1, removing_handler/1, log/2]).
-export([own/1]).
-export_type([span/0]).

-type event() :: baguette_event:event().
%% When a generation was first and last heard of here.
-type span() :: #{generation := binary(), from_us := integer(), to_us := integer()}.

-define(KEPT, 2000).
-define(COUNT, count).

%% @doc All that is kept, oldest first.
-spec lately() -> [event()].
lately() ->
    try
        [Event || {Number, Event} <- ets:tab2list(?MODULE), is_integer(Number)]
    catch
        %% A node whose configuration names no such handler keeps nothing.
        error:badarg -> []
    end.

%% @doc What is kept of that time (microseconds of system time), both ends included.
-spec between(integer(), integer()) -> [event()].
between(From, To) ->
    [Event || #{at_us := At} = Event <- lately(), At >= From, At =< To].

%% @doc The generations whose id begins so, as far as they are kept here.
-spec spans(binary()) -> [span()].
spans(Prefix) ->
    Size = byte_size(Prefix),
    Times = [
        {Id, At}
     || #{generation := <<Head:Size/binary, _/binary>> = Id, at_us := At} <- lately(),
        Head =:= Prefix
    ],
    [
        #{generation => Id, from_us => lists:min(Own), to_us => lists:max(Own)}
     || Id <- lists:usort([Id || {Id, _} <- Times]),
        Own <- [[At || {Same, At} <- Times, Same =:= Id]]
    ].

%% --- kernel's logger calls these

-spec adding_handler(logger:handler_config()) -> {ok, logger:handler_config()}.
adding_handler(Config) ->
    Adding = self(),
    {Owner, Monitor} = spawn_monitor(?MODULE, own, [Adding]),
    receive
        {Owner, owns} ->
            true = demonitor(Monitor, [flush]),
            {ok, Config#{config => #{owner => Owner}}};
        {'DOWN', Monitor, process, Owner, Why} ->
            {error, Why}
    end.

-spec removing_handler(logger:handler_config()) -> ok.
removing_handler(#{config := #{owner := Owner}}) ->
    Monitor = monitor(process, Owner),
    Owner ! {self(), give_up},
    receive
        {'DOWN', Monitor, process, Owner, _} -> ok
    end.

%% @doc Body of the table's owner.
-spec own(pid()) -> ok.
own(Adding) ->
    ?MODULE = ets:new(?MODULE, [named_table, public, ordered_set, {write_concurrency, true}]),
    true = ets:insert(?MODULE, {?COUNT, 0}),
    Adding ! {self(), owns},
    receive
        {_Remover, give_up} -> ok
    end.

%% An exception here would have the logger take the handler away, and tell the whole cluster of it.
-spec log(logger:log_event(), logger:handler_config()) -> ok.
log(Entry, _Config) ->
    try
        Event = baguette_event:from_log(Entry),
        Number = ets:update_counter(?MODULE, ?COUNT, 1),
        true = ets:insert(?MODULE, {Number, Event}),
        true = ets:delete(?MODULE, Number - ?KEPT),
        ok
    catch
        %% While the handler is removed; a term that cannot be told is in no story either. A
        %% library's own words about itself may do anything, and a handler that fails is removed.
        _:_ -> ok
    end.
