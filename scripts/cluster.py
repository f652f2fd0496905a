"""A Baguette cluster on this machine: N Erlang nodes on 127.0.0.2, 127.0.0.3 and so on.

Called by the Makefile. Values come as environment variables, so that a prompt may hold anything
and is on no command line:

    PROMPT  what to draw (the model's example)      NODES  how many nodes (one per expert)
    N       images                                  PORT   distribution port (9100)
    STEPS   denoising steps                         MODEL  model directory (weights/paris-mini)
    GUIDANCE  guidance scale                        OUT    picture (out/demo.png)
    TOPK    experts per step, or full               SEED   seed of the first image
    ADDRESS  which joined node to speak with (status, events, shell), where there are several
    ID      of events: the generation whose story is told, or the first letters of its id
    NAME    of token: who is to have it, 1 to 32 of a-z, 0-9 and - (default)
"""

from __future__ import annotations

import argparse
import os
import sys

from launcher import commands
from launcher.command_line import run
from launcher.options import Options

EXAMPLES = """examples:
  PROMPT="a red circle on a blue background" SEED=7 .venv/bin/python scripts/%(prog)s demo
  NODES=3 PORT=9200 .venv/bin/python scripts/%(prog)s up
  PORT=9200 .venv/bin/python scripts/%(prog)s status
  NAME=phone .venv/bin/python scripts/%(prog)s token
  ID=1f0c .venv/bin/python scripts/%(prog)s events
"""


def main() -> int:
    """Run one command; its exit status is ours."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "command",
        choices=sorted(commands.COMMANDS),
        metavar="COMMAND",
        help=", ".join(commands.COMMANDS),
    )
    command = commands.COMMANDS[parser.parse_args().command]
    return run(lambda: command(Options.read(os.environ)))


if __name__ == "__main__":
    sys.exit(main())
