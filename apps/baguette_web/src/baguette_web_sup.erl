%% @doc The listener and what its connections ask, when a port is set; without one the room is
%% empty. Owns the table of counts, so that they outlive the listener.
-module(baguette_web_sup).
-behaviour(supervisor).

-export([start_link/1, init/1]).

-spec start_link(baguette_web_settings:settings()) -> {ok, pid()} | {error, term()}.
start_link(Settings) ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, Settings).

-spec init(baguette_web_settings:settings()) ->
    {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(#{port := undefined}) ->
    {ok, {#{}, []}};
init(#{port := Port} = Settings) ->
    ok = baguette_web_counts:new(),
    ok = baguette_web_page_h:load(),
    Whois = #{id => whois, start => {baguette_web_whois, start_link, []}},
    Listener = #{id => listener, start => {baguette_web_http, start_link, [Settings]}},
    Tree = #{id => tree, start => {baguette_web_tree, start_link, []}},
    Stream = #{id => stream, start => {baguette_web_stream, start_link, [Port]}},
    %% The stream hears of every job.
    Children = [Whois] ++ jobs(Settings) ++ [Tree, Stream, Listener],
    {ok, {#{strategy => one_for_one, intensity => 5, period => 10}, Children}}.

jobs(#{jobs_dir := undefined}) ->
    [];
jobs(Settings) ->
    Start = {baguette_web_jobs_sup, start_link, [Settings]},
    [#{id => jobs, type => supervisor, start => Start}].
