"""What `generate` refuses: a sentence, 2 for what was typed, 1 for what failed, no traceback."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from baguette.__main__ import main
from baguette.families.paris.tiny import build

EXPERT = "expert_1/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a", "--topk", "4"], "--topk got 4 but expected 1..3 or full"),
        (["a", "--topk", "0"], "--topk got 0 but expected 1..3 or full"),
        (["a", "--topk", "some"], "got 'some' but expected a whole number or full"),
        (["a", "--num_steps", "0"], "--num_steps got 0 but expected 1..250"),
        (["a", "--num-steps", "ten"], "got 'ten' but expected a whole number"),
        (["a", "--num_samples", "65"], "--num_samples got 65 but expected 1..64"),
        (["a", "--seed", "-1"], "--seed got -1 but expected 0.."),
        (["a", "--cfg_scale", "nan"], "--cfg_scale got nan but expected 1.0..30.0"),
        (["a", "--cfg_scale", "0.9"], "--cfg_scale got 0.9 but expected 1.0..30.0"),
        (["a", "--threads", "0"], "--threads got 0 but expected 1..256"),
        (["a", "--precision", "fp8"], "--precision got 'fp8' but expected bf16, int8 or fp32"),
        (["a", "--offload", "3"], "--offload got 3 but expected 0..2"),
        (["a", "--offload", "-1"], "--offload got -1 but expected 0..2"),
        (["a", "--device", "tpu"], "--device got 'tpu' but expected auto, cpu, cuda or cuda:N"),
        (["a", "--compile", "--deterministic"], "--compile and --deterministic exclude each other"),
        (["a", "--cache", "-1"], "--cache got -1.0 but expected 0.0..10.0"),
        (["a", "--cache", "some"], "got 'some' but expected a number"),
        (["a", "--cache", "0.1", "--deterministic"], "--cache and deterministic exclude each"),
        (["  "], "--prompt is empty; say what to draw"),
        (["\udcff"], "--prompt is not text in UTF-8"),
        (["a", "--prompt", "b"], "PROMPT and --prompt exclude each other"),
        (["a", "--negative_prompt", "x" * 2001], "--negative_prompt has 2001 characters"),
        (["a", "--output", "x.jpg"], "--output got 'x.jpg' but expected a name ending in .png"),
        (["a", "--output", "/proc/x.png"], "--output '/proc/x.png' cannot be written"),
        (["a", "--visualize", "a star"], "--visualize got 'a star' but expected a name ending in"),
        (["a", "--visualize", "/proc/x.png"], "--visualize '/proc/x.png' cannot be written"),
        (["a", "--json", "/proc"], "--json got '/proc' but expected a name ending in .json"),
        (["a", "--json", "/proc/x.json"], "--json '/proc/x.json' cannot be written"),
        (["a", "--image", "0"], "--image says whose timeline --visualize shows"),
        (["a", "--visualize", "--image", "16"], "--image got 16 but expected 0..15"),
        (["a", "--model", "/nowhere"], "--model got '/nowhere' but there is no such directory"),
        (["--prompts_file", "/nowhere"], "--prompts_file '/nowhere' cannot be read: No such file"),
        (["--prompts_file", "/proc"], "--prompts_file '/proc' cannot be read: Is a directory"),
        (["--prompts_file", "/dev/null"], "--prompts_file '/dev/null' holds no prompt"),
        (
            ["--prompts_file", "/dev/zero"],
            "--prompts_file '/dev/zero' is larger than 1048576 bytes",
        ),
        (["--prompts_file", "x", "a"], "PROMPT and --prompts_file exclude each other"),
        (["a", "--colour"], "unrecognized arguments: --colour"),
        (["a", "--num_sample", "1"], "unrecognized arguments: --num_sample"),
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


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a cat\nca\xe7\n", "is not text in UTF-8 (line 2)"),
        (b"\n  \n\n", "holds no prompt; write one per line"),
        (b"a\n" + b"x" * 2001, "line 2: has 2001 characters but at most 2000 are taken"),
        (b"a\n" * 1025, "holds 1025 prompts, with --num_samples 1 more than 1024 images"),
    ],
)
def test_a_bad_file_of_prompts_is_named_with_its_line(
    run: Any, tmp_path_factory: pytest.TempPathFactory, content: bytes, sentence: str
) -> None:
    file = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    file.write_bytes(content)
    status, out, err = run("--prompts_file", str(file))
    assert (status, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1


def test_no_output_may_be_another(run: Any, tmp_path: Path) -> None:
    status, _, err = run("a", "--visualize", str(tmp_path / "drawn.png"))
    assert status == 2
    assert "--output and --visualize name the same file" in err


def in_disguise(_: bytes) -> bytes:
    """A pickle that would write a file where it is loaded."""

    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return open, ("unpickled", "w")

    return pickle.dumps(Trap())


def other_shapes(content: bytes) -> bytes:
    """The same bytes, the first matrix transposed."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    name = next(n for n, about in header.items() if len(set(about.get("shape", ()))) == 2)
    header[name]["shape"].reverse()
    new = json.dumps(header).encode()
    return struct.pack("<Q", len(new)) + new + content[8 + length :]


