"""`python -m baguette check`: what a doctor asks, as lines and as JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from baguette import manifest
from baguette.__main__ import main
from baguette.commands import check
from baguette.families.paris.files import expert_file
from baguette.machine import Gpu, Gpus, TorchBuild

ONE_GPU = Gpus((Gpu("A GPU", 24000, 23000),), "600.1", "")


@pytest.fixture
def model_dir(tiny_dir: Path, tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(tiny_dir, tmp_path / "model"))
    manifest.write(copy)
    return copy


@pytest.fixture
def checks(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command: (status, name -> [checks])."""

    def run(model_dir: Path) -> tuple[int, dict[str, list[dict[str, str]]]]:
        status = main(["check", str(model_dir), "--json"])
        found: dict[str, list[dict[str, str]]] = {}
        for one in json.loads(capsys.readouterr().out)["checks"]:
            assert list(one) == ["name", "state", "text", "todo"]
            found.setdefault(one["name"], []).append(one)
        return status, found

    return run


def states(found: dict[str, list[dict[str, str]]], name: str) -> list[str]:
    return [one["state"] for one in found[name]]


def test_a_whole_model_is_ok(checks: Any, model_dir: Path) -> None:
    status, found = checks(model_dir)
    assert status == 0
    assert list(found) == [
        "python", "torch", "device", "gpu", "model", "experts", "manifest", "disk"
    ]  # fmt: skip
    assert all(not one["todo"] for one in found["manifest"] + found["model"])


def test_every_wrong_file_is_named_with_what_to_do(checks: Any, model_dir: Path) -> None:
    path = expert_file(model_dir, 1)
    path.write_bytes(path.read_bytes()[:-1])
    (model_dir / "vae" / "config.json").write_text("{}")
    (model_dir / "tokenizer" / "merges.txt").unlink()
    status, found = checks(model_dir)
    assert status == 1
    wrong = {one["text"].split(":")[0]: one for one in found["manifest"]}
    assert sorted(wrong) == [
        "expert_1/diffusion_pytorch_model.safetensors", "tokenizer/merges.txt", "vae/config.json"
    ]  # fmt: skip
    assert all(one["state"] == "bad" and one["todo"] for one in wrong.values())


def test_a_root_config_changed_by_hand_is_a_warning(checks: Any, model_dir: Path) -> None:
    path = model_dir / "config.json"
    path.write_text(path.read_text() + "\n")
    status, found = checks(model_dir)
    assert (status, states(found, "manifest")) == (0, ["warn"])


def test_no_manifest_is_a_warning(checks: Any, model_dir: Path) -> None:
    (model_dir / manifest.NAME).unlink()
    status, found = checks(model_dir)
    assert (status, states(found, "manifest")) == (0, ["warn"])


def test_a_damaged_manifest_is_bad(checks: Any, model_dir: Path) -> None:
    (model_dir / manifest.NAME).write_text("{")
    status, found = checks(model_dir)
    assert (status, states(found, "manifest")) == (1, ["bad"])


def test_experts_alone_are_enough_to_hold_and_not_to_serve(checks: Any, model_dir: Path) -> None:
    for part in ("vae", "text_encoder", "tokenizer", "router", "expert_0"):
        shutil.rmtree(model_dir / part)
    status, found = checks(model_dir)
    assert (status, states(found, "model")) == (0, ["warn"])
    assert found["experts"][0]["text"] == "2 of 3 experts on this disk: 1, 2"


def test_a_directory_without_a_model_is_bad(checks: Any, tmp_path: Path) -> None:
    status, found = checks(tmp_path / "nowhere")
    assert (status, states(found, "model")) == (1, ["bad"])
    assert states(found, "disk") == ["ok"]


def test_lines_say_the_state_first(model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expert_file(model_dir, 0).write_bytes(b"")
    assert main(["check", str(model_dir)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ok    python")
    assert any(line.startswith("bad   manifest  expert_0/") and " -> " in line for line in lines)


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    assert "python -m baguette check weights/paris" in capsys.readouterr().out


def test_a_gpu_that_torch_cannot_use_is_a_warning() -> None:
    cpu, cuda = TorchBuild("2.13.0+cpu", None), TorchBuild("2.13.0", "13.0")
    assert check.gpu(cpu, ONE_GPU).state == "warn"
    assert check.gpu(cuda, ONE_GPU).state == "ok"
    assert check.gpu(cpu, Gpus((), None, "no driver")).state == "ok"
    assert check.torch_installed(TorchBuild(None, None)).state == "bad"
