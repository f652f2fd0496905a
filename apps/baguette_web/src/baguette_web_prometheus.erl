%% @doc Metrics as Prometheus reads them (text exposition format 0.0.4). Pure; called by
%% baguette_web_metrics_h. Every name gets the prefix baguette_.
-module(baguette_web_prometheus).

-export([text/1]).

%% @doc All metrics, each with its help and type; one without samples is left out.
-spec text([baguette_engine:metric()]) -> iolist().
text(Metrics) ->
    [metric(Metric) || #{samples := [_ | _]} = Metric <- Metrics].

metric(#{name := Suffix, type := Type, help := Help, samples := Samples}) ->
    Name = <<"baguette_", Suffix/binary>>,
    [
        <<"# HELP ">>, Name, $\s, escaped(Help, help), $\n,
        <<"# TYPE ">>, Name, $\s, atom_to_binary(Type), $\n,
        [sample(Name, Labels, Value) || {Labels, Value} <- Samples]
    ].

sample(Name, Labels, #{buckets := Buckets, sum := Sum, count := Count}) ->
    Finite = [{number(Bound), N} || {Bound, N} <- Buckets, Bound =/= infinity],
    [
        [
            line([Name, <<"_bucket">>], Labels ++ [{<<"le">>, Bound}], N)
         || {Bound, N} <- Finite ++ [{<<"+Inf">>, Count}]
        ],
        line([Name, <<"_sum">>], Labels, Sum),
        line([Name, <<"_count">>], Labels, Count)
    ];
sample(Name, Labels, Value) ->
    line(Name, Labels, Value).

line(Name, Labels, Value) ->
    [Name, labels(Labels), $\s, number(Value), $\n].

labels([]) -> [];
labels(Labels) -> [${, lists:join($,, [label(Label) || Label <- Labels]), $}].

label({Name, Value}) ->
    [Name, <<"=\"">>, escaped(Value, label), $"].

number(Value) when is_integer(Value) -> integer_to_binary(Value);
number(Value) when is_float(Value) -> float_to_binary(Value, [short]).

escaped(Text, Where) ->
    << <<(escape(C, Where))/binary>> || <<C>> <= Text >>.

escape($\\, _) -> <<"\\\\">>;
escape($\n, _) -> <<"\\n">>;
escape($", label) -> <<"\\\"">>;
escape(C, _) -> <<C>>.
