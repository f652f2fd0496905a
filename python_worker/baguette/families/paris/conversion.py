"""A Paris model directory written anew, in Baguette's own layout, as bf16 or with INT8 experts.

Called by `quantize`. One tensor at a time is in memory. Everything is written into a folder that
nobody reads, `.unfinished` inside the new directory, and moved to its place when all of it is
whole; the manifest comes last. What dies with it: that folder, which the next run takes away.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from baguette import manifest
from baguette.aliases import EXPERT_FILES, FLAT_EXPERT, FLAT_ROUTER, SCALE
from baguette.errors import BadInput, WeightsError
from baguette.families.paris.components import Component, convertible, expected_shapes
from baguette.families.paris.config import ModelConfig, root_values
from baguette.families.paris.files import PARTS
from baguette.files import check_room

if TYPE_CHECKING:
    from torch import Tensor

    from baguette.tensor_file import Specs, TensorReader, TensorWriter
    from baguette.weights import Contents, Shapes

Progress = Callable[[str, int, int], None]
FORMATS = ("bf16", "int8")
UNFINISHED = ".unfinished"
# Of a part's files those that are read here; a pickle is not copied either.
_PART_SUFFIXES = (".json", ".txt", ".safetensors")
_SPARE_BYTES = 16 << 20


@dataclass
class Converted:
    """One component's outcome: bytes of its files, and per layer the worst relative error.

    The error of an output channel (a row) is |new - old| / |old| as vectors; a layer's is that of
    its worst channel.
    """

    name: str
    file: str
    bytes_before: int
    bytes_after: int = 0
    errors: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What is to be written: from where, to where, in which format."""

    source: Path
    target: Path
    format: str
    model: ModelConfig
    components: tuple[Component, ...]

    @classmethod
    def of(cls, source: Path, target: Path, format: str) -> Plan:
        """Look at the source's names; WeightsError when it holds nothing to convert."""
        if not source.is_dir():
            raise BadInput(f"--input {str(source)!r} is not a directory")
        model = ModelConfig.read(source)
        found = tuple(convertible(source, model))
        if not any(component.number is not None for component in found):
            raise WeightsError(
                f"{source} holds no expert: expert_0.safetensors, expert_0.pt or "
                f"{EXPERT_FILES[0].format(k=0)} is looked for"
            )
        return cls(source, target, format, model, found)

    def part_files(self) -> list[Path]:
        """Files of the text encoder, tokenizer and VAE, below the source."""
        return [
            path.relative_to(self.source)
            for part in PARTS
            for path in sorted((self.source / part).glob("*"))
            if path.is_file() and path.suffix in _PART_SUFFIXES
        ]

    def names(self) -> list[str]:
        """Every file that will be written, relative to the target; the manifest last."""
        tensors = [target_name(component) for component in self.components]
        parts = [path.as_posix() for path in self.part_files()]
        return [*tensors, *parts, "config.json", manifest.NAME]

    def check_target(self, force: bool) -> None:
        """Raise BadInput where the new directory would mix with what lies there."""
        if self.target.exists() and self.source.samefile(self.target):
            raise BadInput("--output is --input: name another directory")
        if self.target.exists() and not self.target.is_dir():
            raise BadInput(f"--output {str(self.target)!r} is not a directory")
        for pattern in (EXPERT_FILES[0], FLAT_EXPERT):
            kept = {path.relative_to(self.target).as_posix() for path in
                    self.target.glob(pattern.format(k="*"))} - set(self.names())  # fmt: skip
            if kept:
                raise BadInput(
                    f"--output {str(self.target)!r} holds {min(kept)}, which would stay beside the "
                    "new files: remove it or name another directory"
                )
        there = [name for name in self.names() if (self.target / name).exists()]
        if there and not force:
            more = f" and {len(there) - 1} more" if len(there) > 1 else ""
            raise BadInput(
                f"--output {str(self.target)!r} already holds {there[0]}{more}: --force replaces "
                "what is there"
            )


def target_name(component: Component) -> str:
    """The name of a component's tensors in Baguette's own layout."""
    number = component.number
    return FLAT_ROUTER if number is None else FLAT_EXPERT.format(k=number)


def convert(plan: Plan, told: Callable[[Converted], None], progress: Progress) -> list[Converted]:
    """Write the new directory, as its plan says.

    `told` hears of each component, `progress` of (its name, bytes written, of how many).
    Raises WeightsError for a source that does not fit its config, OSError where the disk is full;
    then nothing is left of it.
    """
    root = _root(plan)
    prepared = [_prepare(plan, component) for component in plan.components]
    needed = sum(one.bytes_after for one in prepared)
    needed += sum((plan.source / path).stat().st_size for path in plan.part_files())
    check_room(plan.target, needed + _SPARE_BYTES)
    with _unfinished(plan.target) as folder:
        outcomes = []
        for one in prepared:
            outcomes.append(one.write(folder, progress))
            told(outcomes[-1])
        for path in plan.part_files():
            (folder / path).parent.mkdir(exist_ok=True)
            shutil.copyfile(plan.source / path, folder / path)
        text = json.dumps(root, indent=2) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        manifest.write(folder)
        _move(folder, plan)
    return outcomes


