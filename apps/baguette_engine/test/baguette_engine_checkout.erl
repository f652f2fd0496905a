%% @doc Where this checkout lies, for tests that read its files or start its Python.
-module(baguette_engine_checkout).

-export([path/1]).

-spec path([file:name()]) -> file:filename().
path(Parts) ->
    Source = proplists:get_value(source, ?MODULE:module_info(compile)),
    filename:join([root(filename:dirname(filename:absname(Source))) | Parts]).

root(Dir) ->
    case filelib:is_file(filename:join([Dir, "python_worker", "pyproject.toml"])) of
        true -> Dir;
        false when Dir =/= "/" -> root(filename:dirname(Dir))
    end.
