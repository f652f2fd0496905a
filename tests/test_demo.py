"""`make demo` as another program sees it: the picture, and out/demo.json to hold it to."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agreement import reference, same
from baguette.pipeline import Pipeline
from live import TAG, free_port, launcher, leftovers

PARTS = ("encode", "route", "experts", "advance", "decode", "total")


@pytest.fixture
def tag(monkeypatch: pytest.MonkeyPatch) -> str:
    tag = uuid.uuid4().hex
    monkeypatch.setenv(TAG, tag)
    return tag


def test_the_record_says_how_the_picture_came_about(
    tag: str, three: Path, tmp_path: Path, reference_three: Pipeline
) -> None:
    prompt = 'it\'s "a" $HOME `id` \\ 100%\nüñ🥖'
    out = tmp_path / "drawn.png"
    given = {"PROMPT": prompt, "N": "2", "STEPS": "4", "SEED": "7", "TOPK": "2", "GUIDANCE": "2.5"}
    demo = launcher(
        tmp_path / "run", "demo",
        MODEL=str(three), NODES="3", PORT=str(free_port(3)), OUT=str(out), **given,
    )  # fmt: skip
    said, _ = demo.communicate(timeout=180)
    assert demo.returncode == 0, said
    record = json.loads((tmp_path / "run" / "demo.json").read_text(encoding="utf-8"))
    wanted = {"prompt": prompt, "n": 2, "steps": 4, "seed": 7, "top_k": 2, "guidance_scale": 2.5}
    assert {name: record[name] for name in wanted} == wanted
    same(record, reference(reference_three, wanted))
    for image in record["routing"]:
        assert len(image) == 4
        for step in image:
            assert len(step["experts"]) == 2
            assert math.isclose(sum(step["weights"]), 1.0, abs_tol=1e-6)
    assert set(PARTS) <= record["seconds"].keys()
    assert all(record["seconds"][part] >= 0 for part in PARTS)
    assert record["pixels_sha256"] == record["images"][0]["pixels_sha256"]
    for image in record["images"]:
        pixels = np.asarray(Image.open(image["file"]))
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == image["pixels_sha256"]
        assert image["pixels_sha256"] in said
    assert out.is_file()
    assert leftovers(tag) == []
