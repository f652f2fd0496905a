"""Every size and every open choice of the Paris family, read from its `config.json` files.

Called by the loaders of this family and by the training recipe. Nothing outside
`baguette.families.paris` knows these names. Unknown keys are refused, so that a file from another
release is noticed instead of half understood.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from baguette.aliases import CHECKPOINT_FILES, FLAT_EXPERT
from baguette.errors import WeightsError
from baguette.request import GenerationRequest

MAX_CONFIG_BYTES = 1 << 20
MAX_LAYERS = 1024
MAX_MLP_RATIO = 64
MAX_EXPERTS = 1024
PUBLISHED_NAME = "paris"


def read_json(path: Path) -> dict[str, Any]:
    """Read one small JSON object; WeightsError names the file when it is not one."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise WeightsError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes; is it a config?")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing: this is not a Paris model directory") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON: {error}") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}") from None
    if not isinstance(value, dict):
        raise WeightsError(f"{path} should hold a JSON object, got {type(value).__name__}")
    return value


class _Record:
    """Shared by the dataclasses below: JSON in and out, strict about names and types."""

    @classmethod
    def from_json(cls, values: dict[str, Any], where: str = "config.json", **more: Any) -> Self:
        known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        values = {k: v for k, v in values.items() if not k.startswith("_")}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise WeightsError(f"{where}: unknown keys {unknown}; known are {sorted(known)}")
        try:
            return cls(**{**more, **values})
        except (TypeError, ValueError) as error:
            raise WeightsError(f"{where}: {error}") from None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload]


def _check_positive(record: object, *names: str, most: int = 1 << 20) -> None:
    for name in names:
        value = getattr(record, name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
            raise ValueError(f"got {name}={value!r} but expected a positive integer up to {most}")


def _check_network(record: ExpertConfig | RouterConfig) -> None:
    """What a damaged config could make endless: networks are built before they meet their file."""
    _check_positive(record, "num_layers", most=MAX_LAYERS)
    ratio = record.mlp_ratio
    if not isinstance(ratio, int | float) or not 0 < ratio <= MAX_MLP_RATIO:
        raise ValueError(f"got mlp_ratio={ratio!r} but expected a number up to {MAX_MLP_RATIO}")


@dataclass(frozen=True)
class ExpertConfig(_Record):
    """`expert_k/config.json`: a DiT with AdaLN-Single; defaults are the published XL/2."""

    model_type: str = "dit_expert"
    expert_id: int = 0
    hidden_size: int = 1152
    num_layers: int = 28
    num_heads: int = 16
    patch_size: int = 2
    in_channels: int = 4
    out_channels: int = 4
    mlp_ratio: float = 4.0
    text_embed_dim: int = 768
    image_size: int = 32
    use_text_conditioning: bool = True
    use_dit_time_embed: bool = True
    use_adaln_single: bool = True
    cfg_dropout_prob: float = 0.1

    @property
    def tokens(self) -> int:
        """Patches of one latent."""
        return (self.image_size // self.patch_size) ** 2

    def __post_init__(self) -> None:
        _check_positive(self, "hidden_size", "num_heads", "patch_size")
        _check_positive(self, "in_channels", "out_channels", "text_embed_dim", "image_size")
        _check_network(self)
        if self.hidden_size % self.num_heads or self.image_size % self.patch_size:
            raise ValueError("heads must divide hidden_size and patches must divide image_size")
        if not (self.use_text_conditioning and self.use_dit_time_embed and self.use_adaln_single):
            raise ValueError(
                "only the published conditioning (text, DiT time, AdaLN-Single) is known"
            )


@dataclass(frozen=True)
class RouterConfig(_Record):
    """`router/config.json`: a DiT with AdaLN-Zero and a CLS token; defaults are the B/2."""

    model_type: str = "router"
    num_clusters: int = 8
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    patch_size: int = 2
    in_channels: int = 4
    mlp_ratio: float = 4.0
    image_size: int = 32
    use_dit_time_embed: bool = True

    def __post_init__(self) -> None:
        _check_positive(self, "num_clusters", "hidden_size", "num_heads")
        _check_positive(self, "patch_size", "in_channels", "image_size")
        _check_network(self)
        if self.hidden_size % self.num_heads or self.image_size % self.patch_size:
            raise ValueError("heads must divide hidden_size and patches must divide image_size")


CHOICES: dict[str, tuple[str, ...]] = {
    "time_scale": ("1000*sigma", "round(999*t)"),
    "grid": ("flow_match", "linspace"),
    "null_context": ("empty_prompt", "zeros"),
    "head_1": ("gelu_tanh", "silu", "identity"),
    "head_3": ("gelu_tanh", "silu", "identity"),
    "objective": ("velocity", "eps_cosine"),
}


@dataclass(frozen=True)
class Settings(_Record):
    """The choices the published files leave open, each with the default in force.

    `norm_eps` is the eps of every LayerNorm; `head_1` and `head_3` are the router head's two
    weightless positions (`identity` stands for a Dropout at inference); `objective` is what the
    experts predict, `objectives` the exceptions by expert number.
    """

    norm_eps: float = 1e-6
    time_scale: str = "1000*sigma"
    grid: str = "flow_match"
    null_context: str = "empty_prompt"
    head_1: str = "gelu_tanh"
    head_3: str = "gelu_tanh"
    objective: str = "velocity"
    objectives: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"got {name}={getattr(self, name)!r} but expected one of {allowed}"
                )
        if not isinstance(self.objectives, dict):
            raise ValueError(f"got objectives={self.objectives!r} but expected an object")
        for expert, objective in self.objectives.items():
            if objective not in CHOICES["objective"]:
                raise ValueError(f"got objective {objective!r} for expert {expert}")
        if not 0 < self.norm_eps < 1e-2:
            raise ValueError(f"got norm_eps={self.norm_eps} but expected a small positive number")

    def objective_of(self, expert: int) -> str:
        """What expert number `expert` predicts."""
        return self.objectives.get(str(expert), self.objective)


@dataclass(frozen=True)
class Defaults(_Record):
    """What a request that names nothing gets from this model."""

    steps: int = 30
    guidance_scale: float = 7.5
    top_k: int = 2
    seed: int = 999
    n: int = 1

    def __post_init__(self) -> None:
        _check_positive(self, "steps", "top_k", "n")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"got seed={self.seed!r} but expected a whole number from 0")
        if not isinstance(self.guidance_scale, int | float):
            raise ValueError(f"got guidance_scale={self.guidance_scale!r} but expected a number")


