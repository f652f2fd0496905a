"""What a step costs in a cluster on this machine, against the single-process pipeline.

One image, every side in turn in the same run: the pipeline in this process with 1 and with 2
threads (guidance batched), and a cluster of one node per expert. Called by `make bench-step`.
Prints a table and writes out/bench.json. A step's time is a generation's, without encoding and
decoding, divided by its steps. Sides with the same thread count must draw the same picture, or
there is nothing to compare. The cluster then draws some pictures more, so that it can be told where
a step's time goes and how many bytes it sends.

Values come as environment variables, as for scripts/cluster.py: PROMPT STEPS SEED NODES PORT MODEL.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from baguette.files import check_writable
from launcher import breakdown, command_line, wire_bytes
from launcher.addresses import DEFAULT_PORT
from launcher.control import Control
from launcher.nodes import Cluster, Launch
from launcher.options import ROOT, BadOption, Model, Options
from launcher.picture import write_record
from launcher.processes import Refused
from launcher.progress import Progress
from launcher.simulated import cluster_of
from launcher.waiting import interruptible

OUTPUT = ROOT / "out" / "bench.json"
STEPS = 30
ROUNDS = 15
LEAST_ROUNDS = 5
WARM_UP = 3
BOUND = 1.15
SETTLING = 1_000_000  # added to the seed of the drawing that is not measured
PARTS = ("route", "experts", "advance", "between")
EXAMPLES = """\
examples:
  .venv/bin/python scripts/bench.py
  MODEL=weights/paris NODES=4 .venv/bin/python scripts/bench.py --rounds 15
"""
Record = dict[str, Any]


@dataclass
class Side:
    """One of those compared: how it draws a request, and what its pictures cost."""

    name: str
    draw: Callable[[Record], Record]
    samples: list[float] = field(default_factory=list)  # ms per step
    parts: list[dict[str, float]] = field(default_factory=list)  # the same, part by part
    last: Record = field(default_factory=dict)

    def measure(self, request: Record) -> None:
        """Draw another picture, then this one, and keep what a step of it took.

        The first drawing finds the caches cold and threads of the side before still spinning:
        neither is this side's cost.
        """
        self.draw({**request, "seed": request["seed"] + SETTLING})
        self.last = self.draw(request)
        seconds, steps = self.last["seconds"], self.last["steps"]
        whole = seconds["total"] - seconds["encode"] - seconds["decode"]
        known = {part: seconds[part] for part in PARTS[:-1]}
        known["between"] = whole - sum(known.values())
        self.samples.append(1000 * whole / steps)
        self.parts.append({part: 1000 * value / steps for part, value in known.items()})

    def forget(self) -> None:
        """What was measured so far was the warm-up."""
        self.samples.clear()
        self.parts.clear()

    def ms(self) -> float:
        return median(self.samples)

    def record(self) -> Record:
        """What goes into the file: every sample, and the median of each part."""
        medians = {part: round(median(p[part] for p in self.parts), 4) for part in PARTS}
        return {
            "ms_per_step": round(self.ms(), 4),
            "samples_ms_per_step": [round(sample, 4) for sample in self.samples],
            "parts_ms_per_step": medians,
        }


def main() -> int:
    """Measure, print, write; the exit status says whether it could be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds (default {ROUNDS})")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the record goes")
    args = parser.parse_args()
    return command_line.run(lambda: _checked(args.rounds, args.output))


def _checked(rounds: int, output: Path) -> int:
    if rounds < LEAST_ROUNDS:
        raise BadOption(f"--rounds got {rounds} but expected at least {LEAST_ROUNDS}")
    check_writable(output)
    return bench(Options.read(os.environ), rounds, output)


def bench(options: Options, rounds: int, output: Path) -> int:
    """Start the cluster, measure all sides in turn, stop it."""
    model = Model.read(options.model_dir)
    model.check(options)
    nodes = options.nodes or model.num_experts
    request = {"prompt": model.example_prompt, "seed": 1, "steps": STEPS, **options.request, "n": 1}
    busy = os.getloadavg()[0]
    progress = Progress()
    interruptible()
    try:
        progress.waiting("loading the single-process pipeline")
        singles = single_process(options.model_dir)
        cluster = Cluster(options.port or DEFAULT_PORT, mode="bench")
        with cluster_of(cluster, Launch(nodes, options.model_dir), progress) as running:
            sides = [*singles, Side("cluster", lambda given: on_cluster(running.control, given))]
            run(sides, request, rounds, progress)
            more = looked_into(running.control, request, options.model_dir)
    finally:
        progress.close()
    record = {
        **summary(sides),
        **more,
        "model": model.name,
        "nodes": nodes,
        "rounds": rounds,
        **picture(sides[-1].last),
        "machine": machine(busy),
    }
    write_record(record, output)
    tell(record, output)
    return 0


