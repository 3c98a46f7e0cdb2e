"""The trained model that a run begins from: `init = "RUN"` in a recipe.

A source is a run's folder, which stands for its newest checkpoint; or the folder of one checkpoint; or `hf:NAME` or
`hf:FOLDER`, a model of transformers.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, final

import torch
from pydantic import BeforeValidator, ValidationError
from torch import Tensor

from daybreak.checkpoint import hashed_files, open_checkpoint, open_latest, place_weights
from daybreak.configuration import Configuration, words
from daybreak.data.tokenizer import Tokenizer
from daybreak.distributed import Ranks
from daybreak.errors import UserError
from daybreak.evaluate.hugging_face import PREFIX
from daybreak.exchange.hub import folder_of
from daybreak.exchange.read import read_folder, require_same
from daybreak.files import canonical_json, read_sealed, sha256_bytes, sha256_file
from daybreak.model.gpt import GPT, ModelConfig
from daybreak.model.resize import Words, resized
from daybreak.progress import say

Resizable = Literal["context", "vocab_size"]
# What weights do not depend on, nor what is computed with them but for what is dropped.
_FREE = ("dropout", "initialisation")


@final
class InitConfig(Configuration):
    """What a run begins from, in place of random values; as text, its source.

    Attributes:
        source: a run, a checkpoint of one, or `hf:` and a model of transformers; none says that the recipe needs one,
            which is still to be given.
        resize: which sizes may differ from the source's.
        weights: SHA-256 of what was found there. A run keeps it, and is not begun again from anything else.
    """

    source: str | None = None
    resize: Annotated[tuple[Resizable, ...], BeforeValidator(words)] = ()
    weights: str | None = None

    @classmethod
    def coerced(cls, value: Any) -> Any:
        """A table; text is its source."""
        return {"source": value} if isinstance(value, str) else value

    def open(self) -> "Origin":
        """What it names.

        Raises:
            UserError: no source is given, or it is none, or not the one that it was.
        """
        if self.source is None:
            raise UserError(
                "this recipe begins from a trained model: say which with init=RUN, a run's folder, or init=hf:NAME"
            )
        origin = Origin.open(self.source)
        if self.weights not in (None, origin.sha256):
            raise UserError(
                f"init.source = {self.source} has other weights now than when this recipe was kept; restore them, or "
                f"take those of now with init={self.source}"
            )
        return origin

    def asks_for(self, kept: "InitConfig") -> bool:
        """Whether it may mean what a run has kept as the model that it began from."""
        return (
            self.source is not None
            and _place_of(self.source) == kept.source
            and self.resize == kept.resize
            and self.weights in (None, kept.weights)
        )

    def found(self) -> Self:
        """With a source that does not depend on where it is read, and the hash of its weights; raises as `open`."""
        origin = self.open()
        return self.model_copy(update={"source": origin.place, "weights": origin.sha256})


@final
@dataclass(frozen=True)
class Origin:
    """A trained model to begin from.

    Attributes:
        source: as it was asked for.
        place: the same, wherever it is read from.
        step: of its checkpoint; None of a model of transformers.
        model: its shape.
        sha256: of its weights.
        read: its weights, by the names of our parameters.
    """

    source: str
    place: str
    step: int | None
    model: ModelConfig
    tokenizer: Tokenizer
    sha256: str
    read: Callable[[], Mapping[str, Tensor]]

    @classmethod
    def open(cls, source: str) -> Self:
        """Raises UserError if there is no such model, it has no checkpoint yet, or is damaged."""
        if source.startswith(PREFIX):
            return cls._of_transformers(source)
        folder = Path(source)
        run = _run_of(folder)
        model = read_model_config(source)
        tokenizer = Tokenizer.load(run / "tokenizer.json")
        checkpoint = open_latest(run / "checkpoints") if run == folder else open_checkpoint(folder)
        if checkpoint is None:
            raise UserError(f"init = {source} has no checkpoint to begin from; let it train until its first one")
        sha256 = hashed_files(checkpoint.path)[checkpoint.path / "model.safetensors"]
        return cls(source, _place_of(source), checkpoint.step, model, tokenizer, sha256, checkpoint.weights)

    @classmethod
    def _of_transformers(cls, source: str) -> Self:
        folder = folder_of(source)
        found = read_folder(folder, source)
        sha256 = sha256_bytes(canonical_json([sha256_file(path) for path in sorted(folder.glob("*.safetensors"))]))

        def read() -> Mapping[str, Tensor]:  # compared only where it is begun from, which takes a while
            require_same(found, folder)
            return found.weights

        return cls(source, _place_of(source), None, found.config, found.tokenizer, sha256, read)

    def __str__(self) -> str:
        return self.source if self.step is None else f"step {self.step:,} of {self.source}"

    def described(self) -> dict[str, Any]:
        """What it is, for the identity of the run that begins from it."""
        return {
            "source": self.place,
            **({} if self.step is None else {"step": self.step}),
            "weights": self.sha256,
            "tokenizer": self.tokenizer.identity,
        }

    def weights_for(
        self, model: ModelConfig, tokenizer: Tokenizer, resize: tuple[Resizable, ...], seed: int
    ) -> dict[str, Tensor]:
        """Its weights, by the names of the parameters of a model that is to read text of `tokenizer`.

        Raises:
            UserError: they do not fit; says what is on both sides, and what to do.
        """
        self._require_sizes(model, resize)
        if not tokenizer.extends(self.tokenizer):
            place = (
                f"an import of it: daybreak import {self.source} RUN"
                if self.step is None
                else _run_of(Path(self.source))
            )
            raise UserError(
                f"init = {self.source} was trained with tokenizer {self.tokenizer.name}, the corpus was prepared with "
                f"another ({tokenizer.name}); prepare the text with --tokenizer {place}"
            )
        if tokenizer.vocab_size > model.vocab_size:
            more = "" if "vocab_size" in resize else " init.resize=vocab_size"
            raise UserError(
                f"the corpus's tokenizer {tokenizer.name} has {tokenizer.vocab_size:,} ids, but the model of init = "
                f"{self.source} only {model.vocab_size:,}; add model.vocab_size={tokenizer.padded_vocab_size}{more}"
            )
        words = Words(self.tokenizer.vocab_size, tokenizer.vocab_size)
        try:
            weights = resized(self.read(), self.model, model, words, seed)
        except ValueError as error:
            raise UserError(f"init = {self.source} cannot be resized: {error}") from None
        self._require_shapes(weights, model)
        return weights

    def _require_sizes(self, model: ModelConfig, resize: tuple[Resizable, ...]) -> None:
        """Raises UserError for a size that differs, unless it is told to."""
        sizes: tuple[Resizable, ...] = ("context", "vocab_size")
        for size in sizes:
            here, there = getattr(model, size), getattr(self.model, size)
            if here != there and size not in resize:
                raise UserError(
                    f"model.{size} = {here} here, {there} in init = {self.source}; leave it out, or have it changed "
                    f"with init.resize={','.join((*resize, size))}"
                )

    def _require_shapes(self, weights: Mapping[str, Tensor], model: ModelConfig) -> None:
        """Raises UserError for a model of other parts; warns of one that computes otherwise with the same."""
        before, after = self.model.model_dump(mode="json"), model.model_dump(mode="json")
        differences = [
            f"model.{key}: {after[key]} here, {before[key]} there"
            for key in after
            if after[key] != before[key] and key not in (*_FREE, "context", "vocab_size")
        ]
        shown = "".join(f"\n  {line}" for line in differences)
        with torch.device("meta"):
            shapes = {name: parameter.shape for name, parameter in GPT(model).named_parameters()}
        if shapes != {name: tensor.shape for name, tensor in weights.items()}:
            raise UserError(
                f"the weights of init = {self.source} do not fit a model of another shape; leave these out, or train "
                f"anew without init:{shown}"
            )
        if differences:
            say(f"warning: the model computes differently than that of init = {self.source} with its weights:{shown}")


def begin_from(
    init: InitConfig | None, config: ModelConfig, seed: int, tokenizer: Tokenizer, model: GPT, ranks: Ranks
) -> dict[str, Any] | None:
    """Give a model the weights that its recipe begins from; on all ranks together.

    Args:
        config, seed: of the model, as the recipe has them.
        tokenizer: of the text that it is to read.

    Returns:
        Where they are from, for the run's identity, on the first rank; None if from random values.

    Raises:
        UserError: they do not fit.
    """
    if init is None or init.source is None:
        return None
    origin, weights = None, None
    if ranks.first:
        origin = init.open()
        weights = origin.weights_for(config, tokenizer, init.resize, seed)
        say(f"beginning from {origin}")
    place_weights(weights, init.source, model, ranks)
    return None if origin is None else origin.described()


def based_on_source(base: Mapping[str, Any], layer: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a layer of a recipe is merged over, and the layer, with `init` as a table.

    Where the layer names a source, the source's model takes the place of the base's, and its tokenizer is the one that
    counts.

    Raises:
        UserError: the source is no run.
    """
    layer = {**layer, "init": InitConfig.coerced(layer["init"])} if "init" in layer else dict(layer)
    init = layer.get("init")
    source = init.get("source") if isinstance(init, Mapping) else None
    if not isinstance(source, str):
        return dict(base), layer
    data = {key: value for key, value in base.get("data", {}).items() if key != "tokenizer"}
    model = read_model_config(source).model_dump(mode="json")
    return {**base, "init": {}, "data": data, "model": model}, layer


