"""The port: frames, terms, payloads and a real worker process on real descriptors."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baguette.errors import BadInput, port_class
from baguette.worker.frame import CHUNK, EndOfStream, FrameError, FrameReader, framed
from baguette.worker.payload import pack, unpack
from baguette.worker.tensor import pack_tensor, unpack_tensor
from baguette.worker.term import Atom, TermError, decode, encode

GOLDEN = Path(__file__).parent / "golden"
EXPERT = "baguette.worker.expert_entry"

terms = st.recursive(
    st.integers(-(2**70), 2**70) | st.binary(max_size=40) | st.just(Atom("ok")),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple),
    max_leaves=12,
)


def golden_frames(name: str) -> list[bytes]:
    return [bytes.fromhex(line) for line in (GOLDEN / name).read_text().splitlines()]


def in_one(pieces: list[bytes]) -> memoryview:
    return memoryview(b"".join(pieces))


@given(terms)
def test_a_term_survives_the_way_there_and_back(term: Any) -> None:
    assert decode(in_one(encode(term))) == term


@given(st.binary(max_size=200))
def test_hostile_bytes_are_a_term_error_or_a_term(junk: bytes) -> None:
    with contextlib.suppress(TermError):
        decode(memoryview(b"\x83" + junk))


def test_a_length_that_promises_more_than_the_frame_holds_is_refused() -> None:
    with pytest.raises(TermError):
        decode(memoryview(b"\x83\x6d\xff\xff\xff\xff"))


def test_plain_text_never_becomes_an_atom() -> None:
    with pytest.raises(TermError):
        encode("halt")


def test_an_erlport_call_reads_as_one() -> None:
    (frame,) = golden_frames("erlport_call.hex")
    assert decode(memoryview(frame)) == (Atom("C"), 7, Atom(EXPERT), Atom("stats"), [b"\x80"])


def test_a_frame_longer_than_the_limit_is_refused_before_it_is_read() -> None:
    read, write = os.pipe()
    os.write(write, struct.pack(">I", 1 << 30))
    with pytest.raises(FrameError, match="larger than"):
        FrameReader(read, max_frame=1 << 20).read()
    os.close(read)
    os.close(write)


@given(st.lists(st.integers(0, 3 * CHUNK), max_size=6), st.integers(1, 2 * CHUNK))
def test_frames_come_whole_and_in_order_however_they_are_cut(sizes: list[int], cut: int) -> None:
    bodies = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    stream = b"".join(framed([body]) for body in bodies)
    read, write = os.pipe()

    def say() -> None:
        for begin in range(0, len(stream), cut):
            os.write(write, stream[begin : begin + cut])
        os.close(write)

    writer = threading.Thread(target=say)
    writer.start()
    try:
        reader = FrameReader(read)
        assert [bytes(reader.read()) for _ in bodies] == bodies
        writer.join()
        assert reader.is_there()  # the end
        with pytest.raises(EndOfStream):
            reader.read()
    finally:
        writer.join()
        os.close(read)


@pytest.mark.parametrize("rest", [b"", b"x", bytes(CHUNK)])
def test_a_stream_that_ends_inside_a_frame_is_broken(rest: bytes) -> None:
    read, write = os.pipe()
    os.write(write, struct.pack(">I", 2 * CHUNK)[: 4 if rest else 3])
    writer = threading.Thread(target=lambda: (os.write(write, rest), os.close(write)))
    writer.start()
    with pytest.raises(FrameError, match="inside a frame"):
        FrameReader(read).read()
    writer.join()
    os.close(read)


def test_msgpack_agrees_with_the_golden_bytes() -> None:
    for case in json.loads((GOLDEN / "msgpack.json").read_text()):
        assert unpack(b"\x81\xa1v" + bytes.fromhex(case["hex"])) == {"v": case["value"]}


@given(st.binary(max_size=100))
def test_a_payload_is_a_map_or_bad_input(junk: bytes) -> None:
    with contextlib.suppress(BadInput):
        assert isinstance(unpack(junk), dict)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.uint8])
def test_a_tensor_survives_the_way_there_and_back(dtype: torch.dtype) -> None:
    tensor = torch.arange(24).reshape(2, 3, 4).to(dtype)
    back = unpack_tensor(pack_tensor(tensor), 3)
    assert back.dtype == dtype
    assert torch.equal(back, tensor)


@pytest.mark.parametrize(
    "blob",
    [
        ["f32", [2, 2], b"\0" * 15],
        ["f32", [-1, -4], b"\0" * 16],
        ["f32", [1 << 40, 1 << 40], b""],
        ["f99", [2, 2], b"\0" * 16],
        ["f32", [2, 2, 1], b"\0" * 16],
    ],
)
def test_a_header_that_disagrees_with_its_bytes_is_bad_input(blob: list[object]) -> None:
    with pytest.raises(BadInput):
        unpack_tensor(msgpack.packb(blob), 2)


class Worker:
    """A real worker process on descriptors 3 and 4, as Erlang's nouse_stdio gives them."""

    def __init__(self, kind: str) -> None:
        down_read, self.down = os.pipe()
        self.up, up_write = os.pipe()

        def arrange() -> None:
            # First out of the way of 3 and 4, then onto them.
            high_read, high_write = os.dup2(down_read, 100), os.dup2(up_write, 101)
            os.dup2(high_read, 3)
            os.dup2(high_write, 4)
            os.closerange(5, 102)

        self.process = subprocess.Popen(
            [sys.executable, "-m", "baguette.worker", kind],
            preexec_fn=arrange,
            close_fds=False,
            stderr=subprocess.PIPE,
        )
        os.close(down_read)
        os.close(up_write)
        self.reader = FrameReader(self.up)

    def send(self, frame: bytes) -> None:
        os.write(self.down, struct.pack(">I", len(frame)) + frame)

    def call(self, number: int, module: str, function: str, **values: Any) -> None:
        self.calls(number, module, function, [values])

    def calls(self, number: int, module: str, function: str, several: list[Any]) -> None:
        payloads = [pack(values) for values in several]
        message = (Atom("C"), number, Atom(module), Atom(function), payloads)
        self.send(b"".join(encode(message)))

    def answer(self) -> Any:
        try:
            return decode(self.reader.read())
        except EndOfStream as error:
            said = self.process.stderr.read() if self.process.stderr else b""
            raise AssertionError(said) from error

    def close(self) -> None:
        if self.down >= 0:
            os.close(self.down)
            self.down = -1

    def read_no_more(self) -> None:
        if self.up >= 0:
            os.close(self.up)
            self.up = -1


