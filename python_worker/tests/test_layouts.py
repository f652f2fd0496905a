"""Every layout of a model directory holds the same model; what fits none is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from baguette.__main__ import main
from baguette.commands import check
from baguette.device import reference
from baguette.errors import WeightsError
from baguette.families.paris.components import components, expected_shapes
from baguette.families.paris.config import ExpertConfig, ModelConfig, RouterConfig
from baguette.families.paris.files import (
    expert_config,
    expert_file,
    expert_key,
    inventory,
    part_folder,
    requester_faults,
    router_config,
    router_file,
    router_key,
    text_length,
)
from baguette.families.paris.loading import load_expert
from baguette.families.paris.text import TextEncoder
from baguette.families.paris.tiny import build
from baguette.families.paris.vae import LatentDecoder
from baguette.quantization import Quantized, quantize
from baguette.weights import read_tensors

NUMBERS = range(3)


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(path)), path)


def root(model_dir: Path, **own: object) -> None:
    path = model_dir / "config.json"
    values = json.loads(path.read_text())
    values["baguette"] |= own
    path.write_text(json.dumps(values))


@pytest.fixture
def published(tiny_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_dir, tmp_path / "models" / "paris"))


@pytest.fixture
def flat(published: Path) -> Path:
    """Baguette's own layout beside the published one, as a person would lay it: by hand."""
    target = published.parent / "bf16"
    target.mkdir()
    for number in NUMBERS:
        shutil.copy(expert_file(published, number), target / f"expert_{number}.safetensors")
    shutil.copy(router_file(published), target / "router.safetensors")
    shutil.copy(published / "config.json", target / "config.json")
    sizes = {k: v for k, v in vars(expert_config(published, 0)).items() if k != "expert_id"}
    root(target, expert_config=sizes, router_config=vars(router_config(published)))
    return target


def test_both_layouts_hold_the_same_components(published: Path, flat: Path) -> None:
    for number in NUMBERS:
        sizes = expert_config(flat, number)
        assert sizes == expert_config(published, number)
        theirs = read_tensors(expert_file(published, number), expected_shapes(sizes))
        ours = read_tensors(expert_file(flat, number), expected_shapes(sizes))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert router_config(flat) == router_config(published)
    assert [file.name for file in inventory(flat)] == [file.name for file in inventory(published)]


def test_the_key_of_a_flat_component_covers_its_sizes_in_the_root_config(flat: Path) -> None:
    settings = ModelConfig.read(flat).settings
    before = [expert_key(flat, n, settings) for n in NUMBERS] + [router_key(flat, settings)]
    sizes = json.loads((flat / "config.json").read_text())["baguette"]["expert_config"]
    root(flat, expert_config=sizes | {"num_heads": 4})
    after = [expert_key(flat, n, settings) for n in NUMBERS] + [router_key(flat, settings)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, False, True]
    assert len(set(before)) == 4


def test_flat_files_without_any_config_are_the_published_paris(tmp_path: Path) -> None:
    (tmp_path / "expert_5.safetensors").write_bytes(b"")
    (tmp_path / "config.pt").write_bytes(b"a pickle that nobody opens")
    model = ModelConfig.read(tmp_path)
    assert (model.name, model.num_experts, model.latent_shape) == ("paris", 8, (4, 32, 32))
    assert expert_config(tmp_path, 5) == ExpertConfig(expert_id=5)
    assert text_length(tmp_path) == 77


def test_what_a_flat_directory_lacks_is_missing_under_its_flat_name(flat: Path) -> None:
    for path in (expert_file(flat, 2), router_file(flat)):
        path.unlink()
    assert expert_file(flat, 2) == flat / "expert_2.safetensors"
    assert router_file(flat) == flat / "router.safetensors"
    assert expert_config(flat, 2).hidden_size == 16


def test_a_directory_of_nothing_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config\.json is missing: this is not a Paris model"):
        ModelConfig.read(tmp_path)


def test_the_published_sizes_have_the_published_counts() -> None:
    for config, parameters, tensors in (
        (ExpertConfig(), 605_970_448, 378),
        (RouterConfig(), 129_136_904, 134),
    ):
        shapes = expected_shapes(config)
        assert sum(torch.Size(shape).numel() for shape in shapes.values()) == parameters
        assert len(shapes) == tensors


