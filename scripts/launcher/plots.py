"""The records of `make bench` and `make bench-throughput` as plots: small SVG files, light, stable.

Called by scripts/plots.py and at the end of scripts/bench_throughput.py. One figure for each part
of a record that has one; what was not measured is not drawn. The same record gives the same bytes.
A point that is void, because the machine was too busy, is hollow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from launcher.breakdown import KINDS, WHERE
from launcher.machine_use import TOO_BUSY
from launcher.throughput_concurrent import ALONE, JOINED, PROCESS, REQUEST, TOGETHER
from launcher.throughput_links import WANTED

SIZE = (6.8, 3.6)  # inches
BAR_SIZE = (6.8, 2.6)
MARGIN = 0.1
# Okabe and Ito's, told apart by whoever sees colours otherwise; the last is grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#777777")
GREY = COLOURS[-1]
STYLE = {
    "svg.hashsalt": "baguette",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}
# The share of the ideal that is wanted at so many nodes.
WANTED_SHARE = {8: 90, 64: 85}
LABEL_GAP = 0.065  # of the height, between two labels at the ends of lines
Record = Mapping[str, Any]
Points = Sequence[tuple[float, float]]


def write(figures: Mapping[str, Figure], into: Path) -> list[Path]:
    """Each figure as NAME.svg."""
    into.mkdir(parents=True, exist_ok=True)
    paths = []
    with mpl.rc_context(STYLE):
        for name, figure in figures.items():
            paths.append(into / f"{name}.svg")
            figure.savefig(paths[-1], metadata={"Date": None, "Creator": None})
    return paths


def of(record: Record) -> dict[str, Figure]:
    """A figure for each part that this record has."""
    parts: dict[str, tuple[str, tuple[float, float], Callable[[Axes, Record], None]]] = {
        "breakdown": ("step", BAR_SIZE, step),
        "concurrent": ("throughput-concurrent", SIZE, concurrent),
        "scaling": ("throughput-scaling", SIZE, scaling),
        "links": ("throughput-links", SIZE, links),
        "failover": ("throughput-failover", SIZE, failover),
    }
    figures = {}
    with mpl.rc_context(STYLE):
        for part, (name, size, draw) in parts.items():
            if part in record:
                layout = ConstrainedLayoutEngine(w_pad=MARGIN, h_pad=MARGIN)
                figures[name] = Figure(figsize=size, layout=layout)
                draw(figures[name].add_subplot(), record[part])
    return figures


# --- one picture


def step(axes: Axes, record: Record) -> None:
    """A bar for each of what a step waits for, and one for all, in pieces by kind."""
    parts = record["parts_us"]
    rows = {"step": {k: sum(parts[w][k] for w in WHERE) for k in KINDS}} | {
        where: parts[where] for where in WHERE
    }
    left = dict.fromkeys(rows, 0.0)
    for kind, colour in zip(KINDS, COLOURS, strict=True):
        widths = [values[kind] / 1000 for values in rows.values()]
        axes.barh(list(rows), widths, left=list(left.values()), color=colour, label=kind)
        left = {row: left[row] + width for row, width in zip(rows, widths, strict=True)}
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x")
    axes.set_xlabel("ms")
    axes.set_title("Where a step of one picture goes: the calls that it waited for")
    axes.legend(loc="lower right", frameon=False, fontsize=8)


# --- many pictures


def concurrent(axes: Axes, record: Record) -> None:
    """Images a second against pictures at once."""
    found = {int(number): sides for number, sides in record["images_per_second"].items()}
    lines = {
        "joined": {n: sides[JOINED] for n, sides in found.items()},
        "one by one": {n: sides[ALONE] for n, sides in found.items()},
        "one request": {n: sides[REQUEST] for n, sides in found.items()},
        "one process,\none after another": {n: _best(PROCESS, s) for n, s in found.items()},
        "one process,\none request": {n: _best(TOGETHER, s) for n, s in found.items()},
    }
    _spreads(axes, list(found), lines.values())
    _at_ends(axes, {name: list(values.values())[-1]["median"] for name, values in lines.items()})
    axes.set_ylim(bottom=0)
    axes.set_xlabel("pictures at once")
    axes.set_title(f"Images a second: {record['model']} on {record['nodes']} nodes of one machine")


def _best(side: str, sides: Mapping[str, dict[str, float]]) -> dict[str, float]:
    """This side of the single process with as many threads as draw most."""
    single = [values for name, values in sides.items() if name.startswith(side)]
    return max(single, key=lambda values: values["median"])


def scaling(axes: Axes, record: Record) -> None:
    """The share of the ideal against the number of nodes, a line for each skew."""
    rows = record["simulated"]
    skews = sorted({row["skew"] for row in rows})
    counts = sorted({row["nodes"] for row in rows})
    ends = {}
    for skew, colour in zip(skews, COLOURS, strict=False):
        line = sorted((row for row in rows if row["skew"] == skew), key=lambda row: row["nodes"])
        points = [(counts.index(r["nodes"]), 100 * r["loaded"]["share_of_ideal"]) for r in line]
        _line(axes, points, colour, [r["loaded"]["void"] for r in line])
        ends[f"skew {skew:g}"] = points[-1][1]
    for nodes, percent in WANTED_SHARE.items():
        if nodes in counts:
            at = counts.index(nodes)
            axes.hlines(percent, at - 0.25, at + 0.25, GREY, "dashed", lw=1)
            _note(axes, "wanted", (at, percent), (0, -10), "center")
    dilation = {row["nodes"]: row["dilation"] for row in rows}
    labels = [f"{nodes}\ntimes x{dilation[nodes]}" for nodes in counts]
    axes.set_xticks(range(len(counts)), labels)
    _at_ends(axes, ends)
    axes.set_ylim(0, 105)
    axes.set_xlabel("nodes with simulated devices, and how their times are dilated")
    if any(row["loaded"]["void"] for row in rows):
        _note(
            axes,
            f"hollow: void, the machine was over {TOO_BUSY:.0f} % busy",
            (0, 0),
            (0, 6),
            "left",
        )
    axes.set_title("Share of the time in which devices compute, % (100: the ideal)")


def links(axes: Axes, record: Record) -> None:
    """A picture's time against its floor, by the round trip between nodes."""
    found = {"no proxy": record["direct"]["ratio"]}
    found |= {f"{row['rtt_ms']:g}": row["ratio"] for row in record["rows"]}
    _spreads(axes, list(found), [found])
    axes.axhline(WANTED, color=GREY, linestyle="dashed", lw=1)
    least = min(values["least"] for values in found.values())
    most = max(values["most"] for values in found.values())
    axes.set_ylim(min(least, 1) - 0.02, max(most, WANTED) + 0.02)
    _at_ends(axes, {f"at most {WANTED}\nis wanted": WANTED}, [GREY])
    axes.set_xlabel("round trip between nodes, ms (put in by a proxy)")
    axes.set_title("Time of a picture / what it must cost")


