%% @doc Whose turn it is: fair by work between clients, and what one client asked for in the order
%% it came. Pure; only baguette_web_job_turns holds one.
%%
%% Start-time fair queueing (Goyal, Vin and Cheng, 1996): what a client begins advances its own time
%% by its work, and of those who wait the one with the least time begins next. The clock shows the
%% time of who began last; who comes anew starts there, so that nobody saves up turns by staying
%% away. While two wait, neither begins more than the other by more than one job's work. Who goes
%% while he is ahead of the clock is remembered until it has caught up: going and coming again
%% forgives nobody what he began.
-module(baguette_web_fair).

-export([new/0, in/4, out/1, remove/3, order/1, size/1, size/2, work/1, clients/1]).
-export_type([fair/0, fair/1, client/0, work/0]).

-type client() :: binary().
-type work() :: pos_integer().
-type time() :: non_neg_integer().
%% Of those with the same time, who has it longest comes first.
-type turn() :: {time(), Since :: pos_integer(), client()}.

-record(?MODULE, {
    clock = 0 :: time(),
    changes = 0 :: non_neg_integer(),
    turns = gb_sets:new() :: gb_sets:set(turn()),
    %% None of them waits for nothing.
    waiting = #{} :: #{client() => {turn(), queue:queue({term(), work()})}},
    %% Wait for nothing, and are ahead of the clock.
    ahead = #{} :: #{client() => time()}
}).
%% The items' type is for the reader's sake: the record keeps any.
-opaque fair(_Item) :: #?MODULE{}.
-type fair() :: fair(term()).

-spec new() -> fair().
new() -> #?MODULE{}.

%% @doc One more thing a client waits for.
-spec in(client(), Item, work(), fair(Item)) -> fair(Item).
in(Client, Item, Work, #?MODULE{waiting = Waiting, ahead = Ahead, clock = Clock} = F) ->
    case Waiting of
        #{Client := {Turn, Items}} ->
            F#?MODULE{waiting = Waiting#{Client := {Turn, queue:in({Item, Work}, Items)}}};
        _ ->
            Known = F#?MODULE{ahead = maps:remove(Client, Ahead)},
            Items = queue:from_list([{Item, Work}]),
            waits(Client, maps:get(Client, Ahead, Clock), Items, Known)
    end.

waits(Client, Time, Items, F) ->
    #?MODULE{changes = Changes, turns = Turns, waiting = Waiting} = F,
    Turn = {Time, Changes + 1, Client},
    F#?MODULE{
        changes = Changes + 1, turns = gb_sets:add(Turn, Turns),
        waiting = Waiting#{Client => {Turn, Items}}
    }.

%% @doc What begins next, its work, and what is left.
-spec out(fair(Item)) -> {Item, work(), fair(Item)} | empty.
out(#?MODULE{turns = Turns, waiting = Waiting} = F) ->
    case gb_sets:is_empty(Turns) of
        true ->
            empty;
        false ->
            {{Time, _, Client}, Others} = gb_sets:take_smallest(Turns),
            {{_, Items}, Left} = maps:take(Client, Waiting),
            {{value, {Item, Work}}, Rest} = queue:out(Items),
            Advanced = clock(Time, F#?MODULE{turns = Others, waiting = Left}),
            {Item, Work, goes_on(Client, Time + Work, Rest, Advanced)}
    end.

clock(Time, #?MODULE{ahead = Ahead} = F) ->
    F#?MODULE{clock = Time, ahead = maps:filter(fun(_, Own) -> Own > Time end, Ahead)}.

goes_on(Client, Time, Items, #?MODULE{ahead = Ahead, clock = Clock} = F) ->
    case queue:is_empty(Items) of
        false -> waits(Client, Time, Items, F);
        true when Time > Clock -> F#?MODULE{ahead = Ahead#{Client => Time}};
        true -> F
    end.

%% @doc A client waits for this no more. Its turn, and everybody else's, stays.
-spec remove(client(), Item, fair(Item)) -> fair(Item).
remove(Client, Item, #?MODULE{turns = Turns, waiting = Waiting} = F) ->
    case Waiting of
        #{Client := {{Time, _, _} = Turn, Items}} ->
            Rest = queue:filter(fun({I, _}) -> I =/= Item end, Items),
            case queue:is_empty(Rest) of
                false ->
                    F#?MODULE{waiting = Waiting#{Client := {Turn, Rest}}};
                true ->
                    goes_on(Client, Time, Rest, F#?MODULE{
                        turns = gb_sets:del_element(Turn, Turns),
                        waiting = maps:remove(Client, Waiting)
                    })
            end;
        _ ->
            F
    end.

%% @doc Everything that waits, in the order in which it will come out if nothing else comes in.
-spec order(fair(Item)) -> [Item].
order(Fair) ->
    %% Who is ahead matters to those who come: nobody does here, and to forget each takes its time.
    case out(Fair#?MODULE{ahead = #{}}) of
        empty -> [];
        {Item, _, Rest} -> [Item | order(Rest)]
    end.

-spec size(fair()) -> non_neg_integer().
size(#?MODULE{waiting = Waiting}) ->
    lists:sum([queue:len(Items) || {_, Items} <- maps:values(Waiting)]).

%% @doc How much one client waits for.
-spec size(client(), fair()) -> non_neg_integer().
size(Client, #?MODULE{waiting = Waiting}) ->
    case Waiting of
        #{Client := {_, Items}} -> queue:len(Items);
        _ -> 0
    end.

%% @doc The work of all that waits.
-spec work(fair()) -> non_neg_integer().
work(#?MODULE{waiting = Waiting}) ->
    lists:sum([W || {_, Items} <- maps:values(Waiting), {_, W} <- queue:to_list(Items)]).

%% @doc Of how many clients anything is remembered.
-spec clients(fair()) -> non_neg_integer().
clients(#?MODULE{waiting = Waiting, ahead = Ahead}) ->
    map_size(Waiting) + map_size(Ahead).
