"""What the judge found, counted: the bar of paris-mini and its tables. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from baguette.shapes.judge import Verdict

Combination = tuple[int, int, int]
ALL_RIGHT = 0.95
EACH_RIGHT = 0.85
LEAST_USED = 0.03


@dataclass(frozen=True)
class Report:
    """One variant's pictures: how many, how many right in all and each part, and who was asked."""

    name: str
    pairs: list[tuple[Combination, Verdict]]
    calls: list[int]
    seconds: float
    right: list[bool] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        name: str,
        asked: Sequence[Combination],
        verdicts: Sequence[Verdict],
        calls: list[int],
        seconds: float,
    ) -> Report:
        pairs = list(zip(asked, verdicts, strict=True))
        return cls(name, pairs, calls, seconds, [v.combination == a for a, v in pairs])

    @property
    def accuracy(self) -> float:
        return sum(self.right) / len(self.right)

    def part_right(self, part: int) -> float:
        """How often shape (0), colour (1) or background (2) alone is right."""
        return sum(v.combination[part] == a[part] for a, v in self.pairs) / len(self.pairs)

    def by(self, *parts: int) -> dict[tuple[int, ...], float]:
        """The share all right, by the asked values of these parts."""
        hits: defaultdict[tuple[int, ...], list[bool]] = defaultdict(list)
        for (asked, _), right in zip(self.pairs, self.right, strict=True):
            hits[tuple(asked[part] for part in parts)].append(right)
        return {key: sum(found) / len(found) for key, found in sorted(hits.items())}

    def usage(self) -> list[float]:
        """Each expert's share of the calls."""
        return [calls / sum(self.calls) for calls in self.calls]

    def faults(self) -> list[str]:
        """Why the bar is missed, empty when it is passed."""
        worst_shape, worst_colour = min(self.by(0).values()), min(self.by(1).values())
        worst_background, never = min(self.by(2).values()), min(self.by(0, 1, 2).values())
        checks = [
            (self.accuracy, ALL_RIGHT, "of all pictures right"),
            (worst_shape, EACH_RIGHT, "of one shape's pictures right"),
            (worst_colour, EACH_RIGHT, "of one colour's pictures right"),
            (worst_background, EACH_RIGHT, "of one background's pictures right"),
            (min(self.usage()), LEAST_USED, "of the calls went to one expert"),
        ]
        found = [f"{got:.1%} {what}, wanted {bar:.0%}" for got, bar, what in checks if got < bar]
        return found + (["a combination was never right"] if never == 0 else [])


def markdown(reports: Sequence[Report], shapes: Sequence[str], colours: Sequence[str]) -> str:
    """The tables of the weights' README; the first report is the bar's."""
    main = reports[0]
    lines = [
        "| asked | all right | shape | colour | background | least used expert | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in reports:
        parts = " | ".join(f"{r.part_right(part):.1%}" for part in range(3))
        least = f"{min(r.usage()):.1%}"
        lines.append(f"| {r.name} | {r.accuracy:.1%} | {parts} | {least} | {r.seconds:.0f} |")
    lines += ["", f"{main.name}: {sum(main.right)} of {len(main.right)} pictures right.", ""]
    lines += _shares("shape", [(shapes[k[0]], v) for k, v in main.by(0).items()])
    lines += _shares("colour", [(colours[k[0]], v) for k, v in main.by(1).items()])
    lines += _shares("background", [(colours[k[0]], v) for k, v in main.by(2).items()])
    lines += _shares("expert, share of calls", list(_numbered(main.usage())))
    lines += ["Shapes asked (rows) and seen (columns):", "", *_confusion(main, shapes)]
    return "\n".join(lines) + "\n"


def _numbered(shares: Sequence[float]) -> list[tuple[str, float]]:
    return [(str(i), share) for i, share in enumerate(shares)]


def _shares(title: str, shares: Sequence[tuple[str, float]]) -> list[str]:
    names = " | ".join(name for name, _ in shares)
    values = " | ".join(f"{value:.1%}" for _, value in shares)
    return [f"| {title} | {names} |", "|---" * (len(shares) + 1) + "|", f"| | {values} |", ""]


def _confusion(report: Report, shapes: Sequence[str]) -> list[str]:
    seen = [*(str(i) for i in range(len(shapes))), "blank", "other colours", "no shape"]
    counts = Counter((a[0], v.fault or str(v.shape)) for a, v in report.pairs)
    header = [*shapes, *seen[len(shapes) :]]
    lines = ["| | " + " | ".join(header) + " |", "|---" * (len(header) + 1) + "|"]
    for i, shape in enumerate(shapes):
        lines.append(f"| {shape} | " + " | ".join(str(counts[i, s]) for s in seen) + " |")
    return lines
