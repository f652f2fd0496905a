"""`generate.py --cluster NODE`: the same request, answered by a running cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from agreement import reference, same
from baguette.__main__ import main
from baguette.commands import on_cluster
from baguette.pipeline import Pipeline
from launcher import asking, member, nodes
from live import Live


@pytest.fixture
def ask(cluster_of_three: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Any:
    """Run the command against a node of the cluster: (status, standard output, errors)."""
    monkeypatch.setattr(on_cluster, "connect", asking.connect)

    def command(*words: str) -> tuple[int, str, str]:
        node = f"127.0.0.2:{cluster_of_three.cluster.port}"
        given = ["--cluster", node, "--output", str(tmp_path / "drawn.png")]
        return main(["generate", *given, *words]), *capfd.readouterr()

    return command


def test_a_cluster_answers_as_the_reference(
    ask: Any, reference_three: Pipeline, tmp_path: Path
) -> None:
    given = ["--num_samples", "2", "--num_steps", "3", "--seed", "5", "--cfg_scale", "2"]
    status, out, err = ask("a cat", *given, "--deterministic", "--visualize", "--json", "-")
    assert status == 0, err
    wanted = {"prompt": "a cat", "n": 2, "steps": 3, "seed": 5, "guidance_scale": 2.0}
    same(json.loads(out), reference(reference_three, wanted))
    assert "/3 experts, Calls: 12 " in err  # images x steps x K
    grid = Image.open(tmp_path / "drawn.png")
    assert (grid.size, grid.info["baguette:seed"]) == ((24, 12), "5")


def test_what_a_cluster_refuses_is_one_sentence(ask: Any, tmp_path: Path) -> None:
    status, _, err = ask("a cat", "--topk", "4")
    assert status == 1
    assert err == "top_k is 4, but must be 1..3 or full.\n"
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_is_not_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: Any
) -> None:
    monkeypatch.setattr(on_cluster, "connect", asking.connect)
    monkeypatch.setattr(nodes, "RUN", tmp_path)
    monkeypatch.setattr(member.erlang, "RUN", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["generate", "--cluster", "127.0.0.99"]) == 1
    assert capfd.readouterr().err.startswith("no cluster with a node baguette@127.0.0.99 runs here")