@dataclass
class _Prepared:
    """A component held against its config, before anything is written."""

    component: Component
    contents: Contents
    specs: Specs
    small: frozenset[str]
    bytes_after: int

    def write(self, folder: Path, progress: Progress) -> Converted:
        from baguette.tensor_file import TensorReader, TensorWriter

        path = self.component.path
        name = target_name(self.component)
        done = Converted(self.component.name, name, path.stat().st_size)
        with TensorReader(path) as reader, TensorWriter(folder / name, self.specs) as writer:
            for tensor in filter(self.contents.entries.__contains__, self.specs):
                error = self._one(reader, writer, tensor)
                layer = layer_of(tensor)
                done.errors[layer] = max(error, done.errors.get(layer, 0.0))
                progress(done.name, writer.written, self.bytes_after)
        done.bytes_after = (folder / name).stat().st_size
        return done

    def _one(self, reader: TensorReader, writer: TensorWriter, name: str) -> float:
        import torch

        from baguette.quantization import Quantized, quantize
        from baguette.weights import take

        held = take(reader.path, reader.get, self.contents, name)
        old = held.dequantized() if isinstance(held, Quantized) else held
        if not bool(torch.isfinite(old).all()):
            raise WeightsError(f"{reader.path}: {name} holds NaN or infinity; fetch it again")
        if name not in self.small:
            new = old.to(torch.bfloat16)
            writer.put(name, new)
            return _error(new, old)
        small = held if isinstance(held, Quantized) else quantize(held)
        writer.put(name, small.values)
        writer.put(name + SCALE, small.scale)
        return _error(small.dequantized(), old)


def _prepare(plan: Plan, component: Component) -> _Prepared:
    from baguette.tensor_file import TensorReader, file_bytes
    from baguette.weights import match

    shapes = expected_shapes(component.config(plan.source))
    with TensorReader(component.path) as reader:
        contents = match(reader.entries, shapes)
    if contents.faults:
        raise WeightsError(f"{component.path} does not fit its config: {contents.sentence()}")
    quantised = plan.format == "int8" and component.number is not None
    small = frozenset(n for n in shapes if quantised and worth_int8(n, shapes[n]))
    specs = _specs(shapes, small)
    return _Prepared(component, contents, specs, small, file_bytes(specs))


def worth_int8(name: str, shape: tuple[int, ...]) -> bool:
    """Whether INT8 keeps this tensor of an expert small: matrices that a linear multiplies with."""
    return len(shape) == 2 and name.endswith("weight")


def _specs(shapes: Shapes, small: frozenset[str]) -> Specs:
    import torch

    specs: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        specs[name] = (torch.int8 if name in small else torch.bfloat16, shape)
        if name in small:
            specs[name + SCALE] = (torch.float32, (shape[0], 1))
    return specs


def layer_of(name: str) -> str:
    """`layers.3` of `layers.3.mlp.0.weight`; of what is in no layer its first word."""
    words = name.split(".")
    return ".".join(words[:2]) if words[0] == "layers" else words[0]


def _error(new: Tensor, old: Tensor) -> float:
    old = old.float().reshape(old.shape[0] if old.dim() > 1 else 1, -1)
    apart = (new.float().reshape(old.shape) - old).norm(dim=1)
    # A row of zeros is kept as it is.
    return float((apart / old.norm(dim=1).clamp_min(1e-30)).max())


def _root(plan: Plan) -> dict[str, Any]:
    """The root config.json: as it was, with the sizes that were told beside each component."""
    values = root_values(plan.source)
    own = {**values.get("baguette", {}), "name": plan.model.name}
    experts = []
    for component in plan.components:
        sizes = component.config(plan.source).to_json()
        if component.number is None:
            own["router_config"] = sizes
        else:
            del sizes["expert_id"]
            experts.append(sizes)
    if any(sizes != experts[0] for sizes in experts):
        raise WeightsError(
            f"the experts of {plan.source} differ in size, which Baguette's own layout cannot say"
        )
    return {**values, "baguette": {**own, "expert_config": experts[0]}}


@contextlib.contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """A folder inside `target` for what is being written; one that a dead run left goes first.

    `target` itself goes too where it was made here and nothing was moved into it.
    """
    made = not target.exists()
    target.mkdir(parents=True, exist_ok=True)
    folder = target / UNFINISHED
    with _alone_in(target):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
            if made and not any(target.iterdir()):
                target.rmdir()


@contextlib.contextmanager
def _alone_in(target: Path) -> Iterator[None]:
    lock = os.open(target, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise BadInput(f"--output {str(target)!r} is being written by another run") from None
    try:
        yield
    finally:
        os.close(lock)


def _move(folder: Path, plan: Plan) -> None:
    """Every finished file to its place, the manifest last; an interrupt comes too late for this."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        (plan.target / manifest.NAME).unlink(missing_ok=True)
        for name in plan.names():
            (plan.target / name).parent.mkdir(exist_ok=True)
            os.replace(folder / name, plan.target / name)
        directory = os.open(plan.target, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
    finally:
        signal.signal(signal.SIGINT, before)
