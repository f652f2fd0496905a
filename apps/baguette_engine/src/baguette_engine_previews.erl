%% @doc What a generation's pictures look like so far, for who asked to see it: a part of
%% baguette_engine_generation, in whose process it runs.
%%
%% No step waits for a preview. What was given to `advance' is given once more, an image a call, to
%% be looked at when the pipeline worker has nothing else to do: while experts compute. One call is
%% out at a time, and at most one round of all images begins every ?EVERY_MS; a step that comes
%% while one is out is not shown. A worker that is not prepared for previews yet (it is as soon as
%% it has had nothing to do for a while, baguette_engine_pipeline) does a piece of that instead of
%% each; the next step is tried again.
-module(baguette_engine_previews).

-export([new/0, offer/3, answered/3, lost/2, leave/1]).

-export_type([previews/0]).

-define(EVERY_MS, 500).

-type preview() :: {preview, #{
    image := non_neg_integer(), step := pos_integer(), png := binary()
}}.
-record(?MODULE, {
    %% The call that is out, and what it is asked for; the other images of its round.
    ref = none :: none | reference(),
    left = [] :: [{Image :: non_neg_integer(), map()}],
    next_ms = none :: none | integer()
}).
-opaque previews() :: #?MODULE{}.

%% @doc None asked for.
-spec new() -> previews().
new() -> #?MODULE{}.

%% @doc All images of a step were answered; this is what `advance' is told.
-spec offer(map(), NowMs :: integer(), previews()) -> previews().
offer(_Payload, _Now, #?MODULE{ref = Ref} = P) when Ref =/= none ->
    P;
offer(_Payload, Now, #?MODULE{next_ms = Next} = P) when is_integer(Next), Now < Next ->
    P;
offer(#{images := Images} = Payload, Now, P) ->
    Numbered = lists:zip(lists:seq(0, length(Images) - 1), Images),
    Left = [{Number, Payload#{images := [Image]}} || {Number, Image} <- Numbered],
    ask(P#?MODULE{left = Left, next_ms = Now + ?EVERY_MS}).

ask(#?MODULE{left = []} = P) ->
    P#?MODULE{ref = none};
ask(#?MODULE{left = [{_Image, Payload} | _]} = P) ->
    %% The monitor is the reference: a pipeline server that crashes answers by its death.
    Ref = erlang:monitor(process, baguette_engine_pipeline),
    Bytes = baguette_engine_msgpack:encode(Payload),
    ok = baguette_engine_pipeline:when_idle(Ref, {preview, Bytes}),
    P#?MODULE{ref = Ref}.

%% @doc The preview in this answer, if it is one and holds one.
-spec answered(reference(), {ok, map()} | {error, term()}, previews()) ->
    {[preview()], previews()} | stray.
answered(Ref, Answer, #?MODULE{ref = Ref} = P) ->
    _ = erlang:demonitor(Ref, [flush]),
    seen(Answer, P);
answered(_, _, _) ->
    stray.

seen({ok, #{<<"pngs">> := [Png]}}, #?MODULE{left = [{Image, #{step := Step}} | Left]} = P) ->
    {[{preview, #{image => Image, step => Step + 1, png => Png}}], ask(P#?MODULE{left = Left})};
seen({ok, #{<<"pngs">> := nil}}, P) ->
    {[], P#?MODULE{ref = none, left = [], next_ms = none}};
seen(_NoPreview, P) ->
    %% Its worker died, or could not and has logged why; the next step is tried again.
    {[], P#?MODULE{ref = none, left = []}}.

%% @doc The pipeline server is gone, and with it the call.
-spec lost(reference(), previews()) -> {ok, previews()} | stray.
lost(Ref, #?MODULE{ref = Ref} = P) -> {ok, P#?MODULE{ref = none, left = []}};
lost(_, _) -> stray.

%% @doc Nothing is wanted any more.
-spec leave(previews()) -> previews().
leave(#?MODULE{ref = none}) ->
    new();
leave(#?MODULE{ref = Ref}) ->
    _ = erlang:demonitor(Ref, [flush]),
    ok = baguette_engine_pipeline:cancel(Ref),
    new().