def single_process(model_dir: Path) -> list[Side]:
    """The pipeline in this process, with one thread and, where there are two cores, with two."""
    import torch

    import baguette
    from baguette.errors import BaguetteError

    try:
        pipeline = baguette.load(model_dir, threads=1)
    except BaguetteError as error:
        raise Refused(f"{error}; MODEL=... names another directory") from None

    def draw_with(threads: int) -> Callable[[Record], Record]:
        def draw(request: Record) -> Record:
            torch.set_num_threads(threads)
            given = dict(request)
            if given.get("top_k") == "full":
                given["top_k"] = None
            return pipeline(pipeline.request(given.pop("prompt"), **given)).to_json()

        return draw

    counts = (1, 2) if (os.cpu_count() or 1) > 1 else (1,)
    return [Side(f"one process, {n} thread{'s' * (n > 1)}", draw_with(n)) for n in counts]


def on_cluster(control: Control, request: Record) -> Record:
    """Draw on the cluster's first node; like the other sides it tells nobody of its steps."""
    control.ask("generate", request=request, watch=False)
    result: Record = control.answer("done")["result"]
    return result


def looked_into(control: Control, request: Record, model_dir: Path) -> Record:
    """Where a step's time goes, and what it sends: of pictures that are not among the measured."""

    def draw(**more: Any) -> Record:
        return on_cluster(control, {**request, **more})

    return {
        "breakdown": breakdown.measure(control, draw),
        "bytes_per_step": wire_bytes.measure(control, draw, model_dir),
    }


def run(sides: Sequence[Side], request: Record, rounds: int, progress: Progress) -> None:
    """Warm up, then all sides in every round, beginning with another one each time."""
    for i in range(WARM_UP + rounds):
        if i == WARM_UP:
            for side in sides:
                side.forget()
        seed = request["seed"] + max(i - WARM_UP, 0)
        for k in range(len(sides)):
            side = sides[(i + k) % len(sides)]
            progress.bar(i * len(sides) + k, (WARM_UP + rounds) * len(sides), side.name)
            side.measure({**request, "seed": seed})
        agree(sides, seed)
    progress.bar(len(sides), len(sides), "done")


def agree(sides: Sequence[Side], seed: int) -> None:
    """Bytes are promised for one thread count: the cluster's, which is that of its workers."""
    threads = sides[-1].last["threads"]
    hashes = {
        side.name: side.last["images"][0]["pixels_sha256"]
        for side in sides
        if side.last["threads"] == threads
    }
    if len(set(hashes.values())) != 1:
        raise Refused(f"the sides drew different pictures (seed {seed}): {hashes}")


def summary(sides: Sequence[Side]) -> Record:
    """The ratio, and every side with all its samples."""
    *singles, cluster = sides
    fastest = min(singles, key=Side.ms)
    return {
        "cluster_step_ratio": round(cluster.ms() / fastest.ms(), 4),
        "cluster_ms_per_step": round(cluster.ms(), 4),
        "single_ms_per_step": round(fastest.ms(), 4),
        "single_threads": 1 + singles.index(fastest),
        "cluster_threads_per_worker": cluster.last["threads"],
        "sides": {side.name: side.record() for side in sides},
    }


def picture(result: Record) -> Record:
    """The last picture, which the sides agreed on: what another program can hold us to."""
    names = ("seed", "steps", "guidance_scale", "top_k", "routing", "seconds")
    image = result["images"][0]
    hashes = {name: image[name] for name in ("pixels_sha256", "latent_sha256")}
    return {**{name: result[name] for name in names}, **hashes}


def machine(busy: float) -> Record:
    """What this was measured on, and how busy it already was."""
    from importlib.metadata import version

    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "load_before": round(busy, 2),
        "python": platform.python_version(),
        "torch": version("torch"),
        "system": platform.platform(),
    }


def tell(record: Record, output: Path) -> None:
    """The table, the ratio, and what may have spoiled it."""
    heads = ("median", "least", "most", *PARTS)
    print(f"{'ms per step':<24}" + "".join(f"{head:>9}" for head in heads))
    for name, side in record["sides"].items():
        samples, parts = side["samples_ms_per_step"], side["parts_ms_per_step"]
        columns = (side["ms_per_step"], min(samples), max(samples), *(parts[p] for p in PARTS))
        print(f"{name:<24}" + "".join(f"{value:>9.2f}" for value in columns))
    ratio = record["cluster_step_ratio"]
    verdict = "within" if ratio <= BOUND else "over"
    print(
        f"cluster / fastest single process: {ratio:.2f} ({verdict} the bound of {BOUND}), "
        f"{record['steps']} steps, median of {record['rounds']}; {os.path.relpath(output)}"
    )
    lines = breakdown.told(record["breakdown"], record["cluster_ms_per_step"])
    print("\n".join(["", *lines, "", *wire_bytes.told(record["bytes_per_step"])]))
    load, cores = record["machine"]["load_before"], record["machine"]["cores"]
    if load > cores / 4:
        print(f"the machine was busy when this began (load {load} on {cores} cores): run it again")


if __name__ == "__main__":
    sys.exit(main())
