"""A file that differs from its manifest is named, never announced and never loaded."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from baguette import manifest
from baguette.errors import WeightsError
from baguette.families.paris.files import inventory, survey
from baguette.families.paris.requester import Requester
from baguette.manifest import Manifest
from baguette.pipeline import Pipeline
from baguette.worker import expert_entry
from baguette.worker.payload import pack, unpack

WEIGHTS = "expert_1/diffusion_pytorch_model.safetensors"


@pytest.fixture
def model_dir(tiny_dir: Path, tmp_path: Path) -> Path:
    """A tiny model with a manifest."""
    copy = Path(shutil.copytree(tiny_dir, tmp_path / "model"))
    manifest.write(copy)
    return copy


def corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def call(function: Any, **values: Any) -> dict[str, Any]:
    return unpack(function(pack(values)))


def test_a_whole_directory_has_no_faults(model_dir: Path) -> None:
    found, refused = survey(model_dir)
    assert ([file.number for file in found], refused) == ([0, 1, 2], [])
    assert Requester(model_dir).config.num_experts == 3


def test_one_wrong_byte_is_a_wrong_hash(model_dir: Path) -> None:
    corrupt(model_dir / WEIGHTS)
    found, refused = survey(model_dir)
    assert [file.number for file in found] == [0, 2]
    assert [vars(one) for one in refused] == [
        {"name": "paris-tiny/expert-1", "file": WEIGHTS, "why": "wrong hash"}
    ]


def test_a_truncated_file_says_its_size(model_dir: Path) -> None:
    size = (model_dir / WEIGHTS).stat().st_size
    cut(model_dir / WEIGHTS)
    (one,) = survey(model_dir)[1]
    assert one.why == f"wrong hash: {size - 100} bytes instead of {size}"


def test_a_changed_config_of_an_expert_refuses_it(model_dir: Path) -> None:
    path = model_dir / "expert_2" / "config.json"
    path.write_text(path.read_text() + "\n")
    assert [(one.file, one.why[:10]) for one in survey(model_dir)[1]] == [
        ("expert_2/config.json", "wrong hash")
    ]


def test_an_expert_without_its_config_is_refused_alone(model_dir: Path) -> None:
    (model_dir / manifest.NAME).unlink()
    (model_dir / "expert_0" / "config.json").unlink()
    found, (one,) = survey(model_dir)
    assert [file.number for file in found] == [1, 2]
    assert (one.file, one.why) == ("expert_0/config.json", "missing")


def test_what_the_manifest_does_not_list_is_refused(model_dir: Path) -> None:
    path = model_dir / manifest.NAME
    values = json.loads(path.read_text())
    del values["files"][WEIGHTS]
    path.write_text(json.dumps(values))
    assert [one.why for one in survey(model_dir)[1]] == ["not in the manifest"]


def test_a_directory_may_hold_only_some_of_the_listed_experts(model_dir: Path) -> None:
    shutil.rmtree(model_dir / "expert_1")
    found, refused = survey(model_dir)
    assert ([file.number for file in found], refused) == ([0, 2], [])


def test_without_a_manifest_everything_is_taken(model_dir: Path) -> None:
    (model_dir / manifest.NAME).unlink()
    corrupt(model_dir / WEIGHTS)
    assert len(inventory(model_dir)) == 3


def test_a_file_is_hashed_once_per_time_and_size(model_dir: Path) -> None:
    before = inventory(model_dir)
    path = model_dir / WEIGHTS
    stat = path.stat()
    corrupt(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert inventory(model_dir) == before
    os.utime(path)
    assert len(inventory(model_dir)) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[1]",
        b'{"files": []}',
        b'{"files": {"a": 1}}',
        b'{"files": {"/etc/passwd": {"sha256": "' + b"0" * 64 + b'", "bytes": 1}}}',
        b'{"files": {"../a": {"sha256": "' + b"0" * 64 + b'", "bytes": 1}}}',
        b'{"files": {"a": {"sha256": "00", "bytes": 1}}}',
        b'{"files": {"a": {"sha256": "' + b"0" * 64 + b'", "bytes": -1}}}',
        b"[" * 100_000,
        b"\xff\xfe",
        b" " * (manifest.MAX_BYTES + 1),
    ],
)
def test_a_damaged_manifest_is_bad_weights(model_dir: Path, content: bytes) -> None:
    (model_dir / manifest.NAME).write_bytes(content)
    with pytest.raises(WeightsError, match=r"manifest\.json"):
        Manifest.read(model_dir)


@pytest.mark.parametrize(
    "name",
    [
        "router/pytorch_model.safetensors",
        "vae/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
    ],
)
@pytest.mark.parametrize("damage", [corrupt, cut])
def test_a_damaged_part_of_the_requester_is_named(model_dir: Path, name: str, damage: Any) -> None:
    damage(model_dir / name)
    with pytest.raises(WeightsError, match=f"is damaged .{name}: wrong hash"):
        Requester(model_dir)


def test_a_part_that_lost_a_file_is_named(model_dir: Path) -> None:
    (model_dir / "tokenizer" / "special_tokens_map.json").unlink()
    with pytest.raises(WeightsError, match=r"special_tokens_map\.json: missing"):
        Requester(model_dir)


def test_the_single_process_refuses_a_damaged_expert(model_dir: Path) -> None:
    corrupt(model_dir / WEIGHTS)
    with pytest.raises(WeightsError, match=f"{WEIGHTS}: wrong hash"):
        Pipeline(model_dir)


def test_a_hidden_file_of_the_system_disturbs_nobody(model_dir: Path) -> None:
    (model_dir / "vae" / ".DS_Store").write_bytes(b"\0")
    Requester(model_dir)


def test_the_worker_lists_what_it_refuses(model_dir: Path) -> None:
    corrupt(model_dir / WEIGHTS)
    about = call(expert_entry.inventory, model_dir=str(model_dir))
    assert [part["number"] for part in about["components"]] == [0, 2]
    assert about["refused"] == [
        {"name": "paris-tiny/expert-1", "file": WEIGHTS, "why": "wrong hash"}
    ]


def test_a_file_that_changed_since_it_was_announced_is_not_loaded(model_dir: Path) -> None:
    about = call(expert_entry.inventory, model_dir=str(model_dir))
    part = about["components"][1]
    corrupt(model_dir / WEIGHTS)
    wanted = {"model_dir": str(model_dir), "component": part["name"], "key": part["key"]}
    with pytest.raises(WeightsError, match=r"damaged \(wrong hash\)"):
        call(expert_entry.load, **wanted)
    (model_dir / manifest.NAME).unlink()
    with pytest.raises(WeightsError, match="not the file that was announced"):
        call(expert_entry.load, **wanted)


def test_paris_mini_is_what_its_manifest_says() -> None:
    mini = Path(__file__).resolve().parents[2] / "weights" / "paris-mini"
    whole = Manifest.read(mini)
    assert whole.lines is not None
    files = manifest.listed(mini)
    assert {path.relative_to(mini).as_posix() for path in files} == set(whole.lines)
    assert [fault for path in files for fault in whole.faults((path,))] == []
