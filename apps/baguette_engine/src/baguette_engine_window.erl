%% @doc Which calls are with an OS process: sent and not yet answered. Pure; called by
%% baguette_engine_worker only, which decides how many there may be.
%%
%% The process computes in the order of the ids. So an answer says that everything before it is
%% done with, and what it died of is the call with the lowest id, be it one that was cancelled
%% meanwhile: such a call is remembered by its id until something after it is answered. Where it
%% computes several as one it says so, and may die of any of them.
-module(baguette_engine_window).

-export([new/0, add/2, revise/2, as_one/3, answered/2, begun/1]).
-export([size/1, to_list/1, unanswered/1, is_busy/1, is_in_doubt/1]). % looked at

-export_type([window/1]).

-type id() :: baguette_engine_frame:id().

-record(?MODULE, {
    next_id = 0 :: id(),
    sent = #{} :: #{id() => term()},
    %% Cancelled while they were with the process: begun and still computed, or dropped there.
    dropped = [] :: [id()],
    %% Computed as one, some of them perhaps answered.
    as_one = [] :: [id()]
}).

-opaque window(_Call) :: #?MODULE{}.

%% @doc Nothing was sent yet.
-spec new() -> window(_).
new() -> #?MODULE{}.

%% @doc How many calls somebody waits for.
-spec size(window(_)) -> non_neg_integer().
size(#?MODULE{sent = Sent}) -> map_size(Sent).

%% @doc Those calls.
-spec to_list(window(Call)) -> [Call].
to_list(#?MODULE{sent = Sent}) -> maps:values(Sent).

%% @doc How many frames may be unread still, those that were cancelled among them.
-spec unanswered(window(_)) -> non_neg_integer().
unanswered(#?MODULE{sent = Sent, dropped = Dropped}) -> map_size(Sent) + length(Dropped).

%% @doc Whether the process may be computing.
-spec is_busy(window(_)) -> boolean().
is_busy(#?MODULE{sent = Sent, dropped = Dropped}) -> map_size(Sent) > 0 orelse Dropped =/= [].

%% @doc Only cancelled calls are with it: it computes one, or never began any and will not answer.
-spec is_in_doubt(window(_)) -> boolean().
is_in_doubt(#?MODULE{sent = Sent} = W) -> map_size(Sent) =:= 0 andalso is_busy(W).

%% @doc One more call is with the process, under this id.
-spec add(Call, window(Call)) -> {id(), window(Call)}.
add(Call, #?MODULE{next_id = Id, sent = Sent} = W) ->
    {Id, W#?MODULE{next_id = Id + 1, sent = Sent#{Id => Call}}}.

%% @doc Every call as `Now' says; nobody waits any longer for one that it drops.
-spec revise(fun((Call) -> Call | drop), window(Call)) -> {Dropped :: [id()], window(Call)}.
revise(Now, #?MODULE{sent = Sent, dropped = Dropped} = W) ->
    Revised = maps:map(fun(_, Call) -> Now(Call) end, Sent),
    Left = maps:filter(fun(_, Call) -> Call =/= drop end, Revised),
    Ids = maps:keys(Revised) -- maps:keys(Left),
    {Ids, W#?MODULE{sent = Left, dropped = Ids ++ Dropped}}.

%% @doc The process computes these as one; each of them as `Now' says, in their order.
-spec as_one([id()], fun(([Call]) -> [Call]), window(Call)) -> window(Call).
as_one(Ids, Now, #?MODULE{sent = Sent} = W) ->
    {There, Calls} = lists:unzip(lists:sort(maps:to_list(maps:with(Ids, Sent)))),
    Changed = maps:from_list(lists:zip(There, Now(Calls))),
    W#?MODULE{sent = maps:merge(Sent, Changed), as_one = There}.

%% @doc The call that this answer is for; `cancelled' when nobody waits for it any longer, `stray'
%% when nothing was sent under this id, or it was answered before.
-spec answered(id(), window(Call)) ->
    {answered, Call, window(Call)} | {cancelled, window(Call)} | stray.
answered(Id, #?MODULE{sent = Sent, dropped = Dropped} = W) ->
    Left = W#?MODULE{dropped = [D || D <- Dropped, D > Id]},
    case {maps:take(Id, Sent), lists:member(Id, Dropped)} of
        {{Call, Rest}, _} -> {answered, Call, Left#?MODULE{sent = Rest}};
        {error, true} -> {cancelled, Left};
        {error, false} -> stray
    end.

%% @doc The calls it was at, none if those were cancelled; and what it had not begun, in order.
-spec begun(window(Call)) -> {[Call], [Call]}.
begun(#?MODULE{sent = Sent, dropped = Dropped, as_one = AsOne}) ->
    Ordered = lists:sort(maps:to_list(Sent)),
    case lists:partition(fun({Id, _}) -> lists:member(Id, AsOne) end, Ordered) of
        {[_ | _] = Begun, Rest} ->
            {calls(Begun), calls(Rest)};
        {[], [{Id, Call} | Rest]} ->
            case lists:any(fun(D) -> D < Id end, Dropped) of
                true -> {[], [Call | calls(Rest)]};
                false -> {[Call], calls(Rest)}
            end;
        {[], []} ->
            {[], []}
    end.

calls(Sent) -> [Call || {_, Call} <- Sent].
