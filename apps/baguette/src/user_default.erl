%% @doc The shell's own hook for commands (stdlib looks here before its `shell_default`), used for
%% one thing: in a shell attached from another node, q() leaves that shell and nothing else. The
%% stock q() would stop the node it is attached to, pictures in flight included.
-module(user_default).

-export([q/0]).

-spec q() -> ok.
q() ->
    case node(group_leader()) of
        Here when Here =:= node() ->
            init:stop();
        %% at once: an orderly stop would have the terminal say that its shell died
        Attached ->
            erpc:cast(Attached, erlang, halt, [0])
    end.
