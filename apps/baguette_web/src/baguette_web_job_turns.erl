%% @doc Which jobs wait and which are drawn: pure. Only baguette_web_job_admission holds one; whose
%% turn it is, baguette_web_fair says.
%%
%% Work is counted in image-steps, one step of one image, which is what the time of a job goes by;
%% how long it takes, baguette_engine knows.
-module(baguette_web_job_turns).

-export([new/0, in/4, next/2, left/3]).
-export([order/1, running/1, waiting/1, waiting/2, work/1, load/2]).
-export_type([turns/0, load/0]).

-define(MAX_RETRY_S, 3600).

-type id() :: binary().
-type client() :: baguette_web_fair:client().
-type work() :: baguette_web_fair:work().
-type load() :: #{
    queued := non_neg_integer(), running := non_neg_integer(), retry_after_seconds := pos_integer()
}.

-record(?MODULE, {
    waiting = baguette_web_fair:new() :: baguette_web_fair:fair(id()),
    running = #{} :: #{id() => true}
}).
-opaque turns() :: #?MODULE{}.

-spec new() -> turns().
new() -> #?MODULE{}.

%% @doc A job waits, with so much of it left to draw.
-spec in(client(), id(), work(), turns()) -> turns().
in(Client, Id, Work, #?MODULE{waiting = Waiting} = T) ->
    T#?MODULE{waiting = baguette_web_fair:in(Client, Id, Work, Waiting)}.

%% @doc The job that is to begin now, if one may while so many are drawn at once.
-spec next(AtOnce :: pos_integer(), turns()) -> {id(), turns()} | none.
next(AtOnce, #?MODULE{running = Running}) when map_size(Running) >= AtOnce ->
    none;
next(_AtOnce, #?MODULE{running = Running, waiting = Waiting} = T) ->
    case baguette_web_fair:out(Waiting) of
        {Id, _Work, Rest} ->
            {Id, T#?MODULE{waiting = Rest, running = Running#{Id => true}}};
        empty ->
            none
    end.

%% @doc A job waits no more and is not drawn any more. Once there is none, nobody is ahead of
%% anybody: what was drawn while nobody else wanted anything is held against no one.
-spec left(client(), id(), turns()) -> turns().
left(Client, Id, #?MODULE{running = Running, waiting = Waiting} = T) ->
    Left = maps:remove(Id, Running),
    Rest = baguette_web_fair:remove(Client, Id, Waiting),
    case map_size(Left) + baguette_web_fair:size(Rest) of
        0 -> T#?MODULE{running = Left, waiting = baguette_web_fair:new()};
        _ -> T#?MODULE{running = Left, waiting = Rest}
    end.

%% @doc Those that wait, in the order in which they will begin if nothing else comes.
-spec order(turns()) -> [id()].
order(#?MODULE{waiting = Waiting}) -> baguette_web_fair:order(Waiting).

-spec running(turns()) -> [id()].
running(#?MODULE{running = Running}) -> maps:keys(Running).

%% @doc How many wait.
-spec waiting(turns()) -> non_neg_integer().
waiting(#?MODULE{waiting = Waiting}) -> baguette_web_fair:size(Waiting).

%% @doc How many of one client's wait.
-spec waiting(client(), turns()) -> non_neg_integer().
waiting(Client, #?MODULE{waiting = Waiting}) -> baguette_web_fair:size(Client, Waiting).

%% @doc The image-steps of all that wait.
-spec work(turns()) -> work().
work(#?MODULE{waiting = Waiting}) -> baguette_web_fair:work(Waiting).

%% @doc How much there is to do, which is likely to be done in so many seconds.
-spec load(Seconds :: float(), turns()) -> load().
load(Seconds, #?MODULE{running = Running, waiting = Waiting}) ->
    #{
        queued => baguette_web_fair:size(Waiting), running => map_size(Running),
        retry_after_seconds => max(1, ceil(min(?MAX_RETRY_S, Seconds)))
    }.
