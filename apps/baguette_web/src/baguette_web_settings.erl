%% @doc The web room's settings: where it listens, who may ask, how much. baguette_web_app calls it
%% once at start. Pure but for key/1, which reads the file of the tokens' key.
%%
%% The address is the node's own by default. Loopback and tailnet addresses are taken, no other: a
%% token travels in clear text, and only there is the way itself private.
-module(baguette_web_settings).

-include_lib("kernel/include/file.hrl").

-export([check/2, key/1]).
-export_type([settings/0]).

-type settings() :: #{
    address := inet:ip4_address(),
    port := inet:port_number() | undefined,    % undefined: no listener
    hosts := [binary()],             % further names in a URL that mean this node
    auth := token | none,            % none: anybody on this machine may ask
    token_key_file := file:filename() | undefined,
    key => <<_:256>>,                % what lies in it, once it was read
    whois := boolean(),              % a peer's user on the tailnet stands in for a token
    teller := module() | undefined,  % has words for events and errors: baguette_web_teller
    jobs_dir := file:filename() | undefined,    % undefined: no pictures are drawn over HTTP
    max_jobs := pos_integer(),       % that wait, and of one client
    max_client_jobs := pos_integer(),
    checkpoint_ms := non_neg_integer(),    % a running job is written at most so often
    keep_s := pos_integer(),         % jobs that have ended: seconds, bytes, how many
    keep_bytes := pos_integer(),
    keep_jobs := pos_integer(),
    max_prompt := pos_integer(),     % bytes
    max_steps := pos_integer(),      % at most the engine's own limits
    max_n := pos_integer(),          % images of a request, likewise
    max_pixels := pos_integer(),     % of all of them together
    max_connections := pos_integer(),
    max_body := pos_integer(),       % bytes
    request_ms := pos_integer(),     % in which a request must have come
    idle_ms := pos_integer()         % for which a silent connection is kept
}.
-define(HOSTS, "must be host names without a port, e.g. [\"studio.example\"]").

-type bad() :: {bad_setting, Key :: atom(), Value :: term(), Why :: string()}.

%% @doc Checks an application environment against the node that runs with it.
-spec check([{atom(), term()}], node()) -> {ok, settings()} | {error, bad()}.
check(Env, Node) ->
    Given = maps:merge(defaults(), maps:from_list(Env)),
    Settings = Given#{address => address(Given, Node)},
    Unknown = maps:keys(maps:without(keys(), Settings)),
    try
        [bad(Key, maps:get(Key, Settings), "is no setting of this application") || Key <- Unknown],
        [setting(Key, maps:get(Key, Settings), Settings) || Key <- keys()],
        {ok, Settings#{hosts := [list_to_binary(Host) || Host <- maps:get(hosts, Settings)]}}
    catch
        throw:{bad_setting, _, _, _} = Bad -> {error, Bad}
    end.

defaults() ->
    #{
        address => undefined,
        port => undefined,
        hosts => [],
        auth => token,
        token_key_file => undefined,
        whois => false,
        teller => undefined,
        jobs_dir => undefined,
        max_jobs => 64,
        max_client_jobs => 32,
        checkpoint_ms => 1000,
        keep_s => 7 * 24 * 3600,
        keep_bytes => 2 bsl 30,
        keep_jobs => 2000,
        max_prompt => 8000,
        max_steps => 250,
        max_n => 16,
        max_pixels => 16 bsl 20,
        max_connections => 2048,
        max_body => 65536,
        request_ms => 10000,
        idle_ms => 60000
    }.

keys() ->
    maps:keys(defaults()).

