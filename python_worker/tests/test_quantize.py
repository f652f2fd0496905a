"""`python -m baguette quantize`: what comes out, from every input, and that nothing half does."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import baguette
from baguette import manifest
from baguette.__main__ import main
from baguette.families.paris import conversion
from baguette.families.paris.components import components, expected_shapes
from baguette.families.paris.config import ModelConfig
from baguette.families.paris.expert import Expert
from baguette.families.paris.files import expert_config, expert_file, router_config, router_file
from baguette.families.paris.tiny import build
from baguette.manifest import Manifest
from baguette.quantization import Quantized, quantize
from baguette.tensor_file import HELD_BYTES, TensorWriter
from baguette.weights import read_tensors

NUMBERS = range(3)
ROOT = Path(__file__).resolve().parents[2]


def convert(source: Path, target: Path, format: str = "int8", *more: str) -> int:
    return main(
        ["quantize", "--input", str(source), "--output", str(target), "--format", format, *more]
    )


def tensors_of(model_dir: Path, number: int) -> dict[str, Any]:
    shapes = expected_shapes(expert_config(model_dir, number))
    return read_tensors(expert_file(model_dir, number), shapes)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def int8(tiny_dir: Path, tmp_path: Path) -> Path:
    target = tmp_path / "int8"
    assert convert(tiny_dir, target) == 0
    return target


def test_matrices_of_experts_become_int8_and_all_else_bf16(int8: Path, tiny_dir: Path) -> None:
    for number in NUMBERS:
        before, after = tensors_of(tiny_dir, number), tensors_of(int8, number)
        for name, old in before.items():
            small = old.dim() == 2 and not name.endswith("scale_shift_table")
            assert isinstance(after[name], Quantized) == small, name
            if small:
                assert torch.equal(after[name].values, quantize(old).values)
                assert torch.equal(after[name].scale, quantize(old).scale)
            else:
                assert after[name].dtype == torch.bfloat16
                assert torch.equal(after[name], old)
    assert sum(isinstance(t, Quantized) for t in tensors_of(int8, 0).values()) == 17
    assert all(t.dtype == torch.bfloat16 for t in load_file(int8 / "router.safetensors").values())


def test_the_new_directory_is_the_same_model(int8: Path, tiny_dir: Path) -> None:
    assert ModelConfig.read(int8).name == ModelConfig.read(tiny_dir).name == "paris-tiny"
    assert ModelConfig.read(int8).defaults == ModelConfig.read(tiny_dir).defaults
    assert router_config(int8) == router_config(tiny_dir)
    assert [expert_config(int8, n) for n in NUMBERS] == [
        expert_config(tiny_dir, n) for n in NUMBERS
    ]
    parts = {n for n in names(tiny_dir) if n.split("/")[0] in ("text_encoder", "tokenizer", "vae")}
    components_of = {f"expert_{n}.safetensors" for n in NUMBERS} | {"router.safetensors"}
    assert names(int8) == parts | components_of | {"config.json", "manifest.json"}


def test_the_manifest_lists_every_file_with_its_hash(int8: Path) -> None:
    lines = Manifest.read(int8).lines
    assert lines is not None
    assert set(lines) == names(int8) - {"manifest.json"}
    assert Manifest.read(int8).faults(tuple(manifest.listed(int8))) == []


def test_int8_as_input_is_kept_to_the_bit_or_expanded(int8: Path, tmp_path: Path) -> None:
    assert convert(int8, tmp_path / "again") == 0
    assert convert(int8, tmp_path / "bf16", "bf16") == 0
    for number in NUMBERS:
        name = f"expert_{number}.safetensors"
        assert (tmp_path / "again" / name).read_bytes() == (int8 / name).read_bytes()
    before, after = tensors_of(int8, 1), tensors_of(tmp_path / "bf16", 1)
    for name, old in before.items():
        plain = old.dequantized(torch.bfloat16) if isinstance(old, Quantized) else old
        assert torch.equal(after[name], plain)


def test_what_is_printed_and_written_as_json_is_what_came_out(
    tiny_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "int8.json"
    assert convert(tiny_dir, tmp_path / "int8", "int8", "--json", str(record)) == 0
    values = json.loads(record.read_text())["components"]
    one = values["expert_2"]
    assert one["bytes_after"] == (tmp_path / "int8" / one["file"]).stat().st_size
    assert one["bytes_before"] == expert_file(tiny_dir, 2).stat().st_size
    before, after = tensors_of(tiny_dir, 2), tensors_of(tmp_path / "int8", 2)
    worst = max(
        float(((after[n].dequantized() - old.float()).norm(dim=1) / old.float().norm(dim=1)).max())
        for n, old in before.items()
        if n.startswith("layers.1.") and isinstance(after[n], Quantized)
    )
    assert one["worst_relative_error"]["layers.1"] == pytest.approx(worst, rel=1e-5)
    assert 0 < worst < 0.05
    assert set(values["router"]["worst_relative_error"].values()) == {0.0}
    out = capsys.readouterr().out
    assert f"{100 * worst:.3f}" in next(li for li in out.splitlines() if li.startswith("layers.1 "))


def wrapped(tensors: dict[str, Any]) -> dict[str, Any]:
    return {f"module._orig_mod.{name}": tensor for name, tensor in tensors.items()}


CHECKPOINTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "expert_{}.pt": lambda t: t,
    "expert_{}.pth": lambda t: {"model": wrapped(t), "optimizer": {"lr": 0.1}, "step": 7},
    "expert_{}.bin": lambda t: {"state_dict": {"ema": t, "model": {"x": torch.zeros(1)}}},
    "expert_{}/pytorch_model.bin": wrapped,
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_pytorch_checkpoints_become_bf16(tiny_dir: Path, tmp_path: Path, name: str) -> None:
    source = tmp_path / "checkpoints"
    source.mkdir()
    shutil.copy(tiny_dir / "config.json", source)
    sizes = vars(expert_config(tiny_dir, 0))
    values = json.loads((source / "config.json").read_text())
    values["baguette"] |= {"expert_config": {k: v for k, v in sizes.items() if k != "expert_id"}}
    values["baguette"] |= {"router_config": vars(router_config(tiny_dir))}
    (source / "config.json").write_text(json.dumps(values))
    for number in NUMBERS:
        path = source / name.format(number)
        path.parent.mkdir(exist_ok=True)
        if "/" in name:
            shutil.copy(expert_file(tiny_dir, number).with_name("config.json"), path.parent)
        held = {k: v.float() for k, v in load_file(expert_file(tiny_dir, number)).items()}
        torch.save(CHECKPOINTS[name](held), path)
    torch.save(load_file(router_file(tiny_dir)), source / "router.pt")
    (source / "config.pt").write_bytes(b"never opened")
    assert convert(source, tmp_path / "bf16", "bf16") == 0
    for number in NUMBERS:
        before, after = tensors_of(tiny_dir, number), tensors_of(tmp_path / "bf16", number)
        assert all(torch.equal(after[k], before[k]) for k in before)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps(Bomb()), "not a PyTorch checkpoint of tensors only"),
        (Bomb(), "not a PyTorch checkpoint of tensors only"),
        (b"", "not a PyTorch checkpoint of tensors only"),
        (b"PK\x03\x04 and no more", "not a PyTorch checkpoint of tensors only"),
        ({"step": 3}, "holds no tensors by name"),
        ([torch.zeros(1)], "holds no tensors by name"),
        ({"pos_embed": torch.zeros(1), "decay": 0.9}, "other things than tensors .*: decay"),
        ({"pos_embed": torch.zeros(1, 2, 3)}, "does not fit its config: .*pos_embed: got"),
        ({"pos_embed": torch.zeros(1, 256, 1152)}, "does not fit its config: missing keys"),
    ],
)
def test_a_checkpoint_of_anything_else_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Any, words: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    if isinstance(content, bytes):
        (source / "expert_0.pt").write_bytes(content)
    else:
        torch.save(content, source / "expert_0.pt")
    assert convert(source, tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "expert_0.pt" in line
    assert re.search(words, line), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "out"], "--input 'nowhere' is not a directory"),
        (["tiny", "tiny"], "--output is --input"),
        (["tiny", "tiny/../tiny"], "--output is --input"),
        (["tiny", "file"], "--output 'file' is not a directory"),
        (["tiny", "full"], "already holds expert_2.safetensors: --force replaces"),
        (["tiny", "other"], "holds expert_7.safetensors, which would stay"),
        (["tiny", "published"], "holds expert_0/diffusion_pytorch_model.safetensors, which would"),
        (["tiny", "out", "--json", "tiny"], "--json 'tiny' cannot be written"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_read(
    tiny_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny").symlink_to(tiny_dir)
    Path("file").touch()
    for folder, name in (("full", "expert_2"), ("other", "expert_7")):
        Path(folder).mkdir()
        Path(folder, f"{name}.safetensors").touch()
    shutil.copytree(tiny_dir, "published")
    before = names(tmp_path)
    source, target, *more = arguments
    assert convert(Path(source), Path(target), "int8", *more) == 2
    line = capsys.readouterr().err
    assert words in line
    assert names(tmp_path) == before


def test_force_replaces_what_is_there(int8: Path, tiny_dir: Path) -> None:
    assert convert(tiny_dir, int8, "bf16") == 2
    assert convert(tiny_dir, int8, "bf16", "--force") == 0
    assert not any(isinstance(t, Quantized) for t in tensors_of(int8, 0).values())
    assert Manifest.read(int8).faults(tuple(manifest.listed(int8))) == []


def test_a_model_that_does_not_fit_the_disk_is_refused_first(
    tiny_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(conversion, "SPARE_BYTES", 1 << 60)
    assert convert(tiny_dir, tmp_path / "out") == 1
    assert "MiB are free at" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_meanwhile_leaves_nothing(tiny_dir: Path, tmp_path: Path) -> None:
    limit = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "from baguette.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["quantize", "--input", str(tiny_dir), "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", limit, *arguments], capture_output=True, text=True, env=environment()
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "make room" in done.stderr
    assert not (tmp_path / "out").exists()


def test_numbers_that_are_not_finite_are_refused_by_name(
    tiny_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(shutil.copytree(tiny_dir, tmp_path / "model"))
    tensors = load_file(expert_file(source, 1))
    tensors["layers.0.attn.in_proj_weight"][3, 3] = torch.nan
    save_file(tensors, expert_file(source, 1))
    assert convert(source, tmp_path / "out") == 1
    assert "layers.0.attn.in_proj_weight holds NaN" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "python_worker")}


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    source = build(tmp_path / "model", num_experts=12, layers=16)
    command = [sys.executable, str(ROOT / "quantize.py"), "--input", str(source), "--output", "out"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().startswith("expert_0 ")
        assert names(tmp_path / "out") >= {".unfinished/expert_0.safetensors"}
        process.send_signal(signal.SIGINT)
        rest, error = process.communicate()
    assert "expert_11" not in rest
    assert process.returncode == -signal.SIGINT
    assert error == "stopped; nothing was written\n"
    assert not (tmp_path / "out").exists()


def test_what_a_killed_run_left_is_taken_away(tiny_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    (target / ".unfinished").mkdir(parents=True)
    (target / ".unfinished" / "expert_0.safetensors").write_bytes(b"half")
    assert convert(tiny_dir, target) == 0
    assert not (target / ".unfinished").exists()
    assert len(tensors_of(target, 0)) == len(tensors_of(tiny_dir, 0))


PEAK = """
import re, sys
import torch
from baguette.families.paris.expert import Expert
from baguette.__main__ import main
def kib(what):  # getrusage would count the parent's memory at the fork
    return int(re.search(what + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1])
