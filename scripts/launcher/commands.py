"""The launcher's commands, one function each: demo, up, down, status, events, shell, token."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from launcher import member, tokens
from launcher.addresses import DEFAULT_PORT
from launcher.control import Control
from launcher.demo import STOP_PATIENCE, demo
from launcher.erlang import control_flags, environment
from launcher.member import Member
from launcher.nodes import (
    Cluster,
    Launch,
    address,
    claim,
    node_name,
    running,
    start,
)
from launcher.options import Model, Options
from launcher.processes import Refused
from launcher.progress import Progress
from launcher.waiting import CONNECT_SECONDS, become_ready, interruptible, uninterrupted

STATUS_SECONDS = 5.0
DOWN_PATIENCE = 8.0


def up(options: Options) -> int:
    """Start a cluster and leave it running; what does not become ready is stopped again."""
    model = Model.read(options.model_dir)
    cluster = Cluster(options.port or DEFAULT_PORT)
    nodes = options.nodes or model.num_experts
    progress = Progress()
    interruptible()
    with claim(cluster, nodes, cluster.web_port):
        try:
            start(cluster, Launch(nodes, options.model_dir, web_port=cluster.web_port))
            with Control(cluster.target()) as control:
                control.connect(CONNECT_SECONDS)
                become_ready(cluster, control, nodes, progress)
        except BaseException:
            progress.close()
            with uninterrupted():
                cluster.stop(STOP_PATIENCE)
            raise
    port = "" if cluster.port == DEFAULT_PORT else f" PORT={cluster.port}"
    print(f"{nodes} nodes are running: make status{port}, make shell{port}, make down{port}")
    run = cluster.run.parent
    way_in = tokens.way_in(run, tokens.read_key(tokens.checkout_key(run)))
    print(f"the dashboard: http://{address(0)}:{cluster.web_port}/ ({way_in})")
    return 0


def token(options: Options) -> int:
    """Print the token of NAME when it is made; later say where it lies."""
    name = tokens.check_name(options.name or tokens.DEFAULT_NAME)
    run = Cluster(options.port or DEFAULT_PORT).run.parent
    made, known = tokens.keep(run, name, tokens.read_key(_key_file(options, run)))
    path = tokens.token_file(run, name)
    if known:
        print(f"the token of {name} is in {path}")
    else:
        print(made)
        print(f"This is shown once; it stays in {path}. Use it as", file=sys.stderr)
        print(f'  curl -H "Authorization: Bearer $(cat {path})" URL', file=sys.stderr)
    return 0


def _key_file(options: Options, run: Path) -> Path:
    """The key of what runs here; of what `make up` would start where nothing does."""
    joined = member.running(options.address)
    if joined is not None and (options.port is None or options.port == joined.port):
        return joined.run / "http.key"
    return tokens.checkout_key(run)


def down(options: Options) -> int:
    """Stop what `up` started, and make sure that nothing of it is left."""
    cluster = running(options.port)
    if cluster is None:
        where = "" if options.port is None else f" on port {options.port}"
        joined = "" if member.running() is None else "; `make leave` ends this machine's node"
        print(f"no cluster is running here{where}{joined}")
        return 0
    count = len(cluster.alive())
    with uninterrupted():
        cluster.stop(DOWN_PATIENCE)
    print(f"{count} nodes stopped")
    return 0


def status(options: Options) -> int:
    """Print the cluster as a node here sees it."""
    here = _here(options)
    with Control(here.target()) as control:
        control.connect(STATUS_SECONDS)
        control.ask("status")
        print(control.answer("text")["text"], end="")
    if isinstance(here, Cluster):
        dead = [node_name(i) for i, node in enumerate(here.nodes) if not node.alive()]
        if dead:
            print(f"ended by themselves: {' '.join(dead)} (their logs are in {here.run})")
    return 0


def events(options: Options) -> int:
    """Print what happened on a node here lately, or with ID the story of one generation."""
    with Control(_here(options).target()) as control:
        control.connect(STATUS_SECONDS)
        control.ask("events", **({} if options.id is None else {"id": options.id}))
        print(control.answer("text")["text"], end="")
    return 0


def shell(options: Options) -> int:
    """Become an Erlang shell attached to a node that lives here; needs a terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refused("`make shell` needs a terminal: without one the shell would be a local one")
    target = _here(options).target()
    print(
        f"Attached to {target.node}. baguette:help(). says what can be done; q(). leaves the "
        "shell, the node goes on.",
        flush=True,
    )
    command = control_flags(target, "shell")
    os.execve(command[0], [*command, "-remsh", target.node], _terminal(environment(target.run)))


def _terminal(env: dict[str, str]) -> dict[str, str]:
    """The attached shell keeps the person's own locale where it is a Unicode one."""
    own = os.environ.get("LC_ALL", "")
    return {**env, "LC_ALL": own} if own.upper().endswith(("UTF-8", "UTF8")) else env


def _here(options: Options) -> Cluster | Member:
    """What runs on this machine: a cluster of its own, or its node of a larger one."""
    cluster = None if options.address else running(options.port)
    joined = member.running(options.address)
    if joined is not None and options.port not in (None, joined.port):
        joined = None
    if cluster is not None and joined is not None:
        raise Refused(
            f"a cluster on port {cluster.port} and the node at {joined.host} run here: say which "
            f"with PORT={cluster.port} or ADDRESS={joined.host}"
        )
    if cluster is None and joined is None:
        raise Refused("nothing is running here: `make up` starts a cluster, `make join` joins one")
    return cluster or joined  # type: ignore[return-value]


COMMANDS: dict[str, Callable[[Options], int]] = {
    "demo": demo,
    "up": up,
    "status": status,
    "events": events,
    "shell": shell,
    "token": token,
    "down": down,
}