def is_whole_model(table: Any) -> bool:
    """Whether a table of a recipe is a model by itself."""
    try:
        ModelConfig.model_validate(table)
    except ValidationError:
        return False
    return True


def read_model_config(source: str) -> ModelConfig:
    """The model of a source, without its weights.

    Raises:
        UserError: there is none, or its description is damaged.
    """
    if source.startswith(PREFIX):
        return read_folder(folder_of(source), source).config
    run = _run_of(Path(source))
    path = run / "recipe.toml"
    if not path.is_file():
        what = "is not a run: it has no recipe.toml" if run.is_dir() else "does not exist"
        raise UserError(
            f"init = {source} {what}; name the folder of a run, or hf:NAME, a model of transformers. A run that has "
            "begun goes on without it: daybreak train RUN/recipe.toml --out RUN"
        )
    identity = read_sealed(run / "identity.json")
    if sha256_file(path) not in (identity.get("recipe_sha256"), identity.get("recipe_before_sha256")):
        raise UserError(f"{path} was changed after the run began; restore it to begin from it")
    try:
        return ModelConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")).get("model"))
    except (ValueError, ValidationError) as error:
        raise UserError(f"{path} has no model that is known here: {error}") from None


def without_path(source: str) -> str:
    """A source by its name alone: where it lies on this machine is nobody's business."""
    if not source.startswith(PREFIX):
        return _run_of(Path(source)).name
    place = Path(source.removeprefix(PREFIX))
    return f"{PREFIX}{place.resolve().name}" if place.is_absolute() or place.is_dir() else source


def _run_of(folder: Path) -> Path:
    """The run's folder, of itself or of one of its checkpoints."""
    try:
        return folder.resolve().parents[1] if (folder / "state.json").is_file() else folder
    except OSError as error:  # of a name that is too long, say
        raise UserError(f"init = {str(folder)[:80]} cannot be looked for: {error.strerror}") from None


def _place_of(source: str) -> str:
    """The same source, wherever it is read from; a name on the hub is one already."""
    if not source.startswith(PREFIX):
        return str(Path(source).resolve())
    named = Path(source.removeprefix(PREFIX))
    return f"{PREFIX}{named.resolve()}" if named.is_dir() else source
