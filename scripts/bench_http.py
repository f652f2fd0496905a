"""What HTTP costs a node: requests a second, watchers, memory over many jobs, rude clients.

Two nodes on this machine. Requests, memory and rude clients are measured on nodes whose device is
simulated, since they are about the server; the watchers on real ones, since what they could harm
is the time a picture takes. Called by `make bench-http` (about 15 minutes; --small takes one).
Prints tables, writes out/bench_http.json, and with --markdown the table of docs/API.md. PORT comes
from the environment, as for scripts/cluster.py; HTTP is one port above it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from baguette.files import check_writable, write_whole
from baguette.remote import job as jobs
from baguette.remote.node import Node, NodeRefused
from baguette.remote.place import Place, Token
from launcher import command_line, tokens
from launcher.addresses import DEFAULT_PORT
from launcher.erlang import RUN
from launcher.http_load import (
    CONNECTIONS,
    Target,
    check_wrk,
    raise_descriptor_limit,
    slow,
    vanish,
    watchers,
    wrk,
)
from launcher.nodes import Cluster, Launch, address
from launcher.options import ROOT, Options
from launcher.picture import write_record
from launcher.processes import Refused
from launcher.progress import Progress
from launcher.simulated import Device, cluster_of
from launcher.waiting import interruptible

OUTPUT = ROOT / "out" / "bench_http.json"
NODES = 2
# A picture of a second or so; shorter ones end before the next batch of the stream.
STEPS = 250
PREVIEWED_STEPS = 60
DEVICE = Device(batch_us=1000, row_us=100, load_ms=20)
PROMPT = "a red circle on a blue background"
SETTLE_SECONDS, LOOK_SECONDS, REST_LOOKS = 120.0, 0.1, 20
EXAMPLES = """\
examples:
  .venv/bin/python scripts/bench_http.py
  .venv/bin/python scripts/bench_http.py --small
  .venv/bin/python scripts/bench_http.py --markdown out/http.md
"""
Record = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much of each thing."""

    seconds: float = 10.0
    watchers: int = 1000
    pictures: int = 10
    rounds: int = 3
    turns: int = 30
    jobs: int = 10_000
    wave: int = 1000
    rude: int = 300


SMALL = Sizes(seconds=2.0, watchers=50, pictures=2, rounds=1, turns=2, jobs=60, wave=20, rude=30)