def test_parts_that_are_not_there_come_from_the_published_model_beside(
    flat: Path, published: Path
) -> None:
    for part in ("text_encoder", "tokenizer", "vae"):
        assert part_folder(flat, part) == published / part
    assert text_length(flat) == text_length(published)
    TextEncoder(flat, reference())
    LatentDecoder(flat, reference())
    assert requester_faults(flat) == []
    assert check.lacking(flat) == []
    shutil.copytree(published / "vae", flat / "vae")
    assert part_folder(flat, "vae") == flat / "vae"


def test_a_part_that_is_nowhere_is_asked_for_with_its_places(flat: Path, published: Path) -> None:
    shutil.rmtree(published / "vae")
    shutil.rmtree(published / "text_encoder")
    with pytest.raises(WeightsError) as caught:
        part_folder(flat, "vae")
    assert f"{flat} holds no text_encoder, vae and {published} has none for it" in str(caught.value)
    assert check.lacking(flat) == ["text_encoder", "vae"]


def test_the_parts_of_a_model_of_another_shape_are_not_taken(flat: Path, published: Path) -> None:
    values = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps(values | {"num_channels": 4}))
    with pytest.raises(WeightsError, match="has none for it"):
        part_folder(flat, "vae")


def test_a_published_directory_never_borrows(published: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(published, published.parent / "other"))
    shutil.rmtree(other / "vae")
    with pytest.raises(WeightsError, match=r"other.vae is missing"):
        part_folder(other, "vae")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model."])
def test_what_wrappers_put_before_a_name_is_taken_off(flat: Path, prefix: str) -> None:
    path = expert_file(flat, 1)
    expected = expected_shapes(expert_config(flat, 1))
    before = {k: v.clone() for k, v in read_tensors(path, expected).items()}
    rewrite(path, lambda tensors: {prefix + name: t for name, t in tensors.items()})
    assert all(torch.equal(read_tensors(path, expected)[name], before[name]) for name in before)


def test_two_names_of_one_tensor_are_refused(flat: Path) -> None:
    path = expert_file(flat, 0)
    rewrite(path, lambda tensors: {**tensors, "module.pos_embed": tensors["pos_embed"].clone()})
    with pytest.raises(WeightsError, match=r"two names of one tensor .*pos_embed"):
        read_tensors(path, expected_shapes(expert_config(flat, 0)))


# How a companion may be called -> what its numbers are multiplied with.
SPELLINGS = {
    "{}_scale": 1, "{}.scale": 1, "{}_scales": 1, "{}.scales": 1, "{}_scb": 127, "{}.SCB": 127,
}  # fmt: skip
SMALL = "layers.1.mlp.0.weight"


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("owner", [SMALL, "layers.1.mlp.0"])
def test_every_spelling_of_a_scale_is_understood(flat: Path, spelling: str, owner: str) -> None:
    path = expert_file(flat, 0)
    expected = expected_shapes(expert_config(flat, 0))
    weight = load_file(path)[SMALL]
    small = quantize(weight)
    scale = (small.scale * SPELLINGS[spelling]).squeeze(1)
    rewrite(path, lambda t: {**t, SMALL: small.values, spelling.format(owner): scale})
    tensors = read_tensors(path, expected)
    found = tensors[SMALL]
    assert isinstance(found, Quantized)
    assert (found.scale.dtype, found.scale.shape) == (torch.float32, (weight.shape[0], 1))
    torch.testing.assert_close(found.scale, small.scale)
    assert isinstance(tensors["pos_embed"], Tensor)
    assert tensors.keys() == expected.keys()


def test_one_scale_for_a_whole_tensor_is_spread_over_its_rows(flat: Path) -> None:
    path = expert_file(flat, 0)
    name = "layers.0.attn.in_proj_weight"
    values = torch.ones(48, 16, dtype=torch.int8)
    half = torch.tensor(0.5, dtype=torch.float16)
    rewrite(path, lambda t: {**t, name: values, name + "_scale": half})
    found = read_tensors(path, expected_shapes(expert_config(flat, 0)))[name]
    assert isinstance(found, Quantized)
    assert torch.equal(found.dequantized(), torch.full((48, 16), 0.5))


