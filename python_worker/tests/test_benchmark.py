"""`benchmark`: its tables, what it refuses, how it is interrupted; the baseline; the costs."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import baguette
from baguette.__main__ import main
from baguette.benchmark import settings
from baguette.benchmark.comparison import thread_counts
from baguette.benchmark.measuring import Compared, Plan, Results, too_long
from baguette.benchmark.plain import LADDER, Plain, Way
from baguette.benchmark.report import markdown
from baguette.benchmark.settings import EVEN, ONE, OWN, Row, Setting
from baguette.families.paris import cost, full_size
from baguette.families.paris.config import ExpertConfig, ModelConfig, RouterConfig
from baguette.families.paris.expert import Expert
from baguette.families.paris.requester import Requester
from baguette.pipeline import Pipeline
from baguette.room import Need, Sizes

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
GB = 10**9


@pytest.fixture
def bench(tiny_dir: Path, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run `benchmark` in this process: (status, standard output, standard error)."""

    def command(*words: str) -> tuple[int, str, str]:
        model = () if "--model" in words or "--random" in words else ("--model", str(tiny_dir))
        try:
            status = main(["benchmark", *model, *words])
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        return status, *capfd.readouterr()

    return command


def rows_of(text: str, heading: str) -> list[list[str]]:
    """The body of the Markdown table whose heading begins so."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(heading))
    body = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        body.append([cell.strip() for cell in line.strip("|").split("|")])
    return body


def test_quick_measures_and_writes_both_files(bench: Any, tmp_path: Path) -> None:
    report, samples = tmp_path / "out" / "results.md", tmp_path / "bench.json"
    status, out, err = bench(
        "--quick", "--threads", "1", "--num_steps", "2", "--batch", "2", "--device", "cpu",
        "--output", str(report), "--json", str(samples),
    )  # fmt: skip
    assert (status, out) == (0, ""), err
    text, record = report.read_text(), json.loads(samples.read_text())
    ((name, memory, speed, notes),) = rows_of(text, "| Configuration | Memory | Speed | Notes |")
    assert name == "BF16, no offload, batch 2"
    assert notes in ("computes in float32", "computes in bfloat16")
    (row,) = record["settings"]
    assert row["memory_bytes"]["resident"] >= row["memory_bytes"]["before_loading"] > 1 << 26
    assert memory.startswith(f"{row['memory_bytes']['resident'] / (1 << 20):,.0f} MiB, ")
    assert len(row["seconds"]) == 3
    total = sorted(run["total"] for run in row["seconds"])[1]
    assert speed == f"{2 / total:.3g} img/s"
    for run in row["seconds"]:
        parts = sum(run[part] for part in ("encode", "route", "experts", "advance", "decode"))
        assert 0.5 * run["total"] < parts <= run["total"]
    names = [cells[0] for cells in rows_of(text, "| | dtype | threads |")]
    assert names == ["plain loop", "Baguette"]
    assert "times as fast as the plain loop at its best, at 4 images." in text
    assert "threads: 1" in text
    assert "paris-tiny, 3 experts, 2 steps, top-2" in text
    counted = {what: (ours, paris) for what, ours, paris in rows_of(text, "| Counted |")}
    assert counted["an expert, one guidance branch of one image"] == ("0.2 MFLOP", "288.8 GFLOP")
    assert counted["weights of an expert, bf16"][1] == "1.21 GB"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--device", "tpu"], "--device got 'tpu' but expected auto, cpu, cuda or cuda:N"),
        (["--threads", "0"], "--threads got 0 but expected 1..256"),
        (["--num_steps", "0"], "--num_steps got 0 but expected 1..250"),
        (["--batch", "65"], "--batch got 65 but expected 1..64"),
        (["--batch", "1;2"], "got '1;2' but expected numbers like 1,4,16"),
        (["--precision", "bf16,fp8"], "--precision got 'fp8' but expected bf16, int8 or fp32"),
        (["--offload", "0,3"], "--offload got 3 but expected 0..2"),
        (["--output", "/proc/x.md"], "--output '/proc/x.md' cannot be written"),
        (["--json", "/proc"], "--json '/proc' cannot be written"),
        (["--json", "x", "--output", "x"], "--output and --json name the same file 'x'"),
        (["--model", "/nowhere"], "--model got '/nowhere' but there is no such directory"),
        (["--random", "--model", "/nowhere"], "--random and --model exclude each other"),
        (["--quik"], "unrecognized arguments: --quik"),
    ],
)
def test_a_bad_value_is_one_sentence(bench: Any, words: list[str], sentence: str) -> None:
    status, out, err = bench(*words)
    assert (status, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU says")
def test_a_gpu_that_is_not_there_is_refused(bench: Any) -> None:
    status, out, err = bench("--random", "--device", "cuda")
    assert (status, out) == (2, "")
    assert "--device got 'cuda' but torch" in err
    assert err.count("\n") == 1


def test_a_damaged_model_is_one_sentence(bench: Any, damaged: Any) -> None:
    model = damaged("expert_1/diffusion_pytorch_model.safetensors", lambda content: content[:-9])
    status, out, err = bench("--quick", "--model", str(model), "--batch", "1", "--device", "cpu")
    assert (status, out) == (1, "")
    assert "expert_1/diffusion_pytorch_model.safetensors is not a whole safetensors file" in err
    assert err.count("\n") == 1


def test_what_would_take_hours_is_told_instead(tiny_dir: Path) -> None:
    plan = Plan(tiny_dir, "cpu", 1, 30, 5, [], 16, True)
    slow = Results(plan, ModelConfig.read(tiny_dir), cost.published(), False, 100, [])
    # 35.3 TFLOP an image, a warm-up and five rounds: 35 minutes at 100 GFLOP/s.
    said = "not measured: would take over 35 minutes; lower --num_steps"
    assert too_long(slow, 1, 1) == said
    assert too_long(replace(slow, bf16_gain=2.0), 1, 1) is None


def test_an_interrupt_ends_it_and_its_processes(tiny_dir: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    out = tmp_path / "results.md"
    words = ["--model", str(tiny_dir), "--output", str(out), "--device", "cpu", "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "benchmark.py"), *words],
        cwd=tmp_path, stderr=theirs, stdout=subprocess.PIPE,
    )  # fmt: skip
    os.close(theirs)
    told = b""
    while b"loading" not in told:
        told += os.read(ours, 4096)
    started = psutil.Process(process.pid)
    while not (children := started.children()):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == b""
    assert process.returncode == -signal.SIGINT  # $? is 130
    assert not any(child.is_running() for child in children)
    told += os.read(ours, 4096)
    os.close(ours)
    assert told.endswith(b"stopped; nothing was written\r\n")
    assert b"Traceback" not in told
    assert list(tmp_path.iterdir()) == []


class TestPlain:
    """The baseline draws what the pipeline draws, so that it is the same work."""

    @pytest.fixture(scope="class")
    def pipeline(self, tiny_dir: Path) -> Pipeline:
        return baguette.load(tiny_dir)

    @pytest.fixture(scope="class")
    def plain(self, tiny_dir: Path) -> Plain:
        return Plain(tiny_dir, CPU, torch.float32)

    @pytest.mark.parametrize("way", [way for _, way in LADDER] + [Way(images=True)])
    def test_every_rung_draws_the_same_pictures(
        self, pipeline: Pipeline, plain: Plain, way: Way
    ) -> None:
        request = pipeline.request("a tiny test", n=5, steps=3, deterministic=False, seed=7)
        ours = pipeline(request)
        theirs = plain.draw(request, way, ours.routing)
        for mine, other in zip(ours.latents, theirs.latents, strict=True):
            assert torch.allclose(mine, other, rtol=1e-4, atol=1e-4)
        for mine, other in zip(ours.pixels, theirs.pixels, strict=True):
            assert int((mine.int() - other.int()).abs().max()) <= 1

    def test_it_asks_the_router_as_the_pipeline_does(
        self, pipeline: Pipeline, plain: Plain
    ) -> None:
        request = pipeline.request("a tiny test", n=3, steps=2, negative_prompt="a star")
        ours, theirs = pipeline(request), plain.draw(request)
        for mine, other in zip(ours.routing, theirs.routing, strict=True):
            for one, two in zip(mine, other, strict=True):
                assert one.experts == two.experts
                assert one.weights == pytest.approx(two.weights, abs=1e-5)

    def test_thread_counts_end_with_every_core(self) -> None:
        assert [list(thread_counts(n)) for n in (1, 2, 6, 8)] == [
            [1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8],
        ]  # fmt: skip


class TestCost:
    """Counted by formula, held against torch's counter and the published figures."""

    def test_paris_costs_what_is_published(self) -> None:
        paris = cost.published()
        assert paris.blocks / 1e9 == pytest.approx(288.8, abs=0.05)  # one guidance branch
        assert paris.router_blocks / 1e9 == pytest.approx(46, abs=0.5)
        assert paris.image(30, 2) / 1e12 == pytest.approx(36.0, abs=0.05)
        assert 0.03 < paris.keys_values / paris.blocks < 0.05
        assert paris.context_bytes("bf16") == pytest.approx(10e6, rel=0.01)

    def test_parameters_and_bytes_are_as_published(self) -> None:
        paris = cost.published()
        assert paris.matrices + paris.others == 605_970_448
        router = 129_136_904
        whole = 8 * paris.expert_bytes("bf16") + 2 * router
        assert whole / (1 << 30) == pytest.approx(9.27, abs=0.005)
        assert (8 * paris.expert_bytes("int8") + 2 * router) / (1 << 30) < 4.8

    def test_the_parts_are_what_torch_counts(self, tiny_dir: Path) -> None:
        costs, requester = cost.of_model(tiny_dir), Requester(tiny_dir)
        expert = Expert(ExpertConfig(**json.loads((tiny_dir / "expert_0/config.json").read_text())))
        config, length = expert.config, requester.text.length
        x = torch.randn(1, config.in_channels, config.image_size, config.image_size)
        t, text = torch.tensor([500.0]), torch.randn(1, length, config.text_embed_dim)
        ids = torch.zeros(1, length, dtype=torch.long)

        def counted(call: Any, *given: Any) -> int:
            # Attention as plain products: the counter knows no CPU's fused kernel.
            counter = FlopCounterMode(display=False)
            with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
                call(*given)
            return counter.get_total_flops()

        assert counted(expert, x, t, text) == costs.expert
        assert counted(expert.keys_values, text) == costs.keys_values
        assert counted(expert.modulation, t) == costs.modulation
        assert counted(requester.router.module, x, t) == costs.router
        assert counted(requester.router.module.modulation, t) == costs.router_modulation
        assert counted(requester.text.model, ids) == costs.text
        assert counted(requester.decoder.vae.decode, x) == costs.decoder
        assert sum(p.numel() for p in expert.parameters()) == costs.matrices + costs.others


