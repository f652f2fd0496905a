%% @doc How much this node draws, told to the others, and how much they draw: with so much a picture
%% shares its experts (baguette_engine_foretold, which tells this process of every change).
%%
%% Pictures take a second or less, so a change is told soon. But every fact goes to everybody: what
%% has gone back a moment later is never told, nor what is nearly the same, and nodes of a large
%% cluster speak less often, so that all of them together say no more than a few dozen such things a
%% second. When it dies the next one tells what is drawn then.
-module(baguette_engine_drawing).
-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/0, changed/0, elsewhere/0]).
%% Pure
-export([wait_ms/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

%% Between a client's picture and its next one nothing is drawn.
-define(SETTLE_MS, 100).
%% Between two announcements of a node, for each node of the cluster.
-define(APART_MS, 40).
-define(LOG, #{domain => [baguette, engine]}).

-record(?MODULE, {
    told = none :: none | baguette_engine_beside:beside(),
    told_ms :: integer(),
    is_due = false :: boolean()
}).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc A picture of this node has begun, or ended.
-spec changed() -> ok.
changed() ->
    gen_server:cast(?MODULE, changed).

%% @doc What the pictures of all other nodes ask, as far as it is known here.
-spec elsewhere() -> baguette_engine_beside:beside().
elsewhere() ->
    baguette_engine_beside:sum([
        baguette_engine_beside:read(Drawing)
     || #{self := false, link := up, report := #{extra := #{drawing := Drawing}}} <-
            baguette_cluster:nodes()
    ]).

-spec init([]) -> {ok, #?MODULE{}}.
init([]) ->
    {ok, due(#?MODULE{told_ms = now_ms()})}.

-spec handle_call(term(), gen_server:from(), #?MODULE{}) -> {reply, {error, unknown}, #?MODULE{}}.
handle_call(_Unknown, _From, S) ->
    {reply, {error, unknown}, S}.

-spec handle_cast(changed | term(), #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_cast(changed, S) ->
    {noreply, due(S)};
handle_cast(_Unknown, S) ->
    {noreply, S}.

-spec handle_info(tell | term(), #?MODULE{}) -> {noreply, #?MODULE{}}.
handle_info(tell, S) ->
    {noreply, tell(baguette_engine_foretold:drawing(), S#?MODULE{is_due = false})};
handle_info(_Unknown, S) ->
    ?LOG_WARNING(#{what => message_dropped, by => ?MODULE}, ?LOG),
    {noreply, S}.

due(#?MODULE{is_due = true} = S) ->
    S;
due(#?MODULE{told_ms = Told} = S) ->
    _ = erlang:send_after(wait_ms(length(nodes()), now_ms() - Told), self(), tell),
    S#?MODULE{is_due = true}.

%% @doc In how long a change is told to so many, the last having been told so long ago.
-spec wait_ms(Peers :: non_neg_integer(), SinceMs :: integer()) -> pos_integer().
wait_ms(Peers, Since) -> max(?SETTLE_MS, ?APART_MS * (Peers + 1) - Since).

tell(Drawing, #?MODULE{told = Told} = S) ->
    case Told =:= none orelse baguette_engine_beside:clearly_differs(Told, Drawing) of
        true ->
            ok = baguette_engine_probes:publish(#{drawing => Drawing}),
            S#?MODULE{told = Drawing, told_ms = now_ms()};
        false ->
            S
    end.

now_ms() -> erlang:monotonic_time(millisecond).
