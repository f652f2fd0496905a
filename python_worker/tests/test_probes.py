"""What a machine is and how fast: measured in short steps, kept, and measured again when stale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from baguette import kept, machine, probe
from baguette.device import compute_device
from baguette.errors import BadInput
from baguette.kept import Kept
from baguette.machine import Gpu, Gpus, Machine, TorchBuild
from baguette.worker import expert_entry, held
from baguette.worker.payload import pack, unpack
from baguette.worker.tensor import pack_tensor

KEY = {"cpu": "A CPU", "torch": "2.13.0"}


def call(function: Any, **values: Any) -> dict[str, Any]:
    return unpack(function(pack(values)))


def machine_with(gpus: Gpus) -> Machine:
    return Machine("A CPU", 4, 8, 16000, 9000, gpus)


ONE_GPU = machine_with(Gpus((Gpu("A GPU", 24000, 23000),), "600.1", ""))
NO_GPU = machine_with(Gpus((), None, "no driver"))


def test_this_machine_is_described() -> None:
    seen = machine.machine()
    assert seen.cpu
    assert 1 <= seen.cores <= seen.logical_cores
    assert 0 < seen.ram_free_mib <= seen.ram_mib
    assert bool(seen.gpus.found) != bool(seen.gpus.reason)


def test_without_the_drivers_module_there_is_no_gpu_and_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    seen = machine.gpus()
    assert (seen.found, seen.driver) == ((), None)
    assert "pynvml" in seen.reason


def test_the_best_gpu_is_used_unless_somebody_chose() -> None:
    small, large = Gpu("GT 1030", 2048, 2000, "GPU-aa11"), Gpu("RTX 4090", 24564, 24000, "GPU-bb22")
    both = (small, large)
    assert machine.usable(both, None) == (large, small)
    assert machine.usable(both, "0") == (small,)
    assert machine.usable(both, "1, 0") == (large, small)
    assert machine.usable(both, "GPU-bb") == (large,)
    assert machine.usable(both, "GPU-") == ()
    for hidden in ("", "-1", "7", "nonsense,0"):
        assert machine.usable(both, hidden) == ()


def test_cuda_sees_the_gpu_that_was_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    machine.use(Gpus((Gpu("RTX 4090", 24564, 24000, "GPU-bb22"),), "600.1", ""))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-bb22"
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_experts_are_placed_by_the_memory_of_the_device_they_compute_on() -> None:
    cuda, cpu = TorchBuild("2.13.0", "13.0"), TorchBuild("2.13.0+cpu", None)
    assert machine.device(ONE_GPU, cuda) == "cuda"
    assert machine.device(ONE_GPU, cpu) == machine.device(NO_GPU, cuda) == "cpu"
    assert machine.component_memory_mib(ONE_GPU, "cuda") == 23000 - machine.CONTEXTS_MIB
    assert machine.component_memory_mib(ONE_GPU, "cpu") == 9000 - machine.CONTEXTS_MIB


def test_a_gpu_that_shares_the_machines_memory_is_counted_by_that() -> None:
    shared = machine_with(Gpus((Gpu("GB10", 0, 0),), "600.1", ""))
    assert machine.component_memory_mib(shared, "cuda") == 9000 - machine.CONTEXTS_MIB


def test_torchs_build_is_known_without_importing_it() -> None:
    code = "import sys; from baguette import machine as m; print(m.torch_build()); "
    code += "m.machine(); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(machine.torch_build())
    assert machine.torch_build() == TorchBuild(torch.__version__, torch.version.cuda)


@pytest.fixture
def worker(tiny_dir: Path, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Start the expert worker's state as a process would; gives the component it holds."""

    def start() -> str:
        expert_entry._held.clear()
        call(expert_entry.machine, threads=1, probe_file=str(tmp_path / "probes.json"))
        call(expert_entry.warm, threads=1)
        about = call(expert_entry.inventory, model_dir=str(tiny_dir))
        part = about["components"][0]
        name, key = str(part["name"]), part["key"]
        call(expert_entry.load, model_dir=str(tiny_dir), component=name, key=key)
        return name

    yield start
    expert_entry._held.clear()


def explored() -> tuple[int, dict[str, Any]]:
    """Every step: how many it took, and what is known then."""
    for steps in range(1000):
        answer = call(expert_entry.explore)
        if answer["done"]:
            return steps, answer["speed"]
    raise AssertionError("it never ends")


def test_everything_is_measured_in_short_steps_of_whole_numbers(worker: Any) -> None:
    name = worker()
    assert call(expert_entry.probe, component=name, batches=[1])["micros"]["1"] > 0
    start = time.perf_counter()
    steps, speed = explored()
    assert steps > 20
    assert time.perf_counter() - start < 20
    assert speed["device"] in ("cpu", "cuda")
    rates = [speed[name] for name in ("matmul_gflops", "cpu_gflops", "memory_mib_s")]
    assert all(isinstance(rate, int) and rate > 0 for rate in rates)
    assert sorted(speed["call_us"]) == ["1", "16", "4"]
    assert set(speed["rows_equal"]) <= {2, 4, 8}
    assert speed["skipped"] == []


