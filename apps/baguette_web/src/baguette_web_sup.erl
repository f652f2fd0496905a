%% @doc The listener and what its connections ask, when a port is set; without one the room is
%% empty. Owns the tables of counts and of links, so that they outlive those who write.
%%
%% The stream hears of every job by its own word to the jobs: when they begin anew so does it, under
%% a supervisor of these two. Nobody else has to: a connection looks up whom it asks.
-module(baguette_web_sup).
-behaviour(supervisor).

-export([start_link/1, init/1]).

-spec start_link(baguette_web_settings:settings()) -> {ok, pid()} | {error, term()}.
start_link(Settings) ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, Settings).

-spec init(baguette_web_settings:settings() | {followed, baguette_web_settings:settings()}) ->
    {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(#{port := undefined}) ->
    {ok, {#{}, []}};
init(#{} = Settings) ->
    ok = baguette_web_counts:new(),
    ok = baguette_web_links:new(),
    ok = baguette_web_page_h:load(),
    Whois = #{id => whois, start => {baguette_web_whois, start_link, []}},
    Listener = #{id => listener, start => {baguette_web_http, start_link, [Settings]}},
    Tree = #{id => tree, start => {baguette_web_tree, start_link, []}},
    Start = [{local, baguette_web_followed_sup}, ?MODULE, {followed, Settings}],
    Followed = #{id => followed, type => supervisor, start => {supervisor, start_link, Start}},
    {ok, {#{intensity => 5, period => 10}, [Whois, Tree, Followed, Listener]}};
init({followed, #{port := Port} = Settings}) ->
    Stream = #{id => stream, start => {baguette_web_stream, start_link, [Port]}},
    Flags = #{strategy => rest_for_one, intensity => 5, period => 10},
    {ok, {Flags, jobs(Settings) ++ [Stream]}}.

jobs(#{jobs_dir := undefined}) ->
    [];
jobs(Settings) ->
    Start = {baguette_web_jobs_sup, start_link, [Settings]},
    [#{id => jobs, type => supervisor, start => Start}].
