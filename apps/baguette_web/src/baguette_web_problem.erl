%% @doc Problem documents (RFC 9457): every error this room answers with. Pure; called by the
%% handlers and by baguette_web_exchange, which makes a reply of them.
%%
%% The detail is one sentence that says what to do. `field' names the culprit in a request's body.
-module(baguette_web_problem).

-export([new/2, new/3, status/1, document/1, reply/1, title/1]).
-export_type([problem/0]).

-opaque problem() :: #{
    type := binary(),
    title := binary(),
    status := 400..599,
    detail := binary(),
    field => binary(),
    instance => binary(),
    headers => [{binary(), iodata()}]    % of the reply, not of the document
}.

%% @doc A problem that its status alone names.
-spec new(400..599, iodata()) -> problem().
new(Status, Detail) ->
    new(Status, Detail, #{}).

%% @doc The same with more: `name' (becomes the type, urn:baguette:NAME), `field', `instance', and
%% `headers' for the reply, e.g. Retry-After.
-spec new(400..599, iodata(), #{
    name => atom() | binary(),
    field => atom() | binary(),
    instance => binary(),
    headers => [{binary(), iodata()}]
}) -> problem().
new(Status, Detail, More) ->
    Problem = #{
        type => type(More),
        title => title(Status),
        status => Status,
        detail => unicode:characters_to_binary(Detail)
    },
    maps:merge(Problem, maps:map(fun text/2, maps:without([name], More))).

text(field, Field) when is_atom(Field) -> atom_to_binary(Field);
text(_, Value) -> Value.

type(#{name := Name}) when is_atom(Name) -> type(#{name => atom_to_binary(Name)});
type(#{name := Name}) -> <<"urn:baguette:", Name/binary>>;
type(_) -> <<"about:blank">>.

-spec status(problem()) -> 400..599.
status(#{status := Status}) -> Status.

%% @doc The document itself.
-spec document(problem()) -> #{atom() => binary() | 400..599}.
document(Problem) -> maps:remove(headers, Problem).

%% @doc Status, headers and body of the reply.
-spec reply(problem()) -> {400..599, [{binary(), iodata()}], iodata()}.
reply(#{status := Status} = Problem) ->
    Headers = [
        {<<"content-type">>, <<"application/problem+json">>}
        | maps:get(headers, Problem, [])
    ],
    {Status, Headers, [jiffy:encode(document(Problem)), $\n]}.

%% @doc What a status is called, here and in the status line.
-spec title(400..599) -> binary().
title(400) -> <<"Bad Request">>;
title(401) -> <<"Unauthorized">>;
title(403) -> <<"Forbidden">>;
title(404) -> <<"Not Found">>;
title(405) -> <<"Method Not Allowed">>;
title(408) -> <<"Request Timeout">>;
title(409) -> <<"Conflict">>;
title(411) -> <<"Length Required">>;
title(413) -> <<"Content Too Large">>;
title(415) -> <<"Unsupported Media Type">>;
title(422) -> <<"Unprocessable Content">>;
title(429) -> <<"Too Many Requests">>;
title(431) -> <<"Request Header Fields Too Large">>;
title(500) -> <<"Internal Server Error">>;
title(503) -> <<"Service Unavailable">>;
title(504) -> <<"Gateway Timeout">>;
title(507) -> <<"Insufficient Storage">>;
title(_) -> <<"Error">>.
