"""The commands of a machine that is one node of a cluster: doctor, join, leave, invite."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from launcher.control import Control, Event
from launcher.doctor import Examination, examine
from launcher.erlang import last_words
from launcher.join_options import DEFAULT_PORT, WEB_PORT_BELOW, JoinOptions
from launcher.keeper import Keeper
from launcher.member import Member, Plan, prepare, run_directory, running
from launcher.options import ROOT, BadOption
from launcher.processes import Refused, wait_gone
from launcher.progress import Progress
from launcher.secret import Secret, secret_file
from launcher.waiting import interruptible, uninterrupted

READY_SECONDS = 600.0  # an 11 B expert takes its time from a slow disk
KEEPER_SECONDS = 60.0
LEAVE_SECONDS = 60.0
STOP_PATIENCE = 15.0


def doctor(options: JoinOptions) -> int:
    """Every check, and what to type where one fails; exit status 1 when one does."""
    there = running(options.address)
    if there is not None and options.address is None and not there.on_tailnet():
        options = replace(options, address=there.host, port=there.port, peers=[])
    found = examine(options, there.host if there else None)
    for check in found.checks:
        print(check.line())
    if found.bad:
        print(f"\n{len(found.bad)} of {len(found.checks)} checks failed")
        return 1
    joined = f"this machine has joined as {there.host}" if there else "`make join` joins"
    print(f"\nAll is well: {joined}")
    return 0


def join(options: JoinOptions) -> int:
    """Check, start the node with its keeper, wait until it is READY, print its report."""
    begun = time.monotonic()
    _take_secret(options)
    found = _checked(options)
    assert found.host is not None
    secret, made = _secret()
    plan = _plan(options, found)
    if made:
        print(
            "A new secret was made: `make invite` prints the line that brings in the next machine"
        )
    interruptible()
    member = prepare(plan, secret)
    if options.foreground:
        return Keeper(member).keep()
    try:
        return _become_ready(_kept(member), begun)
    except BaseException:
        with uninterrupted():
            (running(plan.host) or member).stop(STOP_PATIENCE)
        raise


def _checked(options: JoinOptions) -> Examination:
    there = running(options.address)
    if there is not None:
        raise Refused(
            f"this machine has joined already, as {there.host}: `make status` shows the cluster, "
            "`make leave` leaves it"
        )
    found = examine(options)
    for check in found.checks:
        if check.state != "ok":
            print(check.line())
    if found.bad:
        raise Refused("This machine cannot join yet; `make doctor` shows every check")
    return found


def _plan(options: JoinOptions, found: Examination) -> Plan:
    assert found.host is not None
    return Plan(
        host=found.host,
        port=options.port,
        model_dir=options.model_dir,
        peers=None if options.peers is None else found.peers,
        tls=found.tls,
        tailscale=options.tailscale,
        web_port=options.port - WEB_PORT_BELOW,
    )


def _take_secret(options: JoinOptions) -> None:
    """SECRET=- (an invitation) or new; an old one is kept aside."""
    path = secret_file()
    if options.secret is None:
        return
    if options.secret == "-":
        if sys.stdin.isatty():
            raise BadOption(
                "SECRET=- reads the secret from a pipe: paste the line of `make invite`"
            )
        secret = Secret.parse(sys.stdin.readline(200))
    else:
        secret = Secret.new()
    try:
        if Secret.read(path) == secret:
            return
        path.replace(path.with_name("secret.old"))
        print(f"the secret that was here is now {path.with_name('secret.old')}")
    except FileNotFoundError:
        pass
    secret.write(path)


def _secret() -> tuple[Secret, bool]:
    """This machine's secret, and whether it was made just now."""
    path = secret_file()
    try:
        return Secret.read(path), False
    except FileNotFoundError:
        secret = Secret.new()
        secret.write(path)
        return secret, True


def keep(host: str) -> int:
    """The keeper's own process; started by `join`."""
    member = Member.load(run_directory(host))
    if member is None:
        raise Refused(f"no node was prepared for {host}: `make join` does that")
    return Keeper(member).keep()


def _kept(member: Member) -> Member:
    """Start the keeper; it outlives us."""
    member.save()
    with (member.run / "keeper.log").open("ab") as log:
        popen = subprocess.Popen(
            [sys.executable, str(ROOT / "scripts" / "node.py"), "keep", member.host],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            start_new_session=True,
        )
    until = time.monotonic() + KEEPER_SECONDS
    while time.monotonic() < until and popen.poll() is None:
        kept = Member.load(member.run)
        if kept is not None and kept.alive():
            return kept
        time.sleep(0.02)
    raise Refused(f"the node's keeper did not start:\n{last_words(member.run / 'keeper.log')}")


def _become_ready(member: Member, begun: float) -> int:
    """Follow the node until it is READY; then its report, and where the time went."""
    progress = Progress()
    clock = Clock(begun)
    try:
        with Control(member.target()) as control:
            clock.mark("checks")
            control.ask("connect", deadline_ms=int(READY_SECONDS * 1000))
            _follow(member, control, "connected", lambda event: "the node to start", progress)
            clock.mark("node")
            control.ask("join", deadline_ms=int(READY_SECONDS * 1000))
            _follow(member, control, "joined", clock.noticed, progress)
            control.ask("report")
            box = control.answer("text")["text"]
    finally:
        progress.close()
    print(box, end="")
    port = "" if member.port == DEFAULT_PORT else f" (port {member.port})"
    print(f"READY as {member.host}{port} after {clock.total():.1f} s: {clock.parts()}")
    print("`make status` shows the cluster, `make shell` draws on it, `make leave` leaves it")
    (member.run / "join.json").write_text(json.dumps(clock.seconds) + "\n", encoding="ascii")
    return 0


