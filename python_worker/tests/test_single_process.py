"""The single process at full speed: batches, small weights, few on the device, room for all."""

from __future__ import annotations

import json
import shutil
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import baguette
from baguette import room, together
from baguette.device import Numbers, named, numbers
from baguette.errors import BadInput, OutOfMemory
from baguette.families.paris.contexts import ContextCache, KeysValues, Texts
from baguette.families.paris.expert import BUCKETS, Context, Row, bucket
from baguette.families.paris.loading import load_expert
from baguette.image import tensor_sha256
from baguette.lanes import Lanes
from baguette.machine import bf16_among, bf16_instructions
from baguette.pipeline import Pipeline
from baguette.quantization import Quantized, quantize
from baguette.residency import Residency
from baguette.room import Need, Sizes
from baguette.runtime import Runtime
from baguette.stored import Linear, Stored, linear

CPU = torch.device("cpu")
COMPILES = shutil.which("g++") and (Path(sysconfig.get_path("include")) / "Python.h").exists()
FP32 = torch.float32


@pytest.fixture(scope="module")
def pipeline(tiny_dir: Path) -> Pipeline:
    return baguette.load(tiny_dir)


def row(latent: Tensor, context: str = "a", null: str = "null", t: float = 0.5) -> Row:
    return Row(latent, t, 1000 * t, context, null, 2.0)


def psnr(ours: Tensor, theirs: Tensor) -> float:
    error = (ours.float() - theirs.float()).pow(2).mean().clamp(min=1e-12)
    return float(10 * torch.log10(255**2 / error))


