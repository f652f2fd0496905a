"""This machine as one node of a cluster: doctor, join, leave, invite.

Called by the Makefile. Values come as environment variables:

    PEERS    other machines, host1,host2; without it they are found on the tailnet
    ADDRESS  this machine's address (the tailnet's; with PEERS the one towards the first of them)
    PORT     distribution port, the same on all machines (9100)
    MODEL    model directory (weights/paris where it is there, else weights/paris-mini)
    SECRET   - reads the cluster's secret from standard input, new makes another one
    SECRET_FILE  where the secret lies (~/.config/baguette/secret)
    TAILSCALE    the tailscale command (tailscale)
    FOREGROUND   1: stay, as a service manager wants it
"""

from __future__ import annotations

import argparse

from launcher import joining
from launcher.command_line import run
from launcher.join_options import from_environment

EXAMPLES = """examples:
  .venv/bin/python scripts/%(prog)s doctor
  .venv/bin/python scripts/%(prog)s join
  PEERS=192.168.1.20,192.168.1.21 .venv/bin/python scripts/%(prog)s join
"""


def main() -> int:
    """Run one command; its exit status is ours."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "command",
        choices=[*sorted(joining.COMMANDS), "keep"],
        metavar="COMMAND",
        help=", ".join(joining.COMMANDS),
    )
    parser.add_argument("host", nargs="?", help=argparse.SUPPRESS)  # of keep: whose keeper
    args = parser.parse_args()
    if args.command == "keep":
        return run(lambda: joining.keep(args.host or ""))
    if args.host is not None:
        parser.error(f"{args.command} takes no argument; values come as environment variables")
    return run(lambda: joining.COMMANDS[args.command](from_environment(args.command)))


if __name__ == "__main__":
    raise SystemExit(main())