@pytest.fixture
def expert_worker() -> Iterator[Worker]:
    worker = Worker("expert")
    yield worker
    worker.process.kill()
    worker.process.wait()
    worker.close()
    worker.read_no_more()
    if worker.process.stderr:
        worker.process.stderr.close()


def test_stock_erlports_message_byte_for_byte_calls_an_entry_point(expert_worker: Worker) -> None:
    expert_worker.send(golden_frames("erlport_call.hex")[0])
    kind, number, result = expert_worker.answer()
    assert (kind, number) == (Atom("r"), 7)
    assert unpack(result)["os_pid"] == expert_worker.process.pid


def test_answers_are_encoded_as_erlports_are() -> None:
    """Atom tags may be the newer UTF-8 ones; everything else is byte for byte."""
    result, error = [decode(memoryview(f)) for f in golden_frames("erlport_answers.hex")]
    assert result == (Atom("r"), 7, b"abc")
    assert error == (Atom("e"), 8, (Atom("python"), Atom("bad_input"), b"no", b""))
    assert (
        b"".join(encode(result)).replace(b"w\x01r", b"d\x00\x01r")
        == golden_frames("erlport_answers.hex")[0]
    )


def test_a_worker_ends_at_end_of_file(expert_worker: Worker) -> None:
    expert_worker.close()
    assert expert_worker.process.wait(timeout=20) == 0


