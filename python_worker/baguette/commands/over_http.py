"""A cluster over HTTP, as `commands.on_cluster` draws on one.

Called by `generate --cluster URL` and `remote generate`. An interrupt cancels the job before it
ends the command: what nobody waits for is not computed.
"""

from __future__ import annotations

import base64
import contextlib
import math
from collections.abc import Iterator
from typing import Any

from baguette.commands.progress import Bar
from baguette.errors import ClusterRefused
from baguette.remote import job as jobs
from baguette.remote.job import Job
from baguette.remote.node import Node
from baguette.remote.sse import Event
from baguette.text import printable

Result = dict[str, Any]


class OverHttp:
    """A node that draws what it is asked."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.node = node.url
        self.num_experts = _experts(node)

    def draw(self, request: dict[str, Any], bar: Bar) -> Result:
        """A finished picture; cancelled at the node when we are interrupted."""
        job = jobs.submit(self._node, request, bar.say)
        try:
            return self.follow(job["id"], bar)
        except KeyboardInterrupt:
            bar.say(f"cancelling job {job['id']} (Ctrl-C again leaves at once)")
            self._cancel(job["id"])
            raise

    def _cancel(self, job_id: str) -> None:
        try:
            jobs.cancel(self._node, job_id)
        except ClusterRefused as error:
            raise ClusterRefused(
                f"{error}; job {job_id} may still be drawn: `python -m baguette remote cancel "
                f"{job_id}` stops it"
            ) from None

    def follow(self, job_id: str, bar: Bar) -> Result:
        """The finished picture of a job that is there."""
        seen = Seen(bar)
        job = jobs.follow(self._node, job_id, seen.event, bar.say)
        return self._result(jobs.finished(self._node, job), seen.warnings)

    def _result(self, job: Job, warnings: list[str]) -> Result:
        """The job with its pictures, in the words of a generation."""
        try:
            request = job["request"]
            seconds = job["seconds"] or job["finished"] - job["created"]
            return {
                **{k: v for k, v in job.items() if k not in ("object", "request")},
                **{k: v for k, v in request.items() if k != "prompt"},
                "images": [self._image(image) for image in job["images"]],
                "routing": _by_image(job["routing"], len(job["images"])),
                "seconds": {"total": max(float(seconds), math.ulp(1.0))},
                "warnings": warnings,
            }
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            raise self._node.odd("a finished job that lacks what belongs to one") from None

    def _image(self, image: dict[str, Any]) -> dict[str, Any]:
        path = str(image["url"])
        if not path.startswith("/v1/jobs/") or not path.isascii() or not path.isprintable():
            raise self._node.odd("a picture that lies elsewhere")
        png = jobs.Patience(lambda _: None).until_answered(lambda: self._node.picture(path))
        return {
            "seed": int(image["seed"]),
            "pixels_sha256": str(image["pixels_sha256"]),
            "reused": int(image["reused"]),
            "png": base64.b64encode(png),
        }


class Seen:
    """Events of a job, shown to a person."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self.warnings: list[str] = []

    def event(self, event: Event) -> None:
        """One event; a name this version does not know says nothing to anybody."""
        show = getattr(self, f"_{event.name}", None) if event.name in SHOWN else None
        if show is not None and isinstance(event.value, dict):
            try:
                show(event.value)
            except (KeyError, TypeError, ValueError) as error:
                raise ClusterRefused(
                    f"the node sent a {event.name} event that cannot be read ({error!r}): is it of "
                    "this version?"
                ) from None

    def _status(self, job: dict[str, Any]) -> None:
        if job["status"] != "queued":
            self._bar.note("")
            return
        before, seconds = job.get("position"), job.get("predicted_seconds")
        about = f", about {float(seconds):.0f} s" if seconds else ""
        self._bar.note(f"queued, {int(before)} before it{about}" if before else f"queued{about}")

    _resync = _status

    def _step(self, step: dict[str, Any]) -> None:
        experts = [[int(expert) for expert in image] for image in step["experts"]]
        self._bar(int(step["step"]), int(step["steps"]), experts)

    def _waiting(self, waiting: dict[str, Any]) -> None:
        self._bar.say(f"waiting: {printable(waiting['reason'])}")

    def _failover(self, one: dict[str, Any]) -> None:
        source, why = printable(one["from"], 60), printable(one["why"]).replace("_", " ")
        lost = f"step {int(one['step'])}: {source} did not answer for E{int(one['expert'])} ({why})"
        other = one["to"]  # nobody yet, where nobody else has it
        self._bar.say(f"{lost}" + (f", {printable(other, 60)} is asked" if other else ""))

    def _degraded(self, one: dict[str, Any]) -> None:
        self._warn(f"step {int(one['step'])} was drawn without E{int(one['expert'])}")

    def _warning(self, warning: dict[str, Any]) -> None:
        self._warn(printable(warning.get("text") or warning.get("detail")))

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def _preview(self, preview: dict[str, Any]) -> None:
        self._bar.preview(int(preview["image"]), base64.b64decode(preview["b64_png"]))


SHOWN = ("status", "resync", "step", "waiting", "failover", "degraded", "warning", "preview")


@contextlib.contextmanager
def over_http(node: Node) -> Iterator[OverHttp]:
    """A cluster to draw on; nothing is kept open between questions."""
    yield OverHttp(node)


def _experts(node: Node) -> int:
    """How many the cluster's model has."""
    cluster = jobs.Patience(lambda _: None, 0).until_answered(
        lambda: node.ask("GET", "/v1/cluster")
    )
    experts = cluster.get("experts") if isinstance(cluster, dict) else None
    if not isinstance(experts, list):
        raise node.odd("a cluster without its experts")
    return max(len(experts), 1)


def _by_image(routing: list[dict[str, Any]], images: int) -> list[list[dict[str, Any]]]:
    """Step by step as it went, into image by image; a step's experts are told once."""
    steps = sorted(routing, key=lambda entry: int(entry["step"]))
    return [
        [{"step": int(s["step"]), "experts": [int(e) for e in s["experts"][i]]} for s in steps]
        for i in range(images)
    ]
