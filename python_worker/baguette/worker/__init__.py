"""The port: the only part of the package that knows Erlang exists (docs/internals/port.md)."""