@dataclass(frozen=True)
class ModelConfig:
    """The root `config.json`: the ensemble's shape, and Baguette's own block of defaults."""

    name: str
    num_experts: int
    image_size: int
    num_channels: int
    defaults: Defaults
    settings: Settings
    example_prompt: str
    vocabulary: tuple[str, ...]
    vocabulary_hint: str
    # Sizes of components whose files have no config.json beside them; what is left out is as
    # published.
    expert_config: dict[str, Any]
    router_config: dict[str, Any]

    def __post_init__(self) -> None:
        _check_positive(self, "num_experts", most=MAX_EXPERTS)
        _check_positive(self, "image_size", "num_channels")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image's latent."""
        return (self.num_channels, self.image_size, self.image_size)

    def request(self, prompt: str, **options: Any) -> GenerationRequest:
        """An unchecked request with this model's defaults for whatever is not named."""
        own = {**self.defaults.to_json(), "deterministic": not options.get("cache")}
        return GenerationRequest(prompt=prompt, **{**own, **options})

    @classmethod
    def read(cls, model_dir: Path) -> ModelConfig:
        """Read `model_dir/config.json`; WeightsError when it is absent or inconsistent.

        A directory of `expert_{k}.safetensors` without one is the published Paris.
        """
        return cls.from_root(root_values(model_dir), model_dir)

    @classmethod
    def from_root(cls, values: dict[str, Any], model_dir: Path) -> ModelConfig:
        """What the JSON object `values` of the root config.json in `model_dir` says."""
        own = values.get("baguette", {})
        try:
            return cls(
                name=str(own.get("name", model_dir.resolve().name)),
                num_experts=int(values["num_experts"]),
                image_size=int(values["image_size"]),
                num_channels=int(values["num_channels"]),
                defaults=Defaults.from_json(own.get("defaults", {})),
                settings=Settings.from_json(own.get("settings", {})),
                example_prompt=str(own.get("example_prompt", "a cute cat")),
                vocabulary=tuple(str(word) for word in own.get("vocabulary", ())),
                vocabulary_hint=str(own.get("vocabulary_hint", "")),
                expert_config=dict(own.get("expert_config", {})),
                router_config=dict(own.get("router_config", {})),
            )
        except KeyError as missing:
            raise WeightsError(f"{model_dir / 'config.json'} lacks the key {missing}") from None
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise WeightsError(f"{model_dir / 'config.json'}: {error}") from None


def root_values(model_dir: Path) -> dict[str, Any]:
    """The root config.json; the published one for Baguette's own files without it."""
    path = model_dir / "config.json"
    if not path.exists() and any(_is_tensors(other) for other in model_dir.glob("expert_*.*")):
        return published_root()
    return read_json(path)


def _is_tensors(path: Path) -> bool:
    suffixes = {Path(name).suffix for name in (FLAT_EXPERT, *CHECKPOINT_FILES)}
    return path.suffix in suffixes and path.is_file()


def published_root() -> dict[str, Any]:
    """The published Paris' root config.json, as far as anything here reads it."""
    expert = ExpertConfig()
    return {
        "num_experts": RouterConfig().num_clusters,
        "image_size": expert.image_size,
        "num_channels": expert.in_channels,
        "baguette": {"name": PUBLISHED_NAME},
    }
