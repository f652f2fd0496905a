%% The dashboard's files: all there, nothing else, and nothing in them that the content policy or
%% an attacker would have a word with.
-module(baguette_web_page_tests).
-include_lib("eunit/include/eunit.hrl").

page_test_() ->
    {setup, fun baguette_web_page_h:load/0, fun(_) ->
        [
            fun the_page_and_all_it_names_are_served/0,
            fun an_unchanged_file_is_not_sent_again/0,
            fun only_the_list_is_served/0,
            fun nothing_is_inline_or_from_outside/0,
            fun text_never_becomes_markup/0
        ]
    end}.

the_page_and_all_it_names_are_served() ->
    Page = body(baguette_web_page_h:page(exchange([]))),
    Named = lists:usort(names(Page, "(?:href|src)=\"/assets/([^\"]+)\"")),
    ?assert(lists:member(<<"main.js">>, Named)),
    Modules = reachable(<<"main.js">>, []),
    [?assert(byte_size(asset(Name)) > 0) || Name <- Named ++ Modules],
    %% and nothing is served that nobody asks for
    ?assertEqual(lists:sort(on_disk()), lists:usort([<<"index.html">> | Named ++ Modules])).

reachable(Name, Seen) ->
    Imported = names(asset(Name), "from \"\\./([^\"]+)\""),
    lists:foldl(fun follow/2, [Name | Seen], Imported).

follow(Name, Seen) ->
    case lists:member(Name, Seen) of
        true -> Seen;
        false -> reachable(Name, Seen)
    end.

an_unchanged_file_is_not_sent_again() ->
    {reply, 200, Headers, _} = baguette_web_page_h:page(exchange([])),
    {_, Etag} = lists:keyfind(<<"etag">>, 1, Headers),
    Again = exchange([], #{"if-none-match" => binary_to_list(iolist_to_binary(Etag))}),
    ?assertMatch({reply, 304, _, <<>>}, baguette_web_page_h:page(Again)),
    Other = exchange([], #{"if-none-match" => "\"other\""}),
    ?assertMatch({reply, 200, _, _}, baguette_web_page_h:page(Other)).

only_the_list_is_served() ->
    [
        ?assertMatch({problem, _}, baguette_web_page_h:asset(exchange([<<"assets">> | Path])))
     || Path <- [
            [<<"nothing.js">>], [<<"..">>, <<"www">>, <<"main.js">>], [<<>>], [<<"../main.js">>]
        ]
    ].

nothing_is_inline_or_from_outside() ->
    Page = body(baguette_web_page_h:page(exchange([]))),
    ?assertEqual(nomatch, re:run(Page, "<style|style=|<script(?![^>]* src=)| on[a-z]+=")),
    All = [Page | [asset(Name) || Name <- on_disk(), Name =/= <<"index.html">>]],
    Outside = "(?<!xmlns=\")(?:https?:)?//(?!www\\.w3\\.org)[a-z]",
    [?assertEqual(nomatch, re:run(without_comments(Text), Outside)) || Text <- All].

text_never_becomes_markup() ->
    [
        ?assertEqual({Name, nomatch}, {Name, re:run(asset(Name), "innerHTML|outerHTML|"
            "insertAdjacentHTML|document\\.write|eval\\(|new Function|DOMParser")})
     || Name <- on_disk(), filename:extension(Name) =:= <<".js">>
    ].

%% --- pieces

names(Text, Pattern) ->
    case re:run(Text, Pattern, [global, {capture, all_but_first, binary}]) of
        {match, Found} -> lists:append(Found);
        nomatch -> []
    end.

without_comments(Text) ->
    re:replace(Text, "^\\s*(//|/\\*|\\*).*$", "", [global, multiline, {return, binary}]).

on_disk() ->
    {ok, Names} = file:list_dir(filename:join(code:priv_dir(baguette_web), "www")),
    [list_to_binary(Name) || Name <- Names].

asset(Name) -> body(baguette_web_page_h:asset(exchange([<<"assets">>, Name]))).

body({reply, 200, _, Body}) -> Body.

exchange(Segments) -> exchange(Segments, #{}).

exchange(Segments, Headers) ->
    #{segments => Segments, header => fun(Name) -> maps:get(Name, Headers, undefined) end}.
