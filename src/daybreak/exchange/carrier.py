"""What a class of transformers is to us: which models of ours it can hold exactly, and how."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

from pydantic import ValidationError

from daybreak.exchange.pieces import Constant, MisfitError, Piece, Pieces
from daybreak.model.gpt import ModelConfig

FORMAT = 1  # of what our export adds to `config.json` under "daybreak"
Settings = Mapping[str, Any]
# What says nothing about what a trained model computes.
_ANY = ("layers", "heads", "dim", "context", "vocab_size", "dropout", "initialisation.std", "initialisation.output")
# transformers' names of our activations; the first is written, all are read.
ACTIVATIONS = {
    "gelu": ("gelu",),
    "gelu_tanh": ("gelu_new", "gelu_pytorch_tanh"),
    "silu": ("silu", "swish"),
    "relu": ("relu",),
    "relu2": ("relu2",),
}


@final
@dataclass(frozen=True)
class Carrier:
    """A class of transformers that can hold some of our models.

    Attributes:
        model_type: its name in `config.json`.
        architecture: the class.
        describe: its settings for a plain model of ours; raises MisfitError if it cannot be it exactly.
        recognise: the model that settings describe; raises MisfitError if ours cannot be it exactly.
        pieces: how the tensors of a plain model lie.
        prefix: of the names of all tensors but the head.
        embedding, head: names of their tensors.
    """

    model_type: str
    architecture: str
    describe: Callable[[ModelConfig], dict[str, Any]]
    recognise: Callable[[Settings], ModelConfig]
    pieces: Callable[[ModelConfig], Iterable[Piece | Constant]]
    prefix: str
    embedding: str
    head: str = "lm_head.weight"

    def settings(self, config: ModelConfig) -> dict[str, Any]:
        """What `config.json` says of a model; raises MisfitError if this class cannot be it exactly."""
        return self.describe(plain(config))

    def placed(self, config: ModelConfig) -> Pieces:
        """How the tensors of a model lie."""
        return list(self.pieces(plain(config)))


def plain(config: ModelConfig) -> ModelConfig:
    """The same model, where it can be said in two ways in the simpler one."""
    attention = config.attention
    update: dict[str, Any] = {}
    if not any(attention.windows):
        update |= {"windows": (0,), "strides": (0,)}
    elif len(set(attention.windows)) == 1 and not any(attention.strides):
        update |= {"windows": attention.windows[:1], "strides": (0,)}
    if attention.kv_heads == config.heads:
        update["kv_heads"] = None
    mlp = config.mlp.model_copy(update={"hidden": config.mlp.hidden or 4 * config.dim})
    return config.model_copy(update={"attention": attention.model_copy(update=update), "mlp": mlp})


def require_only(config: ModelConfig, *free: str, **parts: Any) -> None:
    """Raises MisfitError for the first setting that a class of transformers does not have.

    So a setting that is new in ours fits no class until its file says so.

    Args:
        config: a plain one.
        free: keys of settings that may have any value, as `position.base`.
        parts: settings that must have another value than the default, or one of several (a tuple), by their keys
            with `__` for each dot.
    """
    sizes = {name: getattr(config, name) for name in ("layers", "heads", "dim", "context", "vocab_size")}
    default = _flat(ModelConfig(**sizes).model_dump(mode="json"))
    only = {key.replace("__", "."): value for key, value in parts.items()}
    own = _flat(config.model_dump(mode="json"))
    if not own["lookup.ngrams"]:
        own["lookup.rows"] = default["lookup.rows"]
    for key, value in own.items():
        if key in free or key in _ANY:
            continue
        wanted = only.get(key, default.get(key))
        if value not in (wanted if isinstance(wanted, tuple) else (wanted,)):
            raise MisfitError(f"model.{key} = {_shown(value)}")


def require(settings: Settings, **wanted: Any) -> None:
    """Raises MisfitError for the first setting of transformers that is there and has another value."""
    for key, value in wanted.items():
        if settings.get(key, value) != value:
            raise MisfitError(f"{key} = {settings[key]!r}, not {value!r}")


def recognised(**settings: Any) -> ModelConfig:
    """Raises MisfitError for sizes that ours cannot have."""
    try:
        return ModelConfig.model_validate(settings)
    except ValidationError as error:
        raise MisfitError("; ".join(each["msg"] for each in error.errors())) from None


def activation(config: ModelConfig) -> str:
    """transformers' name of it."""
    return ACTIVATIONS[config.mlp.activation][0]


def known_activation(name: Any) -> str:
    """Raises MisfitError for one that we do not have."""
    for ours, theirs in ACTIVATIONS.items():
        if name in theirs:
            return ours
    raise MisfitError(f"its activation {name!r} is not known here")


def common_dropout(settings: Settings, *names: str) -> float:
    """The rate that all its dropouts have; 0 where they differ, which changes nothing but further training."""
    rates = {float(settings.get(name) or 0.0) for name in names}
    return rates.pop() if len(rates) == 1 else 0.0


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
