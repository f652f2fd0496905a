"""The bar a person watches while pictures are drawn. Called by `commands.generate`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

Progress = Callable[[int, int, Sequence[Sequence[int]]], None]


@contextlib.contextmanager
def bar(name: str, steps: int | None) -> Iterator[Progress]:
    """A bar of steps with the experts asked, on standard error, only where it is a terminal."""
    from tqdm import tqdm

    with tqdm(total=steps, desc=name, disable=not sys.stderr.isatty(), leave=False) as shown:

        def show(step: int, total: int, experts: Sequence[Sequence[int]]) -> None:
            asked = sorted({expert for image in experts for expert in image})
            shown.total = total
            shown.set_postfix_str("asking " + " ".join(f"E{e}" for e in asked), refresh=False)
            shown.update(step - shown.n)

        yield show
        shown.update((shown.total or 0) - shown.n)
