"""Judge paris-mini: does it draw what it is told? Every combination, several seeds.

Uses the product's own parts (text encoder, router, experts, sampler, decoder); only the images of
one expert are asked in one batch, which a request would not do. Exits 1 when the bar is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from baguette import device
from baguette.families.paris.expert import Expert, PreparedExpert, Row
from baguette.families.paris.loading import load_expert
from baguette.families.paris.requester import Requester
from baguette.files import write_whole
from baguette.image import to_png
from baguette.mixture import Choice
from baguette.pipeline import Pipeline
from baguette.runtime import PRECISIONS, Runtime
from baguette.shapes import caption
from baguette.shapes.draw import COLOURS, COMBINATIONS, SHAPES
from baguette.shapes.judge import Verdict, judge
from baguette.sheet import sheet
from mini import cached
from mini.experts import expert_config
from mini.report import Report, markdown

ROOT = Path(__file__).resolve().parent.parent
HELD_OUT_SEED = 700_000  # far from any seed that chose a setting
BATCH = 64
CONTEXTS_BYTES = 8 << 30  # every prompt at once, which no request asks for
EXAMPLES = """\
examples:
  .venv/bin/python scripts/judge_mini.py                  the bar: top-2, every combination, 3 seeds
  ... --variants --markdown table.md                      and top-1, all experts, the shared DiT
  ... --precisions bf16 int8                              and what small weights cost the pictures
  ... --seeds 1 --guidance-scale 3                        a quick look at another scale
  ... --sheet out/mini.png                                and the pictures themselves
  ... --cache 0.1 0.2 0.3                                 instead: what using velocities again costs
