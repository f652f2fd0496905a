"""The launcher's pure parts: options, their refusals, Erlang terms, whose process is whose."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launcher import nodes
from launcher.erlang import Atom, term
from launcher.options import BadOption, Model, Options, check_out
from launcher.processes import Process, end, wait_gone

MODEL = Model("toy", num_experts=3, defaults={"steps": 5, "top_k": 2}, example_prompt="a toy")


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("STEPS", "0", "STEPS got 0 but expected 1..250"),
        ("STEPS", "ten", "STEPS got 'ten' but expected a whole number in 1..250"),
        ("N", "65", "N got 65 but expected 1..64"),
        ("SEED", "-1", "SEED got -1 but expected 0.."),
        ("GUIDANCE", "nan", "GUIDANCE got 'nan' but expected a number in 1.0..30.0"),
        ("TOPK", "all", "TOPK got 'all' but expected a whole number or full"),
        ("TOPK", "4", "TOPK got 4 but expected 1..3 or full"),
        ("TOPK", "0", "TOPK got 0 but expected 1..3 or full"),
        ("NODES", "0", "NODES got 0 but expected 1..64"),
        ("PORT", "80", "PORT got 80 but expected 2024..65535"),
        ("PROMPT", " ", "PROMPT is empty; say what to draw"),
        ("PROMPT", "\udcff", "PROMPT is not text in UTF-8"),
        ("PROMPT", "x" * 3000, "PROMPT has 3000 characters but at most 2000"),
        ("OUT", "", "OUT is empty"),
        ("MODEL", "", "MODEL is empty"),
    ],
)
def test_a_bad_value_is_refused_with_its_name_and_range(
    option: str, value: str, sentence: str
) -> None:
    with pytest.raises(BadOption, match=re.escape(sentence)):
        MODEL.check(Options.read({option: value}))


def test_what_is_not_given_is_left_to_the_model() -> None:
    options = Options.read({})
    assert options.request == {}
    MODEL.check(options)


def test_a_prompt_arrives_as_it_was_written() -> None:
    prompt = 'it\'s "a" $HOME `id` \\ 100% #\nüñ🥖'
    assert Options.read({"PROMPT": prompt, "TOPK": "full"}).request == {
        "prompt": prompt,
        "top_k": "full",
    }


def test_make_hands_values_on_untouched() -> None:
    root = Path(__file__).resolve().parents[1]
    prompt = 'it\'s "a" $HOME $$ $(shell id) `id` \\ 100% # \nüñ🥖'
    rule = "print-prompt: ; @$(PY) -c 'import os, json; print(json.dumps(os.environ[\"PROMPT\"]))'"
    command = ["make", "-s", "--no-print-directory", f"--eval={rule}", "print-prompt"]
    done = subprocess.run(
        [*command, f"PROMPT={prompt}"], cwd=root, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == prompt


def test_a_directory_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="is no model directory"):
        Model.read(tmp_path)


@pytest.mark.parametrize("name", ["picture.jpg", "folder.png"])
def test_an_impossible_picture_path_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(BadOption, match=r"^OUT "):
        check_out(tmp_path / name)


def test_checking_a_picture_path_leaves_no_file(tmp_path: Path) -> None:
    check_out(tmp_path / "new" / "picture.png")
    assert list((tmp_path / "new").iterdir()) == []


def test_terms_are_erlang_whatever_the_text() -> None:
    assert term([(Atom("a"), 'x"}')]) == "[{a,[120,34,125]}]"
    assert term({"a": True, "b": 1}) == "#{a=>true,b=>1}"


def test_nodes_started_at_once_are_all_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "RUN", tmp_path)
    cluster = nodes.Cluster(2024)
    cluster.run.mkdir()

    def started(pid: int) -> None:
        cluster.nodes.append(Process(pid, 1, "a boot"))
        cluster.save()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(started, range(200)))
    assert sorted(node.pid for node in nodes.Cluster.load(2024).nodes) == list(range(200))


def test_only_the_process_that_was_meant_is_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process.of(child.pid)
    assert process is not None
    assert process.alive()
    impostor = Process(process.pid, process.started + 1, process.boot)
    other_boot = Process(process.pid, process.started, "another boot")
    assert end([impostor, other_boot], 0.1) == []
    assert process.alive()
    assert end([process], 5.0) == []
    child.wait()
    assert not process.alive()


def test_a_stopped_process_is_killed_with_its_children() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    process = Process.of(child.pid)
    assert process is not None
    while not (family := process.descendants()):
        pass
    os.kill(child.pid, signal.SIGSTOP)
    assert end([process], 0.3) == []
    assert wait_gone([process, *family], 0.0) == []
    child.wait()
