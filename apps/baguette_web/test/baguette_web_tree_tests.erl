%% Restarts are counted by who watches the children. A supervisor of the test stands where the
%% face's would: no room runs here.
-module(baguette_web_tree_tests).
-behaviour(supervisor).
-include_lib("eunit/include/eunit.hrl").

-export([init/1, start_child/0]).

restarts_test_() ->
    {setup, fun start/0, fun stop/1, [
        {"nothing was restarted yet", fun() -> ?assertMatch({_, #{}}, counted(0)) end},
        {"a child that died is there again, and counted", fun() ->
            ok = kill(child),
            ?assertMatch({_, #{{baguette_sup, child} := 1}}, counted(1))
        end},
        {"one below a supervisor too", fun() ->
            ok = kill(inner, child),
            ?assertMatch(
                {_, #{{baguette_sup, child} := 1, {inner, child} := 1}}, counted(2)
            )
        end}
    ]}.

start() ->
    {ok, Top} = supervisor:start_link({local, baguette_sup}, ?MODULE, top),
    {ok, Tree} = baguette_web_tree:start_link(),
    [Top, Tree].

stop(Pids) ->
    [begin unlink(Pid), exit(Pid, shutdown) end || Pid <- Pids].

init(top) ->
    Inner = #{
        id => inner, type => supervisor,
        start => {supervisor, start_link, [?MODULE, inner]}
    },
    {ok, {#{intensity => 9}, [child(), Inner]}};
init(inner) ->
    {ok, {#{intensity => 9}, [child()]}}.

child() -> #{id => child, start => {?MODULE, start_child, []}}.

start_child() -> {ok, proc_lib:spawn_link(fun() -> receive stop -> ok end end)}.

kill(Id) -> kill_in(baguette_sup, Id).

kill(Inner, Id) ->
    {_, Pid, _, _} = lists:keyfind(Inner, 1, supervisor:which_children(baguette_sup)),
    kill_in(Pid, Id).

kill_in(Supervisor, Id) ->
    {_, Pid, _, _} = lists:keyfind(Id, 1, supervisor:which_children(Supervisor)),
    exit(Pid, kill),
    ok.

%% Until so many are counted; the first look is taken before that too.
counted(Wanted) -> counted(Wanted, 300).

counted(Wanted, Left) ->
    {_, Restarts} = Counted = baguette_web_tree:restarts(),
    case lists:sum(maps:values(Restarts)) of
        Wanted -> Counted;
        _ when Left > 0 -> receive after 10 -> counted(Wanted, Left - 1) end
    end.
