"""`python -m baguette weights` against a Hub on loopback: what comes, is kept and is said."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from baguette import manifest
from baguette.__main__ import main
from baguette.families.paris import fetching
from baguette.families.paris.config import ModelConfig
from baguette.families.paris.files import inventory
from baguette.families.paris.tiny import build
from baguette.manifest import Manifest
from hub import REPO, Hub, hub_of

EXPERT_1 = "expert_1/diffusion_pytorch_model.safetensors"
EXPERT_0 = "expert_0/diffusion_pytorch_model.safetensors"
CHUNK = constants.DOWNLOAD_CHUNK_SIZE


@pytest.fixture
def repository(tiny_dir: Path, tmp_path: Path) -> Path:
    """What a repository holds besides: nothing of it is wanted."""
    folder = Path(shutil.copytree(tiny_dir, tmp_path / "repository"))
    for name in ("README.md", "vae/diffusion_pytorch_model.bin", "config.pt", "expert_1/notes.txt"):
        (folder / name).write_text("not wanted")
    return folder


@pytest.fixture
def hub(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_of(repository) as hub:
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("HF_TOKEN", "")
        yield hub


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One expert of 24 MiB: more than the two chunks in which a file comes at least."""
    return build(tmp_path_factory.mktemp("hub") / "wide", num_experts=1, hidden=512, layers=3)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "weights" / "paris"


def fetch(target: Path, *more: str) -> int:
    return main(["weights", "--repo", REPO, "--dir", str(target), *more])


def names(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != manifest.NAME
    }


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_model_comes_whole_checked_and_with_its_manifest(
    hub: Hub, target: Path, tiny_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(target) == 0
    assert names(target) == names(tiny_dir)
    for name in names(tiny_dir):
        assert (target / name).read_bytes() == (tiny_dir / name).read_bytes()
    assert set(Manifest.read(target).lines or {}) == names(target)
    assert ModelConfig.read(target).name == "paris-tiny"
    assert "expert_2" in capsys.readouterr().out


def test_only_the_experts_asked_for_come_and_others_later(hub: Hub, target: Path) -> None:
    assert fetch(target, "--experts", "0,2") == 0
    assert [file.number for file in inventory(target)] == [0, 2]
    hub.asked.clear()
    assert fetch(target, "--experts", "1-2") == 0
    assert {name for name, _ in hub.asked} == {EXPERT_1, "expert_1/config.json"}
    assert [file.number for file in inventory(target)] == [0, 1, 2]
    assert set(Manifest.read(target).lines or {}) == names(target)


def test_a_cut_connection_is_gone_on_with(wide: Path, hub: Hub, target: Path) -> None:
    hub.folder = wide
    hub.cuts[EXPERT_0] = CHUNK + 1000
    assert fetch(target) == 0
    asked = [span for name, span in hub.asked if name == EXPERT_0]
    assert asked == [None, f"bytes={CHUNK}-"]
    assert (target / EXPERT_0).read_bytes() == (hub.folder / EXPERT_0).read_bytes()


def child(target: Path, **more: str) -> subprocess.Popen[str]:
    own = str(Path(__file__).resolve().parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "baguette", "weights", "--repo", REPO, "--dir", str(target)],
        env={**os.environ, "PYTHONPATH": own, "HF_TOKEN": "", **more},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_ended_run_is_gone_on_with_where_it_was(
    wide: Path, hub: Hub, target: Path, how: signal.Signals
) -> None:
    hub.folder = wide
    hub.halts[EXPERT_0] = CHUNK + 1000
    with child(target, HF_ENDPOINT=hub.url) as process:
        assert hub.halted.wait(60)
        # The chunk is on the disk when the file has grown: nothing else tells of it.
        partials = [*(target / fetching.PARTIAL).glob("*.part")]
        while partials[0].stat().st_size < CHUNK:
            time.sleep(0.01)
        process.send_signal(how)
        assert process.wait(60) == -how
        assert process.stderr is not None
        said = process.stderr.read()
    assert said == ("stopped; run the same command again to go on\n" if how == 2 else "")
    assert not (target / EXPERT_0).exists()
    assert fetch(target) == 0
    assert hub.asked[-1] == (EXPERT_0, f"bytes={CHUNK}-")
    assert (target / EXPERT_0).read_bytes() == (hub.folder / EXPERT_0).read_bytes()
    assert not (target / fetching.PARTIAL).exists()


def nobody_listens() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


@pytest.mark.parametrize("variable", ["HF_ENDPOINT", "HF_HUB_OFFLINE"])
def test_offline_is_one_sentence_at_once(target: Path, variable: str) -> None:
    began = time.monotonic()
    endpoint = {"HF_ENDPOINT": nobody_listens()}
    with child(target, **endpoint, **({variable: "1"} if "OFFLINE" in variable else {})) as process:
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out, len(error.splitlines())) == (1, "", 1)
    assert "cannot be reached" in error
    assert "run this again with a network" in error
    assert time.monotonic() - began < 30
    assert not target.exists()


