%% @doc GET /openapi.json: what this API is, as a document for machines; kept by hand in priv.
%% Handler of baguette_web_routes.
-module(baguette_web_openapi_h).

-export([document/1]).

-spec document(baguette_web_exchange:exchange()) -> baguette_web_exchange:answer().
document(_Exchange) ->
    {ok, Json} = file:read_file(filename:join(code:priv_dir(baguette_web), "openapi.json")),
    {reply, 200, [{<<"content-type">>, <<"application/json">>}], Json}.