"""


@dataclass(frozen=True)
class Ask:
    """One picture to draw: what it should show, how that is said, and its seed."""

    combination: tuple[int, int, int]
    prompt: str
    seed: int


@dataclass(frozen=True)
class Variant:
    """How to draw: the experts by number, and how many of them each step asks (None: all)."""

    name: str
    experts: Mapping[int, PreparedExpert]
    top_k: int | None


def asks(seeds: int, first_seed: int) -> list[Ask]:
    """Every combination `seeds` times; no two pictures share a seed, phrasings rotate."""
    found = []
    for i, combination in enumerate(COMBINATIONS):
        for j in range(seeds):
            prompt = caption.caption(i, (i + j) % len(caption.PHRASINGS))
            found.append(Ask(combination, prompt, first_seed + i * seeds + j))
    return found


class Drawer:
    """Draws many asks at once with one model directory."""

    def __init__(self, model_dir: Path, steps: int | None, guidance_scale: float | None) -> None:
        self.requester = Requester(model_dir)
        defaults = self.requester.config.defaults
        self.times = self.requester.times(steps or defaults.steps)
        self.guidance_scale = guidance_scale or defaults.guidance_scale
        self.null = self.requester.encode_null()
        self.calls: Counter[int] = Counter()

    def draw(self, variant: Variant, wanted: Sequence[Ask]) -> list[Tensor]:
        """The pictures, each uint8 (H, W, 3); counts the calls of every expert."""
        self.calls.clear()
        contexts = [self.requester.encode(ask.prompt) for ask in wanted]
        for prepared in variant.experts.values():
            prepared.contexts.budget_bytes = CONTEXTS_BYTES
            for context in [*contexts, self.null]:
                prepared.learn(context.hash, context.tensor)
        latents = [self.requester.start(ask.seed) for ask in wanted]
        pairs = list(zip(self.times, self.times[1:], strict=False))
        for t, t_next in tqdm(pairs, desc=variant.name):
            choices = [self._choose(variant, latent, t) for latent in latents]
            rows = [
                self.requester.row(x, t, (context, self.null), self.guidance_scale)
                for x, context in zip(latents, contexts, strict=True)
            ]
            answers = self._ask(variant, rows, choices)
            latents = [
                self.requester.advance(x, answer, choice, t, t_next)
                for x, answer, choice in zip(latents, answers, choices, strict=True)
            ]
        return [self.requester.decode(latent) for latent in latents]

    def _choose(self, variant: Variant, latent: Tensor, t: float) -> Choice:
        if len(variant.experts) == 1:
            return Choice((0,), (1.0,), 1.0)
        return self.requester.route(latent, t, variant.top_k)

    def _ask(
        self, variant: Variant, rows: list[Row], choices: list[Choice]
    ) -> list[dict[int, Tensor]]:
        answers: list[dict[int, Tensor]] = [{} for _ in rows]
        for number, prepared in variant.experts.items():
            mine = [i for i, choice in enumerate(choices) if number in choice.experts]
            self.calls[number] += len(mine)
            for start in range(0, len(mine), BATCH):
                part = mine[start : start + BATCH]
                velocities = prepared.velocity([rows[i] for i in part])
                for i, velocity in zip(part, velocities, strict=True):
                    answers[i][number] = velocity
        return answers


def verdict_of(pixels: Tensor) -> Verdict:
    """The judge on a picture as people see it, uint8 (H, W, 3)."""
    return judge((pixels.permute(2, 0, 1).numpy() / np.float32(255)).astype(np.float32))


def psnr_db(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> list[float]:
    """Peak signal-to-noise ratio of each picture against its twin, uint8, in dB; 99 where equal."""
    errors = [(a.float() - b.float()).pow(2).mean() for a, b in zip(ours, theirs, strict=True)]
    return [float(10 * torch.log10(255**2 / e)) if e > 0 else 99.0 for e in errors]


def report(
    variant: Variant, wanted: list[Ask], pictures: list[Tensor], drawer: Drawer, begun: float
) -> Report:
    """Judge what was drawn, count."""
    verdicts = [verdict_of(p) for p in tqdm(pictures, desc="judge")]
    calls = [drawer.calls[number] for number in sorted(variant.experts)]
    asked = [ask.combination for ask in wanted]
    return Report.of(variant.name, asked, verdicts, calls, time.monotonic() - begun)


def variants(model_dir: Path, work: Path, every: bool, precisions: Sequence[str]) -> list[Variant]:
    """Top-2 as the model's default; with `every` also what it is compared with."""
    requester_config = json.loads((model_dir / "config.json").read_text())
    numbers = range(requester_config["num_experts"])
    experts = {number: load_expert(model_dir, number) for number in numbers}
    found = [Variant("top-2", experts, 2)]
    for precision in precisions:
        kept = device.numbers(Runtime(precision))
        name = f"top-2, {precision} computed in {str(kept.compute).removeprefix('torch.')}"
        small = {number: load_expert(model_dir, number, kept) for number in numbers}
        found.append(Variant(name, small, 2))
    if every:
        found += [Variant("top-1", experts, 1), Variant("all experts", experts, None)]
        shared = work / "shared.safetensors"
        if not shared.exists():
            raise SystemExit(f"{shared} is missing: `make train-mini` makes it")
        module = Expert(expert_config(0))
        module.load_state_dict(load_file(shared))
        found.append(Variant("shared DiT", {0: PreparedExpert(module)}, 1))
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=ROOT / "weights" / "paris-mini")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "train_mini")
    parser.add_argument("--seeds", type=int, default=3, help="pictures a combination (default 3)")
    parser.add_argument("--first-seed", type=int, default=HELD_OUT_SEED)
    parser.add_argument("--steps", type=int, help="default: the model's")
    parser.add_argument("--guidance-scale", type=float, help="default: the model's")
    parser.add_argument("--variants", action="store_true", help="also top-1, all, the shared DiT")
    parser.add_argument(
        "--precisions", nargs="*", default=(), choices=PRECISIONS, help="also weights kept so"
    )
    parser.add_argument(
        "--cache", nargs="+", type=float, metavar="T",
        help="compare these thresholds of step reuse with asking at every step, and nothing else",
    )  # fmt: skip
    parser.add_argument("--markdown", type=Path, help="write the tables to this file")
    parser.add_argument("--sheet", type=Path, help="write all pictures of top-2 to this PNG")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    return parser.parse_args()


def _swept(args: argparse.Namespace) -> int:
    """Step reuse, by threshold, with the model's own steps and guidance."""
    pipeline = Pipeline(args.model, Runtime("fp32", threads=args.threads))
    found = cached.sweep(pipeline, args.cache, args.seeds, args.first_seed, verdict_of)
    text = cached.table(found, psnr_db)
    print(text)
    if args.markdown:
        args.markdown.write_text(text, encoding="utf-8")
    return 0


def main() -> int:
    args = _arguments()
    torch.set_num_threads(args.threads)
    if args.cache:
        return _swept(args)
    drawer = Drawer(args.model, args.steps, args.guidance_scale)
    wanted = asks(args.seeds, args.first_seed)
    reports: list[Report] = []
    first: list[Tensor] = []
    for variant in variants(args.model, args.work, args.variants, args.precisions):
        begun = time.monotonic()
        pictures = drawer.draw(variant, wanted)
        reports.append(report(variant, wanted, pictures, drawer, begun))
        first = first or pictures
        if pictures is not first:
            ratios = sorted(psnr_db(pictures, first))
            least, median = ratios[0], ratios[len(ratios) // 2]
            print(f"{variant.name}: PSNR against top-2 median {median:.1f} dB, least {least:.1f}")
    if args.sheet:
        write_whole({args.sheet: sheet([to_png(picture) for picture in first])})
    text = markdown(reports, SHAPES, COLOURS)
    print(text)
    if args.markdown:
        args.markdown.write_text(text, encoding="utf-8")
    faults = reports[0].faults()
    for fault in faults:
        print(f"the bar is missed: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
