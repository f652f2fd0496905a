"""`python -m baguette COMMAND`: the package from a command line, without Erlang.

Called by people and by tests. A command is a module of `baguette.commands`; this file only picks
one and turns what it raises into a sentence and an exit status: 0 done, 1 failed or found bad
(check), 2 asked wrongly, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from baguette.commands import (
    benchmark,
    check,
    completion,
    generate,
    inspect,
    quantize,
    remote,
    top,
    weights,
)
from baguette.errors import (
    BadInput,
    BaguetteError,
    ClusterRefused,
    OutOfMemory,
    WeightsError,
    port_class,
)

EXAMPLES = """\
examples:
  python -m baguette generate "a red circle on a blue background"
  python -m baguette generate "a green star on a white background" --num_samples 4
  python -m baguette check weights/paris-mini
  python -m baguette remote generate "a red circle" --node http://127.0.0.2:8100
  python -m baguette generate --help
"""
FAILED, REFUSED, INTERRUPTED = 1, 2, 130


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence instead of printing its usage first."""

    def error(self, message: str) -> NoReturn:
        self.exit(REFUSED, f"{message}; `{self.prog} --help` lists what can be given\n")


def parser() -> Parser:
    """Every command and its options."""
    whole = Parser(
        prog="python -m baguette",
        description="Draws pictures in this one process, or asks a cluster, which draws the same "
        "ones. Checks what a node needs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    generate.add_to(commands)
    check.add_to(commands)
    inspect.add_to(commands)
    quantize.add_to(commands)
    weights.add_to(commands)
    benchmark.add_to(commands)
    remote.add_to(commands)
    top.add_to(commands)
    completion.add_to(commands, whole)
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    args = parser().parse_args(arguments)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return INTERRUPTED
    except (BaguetteError, OSError, MemoryError, RuntimeError) as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        print(sentence.replace("\n", " "), file=sys.stderr)
        return REFUSED if isinstance(error, BadInput) else FAILED


def _sentence(error: Exception) -> str | None:
    """What went wrong and what to do next; None for what is our own fault."""
    if isinstance(error, WeightsError):
        return f"{error}; --model names another directory, `make train-mini` makes one"
    if isinstance(error, BadInput):
        return f"{error}; --help lists what can be given"
    if isinstance(error, OutOfMemory | ClusterRefused):
        return str(error)
    if port_class(error) == OutOfMemory.name:
        return "memory ran out; ask for fewer images, or close other programs"
    if type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
        reason = str(error).strip().partition("\n")[0][:200]
        return f"the networks cannot be compiled here ({reason}); leave --compile out"
    if isinstance(error, OSError):
        return f"{error}; make room or give another place"
    if isinstance(error, BaguetteError):
        return f"{error}; try other options, or another model with --model"
    return None


def die_of_interrupt() -> None:
    """End as an interrupt ends programs: the shell sees 130, and a loop around us ends too."""
    sys.stderr.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    status = main()
    if status == INTERRUPTED:
        die_of_interrupt()
    sys.exit(status)
