"""`python -m baguette generate`: what it writes, what it refuses, how it is interrupted."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import baguette
from baguette.__main__ import main
from baguette.files import write_whole

Run = tuple[int, str, str]


@pytest.fixture
def run(tiny_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run the command in this process: (status, standard output, standard error)."""

    def command(*words: str) -> Run:
        out = str(tmp_path / "drawn.png")
        given = ["generate", "--model", str(tiny_dir), "--output", out, *words]
        try:
            status = main(given)
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        return status, *capfd.readouterr()

    return command


def test_the_picture_is_the_pipelines(run: Any, tiny_dir: Path, tmp_path: Path) -> None:
    record_file = tmp_path / "new" / "drawn.json"
    status, out, err = run("a cat", "--steps", "3", "--seed", "4", "--json", str(record_file))
    assert (status, err) == (0, "")
    record = json.loads(record_file.read_text(encoding="utf-8"))
    pipeline = baguette.load(tiny_dir)
    expected = pipeline(pipeline.request("a cat", steps=3, seed=4)).to_json()
    assert record["pixels_sha256"] == expected["images"][0]["pixels_sha256"]
    assert record["images"][0]["latent_sha256"] == expected["images"][0]["latent_sha256"]
    assert record["routing"] == json.loads(json.dumps(expected["routing"]))
    assert (record["seed"], record["steps"], record["threads"]) == (4, 3, 1)
    assert {"encode", "route", "experts", "advance", "decode", "total"} <= record["seconds"].keys()
    pixels = np.asarray(Image.open(tmp_path / "drawn.png"))
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == record["pixels_sha256"]
    assert record["pixels_sha256"] in out


def test_several_images_are_a_sheet_and_a_file_each(run: Any, tmp_path: Path) -> None:
    status, out, _ = run("a cat", "--n", "3", "--top-k", "full", "--steps", "2")
    assert status == 0
    names = ["drawn.png", "drawn_1.png", "drawn_2.png", "drawn_3.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert Image.open(tmp_path / names[0]).size == (24, 24)
    assert Image.open(tmp_path / names[1]).size == (12, 12)
    assert Image.open(tmp_path / names[3]).info["baguette:seed"] == "1001"
    assert out.count("pixels sha256") == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a", "--top-k", "4"], "--top-k got 4 but expected 1..3 or full"),
        (["a", "--top-k", "some"], "got 'some' but expected a whole number or full"),
        (["a", "--steps", "0"], "--steps got 0 but expected 1..250"),
        (["a", "--steps", "ten"], "got 'ten' but expected a whole number"),
        (["a", "--n", "65"], "--n got 65 but expected 1..64"),
        (["a", "--seed", "-1"], "--seed got -1 but expected 0.."),
        (["a", "--guidance-scale", "nan"], "--guidance-scale got nan but expected 1.0..30.0"),
        (["a", "--threads", "0"], "--threads got 0 but expected 1..256"),
        (["  "], "prompt is empty; say what to draw"),
        (["\udcff"], "prompt is not text in UTF-8"),
        (["a", "--negative-prompt", "x" * 2001], "--negative-prompt has 2001 characters"),
        (["a", "--output", "x.jpg"], "--output got 'x.jpg' but expected a name that ends in .png"),
        (["a", "--output", "/proc/x.png"], "--output '/proc/x.png' cannot be written"),
        (["a", "--json", "/proc"], "--json '/proc' cannot be written: it is a directory"),
        (["a", "--model", "/nowhere"], "--model names another directory"),
        (["a", "--colour"], "unrecognized arguments: --colour"),
        ([], "the following arguments are required: prompt"),
    ],
)
def test_a_bad_value_is_one_sentence(
    run: Any, tmp_path: Path, words: list[str], sentence: str
) -> None:
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_damaged_weights_are_one_sentence(
    run: Any, tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    broken = tmp_path_factory.mktemp("broken") / "model"
    for path in tiny_dir.rglob("*"):
        if path.is_file():
            copy = broken / path.relative_to(tiny_dir)
            copy.parent.mkdir(parents=True, exist_ok=True)
            cut = "text_encoder" in path.parts and path.suffix == ".safetensors"
            copy.write_bytes(path.read_bytes()[:40] if cut else path.read_bytes())
    status, _, err = run("a", "--model", str(broken))
    assert status == 2
    assert "text_encoder" in err
    assert err.count("\n") == 1


def test_without_a_command_it_says_where_to_look(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert capfd.readouterr().err.count("\n") == 1


def test_help_shows_examples(capfd: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["generate", "--help"]):
        with pytest.raises(SystemExit, match="0"):
            main(words)
        assert 'generate "a red circle on a blue background"' in capfd.readouterr().out


def test_nothing_is_left_when_the_second_file_fails(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"a file")
    with pytest.raises(OSError, match="b'"):
        write_whole({tmp_path / "a.png": b"1", tmp_path / "b" / "d.png": b"2"})
    assert [path.name for path in tmp_path.rglob("*")] == ["b"]


def test_an_interrupt_ends_it_and_leaves_no_file(tiny_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "drawn.png"
    words = ["a cat", "--model", str(tiny_dir), "--output", str(out), "--steps", "250"]
    process = subprocess.Popen(
        [sys.executable, "-m", "baguette", "generate", *words, "--n", "64"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while "safetensors" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT  # $? is 130
    assert err == "stopped; nothing was written\n"
    assert list(tmp_path.iterdir()) == []
