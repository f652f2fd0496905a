"""Calls that come as one frame: each has its own answer, and canonical ones their own bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from baguette.errors import BadInput, DeviceLost, NotHeld, OutOfMemory
from baguette.worker import company, expert_entry, pipeline_entry
from baguette.worker.payload import pack, unpack
from baguette.worker.tensor import pack_tensor, unpack_tensor

STEPS = 4


@dataclass(frozen=True)
class Number:
    value: int
    canonical: bool
    group: int


def numbers(values: Sequence[tuple[int, bool, int]], compute: Any) -> list[company.Answer]:
    return company.answers(
        [pack({"v": list(value)}) for value in values],
        read=lambda payload: Number(*unpack(payload)["v"]),
        compute=compute,
        write=lambda _, result: str(result).encode(),
    )


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.integers(0, 2)), max_size=12))
def test_every_call_gets_its_own_answer(values: list[tuple[int, bool, int]]) -> None:
    seen: list[list[Number]] = []

    def compute(calls: Sequence[Number]) -> list[int]:
        seen.append(list(calls))
        if any(call.value == 0 for call in calls):
            raise BadInput("a zero")
        return [10 * call.value for call in calls]

    answers = numbers(values, compute)
    for (value, _, _), answer in zip(values, answers, strict=True):
        if value:
            assert answer == str(10 * value).encode()
        else:
            assert isinstance(answer, BadInput)
    for calls in seen:
        assert len(calls) == 1 or not any(call.canonical for call in calls)
        assert len({call.group for call in calls}) == 1


def test_where_memory_ends_half_is_tried() -> None:
    sizes = []

    def compute(calls: Sequence[Number]) -> list[int]:
        sizes.append(len(calls))
        if len(calls) > 2:
            raise OutOfMemory("too much")
        return [call.value for call in calls]

    assert numbers([(i, False, 0) for i in range(7)], compute) == [b"%d" % i for i in range(7)]
    assert sizes == [7, 4, 2, 2, 3, 2, 1]


def test_a_lost_device_is_not_tried_again() -> None:
    tried = []

    def compute(calls: Sequence[Number]) -> list[int]:
        tried.append(len(calls))
        raise DeviceLost("gone")

    answers = numbers([(1, False, 0)] * 3, compute)
    assert all(isinstance(answer, DeviceLost) for answer in answers)
    assert tried == [3]


@pytest.fixture
def component(tiny_dir: Path) -> Iterator[str]:
    """A loaded expert that knows the contexts "a", "b" and "n"."""
    expert_entry._held.clear()
    for entry in (expert_entry.machine, expert_entry.warm):
        entry(pack({"threads": 1}))
    about = unpack(expert_entry.inventory(pack({"model_dir": str(tiny_dir)})))
    part = about["components"][0]
    key = {"component": part["name"], "key": part["key"]}
    expert_entry.load(pack({"model_dir": str(tiny_dir), **key}))
    contexts = [
        {"hash": name, "tensor": pack_tensor(torch.randn(12, 16))} for name in ("a", "b", "n")
    ]
    expert_entry.velocity(ask(part["name"], [row(0)], contexts=contexts))
    yield part["name"]
    expert_entry._held.clear()


def row(seed: int, t: float = 0.5, context: str = "a", scale: float = 2.0) -> dict[str, Any]:
    latent = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return {
        "latent": pack_tensor(latent), "t": t, "network_t": 1000 * t,
        "context": context, "null": "n", "scale": scale,
    }  # fmt: skip


def ask(component: str, rows: list[dict[str, Any]], **more: Any) -> bytes:
    return pack({"component": component, "canonical": False, "contexts": [], "rows": rows} | more)


def velocities(answer: company.Answer) -> list[Tensor]:
    assert isinstance(answer, bytes)
    return [unpack_tensor(blob, 3) for blob in unpack(answer)["velocities"]]


def test_rows_of_any_time_context_and_guidance_are_one_batch(component: str) -> None:
    asks = [
        ask(component, [row(1)]),
        ask(component, [row(2, t=0.25, context="b"), row(3, scale=7.5)]),
        ask(component, [row(4, t=1.0, scale=1.0)]),
    ]
    together = [v for answer in expert_entry.velocities(asks) for v in velocities(answer)]
    alone = [v for one in asks for v in velocities(expert_entry.velocity(one))]
    assert len(together) == 4
    for ours, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_a_canonical_call_has_its_own_bytes_in_company(component: str) -> None:
    canonical = ask(component, [row(1), row(2, t=0.25)], canonical=True)
    company_ = [ask(component, [row(seed)]) for seed in range(5)]
    _, answer, *_ = expert_entry.velocities([company_[0], canonical, *company_[1:]])
    assert isinstance(answer, bytes)
    assert unpack(answer)["velocities"] == unpack(expert_entry.velocity(canonical))["velocities"]


def test_who_asks_in_half_precision_is_answered_in_it(component: str) -> None:
    whole = row(1)
    half = whole | {"latent": pack_tensor(unpack_tensor(whole["latent"], 3).half())}
    answers = expert_entry.velocities([ask(component, [half]), ask(component, [whole])])
    (ours,), (theirs,) = (velocities(answer) for answer in answers)
    assert (ours.dtype, theirs.dtype) == (torch.float16, torch.float32)
    assert (ours.float() - theirs).abs().max() <= 2e-3 * theirs.abs().max()


def test_what_is_wrong_with_one_call_is_nobody_elses(component: str) -> None:
    nan = row(1) | {"latent": pack_tensor(torch.full((3, 6, 6), float("nan")))}
    answers = expert_entry.velocities(
        [
            ask(component, [row(1)]),
            ask(component, [nan]),
            ask(component, [row(2) | {"latent": pack_tensor(torch.zeros(3, 5, 5))}]),
            ask(component, [row(2, context="unheard of")]),
            ask("paris-tiny/expert-1", [row(2)]),
            b"no msgpack",
            ask(component, [row(3)]),
        ]
    )
    kinds = [type(a).__name__ if isinstance(a, Exception) else sorted(unpack(a)) for a in answers]
    good = ["micros", "velocities"]
    assert kinds == [good, "NotFinite", "BadInput", ["unknown"], "NotHeld", "BadInput", good]
    assert isinstance(answers[4], NotHeld)
    torch.testing.assert_close(
        velocities(answers[6])[0],
        velocities(expert_entry.velocity(ask(component, [row(3)])))[0],
        atol=1e-5,
        rtol=1e-5,
    )


def test_contexts_that_come_with_a_batch_do_not_push_out_each_others(
    component: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expert = expert_entry._held[component].expert
    monkeypatch.setattr(expert.contexts, "budget_bytes", 1)
    monkeypatch.setattr(expert.contexts.texts, "budget_bytes", 1)
    contexts = [
        [
            {"hash": name, "tensor": pack_tensor(torch.randn(12, 16))}
            for name in (one, f"null {one}")
        ]
        for one in ("x", "y", "z")
    ]
    asks = [
        ask(component, [row(1, context=one) | {"null": f"null {one}"}], contexts=given_)
        for one, given_ in zip("xyz", contexts, strict=True)
    ]
    assert [len(velocities(answer)) for answer in expert_entry.velocities(asks)] == [1, 1, 1]


@pytest.fixture(scope="module")
def pipeline(tiny_dir: Path) -> Iterator[None]:
    pipeline_entry.load(pack({"model_dir": str(tiny_dir), "threads": 1}))
    yield
    pipeline_entry._loaded.clear()


def started(seed: int, canonical: bool = False, top_k: int | None = 2) -> bytes:
    about = {"seeds": [seed, seed + 1], "steps": STEPS, "top_k": top_k, "canonical": canonical}
    return pack(about)


def moved(answer: bytes, step: int, canonical: bool = False) -> bytes:
    """The call that follows: each expert's velocity is the latent itself."""
    images = [
        {
            "latent": image["latent"],
            "experts": image["experts"],
            "weights": image["weights"],
            "velocities": [[expert, image["latent"]] for expert in image["experts"]],
        }
        for image in unpack(answer)["images"]
    ]
    about = {"step": step, "steps": STEPS, "top_k": 2, "canonical": canonical, "cache": 0.0}
    return pack({**about, "images": images})