class TestSettings:
    """What is measured, and what is told instead."""

    PARIS = Sizes(lambda precision: {"fp32": 4, "bf16": 2, "int8": 1}[precision] * GB, GB, GB)

    def test_what_does_not_fit_says_what_it_needs(self) -> None:
        setting = Setting("bf16", 0, 16)
        room = Need(12 * GB, 64 * GB)
        assert settings.too_large(setting, self.PARIS, 8, True, room) == (
            "does not fit: needs about 19.0 GB on the GPU, 12.0 GB are free"
        )
        smaller = replace(setting, offload=6)
        assert settings.too_large(smaller, self.PARIS, 8, True, room) is None
        low = Need(12 * GB, 8 * GB)
        said = settings.too_large(smaller, self.PARIS, 8, True, low)
        assert said == "does not fit: needs about 16.8 GB of CPU memory, 8.0 GB are free"

    def test_offloading_is_not_measured_without_a_gpu(self) -> None:
        said = settings.too_large(
            Setting("bf16", 4, 1), self.PARIS, 8, False, Need(99 * GB, 99 * GB)
        )
        assert said == "not measured: offloading needs a GPU"

    def test_those_that_fit_beside_each_other_take_turns(self) -> None:
        rows = [Row(Setting(precision, 0, 1)) for precision in ("bf16", "int8", "fp32")]
        needs = {1: self.PARIS}

        def sizes(free: int) -> list[int]:
            there = Need(free * GB, free * GB)
            return [len(group) for group in settings.groups(rows, needs, 8, True, there)]

        assert sizes(200) == [3]
        assert sizes(45) == [2, 1]
        assert sizes(20) == [1, 1, 1]

    def test_imposed_routings_are_even_or_always_the_same(self) -> None:
        even = settings.routing(EVEN, 16, 8, 2, 8)
        assert even is not None
        for step in range(8):
            asked = [expert for image in even for expert in image[step].experts]
            assert sorted(asked) == sorted([*range(8)] * 4)
        alone = settings.routing(EVEN, 1, 8, 2, 8)
        assert alone is not None
        assert {expert for choice in alone[0] for expert in choice.experts} == set(range(8))
        one = settings.routing(ONE, 2, 3, 2, 8)
        assert one is not None
        assert {choice.experts for image in one for choice in image} == {(0, 1)}
        assert settings.routing(OWN, 2, 3, 2, 8) is None

    def test_the_report_of_a_gpu_shows_its_memory_and_utilisation(self, tiny_dir: Path) -> None:
        plan = Plan(tiny_dir, "cuda", 4, 6, 3, [], 16, True, EVEN)
        good = Row(Setting("bf16", 4, 2, compile=True, routing=EVEN), notes=["computes in bf16"])
        good.seconds = [dict.fromkeys(("route", "experts", "advance"), 0.12)] * 3
        good.seconds = [run | {"encode": 0.1, "decode": 0.2, "total": 0.5} for run in good.seconds]
        good.memory = {"allocated": 3 << 30, "reserved": 4 << 30}
        bad = Row(Setting("fp32", 0, 2), why="does not fit: needs about 40 GB on the GPU")
        costs = cost.of_model(tiny_dir)
        rate = costs.kept(6, 2) * 16 // 10**9 + 1
        results = Results(plan, ModelConfig.read(tiny_dir), costs, True, rate, [good, bad])
        results.compared = Compared(16, "not measured: needs about 9 GB")
        text = markdown(results)
        first, second = rows_of(text, "| Configuration | GPU memory | Speed | Notes |")
        assert first[:3] == [
            "BF16, offload 4, batch 2, compiled, all experts evenly",
            "3.00 GiB used, 4.00 GiB reserved", "4 img/s",
        ]  # fmt: skip
        assert first[3].startswith("computes in bf16; ")
        assert first[3].endswith("% of the matrix rate")
        assert second == [
            "FP32, no offload, batch 2", "", "does not fit", "needs about 40 GB on the GPU",
        ]  # fmt: skip
        (parts,) = rows_of(text, "| Configuration | encode")
        assert parts[1:] == ["100", "10", "10", "10", "100", "0.5"]
        assert "Baguette: 16 images: not measured: needs about 9 GB." in text
        assert "The routing was imposed" in text


def test_random_weights_of_any_size_draw(tmp_path: Path) -> None:
    expert = ExpertConfig(
        hidden_size=32, num_layers=2, num_heads=2, image_size=4, text_embed_dim=16
    )
    router = RouterConfig(num_clusters=3, hidden_size=32, num_layers=2, num_heads=2, image_size=4)
    text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 12}
    vae = {"block_out_channels": [8, 8], "layers_per_block": 1, "latent_channels": 4}
    vae |= {"norm_num_groups": 4, "sample_size": 8}
    model = full_size.build(tmp_path, expert=expert, router=router, text=text, vae=vae)
    pipeline = baguette.load(model)
    request = pipeline.request("a tiny test", n=2, steps=3, deterministic=False)
    drawn = pipeline(request, replay=settings.routing(EVEN, 2, 3, 2, 3))
    assert [tuple(image.shape) for image in drawn.pixels] == [(8, 8, 3)] * 2
    assert not torch.equal(*drawn.latents)
    assert pipeline.config.num_experts == 3
    assert pipeline.request("a").steps == 30
