"""`python -m baguette top`: nodes, experts, running pictures and events of a cluster, as they are.

Called by `baguette.__main__`, and by `make top`. Where standard output is no terminal the state is
printed once. What dies with it: the connection; the terminal is what it was before, however this
process is asked to end.
"""

from __future__ import annotations

import argparse
import curses
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from baguette.commands.drawn import say
from baguette.commands.remote import add_node, given_node
from baguette.commands.top_view import SORTS, STYLES, Seen, lines
from baguette.errors import BadInput
from baguette.remote.feed import Feed, look
from baguette.remote.node import Node

PLAIN_SIZE = (200, 500)
FIRST_SECONDS = 10.0
COLOURS = {
    "ready": curses.COLOR_GREEN, "degraded": curses.COLOR_YELLOW, "down": curses.COLOR_RED
}  # fmt: skip


def add_to(parsers: Any) -> None:
    """Add this command and its options."""
    parser = parsers.add_parser(
        "top",
        help="watch a cluster in the terminal",
        description="Watch a cluster in the terminal. Keys: s sorts the nodes by the next column "
        f"({', '.join(SORTS)}), q quits. Printed once where the output is no terminal.",
    )
    add_node(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Until q, or once."""
    node = given_node(args)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        say(sys.stdout, [text for text, _ in lines(first(node), PLAIN_SIZE)])
        return 0
    seen = first(node)  # what refuses us is a sentence, not a screen
    signal.signal(signal.SIGTERM, _leave)
    try:
        curses.wrapper(lambda screen: Screen(screen, node, seen).show())
    except curses.error as error:
        raise BadInput(
            f"TERM={os.environ.get('TERM', '')} cannot show this ({error}); `python -m baguette "
            "top | cat` prints it once"
        ) from None
    except KeyboardInterrupt:
        return 0  # another way to quit
    return 0


def _leave(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def first(node: Node) -> Seen:
    """The state as it is now."""
    seen, deadline = Seen(node.url), time.monotonic() + FIRST_SECONDS
    for name, value in look(node, threading.Event()):
        seen.take(name, value)
        if (seen.cluster and seen.events) or time.monotonic() > deadline:
            break
    return seen


class Screen:
    """The terminal while this command has it."""

    def __init__(self, screen: curses.window, node: Node, seen: Seen) -> None:
        self._screen = screen
        self._sorts = list(SORTS)
        self._seen = seen
        self._node = node
        self._styles = _styles()

    def show(self) -> None:
        """Draw whenever something was told, a key pressed or the window resized."""
        self._screen.nodelay(True)
        with _wakeup() as (woken, wake):
            feed = Feed(self._node, wake)
            feed.start()
            try:
                while self._keys():
                    while not feed.told.empty():
                        self._seen.take(*feed.told.get())
                    self._draw()
                    select.select([sys.stdin, woken], [], [])
                    _drain(woken)
            finally:
                feed.close()

    def _keys(self) -> bool:
        """Whether to go on after the keys that were pressed."""
        while (key := self._screen.getch()) != -1:
            if key == ord("q"):
                return False
            if key == ord("s"):
                self._sorts = [*self._sorts[1:], self._sorts[0]]
        return True

    def _draw(self) -> None:
        size = os.get_terminal_size(sys.stdout.fileno())
        if (size.lines, size.columns) != self._screen.getmaxyx():
            curses.resizeterm(size.lines, size.columns)
        height, width = self._screen.getmaxyx()
        self._screen.erase()
        # The last column is left free: a character there would scroll the last row.
        shown = lines(self._seen, (width - 1, height - 1), self._sorts[0])
        shown = [*shown, *[("", "plain")] * (height - 1 - len(shown))]
        footer = f"q quits, s sorts the nodes (now by {self._sorts[0]})"[: width - 1]
        for row, (text, style) in enumerate([*shown, (footer, "dim")]):
            self._screen.addstr(row, 0, text, self._styles[style])
        self._screen.refresh()


def _styles() -> dict[str, int]:
    """How each style looks here."""
    curses.curs_set(0)
    found = dict.fromkeys(STYLES, curses.A_NORMAL)
    found |= {"heading": curses.A_BOLD, "dim": curses.A_DIM}
    if curses.has_colors():
        curses.use_default_colors()
        for number, (style, colour) in enumerate(COLOURS.items(), 1):
            curses.init_pair(number, colour, -1)
            found[style] = curses.color_pair(number)
    return found


@contextmanager
def _wakeup() -> Iterator[tuple[int, Any]]:
    """A descriptor that is readable once woken, by the feed's thread or by a resized window."""
    woken, waking = os.pipe()
    os.set_blocking(waking, False)
    os.set_blocking(woken, False)

    def wake(*_: object) -> None:
        try:
            os.write(waking, b".")
        except BlockingIOError:
            return  # it is full: whoever reads it wakes anyway

    before = signal.signal(signal.SIGWINCH, wake)
    try:
        yield woken, wake
    finally:
        signal.signal(signal.SIGWINCH, before)
        # Left open: the feed's thread may wake us once more.


def _drain(woken: int) -> None:
    try:
        os.read(woken, 1 << 16)
    except BlockingIOError:
        return  # a key woke us