def main() -> int:
    """Measure, print, write; the exit status says whether it could be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a little of everything, no figures")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the record goes")
    parser.add_argument("--markdown", type=Path, help="a Markdown table as well")
    args = parser.parse_args()
    return command_line.run(lambda: _checked(args))


def _checked(args: argparse.Namespace) -> int:
    check_wrk()
    for path in filter(None, (args.output, args.markdown)):
        check_writable(path)
    interruptible()
    raise_descriptor_limit()
    options = Options.read(os.environ)
    record = bench(options, SMALL if args.small else Sizes())
    write_record(record, args.output)
    table = rows(record)
    print("\n".join(f"{name:<72} {value}" for name, value in table))
    if args.markdown is not None:
        write_whole({args.markdown: markdown(table).encode()})
    return 0


def bench(options: Options, sizes: Sizes) -> Record:
    """Everything, on clusters started for it."""
    port, progress = options.port or DEFAULT_PORT, Progress()
    machine = {
        "cores": os.cpu_count(),
        "memory_mib": psutil.virtual_memory().total >> 20,
        "load_before": os.getloadavg()[0],
    }
    try:
        with node(port, Launch(NODES, None, engine=DEVICE.settings(NODES)), progress) as target:
            record = {
                "requests": requests(target, sizes, progress),
                "rude": rude(target, sizes, progress),
                "memory": memory(target, sizes, progress),
            }
        with node(port, Launch(NODES, options.model_dir), progress) as target:
            record["watchers"] = watched(target, sizes, progress)
            record["previews"] = previewed(target, sizes, progress)
    finally:
        progress.close()
    return {"machine": machine, **record}


@contextmanager
def node(port: int, launch: Launch, progress: Progress) -> Iterator[Target]:
    """The first node of a cluster, with a queue that takes whatever comes."""
    cluster = Cluster(port, mode="bench")
    many = 10**6
    web = {"max_jobs": many, "max_client_jobs": many}
    launch = Launch(
        launch.nodes, launch.model_dir, web_port=port + 1, engine=launch.engine, web=web
    )
    with cluster_of(cluster, launch, progress) as running:
        token = tokens.token("bench", tokens.read_key(tokens.checkout_key(RUN)))
        yield Target(address(0), port + 1, token, running.cluster.nodes[0])


def client(target: Target) -> Node:
    """The same node for the client of the package."""
    return Node(Place(target.host, target.port), Token(target.token, "this benchmark"))


def request(number: int, steps: int = 1) -> Record:
    """A job of its own: no two have the same seed."""
    return {"prompt": PROMPT, "n": 1, "steps": steps, "seed": number}


def requests(target: Target, sizes: Sizes, progress: Progress) -> Record:
    """Each kind of request by itself, at so many connections; creation is synced to disk."""
    run, found = RUN / "bench", {}
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    job = jobs.submit(client(target), request(0), progress.line)
    settled(target, job["id"])
    kinds = (
        ("/healthz", "/healthz", None),
        ("GET /v1/jobs/ID of a job that has ended", f"/v1/jobs/{job['id']}", None),
        (
            "POST /v1/jobs, synced to disk before the 202",
            "/v1/jobs",
            f'{{"prompt": "{PROMPT}", "steps": 1}}',
        ),
    )
    for name, path, body in kinds:
        progress.waiting(f"{name} at {CONNECTIONS} connections")
        found[name] = wrk(target, path, sizes.seconds, run, body)
    cleared(target, progress)
    return found


def cleared(target: Target, progress: Progress) -> None:
    """Cancel what the creation of jobs left waiting, the last to come first."""
    asked, after, left = client(target), "", 0
    while True:
        page = asked.ask("GET", f"/v1/jobs?limit=100{after}")
        for one in page["data"]:
            if one["status"] in ("queued", "running"):
                left += cancelled(asked, one["id"])
        progress.waiting(f"cancelled {left} jobs")
        if not page["has_more"]:
            return
        after = f"&after={page['data'][-1]['id']}"


def cancelled(asked: Node, job_id: str) -> bool:
    """Whether it was there to be cancelled: old ones are deleted while we go through them."""
    try:
        jobs.cancel(asked, job_id)
    except NodeRefused as refused:
        if refused.status != 404:
            raise
        return False
    return True


def settled(target: Target, job_id: str) -> Record:
    """The job, once it has ended."""
    return jobs.follow(client(target), job_id, lambda event: None, lambda text: None)


def memory(target: Target, sizes: Sizes, progress: Progress) -> Record:
    """Resident memory after every wave of jobs that were drawn to their end."""
    asked, resident = client(target), []
    for wave in range(sizes.jobs // sizes.wave):
        first = wave * sizes.wave
        progress.waiting(f"{first} of {sizes.jobs} jobs")
        for number in range(first, first + sizes.wave):
            last = jobs.submit(asked, request(number), progress.line)
        settled(target, last["id"])
        resident.append(round(target.rss_mib(), 1))
    return {"jobs": sizes.jobs, "mib_after_wave": resident, "grown_mib": grown(resident)}


def grown(resident: Sequence[float]) -> float:
    """How much came on top once caches and tables had filled: over the second half."""
    half = resident[len(resident) // 2 :]
    return round(half[-1] - half[0], 1)


def rude(target: Target, sizes: Sizes, progress: Progress) -> Record:
    """What slow and vanished clients cost while they are there, and what stays of it."""
    run = RUN / "bench"
    progress.waiting("rude clients")
    before = wrk(target, "/healthz", sizes.seconds, run)
    descriptors, resident = at_rest(target), target.rss_mib()
    with slow(target, sizes.rude):
        vanish(target, sizes.rude)
        during = wrk(target, "/healthz", sizes.seconds, run)
        held = target.descriptors()
    begun = time.monotonic()
    until(lambda: target.descriptors() <= descriptors, "give back what rude clients took")
    return {
        "clients": 2 * sizes.rude,
        "p99_ms_before": before["p99_ms"],
        "p99_ms_during": during["p99_ms"],
        "descriptors": [descriptors, held, target.descriptors()],
        "seconds_to_give_back": round(time.monotonic() - begun, 1),
        "mib": [round(resident, 1), round(target.rss_mib(), 1)],
    }


def at_rest(target: Target) -> int:
    """Open files and sockets once nobody asks any more and what was asked is over."""
    seen = [target.descriptors()]
    while len(seen) < REST_LOOKS or len(set(seen[-REST_LOOKS:])) > 1:
        time.sleep(LOOK_SECONDS)
        seen.append(target.descriptors())
    return seen[-1]


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for what the node does by itself."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise Refused(f"the node did not {what} within {SETTLE_SECONDS:.0f} s: see its log")
        time.sleep(LOOK_SECONDS)


def watched(target: Target, sizes: Sizes, progress: Progress) -> Record:
    """Image time with and without watchers, in turns, so that the machine's moods are shared."""
    alone: list[float] = []
    together: list[float] = []
    drawn(target, 1)  # the first picture loads what is loaded once
    for turn in range(sizes.rounds):
        progress.waiting(f"pictures without watchers, round {turn + 1}")
        alone += drawn(target, sizes.pictures)
        progress.waiting(f"pictures with {sizes.watchers} watchers, round {turn + 1}")
        with watchers(target, sizes.watchers) as reading:
            together += drawn(target, sizes.pictures)
            alive, told = reading.alive, reading.bytes
    return {
        "watchers": sizes.watchers,
        "alive_at_the_end": alive,
        "bytes_a_watcher": told // max(sizes.watchers, 1),
        "image_seconds_alone": round(median(alone), 3),
        "image_seconds_watched": round(median(together), 3),
        "ratio": round(median(together) / median(alone), 3),
    }


