"""`make demo`: start a cluster, draw one prompt on it, say how it went, leave nothing behind.

The nodes read the end of a pipe whose other end is ours (baguette_guard.erl): however this process
ends, they end. Files are written before the nodes are stopped; the exit status says whether a
picture is there.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from launcher import picture
from launcher.addresses import DEFAULT_PORT
from launcher.control import Control
from launcher.nodes import Cluster, Launch, claim, seconds_since, start
from launcher.options import ROOT, Model, Options, check_out
from launcher.processes import Refused
from launcher.progress import Progress
from launcher.waiting import CONNECT_SECONDS, become_ready, interruptible, uninterrupted

STOP_PATIENCE = 4.0
RECORD = ROOT / "out" / "demo.json"


def demo(options: Options) -> int:
    """The whole demo; everything that can be refused is refused before anything starts."""
    begun = time.monotonic()
    model = Model.read(options.model_dir)
    model.check(options)
    check_out(options.out)
    request = {"prompt": model.example_prompt, **options.request}
    cluster = Cluster(options.port or DEFAULT_PORT, mode="demo")
    nodes = options.nodes or model.num_experts
    interruptible()
    with claim(cluster, nodes):
        progress = Progress()
        progress.line(f"Drawing {request['prompt']!r} with {model.name} on {nodes} nodes here")
        result, paths, seconds = _on_nodes(cluster, nodes, options, request, progress)
    seconds["all"] = seconds_since(begun)
    extra = {"nodes": nodes, "wall_seconds": seconds}
    picture.write_record(picture.record(result, request["prompt"], paths, extra), RECORD)
    _tell(result, model, paths[0], seconds, progress)
    return 0


def _on_nodes(
    cluster: Cluster, nodes: int, options: Options, request: dict[str, Any], progress: Progress
) -> tuple[picture.Result, list[Path], dict[str, float]]:
    """Draw and write the pictures; the nodes are gone afterwards, whatever happened."""
    guard_read, guard_write = os.pipe()
    try:
        result, seconds = _draw(
            cluster, Launch(nodes, options.model_dir, guard_read), request, progress
        )
        paths = picture.write_pictures(result, options.out)
    finally:
        progress.close()
        stopping = time.monotonic()
        with uninterrupted():
            cluster.stop(STOP_PATIENCE)
        os.close(guard_read)
        os.close(guard_write)
    return result, paths, {**seconds, "stop": seconds_since(stopping)}


def _draw(
    cluster: Cluster, launch: Launch, request: dict[str, Any], progress: Progress
) -> tuple[picture.Result, dict[str, float]]:
    """Start the nodes, wait until the cluster can draw, draw; also the seconds of each phase."""
    begun = time.monotonic()
    start(cluster, launch)
    with Control(cluster.target()) as control:
        control.connect(CONNECT_SECONDS)
        become_ready(cluster, control, launch.nodes, progress)
        ready = seconds_since(begun)
        begun = time.monotonic()
        result = _follow(control, request, progress)
        return result, {"ready": ready, "draw": seconds_since(begun)}


def _follow(control: Control, request: dict[str, Any], progress: Progress) -> picture.Result:
    """Ask for the picture and show what happens until it is there."""
    control.ask("generate", request=request, watch=True)
    for event in control.answers("done"):
        if event["event"] == "done":
            result: picture.Result = event["result"]
            return result
        _show(event, progress)
    raise Refused("the generation ended without a result")


def _show(event: dict[str, Any], progress: Progress) -> None:
    kind = event["event"]
    if kind == "step":
        progress.bar(event["step"], event["steps"], _asking(event))
    elif kind == "state" and event["state"] in ("encoding", "decoding"):
        progress.waiting(event["state"])
    elif kind == "warning":
        progress.line(f"warning: {event['text']}")
    elif kind == "waiting":
        progress.line(event.get("text", "waiting"))
    elif kind == "failover":
        progress.line(f"{event.get('from')} did not answer; asking {event.get('to')}")


def _asking(event: dict[str, Any]) -> str:
    """Which experts, and the address of the node each is asked of."""
    experts = sorted({expert for image in event["experts"] for expert in image})
    asked = event.get("asked", {})
    nodes = {e: str(asked.get(str(e), "")).rpartition("@")[2] for e in experts}
    return "asking " + " ".join(f"E{e}@{nodes[e]}" if nodes[e] else f"E{e}" for e in experts)


def _tell(
    result: picture.Result, model: Model, out: Path, seconds: dict[str, float], progress: Progress
) -> None:
    width = min(progress.width, 100)
    for line in picture.lines(result, model.num_experts, width, progress.terminal):
        print(line)
    print(
        f"{_near(out)} is there (seed {result['seed']}), its record is "
        f"{_near(RECORD)}.\nReady after {seconds['ready']:.1f} s, "
        f"drawn in {seconds['draw']:.1f} s, stopped in {seconds['stop']:.1f} s, "
        f"{seconds['all']:.1f} s in all."
    )


def _near(path: Path) -> str:
    """Relative where that is the shorter way to say it."""
    return min(str(path), os.path.relpath(path), key=len)
