"""`python -m baguette generate`: what it writes, what is in it, how it is interrupted.

What it refuses is in test_generate_refusals.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
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
from baguette.checkout import REPOSITORY
from baguette.commands.flags import SAMPLES
from baguette.commands.model_dir import MINI, default_model
from baguette.files import write_whole

ROOT = Path(__file__).resolve().parents[2]


def pixels_sha256(path: Path) -> str:
    return hashlib.sha256(np.asarray(Image.open(path)).tobytes()).hexdigest()


def test_the_deterministic_picture_is_the_references(
    run: Any, tiny_dir: Path, tmp_path: Path
) -> None:
    record_file = tmp_path / "new" / "drawn.json"
    given = ["--num_samples", "1", "--num_steps", "3", "--seed", "4", "--deterministic"]
    status, _, err = run("a cat", *given, "--json", str(record_file))
    assert (status, err) == (0, "warning: --num_steps 3 is outside the usual 15-50\n")
    record = json.loads(record_file.read_text(encoding="utf-8"))
    pipeline = baguette.load(tiny_dir)
    expected = pipeline(pipeline.request("a cat", steps=3, seed=4)).to_json()
    assert record["pixels_sha256"] == expected["images"][0]["pixels_sha256"]
    assert record["images"][0]["latent_sha256"] == expected["images"][0]["latent_sha256"]
    assert record["routing"] == json.loads(json.dumps(expected["routing"]))
    assert (record["seed"], record["steps"], record["threads"]) == (4, 3, 1)
    assert (record["precision"], record["deterministic"]) == ("fp32", True)
    assert {"encode", "route", "experts", "advance", "decode", "total"} <= record["seconds"].keys()
    assert pixels_sha256(tmp_path / "drawn.png") == record["pixels_sha256"]


def test_a_picture_says_how_many_velocities_it_used_again(run: Any, tmp_path: Path) -> None:
    given = ["--num_samples", "1", "--num_steps", "5", "--topk", "full", "--cache", "10"]
    status, out, _ = run("a cat", *given, "--json", "-")
    record = json.loads(out)
    assert (status, record["cache"], record["deterministic"]) == (0, 10.0, False)
    assert [line.get("reused", False) for line in record["routing"][0]] == [0, 1, 1, 1, 0]
    assert record["images"][0]["reused"] == 9
    texts = Image.open(tmp_path / "drawn.png").text
    assert (texts["baguette:cache"], texts["baguette:reused"]) == ("10.0", "9")


def test_several_images_are_one_grid(run: Any, tmp_path: Path) -> None:
    status, out, _ = run("a cat", "--num-samples", "3", "--topk", "full", "--num-steps", "2")
    assert status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["drawn.png"]
    grid = Image.open(tmp_path / "drawn.png")
    assert grid.size == (24, 24)
    assert grid.info["baguette:seed"] == "999"
    assert (grid.info["baguette:num_samples"], grid.info["baguette:experts"]) == ("3", "0 1 2")
    assert re.search(r"drawn\.png: 3 images in \d+\.\d s, \d+\.\d\d images/s\n$", out)


def test_separate_images_have_their_own_seeds_and_no_grid(run: Any, tmp_path: Path) -> None:
    status, out, _ = run(
        "a cat", "--num_samples", "2", "--num_steps", "1", "--separate", "--json", "-"
    )
    assert status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawn_1.png", "drawn_2.png"]
    infos = [Image.open(tmp_path / f"drawn_{i}.png").info for i in (1, 2)]
    assert [info["baguette:seed"] for info in infos] == ["999", "1000"]
    images = json.loads(out)["images"]
    assert [pixels_sha256(Path(image["file"])) for image in images] == [
        image["pixels_sha256"] for image in images
    ]


def test_the_defaults_are_the_cards(
    tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "--model", str(tiny_dir), "--threads", "1", "--json", "-"]) == 0
    record = json.loads(capfd.readouterr().out)
    assert (record["prompt"], record["n"], record["seed"]) == ("a tiny test", SAMPLES, 999)
    assert (record["out"], record["precision"]) == ("output_bf16.png", "bf16")
    assert Image.open(tmp_path / "output_bf16.png").size == (48, 48)


def test_the_png_says_how_it_was_drawn_and_not_what(run: Any, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.png"
    given = ["--num_samples", "1", "--num_steps", "2", "--cfg_scale", "6", "--precision", "fp32"]
    run("a secret cat", *given)
    first, info = drawn.read_bytes(), Image.open(drawn).info
    assert b"secret" not in first
    assert re.fullmatch("[0-9a-f]{16}", info.pop("baguette:revision"))
    assert re.fullmatch("[0-2]( [0-2])*", info.pop("baguette:experts"))
    assert {name: text for name, text in info.items() if name.startswith("baguette:")} == {
        "baguette:guidance_scale": "6.0",
        "baguette:model": "paris-tiny",
        "baguette:precision": "fp32",
        "baguette:seed": "999",
        "baguette:steps": "2",
        "baguette:top_k": "2",
    }
    run("a secret cat", *given)
    assert drawn.read_bytes() == first
    run("a secret cat ☕", *given, "--embed_prompt", "--negative_prompt", "grey")
    embedded = Image.open(drawn).info
    assert embedded["baguette:prompt"] == "a secret cat ☕"
    assert embedded["baguette:negative_prompt"] == "grey"


def test_the_revision_is_that_of_the_files(run: Any, damaged: Any, tmp_path: Path) -> None:
    def revision(*more: str) -> str:
        assert run("a", "--num_samples", "1", "--num_steps", "1", *more)[0] == 0
        return str(Image.open(tmp_path / "drawn.png").info["baguette:revision"])

    other = damaged("expert_1/config.json", lambda content: content + b" ")
    assert revision() == revision() != revision("--model", str(other))


def test_a_file_of_prompts_is_one_grid_with_a_prompt_a_row(run: Any, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_bytes("\ufeffa cat\r\n\n# a dog\nça\n".encode())
    given = ["--prompts_file", str(prompts), "--num_steps", "1", "--json", "-"]
    status, out, err = run(*given)
    images = json.loads(out)["images"]
    assert (status, [image["prompt"] for image in images]) == (0, ["a cat", "# a dog", "ça"])
    assert {image["seed"] for image in images} == {999}
    assert "Drawing 3 prompts" in err
    status, out, _ = run(*given, "--num_samples", "2")
    assert Image.open(tmp_path / "drawn.png").size == (2 * 12, 3 * 12)
    assert [image["seed"] for image in json.loads(out)["images"]] == [999, 1000] * 3


def test_the_routing_is_printed_only_when_asked_for(run: Any) -> None:
    short = ["a cat", "--num_samples", "4", "--num_steps", "5"]
    assert "EXPERT USAGE" not in run(*short)[1]
    status, out, _ = run(*short, "--visualize", "--image", "3")
    assert status == 0
    assert "/3 experts, Calls: 40 " in out  # images x steps x K
    assert "/4 steps (" in out
    assert "the timeline is that of image 3" in out
    assert "\x1b" not in out


def test_with_json_on_standard_output_the_rest_goes_elsewhere(run: Any) -> None:
    status, out, err = run("a", "--num_steps", "2", "--json", "--visualize")
    assert status == 0
    assert json.loads(out)["steps"] == 2
    assert "EXPERT USAGE" in err


def test_weights_that_are_quantised_while_loading_are_said_to_be(run: Any, tiny_dir: Path) -> None:
    short = ["a", "--num_samples", "1", "--num_steps", "1", "--precision"]
    status, out, _ = run(*short, "int8")
    assert status == 0
    assert f"quantising while loading: {tiny_dir} is not kept as int8" in out
    assert "quantising" not in run(*short, "bf16")[1]


def test_files_of_int8_are_loaded_as_they_lie(run: Any, tiny_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "paris").symlink_to(tiny_dir)  # the other parts are taken from beside
    kept = tmp_path / "int8"
    words = ["quantize", "--input", str(tiny_dir), "--output", str(kept), "--format", "int8"]
    assert main(words) == 0
    status, out, _ = run(
        "a", "--num_samples", "1", "--num_steps", "1", "--precision", "int8", "--model", str(kept)
    )
    assert status == 0
    assert "quantising" not in out


def test_the_figure_goes_to_its_file(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "routing.png"
    status, out, _ = run("a", "--num_samples", "1", "--num_steps", "3", "--visualize", str(file))
    assert status == 0
    assert "EXPERT USAGE" not in out
    assert str(file) in out
    assert Image.open(file).size[0] > 600


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (["--num_steps", "5"], ["--num_steps 5 is outside the usual 15-50"]),
        (["--num_steps", "51"], ["--num_steps 51 is outside the usual 15-50"]),
        (["--num_steps", "15", "--cfg_scale", "5"], []),
        (["--cfg_scale", "4.5"], ["--cfg_scale 4.5 is outside the usual 5-12"]),
        (["--cfg_scale", "2", "--num_steps", "6"], []),  # what this model itself proposes
    ],
)
def test_unusual_values_are_warned_of_unless_the_model_proposes_them(
    run: Any, words: list[str], warned: list[str]
) -> None:
    status, _, err = run("a", "--num_samples", "1", *words)
    assert status == 0
    assert err.splitlines() == [f"warning: {text}" for text in warned]


def test_a_model_is_looked_for_in_the_repository_then_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("baguette.commands.model_dir.REPOSITORY", tmp_path / "repository")
    (tmp_path / MINI).mkdir(parents=True)
    assert default_model() == tmp_path / MINI
    for precision in ("bf16", "int8"):
        (tmp_path / "repository" / "weights" / precision).mkdir(parents=True)
        assert default_model(precision) == tmp_path / "repository" / "weights" / precision
    assert default_model("fp32") == tmp_path / "repository" / "weights" / "bf16"
    (tmp_path / "weights" / "paris").mkdir()
    assert default_model("int8") == tmp_path / "weights" / "paris"
    assert (REPOSITORY / "python_worker").is_dir()


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
    words = ["--prompt", "a cat", "--model", str(tiny_dir), "--num_steps", "250"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "generate.py"), *words, "--num_samples", "64"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    while "safetensors" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT  # $? is 130
    assert err.endswith("stopped; nothing was written\n")
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
