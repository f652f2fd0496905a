%% @doc What of a generation goes to the log: each event once, in its own process, which carries the
%% generation's id as metadata. No prompt, no word of one, no picture.
-module(baguette_engine_generation_log).

-include_lib("kernel/include/logger.hrl").

-export([began/0, event/1, ended/1]).

%% @doc It works from now on.
-spec began() -> ok.
began() -> log(generation_began, #{}).

%% @doc An event that watchers are told.
-spec event({Kind :: atom(), map()}) -> ok.
event({warning, _Facts}) ->
    %% It may name words of the prompt: those are for whoever asked.
    log(warning, #{});
event({Kind, Facts}) ->
    log(Kind, Facts).

%% @doc How it ended.
-spec ended({done | cancelled, map()} | {failed, {atom(), map()}}) -> ok.
ended({done, #{who := Who, seconds := #{total := Seconds}, asked := Asked}}) ->
    log(generation_done, #{who => Who, seconds => Seconds, asked => Asked});
ended({failed, Reason}) ->
    log(generation_failed, #{reason => Reason});
ended({cancelled, Facts}) ->
    log(generation_cancelled, Facts).

log(What, Facts) ->
    ?LOG(level(What), Facts#{what => What}, #{domain => [baguette, engine]}).

level(What) when What =:= failover; What =:= degraded; What =:= generation_failed -> warning;
level(What) when What =:= state; What =:= step -> debug;
level(_) -> info.
