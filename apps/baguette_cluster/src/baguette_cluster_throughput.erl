%% @doc What each link carries, in Mbit/s: measured with a short train of packets once after a link
%% is new and rarely afterwards, one link at a time, never while somebody says that links are busy
%% (bulk on a distribution socket delays every small call behind it). Tells baguette_cluster_gossip,
%% whose table has the answer. When it dies, what was measured stays and comes again in its time.
%%
%% A train: four packets of 64 KB in a row. The receiver measures from the first arrival to the last
%% and tells the sender. Took it under 20 ms, it was too short to say much, and one of twice the
%% length follows, up to 1 MB. The sender waits for nothing: if the link's buffer is full, or no
%% answer comes, there is no figure, and the next attempt is as late as it would have been.
-module(baguette_cluster_throughput).

-behaviour(gen_server).

-export([start_link/1, busy/1, wait_ms/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(TABLE, ?MODULE).
-define(LOOK_MS, 250).          % how often is looked who is due
-define(FIRST_COUNT, 4).
-define(LAST_COUNT, 16).
-define(LONG_ENOUGH_US, 20000).
-define(ANSWER_MS, 5000).
-define(FIRST_WAIT_MS, 500).    % and as much again for each link, shared out

-record(train, {to :: node(), serial :: integer(), count :: pos_integer(), timer :: reference()}).
-record(arrival, {
    serial :: integer(),
    index = 1 :: pos_integer(),
    first_us :: integer(),
    bytes = 0 :: non_neg_integer()
}).
%% What the interval is for.
-define(LINKS, 8).

-record(?MODULE, {
    measure_ms :: pos_integer(),
    due = #{} :: #{node() => integer()},        % everybody linked: not before
    train = none :: none | #train{},
    arrivals = #{} :: #{node() => #arrival{}}
}).
-type state() :: #?MODULE{}.

-spec start_link(baguette_cluster_settings:settings()) -> gen_server:start_ret().
start_link(Settings) ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, Settings, []).

%% @doc Whether this node's links are wanted for something better. Harmless when not running.
-spec busy(boolean()) -> ok.
busy(Busy) when is_boolean(Busy) ->
    try ets:insert(?TABLE, {busy, Busy}) of true -> ok
    catch error:badarg -> ok
    end.

%% @doc How long to wait: two nodes do not start at once, and no node measures all its links at
%% once. The first time soon, later within a tenth of the interval, which is for eight links: with
%% more of them each is measured less often, so that a node sends no more than it would with eight.
-spec wait_ms(first | pos_integer(), node(), Links :: pos_integer()) -> pos_integer().
wait_ms(first, Peer, Links) ->
    ?FIRST_WAIT_MS + erlang:phash2({node(), Peer}, ?FIRST_WAIT_MS * Links);
wait_ms(Interval, Peer, Links) ->
    Each = Interval * max(?LINKS, Links) div ?LINKS,
    Each + erlang:phash2({node(), Peer}, max(1, Each div 10)).

-spec init(baguette_cluster_settings:settings()) -> {ok, state()}.
init(#{measure_ms := Interval}) ->
    %% Arrivals are timed here: waiting for a turn would be measured too.
    _ = process_flag(priority, high),
    ok = baguette_cluster_gossip:watch(self()),
    _ = erlang:send_after(?LOOK_MS, self(), look),
    {ok, #?MODULE{measure_ms = Interval}}.

-spec handle_call(term(), gen_server:from(), state()) -> {reply, {error, unknown_call}, state()}.
handle_call(Unknown, _From, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Unknown),
    {reply, {error, unknown_call}, S}.

-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast(Unknown, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Unknown),
    {noreply, S}.

-spec handle_info(
    look
    | {baguette_cluster, baguette_cluster:event()}
    | {timeout, reference(), no_answer}
    | baguette_cluster_remote_v1:envelope(), state()) -> {noreply, state()}.
handle_info(look, S) ->
    _ = erlang:send_after(?LOOK_MS, self(), look),
    {noreply, depart(now_ms(), with_links(baguette_cluster_table:links(), now_ms(), S))};
handle_info({baguette_cluster, {link, Node, down}}, #?MODULE{due = Due} = S) ->
    {noreply, S#?MODULE{due = maps:remove(Node, Due)}};
handle_info({baguette_cluster, _Other}, S) ->
    {noreply, S};
handle_info({timeout, Timer, no_answer}, #?MODULE{train = #train{timer = Timer}} = S) ->
    {noreply, S#?MODULE{train = none}};
handle_info({timeout, _Old, no_answer}, S) ->
    {noreply, S};
handle_info({baguette_cluster_v1, From, Term}, #?MODULE{due = Due} = S) ->
    case is_map_key(From, Due) of
        true -> {noreply, peer_says(baguette_cluster_remote_v1:read_train(Term), From, Term, S)};
        false -> {noreply, S}
    end;
handle_info(Unknown, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Unknown),
    {noreply, S}.

%% The sending end ------------------------------------------------------------------------------

with_links(Links, Now, #?MODULE{due = Due, arrivals = Arrivals, measure_ms = Interval} = S) ->
    Next = maps:map(
        fun
            (Node, _) when is_map_key(Node, Due) -> maps:get(Node, Due);
            (Node, #{mbit := 0}) -> Now + wait_ms(first, Node, maps:size(Links));
            (Node, _Measured) -> Now + wait_ms(Interval, Node, maps:size(Links))
        end, Links),
    S#?MODULE{due = Next, arrivals = maps:with(maps:keys(Links), Arrivals)}.

depart(Now, #?MODULE{train = none, due = Due, measure_ms = Interval} = S) ->
    case lists:sort([{At, Node} || {Node, At} <- maps:to_list(Due), At =< Now]) of
        [{_, Node} | _] ->
            case is_busy() of
                true -> S;
                false ->
                    Again = Now + wait_ms(Interval, Node, maps:size(Due)),
                    send_train(Node, ?FIRST_COUNT, S#?MODULE{due = Due#{Node := Again}})
            end;
        [] -> S
    end;
depart(_Now, S) ->
    S.

is_busy() ->
    ets:lookup(?TABLE, busy) =:= [{busy, true}].

send_train(Node, Count, S) ->
    Serial = erlang:unique_integer([positive]),
    Packet = binary:copy(<<0>>, baguette_cluster_remote_v1:train_bytes()),
    Train = [{train, Serial, Index, Count, Packet} || Index <- lists:seq(1, Count)],
    case lists:all(fun(P) -> ok =:= baguette_cluster_remote_v1:send_train(Node, P) end, Train) of
        true ->
            Timer = erlang:start_timer(?ANSWER_MS, self(), no_answer),
            S#?MODULE{train = #train{to = Node, serial = Serial, count = Count, timer = Timer}};
        false ->
            S#?MODULE{train = none}
    end.

peer_says({ok, {train, _, _, _, _} = Packet}, From, _Term, #?MODULE{arrivals = Arrivals} = S) ->
    S#?MODULE{arrivals = arrived(Packet, From, now_us(), Arrivals)};
peer_says({ok, {trained, Serial, Bytes, Us}}, From, _Term, #?MODULE{train = Train} = S) ->
    Size = baguette_cluster_remote_v1:train_bytes(),
    case Train of
        #train{to = From, serial = Serial, count = Count, timer = Timer} when
            Bytes =:= (Count - 1) * Size
        ->
            _ = erlang:cancel_timer(Timer),
            ok = baguette_cluster_gossip:measured(From, max(1, Bytes * 8 div max(1, Us))),
            longer(From, 2 * Count, Us, S#?MODULE{train = none});
        _ ->
            S
    end;
peer_says(unknown, _From, Term, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Term),
    S.

longer(Node, Count, Us, S) when Us < ?LONG_ENOUGH_US, Count =< ?LAST_COUNT ->
    case is_busy() of
        true -> S;
        false -> send_train(Node, Count, S)
    end;
longer(_Node, _Count, _Us, S) ->
    S.

%% The receiving end ----------------------------------------------------------------------------

arrived({train, Serial, 1, _Count, _}, From, Now, Arrivals) ->
    Arrivals#{From => #arrival{serial = Serial, first_us = Now}};
arrived({train, Serial, Index, Count, Packet}, From, Now, Arrivals) ->
    case Arrivals of
        #{From := #arrival{serial = Serial, index = Before, bytes = Bytes} = A} when
            Index =:= Before + 1
        ->
            Sofar = A#arrival{index = Index, bytes = Bytes + byte_size(Packet)},
            complete(Index =:= Count, From, Now, Sofar, Arrivals);
        _ ->
            maps:remove(From, Arrivals) % one is missing: this measures nothing
    end.

complete(false, From, _Now, Arrival, Arrivals) ->
    Arrivals#{From := Arrival};
complete(true, From, Now, #arrival{serial = Serial, bytes = Bytes, first_us = First}, Arrivals) ->
    _ = baguette_cluster_remote_v1:send_train(From, {trained, Serial, Bytes, Now - First}),
    maps:remove(From, Arrivals).

now_ms() -> erlang:monotonic_time(millisecond).

now_us() -> erlang:monotonic_time(microsecond).
