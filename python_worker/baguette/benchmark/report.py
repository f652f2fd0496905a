"""What was measured, as Markdown and as a record. Called by the command; pure but for the date.

The first table is the Baguette card's memory table with our figures; what could not be measured
stays in it with its reason.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from statistics import median
from typing import Any

from baguette.benchmark.measuring import Compared, Results
from baguette.benchmark.settings import BASE, OURS, OWN, Row, record
from baguette.families.paris.cost import MATRIX_BYTES, Costs, published
from baguette.generation import PARTS
from baguette.machine import TorchBuild, machine, torch_build

_MIB, _GIB = 1 << 20, 1 << 30
_PER_STEP = ("route", "experts", "advance")


def markdown(results: Results) -> str:
    """The whole report."""
    parts = [
        [f"# Benchmark of {results.config.name}", "", about(results)],
        memory_table(results),
        parts_table(results),
        comparison_table(results.compared) if results.compared else [],
        cost_table(results),
    ]
    return "\n".join("\n".join(part) + "\n" for part in parts if part)


def about(results: Results) -> str:
    """The paragraph that states the machine and what was asked of it."""
    seen, build, plan = machine(), torch_build(), results.plan
    top_k = results.config.defaults.top_k
    sentences = [
        f"CPU: {seen.cpu}, {seen.cores} cores ({seen.logical_cores} logical), "
        f"{seen.ram_mib / 1024:.0f} GiB of memory",
        _gpus(results, build),
        f"torch {build.version}, Python {platform.python_version()}, threads: {plan.threads}",
        f"Matrix products: {results.gflops:,} GFLOP/s in {'bf16' if results.on_gpu else 'fp32'}"
        f"{_gain(results)}",
        f"Model: {results.config.name}, {results.config.num_experts} experts, {plan.steps} steps, "
        f"top-{top_k}, guided",
        f"Medians of {plan.rounds} runs after a warm-up; settings took turns where they fitted "
        "into memory together",
    ]
    if any(row.setting.routing != OWN for row in results.rows):
        sentences.append(
            "The routing was imposed, over all experts evenly or always on the same ones; the "
            "router was asked all the same"
        )
    return ". ".join(sentences) + "."


def _gain(results: Results) -> str:
    return "" if results.on_gpu else f", in bf16 {results.bf16_gain:.1f} times as many"


def _gpus(results: Results, build: TorchBuild) -> str:
    found = machine().gpus
    if not results.on_gpu or not found.found:
        return f"No GPU in use ({found.reason or 'the CPU was asked for'})"
    gpu = found.found[0]
    return (
        f"GPU: {gpu.name}, {gpu.vram_mib / 1024:.0f} GiB, driver {found.driver}, CUDA {build.cuda}"
    )


def memory_table(results: Results) -> list[str]:
    """The card's table: configuration, memory, speed, notes."""
    memory = "GPU memory" if results.on_gpu else "Memory"
    lines = [f"| Configuration | {memory} | Speed | Notes |", "|---|---|---|---|"]
    for row in results.rows:
        if row.why:
            short, _, rest = row.why.partition(": ")
            lines.append(f"| {row.setting.name()} | | {short} | {rest.replace('|', '/')} |")
        else:
            speed = f"{images_per_second(row):.3g} img/s"
            notes = "; ".join([*row.notes, *_utilisation(results, row)])
            lines.append(f"| {row.setting.name()} | {_memory(row)} | {speed} | {notes} |")
    return lines


def images_per_second(row: Row) -> float:
    """The median run's."""
    return row.setting.batch / median(run["total"] for run in row.seconds)


def _memory(row: Row) -> str:
    peaks = row.memory
    if "reserved" in peaks:
        used, held = (peaks[name] / _GIB for name in ("allocated", "reserved"))
        return f"{used:.2f} GiB used, {held:.2f} GiB reserved"
    before = peaks["before_loading"] / _MIB
    return f"{peaks['resident'] / _MIB:,.0f} MiB, {before:,.0f} of them before loading"


def _utilisation(results: Results, row: Row) -> Iterator[str]:
    """Of the device's matrix rate, how much the model's own work took up."""
    if results.on_gpu:
        flops = results.costs.kept(results.plan.steps, results.config.defaults.top_k)
        share = flops * images_per_second(row) / (results.gflops * 1e9)
        yield f"{100 * share:.0f} % of the matrix rate"