def larger(content: bytes) -> bytes:
    """A config of a network that is twice as wide."""
    return json.dumps({**json.loads(content), "hidden_size": 32}).encode()


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        (EXPERT, lambda content: content[:-100], "expert_1"),
        (EXPERT, lambda _: b"", "expert_1"),
        (VAE, lambda content: content[:40], "vae"),
        (EXPERT, in_disguise, "expert_1"),
        (EXPERT, other_shapes, "expert_1"),
        ("expert_1/config.json", larger, "expert_1"),
        ("expert_1/config.json", lambda _: b"{", "expert_1"),
        ("router/config.json", larger, "router"),
        ("config.json", lambda content: content.replace(b'"num_experts": 3', b'"num_experts": 4'),
         "lacks expert_3"),
        ("config.json", lambda _: b"\x80\x04", "config.json is not JSON"),
        ("config.json", None, "config.json is missing"),
        (EXPERT, None, "expert_1"),
        ("vae/config.json", None, "vae"),
        ("vae/config.json", lambda _: b"{}", "does not tell its sizes"),
        ("text_encoder/config.json", lambda _: b'{"hidden_size": "x"}', "does not tell its sizes"),
    ],
)  # fmt: skip
def test_damaged_weights_are_one_sentence(
    run: Any,
    damaged: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    change: Callable[[bytes], bytes] | None,
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = run("a", "--model", str(damaged(file, change)))
    assert status == 1
    assert named in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--cluster", "http://127.0.0.2:81000"], "but expected a node's address, e.g. http://127"),
        (["--cluster", "127.0.0.2"], "--cluster without http:// is for `python generate.py`"),
        (["--cluster", "127.0.0.2", "--precision", "int8", "--offload", "1"],
         "--precision, --offload cannot be asked of a cluster"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_of_a_cluster_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, words: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "a", *words]) == 2
    err = capfd.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_a_command_it_says_where_to_look(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert capfd.readouterr().err.count("\n") == 1


def test_a_device_that_is_not_there_is_one_sentence(run: Any, tmp_path: Path) -> None:
    absent = f"cuda:{torch.cuda.device_count() + 7}"
    status, _, err = run("a", "--device", absent)
    assert status == 2
    assert "--device" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_compiling_without_a_compiler_is_refused(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    status, out, err = run("a", "--compile")
    assert (status, out) == (2, "")
    assert err.startswith("--compile needs a C++ compiler: install g++, or leave it out; ")
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_fails_is_one_sentence(tiny_dir: Path, tmp_path: Path) -> None:
    words = ["a", "--model", str(tiny_dir), "--compile", "--num_samples", "1", "--num_steps", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "baguette", "generate", *words, "--output", str(tmp_path / "x.png")],
        # Nothing compiled before is taken again.
        env={**os.environ, "CXX": "false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("the networks cannot be compiled here (")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "x.png").exists()


# Everything is imported before memory is short: 48 MiB would not hold the libraries.
SHORT_OF_MEMORY = """
import resource, sys
import baguette.pipeline, tqdm
from baguette.__main__ import main
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (48 << 20),) * 2)
sys.exit(main(sys.argv[1:]))
"""


def test_a_process_without_memory_says_so(tmp_path: Path) -> None:
    model = build(tmp_path / "model", hidden=256, layers=8, num_experts=2)
    words = ["a", "--model", str(model), "--output", str(tmp_path / "x.png"), "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, "generate", *words, "--precision", "fp32"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("memory ran out; ")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_that_does_not_fit_is_refused_with_what_it_needs(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    little = SimpleNamespace(total=1 << 20, available=1 << 10)
    monkeypatch.setattr("psutil.virtual_memory", lambda: little)
    status, _, err = run("a", "--device", "cpu", "--precision", "fp32")
    assert status == 1
    assert "fp32 needs about" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
