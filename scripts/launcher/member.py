"""This machine's node of a cluster of several: its record, its settings, its run directory.

`run/member-ADDRESS/` (mode 0700) holds the cookie, certificates where TLS is used, configuration,
log and `member.json`: the keeper's process and what it takes to start the node again. One node an
address, and mostly one a machine.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from launcher import erlang
from launcher.addresses import web_host
from launcher.erlang import Atom, Target, child_environment, write_config, write_cookie
from launcher.options import ROOT
from launcher.processes import Process, Refused, end_all
from launcher.secret import Secret
from launcher.tokens import write_member_key

_RECORD = "member.json"


@dataclass(frozen=True)
class Plan:
    """How this machine is to join. `peers` None: found on the tailnet."""

    host: str
    port: int
    model_dir: Path
    peers: list[str] | None
    tls: bool
    tailscale: str
    web_port: int | None
    serves: bool = True  # has what it takes to draw for others: text encoder, router, decoder


@dataclass(frozen=True)
class Member:
    """A node that was started here, with its keeper: the process that starts it again."""

    host: str
    port: int
    tls: bool
    peers: list[str] | None  # None: found on the tailnet
    keeper: Process | None = None
    deaths: int = 0  # of the node in a row, as its keeper counted

    @property
    def run(self) -> Path:
        return run_directory(self.host)

    @property
    def log(self) -> Path:
        return self.run / "node.log"

    @property
    def tls_options(self) -> Path | None:
        return self.run / "tls" / "distribution.config" if self.tls else None

    def alive(self) -> bool:
        return self.keeper is not None and self.keeper.alive()

    def target(self) -> Target:
        """What a control node needs to speak to it."""
        return Target(f"baguette@{self.host}", self.port, self.run, self.log, self.tls_options)

    def command(self) -> list[str]:
        """The node's own command line."""
        config = self.run / "node.config"
        return erlang.member_flags(self.host, self.port, [config], self.tls_options)

    def save(self) -> None:
        """Written whole, by the keeper, once it is there."""
        keeper = self.keeper and vars(self.keeper)
        value = {**vars(self), "keeper": keeper}
        new = self.run / f"{_RECORD}.new"
        new.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        new.replace(self.run / _RECORD)

    @classmethod
    def load(cls, run: Path) -> Member | None:
        """What was started in this run directory, dead or alive."""
        try:
            value = json.loads((run / _RECORD).read_text(encoding="utf-8"))
            keeper = value["keeper"] and Process(**value["keeper"])
            return cls(
                host=str(value["host"]),
                port=int(value["port"]),
                tls=bool(value["tls"]),
                peers=value["peers"] and [str(peer) for peer in value["peers"]],
                keeper=keeper,
                deaths=int(value["deaths"]),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Refused(f"{run / _RECORD} cannot be read ({error}); remove it by hand") from None

    def stop(self, patience: float) -> None:
        """End keeper, node and workers, in order first; Refused names what would not end."""
        end_all([self.keeper] if self.keeper is not None else [], patience)
        self.forget()

    def forget(self) -> None:
        """Nothing secret stays behind; the log does."""
        (self.run / _RECORD).unlink(missing_ok=True)
        for name in ("xdg", "tls"):
            shutil.rmtree(self.run / name, ignore_errors=True)
        for name in (".erlang.cookie", "http.key"):
            (self.run / name).unlink(missing_ok=True)


def run_directory(host: str) -> Path:
    """Everything about the node at this address."""
    return erlang.RUN / f"member-{host}"


def running(host: str | None = None) -> Member | None:
    """The node kept here at `host`; without one, the only one there is."""
    erlang.check_ours(erlang.RUN)
    runs = [run_directory(host)] if host else sorted(erlang.RUN.glob("member-*"))
    alive = [m for m in map(Member.load, runs) if m is not None and m.alive()]
    if len(alive) > 1:
        hosts = ", ".join(member.host for member in alive)
        raise Refused(f"nodes are running here at {hosts}: say which with ADDRESS=...")
    return alive[0] if alive else None


def claim(host: str) -> IO[str]:
    """The right to have a node at this address: held by `join`, then by its keeper, until it ends.

    Whoever has it may write and remove what lies in the run directory.
    """
    return erlang.claim_directory(
        run_directory(host),
        f"this machine has joined already, or is joining, as {host}: `make status` shows the "
        "cluster, `make leave` leaves it",
    )


def prepare(plan: Plan, secret: Secret) -> Member:
    """Write what the node reads at its start."""
    member = Member(plan.host, plan.port, plan.tls, plan.peers)
    write_cookie(member.run, secret.cookie())
    if plan.tls:
        from launcher.certificates import write_tls  # its library takes a while to import

        write_tls(secret, plan.host, member.run / "tls")
    key = write_member_key(secret, member.run)
    write_config(member.run / "node.config", _settings(plan, member, key))
    return member


def _settings(plan: Plan, member: Member, key: Path) -> dict[str, dict[str, Any]]:
    """This node's own settings, read after config/sys.config."""
    if plan.peers is None:
        finder: dict[str, Any] = {
            "finder": Atom("baguette_cluster_discovery_tailscale"),
            "tailscale": plan.tailscale,
        }
    else:
        finder = {"peers": plan.peers}
    cores = ("BAGUETTE_CORES", str(erlang.RUN / "cores"))
    return {
        "baguette_cluster": finder,
        "baguette_engine": {
            "model_dir": str(plan.model_dir),
            "python": str(ROOT / ".venv" / "bin" / "python"),
            "pipeline": Atom("eager" if plan.serves else "on_demand"),
            "threads": 1,
            "probe_file": str(erlang.RUN / "probes.json"),
            "child_env": [*child_environment(), cores],
        },
        "baguette": {"out_dir": str(ROOT / "out"), "guard": Atom("stdin")},
        "baguette_web": {
            "address": web_host(plan.host),
            "port": plan.web_port or Atom("undefined"),
            "token_key_file": str(key),
            "jobs_dir": str(member.run / "jobs"),
        },
    }