def scaled(name: str, scale: Tensor) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda t: {**t, name: t[name].to(torch.int8), name + "_scale": scale}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {**t, SMALL: t[SMALL].to(torch.int8)}, f"INT8 tensors without a scale {SMALL}"),
        (lambda t: {**t, SMALL + "_scale": torch.ones(64)}, f"scales of no INT8 tensor {SMALL}"),
        (scaled(SMALL, torch.ones(63)), rf"wrong scales {SMALL}_scale: got F32 \(63,\)"),
        (scaled(SMALL, torch.ones(64, dtype=torch.int32)), "wrong scales"),
        (scaled(SMALL, -torch.ones(64)), "negative or not finite"),
        (scaled(SMALL, torch.full((64,), torch.nan)), "negative or not finite"),
        (scaled("pos_embed", torch.ones(1)), "INT8 tensors that are no matrices pos_embed"),
        (lambda t: {**t, SMALL: t[SMALL].to(torch.int64)}, rf"kinds of number {SMALL}: I64"),
        (
            lambda t: {**scaled(SMALL, torch.ones(1))(t), SMALL + ".scale": torch.ones(1)},
            "two scales of one tensor",
        ),
    ],
)
def test_int8_that_does_not_fit_is_refused_by_name(flat: Path, change: object, words: str) -> None:
    path = expert_file(flat, 0)
    rewrite(path, change)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match=words):
        read_tensors(path, expected_shapes(expert_config(flat, 0)))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xff" * 8,
        (1 << 40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (60).to_bytes(8, "little")
        + b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,1<<40]}}  ',
    ],
)
def test_a_hostile_header_is_one_sentence(flat: Path, header: bytes) -> None:
    path = expert_file(flat, 0)
    path.write_bytes(header)
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        read_tensors(path, {})


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "\x00",
        '{"num_experts": 1e999}',
        '{"num_experts": 1000000000, "image_size": 8, "num_channels": 8}',
        '{"num_experts": ' + "9" * 5000 + "}",
        '{"num_experts": 8, "image_size": 8, "num_channels": 8, "baguette": {"expert_config": 5}}',
    ],
)
def test_a_hostile_config_is_one_sentence(flat: Path, text: str) -> None:
    (flat / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"config\.json"):
        ModelConfig.read(flat)


@pytest.mark.parametrize("sizes", [{"num_layers": 10**6}, {"mlp_ratio": 1e300}, {"mlp_ratio": "4"}])
def test_sizes_that_would_take_for_ever_are_refused(flat: Path, sizes: dict[str, object]) -> None:
    root(flat, expert_config=sizes)
    with pytest.raises(WeightsError, match="but expected"):
        expert_config(flat, 0)


def test_a_flat_config_of_another_shape_than_the_model_is_refused(flat: Path) -> None:
    root(flat, expert_config={"in_channels": 5}, router_config={"num_clusters": 4})
    with pytest.raises(WeightsError, match="disagrees with the root config"):
        expert_config(flat, 0)
    with pytest.raises(WeightsError, match="num_clusters=4 but expected 3"):
        router_config(flat)
    names = [component.name for component in components(flat, ModelConfig.read(flat))]
    assert names == ["expert_0", "expert_1", "expert_2", "router"]


def test_memory_is_counted_in_numbers_not_in_bytes_of_the_file(tmp_path: Path) -> None:
    wide, small = build(tmp_path / "wide", hidden=128, layers=6), tmp_path / "small"
    assert main(["quantize", f"--input={wide}", f"--output={small}", "--format=int8"]) == 0
    sizes = [inventory(model_dir)[0].size_mib for model_dir in (wide, small)]
    kept = sum(4 * p.numel() for p in load_expert(small, 0).module.parameters())
    assert sizes[0] == -(-kept // (1 << 20))
    assert sizes[1] - sizes[0] in (0, 1)  # the scales