def parts_table(results: Results) -> list[str]:
    """Where the time goes; the parts of a step per image, so that batches compare."""
    lines = [
        "Milliseconds: encoding per request, route, experts and advance per step and image, "
        "decoding per image.",
        "",
        f"| Configuration | {' | '.join(PARTS)} | s in all |",
        f"|---|{'---|' * (len(PARTS) + 1)}",
    ]
    for row in results.rows:
        if row.why:
            continue
        of_all = {"encode": 1} | {part: row.setting.batch for part in PARTS[1:]}
        of_all |= {part: row.setting.batch * results.plan.steps for part in _PER_STEP}
        cells = [f"{1000 * _median(row, part) / of_all[part]:.3g}" for part in PARTS]
        lines.append(
            f"| {row.setting.name()} | {' | '.join(cells)} | {_median(row, 'total'):.3g} |"
        )
    return lines


def _median(row: Row, part: str) -> float:
    return median(run[part] for run in row.seconds)


def comparison_table(compared: Compared) -> list[str]:
    """Everybody against the plain loop, and the ratio the whole is about."""
    title = (
        f"A plain loop, what each optimisation adds to it, and Baguette: {compared.images} images"
    )
    if compared.why:
        return [f"{title}: {compared.why}."]
    base = compared.median_s(0)
    lines = [
        f"{title}, in the same run.",
        "",
        "| | dtype | threads | s | img/s | times as fast as the plain loop |",
        "|---|---|---|---|---|---|",
    ]
    for place, one in enumerate(compared.contestants):
        seconds = compared.median_s(place)
        lines.append(
            f"| {one['name']} | {one['dtype']} | {one['threads']} | {seconds:.3g} | "
            f"{compared.images / seconds:.3g} | {base / seconds:.2f} |"
        )
    return [*lines, "", ratio_sentence(compared)]


def ratio_sentence(compared: Compared) -> str:
    """The best of ours against the best plain loop, whatever dtype either has."""
    best = {
        name: min(
            compared.median_s(place)
            for place, one in enumerate(compared.contestants)
            if one["name"] == name
        )
        for name in (BASE, OURS)
    }
    return (
        f"Baguette is {best[BASE] / best[OURS]:.1f} times as fast as the plain loop at its best, "
        f"at {compared.images} images."
    )


def cost_table(results: Results) -> list[str]:
    """What a picture costs, counted, of this model and of Paris; two FLOPs per multiply-add."""
    steps, top_k = results.plan.steps, results.config.defaults.top_k
    models = {results.config.name: results.costs, "Paris as published": published()}
    columns = [dict(_counted(costs, steps, top_k)) for costs in models.values()]
    lines = [f"| Counted | {' | '.join(models)} |", f"|---|{'---|' * len(models)}"]
    for what in columns[0]:
        lines.append(f"| {what} | {' | '.join(column[what] for column in columns)} |")
    return lines


def _counted(costs: Costs, steps: int, top_k: int) -> Iterator[tuple[str, str]]:
    kept, whole = costs.kept(steps, top_k), costs.image(steps, top_k)
    yield "an expert, one guidance branch of one image", flops(costs.blocks)
    yield "of that, keys and values of the prompt", flops(costs.keys_values)
    yield "the router", flops(costs.router_blocks)
    yield "the text encoder, once a prompt", flops(costs.text)
    yield "the decoder, once an image", flops(costs.decoder)
    yield f"an image: {steps} steps, top-{top_k}, guided, everything anew", flops(whole)
    yield "the same as computed here, prompt and times kept", flops(kept - costs.decoder)
    for precision in MATRIX_BYTES:
        yield f"weights of an expert, {precision}", size(costs.expert_bytes(precision))
    read = top_k * costs.expert_bytes("bf16")
    yield f"weights a step of one image reads, bf16, top-{top_k}", size(read)
    yield "keys and values kept per expert and prompt, bf16", size(costs.context_bytes("bf16"))


def flops(count: int) -> str:
    """As in "36.0 TFLOP"."""
    for unit, scale in (("TFLOP", 1e12), ("GFLOP", 1e9)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count / 1e6:.1f} MFLOP"


def size(count: int) -> str:
    """As in "9.9 MB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count / 1e3:.1f} kB"


def as_record(results: Results) -> dict[str, Any]:
    """The same for programs: every sample, not only medians."""
    plan = results.plan
    values: dict[str, Any] = {
        "model": results.config.name,
        "about": about(results),
        "steps": plan.steps,
        "rounds": plan.rounds,
        "threads": plan.threads,
        "on_gpu": results.on_gpu,
        "matmul_gflops": results.gflops,
        "costs": vars(results.costs),
        "settings": [record(row) for row in results.rows],
    }
    if results.compared:
        values["comparison"] = vars(results.compared)
    return values
