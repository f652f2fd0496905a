%% @doc HTTP on the node's own address: is it alive, is it ready, what does the cluster look like.
%%
%% Read only, so that nothing can be asked of a node by a page in somebody's browser; the Host
%% header must still be ours, or a name that was rebound to this address could read along. mochiweb
%% runs one process per connection; when the listener dies, its supervisor starts it again.
-module(baguette_web_http).

-export([start_link/1]).

-define(MAX_CONNECTIONS, 64).

-spec start_link(baguette_web_settings:settings()) -> {ok, pid()} | {error, term()}.
start_link(#{address := Address, port := Port}) ->
    Hosts = [host(Address, Port), host("localhost", Port)],
    mochiweb_http:start_link([
        {name, undefined},
        {ip, Address},
        {port, Port},
        {max, ?MAX_CONNECTIONS},
        {loop, fun(Request) -> handle(Hosts, Request) end}
    ]).

host(Address, Port) when is_tuple(Address) -> host(inet:ntoa(Address), Port);
host(Name, Port) -> Name ++ ":" ++ integer_to_list(Port).

handle(Hosts, Request) ->
    Host = mochiweb_request:get_header_value("host", Request),
    Method = mochiweb_request:get(method, Request),
    Path = mochiweb_request:get(path, Request),
    {Status, Type, Value} = answer(lists:member(Host, Hosts), Method, Path),
    Headers = [
        {"Content-Type", Type},
        {"Cache-Control", "no-store"},
        {"X-Content-Type-Options", "nosniff"}
        | allow(Status)
    ],
    mochiweb_request:respond({Status, Headers, [jiffy:encode(Value), $\n]}, Request).

allow(405) -> [{"Allow", "GET, HEAD"}];
allow(_) -> [].

answer(false, _, _) ->
    problem(403, <<"Forbidden">>, <<"this host name is not this node's own address">>);
answer(true, Method, Path) when Method =:= 'GET'; Method =:= 'HEAD' ->
    page(Path);
answer(true, _, _) ->
    problem(405, <<"Method Not Allowed">>, <<"only GET is answered here">>).

page("/healthz") ->
    json(200, #{status => ok});
page("/readyz") ->
    case baguette_web_view:reasons(baguette_engine:health()) of
        [] -> json(200, #{status => ready});
        Reasons -> json(503, #{status => not_ready, reasons => Reasons})
    end;
page("/v1/cluster") ->
    json(200, baguette_web_view:cluster(baguette_cluster:overview(), baguette_engine:experts()));
page(_) ->
    problem(404, <<"Not Found">>, <<"try /healthz, /readyz or /v1/cluster">>).

json(Status, Value) -> {Status, "application/json", Value}.

%% RFC 9457
problem(Status, Title, Detail) ->
    Problem = #{type => <<"about:blank">>, title => Title, status => Status, detail => Detail},
    {Status, "application/problem+json", Problem}.