before = kib("VmRSS")
status = main(sys.argv[1:])
print((kib("VmHWM") - before) // 1024)
sys.exit(status)
"""


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_memory_stays_far_below_the_file(tmp_path: Path, kind: str) -> None:
    """About 200 MiB of fp32 in tensors of 6 MiB at most: what is mapped is given back."""
    source = build(tmp_path / "model", num_experts=1, hidden=16)
    sizes = expert_file(source, 0).with_name("config.json")
    values = json.loads(sizes.read_text()) | {"hidden_size": 512, "num_layers": 12}
    sizes.write_text(json.dumps(values))
    path = expert_file(source, 0)
    path.unlink()
    shapes = expected_shapes(expert_config(source, 0))
    if kind == "pt":
        torch.save({n: torch.rand(shape) for n, shape in shapes.items()}, path.with_suffix(".pt"))
    else:
        with TensorWriter(path, {n: (torch.float32, s) for n, s in shapes.items()}) as file:
            for name, shape in shapes.items():
                file.put(name, torch.rand(shape))
    size_mib = max(f.stat().st_size for f in path.parent.iterdir()) >> 20
    arguments = ["quantize", "--input", str(source), "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
    grown_mib = int(done.stdout.splitlines()[-1])
    assert size_mib > 190
    assert grown_mib < (HELD_BYTES >> 20) + 64, f"{grown_mib} MiB for a file of {size_mib}"


def test_every_component_of_a_model_is_converted(int8: Path) -> None:
    found = components(int8, ModelConfig.read(int8))
    assert [component.path.name for component in found] == [
        "expert_0.safetensors", "expert_1.safetensors", "expert_2.safetensors", "router.safetensors"
    ]  # fmt: skip


def test_what_becomes_int8_is_what_the_network_can_keep_so(tiny_dir: Path) -> None:
    with torch.device("meta"):
        network = Expert(expert_config(tiny_dir, 0))
    for name, tensor in network.state_dict().items():
        owner, _, attribute = name.rpartition(".")
        kept = attribute in getattr(network.get_submodule(owner), "kept_small", ())
        assert conversion.worth_int8(name, tuple(tensor.shape)) == kept, name


def test_the_same_weights_in_another_layout_draw_the_same_picture(
    tiny_dir: Path, tmp_path: Path
) -> None:
    assert convert(tiny_dir, tmp_path / "bf16", "bf16") == 0
    pictures = []
    for model_dir in (tiny_dir, tmp_path / "bf16"):
        pipeline = baguette.load(model_dir)
        pictures.append(pipeline(pipeline.config.request("a tiny test", steps=2)).pixels[0])
    assert torch.equal(*pictures)
