%% @doc Whether an OS process that has something to do still does anything. A part of
%% baguette_engine_worker, whose timer it sets: `{timeout, Timer, look}'.
%%
%% A process is hung when it has used no CPU time at all, in any of its threads, for as many looks
%% in a row as make `hung_ms', and answered nothing meanwhile. Looks are counted, not time: a node
%% that was itself stopped looks once when it goes on, and judges nobody by the time it missed.
%% A slow process uses CPU time and is never hung. One that runs in circles uses it too: that is not
%% seen here, and ends with the generation's deadline.
-module(baguette_engine_watchdog).

-export([new/1, on/1, off/1, look/3, seen/2, answered/1, cpu/1, is_possible/0]).

-export_type([watch/0, cpu/0]).

-define(LOOK_MS, 1000).

%% Clock ticks in user and kernel mode; unknown: no such process any more, or no /proc.
-type cpu() :: non_neg_integer() | unknown.

-record(?MODULE, {
    looks :: pos_integer(), % so many in vain, and it is hung
    in_vain = 0 :: non_neg_integer(),
    cpu = unknown :: cpu(),
    timer :: reference() | undefined
}).
-opaque watch() :: #?MODULE{}.

%% @doc A process that will be looked at every second once it has something to do.
-spec new(HungMs :: pos_integer()) -> watch().
new(HungMs) -> #?MODULE{looks = max(1, HungMs div ?LOOK_MS)}.

%% @doc It has something to do.
-spec on(watch()) -> watch().
on(#?MODULE{timer = undefined} = W) ->
    W#?MODULE{
        timer = erlang:start_timer(?LOOK_MS, self(), look), cpu = unknown, in_vain = 0
    };
on(W) ->
    W.

%% @doc It is no more, or has nothing to do: a look that is on its way will be of no timer.
-spec off(watch()) -> watch().
off(W) -> W#?MODULE{timer = undefined}.

%% @doc The timer says: look at this process; `stale' when that was the timer of another one.
-spec look(reference(), OsPid :: non_neg_integer(), watch()) -> {alive | hung | stale, watch()}.
look(Timer, OsPid, #?MODULE{timer = Timer} = W) ->
    Next = erlang:start_timer(?LOOK_MS, self(), look),
    seen(cpu(OsPid), W#?MODULE{timer = Next});
look(_Timer, _OsPid, W) ->
    {stale, W}.

%% @doc One look, a second after the last. Pure.
-spec seen(cpu(), watch()) -> {alive | hung, watch()}.
seen(Cpu, #?MODULE{cpu = Cpu, in_vain = Before, looks = Looks} = W) when Cpu =/= unknown ->
    InVain = Before + 1,
    {verdict(InVain >= Looks), W#?MODULE{in_vain = InVain}};
seen(Cpu, W) ->
    {alive, W#?MODULE{cpu = Cpu, in_vain = 0}}.

verdict(true) -> hung;
verdict(false) -> alive.

%% @doc It has answered, for which less than a tick may have been enough. Pure.
-spec answered(watch()) -> watch().
answered(W) -> W#?MODULE{in_vain = 0}.

%% @doc What a process and all its threads have used so far.
-spec cpu(OsPid :: non_neg_integer()) -> cpu().
cpu(OsPid) ->
    case file:read_file("/proc/" ++ integer_to_list(OsPid) ++ "/stat") of
        {ok, Stat} -> ticks(Stat);
        {error, _} -> unknown
    end.

%% The name stands in parentheses and may hold anything, so it is skipped from the right (proc(5)).
ticks(Stat) ->
    [_, Fields] = string:split(Stat, <<") ">>, trailing),
    Numbers = binary:split(Fields, <<" ">>, [global]),
    binary_to_integer(lists:nth(12, Numbers)) + binary_to_integer(lists:nth(13, Numbers)).

%% @doc Whether this platform tells what a process has used.
-spec is_possible() -> boolean().
is_possible() -> cpu(list_to_integer(os:getpid())) =/= unknown.
