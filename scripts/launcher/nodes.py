"""Starting Erlang nodes on loopback addresses, and knowing them again later.

Everything about one cluster lies in `run/PORT/` (mode 0700): the cookie, each node's configuration
and log, and `cluster.json` with its processes. One cluster per port; `demo` and `up` hold a lock on
that directory while they work in it.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from launcher.addresses import WEB_PORT_BELOW, why_taken
from launcher.erlang import (
    RUN,
    Atom,
    Target,
    check_ours,
    child_environment,
    claim_directory,
    environment,
    last_words,
    member_flags,
    write_config,
    write_cookie,
)
from launcher.options import ROOT
from launcher.processes import Process, Refused, end_all
from launcher.tokens import checkout_key


def address(index: int) -> str:
    """The loopback address of node number `index`, from 0."""
    return f"127.0.0.{index + 2}"


def node_name(index: int) -> str:
    """The Erlang name of node number `index`."""
    return f"baguette@{address(index)}"


def index_of(name: str) -> int:
    """The number of the node with this Erlang name, from 0."""
    return int(name.rpartition(".")[2]) - 2


@dataclass
class Cluster:
    """The nodes started here on one port.

    `apart`: on a port of its own each, from that one on, so that a proxy fits between any two.
    """

    port: int
    mode: str = "up"
    nodes: list[Process] = field(default_factory=list)
    apart: bool = False
    # Nodes may be started again from several threads, and the last to write knows of all.
    _saving: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def port_of(self, index: int) -> int:
        """Where a node listens, and looks for the others."""
        return self.port + index if self.apart else self.port

    @property
    def run(self) -> Path:
        return RUN / str(self.port)

    @property
    def web_port(self) -> int:
        """Where each node of `make up` answers HTTP, on its own address."""
        return self.port - WEB_PORT_BELOW

    @property
    def record(self) -> Path:
        return self.run / "cluster.json"

    def log(self, index: int) -> Path:
        return self.run / f"{node_name(index)}.log"

    def alive(self) -> list[Process]:
        return [node for node in self.nodes if node.alive()]

    def worker(self, index: int, kind: str) -> Process | None:
        """The "expert" or "pipeline" worker of a node, while it has one."""
        for process in self.nodes[index].descendants():
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
                if line[-3:-1] == [b"baguette.worker", kind.encode()]:
                    return process
        return None

    def processes(self, index: int) -> dict[str, Process]:
        """A node's processes by kind: its "beam", and those of its workers that are there."""
        workers = {kind: self.worker(index, kind) for kind in ("expert", "pipeline")}
        there = {kind: worker for kind, worker in workers.items() if worker is not None}
        return {"beam": self.nodes[index], **there}

    def first_alive(self) -> int:
        """The index of the node to talk to: the requester, while it lives."""
        return next((i for i, node in enumerate(self.nodes) if node.alive()), 0)

    def target(self) -> Target:
        """The node to talk to."""
        return self.target_of(self.first_alive())

    def target_of(self, index: int) -> Target:
        """A node as something to speak with."""
        return Target(node_name(index), self.port_of(index), self.run, self.log(index))

    def save(self) -> None:
        """Written whole after every start, so that no node is ever unknown to `down`."""
        with self._saving:
            new = self.record.with_suffix(".new")
            new.write_text(json.dumps(self._known(), indent=1) + "\n", encoding="utf-8")
            new.replace(self.record)

    def _known(self) -> dict[str, Any]:
        return {
            "port": self.port,
            "mode": self.mode,
            # Read by the client too (baguette.remote.place): only these nodes answer HTTP.
            "web_port": self.web_port if self.mode == "up" else None,
            "nodes": [
                {"node": node_name(i), "pid": p.pid, "started": p.started, "boot": p.boot}
                for i, p in enumerate(self.nodes)
            ],
        }

    @classmethod
    def load(cls, port: int) -> Cluster:
        """What was started on this port, dead or alive; no nodes where nothing ever was."""
        cluster = cls(port)
        try:
            value = json.loads(cluster.record.read_text(encoding="utf-8"))
            cluster.mode = value["mode"]
            cluster.nodes = [Process(n["pid"], n["started"], n["boot"]) for n in value["nodes"]]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Refused(f"{cluster.record} cannot be read ({error}); remove it by hand") from None
        return cluster

    def stop(self, patience: float = 8.0) -> None:
        """End every node and worker; Refused names what could not be ended."""
        end_all(self.nodes, patience)
        self.record.unlink(missing_ok=True)
        shutil.rmtree(self.run / "xdg", ignore_errors=True)


def running(port: int | None) -> Cluster | None:
    """The cluster running on `port`; without one, the only one running in this checkout."""
    check_ours(RUN)
    if port is not None:
        found = [Cluster.load(port)]
    else:
        ports = sorted(int(p.parent.name) for p in RUN.glob("*/cluster.json"))
        found = [Cluster.load(p) for p in ports]
    alive = [cluster for cluster in found if cluster.alive()]
    if len(alive) > 1:
        ports_text = ", ".join(str(cluster.port) for cluster in alive)
        raise Refused(f"clusters are running on the ports {ports_text}: say which with PORT=...")
    return alive[0] if alive else None