def test_a_worker_whose_answer_nobody_reads_ends_without_a_word(expert_worker: Worker) -> None:
    expert_worker.read_no_more()
    expert_worker.call(1, EXPERT, "stats")
    _, said = expert_worker.process.communicate(timeout=20)
    assert (expert_worker.process.returncode, said) == (0, b"")


def test_a_worker_ends_on_a_broken_stream(expert_worker: Worker) -> None:
    expert_worker.send(b"not a term")
    assert expert_worker.process.wait(timeout=20) == 3


def test_a_worker_ignores_interrupts(expert_worker: Worker) -> None:
    expert_worker.call(1, EXPERT, "stats")
    expert_worker.answer()
    expert_worker.process.send_signal(signal.SIGINT)
    expert_worker.call(2, EXPERT, "stats")
    assert expert_worker.answer()[1] == 2


def test_only_entry_points_can_be_called(expert_worker: Worker) -> None:
    expert_worker.call(1, "os", "system", command="true")
    assert expert_worker.answer()[2][1] == Atom("failure")


def test_a_worker_tells_where_the_time_of_its_last_frames_went(expert_worker: Worker) -> None:
    began = time.perf_counter_ns()
    for number in range(3):
        expert_worker.call(number, EXPERT, "stats")
        expert_worker.answer()
    expert_worker.call(3, "os", "system", command="true")  # has no account: it failed
    expert_worker.answer()
    expert_worker.call(4, EXPERT, "frames")
    _, _, result = expert_worker.answer()
    frames = unpack(result)["frames"]
    assert [(f.pop("frame"), f.pop("function")) for f in frames] == [(n, "stats") for n in range(3)]
    assert [frame.pop("calls") for frame in frames] == [1, 1, 1]
    assert all(frame.keys() == {"decode", "wait", "core", "encode"} for frame in frames)
    parts = [ns for frame in frames for ns in frame.values()]
    assert min(parts) >= 0
    assert 0 < sum(parts) < time.perf_counter_ns() - began


def test_the_whole_life_of_an_expert(expert_worker: Worker, tiny_dir: Path) -> None:
    worker, model = expert_worker, {"model_dir": str(tiny_dir), "threads": 1}
    worker.call(1, EXPERT, "inventory", **model)
    about = unpack(worker.answer()[2])
    part = about["components"][0]
    worker.call(2, EXPERT, "warm", **model)
    worker.answer()
    worker.call(3, EXPERT, "load", component=part["name"], key=part["key"] + "x", **model)
    assert worker.answer()[2][1] == Atom("bad_weights")
    worker.call(4, EXPERT, "load", component=part["name"], key=part["key"], **model)
    assert worker.answer()[0] == Atom("r")

    latent, context = torch.randn(3, 6, 6), torch.randn(12, 16)
    row = {
        "latent": pack_tensor(latent), "t": 1.0, "network_t": 1000.0,
        "context": "c", "null": "n", "scale": 2.0,
    }  # fmt: skip
    ask = {"component": part["name"], "canonical": True, "rows": [row, row]}
    worker.call(5, EXPERT, "velocity", contexts=[], **ask)
    assert unpack(worker.answer()[2]) == {"unknown": ["c", "n"]}
    contexts = [{"hash": name, "tensor": pack_tensor(context)} for name in ("c", "n")]
    worker.call(6, EXPERT, "velocity", contexts=contexts, **ask)
    first, second = unpack(worker.answer()[2])["velocities"]
    assert first == second
    assert unpack_tensor(first, 3).shape == (3, 6, 6)

    elsewhere = ask | {"component": "paris-tiny/expert-1", "contexts": []}
    worker.call(7, EXPERT, "velocity", **elsewhere)
    assert worker.answer()[2][1] == Atom("not_held")

    worker.calls(8, EXPERT, "velocity", [ask | {"contexts": []}, elsewhere])
    tag, number, [(is_ok, payload), (is_error, error)] = worker.answer()
    assert (tag, number, is_ok, is_error) == (Atom("r"), 8, Atom("ok"), Atom("error"))
    assert unpack(payload)["velocities"] == [first, second]
    assert error[:2] == (Atom("python"), Atom("not_held"))

    worker.calls(9, EXPERT, "stats", [{}, {}])
    assert worker.answer()[2][1] == Atom("failure")

    row["latent"] = pack_tensor(torch.full((3, 6, 6), float("nan")))
    worker.call(7, EXPERT, "velocity", contexts=[], **ask)
    assert worker.answer()[2][1] == Atom("not_finite")


