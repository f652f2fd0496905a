"""What a person watches while pictures are drawn: a bar, and where there are some, previews.

Called by `commands.generate`, `on_cluster` and the remote commands. Only on a terminal; elsewhere
the lines that say something are plain, and nothing moves.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from baguette.commands.preview import BadPicture, Colours, beside, half_blocks

Progress = Callable[[int, int, Sequence[Sequence[int]]], None]
SIDE = 32  # columns of a preview


class Bar:
    """A bar of steps with the experts asked, called with each step; previews stand above it."""

    def __init__(self, shown: Any, colours: Colours | None) -> None:
        self._shown = shown
        self._colours = colours
        self._pictures: dict[int, list[str]] = {}
        self._height = 0

    def __call__(self, step: int, total: int, experts: Sequence[Sequence[int]]) -> None:
        asked = sorted({expert for image in experts for expert in image})
        self._shown.total = total
        self.note("asking " + " ".join(f"E{e}" for e in asked))
        self._shown.update(step - self._shown.n)

    def note(self, text: str) -> None:
        """A few words beside the bar."""
        self._shown.set_postfix_str(text)

    def say(self, text: str) -> None:
        """A line that stays, above everything that moves."""
        self._erase()
        print(text, file=sys.stderr, flush=True)
        self._draw()

    def preview(self, image: int, png: bytes) -> None:
        """Image number `image` as it looks by now."""
        if self._colours is None:
            return
        try:
            picture = half_blocks(png, SIDE, self._colours)
        except BadPicture as error:
            self._colours = None
            self.say(f"warning: {error}; no more previews")
            return
        self._erase()
        self._pictures[image] = picture
        self._draw()

    def close(self) -> None:
        """Nothing that moved stays."""
        self._erase()
        self._pictures = {}

    def _erase(self) -> None:
        self._shown.clear()
        if self._height:
            print(f"\x1b[{self._height}A\r\x1b[J", end="", file=sys.stderr, flush=True)
        self._height = 0

    def _draw(self) -> None:
        """What does not fit the terminal is left out: lines that scrolled away cannot be erased."""
        width, height = shutil.get_terminal_size((80, 24))
        shown = [lines for _, lines in sorted(self._pictures.items())][: max(width // SIDE, 1)]
        lines = beside(shown) if width > SIDE and height > SIDE // 2 + 2 else []
        for line in lines:
            print(line, file=sys.stderr)
        self._height = len(lines)
        self._shown.refresh()


@contextlib.contextmanager
def bar(name: str, steps: int | None, colours: Colours | None = None) -> Iterator[Bar]:
    """A bar on standard error, only where it is a terminal; previews only with `colours`."""
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    with tqdm(total=steps, desc=name, disable=not terminal, leave=False) as shown:
        drawn = Bar(shown, colours if terminal else None)
        try:
            yield drawn
            shown.update((shown.total or 0) - shown.n)
        finally:
            drawn.close()