def test_what_is_known_is_not_measured_again(worker: Any, monkeypatch: Any) -> None:
    name = worker()
    _, before = explored()
    worker()

    def measured(*_: Any) -> None:
        raise AssertionError("it was measured again")

    for function in ("matmul_gflops", "memory_mib_s", "call_us", "rows_equal"):
        monkeypatch.setattr(probe, function, measured)
    call(expert_entry.probe, component=name, batches=[1, 4, 16])
    assert explored() == (0, before)


def test_what_is_built_alike_is_measured_once(worker: Any, tiny_dir: Path, tmp_path: Path) -> None:
    worker()
    explored()
    components = json.loads((tmp_path / "probes.json").read_text())["components"]
    assert len(components) == 1
    call(expert_entry.unload, component="paris-tiny/expert-0")
    part = call(expert_entry.inventory, model_dir=str(tiny_dir))["components"][1]
    wanted = {"component": part["name"], "key": part["key"]}
    call(expert_entry.load, model_dir=str(tiny_dir), **wanted)
    before = json.loads((tmp_path / "probes.json").read_text())["components"]
    steps, _ = explored()
    assert steps == 0
    assert json.loads((tmp_path / "probes.json").read_text())["components"] == before
    assert len(before) == 1


def test_nodes_of_one_machine_measure_in_turn_and_agree(tmp_path: Path) -> None:
    path = tmp_path / "new" / "probes.json"
    one, two = (kept.Kept(path, {"cpu": "x"}) for _ in range(2))
    began, done = threading.Event(), []

    def second() -> None:
        began.set()
        with two.turn():
            done.append(two.component("kind"))

    two.put_component("kind", load_us_per_mib=7, call_us={"1": 9, "4": 8})
    with one.turn():
        thread = threading.Thread(target=second)
        thread.start()
        assert began.wait(10)
        one.put_component("kind", call_us={"1": 5})
        assert done == []
    thread.join(10)
    assert done == [{"load_us_per_mib": 7, "call_us": {"1": 5, "4": 8}}]


def test_a_component_that_goes_while_it_is_explored_disturbs_nobody(worker: Any) -> None:
    name = worker()
    for _ in range(8):
        call(expert_entry.explore)
    call(expert_entry.unload, component=name)
    assert explored()[1]["call_us"] == {}


def test_a_batch_is_bounded(worker: Any) -> None:
    with pytest.raises(BadInput, match=r"1\.\.256"):
        call(expert_entry.probe, component=worker(), batches=[100_000])