@pytest.mark.usefixtures("pipeline")
class TestPipeline:
    """Many pictures' steps on the pipeline worker, each at its own time."""

    def test_pictures_start_as_they_do_alone(self) -> None:
        calls = [started(1), started(5, top_k=None), started(9, canonical=True)]
        for ours, call in zip(pipeline_entry.starts(calls), calls, strict=True):
            same(ours, pipeline_entry.start(call))

    def test_pictures_at_any_step_advance_as_they_do_alone(self) -> None:
        first = pipeline_entry.start(started(1))
        second = pipeline_entry.advance(moved(pipeline_entry.start(started(5)), 0))
        third = pipeline_entry.start(started(7))
        calls = [moved(first, 0), moved(second, 1), moved(third, STEPS - 1)]
        answers = pipeline_entry.advances(calls)
        for ours, call in zip(answers, calls, strict=True):
            same(ours, pipeline_entry.advance(call))
        assert isinstance(answers[2], bytes)
        assert "experts" not in unpack(answers[2])["images"][0]

    def test_experts_are_sent_half_as_many_bytes_where_bits_are_not_promised(self) -> None:
        (loose,) = pipeline_entry.starts([started(1)])
        canonical = pipeline_entry.start(started(1, canonical=True))
        assert isinstance(loose, bytes)
        image = unpack(loose)["images"][0]
        assert unpack_tensor(image["latent"], 3).dtype == torch.float32
        assert unpack_tensor(image["ask"], 3).dtype == torch.float16
        assert "ask" not in unpack(canonical)["images"][0]

    def test_a_canonical_step_has_its_own_bytes_in_company(self) -> None:
        first = pipeline_entry.start(started(1, canonical=True))
        call = moved(first, 0, canonical=True)
        others = [moved(pipeline_entry.start(started(seed)), 0) for seed in range(4)]
        ours, *_ = pipeline_entry.advances([call, *others])
        assert isinstance(ours, bytes)
        assert unpack(ours)["images"] == unpack(pipeline_entry.advance(call))["images"]

    def test_a_damaged_picture_is_nobody_elses(self) -> None:
        good = moved(pipeline_entry.start(started(1)), 0)
        images = unpack(good)["images"]
        images[0]["velocities"][0][1] = pack_tensor(torch.full((3, 6, 6), float("nan")))
        bad = pack(unpack(good) | {"images": images})
        ours, failed = pipeline_entry.advances([good, bad])
        same(ours, pipeline_entry.advance(good))
        assert type(failed).__name__ == "NotFinite"

    def test_pictures_are_decoded_as_they_are_alone(self) -> None:
        latents = [image["latent"] for image in unpack(pipeline_entry.start(started(1)))["images"]]
        text = [{"baguette:seed": "1"}, {"baguette:seed": "2"}]
        calls = [
            pack({"latents": latents, "text": text, "canonical": canonical})
            for canonical in (False, False, True)
        ]
        *_, canonical = pipeline_entry.decodes(calls)
        assert isinstance(canonical, bytes)
        assert unpack(canonical)["images"] == unpack(pipeline_entry.decode(calls[2]))["images"]
        for answer in pipeline_entry.decodes(calls):
            assert isinstance(answer, bytes)
            hashes = [image["latent_sha256"] for image in unpack(answer)["images"]]
            assert len(set(hashes)) == 2

    def test_texts_and_latents_must_be_as_many(self) -> None:
        (failed,) = pipeline_entry.decodes([pack({"latents": [], "text": [{}], "canonical": True})])
        assert isinstance(failed, BadInput)


def same(ours: company.Answer, alone: bytes) -> None:
    assert isinstance(ours, bytes)
    one, other = unpack(ours), unpack(alone)
    assert one.keys() == other.keys()
    assert one.get("t") == other.get("t")
    for left, right in zip(one["images"], other["images"], strict=True):
        assert left["latent"] == right["latent"]
        assert left.get("experts") == right.get("experts")
        for weights in zip(left.get("weights", ()), right.get("weights", ()), strict=True):
            assert weights[0] == pytest.approx(weights[1], abs=1e-5)
