"""Make weights/paris-mini again: draw, encode, cluster, train eight experts apart and their router.

About 90 minutes on two cores. Every stage resumes where it was interrupted (Ctrl-C included), and a
finished one is skipped; what is in hand lies in build/train_mini.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from mini import data, experts, package, vae
from mini.loop import note_time

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = """\
examples:
  .venv/bin/python scripts/train_mini.py   the whole recipe, or what is left of it
  ... --stage router --again               the router anew, nothing else
  ... --output /tmp/mini                   write the model somewhere else
  .venv/bin/python scripts/judge_mini.py   then: how good is it
"""
Make = Callable[[Path], float | None]
# stage: the files it leaves in the work folder, and how it makes them
STAGES: dict[str, tuple[tuple[str, ...], Make]] = {
    "vae": (("vae/config.json",), vae.train),
    "data": (("data.safetensors",), data.make),
    "shared": (("shared.safetensors", "contexts.safetensors"), experts.train_shared),
    "experts": (
        tuple(f"expert_{number}.safetensors" for number in range(data.CLUSTERS)),
        experts.train_experts,
    ),
    "router": (("router.safetensors",), experts.train_router),
}


def main() -> int:
    args = _arguments()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    try:
        for stage in [args.stage] if args.stage else list(STAGES):
            _make(stage, args.work, args.again)
        if not args.stage:
            package.package(args.work, args.output)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 130
    except FileNotFoundError as missing:
        print(f"{missing}: run the stages before this one first", file=sys.stderr)
        return 1
    if not args.stage:
        judge = ".venv/bin/python scripts/judge_mini.py"
        print(f"wrote {args.output}; now: {judge} --model {args.output}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stage", choices=STAGES, help="only this stage, or what is left of it")
    parser.add_argument("--again", action="store_true", help="forget what is in hand, begin anew")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "train_mini")
    parser.add_argument("--output", type=Path, default=ROOT / "weights" / "paris-mini")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    return parser.parse_args()


def _make(stage: str, work: Path, again: bool) -> None:
    leaves, make = STAGES[stage]
    if again:
        for name in leaves:
            (work / name).unlink(missing_ok=True)
            (work / name).with_suffix(".pt").unlink(missing_ok=True)
        (work / f"{stage}.pt").unlink(missing_ok=True)
        if stage == "data":
            shutil.rmtree(work / "parts", ignore_errors=True)
    if all((work / name).exists() for name in leaves):
        print(f"{stage}: done already", file=sys.stderr)
        return
    seconds = make(work)
    if seconds:
        note_time(work, stage, seconds)


if __name__ == "__main__":
    sys.exit(main())
