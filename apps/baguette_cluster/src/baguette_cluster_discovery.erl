%% @doc Asks a finder for the addresses of peers, again and again, and keeps what is known when the
%% finder fails: an error is not an empty cluster. Knows addresses, and what the finder happens to
%% know of the peer there; whether anybody answers is baguette_cluster_connector's to find out.
%% Without it, those who know each other stay.
-module(baguette_cluster_discovery).

-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/1, known/0, facts/0, has_answered/0, last_error/0]).
-export_type([peer/0]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2]).

-define(TABLE, ?MODULE).
-define(MAX_NAME, 255). % of a machine, in bytes
-define(LOG_META, #{domain => [baguette, cluster]}).

-type peer() :: #{
    address := string() | binary(),
    name => binary(),                       % the machine's, for a person; nothing is decided by it
    path => direct | relayed | unknown      % how its packets come here now
}.

%% Everybody who may be a peer, ourselves or not. Must come back within bounded time. An empty
%% list means that there is nobody, an error that it could not be found out.
-callback find(baguette_cluster_settings:settings()) ->
    {ok, [peer()]} | {error, term()}.

-record(?MODULE, {
    settings :: baguette_cluster_settings:settings(),
    refused = [] :: [term()]    % addresses already complained about
}).
-type state() :: #?MODULE{}.

-spec start_link(baguette_cluster_settings:settings()) -> gen_server:start_ret().
start_link(Settings) ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, Settings, []).

%% @doc Whom the finder named when it last answered, without ourselves.
-spec known() -> [node()].
known() ->
    case ets:lookup(?TABLE, known) of
        [{known, Nodes}] -> Nodes;
        [] -> []
    end.

%% @doc What the finder said of those it named, beside their address.
-spec facts() -> #{node() => #{name => binary(), path => direct | relayed | unknown}}.
facts() ->
    case ets:lookup(?TABLE, facts) of
        [{facts, Facts}] -> Facts;
        [] -> #{}
    end.

%% @doc Whether the finder ever answered: before that, an empty list of known says nothing.
-spec has_answered() -> boolean().
has_answered() ->
    ets:member(?TABLE, known).

-spec last_error() -> none | {error, term()}.
last_error() ->
    case ets:lookup(?TABLE, last) of
        [{last, {error, _} = Error}] -> Error;
        _ -> none
    end.

-spec init(baguette_cluster_settings:settings()) -> {ok, state(), {continue, find}}.
init(Settings) ->
    {ok, #?MODULE{settings = Settings}, {continue, find}}.

%% A finder that has to wait for a program must not hold up the start of the room.
-spec handle_continue(find, state()) -> {noreply, state()}.
handle_continue(find, S) ->
    {noreply, find(S)}.

-spec handle_call(term(), gen_server:from(), state()) -> {reply, {error, unknown_call}, state()}.
handle_call(Unknown, _From, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Unknown),
    {reply, {error, unknown_call}, S}.

-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast(Unknown, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Unknown),
    {noreply, S}.

-spec handle_info(find, state()) -> {noreply, state()}.
handle_info(find, S) ->
    {noreply, find(S)};
handle_info(Unknown, S) ->
    ok = baguette_cluster_stranger:drop(?MODULE, Unknown),
    {noreply, S}.

find(#?MODULE{settings = #{finder := Finder, find_ms := FindMs} = Settings} = S) ->
    _ = erlang:send_after(FindMs, self(), find),
    Answer = try Finder:find(Settings)
    catch Class:_ -> {error, {finder_crashed, Class}}
    end,
    Before = last_error(),
    true = ets:insert(?TABLE, {last, Answer}),
    take(Answer, Before, S).

take({ok, Peers}, _Before, #?MODULE{settings = #{max_peers := Max}, refused = Refused} = S) ->
    Bounded = lists:sublist(Peers, 2 * Max),
    Named = [{P, baguette_cluster_node_name:from_address(A)} || #{address := A} = P <- Bounded],
    Bad = lists:usort([A || {#{address := A}, {error, _}} <- Named]) -- Refused,
    _ = [?LOG_WARNING(#{what => address_refused, address => shortened(A)}, ?LOG_META) || A <- Bad],
    %% In the finder's order: who is online comes first.
    Nodes = lists:sublist(once([N || {_, {ok, N}} <- Named, N =/= node()]), Max),
    Facts = maps:from_list([{N, facts(P)} || {P, {ok, N}} <- Named]),
    true = ets:insert(?TABLE, [{known, Nodes}, {facts, maps:with(Nodes, Facts)}]),
    ok = baguette_cluster_connector:look(),
    S#?MODULE{refused = lists:sublist(Bad ++ Refused, Max)};
take(Same, Same, S) ->
    S;
take({error, Why}, _Before, S) ->
    ?LOG_WARNING(#{what => discovery_failed, why => Why, keeping => length(known())}, ?LOG_META),
    S.

once(Nodes) -> [N || {_, N} <- lists:keysort(1, lists:ukeysort(2, lists:enumerate(Nodes)))].

facts(Peer) ->
    Name = maps:get(name, Peer, <<>>),
    Path = maps:get(path, Peer, unknown),
    maps:from_list(
        [{name, Name} || is_binary(Name), byte_size(Name) =< ?MAX_NAME, is_text(Name)] ++
            [{path, Path} || Path =:= direct orelse Path =:= relayed]).

is_text(Name) -> is_list(unicode:characters_to_list(Name)).

shortened(Address) ->
    string:slice(io_lib:format("~0tP", [Address, 12]), 0, 80).
