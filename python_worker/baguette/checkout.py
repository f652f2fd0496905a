"""Where the repository that this package lies in is: models and running clusters are found there.

Read by `commands.model_dir` and `remote.place`. Imports nothing of ours.
"""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
