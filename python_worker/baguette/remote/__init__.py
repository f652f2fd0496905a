"""A node of a cluster over HTTP, as a client asks it: stdlib only, and no torch.

Called by `baguette.commands.remote`, `on_cluster` and `top`. `place` says where and with which
token, `node` asks, `sse` reads event streams, `job` follows one picture to its end. Nothing here is
kept: it dies with the command.
"""
