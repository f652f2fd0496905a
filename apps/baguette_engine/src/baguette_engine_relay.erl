%% @doc Asks a holder for somebody who has no link to it, and passes the answer on: one hop, where
%% the network is cut between two nodes that both see us. The messages are told in
%% baguette_engine_remote_v1; generations of other nodes send them.
%%
%% Each relayed ask is a process of its own, so a full link delays nobody else; it ends with its
%% answer, with whoever asked, with the holder, and with this server, which the askers monitor.
%% Refused, as `unreachable' with a reason: a holder that we may not ask ourselves (`no_link'), more
%% than MAX_HOPS at once (`busy'). A relay asks the holder's expert server and nobody else, so no
%% ask is ever relayed twice.
-module(baguette_engine_relay).
-behaviour(gen_server).

-export([start_link/0, overview/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
-export([format_status/1]).

-include_lib("kernel/include/logger.hrl").
-define(LOG, #{domain => [baguette, engine]}).
%% Each holds an ask's payload, mostly under a hundred KB.
-define(MAX_HOPS, 64).

-record(?MODULE, {
    hops = #{} :: #{Ask :: reference() => pid()},
    asks = #{} :: #{Hop :: pid() => {To :: pid(), Ask :: reference(), Target :: node()}}
}).

%% @doc Start the one relay of this node.
-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc How many asks are on their way through here.
-spec overview() -> #{in_flight := non_neg_integer(), allowed := pos_integer()}.
overview() ->
    gen_server:call(?MODULE, overview).

-spec init([]) -> {ok, #?MODULE{}}.
init([]) ->
    %% The hops are linked: they end with us, and not the other way round.
    _ = process_flag(trap_exit, true),
    {ok, #?MODULE{}}.

-spec handle_call(overview, {pid(), term()}, #?MODULE{}) -> {reply, map(), #?MODULE{}}.
handle_call(overview, _From, #?MODULE{hops = Hops} = S) ->
    {reply, #{in_flight => map_size(Hops), allowed => ?MAX_HOPS}, S}.

-spec handle_cast(term(), #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_cast(Unknown, S) ->
    ok = dropped(Unknown),
    {noreply, S}.

-spec handle_info(
    baguette_engine_remote_v1:relay_message() | {'EXIT', pid(), term()}, #?MODULE{}
) -> {noreply, #?MODULE{}}.
handle_info({relay, 1, To, Ref, Target, {Component, _, Payload} = Ask}, #?MODULE{} = S) when
    is_pid(To), is_reference(Ref), is_atom(Target), is_binary(Component), is_binary(Payload),
    not is_map_key(Ref, S#?MODULE.hops)
->
    {noreply, relay(To, Ref, Target, Ask, S)};
handle_info({forget, 1, Ref}, #?MODULE{hops = Hops} = S) ->
    case Hops of
        #{Ref := Hop} -> Hop ! forget;
        #{} -> answered_already
    end,
    {noreply, S};
handle_info({'EXIT', Hop, Why}, #?MODULE{hops = Hops, asks = Asks} = S) when
    is_map_key(Hop, Asks)
->
    {{To, Ref, Target}, Left} = maps:take(Hop, Asks),
    _ = Why =:= normal orelse crashed(To, Ref, Target),
    {noreply, S#?MODULE{hops = maps:remove(Ref, Hops), asks = Left}};
handle_info(Unknown, S) ->
    ok = dropped(Unknown),
    {noreply, S}.

%% @doc The state names processes only; an ask is a message, and those are not shown.
-spec format_status(gen_server:format_status()) -> gen_server:format_status().
format_status(Status) ->
    baguette_engine_private:status(Status, fun(S) -> S end).

relay(To, Ref, Target, {Component, _, _} = Ask, #?MODULE{hops = Hops, asks = Asks} = S) ->
    case refusal(Target, Component, map_size(Hops)) of
        none ->
            Hop = spawn_link(fun() -> hop(To, Ref, Target, Ask) end),
            S#?MODULE{hops = Hops#{Ref => Hop}, asks = Asks#{Hop => {To, Ref, Target}}};
        Why ->
            ok = answer(To, Ref, unreachable(Target, Why)),
            S
    end.

refusal(_Target, _Component, ?MAX_HOPS) ->
    busy;
refusal(Target, Component, _InFlight) ->
    %% Whom we may not ask, because it is silent too or leaves, we ask for nobody else.
    case lists:any(fun(#{node := N}) -> N =:= Target end, baguette_cluster:holders(Component)) of
        true -> none;
        false -> no_link
    end.

%% The process of one ask.
hop(To, Ref, Target, Ask) ->
    Asker = erlang:monitor(process, To),
    Holder = baguette_engine_remote_v1:monitor(Target),
    Own = make_ref(),
    case baguette_engine_remote_v1:ask(Target, Own, Ask) of
        ok -> under_way(To, Ref, Target, {Asker, Holder, Own});
        unreachable -> answer(To, Ref, unreachable(Target, no_link))
    end.

under_way(To, Ref, Target, {Asker, Holder, Own}) ->
    receive
        {baguette_engine_worker, Own, Answer} ->
            answer(To, Ref, Answer);
        {'DOWN', Holder, process, _, _} ->
            answer(To, Ref, unreachable(Target, lost));
        {'DOWN', Asker, process, _, _} ->
            baguette_engine_remote_v1:forget(Target, Own);
        forget ->
            baguette_engine_remote_v1:forget(Target, Own)
    end.

%% Our own bug, told like a holder that was lost: somebody else may be asked.
crashed(To, Ref, Target) ->
    ?LOG_ERROR(#{what => relayed_ask_crashed, peer => Target}, ?LOG),
    answer(To, Ref, unreachable(Target, lost)).

answer(To, Ref, Answer) ->
    baguette_engine_remote_v1:answer(To, Ref, Answer).

unreachable(Target, Why) ->
    {error, {unreachable, #{node => Target, why => Why}}}.

dropped(Unknown) ->
    %% A later version's message: by its shape only.
    ?LOG_WARNING(#{what => message_dropped, shape => baguette_engine_private:shape(Unknown)}, ?LOG).