def failover(axes: Axes, record: Record) -> None:
    """Steps that were answered, second by second, around the kill."""
    before, after = record["steps_per_second_before"], record["steps_per_second_after"]
    edges = list(range(-len(before), len(after) + 1))
    axes.stairs([*before, *after], edges, color=COLOURS[0], fill=True, alpha=0.35)
    axes.stairs([*before, *after], edges, color=COLOURS[0], lw=1.5)
    axes.axvline(0, color=COLOURS[1], lw=1.5)
    usual = record["usual"]
    for share in (0.5, 1):
        axes.axhline(share * usual, color=GREY, linestyle="dashed", lw=1)
    axes.set_ylim(0, 1.2 * max(*before, *after, usual))
    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    # With one of two replicas half is what devices can do.
    _at_ends(axes, {"half of it": usual / 2, "median\nbefore": usual}, [GREY, GREY])
    axes.set_xlabel("seconds after kill -9 of one of two replicas")
    axes.set_title(
        f"Steps a second, {record['concurrent']} pictures at once, {record['lost']} lost"
    )


# --- what several of them draw


def _spreads(
    axes: Axes, ticks: Sequence[object], lines: Iterable[Mapping[Any, dict[str, float]]]
) -> None:
    """Medians in lines, from the least to the most of the rounds as bars; ticks evenly apart."""
    for values, colour in zip(lines, COLOURS, strict=False):
        medians = [found["median"] for found in values.values()]
        low = [found["median"] - found["least"] for found in values.values()]
        high = [found["most"] - found["median"] for found in values.values()]
        axes.errorbar(
            range(len(medians)), medians, (low, high), color=colour, marker="o", ms=4, capsize=3
        )
    axes.set_xticks(range(len(ticks)), [str(tick) for tick in ticks])


def _line(axes: Axes, points: Points, colour: str, void: Sequence[bool]) -> None:
    axes.plot(*zip(*points, strict=True), color=colour, lw=1.5)
    for (x, y), is_void in zip(points, void, strict=True):
        axes.plot(x, y, "o", ms=5, color=colour, mfc="white" if is_void else colour)


def _note(
    axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], side: str
) -> None:
    axes.annotate(
        text, at, offset, textcoords="offset points", ha=side, fontsize=8, color="#555555"
    )


def _at_ends(axes: Axes, ends: Mapping[str, float], colours: Sequence[str] = COLOURS) -> None:
    """Each line's name at its right end, moved apart where two would lie on each other."""
    bottom, top = 0.0, max(axes.get_ylim()[1], *ends.values())
    gap = LABEL_GAP * (top - bottom)
    lowest = float("-inf")
    of_line = dict(zip(ends, colours, strict=False))
    for name, y in sorted(ends.items(), key=lambda end: end[1]):
        half = gap * (1 + name.count("\n")) / 2
        middle = max(y, lowest + half)
        axes.annotate(
            name, (1.01, middle), xycoords=("axes fraction", "data"), va="center",
            color=of_line[name],
        )  # fmt: skip
        lowest = middle + half
