%% @doc One generation, followed to its end: ask the engine, hand every event to an observer, give
%% the result back, write its pictures. Runs in the caller's process, so a shell's Ctrl-C ends the
%% waiting, not the generation (baguette:cancel/1 does that). relay/4 is the same for a control
%% node: it runs here, its events go there, and it cancels when that node goes away.
-module(baguette_draw).

-export([run/2, relay/4, write/2]).
-export([await/2]).
-export_type([event/0]).

-type event() :: {accepted | state | step | warning | waiting | failover | atom(), map()}.
-type outcome() :: {ok, Result :: map()} | {error, term()}.

%% Whether the steps between begin and end are told too.
-type watch() :: boolean().

-spec run(map(), fun((event()) -> term())) -> outcome().
run(Request, Observe) ->
    run(Request, Observe, true, none).

%% @doc Spawned by a control node: messages {baguette_draw, Ref, Event | {finished, outcome()}}.
-spec relay(pid(), reference(), map(), watch()) -> ok.
relay(Control, Ref, Request, Watch) ->
    Monitor = monitor(process, Control),
    Outcome = run(Request, fun(Event) -> Control ! {?MODULE, Ref, Event} end, Watch, Monitor),
    Control ! {?MODULE, Ref, {finished, Outcome}},
    ok.

run(Request, Observe, Watch, Control) ->
    case baguette_engine:generate(Request) of
        {ok, Id} ->
            _ = Observe({accepted, #{id => Id}}),
            _ = Watch andalso baguette_engine:watch(Id),
            %% The end comes from await: it answers even where the generation itself has crashed.
            {Waiter, Monitor} = spawn_monitor(?MODULE, await, [self(), Id]),
            follow(Id, Observe, {Waiter, Monitor}, Control);
        {error, _} = Error ->
            Error
    end.

%% @doc Body of the process that waits for the end.
-spec await(pid(), binary()) -> ok.
await(To, Id) ->
    To ! {?MODULE, self(), baguette_engine:await(Id, infinity)},
    ok.

follow(Id, Observe, {Pid, Monitor} = Waiter, Control) ->
    receive
        {baguette_engine, Id, {End, _}} when End =:= done; End =:= failed; End =:= cancelled ->
            follow(Id, Observe, Waiter, Control);
        {baguette_engine, Id, Event} ->
            _ = Observe(Event),
            follow(Id, Observe, Waiter, Control);
        {?MODULE, Pid, Outcome} ->
            true = demonitor(Monitor, [flush]),
            ok = forget(Id),
            Outcome;
        {'DOWN', Monitor, process, _, Why} ->
            {error, {generation_lost, #{why => Why}}};
        {'DOWN', Control, process, _, _} ->
            _ = baguette_engine:cancel(Id),
            {error, {cancelled, #{why => requester_gone}}}
    end.

%% Events that crossed with the end: a shell would find them in its mailbox for ever.
forget(Id) ->
    receive
        {baguette_engine, Id, _} -> forget(Id)
    after 0 -> ok
    end.

%% @doc Writes each picture as ID_I.png; the result then names the files instead of holding bytes.
%% A name that exists is never written over, and none ever names half a picture.
-spec write(map(), file:name_all()) -> {ok, map()} | {error, term()}.
write(#{id := Id, images := Images} = Result, Dir) ->
    case write_each(filename:join(Dir, binary_to_list(Id)), 1, Images, []) of
        {ok, Written} -> {ok, Result#{images := Written}};
        {error, {Path, Why}} -> {error, {cannot_write, #{path => Path, why => Why, id => Id}}}
    end.

write_each(_Stem, _I, [], Written) ->
    {ok, lists:reverse(Written)};
write_each(Stem, I, [#{png := Png} = Image | Rest], Written) ->
    case write_new(Stem, "_" ++ integer_to_list(I), Png) of
        {ok, Path} -> write_each(Stem, I + 1, Rest, [Image#{png := Path} | Written]);
        {error, _} = Error -> Error
    end.

write_new(Stem, Suffix, Png) ->
    Path = filename:absname(Stem ++ Suffix ++ ".png"),
    case filelib:ensure_dir(Path) of
        ok -> write_new(Stem, Suffix, Png, Path, write_whole(Path, Png));
        {error, Why} -> {error, {Path, Why}}
    end.

write_new(_Stem, _Suffix, _Png, Path, ok) -> {ok, Path};
write_new(Stem, Suffix, Png, _Path, {error, eexist}) -> write_new(Stem, Suffix ++ "_again", Png);
write_new(_Stem, _Suffix, _Png, Path, {error, Why}) -> {error, {Path, Why}}.

%% Beside its place first. Whoever has the file beside it has the name: nobody comes between the
%% look and the move.
write_whole(Path, Png) ->
    New = Path ++ ".new",
    case file:write_file(New, Png, [exclusive]) of
        ok ->
            moved(New, Path);
        {error, eexist} ->
            {error, eexist};
        {error, _} = Error ->
            _ = file:delete(New),
            Error
    end.

moved(New, Path) ->
    case file:read_link_info(Path) of
        {error, enoent} ->
            file:rename(New, Path);
        _ ->
            ok = file:delete(New),
            {error, eexist}
    end.
