%% @doc GET / and /assets/NAME: the dashboard's files, a fixed list out of priv/www, read once at
%% start (load/0, by baguette_web_sup). Handlers of baguette_web_routes; a name from a client is
%% only ever compared. The content policy is baguette_web_guard's.
-module(baguette_web_page_h).

-export([load/0]).
-export([page/1, asset/1]).

-define(INDEX, <<"index.html">>).
-define(FILES, [
    ?INDEX, <<"style.css">>, <<"baguette.svg">>, <<"main.js">>, <<"api.js">>, <<"stream.js">>,
    <<"dom.js">>, <<"draw.js">>, <<"pictures.js">>, <<"timeline.js">>, <<"nodes.js">>,
    <<"links.js">>, <<"tree.js">>, <<"log.js">>, <<"charts.js">>, <<"about.js">>
]).

%% @doc Read every file; a page with a part missing is no page.
-spec load() -> ok.
load() ->
    Dir = filename:join(code:priv_dir(baguette_web), "www"),
    persistent_term:put(?MODULE, maps:from_list([{Name, file(Dir, Name)} || Name <- ?FILES])).

file(Dir, Name) ->
    {ok, Bytes} = file:read_file(filename:join(Dir, Name)),
    Hash = binary:encode_hex(binary:part(crypto:hash(sha256, Bytes), 0, 12)),
    #{bytes => Bytes, etag => <<$", Hash/binary, $">>, type => type(filename:extension(Name))}.

type(<<".html">>) -> <<"text/html; charset=utf-8">>;
type(<<".css">>) -> <<"text/css; charset=utf-8">>;
type(<<".js">>) -> <<"text/javascript; charset=utf-8">>;
type(<<".svg">>) -> <<"image/svg+xml">>.

-spec page(baguette_web_exchange:exchange()) -> baguette_web_exchange:answer().
page(Exchange) ->
    serve(?INDEX, Exchange).

-spec asset(baguette_web_exchange:exchange()) -> baguette_web_exchange:answer().
asset(#{segments := [_ | Path]} = Exchange) ->
    serve(iolist_to_binary(lists:join($/, Path)), Exchange).

serve(Name, #{header := Header}) ->
    case persistent_term:get(?MODULE) of
        #{Name := #{etag := Etag} = File} ->
            answer(Etag, Header("if-none-match"), File);
        #{} ->
            Detail = <<"the page has no such file; open / and it asks for what there is">>,
            {problem, baguette_web_problem:new(404, Detail)}
    end.

%% no-cache: kept, and asked about before every use; a new version shows at once.
answer(Etag, Asked, #{bytes := Bytes, type := Type}) ->
    Headers = [
        {<<"etag">>, Etag}, {<<"cache-control">>, <<"no-cache">>}, {<<"content-type">>, Type}
    ],
    case Asked =/= undefined andalso list_to_binary(Asked) =:= Etag of
        true -> {reply, 304, Headers, <<>>};
        false -> {reply, 200, Headers, Bytes}
    end.