def _follow(
    member: Member,
    control: Control,
    last: str,
    missing: Callable[[Event], str],
    progress: Progress,
) -> None:
    """Until the event `last`; what is missing is shown, a node that gave up is told at once."""
    waiting_for = "the node"
    try:
        for event in control.answers(last):
            if not member.alive():
                raise Refused("the node gave up")
            if event["event"] not in ("quiet", "noise"):
                waiting_for = missing(event)
            progress.waiting(f"waiting for {waiting_for}")
    except Refused as refusal:
        words = last_words(member.log, 6)
        raise Refused(f"{refusal}\nIts last lines (all: {member.log}):\n{words}") from None


class Clock:
    """When each thing that READY needs was there, for a person who wonders what takes so long."""

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.seconds: dict[str, float] = {}

    def mark(self, part: str) -> None:
        """This part is done now; only the first time counts."""
        self.seconds.setdefault(part, round(time.monotonic() - self.begun, 2))

    def total(self) -> float:
        return time.monotonic() - self.begun

    def noticed(self, event: Event) -> str:
        """Mark what is there; say what is still missing."""
        missing = []
        for part, there, text in _needs(event):
            if there:
                self.mark(part)
            else:
                missing.append(text)
        if event["linked"]:
            self.mark("first peer")
        return missing[0] if missing else "nothing more"

    def parts(self) -> str:
        """Each part with the time at which it was there."""
        return ", ".join(f"{part} at {seconds:.1f}" for part, seconds in self.seconds.items())


def _needs(event: Event) -> list[tuple[str, bool, str]]:
    known = event["inventory"] == "ok"
    loading = sorted(set(event["planned"]) - set(event["ready"]))
    names = " ".join(name.rpartition("/")[2] for name in loading)
    unreached = [f"{u['node']}: {u['why']}" for u in event["unreached"]]
    others = f" (no link to {'; '.join(unreached)})" if unreached else ""
    return [
        ("disk", known, "the model's directory to be read"),
        ("plan", event["agreed"] and known, f"all nodes to agree who holds what{others}"),
        ("experts", event["agreed"] and known and not loading, f"{names} to be loaded"),
        ("pipeline", event["pipeline"], "the text encoder, router and decoder"),
        ("measured", event["measured"], "this machine to be measured"),
    ]


def leave(options: JoinOptions) -> int:
    """Drain the node, tell its peers, end it; exit status 0 when nothing of it is left."""
    member = running(options.address)
    if member is None:
        print("this machine has not joined")
        return 0
    progress = Progress()
    try:
        with Control(member.target()) as control:
            control.connect(5.0)
            control.ask("leave", deadline_ms=int(LEAVE_SECONDS * 1000))
            for event in control.answers("left"):
                if event["event"] == "leaving":
                    progress.waiting(f"leaving: {_left(event) or 'nothing left to do'}")
            undone = _left(event)
        if undone:
            progress.line(f"after {LEAVE_SECONDS:.0f} s there was still {undone}")
    except Refused as refusal:
        progress.line(f"{refusal}; it is ended without asking")
    finally:
        progress.close()
    with uninterrupted():
        assert member.keeper is not None
        wait_gone([member.keeper], STOP_PATIENCE)
        member.stop(STOP_PATIENCE)
    print(f"{member.host} has left")
    return 0


def _left(event: Event) -> str:
    """What a leaving node still has to do."""
    parts = []
    if event.get("generations"):
        parts.append(f"{event['generations']} pictures of its own")
    if event.get("calls"):
        parts.append(f"{event['calls']} calls of others")
    if event.get("components"):
        names = " ".join(name.rpartition("/")[2] for name in event["components"])
        parts.append(f"{names} to be loaded elsewhere")
    return ", ".join(parts)


def invite(options: JoinOptions) -> int:
    """Print the one line that brings in the next machine."""
    try:
        secret = Secret.read(secret_file())
    except FileNotFoundError:
        raise Refused(
            "there is no secret on this machine: `make join` makes one, or takes one"
        ) from None
    member = running(options.address)
    print(
        "On the next machine, in a checkout of Baguette (it holds the secret of your cluster: "
        "whoever has it can run code on every machine):",
        file=sys.stderr,
    )
    more = ""
    if member is not None and not member.on_tailnet():
        more += f" PEERS={member.host}"
    if member is not None and member.port != DEFAULT_PORT:
        more += f" PORT={member.port}"
    # printf is the shell's own: what it prints is in no process's arguments. A line that begins
    # with a blank stays out of the history of most shells.
    print(f" printf '%s\\n' {secret.text()} | make join SECRET=-{more}")
    return 0


COMMANDS: dict[str, Callable[[JoinOptions], int]] = {
    "doctor": doctor,
    "join": join,
    "leave": leave,
    "invite": invite,
}
