"""Draw on the node that runs on this machine, and print the result as one line of JSON.

A program of its own, because a test's machine may be another network namespace than the test's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from launcher import member
from launcher.control import Control


def main() -> None:
    host, request = sys.argv[1], json.loads(sys.argv[2])
    here = member.running(host)
    assert here is not None, f"no node runs at {host}"
    with Control(here.target()) as control:
        control.connect(30.0)
        control.ask("generate", request=request, watch=False)
        print(json.dumps(control.answer("done")["result"]))


if __name__ == "__main__":
    main()
