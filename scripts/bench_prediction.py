"""How well is foretold how long a picture takes: |predicted - real| / real of many pictures.

A seeded mix of requests (images, steps, experts an image, deterministic or not) is drawn by one to
four clients at once, who all ask one node or each another; each draws one picture after the other.
A node says how long a job will take when it takes it in, and later how long it took. The first
two rounds of every cluster are a warm-up, of which nothing is counted. Four nodes whose device is
simulated, and two real ones with paris-mini, which the machine's other work disturbs more. Called
by `make bench-prediction` (10 minutes; --small takes one). Prints a table and writes
out/bench_prediction.json. PORT comes from the environment, as for scripts/cluster.py; HTTP is one
port above it.
"""

from __future__ import annotations

import argparse
import math
import os
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from baguette.files import check_writable
from baguette.remote import job as jobs
from baguette.remote.node import Node
from baguette.remote.place import Place, Token
from launcher import command_line, tokens
from launcher.addresses import DEFAULT_PORT
from launcher.erlang import RUN
from launcher.nodes import Cluster, Launch, address
from launcher.options import ROOT, Options
from launcher.picture import write_record
from launcher.progress import Progress
from launcher.simulated import Device, cluster_of
from launcher.waiting import interruptible

OUTPUT = ROOT / "out" / "bench_prediction.json"
DEVICE = Device(batch_us=10_000, row_us=3_000, load_ms=20)
AT_ONCE = (1, 2, 3, 4)
IMAGES, STEPS, TOP_K = (1, 4), (10, 50), (1, 3)
PROMPTS = ("a red circle on a blue background", "a green square", "two yellow stars")
SEED = 7
EXAMPLES = """\
examples:
  .venv/bin/python scripts/bench_prediction.py
  .venv/bin/python scripts/bench_prediction.py --devices simulated
  .venv/bin/python scripts/bench_prediction.py --small
"""
Record = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How many pictures each client draws in a round, and how many rounds count."""

    pictures: int = 4
    warm_up: int = 2
    rounds: int = 2


SMALL = Sizes(pictures=1, warm_up=1, rounds=1)


def main() -> int:
    """Measure, print, write; the exit status says whether it could be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ("simulated", "real")
    parser.add_argument("--devices", choices=kinds, nargs="+", default=kinds, help="of the nodes")
    parser.add_argument("--small", action="store_true", help="a little of everything, no figures")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the record goes")
    args = parser.parse_args()
    return command_line.run(lambda: _checked(args))


def _checked(args: argparse.Namespace) -> int:
    check_writable(args.output)
    interruptible()
    options, sizes = Options.read(os.environ), SMALL if args.small else Sizes()
    record: Record = {"cores": os.cpu_count(), "load_before": os.getloadavg(), "drawn": {}}
    for device in args.devices:
        record["drawn"][device] = bench(device, options, sizes)
    write_record({**record, "load_after": os.getloadavg()}, args.output)
    for device, drawn in record["drawn"].items():
        print("\n".join(table(device, drawn)))
    print(f"load before {record['load_before'][0]:.1f}, after {os.getloadavg()[0]:.1f}")
    return 0


def bench(device: str, options: Options, sizes: Sizes) -> list[Record]:
    """Every picture that counts, drawn on a cluster started for this."""
    port, progress = options.port or DEFAULT_PORT, Progress()
    nodes = {"simulated": 4, "real": 2}[device]
    simulated = device == "simulated"
    launch = Launch(
        nodes,
        None if simulated else options.model_dir,
        web_port=port + 1,
        engine=DEVICE.settings(nodes) if simulated else {},
        requesters=nodes,
    )
    with cluster_of(Cluster(port, mode="bench"), launch, progress):
        token = Token(tokens.token("bench", tokens.read_key(tokens.checkout_key(RUN))), "this")
        asked = [Node(Place(address(i), port + 1), token) for i in range(nodes)]
        for node in asked:  # not every one answers HTTP as soon as the cluster is ready
            jobs.Patience(progress.line).until_answered(partial(node.ask, "GET", "/v1/jobs"))
        dice = random.Random(SEED)
        drawn = []
        for number in range(1 - sizes.warm_up, 1 + sizes.rounds):
            progress.line(f"{device}: round {number} of {sizes.rounds}, from below 1 to warm up")
            drawn += [{**one, "round": number} for one in one_round(asked, sizes.pictures, dice)]
        return [one for one in drawn if one["round"] > 0]


def one_round(asked: Sequence[Node], pictures: int, dice: random.Random) -> Iterator[Record]:
    """So many pictures for each of one to four clients, of one node and of several, shuffled."""
    loads = [(count, spread) for count in AT_ONCE for spread in (False, True)]
    for count, spread in dice.sample(loads, len(loads)):
        first = dice.randrange(len(asked))
        clients = [asked[(first + i * spread) % len(asked)] for i in range(count)]
        wanted = [[request(dice) for _ in range(pictures)] for _ in clients]
        with ThreadPoolExecutor(count) as pool:
            for drawn in pool.map(in_turn, clients, wanted):
                yield from ({**one, "at_once": count, "spread": spread} for one in drawn)


def in_turn(node: Node, wanted: Sequence[Record]) -> list[Record]:
    """One client's pictures, one after the other."""
    return [drawn(node, one) for one in wanted]


def request(dice: random.Random) -> Record:
    """One of the mix."""
    return {
        "prompt": dice.choice(PROMPTS),
        "n": dice.randint(*IMAGES),
        "steps": dice.randint(*STEPS),
        "top_k": dice.randint(*TOP_K),
        "deterministic": dice.random() < 0.5,
        "seed": dice.randrange(1 << 31),
    }


def drawn(node: Node, wanted: Record) -> Record:
    """What was said before of a picture, and how long it took; who waits asks for no previews."""
    answer = node.ask("POST", "/v1/images/generations", {**wanted, "response_format": "url"})
    job = jobs.look(node, answer["job"])
    return {
        **{name: wanted[name] for name in ("n", "steps", "top_k", "deterministic")},
        "predicted": job["predicted_seconds"],
        "seconds": job["seconds"],
        "error": abs(job["predicted_seconds"] - job["seconds"]) / job["seconds"],
    }


def table(device: str, drawn: Sequence[Record]) -> list[str]:
    """Median and ninetieth percentile of the error: of all, and by what it may go by."""
    parts: list[tuple[str, Sequence[Record]]] = [("all", drawn)]
    parts += [
        (f"{count} at once, {'of several nodes' if spread else 'of one node'}", those)
        for count in AT_ONCE
        for spread in (False, True)
        if (those := [o for o in drawn if (o["at_once"], o["spread"]) == (count, spread)])
    ]
    parts += [
        (name, [one for one in drawn if one["deterministic"] is alone])
        for name, alone in (("deterministic", True), ("not deterministic", False))
    ]
    lines = [f"| {device} devices | pictures | median error | p90 |", "|---|---|---|---|"]
    for name, chosen in parts:
        errors = [one["error"] for one in chosen]
        high = sorted(errors)[math.ceil(0.9 * len(errors)) - 1]
        lines.append(f"| {name} | {len(errors)} | {median(errors):.1%} | {high:.1%} |")
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
