%% @doc Why a job was not taken, is not there, or has failed, as a problem document. Nothing but the
%% teller is asked; called by the handlers of jobs and images, and by baguette_web_job_record.
-module(baguette_web_job_problem).

-export([new/1, unusable/1, failure/1]).

%% @doc For an error of baguette_web_jobs.
-spec new({atom(), map()}) -> {problem, baguette_web_problem:problem()}.
new({overloaded, #{whose := Whose, retry_after := Seconds}}) ->
    Detail = case Whose of
        own -> "you have as many jobs waiting as one client may";
        everybody -> "as many jobs wait as this node takes"
    end,
    later(429, overloaded, Seconds, [Detail, "; ask again later, or another node"]);
new({expert_missing, #{expert := Expert, why := Why, retry_after := Seconds}}) ->
    later(503, expert_missing, Seconds, [
        "expert ", integer_to_list(Expert), " cannot be asked now: ",
        baguette_web_teller:missing(Why), "; ask again later"
    ]);
new({not_ready, Facts}) ->
    Seconds = maps:get(retry_after, Facts, 1),
    later(503, not_ready, Seconds, "this node is not ready to draw yet; ask again in a moment");
new({leaving, _}) ->
    later(503, leaving, 1, "this node is being stopped; ask another");
new({interrupted, _}) ->
    later(503, interrupted, 1, [
        "drawing was interrupted by a fault of this node; ask again, by the same Idempotency-Key "
        "if the request had one"
    ]);
new({no_jobs_dir, _}) ->
    problem(503, no_jobs_dir, "this node has no place for jobs; set jobs_dir, or ask another node");
new({key_used, _}) ->
    problem(422, key_used, [
        "this Idempotency-Key was used for another request, which has ended; choose a new key"
    ]);
new({key_in_progress, _}) ->
    problem(409, key_in_progress, [
        "another request with this Idempotency-Key is being drawn; choose a new key, or cancel it"
    ]);
new({store_failed, _} = Reason) ->
    {problem, failed(Reason)};
new({unknown_job, _}) ->
    problem(404, unknown_job, "there is no such job on this node; GET /v1/jobs lists them");
new({no_image, _}) ->
    problem(404, no_image, "there is no such picture; a job has its pictures when it is completed").

%% @doc For a field of a request's body.
-spec unusable(baguette_web_image_request:refused()) -> {problem, baguette_web_problem:problem()}.
unusable(#{field := Field, detail := Detail}) ->
    {problem, baguette_web_problem:new(422, Detail, #{field => Field})}.

%% @doc Why a job failed, as it stands in the job.
-spec failure({atom(), map()}) -> #{atom() => binary() | 400..599}.
failure(Reason) ->
    baguette_web_problem:document(failed(Reason)).

failed({Name, Facts} = Reason) ->
    {Status, Detail} = case own(Name, Facts) of
        {_, _} = Own -> Own;
        engines -> {status(Name), baguette_web_teller:error(Reason)}
    end,
    baguette_web_problem:new(Status, Detail, #{name => Name}).

%% What only this room knows of, or what helps another way over HTTP than in the shell.
own(no_holder, #{expert := Expert, why := Why}) ->
    {503, [
        "expert ", integer_to_list(Expert), " could not be asked: ",
        baguette_web_teller:missing(Why), "; ask with on_missing wait or degrade, or later"
    ]};
own(bad_request, #{field := Field, allowed := Allowed}) ->
    {422, [Field, " must be ", Allowed]};
own(store_failed, #{why := Why}) ->
    {507, [
        "the job could not be written to this node's disk (", file:format_error(Why),
        "); make room there, or ask another node"
    ]};
own(damaged, _) ->
    {500, "the job's file was damaged while the node was down; ask again"};
own(job_crashed, _) ->
    {500, "the job was taken up again and again and its process crashed each time; "
        "the node's log says why"};
own(_, _) ->
    engines.

status(deadline) -> 503;
status(out_of_memory) -> 503;
status(bad_input) -> 422;
status(_) -> 500.

later(Status, Name, Seconds, Detail) ->
    Headers = [{<<"retry-after">>, integer_to_binary(Seconds)}],
    {problem, baguette_web_problem:new(Status, Detail, #{name => Name, headers => Headers})}.

problem(Status, Name, Detail) ->
    {problem, baguette_web_problem:new(Status, Detail, #{name => Name})}.