-spec setting(atom(), term(), map()) -> ok.
setting(port, undefined, _) -> ok;
setting(port, Port, _) when is_integer(Port), Port > 0, Port < 65536 -> ok;
setting(port, Port, _) -> bad(port, Port, "must be a port number, 1..65535");
setting(address, _, #{port := undefined}) -> ok;
setting(address, {127, _, _, _}, _) -> ok;
setting(address, {100, Second, _, _}, _) when Second >= 64, Second < 128 -> ok;
setting(address, Address, _) ->
    bad(address, Address, "must be a loopback or a tailnet address, e.g. 127.0.0.1");
%% length/1 takes no improper list.
setting(hosts, Hosts, _) when length(Hosts) >= 0 ->
    [ok = host(Host) || Host <- Hosts],
    ok;
setting(hosts, Hosts, _) ->
    bad(hosts, Hosts, ?HOSTS);
setting(auth, token, _) -> ok;
setting(auth, none, #{address := {127, _, _, _}}) -> ok;
setting(auth, none, _) ->
    bad(auth, none, "is for a loopback address only; elsewhere it must be token");
setting(auth, Auth, _) -> bad(auth, Auth, "must be token or none");
setting(token_key_file, undefined, #{auth := token, port := Port}) when Port =/= undefined ->
    bad(token_key_file, undefined, "must name the file of the tokens' key where auth is token");
setting(token_key_file, undefined, _) -> ok;
setting(whois, Whois, _) when is_boolean(Whois) -> ok;
setting(whois, Whois, _) -> bad(whois, Whois, "must be true or false");
setting(teller, Teller, _) when is_atom(Teller) -> ok;
setting(teller, Teller, _) -> bad(teller, Teller, "must name a module");
setting(jobs_dir, undefined, _) -> ok;
setting(Key, Path, _) when Key =:= token_key_file; Key =:= jobs_dir ->
    case io_lib:printable_unicode_list(Path) andalso Path =/= "" of
        true -> ok;
        false -> bad(Key, Path, "must be a path")
    end;
setting(checkpoint_ms, 0, _) -> ok;
setting(max_connections, Max, _) when is_integer(Max), Max >= 16 -> ok;
setting(max_connections, Max, _) -> bad(max_connections, Max, "must be a whole number from 16 up");
setting(max_steps, Max, _) -> at_most(maps:get(steps, baguette_engine:limits()), max_steps, Max);
setting(max_n, Max, _) -> at_most(maps:get(n, baguette_engine:limits()), max_n, Max);
setting(Key, Value, _) when
    Key =:= max_jobs; Key =:= max_client_jobs; Key =:= checkpoint_ms; Key =:= keep_s;
    Key =:= keep_bytes; Key =:= keep_jobs; Key =:= max_prompt; Key =:= max_pixels;
    Key =:= max_body; Key =:= request_ms; Key =:= idle_ms
->
    case is_integer(Value) andalso Value > 0 of
        true -> ok;
        false -> bad(Key, Value, "must be a whole number above 0")
    end.

%% What the engine would refuse later is refused before a job is taken.
at_most(Most, _Key, Value) when is_integer(Value), Value > 0, Value =< Most -> ok;
at_most(Most, Key, Value) ->
    bad(Key, Value, lists:flatten(io_lib:format("must be a whole number, 1..~b", [Most]))).

host(Host) ->
    case io_lib:printable_latin1_list(Host) andalso Host =/= "" of
        true -> ok;
        false -> bad(hosts, Host, ?HOSTS)
    end.

-spec bad(atom(), term(), string()) -> no_return().
bad(Key, Value, Why) ->
    throw({bad_setting, Key, Value, Why}).

%% @doc The tokens' key: 32 bytes in hex, in a file that nobody else may read.
-spec key(settings()) -> {ok, settings()} | {error, bad()}.
key(#{port := Port, auth := Auth} = Settings) when Port =:= undefined; Auth =:= none ->
    {ok, Settings};
key(#{token_key_file := File} = Settings) ->
    try
        {ok, Settings#{key => key_of(File)}}
    catch
        throw:Why -> {error, {bad_setting, token_key_file, File, Why}}
    end.

key_of(File) ->
    case file:read_file_info(File) of
        {ok, #file_info{mode = Mode}} when Mode band 8#077 =/= 0 ->
            throw("may be read by others: chmod 0600 it, and make another if others have");
        {ok, #file_info{size = Size}} when Size > 128 ->
            throw("must hold 64 hex digits");
        {ok, _} ->
            case file:read_file(File) of
                {ok, Text} -> from_hex(string:trim(Text));
                {error, Reason} -> unreadable(Reason)
            end;
        {error, Reason} ->
            unreadable(Reason)
    end.

-spec unreadable(atom()) -> no_return().
unreadable(Reason) ->
    throw("cannot be read: " ++ file:format_error(Reason)).

from_hex(<<_:64/binary>> = Hex) ->
    try
        binary:decode_hex(Hex)
    catch
        error:_ -> throw("must hold 64 hex digits")
    end;
from_hex(_) ->
    throw("must hold 64 hex digits").

address(#{port := undefined}, _Node) -> {127, 0, 0, 1};
address(#{address := undefined}, Node) -> parse(host_of(atom_to_list(Node)));
address(#{address := Given}, _Node) -> parse(Given).

host_of(Name) ->
    case string:split(Name, "@") of
        [_, "nohost"] -> "127.0.0.1";
        [_, Host] -> Host
    end.

parse(Text) ->
    case is_list(Text) andalso inet:parse_ipv4strict_address(Text) of
        {ok, Address} -> Address;
        _ -> Text
    end.