def test_memory_that_ran_out_has_its_own_class() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert port_class(caught.value) == "out_of_memory"
    assert port_class(RuntimeError("shapes differ")) == "failure"


def test_a_call_that_has_not_begun_can_be_cancelled(expert_worker: Worker) -> None:
    expert_worker.call(1, EXPERT, "warm", threads=1)  # imports torch: long enough to queue behind
    expert_worker.call(2, EXPERT, "stats")
    expert_worker.call(3, EXPERT, "stats")
    expert_worker.send(b"".join(encode((Atom("M"), (Atom("cancel"), 2)))))
    assert [expert_worker.answer()[1] for _ in range(2)] == [1, 3]


def in_company(number: int, group: int, rows: int, most: int) -> bytes:
    """A call of an expert that is not held, which others may join."""
    payload = pack({"component": "paris-tiny/expert-7", "rows": [], "contexts": []})
    company = (group, rows, most)
    call = (Atom("C"), number, Atom(EXPERT), Atom("velocity"), [payload], company)
    return b"".join(encode(call))


def test_what_came_of_a_group_by_the_time_it_begins_is_computed_as_one(
    expert_worker: Worker,
) -> None:
    expert_worker.call(1, EXPERT, "warm", threads=1)  # imports torch: long enough to queue behind
    for number, group, rows in ((2, 1, 1), (3, 1, 2), (4, 1, 2), (5, 1, 2), (6, 2, 1), (7, 2, 1)):
        expert_worker.send(in_company(number, group, rows, most=4))
    expert_worker.call(8, EXPERT, "velocity", component="paris-tiny/expert-7")
    expert_worker.send(in_company(9, 2, 1, most=4))
    said = [expert_worker.answer() for _ in range(12)]
    assert [(kind, what) for kind, what, *_ in said] == [
        (Atom("r"), 1),
        (Atom("M"), (Atom("begun"), [2, 3])),  # 4 does not fit
        *[(Atom("e"), number) for number in (2, 3)],
        (Atom("M"), (Atom("begun"), [4, 5])),
        *[(Atom("e"), number) for number in (4, 5)],
        (Atom("M"), (Atom("begun"), [6, 7])),  # not 9: there is one between them that is alone
        *[(Atom("e"), number) for number in (6, 7, 8, 9)],
    ]
    assert {error[1] for kind, _, *rest in said if kind == "e" for error in rest} == {"not_held"}


def test_a_call_whose_company_is_no_company_ends_the_worker(expert_worker: Worker) -> None:
    call = (Atom("C"), 1, Atom(EXPERT), Atom("stats"), [b"\x80"], (1, 2))
    expert_worker.send(b"".join(encode(call)))
    assert expert_worker.process.wait(timeout=20) == 3


def test_an_expert_worker_never_imports_transformers_or_diffusers(tiny_dir: Path) -> None:
    code = (
        "import sys; from baguette.worker import expert_entry as e;"
        "from baguette.worker.payload import pack;"
        f"e.inventory(pack({{'model_dir': {str(tiny_dir)!r}}}));"
        "assert 'torch' not in sys.modules;"
        "e.warm(pack({'threads': 1}));"
        "assert not {'transformers', 'diffusers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
