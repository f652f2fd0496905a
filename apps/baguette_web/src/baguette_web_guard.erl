%% @doc Who may ask: the address a request was sent to, the page it was sent by, the token it
%% carries. Called by baguette_web_exchange before anything of a request is believed.
%%
%% Host: a name that somebody rebinds to this address must not read along, so only our own address,
%% localhost and the names in the setting `hosts' are answered. Origin: a browser says which page
%% sends a request; only our own and those of the cluster's other nodes may. Token: see
%% baguette_web_tokens. The client's address is the socket's own; X-Forwarded-For is never read.
-module(baguette_web_guard).

-export([check/3, cors/2, page_policy/1]).

-type settings() :: baguette_web_settings:settings().
-type request() :: baguette_web_request:request().

%% @doc The client's name, or why it is not answered.
-spec check(open | token, request(), settings()) ->
    {ok, Client :: binary()} | {problem, baguette_web_problem:problem()}.
check(Access, #{headers := Headers} = Request, Settings) ->
    Host = baguette_web_request:header(<<"host">>, Headers),
    case is_ours(Host, Settings) of
        false ->
            problem(403, "use this node's own address in the URL: its name here is not known");
        true ->
            case origin(Request, Settings) of
                other -> problem(403, "a page of another site may not ask this node");
                _ -> client(Access, Request, Settings)
            end
    end.

is_ours(undefined, _) ->
    false;
is_ours(Host, #{address := Address, port := Port, hosts := Hosts}) ->
    Own = host_port(inet:ntoa(Address), Port),
    [Name | _] = binary:split(Host, <<":">>),
    Host =:= Own orelse Name =:= <<"localhost">> orelse lists:member(Name, Hosts).

host_port(Host, Port) ->
    iolist_to_binary([Host, $:, integer_to_list(Port)]).

%% own: no page at all, or a page of this node; member: of another node of this cluster.
origin(#{headers := Headers}, #{port := Port}) ->
    Host = baguette_web_request:header(<<"host">>, Headers),
    case baguette_web_request:header(<<"origin">>, Headers) of
        undefined -> own;
        <<"http://", Host/binary>> -> own;
        <<"http://", Other/binary>> -> member_or_other(Other, Port);
        _ -> other
    end.

member_or_other(Host, Port) ->
    Origin = <<"http://", Host/binary>>,
    case lists:member(Origin, origins(Port)) of
        true -> {member, Origin};
        false -> other
    end.

%% Those that have died count: their page lives on in a browser and turns to another node. All
%% nodes of a cluster answer HTTP on the same port.
origins(Port) ->
    [
        iolist_to_binary(["http://", host_port(Address, Port)])
     || Address <- baguette_cluster:addresses()
    ].

%% @doc The content policy of the dashboard: our own scripts and styles, nothing inline, no outside
%% address, no frame. Pictures come as blobs too, because an img cannot carry a token.
-spec page_policy(settings()) -> iolist().
page_policy(#{port := Port}) ->
    [
        "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; connect-src 'self'",
        [[$\s, Origin] || Origin <- origins(Port)]
    ].

%% @doc The headers that let a page of another node of this cluster read the answer.
-spec cors(request(), settings()) -> baguette_web_exchange:headers().
cors(#{headers := Headers} = Request, Settings) ->
    case baguette_web_request:header(<<"origin">>, Headers) of
        undefined ->
            [];
        _ ->
            case origin(Request, Settings) of
                {member, Origin} -> cors(Origin);
                _ -> [{<<"vary">>, <<"Origin">>}]
            end
    end.

cors(Origin) ->
    [
        {<<"vary">>, <<"Origin">>},
        {<<"access-control-allow-origin">>, Origin},
        {<<"access-control-allow-methods">>, <<"GET, POST, DELETE">>},
        {<<"access-control-allow-headers">>,
            <<"authorization, content-type, idempotency-key, last-event-id">>},
        {<<"access-control-expose-headers">>, <<"location, retry-after">>},
        {<<"access-control-max-age">>, <<"600">>}
    ].

client(open, #{peer := Peer}, _) ->
    {ok, peer(Peer)};
client(token, #{peer := Peer}, #{auth := none}) ->
    {ok, peer(Peer)};
client(token, #{headers := Headers} = Request, #{key := Key} = Settings) ->
    case bearer(baguette_web_request:header(<<"authorization">>, Headers)) of
        {ok, Token} -> known(baguette_web_tokens:name(Token, Key));
        none -> tailnet(Request, Settings)
    end.

bearer(<<Scheme:6/binary, " ", Token/binary>>) ->
    case {baguette_web_request:lower(Scheme), binary:split(Token, <<" ">>, [global, trim_all])} of
        {<<"bearer">>, [Word]} -> {ok, Word};
        _ -> none
    end;
bearer(_) ->
    none.

known({ok, Name}) -> {ok, Name};
known(error) -> unauthorized("this token is not one of this cluster: `make token` prints one").

tailnet(_, #{whois := false}) ->
    unauthorized("send Authorization: Bearer TOKEN; `make token` on a node prints one");
tailnet(#{peer := Peer}, #{whois := true}) ->
    case baguette_web_whois:user(Peer) of
        {ok, User} -> {ok, <<"tailnet:", User/binary>>};
        error -> unauthorized("the tailnet names no user for this address: send a token")
    end.

peer(Address) ->
    iolist_to_binary(["peer:", inet:ntoa(Address)]).

unauthorized(Detail) ->
    Challenge = [{<<"www-authenticate">>, <<"Bearer realm=\"baguette\"">>}],
    {problem, baguette_web_problem:new(401, Detail, #{headers => Challenge})}.

problem(Status, Detail) ->
    {problem, baguette_web_problem:new(Status, Detail)}.
