%% @doc Who may be asked for a part of a step's calls, and why nobody may: pure, for
%% baguette_engine_ask. Who is best is the cluster's order with what calls really took
%% (baguette_engine_pace); here it is only who of them.
-module(baguette_engine_choice).

-export([wanted/4, holders/2, candidates/3, silence/2, why/2]).

-export_type([wanted/0, view/0]).

-type holder() :: baguette_engine_part:holder().
-type view() :: #{
    now_us := integer(),
    %% best first for one who has calls with these nodes
    holders := fun((Component :: binary(), Own :: [node()]) -> [holder()]),
    why_missing := fun((Component :: binary()) -> term()),
    %% after how many times what was expected another one is asked besides; none: the budget is used
    hedge := fun(() -> float() | none),
    %% how many times what was expected calls take lately
    typical := float(),
    atom() => term()
}.
%% A component, of one version where it is settled which, for one who has calls with these nodes.
-type wanted() :: #{component := binary(), key := binary() | any, own := [node()]}.

%% @doc What a part is asked for in: the version that answered before is the picture's, or that of a
%% call which may still be answered. `Others' are the other parts of its round.
-spec wanted(Part, Others :: [Part], Components :: [binary()], Keys) -> wanted() when
    Part :: baguette_engine_part:part(),
    Keys :: #{baguette_engine_image:expert() => binary()}.
wanted(Part, Others, Components, Keys) ->
    E = baguette_engine_part:expert(Part),
    Parts = [Part | Others],
    Calls = [{baguette_engine_part:expert(P), C} || P <- Parts, C <- baguette_engine_part:calls(P)],
    Asked = [Key || {Expert, #{key := Key}} <- Calls, Expert =:= E],
    #{
        component => lists:nth(E + 1, Components),
        key => maps:get(E, Keys, hd(Asked ++ [any])),
        own => [Node || {_, #{node := Node}} <- Calls]
    }.

%% @doc Those who hold it, best first.
-spec holders(wanted(), view()) -> [holder()].
holders(#{component := Component, key := Key, own := Own}, #{holders := Holders}) ->
    [H || #{key := K} = H <- Holders(Component, Own), Key =:= any orelse K =:= Key].

%% @doc Those of the holders who do not have a call of it already and did not just fail one.
-spec candidates([holder()], baguette_engine_part:part(), fun((holder()) -> boolean())) ->
    [holder()].
candidates(Holders, Part, IsPassedOver) ->
    [H || H <- Holders, not baguette_engine_part:is_with(H, Part), not IsPassedOver(H)].

%% @doc What a call is that is not answered in time. Whoever may be asked now, the same way, is
%% slow; of who may not, nothing is known.
-spec silence(baguette_engine_part:call(), [holder()]) -> late | suspect.
silence(Call, Holders) ->
    Way = baguette_engine_part:way(Call),
    case lists:any(fun(H) -> baguette_engine_part:way(H) =:= Way end, Holders) of
        true -> late;
        false -> suspect
    end.

%% @doc Why nobody can be asked.
-spec why(wanted(), view()) -> term().
why(#{component := Component, key := any}, #{why_missing := Why}) ->
    Why(Component);
why(#{component := Component, key := Key}, #{why_missing := Why, holders := Holders}) ->
    case [{K, Node} || #{node := Node, key := K} <- Holders(Component, [])] of
        [_ | _] = All ->
            case lists:keymember(Key, 1, All) of
                true -> Why(Component);
                false -> {another_version, [Node || {_, Node} <- All]}
            end;
        [] ->
            Why(Component)
    end.
