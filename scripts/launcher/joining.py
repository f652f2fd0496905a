"""The commands of a machine that is one node of a cluster: doctor, join, leave, invite."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import IO

from launcher import tokens
from launcher.addresses import DEFAULT_PORT, WEB_PORT_BELOW, web_host
from launcher.control import Control, Event
from launcher.doctor import Examination, examine
from launcher.erlang import last_words
from launcher.join_options import JoinOptions
from launcher.keeper import Keeper
from launcher.member import Member, Plan, claim, prepare, run_directory, running
from launcher.options import ROOT
from launcher.processes import Refused, wait_gone
from launcher.progress import Progress
from launcher.secret import Secret, secret_file
from launcher.waiting import interruptible, uninterrupted

READY_SECONDS = 600.0  # an 11 B expert takes its time from a slow disk
KEEPER_SECONDS = 60.0
LEAVE_SECONDS = 60.0
MANY_DEATHS = 3
STOP_PATIENCE = 15.0


def doctor(options: JoinOptions) -> int:
    """Every check, and what to type where one fails; exit status 1 when one does."""
    there = running(options.address)
    if there is not None:
        options = replace(options, port=there.port)
        if options.peers is None and there.peers is not None:
            options = replace(options, address=there.host, peers=there.peers)
    found = examine(options, ours=there.host if there else None)
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
    offered = _offered(options)
    found = _checked(options, offered is not None)
    assert found.host is not None
    with claim(found.host) as lock:
        secret = _settled(offered)
        interruptible()
        member = prepare(_plan(options, found), secret)
        if options.foreground:
            return Keeper(member).keep()
        try:
            return _become_ready(_kept(member, lock), begun)
        except BaseException:
            with uninterrupted():
                (Member.load(member.run) or member).stop(STOP_PATIENCE)
            raise


def _checked(options: JoinOptions, invited: bool) -> Examination:
    there = running(options.address)
    if there is not None:
        raise Refused(
            f"this machine has joined already, as {there.host}: `make status` shows the cluster, "
            "`make leave` leaves it"
        )
    found = examine(options, invited=invited)
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
        serves=found.serves,
    )


def _offered(options: JoinOptions) -> Secret | None:
    """SECRET=- (an invitation) or new: read first, written when everything else is checked."""
    if options.secret is None:
        return None
    if options.secret == "new":
        return Secret.new()
    if sys.stdin.isatty():
        return Secret.parse(getpass.getpass("The secret that `make invite` printed: "))
    return Secret.parse(sys.stdin.readline(200))


def _settled(offered: Secret | None) -> Secret:
    """This machine's secret from now on; the first machine of a cluster makes one."""
    path = secret_file()
    if offered is None:
        try:
            return Secret.read(path)
        except FileNotFoundError:
            offered = Secret.new()
            print("A new secret was made: `make invite` prints the line for the next machine")
    aside = offered.write(path)
    if aside is not None:
        print(f"the secret that was here before is now {aside}")
    return offered


def keep(host: str) -> int:
    """The keeper's own process; started by `join`, whose claim it inherits."""
    member = Member.load(run_directory(host))
    if member is None:
        raise Refused(f"no node was prepared for {host}: `make join` does that")
    return Keeper(member).keep()


def _kept(member: Member, lock: IO[str]) -> Member:
    """Start the keeper; it outlives us, and our claim with it."""
    member.save()
    with (member.run / "keeper.log").open("ab") as log:
        popen = subprocess.Popen(
            [sys.executable, str(ROOT / "scripts" / "node.py"), "keep", member.host],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            start_new_session=True,
            pass_fds=[lock.fileno()],
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
    way_in = tokens.way_in(member.run.parent, tokens.read_key(member.run / "http.key"))
    print(
        f"the dashboard: http://{web_host(member.host)}:{member.port - WEB_PORT_BELOW}/ ({way_in})"
    )
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
            now = Member.load(member.run)
            if now is None or not now.alive():
                raise Refused("the node gave up")
            if now.deaths >= MANY_DEATHS:
                raise Refused(f"the node has ended {now.deaths} times")
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
    names = _short(loading)
    unreached = [f"{u['node']}: {u['why']}" for u in event["unreached"]]
    others = f" (no link to {'; '.join(unreached)})" if unreached else ""
    return [
        ("disk", known, "the model's directory to be read"),
        ("plan", event["agreed"] and known, f"all nodes to agree who holds what{others}"),
        ("experts", event["agreed"] and known and not loading, f"{names} to be loaded"),
        ("pipeline", event["pipeline"], "the text encoder, router and decoder"),
        ("measured", event["measured"], "this machine to be measured"),
    ]


def _short(components: list[str]) -> str:
    """Components without the model's name."""
    return " ".join(name.rpartition("/")[2] for name in components)


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
        parts.append(f"{_short(event['components'])} to be loaded elsewhere")
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
        "whoever has it can run code on every machine; to keep it out of the shell's history, type "
        "only the part from `make` on and paste the secret when asked):",
        file=sys.stderr,
    )
    more = ""
    if member is not None and member.peers is not None:
        more += f" PEERS={member.host}"
    if member is not None and member.port != DEFAULT_PORT:
        more += f" PORT={member.port}"
    # printf is the shell's own: what it prints is in no process's arguments. The blank keeps it out
    # of the history where the shell is told so (HISTCONTROL=ignorespace); SECRET=- on a terminal
    # asks instead.
    print(f" printf '%s\\n' {secret.text()} | make join SECRET=-{more}")
    return 0


COMMANDS: dict[str, Callable[[JoinOptions], int]] = {
    "doctor": doctor,
    "join": join,
    "leave": leave,
    "invite": invite,
}
