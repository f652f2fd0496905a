"""The Baguette card's `python generate.py ...`: `python -m baguette generate`, and of clusters."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from scripts._root import ROOT, run


def connect(named: str) -> contextlib.AbstractContextManager[Any]:
    """The launcher knows how to reach a cluster; it is imported only where one is asked."""
    sys.path.insert(1, str(ROOT / "scripts"))
    from launcher import asking

    return asking.connect(named)


def know_clusters() -> None:
    """Give the package's command what it must not import itself."""
    from baguette.commands import on_cluster

    on_cluster.connect = connect


if __name__ == "__main__":
    run("generate", know_clusters)