def claim(cluster: Cluster, nodes: int, *also: int) -> IO[str]:
    """Take this port's run directory for ourselves; Refused when it, or a port, is taken.

    `also` are other ports the nodes will listen on.
    """
    port = cluster.port
    lock = claim_directory(
        RUN / str(port),
        f"another `make demo` or `make up` is at work here on port {port}: "
        f"wait for it, or choose another port, e.g. PORT={port + 1}",
    )
    old = Cluster.load(port)
    if old.alive():
        raise Refused(
            f"a cluster of {len(old.alive())} nodes is running here on port {port}: `make shell` "
            f"draws on it, `make down` stops it, PORT={port + 1} starts another beside it"
        )
    for index in range(nodes):
        for wanted in (cluster.port_of(index), *also):
            _check_free(address(index), wanted, port + 1)
    return lock


def _check_free(host: str, port: int, instead: int) -> None:
    taken = why_taken(host, port)
    if taken is not None:
        raise Refused(
            f"port {port} on {host} cannot be used ({taken}): another program, or a "
            f"cluster of another checkout, has it; choose another, e.g. PORT={instead}"
        )


@dataclass(frozen=True)
class Launch:
    """What all nodes of a cluster share. `guard` is the read end of a pipe: they end with it.

    `web_port` None: no HTTP. `engine` and `web` are settings of those rooms over the usual ones.
    The first `requesters` nodes have their pipeline worker from the start.
    """

    nodes: int
    model_dir: Path | None
    guard: int | None = None
    web_port: int | None = None
    engine: dict[str, Any] = field(default_factory=dict)
    web: dict[str, Any] = field(default_factory=dict)
    requesters: int = 1


def start(cluster: Cluster, launch: Launch) -> None:
    """Start every node at once; the first one is the requester."""
    write_cookie(cluster.run, secrets.token_hex(32))
    for index in range(launch.nodes):
        process = start_one(cluster, launch, index)
        if process is not None:
            cluster.nodes.append(process)
            cluster.save()


def start_one(cluster: Cluster, launch: Launch, index: int, again: bool = False) -> Process | None:
    """Start node number `index`; the caller enters it into the cluster."""
    config = cluster.run / f"node{index + 1}.config"
    write_config(config, _settings(cluster, index, launch))
    # What a node said before it died is part of the story.
    with cluster.log(index).open("ab" if again else "wb") as log:
        popen = subprocess.Popen(
            [
                *member_flags(address(index), cluster.port_of(index), [config]),
                *("+S", "1:1"),  # there are more nodes here than cores
            ],
            stdin=subprocess.DEVNULL if launch.guard is None else launch.guard,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(cluster.run),
            cwd=ROOT,
            start_new_session=True,
        )
    return Process.of(popen.pid)


def _settings(cluster: Cluster, index: int, launch: Launch) -> dict[str, dict[str, Any]]:
    """One node's own settings, read after config/sys.config."""
    # One file for all clusters of this checkout: they share the machine's cores.
    cores = ("BAGUETTE_CORES", str(RUN / "cores"))
    return {
        "baguette_cluster": {"peers": [address(i) for i in range(launch.nodes)]},
        "baguette_engine": {
            "model_dir": Atom("undefined") if launch.model_dir is None else str(launch.model_dir),
            "python": str(ROOT / ".venv" / "bin" / "python"),
            "pipeline": Atom("eager" if index < launch.requesters else "on_demand"),
            "threads": 1,
            "probe_file": str(RUN / "probes.json"),
            "child_env": [*child_environment(), cores],
            **launch.engine,
        },
        "baguette": {
            "out_dir": str(ROOT / "out"),
            "guard": Atom("none" if launch.guard is None else "stdin"),
        },
        "baguette_web": {**_web(cluster, index, launch.web_port), **launch.web},
    }


def _web(cluster: Cluster, index: int, port: int | None) -> dict[str, Any]:
    """Where a node answers HTTP, by which key it knows a token, where its jobs lie."""
    if port is None:
        return {"port": Atom("undefined")}
    return {
        "port": port,
        "token_key_file": str(checkout_key(RUN)),
        "jobs_dir": str(cluster.run / "jobs" / address(index)),
    }


def check_alive(cluster: Cluster) -> None:
    """Refused when a node that was started is no more, with its last words."""
    for index, node in enumerate(cluster.nodes):
        if not node.alive():
            raise Refused(
                f"{node_name(index)} ended by itself; its last words (all: {cluster.log(index)}):\n"
                f"{last_words(cluster.log(index))}"
            )


def seconds_since(start: float) -> float:
    """Seconds on the monotonic clock, rounded for people."""
    return round(time.monotonic() - start, 3)
