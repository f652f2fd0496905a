%% @doc A request's body as a JSON object, or the problem to answer with. Pure; called by the
%% handlers of POST requests. Its size was bounded when it was read (baguette_web_request).
-module(baguette_web_body).

-export([object/1]).

%% @doc The body's fields: binary keys, so that no atom comes from outside.
-spec object(baguette_web_exchange:exchange()) ->
    {ok, #{binary() => jiffy:json_value()}} | {problem, baguette_web_problem:problem()}.
object(#{body := Body, header := Header}) ->
    case is_json(Header("content-type")) of
        true ->
            decode(Body);
        false ->
            problem(415, "send the body as JSON, with Content-Type: application/json")
    end.

is_json(undefined) ->
    false;
is_json(Type) ->
    [Essence | _] = string:split(Type, ";"),
    string:lowercase(string:trim(Essence)) =:= "application/json".

decode(Body) ->
    try jiffy:decode(Body, [return_maps]) of
        Object when is_map(Object) -> {ok, Object};
        _ -> problem(422, "the body must be one JSON object")
    catch
        %% jiffy throws {Position, Reason}, or errors for what is no UTF-8
        _:_ -> problem(400, "the body is not valid JSON in UTF-8")
    end.

problem(Status, Detail) ->
    {problem, baguette_web_problem:new(Status, Detail)}.