def previewed(target: Target, sizes: Sizes, progress: Progress) -> Record:
    """Image time with and without one watcher, for whom previews are drawn, in turns."""
    alone: list[float] = []
    together: list[float] = []
    for turn in range(sizes.turns):
        progress.waiting(f"pictures with previews and without, turn {turn + 1}")
        alone.append(quietly(target, turn))
        with watchers(target, 1) as reading:
            until(lambda: reading.bytes > 0, "greet a watcher")
            together.append(quietly(target, turn))
    return {
        "turns": sizes.turns,
        "image_seconds_alone": round(median(alone), 3),
        "image_seconds_previewed": round(median(together), 3),
        "ratio": round(median(together) / median(alone), 3),
    }


def quietly(target: Target, number: int) -> float:
    """Seconds of one picture; who waits for it does not follow its job, so asks for no previews."""
    asked, wanted = client(target), request(number, steps=PREVIEWED_STEPS)
    answer = asked.ask("POST", "/v1/images/generations", {**wanted, "response_format": "url"})
    return float(jobs.look(asked, answer["job"])["seconds"])


def drawn(target: Target, count: int) -> Sequence[float]:
    """Seconds of so many pictures, one after the other, as the node says."""
    asked, seconds = client(target), []
    for number in range(count):
        job = jobs.submit(asked, request(number, steps=STEPS), lambda text: None)
        seconds.append(float(jobs.finished(asked, settled(target, job["id"]))["seconds"]))
    return seconds


def rows(record: Record) -> list[tuple[str, str]]:
    """What was measured, and what came out."""
    found = [
        (
            f"{name}, {CONNECTIONS} connections",
            f"{one['requests_per_second']:.0f} requests/s, p99 {one['p99_ms']:.1f} ms"
            + (f", {one['refused'] + one['broken']} refused" if one["refused"] else ""),
        )
        for name, one in record["requests"].items()
    ]
    seen, kept, bad = record["watchers"], record["memory"], record["rude"]
    previews = record["previews"]
    found += [
        (
            f"a picture of {STEPS} steps with {seen['watchers']} watchers, and without",
            f"{seen['image_seconds_watched']:.2f} s, {seen['image_seconds_alone']:.2f} s: ratio "
            f"{seen['ratio']:.2f}",
        ),
        (
            f"a picture of {PREVIEWED_STEPS} steps with previews for one watcher, and without",
            f"{previews['image_seconds_previewed']:.3f} s, "
            f"{previews['image_seconds_alone']:.3f} s: ratio {previews['ratio']:.3f}",
        ),
        (
            f"growth of the node over the second half of {kept['jobs']} jobs",
            f"{kept['grown_mib']:+.1f} MiB (at the end {kept['mib_after_wave'][-1]:.0f})",
        ),
        (
            f"/healthz beside {bad['clients']} slow and vanishing clients, and without, p99",
            f"{bad['p99_ms_during']:.1f} ms, {bad['p99_ms_before']:.1f} ms",
        ),
        (
            "open files of the node before, beside and after those clients",
            f"{' / '.join(map(str, bad['descriptors']))}, "
            f"given back in {bad['seconds_to_give_back']:.1f} s",
        ),
    ]
    return found


def markdown(table: Sequence[tuple[str, str]]) -> str:
    """The same for docs/API.md."""
    lines = ["| what | measured |", "|---|---|", *(f"| {a} | {b} |" for a, b in table)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
