%% @doc Whatever is logged is one line of JSON, bounded, and holds nothing private. Run by
%% baguette_log_tests.
-module(prop_baguette_log).

-include_lib("proper/include/proper.hrl").

-export([
    prop_any_facts_are_one_bounded_line/0,
    prop_any_message_is_one_bounded_line/0,
    prop_a_crash_shows_no_text/0
]).

-define(SECRET, "zebra-crossing").

%% Everything that a term can be, and large ones. As a recipe that real/1 follows, because PropEr
%% looks into each term again and again, and takes functions for types.
anything() ->
    ?SIZED(Size, anything(3 * Size)).

anything(0) ->
    oneof([
        {is, oneof([atom(), integer(), float(), binary(), bitstring(), string()])},
        {odd, range(1, 20)}
    ]);
anything(Size) ->
    Smaller = Size div 3,
    ?LAZY(oneof([
        anything(0),
        {list, few(anything(Smaller)), {is, []}},
        {list, non_empty(few(anything(Smaller))), anything(0)},
        {tuple, few(anything(Smaller))},
        object(anything(Smaller), anything(Smaller))
    ])).

object(Key, Value) -> {map, few({Key, Value})}.

few(Type) -> resize(5, list(Type)).

real({is, Term}) -> Term;
real({odd, N}) -> odd(N);
real({list, Items, Tail}) -> [real(I) || I <- Items] ++ real(Tail);
real({tuple, Items}) -> list_to_tuple([real(I) || I <- Items]);
real({map, Pairs}) -> maps:from_list([{real(K), real(V)} || {K, V} <- Pairs]).

odd(1) -> <<"ünïcode"/utf8>>;
odd(2) -> <<255, 254, "cut"/utf8>>;
odd(3) -> [955, 32, 16#1F956];
odd(4) -> [16#D800, $a];
odd(5) -> 1 bsl 900;
odd(6) -> -(1 bsl 70);
odd(7) -> self();
odd(8) -> make_ref();
odd(9) -> fun erlang:now/0;
odd(10) -> hd(erlang:ports());
odd(11) -> fun(X) -> X end;
odd(12) -> binary:copy(<<"long text ">>, 900);
odd(13) -> binary:copy(<<0, 1, 2, 255>>, 5000);
odd(14) -> lists:duplicate(3000, $x);
odd(15) -> lists:seq(1, 3000);
odd(16) -> <<"\e[31m\"\\\n\t">>;
odd(17) -> 'baguette@127.0.0.9';
odd(18) -> list_to_tuple(lists:seq(1, 300));
odd(19) -> maps:from_list([{I, I} || I <- lists:seq(1, 300)]);
odd(20) -> ''.

prop_any_facts_are_one_bounded_line() ->
    ?FORALL({What, Facts}, {oneof([what(), anything()]), object(oneof([name(), anything()]),
            anything())},
        is_line({report, (real(Facts))#{what => real(What)}}, #{domain => [baguette, engine]})
    ).

%% Names that the sentences look for, with whatever value.
what() -> {is, oneof([link, failover, waiting, degraded, worker_died, holding, generation_failed])}.
name() -> {is, oneof([peer, state, expert, from, to, why, lost, mass, reason, kind, new, let_go])}.

prop_any_message_is_one_bounded_line() ->
    ?FORALL({Message, Meta}, {message(), object({is, oneof([domain, generation, node])},
            anything())},
        is_line(sent(Message), real(Meta))
    ).

message() ->
    oneof([
        {report, object({is, atom()}, anything())},
        {report, {list, few(anything()), {is, []}}},
        {report, {tuple, [anything()]}, list({{is, label_key()}, anything()})},
        {report, {is, {label(), atom()}}, list({{is, label_key()}, anything()})},
        {string, oneof([{is, string()}, {is, binary()}, {list, few(anything()), {is, []}}])},
        {oneof(["~p ~s~n", "~w", "no argument", "Error in process ~p with exit value:~n~p~n"]),
            {list, few(anything()), {is, []}}}
    ]).

sent({report, Label, Pairs}) ->
    {report, #{label => real(Label), report => [{real(K), real(V)} || {K, V} <- Pairs]}};
sent({Kind, Recipe}) ->
    {Kind, real(Recipe)}.

label_key() -> oneof([reason, name, application, exited, error_info, supervisor, offender, atom()]).
label() -> oneof([proc_lib, supervisor, gen_server, application_controller, error_logger]).

is_line(Message, Meta) ->
    Line = baguette_log_tests:line(Message, Meta),
    ?WHENFAIL(io:format("~p~n", [Line]), begin
        [Json, <<>>] = binary:split(Line, <<"\n">>, [global]),
        #{<<"at">> := _, <<"level">> := _, <<"what">> := What, <<"facts">> := _} =
            jiffy:decode(Json, [return_maps]),
        What =/= <<"not_formatted">> andalso byte_size(Json) =< 4000 andalso
            binary:match(Json, <<"\e">>) =:= nomatch
    end).

%% Wherever in what a process had in its hands a text is, as bytes or characters, also cut.
prop_a_crash_shows_no_text() ->
    ?FORALL({Around, Kind}, {around(oneof([?SECRET, <<?SECRET>>, [<<"a ">>, ?SECRET],
            [$a | <<?SECRET>>], {?SECRET}, #{prompt => <<?SECRET>>}])),
            oneof([proc_lib, gen_server, gen_statem, supervisor, emulator])},
        begin
            Line = baguette_log_tests:line(crash(Kind, Around), #{domain => [otp]}),
            ?WHENFAIL(io:format("~p~n", [Line]),
                binary:match(Line, <<"zebra">>) =:= nomatch andalso
                binary:match(Line, <<"crossing">>) =:= nomatch andalso
                binary:match(Line, <<"122,101,98">>) =:= nomatch)
        end
    ).

around(Secret) ->
    ?LET(Depth, range(0, 4), lists:foldl(
        fun(_, In) -> oneof([{error, In}, [a, In], #{k => In}, {badmatch, [In]}]) end,
        Secret, lists:seq(1, Depth))).

crash(Kind, Private) ->
    Stack = [{m, f, [Private], [{line, 3}]}, {m, g, 1, []}],
    case Kind of
        proc_lib ->
            {report, #{label => {proc_lib, crash}, report => [[
                {initial_call, {m, init, [Private]}}, {pid, self()}, {registered_name, []},
                {error_info, {error, Private, Stack}}, {messages, [Private]},
                {dictionary, [{p, Private}]}
            ], []]}};
        gen_server ->
            {report, #{label => {gen_server, terminate}, name => n, last_message => Private,
                state => Private, log => [Private], reason => {Private, Stack},
                client_info => {self(), {n, Stack}}}};
        gen_statem ->
            {report, #{label => {gen_statem, terminate}, name => n, queue => [Private],
                postponed => [Private], state => Private, reason => {error, Private, Stack}}};
        supervisor ->
            {report, #{label => {supervisor, child_terminated}, report => [
                {supervisor, {local, s}}, {errorContext, child_terminated}, {reason, Private},
                {offender, [{pid, self()}, {id, i}, {mfargs, {m, f, [Private]}}]}
            ]}};
        emulator ->
            {"Error in process ~p with exit value:~n~p~n", [self(), {Private, Stack}]}
    end.
