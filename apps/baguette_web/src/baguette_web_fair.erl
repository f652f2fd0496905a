%% @doc Whose turn it is: clients one after the other, and what one client asked for in the order it
%% came. Pure; only baguette_web_jobs holds one.
%%
%% A client with a hundred jobs waiting delays another's first one by one job.
-module(baguette_web_fair).

-export([new/0, in/3, out/1, remove/3, order/1, size/1, size/2]).
-export_type([fair/0, fair/1]).

%% Clients in the order of their turns, each with what it waits for; none waits for nothing.
-opaque fair(Item) :: [{client(), queue:queue(Item)}].
-type fair() :: fair(term()).
-type client() :: binary().

-spec new() -> fair().
new() -> [].

%% @doc One more thing a client waits for. A client that waited for nothing is last in turn.
-spec in(client(), Item, fair(Item)) -> fair(Item).
in(Client, Item, Fair) ->
    case lists:keyfind(Client, 1, Fair) of
        {_, Items} -> lists:keyreplace(Client, 1, Fair, {Client, queue:in(Item, Items)});
        false -> Fair ++ [{Client, queue:in(Item, queue:new())}]
    end.

%% @doc What is next, and what is left.
-spec out(fair(Item)) -> {Item, fair(Item)} | empty.
out([]) ->
    empty;
out([{Client, Items} | Others]) ->
    {{value, Item}, Rest} = queue:out(Items),
    {Item, Others ++ unless_empty(Client, Rest)}.

unless_empty(Client, Items) -> [{Client, Items} || not queue:is_empty(Items)].

%% @doc A client waits for this no more. Its turn, and everybody else's, stays.
-spec remove(client(), Item, fair(Item)) -> fair(Item).
remove(Client, Item, Fair) ->
    lists:append([
        case C of
            Client -> unless_empty(C, queue:filter(fun(I) -> I =/= Item end, Items));
            _ -> [{C, Items}]
        end
     || {C, Items} <- Fair
    ]).

%% @doc Everything that waits, in the order in which it will come out if nothing else comes in.
-spec order(fair(Item)) -> [Item].
order(Fair) ->
    case out(Fair) of
        empty -> [];
        {Item, Rest} -> [Item | order(Rest)]
    end.

-spec size(fair()) -> non_neg_integer().
size(Fair) -> lists:sum([queue:len(Items) || {_, Items} <- Fair]).

%% @doc How much one client waits for.
-spec size(client(), fair()) -> non_neg_integer().
size(Client, Fair) ->
    case lists:keyfind(Client, 1, Fair) of
        {_, Items} -> queue:len(Items);
        false -> 0
    end.
