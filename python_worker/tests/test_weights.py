"""A model directory that is not whole is refused with every fault named."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from baguette.errors import WeightsError
from baguette.families.paris.config import ModelConfig, Settings
from baguette.families.paris.files import component_key, expert_file, inventory, router_key
from baguette.families.paris.loading import load_expert, load_router
from baguette.families.paris.requester import Requester
from baguette.families.paris.tiny import build
from baguette.pipeline import Pipeline


@pytest.fixture
def model_dir(tiny_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_dir, tmp_path / "model"))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_missing_unexpected_and_misshapen_tensors_are_all_named(model_dir: Path) -> None:
    path = expert_file(model_dir, 1)
    tensors = load_file(path)
    tensors.pop("text_proj.bias")
    tensors["surprise"] = torch.zeros(1)
    tensors["pos_embed"] = torch.zeros(1, 2, 3)
    save_file(tensors, path)
    with pytest.raises(WeightsError) as caught:
        load_expert(model_dir, 1)
    message = str(caught.value)
    assert "missing keys text_proj.bias" in message
    assert "unexpected keys surprise" in message
    assert "pos_embed: got (1, 2, 3) but expected (1, 9, 16)" in message


def test_a_truncated_file_is_told_from_a_missing_one(model_dir: Path) -> None:
    path = expert_file(model_dir, 0)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        load_expert(model_dir, 0)
    path.unlink()
    with pytest.raises(WeightsError, match="missing"):
        load_expert(model_dir, 0)


def test_a_pickle_is_never_opened(model_dir: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('unpickled')",))

    expert_file(model_dir, 0).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        load_expert(model_dir, 0)


def test_unknown_config_keys_are_refused_by_name(model_dir: Path) -> None:
    change(model_dir / "expert_0" / "config.json", rope=True)
    with pytest.raises(WeightsError, match=r"unknown keys \['rope'\]"):
        load_expert(model_dir, 0)


def test_a_router_for_another_number_of_experts_is_refused(model_dir: Path) -> None:
    change(model_dir / "config.json", num_experts=4)
    with pytest.raises(WeightsError, match="num_clusters=3 but expected 4"):
        load_router(model_dir)


def test_a_setting_outside_its_choices_is_refused() -> None:
    with pytest.raises(WeightsError, match="grid='sqrt'"):
        Settings.from_json({"grid": "sqrt"})


def test_a_directory_may_hold_only_some_experts(model_dir: Path) -> None:
    shutil.rmtree(model_dir / "expert_1")
    assert [file.number for file in inventory(model_dir)] == [0, 2]


def test_a_key_changes_with_one_byte_of_the_file(model_dir: Path) -> None:
    path = expert_file(model_dir, 0)
    before = component_key("expert-0", path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert component_key("expert-0", path) != before


def test_a_key_changes_with_what_is_in_no_tensor(model_dir: Path) -> None:
    def keys() -> dict[str, str]:
        experts = {file.name: file.key for file in inventory(model_dir)}
        return experts | {"router": router_key(model_dir, ModelConfig.read(model_dir).settings)}

    before = keys()
    change(model_dir / "expert_1" / "config.json", num_heads=2)
    assert {name for name, key in keys().items() if before[name] != key} == {"paris-tiny/expert-1"}
    change(
        model_dir / "config.json", baguette={"name": "paris-tiny", "settings": {"grid": "linspace"}}
    )
    assert not set(keys().values()) & set(before.values())


def test_a_tokenizer_without_its_vocabulary_is_refused(model_dir: Path) -> None:
    for name in ("vocab.json", "merges.txt", "tokenizer.json"):
        (model_dir / "tokenizer" / name).unlink(missing_ok=True)
    with pytest.raises(WeightsError, match=r"tokenizer lacks vocab\.json and merges\.txt"):
        Requester(model_dir)


def test_one_process_needs_every_expert(model_dir: Path) -> None:
    shutil.rmtree(model_dir / "expert_1")
    with pytest.raises(WeightsError, match="lacks expert_1"):
        Pipeline(model_dir)


@pytest.mark.parametrize(
    "values",
    [
        {"num_experts": "eight"},
        {"num_experts": None},
        {"baguette": []},
        {"baguette": {"vocabulary": None}},
        {"baguette": {"defaults": {"seed": 1.5}}},
        {"baguette": {"defaults": {"steps": "ten"}}},
        {"baguette": {"settings": {"objectives": []}}},
    ],
)
def test_a_config_of_the_wrong_kind_is_refused(model_dir: Path, values: dict[str, object]) -> None:
    change(model_dir / "config.json", **values)
    with pytest.raises(WeightsError, match=r"config\.json"):
        ModelConfig.read(model_dir)


def test_no_count_or_size_is_fixed(tmp_path: Path) -> None:
    model_dir = build(tmp_path / "five", num_experts=5, channels=2, latent_size=4)
    assert ModelConfig.read(model_dir).latent_shape == (2, 4, 4)
    assert load_router(model_dir).call(torch.zeros(1, 2, 4, 4), (1000.0,))().shape == (1, 5)


@pytest.mark.parametrize(
    ("part", "file"),
    [("text_encoder", "model.safetensors"), ("vae", "diffusion_pytorch_model.safetensors")],
)
def test_a_part_with_another_parts_tensors_is_refused(
    model_dir: Path, part: str, file: str
) -> None:
    tensors = load_file(model_dir / part / file)
    lost = min(tensors)
    del tensors[lost]
    tensors["surprise"] = torch.zeros(1)
    save_file(tensors, model_dir / part / file, {"format": "pt"})
    with pytest.raises(WeightsError) as caught:
        Requester(model_dir)
    assert f"{part} does not fit its config: missing keys {lost}; " in str(caught.value)
    assert "unexpected keys surprise" in str(caught.value)
