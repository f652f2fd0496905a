"""A failure told afterwards: a worker killed in the middle; what events, status and logs say."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from agreement import reference, same
from baguette.pipeline import Pipeline
from conftest import Start
from launcher.erlang import last_words, said
from launcher.nodes import address, index_of, node_name
from launcher.processes import Refused
from live import Drawing, Live

PROMPT = "a prompt that nobody else should read"
PRIVATE = "nobody else should read"


def story(cluster: Live, generation: str | None = None) -> list[str]:
    """What `make events` prints, with ID or without, a line each."""
    cluster.control.ask("events", **({} if generation is None else {"id": generation}))
    text: str = cluster.control.answer("text")["text"]
    return text.splitlines()


def logged(cluster: Live, index: int) -> list[dict[str, Any]]:
    """The log of one node: every line is JSON, of the node as of its workers."""
    lines = cluster.cluster.log(index).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def where(lines: list[str], pattern: str) -> int:
    """The place of the first line like this; fails with what was told instead."""
    found = [place for place, line in enumerate(lines) if re.search(pattern, line)]
    assert found, "\n".join([f"nothing like {pattern!r} in", *lines])
    return found[0]


def test_a_death_is_told_with_what_came_of_it(
    cluster_of_three: Live, reference_three: Pipeline
) -> None:
    request = {"prompt": PROMPT, "steps": 8, "top_k": "full"}
    cluster = cluster_of_three
    drawing, expert, name = draw_until_killed(cluster, request)
    same(drawing.result(), reference(reference_three, request))

    lines = story(cluster, drawing.id[:6])
    assert all(drawing.id[:8] in line for line in (lines[2], lines[-1]))
    node = re.escape(name.partition("@")[2])
    began = where(lines, "the generation began")
    died = where(lines, rf"^! .* {node} +- +the expert worker died \(killed, SIGKILL\)")
    moved = where(lines, rf"^! .*E{expert}: {node}'s worker died, (asking 127|nobody else)")
    assert began < died < moved < where(lines, "the generation is done") == len(lines) - 1

    own = [line for line in logged(cluster, 0) if line.get("generation") == drawing.id]
    whats = [line["what"] for line in own]
    assert whats[0] == "generation_began"
    assert whats[-1] == "generation_done"
    failover = own[whats.index("failover")]
    assert failover["level"] == "warning"
    assert failover["node"] == address(0)
    assert failover["facts"]["from"] == name.partition("@")[2]
    assert failover["facts"]["why"] == "died"
    assert failover["text"] in lines[moved]
    death = next(x for x in logged(cluster, index_of(name)) if x["what"] == "worker_died")
    assert death["facts"] == {"kind": "expert", "exit_status": 137}
    assert own[0]["at"] <= death["at"] <= failover["at"] <= own[-1]["at"]


def draw_until_killed(cluster: Live, request: dict[str, object]) -> tuple[Drawing, int, str]:
    """A generation whose worker is killed with a call in its hands, on another node than ours."""
    asked = cluster.holders(3)
    expert, name = next((e, n) for e, n in asked.items() if n != node_name(0))
    worker = cluster.worker(name, "expert")
    worker.signal(signal.SIGSTOP)
    drawing = cluster.submit(request)
    drawing.asked(expert, name)
    worker.signal(signal.SIGKILL)
    return drawing, expert, name


def test_status_shows_what_failed(cluster_of_three: Live) -> None:
    cluster = cluster_of_three
    cluster.ready()
    drawing, _, name = draw_until_killed(cluster, {"prompt": PROMPT, "steps": 4, "top_k": "full"})
    failovers = len(drawing.result()["failovers"])
    lines = cluster.status().splitlines()
    row = lines[where(lines, rf"^{drawing.id} ")]
    assert row.split()[-1] == str(failovers)
    lately = lines[where(lines, "^Lately") :]
    assert where(lately, rf"^! .*{re.escape(name.partition('@')[2])}'s worker died")


def test_nothing_private_is_in_a_log_or_an_event(cluster_of_three: Live) -> None:
    cluster = cluster_of_three
    cluster.ready()
    drawing = cluster.submit({"prompt": PROMPT, "steps": 1})
    drawing.result()
    cookie = (cluster.cluster.run / "xdg" / "erlang" / ".erlang.cookie").read_text()
    told = ["\n".join(story(cluster)), "\n".join(story(cluster, drawing.id))]
    told += [cluster.cluster.log(index).read_text(encoding="utf-8") for index in range(3)]
    for text in told:
        assert text
        assert PRIVATE not in text
        assert cookie not in text


def test_words_that_the_model_does_not_know_are_told_to_who_asked_only(
    start: Start, three: Path, tmp_path: Path
) -> None:
    """The model warns of words outside its vocabulary, and names them."""
    model = shutil.copytree(three, tmp_path / "words")
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["baguette"] = {**config.get("baguette", {}), "vocabulary": ["a", "prompt", "that"]}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with start(model, 1) as cluster:
        result = cluster.draw({"prompt": PROMPT, "steps": 1})
        assert any("nobody" in warning for warning in result["warnings"])
        told = "\n".join([*story(cluster), cluster.cluster.log(0).read_text(encoding="utf-8")])
        assert "a remark about the prompt" in told
        assert "nobody" not in told


def test_who_is_not_known_is_refused(cluster_of_three: Live) -> None:
    with pytest.raises(Refused, match="No such generation here"):
        story(cluster_of_three, "ffffffff")


def test_last_words_are_for_people(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    lines = [
        '{"at":"2026-11-21T17:45:16.123Z","level":"error","what":"start_refused",'
        '"node":"127.0.0.2","room":"face","text":"the node cannot start","facts":{}}',
        '{"at":"2026-11-21T17:45:17.000Z","level":"warning","logger":"baguette","what":"damaged"}',
        '{"keeper": 12, "what": "node_started", "os_pid": 13}',
        "{init terminating in do_boot",
        "[1, 2]",
    ]
    log.write_text("\n".join(lines), encoding="utf-8")
    assert last_words(log, 5).splitlines() == [
        "2026-11-21T17:45:16.123Z error the node cannot start",
        "2026-11-21T17:45:17.000Z warning damaged",
        "node_started: keeper 12, os_pid 13",
        "{init terminating in do_boot",
        "[1, 2]",
    ]
    assert said("") == ""
