%% @doc Runs a program to its end, bounded in time and in what it may print. For programs that are
%% not ours (the tailscale CLI): they may hang, print without end, or not be there. No shell is in
%% between. What it writes to standard error goes to the node's log.
-module(baguette_cluster_command).

-export([run/3]).

-export_type([error/0]).

-type error() :: not_found | timeout | too_much_output | killed.

%% @doc Standard output and exit status. A program that is not done after `ms' is killed.
-spec run(file:filename(), [string()], #{ms := pos_integer(), bytes := pos_integer()}) ->
    {ok, {Status :: non_neg_integer(), Output :: binary()}} | {error, error()}.
run(Program, Args, Bounds) ->
    case executable(Program) of
        false ->
            {error, not_found};
        Path ->
            %% A process of its own: nothing of the port is left in the caller's mailbox, and the
            %% port goes when the caller does.
            Caller = self(),
            Ref = make_ref(),
            Body = fun() -> Caller ! {Ref, in_process(Caller, Path, Args, Bounds)} end,
            {_, Monitor} = spawn_monitor(Body),
            receive
                {Ref, Result} ->
                    true = demonitor(Monitor, [flush]),
                    Result;
                {'DOWN', Monitor, process, _, _} ->
                    {error, killed}
            end
    end.

executable(Program) ->
    case filename:pathtype(Program) =:= absolute orelse filename:basename(Program) =/= Program of
        true -> filelib:is_regular(Program) andalso Program;
        false -> os:find_executable(Program)
    end.

in_process(Caller, Path, Args, #{ms := Ms, bytes := Bytes}) ->
    _ = monitor(process, Caller),
    _ = erlang:send_after(Ms, self(), timeout),
    try open_port({spawn_executable, Path}, [{args, Args}, binary, exit_status, hide, in]) of
        Port ->
            OsPid = erlang:port_info(Port, os_pid),
            collect(Port, OsPid, Bytes, [])
    catch
        error:_NotExecutable -> {error, not_found}
    end.

collect(Port, OsPid, Left, Sofar) ->
    receive
        {Port, {data, Data}} when byte_size(Data) =< Left ->
            collect(Port, OsPid, Left - byte_size(Data), [Data | Sofar]);
        {Port, {data, _}} ->
            kill(Port, OsPid, too_much_output);
        {Port, {exit_status, Status}} ->
            {ok, {Status, iolist_to_binary(lists:reverse(Sofar))}};
        timeout ->
            kill(Port, OsPid, timeout);
        {'DOWN', _, process, _, _} ->
            kill(Port, OsPid, killed)
    end.

%% No exit status has come, so the id is still the program's own.
kill(Port, OsPid, Why) ->
    _ = [os:cmd("kill -KILL " ++ integer_to_list(Pid)) || {os_pid, Pid} <- [OsPid]],
    catch port_close(Port),
    {error, Why}.
