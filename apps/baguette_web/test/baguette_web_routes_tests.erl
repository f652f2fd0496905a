%% Which handler a method and a path lead to.
-module(baguette_web_routes_tests).
-include_lib("eunit/include/eunit.hrl").

found(Method, Segments) ->
    case baguette_web_routes:find(Method, Segments) of
        {ok, {_, _, _, _, Function} = Route} -> {Function, baguette_web_routes:name(Route)};
        Other -> Other
    end.

a_segment_stands_for_one_test() ->
    ?assertEqual(
        {show, <<"/v1/jobs/_">>}, found('GET', [<<"v1">>, <<"jobs">>, <<"a7">>])
    ),
    ?assertEqual(not_found, found('GET', [<<"v1">>, <<"jobs">>, <<>>])),
    ?assertEqual(not_found, found('GET', [<<"v1">>, <<"jobs">>, <<"a">>, <<"b">>])).

the_rest_of_a_path_is_one_or_more_segments_test() ->
    ?assertMatch({asset, _}, found('GET', [<<"assets">>, <<"a">>, <<"b.js">>])),
    ?assertEqual(not_found, found('GET', [<<"assets">>])).

head_is_asked_of_get_test() ->
    ?assertMatch({alive, _}, found('HEAD', [<<"healthz">>])).

another_method_is_told_those_that_there_are_test() ->
    ?assertEqual({not_allowed, ['POST', 'GET', 'HEAD']}, found('PUT', [<<"v1">>, <<"jobs">>])),
    ?assertEqual({not_allowed, ['GET', 'HEAD']}, found(<<"BREW">>, [<<"healthz">>])).

nothing_but_the_page_and_health_is_open_test() ->
    Open = [
        baguette_web_routes:name(Route)
     || Route <- baguette_web_routes:all(), element(3, Route) =:= open
    ],
    ?assertEqual(
        [<<"/">>, <<"/assets/...">>, <<"/healthz">>, <<"/openapi.json">>, <<"/readyz">>],
        lists:sort(Open)
    ).
