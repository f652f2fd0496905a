%% @doc Which jobs wait, which are drawn, and how long until all that is done: pure, with the clock
%% as argument. Only baguette_web_job_admission holds one; whose turn it is, baguette_web_fair says.
%%
%% Work is counted in image-steps, one step of one image, which is what the time of a job goes by.
-module(baguette_web_job_turns).

-export([new/0, in/4, next/3, left/3, drawn/3, predicted/3]).
-export([order/1, running/1, waiting/1, waiting/2, load/2]).
-export_type([turns/0, load/0]).

%% Until one was drawn or predicted here.
-define(IMAGE_STEP_S, 0.1).
-define(NEWEST_COUNTS, 0.3).
-define(MAX_RETRY_S, 3600).

-type id() :: binary().
-type client() :: baguette_web_fair:client().
-type work() :: baguette_web_fair:work().
-type load() :: #{
    queued := non_neg_integer(), running := non_neg_integer(), retry_after_seconds := pos_integer()
}.

-record(?MODULE, {
    waiting = baguette_web_fair:new() :: baguette_web_fair:fair(id()),
    running = #{} :: #{id() => {work(), BegunMs :: integer()}},
    %% Of an image-step, while as many jobs are drawn as may be.
    seconds = none :: none | {predicted | measured, float()}
}).
-opaque turns() :: #?MODULE{}.

-spec new() -> turns().
new() -> #?MODULE{}.

%% @doc A job waits, with so much of it left to draw.
-spec in(client(), id(), work(), turns()) -> turns().
in(Client, Id, Work, #?MODULE{waiting = Waiting} = T) ->
    T#?MODULE{waiting = baguette_web_fair:in(Client, Id, Work, Waiting)}.

%% @doc The job that is to begin now, if one may while so many are drawn at once.
-spec next(AtOnce :: pos_integer(), NowMs :: integer(), turns()) -> {id(), turns()} | none.
next(AtOnce, _Now, #?MODULE{running = Running}) when map_size(Running) >= AtOnce ->
    none;
next(_AtOnce, Now, #?MODULE{running = Running, waiting = Waiting} = T) ->
    case baguette_web_fair:out(Waiting) of
        {Id, Work, Rest} ->
            {Id, T#?MODULE{waiting = Rest, running = Running#{Id => {Work, Now}}}};
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

%% @doc A job has its pictures now: it says how long an image-step takes.
-spec drawn(id(), NowMs :: integer(), turns()) -> turns().
drawn(Id, Now, #?MODULE{running = Running, seconds = Before} = T) ->
    #{Id := {Work, Begun}} = Running,
    Newest = (Now - Begun) / 1000 / Work,
    Seconds = case Before of
        {measured, Mean} -> Mean + ?NEWEST_COUNTS * (Newest - Mean);
        _ -> Newest
    end,
    T#?MODULE{seconds = {measured, Seconds}}.

%% @doc The engine says that so much work would take so many seconds: better than nothing until a
%% job was drawn.
-spec predicted(work(), float(), turns()) -> turns().
predicted(_Work, _Seconds, #?MODULE{seconds = {measured, _}} = T) -> T;
predicted(Work, Seconds, T) -> T#?MODULE{seconds = {predicted, Seconds / Work}}.

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

%% @doc How much there is to do, and in how many seconds it is likely to be done.
-spec load(AtOnce :: pos_integer(), turns()) -> load().
load(AtOnce, #?MODULE{running = Running, waiting = Waiting, seconds = Known}) ->
    Work = baguette_web_fair:work(Waiting) + lists:sum([W || {W, _} <- maps:values(Running)]),
    Each = case Known of none -> ?IMAGE_STEP_S; {_, Seconds} -> Seconds end,
    #{
        queued => baguette_web_fair:size(Waiting), running => map_size(Running),
        retry_after_seconds => max(1, min(?MAX_RETRY_S, ceil(Work * Each / AtOnce)))
    }.
