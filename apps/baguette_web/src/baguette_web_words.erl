%% @doc Sentences for those who ask over HTTP: why something waits, why it failed, and what to do.
%% Pure. The same facts are told in the shell by the face, which names other remedies.
-module(baguette_web_words).

-export([waiting/1, missing/1, failure/1]).

%% @doc What a generation waits for (its event `waiting').
-spec waiting(map()) -> binary().
waiting(#{expert := Expert, reason := Why}) ->
    text(["expert ", integer_to_list(Expert), ": ", missing(Why)]);
waiting(#{reason := pipeline_restarting}) ->
    <<"this node's own worker is being restarted">>;
waiting(#{reason := pipeline_late}) ->
    <<"this node's own worker takes longer than usual">>;
waiting(_) ->
    <<"it waits">>.

%% @doc Why an expert cannot be asked now (`baguette_cluster:why_missing/1').
-spec missing(term()) -> iolist().
missing({loading, Nodes, Ms}) -> ["it is loading on ", hosts(Nodes), about(Ms)];
missing({unreachable, Nodes}) -> [hosts(Nodes), " has it and cannot be reached from here"];
missing({planned, Nodes}) -> [hosts(Nodes), " is about to load it"];
missing({failed, Nodes}) -> [hosts(Nodes), " could not load it; the log there says why"];
missing({another_version, Nodes}) -> ["only another version of it is held, by ", hosts(Nodes)];
missing({suspect, Node}) -> [hosts([Node]), " has it and is silent"];
missing(nobody_has_it_on_disk) -> "it is on nobody's disk; copy it to a node's model directory";
missing(no_memory) -> "no node has the memory for it; join another one";
missing(not_settled) -> "the nodes do not agree yet who is to hold it";
missing(Other) when is_atom(Other) -> words(Other);
missing(_) -> "nobody can be asked for it now".

about(Ms) when is_integer(Ms) -> io_lib:format(", about ~b s more", [(Ms + 999) div 1000]);
about(_) -> "".

%% @doc Why a job failed, as a problem document.
-spec failure({atom(), map()}) -> #{atom() => binary() | 400..599}.
failure({Name, Facts}) ->
    {Status, Detail} = detail(Name, Facts),
    #{
        type => text(["urn:baguette:", atom_to_binary(Name)]),
        title => text(words(Name)),
        status => Status,
        detail => text(Detail)
    }.

detail(no_holder, #{expert := Expert, why := Why}) ->
    {503, [
        "expert ", integer_to_list(Expert), " could not be asked: ", missing(Why),
        "; ask with on_missing wait or degrade, or later"
    ]};
detail(deadline, _) ->
    {503, "it took longer than a generation may; ask for fewer steps or images"};
detail(out_of_memory, _) ->
    {503, "a device ran out of memory; ask for fewer images at once"};
detail(not_finite, _) ->
    {500, "the model computed no picture; try a lower guidance_scale"};
detail(bad_request, #{field := Field, allowed := Allowed}) ->
    {422, [Field, " must be ", Allowed]};
detail(bad_input, _) ->
    {422, "the model refused the request; try other words or settings"};
detail(store_failed, #{why := Why}) ->
    {507, [
        "the node could not write it to its disk (", file:format_error(Why),
        "); make room there and ask again"
    ]};
detail(damaged, _) ->
    {500, "the job's file was damaged while the node was down; ask again"};
detail(job_crashed, _) ->
    {500, "the job was taken up again and again and its process crashed each time; "
        "the node's log says why"};
detail(_, _) ->
    {500, "the cluster could not draw it; the node's log says more, and asking again may help"}.

hosts(Nodes) -> lists:join(", ", [host(Node) || Node <- Nodes]).

host(Node) -> lists:last(binary:split(atom_to_binary(Node), <<"@">>)).

words(Name) -> string:replace(atom_to_list(Name), "_", " ", all).

text(Words) -> unicode:characters_to_binary(Words).
