"""`python -m baguette inspect`: what a directory holds, told from headers, damage included."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from baguette import manifest
from baguette.__main__ import main
from baguette.families.paris.components import expected_shapes
from baguette.families.paris.config import ExpertConfig, RouterConfig
from baguette.families.paris.files import expert_file, router_file


@pytest.fixture
def model_dir(tiny_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_dir, tmp_path / "model"))


@pytest.fixture
def inspected(capsys: pytest.CaptureFixture[str]) -> Callable[[Path], tuple[int, dict[str, Any]]]:
    """Run the command with --json: (status, the object with components by name)."""

    def run(model_dir: Path) -> tuple[int, dict[str, Any]]:
        status = main(["inspect", str(model_dir), "--json"])
        found = json.loads(capsys.readouterr().out)
        return status, {**found, "components": {one["name"]: one for one in found["components"]}}

    return run


Inspected = Callable[[Path], tuple[int, dict[str, Any]]]


def test_a_whole_model_is_told_in_full(inspected: Inspected, model_dir: Path) -> None:
    status, found = inspected(model_dir)
    assert (status, found["whole"], found["faults"]) == (0, True, [])
    assert (found["name"], found["layouts"]) == ("paris-tiny", ["published"])
    assert list(found["components"]) == ["expert_0", "expert_1", "expert_2", "router"]
    one = found["components"]["expert_1"]
    tensors = load_file(expert_file(model_dir, 1))
    assert one["tensors"] == len(tensors)
    assert one["parameters"] == sum(tensor.numel() for tensor in tensors.values())
    assert one["dtypes"] == {"BF16": len(tensors)}
    assert one["bytes"] == expert_file(model_dir, 1).stat().st_size
    assert found["folders"] == {
        part: str(model_dir / part) for part in ("text_encoder", "tokenizer", "vae")
    }
    assert found["settings"]["grid"] == "flow_match"
    assert found["manifest"] == "none"


def test_int8_in_our_own_layout_has_the_same_parameters(
    inspected: Inspected, tiny_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["quantize", "--input", str(tiny_dir), "--output", str(tmp_path / "int8")])
    capsys.readouterr()
    before = inspected(tiny_dir)[1]["components"]["expert_0"]
    status, found = inspected(tmp_path / "int8")
    after = found["components"]["expert_0"]
    assert (status, found["layouts"]) == (0, ["baguette"])
    assert after["parameters"] == before["parameters"]
    assert after["tensors"] == before["tensors"] == 40
    assert after["scales"] == 17
    assert after["dtypes"] == {"BF16": 23, "F32": 17, "I8": 17}
    assert found["manifest"].endswith("sizes agree")


def test_every_kind_of_damage_is_told_and_nothing_else_is_lost(
    inspected: Inspected, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = load_file(expert_file(model_dir, 0))
    tensors.pop("text_proj.bias")
    tensors["surprise"] = torch.zeros(1)
    tensors["pos_embed"] = torch.zeros(1, 2, 3)
    save_file(tensors, expert_file(model_dir, 0))
    expert_file(model_dir, 1).write_bytes(pickle.dumps({"a": 1}))
    (model_dir / "expert_2" / "config.json").write_text("{")
    router_file(model_dir).unlink()
    shutil.rmtree(model_dir / "vae")
    status, found = inspected(model_dir)
    parts = found["components"]
    assert status == 1
    assert {name: part["state"] for name, part in parts.items()} == {
        "expert_0": "damaged", "expert_1": "damaged", "expert_2": "damaged", "router": "missing"
    }  # fmt: skip
    assert parts["expert_0"]["faults"] == {
        "missing keys": ["text_proj.bias"],
        "unexpected keys": ["surprise"],
        "wrong shapes": ["pos_embed: got (1, 2, 3) but expected (1, 9, 16)"],
    }
    assert "not a whole safetensors file" in parts["expert_1"]["faults"]["damaged"][0]
    assert "is not JSON" in parts["expert_2"]["faults"]["damaged"][0]
    assert parts["expert_2"]["dtypes"] == {"BF16": 40}
    assert found["folders"]["vae"] is None
    assert main(["inspect", str(model_dir)]) == 1
    out = capsys.readouterr().out
    assert "missing keys: text_proj.bias" in out
    assert "router    missing: router/pytorch_model.safetensors" in out
    assert f"{model_dir / 'vae'} is missing" in out


def test_files_of_another_length_than_the_manifest_says_are_told(
    inspected: Inspected, model_dir: Path
) -> None:
    manifest.write(model_dir)
    assert inspected(model_dir)[0] == 0
    (model_dir / "tokenizer" / "merges.txt").unlink()
    with (model_dir / "vae" / "config.json").open("a") as file:
        file.write(" ")
    status, found = inspected(model_dir)
    assert (status, found["manifest"].split(", ")[1]) == (1, "sizes differ")
    assert any("tokenizer/merges.txt: missing" in fault for fault in found["faults"])
    assert any("vae/config.json" in f and "bytes instead of" in f for f in found["faults"])


def test_no_model_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert (captured.out, len(captured.err.splitlines())) == ("", 1)


def header_only(path: Path, shapes: Any) -> None:
    """A sparse file: the header of bf16 tensors, and as many zeros as it promises."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def test_the_published_sizes_are_told_without_reading_gigabytes(
    inspected: Inspected, tmp_path: Path
) -> None:
    for number in range(8):
        header_only(tmp_path / f"expert_{number}.safetensors", expected_shapes(ExpertConfig()))
    header_only(tmp_path / "router.safetensors", expected_shapes(RouterConfig()))
    status, found = inspected(tmp_path)
    experts = [found["components"][f"expert_{number}"] for number in range(8)]
    assert {(one["parameters"], one["tensors"]) for one in experts} == {(605_970_448, 378)}
    router = found["components"]["router"]
    assert (router["parameters"], router["tensors"]) == (129_136_904, 134)
    assert {part["state"] for part in found["components"].values()} == {"whole"}
    assert (status, found["folders"]["vae"]) == (1, None)  # nothing to decode with
