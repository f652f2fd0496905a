"""What a waiting person sees: one line written over on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time

BAR = 24
PLAIN_LINES = 10  # about how many lines a bar takes where there is no terminal
PLAIN_SECONDS = 15.0  # between two lines that only say that there is still something to wait for


class Progress:
    """One thing at a time; every phase ends by being told its result."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self.width = shutil.get_terminal_size((80, 24)).columns
        self._open = False
        self._shown: set[tuple[str, bool]] = set()
        self._begun = time.monotonic()
        self._said = 0.0

    def phase(self, text: str, k: int, n: int, stays: bool = False) -> None:
        """Show "text k/n"; shown again with another k, or once more with `stays` to keep it."""
        key = (f"{text} {k}/{n}", stays)
        if key not in self._shown:
            self._shown.add(key)
            if self.terminal or not stays:
                self._show(key[0], stays=stays or not self.terminal)

    def waiting(self, text: str) -> None:
        """Something that is not counted, with the seconds so far; plain lines are rarer."""
        seconds = time.monotonic() - self._begun
        if self.terminal or seconds - self._said >= PLAIN_SECONDS:
            self._said = seconds
            self._show(f"{text} ({seconds:.0f} s)", stays=not self.terminal)

    def bar(self, step: int, steps: int, text: str) -> None:
        """Show a bar with what is being done at this step."""
        full = BAR * step // max(steps, 1)
        line = f"{'█' * full}{'░' * (BAR - full)} step {step}/{steps}  {text}"
        every = max(steps // PLAIN_LINES, 1)
        if self.terminal or step % every == 0 or step == steps:
            self._show(line, stays=not self.terminal)

    def line(self, text: str) -> None:
        """A line that stays."""
        self._show(text, stays=True)

    def close(self) -> None:
        """Leave the cursor on a line of its own."""
        if self._open:
            print(flush=True)
            self._open = False

    def _show(self, text: str, stays: bool) -> None:
        if self.terminal:
            shown = text if stays else text[: self.width - 1]
            print(f"\r\x1b[K{shown}", end="\n" if stays else "", flush=True)
        else:
            print(text, flush=True)
        self._open = self.terminal and not stays
