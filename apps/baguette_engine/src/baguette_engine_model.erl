%% @doc What this node knows of its model: names, defaults, and the components on its disk; pure
%% but for one persistent term.
%%
%% Written by baguette_engine_expert from the worker's `inventory', read by the door and the
%% generations without a call. Shapes and classes stay in Python; nothing here counts experts.
-module(baguette_engine_model).

-export([from_inventory/2, put/1, forget/0, get/0, component/2, to_map/1]).

-export_type([model/0, component/0, refused/0]).

-type component() :: #{component := binary(), size_mib := pos_integer(), key := binary()}.
%% A component on this disk that is never loaded: one of its files differs from the manifest.
-type refused() :: #{component := binary(), file := binary(), why := binary()}.
-type model() :: #{
    name := binary(),
    %% The component that is expert number 0, 1, ...
    experts := [binary()],
    defaults := #{atom() => number()},
    example_prompt := binary(),
    %% Width and height of a picture; unknown where no decoder lies on this disk.
    image_size := {pos_integer(), pos_integer()} | unknown,
    on_disk := [component()],
    refused := [refused()],
    %% Free where components lie, when the worker was started.
    memory_mib := non_neg_integer()
}.

%% @doc Read the answers of `baguette.worker.expert_entry': `inventory' and `machine'.
-spec from_inventory(Inventory, Machine) -> model() when
    Inventory :: baguette_engine_msgpack:value(),
    Machine :: baguette_engine_msgpack:value().
from_inventory(#{
    <<"name">> := Name,
    <<"experts">> := Experts,
    <<"defaults">> := Defaults,
    <<"example_prompt">> := Example,
    <<"side">> := Side,
    <<"components">> := Components,
    <<"refused">> := Refused
}, #{<<"memory_mib">> := MemoryMib}) ->
    #{
        name => Name,
        experts => Experts,
        defaults => #{
            n => maps:get(<<"n">>, Defaults),
            steps => maps:get(<<"steps">>, Defaults),
            guidance_scale => maps:get(<<"guidance_scale">>, Defaults),
            top_k => maps:get(<<"top_k">>, Defaults),
            seed => maps:get(<<"seed">>, Defaults)
        },
        example_prompt => Example,
        image_size => case Side of nil -> unknown; _ -> {Side, Side} end,
        on_disk => [
            #{component => C, size_mib => Size, key => Key}
         || #{<<"name">> := C, <<"size_mib">> := Size, <<"key">> := Key} <- Components
        ],
        refused => [
            #{component => C, file => File, why => Why}
         || #{<<"name">> := C, <<"file">> := File, <<"why">> := Why} <- Refused
        ],
        memory_mib => MemoryMib
    }.

%% @doc Remember the model; the same value again costs nothing.
-spec put(model()) -> ok.
put(Model) ->
    persistent_term:put(?MODULE, Model).

%% @doc Know of no model, as before the first start.
-spec forget() -> ok.
forget() ->
    _ = persistent_term:erase(?MODULE),
    ok.

%% @doc The model, or not_ready while the worker has not read its directory.
-spec get() -> {ok, model()} | {error, {not_ready, map()}}.
get() ->
    case persistent_term:get(?MODULE, undefined) of
        undefined -> {error, {not_ready, #{reason => model_not_read}}};
        Model -> {ok, Model}
    end.

%% @doc The component that is expert number `Expert'.
-spec component(non_neg_integer(), model()) -> binary().
component(Expert, #{experts := Experts}) ->
    lists:nth(Expert + 1, Experts).

%% @doc What a person may see of the model.
-spec to_map(model()) -> map().
to_map(#{experts := Experts} = Model) ->
    Shown = maps:with([name, defaults, example_prompt, image_size], Model),
    Shown#{num_experts => length(Experts)}.
