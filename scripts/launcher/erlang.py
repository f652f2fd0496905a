"""How an Erlang node is started: command line, environment, cookie, configuration.

Used for the nodes of a cluster on this machine, for this machine's node of a larger one, and for
the control nodes that speak to them. Nothing here starts a process.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from launcher.options import ROOT
from launcher.processes import Refused

RUN = Path(os.environ.get("BAGUETTE_RUN") or ROOT / "run")
NET_TICKTIME = "8"  # as in config/vm.args; a shell must connect by itself, so not all of that file


@dataclass(frozen=True)
class Target:
    """A running node that can be spoken to, and what it takes to reach it."""

    node: str  # its Erlang name
    port: int  # of the distribution, its own and everybody's
    run: Path  # directory with the cookie
    log: Path
    tls: Path | None = None  # options of the distribution over TLS


def erl() -> list[str]:
    """The Erlang emulator with our applications in its path."""
    found = shutil.which("erl")
    if found is None:
        raise Refused("erl is not installed: run `make setup`")
    ebins = sorted(str(path) for path in (ROOT / "_build" / "default" / "lib").glob("*/ebin"))
    if not ebins:
        raise Refused("nothing is compiled yet: run `make build`")
    return [found, "-pa", *ebins]


def member_flags(host: str, port: int, configs: list[Path], tls: Path | None = None) -> list[str]:
    """The command line of a node that is a member at `host`; boots the applications."""
    return [
        *erl(),
        "-noinput",
        *("-name", f"baguette@{host}"),
        *("-erl_epmd_port", str(port)),
        *("-args_file", str(ROOT / "config" / "vm.args")),
        *("-config", str(ROOT / "config" / "sys")),
        *(part for config in configs for part in ("-config", str(config.with_suffix("")))),
        *("-kernel", "inet_dist_use_interface", "{" + host.replace(".", ",") + "}"),
        *_tls_flags(tls),
        *("-run", "baguette_app", "boot"),
    ]


def control_flags(target: Target, name: str) -> list[str]:
    """The command line of a node that is no member: hidden, not listening, on loopback."""
    return [
        *erl(),
        *("-name", f"{name}-{os.getpid()}@127.0.0.1"),
        *("-hidden", "-dist_listen", "false"),
        *("-start_epmd", "false", "-erl_epmd_port", str(target.port)),
        *("-kernel", "prevent_overlapping_partitions", "false", "-connect_all", "false"),
        *("-kernel", "net_ticktime", NET_TICKTIME),
        *_tls_flags(target.tls),
    ]


def _tls_flags(options: Path | None) -> list[str]:
    if options is None:
        return []
    return ["-proto_dist", "inet_tls", "-ssl_dist_optfile", str(options)]


def environment(run: Path) -> dict[str, str]:
    """A BEAM's environment: the cookie is found through it, and nobody's Erlang flags are."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("ERL_") and k != "PROMPT"}
    env["HOME"] = str(run)
    env["XDG_CONFIG_HOME"] = str(run / "xdg")
    env["LC_ALL"] = "C.UTF-8"
    env["ERL_CRASH_DUMP"] = str(run / "erl_crash.dump")
    env["ERL_CRASH_DUMP_SECONDS"] = "5"
    return env


def check_ours(directory: Path) -> None:
    """Refused where the run directories, and what runs in them, are another user's."""
    if directory.exists() and not os.access(directory, os.R_OK | os.X_OK):
        raise Refused(
            f"{directory} belongs to another user, and so does what runs here: ask as that one"
        )


def claim_directory(run: Path, refusal: str) -> IO[str]:
    """A run directory of mode 0700 and its lock; Refused, with these words, where it is taken."""
    run.mkdir(parents=True, exist_ok=True)
    run.parent.chmod(0o700)
    run.chmod(0o700)
    lock = (run / "lock").open("a", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise Refused(refusal) from None
    return lock


def write_cookie(run: Path, cookie: str) -> None:
    """Where the emulator looks for it, mode 0400: it is on no command line."""
    path = run / "xdg" / "erlang" / ".erlang.cookie"
    path.parent.mkdir(parents=True, exist_ok=True)
    (run / ".erlang.cookie").unlink(missing_ok=True)  # where it is looked for first
    write_private(path, cookie)


def write_private(path: Path, text: str) -> None:
    """A file of mode 0400, replacing what was there; never readable by others in between."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    fd = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o400)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def child_environment() -> list[tuple[str, Any]]:
    """What workers get instead of the node's own HOME and locale, and how their threads wait."""
    own = [(name, os.environ.get(name)) for name in ("HOME", "XDG_CONFIG_HOME", "LC_ALL")]
    threads = [("OMP_NUM_THREADS", "1"), ("OMP_WAIT_POLICY", "PASSIVE")]
    offline = [("HF_HUB_OFFLINE", "1"), ("TOKENIZERS_PARALLELISM", "false")]
    return [(n, Atom("false") if v is None else v) for n, v in [*own, *threads, *offline]]


class Atom(str):
    """An Erlang atom of ours: plain lower-case words."""


def term(value: Any) -> str:
    """Erlang source of a value: numbers, atoms, strings (lists of characters), tuples and lists.

    A dictionary is a map; its keys are atoms. True is the atom `true`.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Atom | int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.9f}"  # Erlang wants a point and digits on both sides
    if isinstance(value, dict):
        return "#{" + ",".join(f"{Atom(k)}=>{term(v)}" for k, v in value.items()) + "}"
    if isinstance(value, str):
        return "[" + ",".join(str(ord(char)) for char in value) + "]"
    if isinstance(value, tuple):
        return "{" + ",".join(term(item) for item in value) + "}"
    return "[" + ",".join(term(item) for item in value) + "]"


def write_config(path: Path, settings: dict[str, dict[str, Any]]) -> None:
    """A configuration file: application -> setting -> value."""
    apps = [(Atom(app), [(Atom(k), v) for k, v in s.items()]) for app, s in settings.items()]
    path.write_text(f"%% coding: utf-8\n{term(apps)}.\n", encoding="utf-8")


def last_words(log: Path, lines: int = 4) -> str:
    """The end of a node's log: what a person needs when the node is gone."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(said(line)[:300] for line in text.splitlines()[-lines:]) or "(an empty log)"


def said(line: str) -> str:
    """A line of a log for a person: what is JSON as its time, level and sentence.

    A node's lines have a sentence of their own; of a worker's, a keeper's or a library's, `what`
    and the rest are all there is.
    """
    try:
        event = json.loads(line)
    except ValueError:
        return line
    if not isinstance(event, dict) or "what" not in event:
        return line
    rest = {k: v for k, v in event.items() if k not in ("at", "level", "what", "logger")}
    facts = ", ".join(f"{name} {value}" for name, value in rest.items())
    sentence = event.get("text") or ": ".join(part for part in (str(event["what"]), facts) if part)
    head = (str(event[name]) for name in ("at", "level") if name in event)
    return " ".join([*head, str(sentence)])
