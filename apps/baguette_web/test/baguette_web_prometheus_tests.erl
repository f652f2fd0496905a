%% The text that Prometheus reads.
-module(baguette_web_prometheus_tests).
-include_lib("eunit/include/eunit.hrl").

text(Metric) -> iolist_to_binary(baguette_web_prometheus:text([Metric])).

counter_test() ->
    ?assertEqual(
        <<
            "# HELP baguette_calls_total Calls\n"
            "# TYPE baguette_calls_total counter\n"
            "baguette_calls_total{expert=\"3\",node=\"127.0.0.2\"} 7\n"
            "baguette_calls_total 0.5\n"
        >>,
        text(#{
            name => <<"calls_total">>, type => counter, help => <<"Calls">>,
            samples => [
                {[{<<"expert">>, <<"3">>}, {<<"node">>, <<"127.0.0.2">>}], 7},
                {[], 0.5}
            ]
        })
    ).

histogram_test() ->
    Value = #{buckets => [{0.1, 1}, {1, 3}, {infinity, 4}], sum => 5.5, count => 4},
    ?assertEqual(
        <<
            "# HELP baguette_step_seconds Steps\n"
            "# TYPE baguette_step_seconds histogram\n"
            "baguette_step_seconds_bucket{n=\"1\",le=\"0.1\"} 1\n"
            "baguette_step_seconds_bucket{n=\"1\",le=\"1\"} 3\n"
            "baguette_step_seconds_bucket{n=\"1\",le=\"+Inf\"} 4\n"
            "baguette_step_seconds_sum{n=\"1\"} 5.5\n"
            "baguette_step_seconds_count{n=\"1\"} 4\n"
        >>,
        text(#{
            name => <<"step_seconds">>, type => histogram, help => <<"Steps">>,
            samples => [{[{<<"n">>, <<"1">>}], Value}]
        })
    ).

what_would_break_a_line_is_escaped_test() ->
    Metric = #{
        name => <<"a">>, type => gauge, help => <<"a \\ \"b\"\nc">>,
        samples => [{[{<<"l">>, <<"x\"y\\z\n">>}], 1}]
    },
    ?assertEqual(
        <<
            "# HELP baguette_a a \\\\ \"b\"\\nc\n# TYPE baguette_a gauge\n"
            "baguette_a{l=\"x\\\"y\\\\z\\n\"} 1\n"
        >>,
        text(Metric)
    ).

a_metric_without_samples_is_not_told_test() ->
    ?assertEqual(<<>>, text(#{name => <<"a">>, type => gauge, help => <<>>, samples => []})).
