"""Cutting the network between machines of `machines.network`, silently: no reset, no refusal.

A cut makes what one machine sends to another go to an address on the switch that nobody has, so
packets vanish as they do behind a broken router. It needs nothing but `ip`, works for any pair, in
one direction or both, and leaves everybody else alone.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import subprocess
import threading
from collections.abc import Iterator, Sequence

from machines import Machine

NOBODY = "02:00:00:00:00:00"


def cut(one: Machine, two: Machine) -> None:
    """Nothing passes between the two any more."""
    cut_one_way(one, two)
    cut_one_way(two, one)


def cut_one_way(sender: Machine, receiver: Machine) -> None:
    """What the first sends does not arrive; what the second sends does."""
    _neighbour("replace", sender, receiver, "lladdr", NOBODY, "nud", "permanent")


def heal(one: Machine, two: Machine) -> None:
    """Packets pass again."""
    for sender, receiver in ((one, two), (two, one)):
        _neighbour("del", sender, receiver, check=False)


def part(half: Sequence[Machine], other: Sequence[Machine]) -> None:
    """A partition: nobody of one half reaches anybody of the other."""
    for one, two in itertools.product(half, other):
        cut(one, two)


def join(half: Sequence[Machine], other: Sequence[Machine]) -> None:
    """The end of a partition."""
    for one, two in itertools.product(half, other):
        heal(one, two)


def pull(machine: Machine, out: bool = True) -> None:
    """The machine's cable, at its end of the switch: out, or back in."""
    command = ["ip", "-n", machine.switch, "link", "set", f"{machine.cable}x"]
    subprocess.run([*command, "down" if out else "up"], check=True, capture_output=True)


@contextlib.contextmanager
def flapping(one: Machine, two: Machine, seed: int) -> Iterator[None]:
    """A link that comes and goes every 300 to 700 ms while inside; healed afterwards."""
    times, over = random.Random(seed), threading.Event()

    def flap() -> None:
        for change in itertools.cycle((cut, heal)):
            change(one, two)
            if over.wait(times.uniform(0.3, 0.7)):
                return

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        heal(one, two)


def _neighbour(
    verb: str, sender: Machine, receiver: Machine, *how: str, check: bool = True
) -> None:
    assert sender.namespace is not None
    command = ["ip", "-n", sender.namespace, "neigh", verb, receiver.lan, *how]
    subprocess.run([*command, "dev", sender.cable], check=check, capture_output=True)
