%% @doc Whose calls come next, and which go together: the calls that wait for a device, pure.
%% Called by baguette_engine_calls and baguette_engine_simulated, in whose process it runs.
%%
%% Self-clocked fair queueing (Golestani, INFOCOM 1994), a row as the unit of work: a call's tag is
%% the end of its asker's call before it, or the time it comes where that is later, and its rows;
%% the lowest tag is first, and is the time while it is computed. So whoever asks for much is behind
%% whoever asks for little, and nobody is passed for ever: not even by askers who ask once and are
%% never seen again, as relayed calls are and pictures of one step, for they pay before they are
%% served. What is first takes others of its group along, in their order, as long as they fit; the
%% first that does not fit ends the batch, so that small calls do not pass a large one for ever.
%%
%% What a call weighs is added up for whoever bounds what may wait (baguette_engine_room).
-module(baguette_engine_turns).

-export([new/0, in/5, out/2, join/3, drop/2, to_list/1, size/1, weight/1]).

-export_type([turns/1, company/0, most/1]).

%% Calls of one group may go together; `last': alone, after all that waits now.
-type company() :: {Group :: term(), Rows :: pos_integer()} | {alone, Rows :: pos_integer()} | last.
%% How much may go together with this call.
-type most(Call) :: fun((Call) -> {Rows :: pos_integer(), Weight :: pos_integer()}).
-type tag() :: {End :: non_neg_integer(), No :: non_neg_integer()}.
-type entry() ::
    {Group :: term(), Rows :: pos_integer(), Weight :: non_neg_integer(), Call :: term()}.

-record(?MODULE, {
    waiting = gb_trees:empty() :: gb_trees:tree(tag(), entry()),
    weight = 0 :: non_neg_integer(), % of all that wait
    %% The end of each asker's last call, of those that are ahead of the time.
    ends = #{} :: #{Asker :: term() => non_neg_integer()},
    %% The tag of what was taken last.
    time = 0 :: non_neg_integer(),
    next_no = 0 :: non_neg_integer()
}).
-opaque turns(_Call) :: #?MODULE{}.

%% @doc Nobody waits.
-spec new() -> turns(_).
new() -> #?MODULE{}.

%% @doc One more call waits.
-spec in(Call, Asker :: term(), company(), Weight :: non_neg_integer(), turns(Call)) ->
    turns(Call).
in(Call, _Asker, last, Weight, #?MODULE{waiting = Waiting, time = Time} = T) ->
    Latest = case gb_trees:is_empty(Waiting) of
        true -> Time;
        false -> element(1, element(1, gb_trees:largest(Waiting)))
    end,
    add({alone, 1, Weight, Call}, Latest, T);
in(Call, Asker, {Group, Rows}, Weight, #?MODULE{ends = Ends, time = Time} = T) ->
    End = max(Time, maps:get(Asker, Ends, 0)) + Rows,
    add({Group, Rows, Weight, Call}, End, T#?MODULE{ends = Ends#{Asker => End}}).

add({_, _, Weight, _} = Entry, End, #?MODULE{waiting = Waiting, next_no = No} = T) ->
    T#?MODULE{
        waiting = gb_trees:insert({End, No}, Entry, Waiting), next_no = No + 1,
        weight = T#?MODULE.weight + Weight
    }.

%% @doc The calls whose turn it is, their group and rows, and how many could still join them: none
%% where the call is alone, or the next of its group does not fit. Several have and weigh no more
%% than `Most'.
-spec out(most(Call), turns(Call)) ->
    {[Call, ...], company(), Room :: non_neg_integer(), turns(Call)} | empty.
out(Most, #?MODULE{waiting = Waiting} = T) ->
    case gb_trees:next(gb_trees:iterator(Waiting)) of
        none ->
            empty;
        {{End, _} = Tag, {Group, Rows, Weight, Call} = First, Rest} ->
            {MostRows, MostWeight} = Most(Call),
            {Others, Room} = company(Group, {MostRows - Rows, MostWeight - Weight}, Rest, []),
            {Tags, Taken} = lists:unzip([{Tag, First} | Others]),
            Left = lists:foldl(fun gb_trees:delete/2, Waiting, Tags),
            Sum = lists:sum([R || {_, R, _, _} <- Taken]),
            {calls(Taken), {Group, Sum}, Room, at(End, without(Taken, Left, T))}
    end.

%% @doc The same, if those whose turn it is are of this group and the first of them fits.
-spec join(Group :: term(), {Rows :: integer(), Weight :: integer()}, turns(Call)) ->
    {[Call, ...], company(), Room :: non_neg_integer(), turns(Call)} | none.
join(Group, {MostRows, MostWeight} = Most, #?MODULE{waiting = Waiting} = T) ->
    case gb_trees:next(gb_trees:iterator(Waiting)) of
        {_, {Group, Rows, Weight, _}, _} when
            Group =/= alone, Rows =< MostRows, Weight =< MostWeight
        ->
            out(fun(_) -> Most end, T);
        _ ->
            none
    end.

company(alone, _Room, _Iterator, []) ->
    {[], 0};
company(Group, {Rows, Weight}, Iterator, Taken) ->
    case gb_trees:next(Iterator) of
        {Tag, {Group, R, W, _} = Entry, Rest} when R =< Rows, W =< Weight ->
            company(Group, {Rows - R, Weight - W}, Rest, [{Tag, Entry} | Taken]);
        {_, {Group, _, _, _}, _} ->
            {lists:reverse(Taken), 0};
        {_, _Other, Rest} ->
            company(Group, {Rows, Weight}, Rest, Taken);
        none ->
            {lists:reverse(Taken), max(0, Rows)}
    end.

%% Whoever is not ahead of the time is like one who has never asked.
at(Time, #?MODULE{waiting = Waiting, ends = Ends} = T) ->
    case gb_trees:is_empty(Waiting) of
        true -> new();
        false -> T#?MODULE{time = Time, ends = maps:filter(fun(_, End) -> End > Time end, Ends)}
    end.

%% @doc Without the calls that `Is' picks. Their work stays counted: it was asked for.
-spec drop(fun((Call) -> boolean()), turns(Call)) -> {[Call], turns(Call)}.
drop(Is, #?MODULE{waiting = Waiting} = T) ->
    {Gone, Left} = lists:partition(fun({_, {_, _, _, C}}) -> Is(C) end, gb_trees:to_list(Waiting)),
    Dropped = [Entry || {_, Entry} <- Gone],
    {calls(Dropped), without(Dropped, gb_trees:from_orddict(Left), T)}.

without(Gone, Left, #?MODULE{weight = Weight} = T) ->
    T#?MODULE{waiting = Left, weight = Weight - lists:sum([W || {_, _, W, _} <- Gone])}.

calls(Entries) -> [Call || {_, _, _, Call} <- Entries].

%% @doc All that wait, in their order.
-spec to_list(turns(Call)) -> [Call].
to_list(#?MODULE{waiting = Waiting}) ->
    calls(gb_trees:values(Waiting)).

-spec size(turns(_)) -> non_neg_integer().
size(#?MODULE{waiting = Waiting}) -> gb_trees:size(Waiting).

%% @doc What all that wait weigh.
-spec weight(turns(_)) -> non_neg_integer().
weight(#?MODULE{weight = Weight}) -> Weight.
