"""`remote ...` and `generate --cluster URL`, against a node that speaks the contract."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from baguette.__main__ import main
from baguette.commands.preview import BadPicture, Colours, half_blocks
from baguette.errors import ClusterRefused
from baguette.remote import job as jobs
from baguette.remote.place import Place, check_way
from peer import TOKEN, Peer, png
from terminal import Terminal

PACKAGE = Path(__file__).resolve().parents[1]


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as started:
        yield started


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No token and no cluster of the person who runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("BAGUETTE_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("BAGUETTE_TOKEN", TOKEN)
    monkeypatch.delenv("BAGUETTE_NODE", raising=False)
    monkeypatch.setattr(jobs, "PAUSE", 0.01)


@pytest.fixture
def remote(peer: Peer, capfd: Any) -> Any:
    """Run `remote ...` in this process: (status, standard output, standard error)."""

    def command(name: str, *words: str) -> tuple[int, str, str]:
        try:
            status = main(["remote", name, "--node", peer.url, *words])
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        return status, *capfd.readouterr()

    return command


def test_a_prompt_becomes_files_and_a_record(remote: Any, tmp_path: Path) -> None:
    words = ["--num_samples", "2", "--num_steps", "3", "--seed", "5", "--separate"]
    status, out, err = remote("generate", "a cat", *words, "--output", "o/a.png", "--json", "-")
    assert status == 0, err
    record = json.loads(out)
    assert [image["file"] for image in record["images"]] == ["o/a_1.png", "o/a_2.png"]
    assert [image["seed"] for image in record["images"]] == [5, 6]
    assert (record["steps"], record["prompt"], record["n"]) == (3, "a cat", 2)
    assert [step["experts"] for step in record["routing"][1]] == [[0, 2], [1, 2], [2, 2]]
    assert Image.open(tmp_path / "o" / "a_2.png").getpixel((0, 0)) == (255, 0, 0)
    assert "o/a_1.png, o/a_2.png: 2 images in 0.5 s" in err
    assert "step 1: 127.0.0.3 did not answer for E2 (died), 127.0.0.4 is asked" in err
    assert "warning: only shapes\n" in err
    assert "\x1b" not in err


def test_what_is_left_out_is_the_nodes_to_choose(remote: Any, peer: Peer) -> None:
    assert remote("generate", "a cat", "--num_samples", "1")[0] == 0
    assert peer.jobs["job-0"]["request"]["steps"] == 4
    words = ["--topk", "full", "--cfg_scale", "2", "--negative_prompt", "dogs", "--cache", "0.2"]
    words += ["--on-missing"]
    assert remote("generate", "--prompt", "a", *words, "fail", "--model", "m")[0] == 0
    asked = peer.jobs["job-1"]["request"]
    named = ("n", "top_k", "guidance_scale", "negative_prompt", "cache", "on_missing", "model")
    assert [asked[name] for name in named] == [16, "full", 2.0, "dogs", 0.2, "fail", "m"]


def test_a_prompt_of_markup_and_quotes_arrives_as_it_is(remote: Any, peer: Peer) -> None:
    prompt = 'a "cat" \\ <b>ö猫</b>\nand a dog'
    assert remote("generate", prompt, "--num_samples", "1", "--embed_prompt")[0] == 0
    assert peer.jobs["job-0"]["request"]["prompt"] == prompt
    assert Image.open("output_cluster.png").info["baguette:prompt"] == prompt


def test_a_file_of_prompts_is_a_job_each(remote: Any, peer: Peer) -> None:
    Path("p.txt").write_text("a cat\n\na dog\n")
    status, out, err = remote("generate", "--prompts_file", "p.txt", "--visualize")
    assert status == 0, err
    assert [job["request"]["prompt"] for job in peer.jobs.values()] == ["a cat", "a dog"]
    assert "/3 experts, Calls: 16 " in out
    assert Image.open("output_cluster.png").size == (24, 12)


@pytest.mark.parametrize("forget", [False, True])
def test_a_broken_stream_goes_on_after_the_last_event(
    remote: Any, peer: Peer, forget: bool
) -> None:
    peer.break_after, peer.forget_events = [3, 0, 2], forget
    status, _, err = remote("generate", "a cat", "--num_samples", "1")
    assert status == 0, err
    asked = [headers.get("Last-Event-ID") for _, path, headers in peer.seen if "events" in path]
    assert asked[:3] == [None, "2", "2"]
    assert err.count("broke off the events of job job-0; trying again for 60 s\n") == 2
    assert len(peer.jobs) == 1


def test_a_submission_whose_answer_was_lost_is_not_drawn_twice(remote: Any, peer: Peer) -> None:
    peer.lose_answers = 2
    status, _, err = remote("generate", "a cat", "--num_samples", "1")
    assert status == 0, err
    assert "cannot be reached" in err
    assert len(peer.jobs) == 1


def test_a_full_queue_is_waited_for(remote: Any, peer: Peer) -> None:
    peer.busy = 1
    status, _, err = remote("generate", "a cat", "--num_samples", "1")
    assert status == 0
    assert "the queue is full; ask again in a moment; trying again for 60 s" in err


def test_a_queue_that_stays_full_is_the_nodes_sentence(remote: Any, peer: Peer) -> None:
    peer.busy, peer.retry_after = 10**6, 3600
    status, _, err = remote("generate", "a cat", "--num_samples", "1")
    assert (status, err.splitlines()[-1]) == (1, "the queue is full; ask again in a moment")


def test_a_node_that_stays_away_is_given_up(
    remote: Any, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.Patience.__init__, "__defaults__", (0.3,))
    peer.break_after = [2, *[0] * 10**4]
    status, _, err = remote("generate", "a cat", "--num_samples", "1")
    assert status == 1
    assert "`python -m baguette remote watch job-0` follows it" in err.splitlines()[-1]
    assert not Path("output_cluster.png").exists()


def test_a_failed_job_is_its_problem(remote: Any, peer: Peer) -> None:
    peer.fail = {"title": "x", "detail": "no node holds\nE3: wait, or ask with degrade"}
    status, _, err = remote("generate", "a cat", "--num_samples", "1")
    assert (status, err.splitlines()[-1]) == (1, "no node holds E3: wait, or ask with degrade")


def test_a_job_left_to_the_node_is_watched_and_fetched(remote: Any, peer: Peer) -> None:
    status, out, _ = remote("generate", "a cat", "--num_samples", "2", "--detach")
    assert (status, out) == (0, "job-0\n")
    status, out, err = remote("watch", "job-0", "--separate")
    assert status == 0, err
    assert sorted(p.name for p in Path.cwd().glob("*.png")) == [
        "output_cluster_1.png",
        "output_cluster_2.png",
    ]
    status, out, _ = remote("generate", "a", "--num_samples", "1", "--detach", "--json")
    assert json.loads(out)["id"] == "job-1"


def test_jobs_are_listed_and_others_words_are_only_words(remote: Any, peer: Peer) -> None:
    peer.submitted({"prompt": "\x1b[2Jclear\nnext"})
    peer.submitted({"prompt": "a dog"})
    status, out, _ = remote("jobs")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["JOB", "job-1", "job-0"]
    assert out.splitlines()[2].endswith(" [2Jclear next")
    status, out, err = remote("jobs", "--limit", "1")
    assert (len(out.splitlines()), err) == (2, "more: --after job-1\n")
    assert json.loads(remote("jobs", "--json")[1])["data"][0]["id"] == "job-1"


def test_a_job_is_cancelled_once_and_again(remote: Any, peer: Peer) -> None:
    peer.submitted({"prompt": "a"})
    assert remote("cancel", "job-0")[1] == "job-0 cancelled\n"
    assert remote("cancel", "job-0")[:2] == (0, "job-0 cancelled\n")
    status, _, err = remote("watch", "job-0")
    assert (status, err.splitlines()[-1]) == (1, "job job-0 was cancelled: ask again for another")


def test_the_cluster_is_shown(remote: Any) -> None:
    status, out, _ = remote("cluster")
    lines = out.splitlines()
    assert status == 0
    assert lines[0].startswith("DEGRADED: 127.0.0.3 is silent, as http://127.0.0.1:")
    assert "50" in lines[3].split()
    assert "E1(loading) E2" in lines[4]
    assert "0.40" in lines[4].split()
    assert lines[-2] == "E1    nobody: it cannot be asked"
    assert "\x1b" not in out
    assert json.loads(remote("cluster", "--json")[1])["node"] == "127.0.0.2"


def test_generate_asks_a_url_too(peer: Peer, capfd: Any, tmp_path: Path) -> None:
    given = ["generate", "a cat", "--num_samples", "1", "--cluster", peer.url]
    assert main(given) == 0
    assert "output_cluster.png: 1 image in 0.5 s" in capfd.readouterr().out
    assert main([*given, "--precision", "int8"]) == 2
    assert "--precision cannot be asked of a cluster" in capfd.readouterr().err


def test_the_token_comes_from_a_file_or_is_asked_for(
    peer: Peer, remote: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BAGUETTE_TOKEN")
    status, _, err = remote("jobs")
    assert status == 1
    assert "wants a token: `make token` on its machine prints one" in err
    usual = tmp_path / "config" / "baguette" / "token"
    usual.parent.mkdir(parents=True)
    usual.write_text("wrong.token\n")
    usual.chmod(0o644)
    assert remote("jobs")[2].startswith(f"the token file {str(usual)!r} may be read by others")
    usual.chmod(0o600)
    assert f"does not take the token of the file {usual}" in remote("jobs")[2]
    own = tmp_path / "own"
    own.write_text(TOKEN)
    own.chmod(0o600)
    assert remote("jobs", "--token-file", str(own))[0] == 0
    assert TOKEN not in str(remote("jobs", "--token-file", str(own)))


@pytest.mark.parametrize("peer", ["192.168.1.5", "100.63.9.9", "8.8.8.8", "fe80::1%eth0"])
def test_only_private_ways_are_good_enough_for_a_token(peer: str) -> None:
    with pytest.raises(ClusterRefused, match="in clear text to"):
        check_way(Place("h", 8100), peer)
    check_way(Place("h", 8100, tls=True), peer)
    for private in ("127.0.0.9", "100.64.0.1", "100.127.255.254", "::1"):
        check_way(Place("h", 8100), private)


def test_a_token_does_not_cross_a_network_in_clear_text(capfd: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: which of our addresses leads outside
        except OSError:
            return
        outside = probe.getsockname()[0]
    with Peer(host=outside) as node:
        assert main(["remote", "jobs", "--node", node.url]) == 1
        assert "the token would cross the network in clear text" in capfd.readouterr().err
        assert node.seen == []


@pytest.mark.parametrize(
    "node", ["ftp://h", "http://", "h:0", "h:99999", "http://h/v1", "u:p@h", "1.2.3", "a b", "-h"]
)
def test_an_address_that_is_none_is_refused(node: str, capfd: Any) -> None:
    assert main(["remote", "jobs", f"--node={node}"]) == 2
    assert "but expected a node's address, e.g. http://127.0.0.2:8100" in capfd.readouterr().err


def test_the_node_is_that_of_the_environment_or_of_this_checkout(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    assert main(["remote", "jobs"]) == 2
    assert "no node is named and no cluster" in capfd.readouterr().err
    port = int(peer.url.rpartition(":")[2])
    run = tmp_path / "run"
    (run / "tokens").mkdir(parents=True)
    (run / "9100").mkdir()
    nodes = [{"node": "baguette@127.0.0.2", "pid": 2**22 + 1}]
    nodes += [{"node": f"baguette@{peer.host}", "pid": os.getpid()}]
    record = {"web_port": port, "nodes": nodes}
    (run / "9100" / "cluster.json").write_text(json.dumps(record))
    monkeypatch.delenv("BAGUETTE_TOKEN")
    (run / "tokens" / "default").write_text(TOKEN)
    (run / "tokens" / "default").chmod(0o600)
    assert main(["remote", "jobs"]) == 0
    monkeypatch.setenv("BAGUETTE_NODE", peer.url)
    assert main(["remote", "jobs"]) == 0
    with Peer() as other:  # another's node is not shown this checkout's token
        assert main(["remote", "jobs", "--node", other.url]) == 1
        assert all("Authorization" not in headers for _, _, headers in other.seen)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"", "cannot be reached"),
        (b"SSH-2.0-OpenSSH\r\n", "cannot be reached"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<html>...", "no JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "no list of jobs"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n[]", "cannot be reached"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n", "status 302"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b" " * (17 << 20), "larger than"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n" + b"[" * 40, "no JSON"),
        (
            b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"data":[{"id":"a"}]}',
            "a job without its status",
        ),
    ],
)
def test_whatever_answers_is_one_sentence(answer: bytes, sentence: str, capfd: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                try:
                    connection.sendall(answer)
                except ConnectionError:
                    return  # it has read enough

        thread = threading.Thread(target=serve)
        thread.start()
        status = main(["remote", "jobs", "--node", f"127.0.0.1:{server.getsockname()[1]}"])
        thread.join()
    err = capfd.readouterr().err
    assert (status, err.count("\n")) == (1, 1)
    assert sentence in err


def interrupted(peer: Peer, *words: str) -> subprocess.Popen[str]:
    """The command in a process of its own, at the step the node stops at, then interrupted."""
    process = subprocess.Popen(
        [sys.executable, "-m", "baguette", "remote", *words, "--node", peer.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
    )
    assert peer.streaming.wait(30)
    process.send_signal(signal.SIGINT)
    return process


def test_an_interrupt_cancels_the_job(peer: Peer) -> None:
    peer.steps_until = 2
    process = interrupted(peer, "generate", "a cat", "--num_samples", "1")
    _, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert "cancelling job job-0 (Ctrl-C again leaves at once)\n" in err
    assert err.endswith("stopped; nothing was written\n")
    assert peer.jobs["job-0"]["status"] == "cancelled"
    assert not Path("output_cluster.png").exists()


def test_an_interrupt_leaves_a_watched_job_alone(peer: Peer) -> None:
    peer.steps_until = 2
    peer.submitted({"prompt": "a"})
    process = interrupted(peer, "watch", "job-0")
    _, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert "job job-0 goes on: `python -m baguette remote cancel job-0` stops it\n" in err
    assert peer.jobs["job-0"]["status"] == "queued"


@pytest.mark.parametrize(
    ("colour", "painted"),
    [({"COLORTERM": ""}, b"\x1b[38;5;21;48;5;21m"), ({"COLORTERM": "truecolor"}, b"38;2;0;0;255")],
)
def test_a_terminal_shows_a_bar_and_the_picture_as_it_comes(
    peer: Peer, colour: dict[str, str], painted: bytes
) -> None:
    words = ["remote", "generate", "a cat", "--num_samples", "1", "--node", peer.url]
    terminal = Terminal(words, **colour)
    for shown in (b"asking E0 E2", painted, b"\x1b[16A\r\x1b[J", b"output_cluster.png: 1 image"):
        terminal.until(shown)
    assert terminal.close() == 0


@pytest.mark.parametrize(
    ("words", "environment"),
    [(["--no-preview"], {}), ([], {"NO_COLOR": "1"}), ([], {"TERM": "vt100"})],
)
def test_no_picture_is_shown_where_none_is_wanted_or_possible(
    peer: Peer, words: list[str], environment: dict[str, str]
) -> None:
    given = ["remote", "generate", "a cat", "--num_samples", "1", "--node", peer.url, *words]
    terminal = Terminal(given, **environment)
    shown = terminal.until(b"output_cluster.png: 1 image")
    assert "▀".encode() not in shown
    assert b"asking E0 E2" in shown
    assert terminal.close() == 0


@pytest.mark.parametrize("png_bytes", [b"", b"GIF89a", png("blue")[:-30], png("blue", 5000)])
def test_a_preview_that_is_no_picture_is_refused(png_bytes: bytes) -> None:
    with pytest.raises(BadPicture):
        half_blocks(png_bytes, 8, Colours.TRUE)


def test_nothing_of_torch_is_imported(peer: Peer) -> None:
    code = (
        "import sys; from baguette.__main__ import main; "
        f"status = main(['remote', 'generate', 'a', '--num_samples', '1', '--node', {peer.url!r}]);"
        "print([m for m in ('torch', 'numpy', 'transformers') if m in sys.modules], status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        check=True,
    )
    assert done.stdout.endswith("[] 0\n")
