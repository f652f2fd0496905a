"""What every script here does around its command: streams, exit status, errors of one sentence."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

from launcher.options import BadOption
from launcher.processes import Refused, no_file


def run(command: Callable[[], int]) -> int:
    """The command's exit status; 1 refused, 2 a bad option, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):  # a terminal without Unicode gets question marks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        status = command()
        sys.stdout.flush()
        return status
    except BadOption as error:
        print(error, file=sys.stderr)
        return 2
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read our output has gone; nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(no_file(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
