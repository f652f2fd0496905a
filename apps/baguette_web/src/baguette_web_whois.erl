%% @doc Who is behind an address of the tailnet: asked of the local tailscale CLI, remembered for a
%% minute, refusals too. Called by baguette_web_guard where the setting `whois' is true.
%%
%% The CLI takes tens of milliseconds and every request would ask: one process asks, one address at
%% a time, so that no client can start a crowd of them.
-module(baguette_web_whois).
-behaviour(gen_server).

-export([start_link/0, user/1]).
-export([init/1, handle_call/3, handle_cast/2]).

-define(REMEMBERED_MS, 60000).
-define(CALL_MS, 15000).
-define(MAX_REMEMBERED, 1000).

-type known() :: #{inet:ip_address() => {AtMs :: integer(), {ok, binary()} | error}}.

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, none, []).

%% @doc The login name of the user whose machine has this address; a tagged machine has none.
-spec user(inet:ip_address()) -> {ok, binary()} | error.
user(Address) ->
    gen_server:call(?MODULE, {user, Address}, ?CALL_MS).

-spec init(none) -> {ok, known()}.
init(none) ->
    {ok, #{}}.

-spec handle_call({user, inet:ip_address()}, gen_server:from(), known()) ->
    {reply, {ok, binary()} | error, known()}.
handle_call({user, Address}, _From, Known) ->
    Now = erlang:monotonic_time(millisecond),
    case Known of
        #{Address := {At, Answer}} when Now - At < ?REMEMBERED_MS ->
            {reply, Answer, Known};
        _ ->
            Answer = asked(baguette_cluster:whois(Address)),
            {reply, Answer, (fresh(Now, Known))#{Address => {Now, Answer}}}
    end.

%% Why the CLI did not say is in the log: baguette_cluster:whois/1.
asked({ok, User}) -> {ok, User};
asked({error, _}) -> error.

fresh(_Now, Known) when map_size(Known) >= ?MAX_REMEMBERED -> #{};
fresh(Now, Known) ->
    maps:filter(fun(_, {At, _}) -> Now - At < ?REMEMBERED_MS end, Known).

-spec handle_cast(term(), known()) -> {noreply, known()}.
handle_cast(_Unknown, Known) ->
    {noreply, Known}.
