%% @doc What can be placed: the behaviour of the application above this room, named in the setting
%% component_module. A component is anything with a name, a size and a key; this room never loads
%% one, it says which should be held and is told how that goes by
%% `baguette_cluster:component_state/2'. Called by baguette_cluster_holdings only.
-module(baguette_cluster_component).

-export([check/1]).
-export_type([component/0, item/0, state/0]).

-define(MAX_ITEMS, 256).
-define(MAX_NAME, 128).
-define(MAX_KEY, 256).

-type component() :: binary().          % "MODEL/PART"
-type item() :: #{component := component(), size_mib := pos_integer(), key := binary()}.
%% restarting: its worker died and comes back by itself; still its node's in the plan, not asked.
%% failed: could not be loaded here; planned elsewhere.
-type state() :: idle | loading | ready | restarting | failed.

%% What is on this node's disk, checked. Asked at start and about once a minute, in a process of
%% its own; cheap when nothing changed. An error keeps what is known.
-callback inventory() -> {ok, [item()]} | {error, term()}.

%% Memory for components, after everything else this node needs. The answer that comes with the
%% first inventory stands: what is free later, with components loaded, is another number.
-callback memory_mib() -> non_neg_integer().

%% The whole list this node should hold from now on. Asynchronous; called again with the same list
%% now and then, so that a receiver that restarted learns it.
-callback hold([component()]) -> ok.

%% @doc Whether an inventory, ours or a peer's, has the shape and the sizes promised above.
-spec check(term()) -> ok | {error, {bad_inventory, term()}}.
check(Items) when is_list(Items), length(Items) =< ?MAX_ITEMS ->
    case [Item || Item <- Items, not is_item(Item)] of
        [] -> all_different([C || #{component := C} <- Items]);
        [Bad | _] -> {error, {bad_inventory, Bad}}
    end;
check(_) ->
    {error, {bad_inventory, not_a_list_or_too_long}}.

all_different(Names) ->
    case Names -- lists:usort(Names) of
        [] -> ok;
        [Twice | _] -> {error, {bad_inventory, {twice, Twice}}}
    end.

is_item(#{component := Name, size_mib := Size, key := Key}) when
    is_binary(Name), byte_size(Name) > 0, byte_size(Name) =< ?MAX_NAME,
    is_integer(Size), Size > 0, Size < 1 bsl 32,
    is_binary(Key), byte_size(Key) =< ?MAX_KEY
-> true;
is_item(_) -> false.