def test_larger_batches_of_a_slow_component_are_skipped_and_said(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = worker()
    monkeypatch.setattr(probe, "SLOW_US", 1)
    answer = call(expert_entry.probe, component=name, batches=[1, 4, 16])
    assert (list(answer["micros"]), answer["skipped"]) == (["1"], [4, 16])
    assert explored()[1]["rows_equal"] == []


def test_nothing_of_the_probes_stays_in_the_expert(worker: Any) -> None:
    name = worker()
    explored()
    expert = expert_entry._held[name].expert
    assert (expert.contexts.bytes, expert.contexts.texts.bytes) == (0, 0)


def test_rows_that_differ_in_a_batch_are_told() -> None:
    def call_(rows: Any) -> Tensor:
        exact = torch.tensor([float(row) for row in rows])
        return exact + (1e-6 if len(rows) == 4 else 0)

    steps = probe.rows_equal(call_, (2, 4, 8), one_us=1)
    assert answer_of(steps) == [2, 8]


@pytest.mark.parametrize(("threads", "counted"), [(1, False), (2, True)])
def test_the_only_thread_of_a_worker_is_not_charged_for_its_waits(
    threads: int, counted: bool
) -> None:
    if compute_device().type != "cpu":
        pytest.skip("a GPU is waited for")
    before = torch.get_num_threads()

    def call_(rows: Any) -> Tensor:
        time.sleep(0.1)  # as for a core that others have
        return torch.zeros(len(rows))

    torch.set_num_threads(threads)
    try:
        assert (answer_of(probe.call_us(call_, 4)) >= 100_000) is counted
    finally:
        torch.set_num_threads(before)


def answer_of(steps: Generator[None, None, Any]) -> Any:
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


def test_real_calls_are_timed_per_image(worker: Any) -> None:
    name = worker()
    before = call(expert_entry.stats)
    assert (before["calls"], before["image_us"]) == (0, 0)
    row = {
        "latent": pack_tensor(torch.zeros(3, 6, 6)), "t": 1.0, "network_t": 1000.0,
        "context": "c", "null": "n", "scale": 2.0,
    }  # fmt: skip
    contexts = [{"hash": h, "tensor": pack_tensor(torch.zeros(12, 16))} for h in ("c", "n")]
    ask = {"component": name, "canonical": True, "rows": [row, row], "contexts": contexts}
    for _ in range(16):  # of two images each
        call(expert_entry.velocity, **ask)
    after = call(expert_entry.stats)
    assert after["calls"] == 16
    assert after["image_us"] > 0
    assert after["rss_peak_mib"] >= after["rss_mib"] > 0
    assert after["ram_free_mib"] > 0
    now = after["device_now"]
    assert now["name"]
    assert 0 < now["used_mib"] < now["memory_mib"]
    assert after["device"] == "cuda" or now["temperature_c"] is None


class Driver:
    """A driver's library, of a card that has no thermometer."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:  # noqa: N802
        return type("Rates", (), {"gpu": 37})()

    def nvmlDeviceGetPowerUsage(self, handle: str) -> int:  # noqa: N802
        return 41250

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:  # noqa: N802
        raise self.NVMLError


def test_what_a_gpu_is_now_is_told_and_what_it_does_not_say_is_none() -> None:
    readings = machine.readings(Driver(), "handle")
    assert readings == machine.Readings(0.37, None, 41.25)
    seen = machine_with(Gpus((Gpu("A GPU", 24000, 23000, "", readings),), "600.1", ""))
    assert machine.device_now(seen, "cuda") == {
        "name": "A GPU", "memory_mib": 24000, "used_mib": 1000,
        "utilisation": 0.37, "temperature_c": None, "power_w": 41.25,
    }  # fmt: skip


def test_a_gpu_that_torch_cannot_use_is_not_the_device() -> None:
    now = machine.device_now(ONE_GPU, "cpu")
    assert now["name"] == ONE_GPU.cpu
    assert now["memory_mib"] == ONE_GPU.ram_mib
    assert now["used_mib"] == ONE_GPU.ram_mib - ONE_GPU.ram_free_mib
    assert now["utilisation"] is None


def test_the_fastest_of_the_last_calls_counts() -> None:
    served = held.Served()
    for micros in (1000, 9000, 1100):
        served.image(micros)
    assert served.to_map()["image_us"] == 0
    for _ in range(29):
        served.image(2000)
    assert served.to_map()["image_us"] == 1000
    for _ in range(50):
        served.image(2000)
    assert served.to_map()["image_us"] == 2000


def test_figures_survive_in_their_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "probes.json"
    first = Kept(path, KEY)
    first.put_machine(matmul_gflops=90)
    first.put_component("c", call_us={"1": 5}, rows_equal=[2], skipped=[])
    first.put_component("c", load_us_per_mib=7)
    again = Kept(path, KEY)
    assert again.machine() == {"matmul_gflops": 90}
    assert again.component("c") == {
        "call_us": {"1": 5}, "rows_equal": [2], "skipped": [], "load_us_per_mib": 7,
    }  # fmt: skip
    assert [p.name for p in path.parent.iterdir()] == ["probes.json"]


def test_two_nodes_of_one_machine_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "probes.json"
    one, two = Kept(path, KEY), Kept(path, KEY)
    one.put_component("a", load_us_per_mib=1)
    two.put_component("b", load_us_per_mib=2)
    again = Kept(path, KEY)
    assert [again.component(name)["load_us_per_mib"] for name in ("a", "b")] == [1, 2]


@pytest.mark.parametrize("name", ["cpu", "torch", "gpu"])
def test_other_hardware_or_versions_measure_again(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "probes.json"
    Kept(path, KEY).put_machine(matmul_gflops=90)
    with caplog.at_level("INFO"):
        assert Kept(path, KEY | {name: "another"}).machine() == {}
    assert "other hardware or versions" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"format": 2, "key": KEY, "machine": {"a": -1}, "components": {}}',
        b'{"format": 2, "key": KEY, "machine": {"a": true}, "components": {}}',
        b'{"format": 2, "key": KEY, "machine": {}, "components": []}',
        b'{"format": 2, "key": KEY, "machine": {}, "components": {"c": 1}}',
        b'{"format": 2, "key": KEY, "machine": {}, "components": {"c": {"call_us": {"x": 1}}}}',
        b'{"format": 2, "key": KEY, "machine": {}, "components": {"c": {"rows_equal": 2}}}',
        b" " * (kept.MAX_BYTES + 1),
    ],
)
def test_a_damaged_file_is_measured_again_and_said(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "probes.json"
    path.write_bytes(content.replace(b"KEY", json.dumps(KEY).encode()))
    again = Kept(path, KEY)
    assert (again.machine(), again.component("c")) == ({}, {})
    assert "damaged" in caplog.text
    again.put_machine(matmul_gflops=1)
    assert Kept(path, KEY).machine() == {"matmul_gflops": 1}


def test_a_place_that_cannot_be_written_is_said_and_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    place = Kept(tmp_path / "file" / "probes.json", KEY)
    place.put_machine(matmul_gflops=5)
    assert place.machine() == {"matmul_gflops": 5}
    assert "cannot be written" in caplog.text


def test_a_key_holds_what_speed_depends_on() -> None:
    build = TorchBuild("2.13.0", "13.0")
    one = kept.key(ONE_GPU, build, "cuda", 1)
    assert one != kept.key(ONE_GPU, build, "cuda", 2)
    assert one != kept.key(NO_GPU, build, "cuda", 1)
    assert one != kept.key(ONE_GPU, TorchBuild("2.14.0", "13.0"), "cuda", 1)
    assert one == json.loads(json.dumps(one))
    assert len(one) == 9