@pytest.mark.parametrize(
    ("refuses", "words"),
    [
        ((401, "RepoNotFound"), "knows no somebody/paris, or not for you"),
        ((404, "RepoNotFound"), "knows no somebody/paris"),
        ((403, "GatedRepo"), "is gated: accept its terms at"),
        ((404, "RevisionNotFound"), "has no revision"),
        ((401, ""), "answered 401 for somebody/paris: check HF_TOKEN"),
        ((500, ""), "answered 500"),
        ((429, ""), "answered 429"),
    ],
)
def test_what_a_hub_refuses_is_one_sentence(
    hub: Hub,
    target: Path,
    capsys: pytest.CaptureFixture[str],
    refuses: tuple[int, str],
    words: str,
) -> None:
    hub.refuses = refuses
    assert fetch(target, "--revision", "main") == 1
    assert words in refused(capsys)
    assert not target.exists()


def test_a_gated_model_comes_with_the_token_of_the_environment(
    hub: Hub, target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.token = "hf_secret"
    assert fetch(target) == 1
    assert "HF_TOKEN" in refused(capsys)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetch(target) == 0
    captured = capsys.readouterr()
    assert "hf_secret" not in captured.out + captured.err


def test_a_file_that_is_not_what_the_hub_promised_is_named(
    hub: Hub, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray((hub.folder / EXPERT_1).read_bytes())
    data[-1] ^= 1
    hub.forged[EXPERT_1] = bytes(data)
    assert fetch(target) == 1
    line = refused(capsys)
    assert f"{EXPERT_1} in {target} differ from {REPO}" in line
    assert not (target / manifest.NAME).exists()
    hub.forged.clear()
    (target / EXPERT_1).unlink()
    assert fetch(target) == 0


def test_a_listing_that_would_write_elsewhere_is_refused(
    hub: Hub, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.blob = "../../escaped"
    assert fetch(target) == 1
    assert "is malformed" in refused(capsys)
    assert not target.exists()


def test_a_model_that_does_not_fit_its_config_is_named(
    hub: Hub, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(hub.folder / "router" / "pytorch_model.safetensors", hub.folder / EXPERT_1)
    assert fetch(target) == 1
    captured = capsys.readouterr()
    assert f"{EXPERT_1} is damaged" in captured.err
    assert "missing keys" in captured.out


def test_what_does_not_fit_the_disk_is_refused_first(
    hub: Hub, target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetching, "SPARE_BYTES", 1 << 60)
    assert fetch(target) == 1
    assert "MiB are free at" in refused(capsys)
    assert not target.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--experts", "0,x"], "--experts got '0,x'"),
        (["--experts", "3-1"], "--experts got '3-1'"),
        (["--experts", "7"], "--experts 7: somebody/paris has experts 0, 1, 2"),
        (["--repo", "https://example.org/x"], "--repo got"),
        (["--dir", __file__], "is not a directory"),
    ],
)
def test_wrong_use_is_refused(
    hub: Hub, target: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert fetch(target, *arguments) == 2
    assert words in refused(capsys)
    assert not target.exists()