class TestTogether:
    """Batches change the last bits only."""

    @pytest.mark.parametrize("top_k", [1, 2, None])
    def test_pictures_are_the_canonical_ones_within_rounding(
        self, pipeline: Pipeline, top_k: int | None
    ) -> None:
        request = pipeline.request("a tiny test", n=19, steps=3, top_k=top_k)
        exact = pipeline(request)
        fast = pipeline(replace(request, deterministic=False), replay=exact.routing)
        for ours, theirs in zip(fast.latents, exact.latents, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
        assert fast.routing == exact.routing
        assert len(fast.pixels) == 19
        assert min(psnr(*pair) for pair in zip(fast.pixels, exact.pixels, strict=True)) > 45

    def test_the_same_request_gives_the_same_bytes_again(self, pipeline: Pipeline) -> None:
        request = pipeline.request("a tiny test", n=5, steps=3, deterministic=False)
        first, second = pipeline(request), pipeline(request)
        assert [tensor_sha256(p) for p in first.pixels] == [tensor_sha256(p) for p in second.pixels]

    def test_lanes_draw_what_one_draws(self, tiny_dir: Path, pipeline: Pipeline) -> None:
        request = pipeline.request("a tiny test", n=7, steps=3, deterministic=False)
        lanes = baguette.load(tiny_dir, threads=2)
        for ours, theirs in zip(lanes(request).latents, pipeline(request).latents, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(("rows", "most"), [(1, 16), (16, 16), (17, 16), (50, 16), (5, 2)])
    def test_parts_are_few_and_nearly_equal(self, rows: int, most: int) -> None:
        found = [len(part) for part in together.parts([row(torch.zeros(1))] * rows, most)]
        assert (sum(found), len(found)) == (rows, -(-rows // most))
        assert max(found) - min(found) <= 1

    def test_cores_go_to_calls_first_and_to_large_ones_only(self) -> None:
        lanes, much, little = Lanes(16), 600 * 10**9, 60 * 10**6
        assert [lanes.cores(calls, much) for calls in (1, 2, 5, 16, 40)] == [16, 8, 3, 1, 1]
        assert [lanes.cores(1, flops) for flops in (little, 5 * 10**9)] == [1, 2]

    def test_a_lane_computes_with_its_own_cores(self) -> None:
        before, lanes = torch.get_num_threads(), Lanes(3)
        counts = [lanes.start(torch.get_num_threads, n).result() for n in (2, 1, 3)]
        assert counts == [2, 1, 3]
        assert torch.get_num_threads() == before

    def test_progress_tells_every_step(self, pipeline: Pipeline) -> None:
        told: list[tuple[int, int, int]] = []
        request = pipeline.request("a tiny test", n=3, steps=4, deterministic=False)
        pipeline(request, lambda step, steps, experts: told.append((step, steps, len(experts))))
        assert told == [(step, 4, 3) for step in range(4)]


class TestWeightsKeptSmall:
    """bf16 and int8 in memory, never expanded for good."""

    def test_a_linear_of_stored_weights_is_that_of_the_expanded_ones(self) -> None:
        torch.manual_seed(1)
        weight, bias, x = torch.randn(12, 7), torch.randn(12), torch.randn(3, 5, 7)
        q = quantize(weight)
        expanded = q.dequantized()
        assert torch.equal(
            linear(x, Stored(q), bias, 3, 9),
            torch.nn.functional.linear(x, expanded[3:9], bias[3:9]),
        )
        half = weight.bfloat16()
        assert torch.equal(
            linear(x, Stored(half), bias), torch.nn.functional.linear(x, half.float(), bias)
        )

    def test_one_buffer_serves_every_layer(self) -> None:
        small, large = (Stored(torch.randn(n, 4).bfloat16()) for n in (2, 9))
        first = small.expanded(FP32).clone()
        address = large.expanded(FP32).data_ptr()
        assert small.expanded(FP32).data_ptr() == address
        assert torch.equal(small.expanded(FP32), first)

    def test_bf16_files_kept_in_bf16_draw_the_bytes_of_fp32(self, tiny_dir: Path) -> None:
        kept = Numbers(CPU, FP32, torch.bfloat16)
        small, wide = load_expert(tiny_dir, 0, kept), load_expert(tiny_dir, 0)
        answers = []
        for expert in (small, wide):
            for name, seed in (("a", 1), ("null", 2)):
                expert.learn(name, torch.randn(12, 16, generator=torch.manual_seed(seed)))
            answers.append(expert.velocity([row(torch.ones(3, 6, 6))]))
        assert torch.equal(*answers)

    def test_memory_holds_what_is_kept(self, tiny_dir: Path) -> None:
        def held(store: torch.dtype) -> int:
            module = load_expert(tiny_dir, 0, Numbers(CPU, FP32, store)).module
            tensors = [*module.parameters(), *module.buffers()]
            return sum(t.numel() * t.element_size() for t in tensors)

        wide, half, quarter = held(FP32), held(torch.bfloat16), held(torch.int8)
        matrices = sum(
            layer.weight.numel()
            for layer in load_expert(tiny_dir, 0).module.modules()
            if isinstance(layer, Linear)
        )
        assert wide - half >= 2 * matrices
        assert wide - quarter >= 2.5 * matrices

    def test_int8_pictures_are_close(self, tiny_dir: Path, pipeline: Pipeline) -> None:
        request = pipeline.request("a tiny test", n=2, steps=4)
        exact = pipeline(request)
        quantised = baguette.load(tiny_dir, precision="int8")
        close = quantised(request, replay=exact.routing)
        assert min(psnr(*pair) for pair in zip(close.pixels, exact.pixels, strict=True)) > 30
        assert any("int8 is how weights are kept" in note for note in quantised.notes)

    def test_what_is_loaded_does_not_hang_on_the_file(self, tiny_dir: Path, tmp_path: Path) -> None:
        model_dir = shutil.copytree(tiny_dir, tmp_path / "model")
        expert = load_expert(model_dir, 0, Numbers(CPU, torch.bfloat16, torch.bfloat16))
        before = expert.module.state_dict()["layers.0.mlp.0.weight"].clone()
        file = model_dir / "expert_0" / "diffusion_pytorch_model.safetensors"
        with file.open("r+b") as handle:
            handle.seek(-before.numel(), 2)
            handle.write(bytes(before.numel()))
        after = expert.module.state_dict()["layers.0.mlp.0.weight"]
        assert torch.equal(before, after)


class TestContexts:
    """One budget for all prompts of all experts of a process."""

    @staticmethod
    def keys_values(value: float) -> KeysValues:
        return [(torch.full((1, 2, 4, 8), value), torch.full((1, 2, 4, 8), -value))]

    ONE = 2 * 2 * 4 * 8 * 4

    def test_a_pair_takes_the_place_of_its_parts(self) -> None:
        cache = ContextCache(100 * self.ONE)
        cache.put(1, ("null",), self.keys_values(0.0), ())
        cache.put(1, ("a",), self.keys_values(1.0), ())
        ((keys, values),) = cache.pair(1, ("null", "a"))
        assert (keys[:, 0, 0, 0].tolist(), values[:, 0, 0, 0].tolist()) == ([0, 1], [0, -1])
        assert cache.bytes == 2 * self.ONE
        cache.put(1, ("b",), self.keys_values(2.0), ())
        ((keys, _),) = cache.pair(1, ("null", "b"))
        assert keys[:, 0, 0, 0].tolist() == [0, 2]
        ((keys, _),) = cache.rows(1, ["b", "a", "null", "a"])
        assert keys[:, 0, 0, 0].tolist() == [2, 1, 0, 1]

    def test_least_recently_used_goes_first_and_never_what_the_call_needs(self) -> None:
        cache = ContextCache(4 * self.ONE)  # a quarter of it for texts
        for name in ("a", "b", "c"):
            cache.put(1, (name,), self.keys_values(1.0), ())
        cache.pair(1, ("a", "a"))  # used, and a pair of two
        cache.put(1, ("d",), self.keys_values(1.0), keep=("a",))
        assert [n for n in "abcd" if cache.holds(1, n)] == ["a", "d"]
        assert cache.bytes <= 3 * self.ONE
        for name in ("e", "f", "g", "h"):
            cache.put(2, (name,), self.keys_values(1.0), keep="efgh")
        assert all(cache.holds(2, name) for name in "efgh")  # needed at once, whatever it takes
        assert not cache.holds(1, "a")

    def test_owners_are_apart_and_give_back(self) -> None:
        cache = ContextCache()
        cache.put(1, ("a",), self.keys_values(1.0), ())
        cache.put(2, ("a",), self.keys_values(2.0), ())
        cache.forget_owner(1)
        assert (cache.holds(1, "a"), cache.holds(2, "a"), cache.bytes) == (False, True, self.ONE)
        cache.forget(2, ["a"])
        assert cache.bytes == 0

    def test_rows_of_many_prompts_are_answered_as_alone(self, tiny_dir: Path) -> None:
        expert = load_expert(tiny_dir, 1)
        torch.manual_seed(3)
        contexts = [Context(name, torch.randn(12, 16)) for name in ("null", "a", "b")]
        rows = [row(torch.randn(3, 6, 6), name) for name in ("a", "b", "a")]
        expert.learn_missing(rows, contexts)
        alone = torch.cat([expert.velocity([one]) for one in rows])
        assert torch.allclose(expert.velocity(rows), alone, atol=1e-5)

    def test_a_budget_too_small_for_a_call_still_serves_it(self, tiny_dir: Path) -> None:
        expert = load_expert(tiny_dir, 1, contexts=ContextCache(1))
        contexts = [Context(name, torch.randn(12, 16)) for name in ("null", "a", "b")]
        for name in ("a", "b", "a"):
            rows = [row(torch.randn(3, 6, 6), name)]
            expert.learn_missing(rows, contexts)
            assert expert.velocity(rows).isfinite().all()

    def test_what_was_pushed_out_is_made_again_from_its_text(self, tiny_dir: Path) -> None:
        torch.manual_seed(3)
        contexts = [Context(name, torch.randn(12, 16)) for name in ("null", "a", "b")]
        rows = [row(torch.randn(3, 6, 6), name) for name in ("a", "b", "a")]
        large, small = ContextCache(), ContextCache(8 << 10)
        answers = []
        for cache in (large, small):
            first, second = (load_expert(tiny_dir, number, contexts=cache) for number in (1, 2))
            first.learn_missing(rows, contexts)
            assert second.missing(rows) == []  # a text is the same for every expert
            answers.append(torch.cat([e.velocity([r]) for r in rows for e in (first, second)]))
        assert torch.equal(*answers)
        assert small.bytes < large.bytes
        assert small.texts.bytes == large.texts.bytes == 3 * 12 * 16 * 4

    def test_texts_least_recently_used_go_first(self) -> None:
        texts = Texts(3 * 4)
        for name in ("a", "b", "c"):
            texts.put(name, torch.zeros(1), ())
        texts.get("a")
        texts.put("d", torch.zeros(1), keep=("b",))
        assert [name for name in "abcd" if texts.holds(name)] == ["a", "b", "d"]
        texts.put("d", torch.zeros(2), ())
        assert (texts.bytes, texts.holds("b")) == (3 * 4, False)


class TestResidency:
    """Fewer places on the device than experts."""

    @staticmethod
    def networks(count: int) -> dict[int, torch.nn.Module]:
        networks: dict[int, torch.nn.Module] = {}
        for number in range(count):
            networks[number] = torch.nn.Linear(2, 2)
            torch.nn.init.constant_(networks[number].weight, number)
        return networks

    def test_who_is_visited_has_its_own_weights(self) -> None:
        networks = self.networks(5)
        residency = Residency(networks, CPU, 2)
        for wanted in ([0, 1], [1, 3, 4], [4], [0, 1, 2, 3, 4], [2]):
            seen = []
            for number in residency.visit(wanted):
                assert networks[number].weight.eq(number).all()
                seen.append(number)
            assert sorted(seen) == wanted

    def test_the_present_come_first_and_cost_no_upload(self) -> None:
        residency = Residency(self.networks(4), CPU, 2)
        list(residency.visit([2, 3]))
        assert residency.uploads == 2
        assert list(residency.visit([0, 3])) == [3, 0]
        assert residency.uploads == 3
        assert list(residency.visit([0, 3])) == [0, 3]
        assert residency.uploads == 3

    def test_one_place_serves_all(self) -> None:
        networks = self.networks(3)
        residency = Residency(networks, CPU, 1)
        for number in residency.visit([2, 0, 1]):
            assert networks[number].weight.eq(number).all()

    def test_experts_answer_the_same_from_their_places(self, tiny_dir: Path) -> None:
        kept = Numbers(CPU, FP32, torch.int8)
        experts = {number: load_expert(tiny_dir, number, kept) for number in range(3)}
        contexts = [Context(name, torch.randn(12, 16)) for name in ("null", "a")]
        rows = [row(torch.ones(3, 6, 6))]
        before = {}
        for number, expert in experts.items():
            expert.learn_missing(rows, contexts)
            before[number] = expert.velocity(rows)
        modules = {number: expert.module for number, expert in experts.items()}
        residency = Residency(modules, CPU, 1)
        for _ in range(2):
            for number in residency.visit([0, 1, 2]):
                assert torch.equal(experts[number].velocity(rows), before[number])


class TestCompiled:
    """torch.compile for calls that need not be canonical."""

    def test_row_counts_are_filled_up_to_few(self) -> None:
        assert [bucket(n) for n in (1, 3, 16, 17, 32, 40)] == [1, 4, 16, 32, 32, 40]
        assert list(BUCKETS) == sorted(BUCKETS)

    @pytest.mark.skipif(not COMPILES, reason="needs a C++ compiler and Python's headers")
    def test_compiled_rows_are_the_plain_ones_within_rounding(self, tiny_dir: Path) -> None:
        plain = load_expert(tiny_dir, 0, Numbers(CPU, FP32, torch.int8))
        contexts = [Context(name, torch.randn(12, 16)) for name in ("null", "a")]
        rows = [row(torch.randn(3, 6, 6)) for _ in range(3)]
        plain.learn_missing(rows, contexts)
        before = plain.together(rows)()
        plain.compile()
        assert torch.allclose(plain.together(rows)(), before, atol=1e-4)
        assert torch.equal(plain.velocity(rows), before)  # canonical calls never are


class TestRoom:
    """What does not fit is refused before it is read, with what would."""

    PARIS = Sizes(lambda p: {"fp32": 24, "bf16": 12, "int8": 6}[p] * 10**8, 10**9, 10**9)

    def refused(self, runtime: Runtime, device: float, host: float = 64.0) -> str:
        gpu = torch.device("cuda:0")
        there = Need(int(device * 1e9), int(host * 1e9))
        with pytest.raises(OutOfMemory) as caught:
            room.refuse(self.PARIS, 8, runtime, gpu, there)
        return str(caught.value)

    def test_the_first_offload_that_fits_is_named(self) -> None:
        assert self.refused(Runtime("bf16"), 7.0) == (
            "bf16 needs about 12 GB on cuda:0, where 7.0 GB are free; "
            "--offload 4 needs about 6.8 GB"
        )
        room.refuse(
            self.PARIS,
            8,
            Runtime("bf16", offload=4),
            torch.device("cuda:0"),
            Need(7 * 10**9, 10**11),
        )

    def test_smaller_weights_are_named_where_offload_is_not_enough(self) -> None:
        assert "--precision int8 --offload 7 needs about 2.6 GB" in self.refused(
            Runtime("bf16"), 3.0
        )

    def test_no_way_is_said_too(self) -> None:
        assert "no other setting fits either" in self.refused(Runtime("bf16"), 1.0)

    @pytest.mark.parametrize(
        ("asked", "gpu", "there", "said"),
        [
            (Runtime("bf16"), True, 8.0, "memory ran out; --offload 3 needs about 8.0 GB"),
            (Runtime("bf16"), False, 80.0, "memory ran out; --precision int8 needs about 6.8 GB"),
            (Runtime("int8"), False, 80.0, "memory ran out; ask for fewer images with"),
        ],
    )
    def test_what_ran_out_in_the_middle_is_told_what_needs_less(
        self, asked: Runtime, gpu: bool, there: float, said: str
    ) -> None:
        room_there = Need(int(there * 1e9), 10**11)
        assert said in room.advice(self.PARIS, 8, asked, 16, gpu, room_there)

    def test_offloaded_experts_need_cpu_memory(self) -> None:
        runtime = Runtime("bf16", offload=4)
        assert "of CPU memory for the offloaded experts" in self.refused(runtime, 8.0, 2.0)

    def test_a_cpu_has_no_offload_to_offer(self) -> None:
        with pytest.raises(OutOfMemory, match=r"; --precision int8 needs about 6.8 GB$"):
            room.refuse(self.PARIS, 8, Runtime("fp32"), CPU, Need(7 * 10**9, 7 * 10**9))

    def test_a_model_that_cannot_fit_is_refused_before_it_is_read(
        self, tiny_dir: Path, tmp_path: Path
    ) -> None:
        model_dir = shutil.copytree(tiny_dir, tmp_path / "model")
        config = model_dir / "expert_0" / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_size": 1 << 17}))
        with pytest.raises(OutOfMemory, match=r"^fp32 needs about \d+ GB of memory, where"):
            baguette.load(model_dir)


class TestNumbers:
    """Device and dtypes."""

    def test_fp32_computes_in_fp32(self) -> None:
        assert numbers(Runtime()) == Numbers(named("auto"), FP32, FP32)

    @pytest.mark.parametrize("precision", ["bf16", "int8"])
    def test_small_weights_on_a_cpu_say_what_they_compute_in(self, precision: str) -> None:
        found = numbers(Runtime(precision, device="cpu"))
        assert found.store == {"bf16": torch.bfloat16, "int8": torch.int8}[precision]
        (note,) = found.notes
        has = bf16_instructions()
        assert found.compute == (torch.bfloat16 if has else FP32)
        assert f"computes in {'bf16' if has else 'fp32'}" in note

    @pytest.mark.parametrize(
        ("flags", "found"),
        [
            ("flags\t\t: fpu avx512f avx512_bf16 avx512_vnni", "avx512_bf16"),
            ("flags\t\t: avx512_bf16 amx_bf16 amx_tile", "amx_bf16"),
            ("flags\t\t: fpu avx2", ""),
            ("Features\t: fp asimd bf16", ""),  # measured on none of these
            ("", ""),
        ],
    )
    def test_instructions_for_bf16_are_read_from_the_kernels_own_list(
        self, flags: str, found: str
    ) -> None:
        assert bf16_among(f"processor\t: 0\n{flags}\nbogomips\t: 1\n") == found

    @pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU says")
    def test_a_gpu_that_is_not_there_is_refused(self) -> None:
        with pytest.raises(BadInput, match=r"cuda:3.* but torch .*: name cpu, or leave it out"):
            named("cuda:3")

    def test_offload_without_a_gpu_is_taken_with_one_line(self, tiny_dir: Path) -> None:
        pipeline = baguette.load(tiny_dir, offload=2, device="cpu")
        assert pipeline.notes == [
            "offload changes nothing: without a GPU experts are in CPU memory"
        ]

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"precision": "fp8"}, "precision got 'fp8' but expected bf16, int8 or fp32"),
            ({"device": "tpu"}, "device got 'tpu' but expected auto, cpu, cuda or cuda:N"),
            ({"offload": 3}, "offload got 3 but expected 0..2"),
            ({"threads": 0}, "threads got 0 but expected 1..256"),
        ],
    )
    def test_wrong_options_are_named(
        self, tiny_dir: Path, given: dict[str, object], message: str
    ) -> None:
        with pytest.raises(BadInput) as caught:
            baguette.load(tiny_dir, **given)
        assert str(caught.value) == message


def test_quantised_rows_are_within_half_a_step() -> None:
    weight = torch.randn(6, 50, generator=torch.manual_seed(0))
    q: Quantized = quantize(weight)
    assert ((q.dequantized() - weight).abs() <= q.scale / 2 + 1e-7).all()
    assert q.values.abs().amax(dim=1).eq(127).all()
