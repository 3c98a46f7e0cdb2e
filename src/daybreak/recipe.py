"""A recipe: one complete, validated description of a run.

A recipe is a TOML file that may extend another. Resolving it merges three layers once each (the
resolved parent, the file, the command line's keys together) and validates at the end.
"""

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Self, final

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from daybreak.configuration import Configuration, fill_kinds, words
from daybreak.data.reading import DataConfig
from daybreak.distributed import ParallelConfig
from daybreak.duration import DurationField, Unit
from daybreak.errors import UserError
from daybreak.evaluate.in_training import TasksConfig
from daybreak.evaluate.loss import EvaluationConfig
from daybreak.family import depth_of, member
from daybreak.files import canonical_json, sha256_bytes
from daybreak.folders import is_a
from daybreak.model.gpt import ModelConfig
from daybreak.model.prediction import PredictionConfig
from daybreak.origin import InitConfig, based_on_source, is_whole_model
from daybreak.sampling.settings import SamplesConfig
from daybreak.saving import CheckpointConfig
from daybreak.training.budget import Counts
from daybreak.training.diagnostics import DiagnosticsConfig
from daybreak.training.early_stopping import EarlyStopConfig
from daybreak.training.execution import ExecutionConfig
from daybreak.training.freezing import frozen_names
from daybreak.training.growth import BatchConfig, LengthCurriculumConfig, require_fitting
from daybreak.training.guard import GuardConfig
from daybreak.training.optimizer import OptimizerConfig
from daybreak.training.schedule import CosineConfig, ScheduleConfig
from daybreak.training.tracking import TrackingConfig

# What nanoGPT and others call it.
_ELSEWHERE = {
    "learning_rate": "optimizer.lr",
    "batch_size": "batch.tokens, and execution.micro_batch",
    "block_size": "model.context, and data.window",
    "n_layer": "model.layers",
    "n_head": "model.heads",
    "n_embd": "model.dim",
    "max_iters": "budget, as budget=5000steps",
    "max_steps": "budget, as budget=5000steps",
    "gradient_accumulation_steps": "batch.tokens, which is the whole batch",
    "eval_interval": "evaluation.every",
    "device": "execution.device",
    "dtype": "execution.precision",
    "grad_clip": "optimizer.clip",
    "warmup_iters": "schedule.warmup",
    "min_lr": "schedule.final, a share of optimizer.lr",
}
_FINGERPRINTED = ("model", "data", "optimizer", "schedule", "batch", "curriculum", "prediction", "guard", "seed")
_FINGERPRINTED_IF_SET = ("init", "freeze", "early_stop")


@final
class Recipe(Configuration):
    """What to train, on what, with what, for how long.

    Attributes:
        name: that of its run's folder; the recipe's own or its file's unless given.
        description: one line for people.
        budget: what the run may spend: `90s`, `24h`, `$20`, `19073 steps`, `10B tokens`, `1e18 flops`, `20x params`,
            `2 epochs`.
        price: dollars an hour of all devices together.
        counts: a budget in time counts from process start, or steps alone (`train`).
        seed: of initial values, order and dropout.
        init: a trained model to begin from, in place of random values.
        freeze: parts that keep their values, as `embedding` or `blocks.0-5`.
        early_stop: end before the budget once the validation loss has stopped falling.
    """

    name: str = ""
    description: str = ""
    budget: DurationField
    price: float | None = Field(default=None, ge=1e-6, le=1e9)
    counts: Counts = "process"
    seed: int = Field(default=1337, ge=0)
    freeze: Annotated[tuple[str, ...], BeforeValidator(words)] = ()
    init: Annotated[InitConfig | None, BeforeValidator(InitConfig.coerced)] = None
    data: DataConfig
    batch: BatchConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = CosineConfig()
    curriculum: LengthCurriculumConfig | None = None
    prediction: PredictionConfig = PredictionConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    early_stop: EarlyStopConfig | None = None
    samples: SamplesConfig = SamplesConfig()
    tasks: TasksConfig = TasksConfig()
    guard: GuardConfig = GuardConfig()
    diagnostics: DiagnosticsConfig = DiagnosticsConfig()
    tracking: TrackingConfig = TrackingConfig()
    execution: ExecutionConfig = ExecutionConfig()
    parallel: ParallelConfig = ParallelConfig()

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        window, context, tokens = self.data.window, self.model.context, self.batch.tokens
        if window > context and window % context:
            raise ValueError(f"data.window = {window} is not a multiple of model.context = {context}")
        if tokens % window:
            nearest = max(1, round(tokens / window)) * window
            raise ValueError(
                f"batch.tokens = {tokens} is not a multiple of data.window = {window}; the nearest is {nearest}"
            )
        require_fitting(self.batch, self.curriculum, window, self.row_length)
        frozen_names(self.model, self.freeze)
        if self.early_stop is not None and self.evaluation.every is None:
            raise ValueError("early_stop needs evaluations: give evaluation.every, as evaluation.every=5%")
        if self.budget.unit is Unit.DOLLARS and self.price is None:
            raise ValueError(f"budget = {self.budget} needs price, the dollars an hour costs, as price=0.4")
        if self.parallel.kind == "fsdp" and self.tasks.every is not None:
            raise ValueError(
                "tasks.every does not work with parallel.kind = fsdp, where no rank holds the whole model; use "
                "parallel.kind=ddp, or `daybreak evaluate RUN --tasks …` on its checkpoints"
            )
        if self.parallel.kind == "fsdp" and self.optimizer.kind == "adamw8bit":
            raise ValueError(
                "optimizer.kind = adamw8bit does not work with parallel.kind = fsdp: torchao's 8-bit moments cannot be "
                "saved when they are sharded; use parallel.kind=ddp or optimizer.kind=adamw"
            )
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting by its key, as `optimizer.lr`."""
        return flattened(self.model_dump(mode="json"))

    @property
    def budget_seconds(self) -> float | None:
        """Of a budget in time or money; None of any other."""
        match self.budget.unit:
            case Unit.SECONDS:
                return self.budget.amount
            case Unit.DOLLARS:
                assert self.price is not None  # validated
                return 3600 * self.budget.amount / self.price
        return None

    @property
    def row_length(self) -> int:
        """Tokens that the model trains on at once: a window, or a piece of one."""
        return min(self.data.window, self.model.context)

    @property
    def row_lengths(self) -> tuple[int, ...]:
        """Those that the steps of a run have, one behind the other; the last is the full one."""
        return (self.row_length,) if self.curriculum is None else self.curriculum.lengths

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides what a step computes, but for the corpora, which have hashes of their own."""
        places: Any = {"data": {"corpus": True, "mixture": {"__all__": {"corpus"}}}, "init": {"source"}}
        content = self.model_dump(mode="json", exclude=places)
        keys = _FINGERPRINTED + tuple(key for key in _FINGERPRINTED_IF_SET if content[key])
        return sha256_bytes(canonical_json({key: content[key] for key in keys}))

    @classmethod
    def load(cls, recipe: str | Path, *overrides: str) -> "Recipe":
        """Resolve a recipe by its name or the path of its TOML file.

        Args:
            overrides: `key=value`, as on the command line: `optimizer.lr=1e-3`, `budget=90s`.

        Raises:
            UserError: no such recipe, or it does not validate.
        """
        layer = _read_layer(str(recipe), Path(), ())
        return _validated(merge(*based_on_source(layer, parse_overrides(overrides))), f"recipe {recipe}")

    def with_data(self, path: Path | str) -> Self:
        """The same recipe on one corpus, in place of its own; or on its mixture, whose corpora lie in this folder."""
        return self.model_copy(update={"data": self.data.given(Path(path))})

    def to_toml(self) -> str:
        """The resolved recipe as TOML that `load` reads back to the same recipe."""
        content = self.model_dump(mode="json")
        tables = {key: value for key, value in content.items() if isinstance(value, dict)}
        lines = _toml_lines({key: value for key, value in content.items() if key not in tables})
        for key, table in tables.items():
            lines += ["", f"[{key}]", *_toml_lines(table)]
        return "\n".join(lines) + "\n"

    def differences(self, other: "Recipe") -> list[str]:
        """One line for each setting that differs: `optimizer.lr: 0.001 here, 0.002 there`."""
        mine, theirs = self.settings, other.settings
        return [
            f"{key}: {mine.get(key)} here, {theirs.get(key)} there"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]


def recipe_names() -> list[str]:
    """The recipes that ship with Daybreak."""
    return sorted(entry.name[:-5] for entry in files("daybreak.recipes").iterdir() if entry.name.endswith(".toml"))


def merge(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """`layer` over `base`. Tables merge, unless they name different kinds; everything else replaces."""
    merged = dict(base)
    for key, value in layer.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            same_kind = "kind" not in value or value["kind"] == old.get("kind")
            merged[key] = merge(old, value) if same_kind else dict(value)
        else:
            merged[key] = value
    return merged


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """`key=value` words as one nested table; values are TOML, or text where they are not. The last wins."""
    layer: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            raise UserError(f"{override!r} is not an override; write key=value, as optimizer.lr=1e-3")
        if path == ["init"] and not text.strip().startswith("{"):  # beside which init.resize may be given
            path = ["init", "source"]
        table = layer
        for part in path[:-1]:
            inner = table.setdefault(part, {})
            if not isinstance(inner, dict):
                raise UserError(f"{override!r}: {part} was given a value before, so it has no {path[-1]}")
            table = inner
        table[path[-1]] = _toml_value(text.strip())
    return layer


def _toml_value(text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, bool | int | float | str | list | dict) else text


def _read_layer(name: str, beside: Path, descendants: tuple[str, ...]) -> dict[str, Any]:
    """A recipe's content with its parents merged in and their defaults filled in."""
    location, content = _find(name, beside)
    if location in descendants:
        raise UserError(f"recipe {name} extends itself: {' -> '.join([*descendants, location])}")
    parent = content.pop("extends", None)
    content.setdefault("name", Path(location).stem)
    if parent is None:  # a whole model, as that of a run's own recipe, needs none to begin from
        return fill_kinds(
            Recipe, content if is_whole_model(content.get("model")) else merge(*based_on_source({}, content))
        )
    base = _read_layer(str(parent), Path(location).parent, (*descendants, location))
    resolved = _validated(base, f"recipe {parent}")
    return merge(*based_on_source(resolved.model_dump(mode="json"), content))


def _find(name: str, beside: Path) -> tuple[str, dict[str, Any]]:
    """Where a recipe lies, and what is there."""
    for path in (beside / name, Path(name)):
        if path.suffix == ".toml" and path.is_file():
            text = path.read_text(encoding="utf-8-sig", errors="replace")
            try:
                return str(path.resolve()), tomllib.loads(text)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path} is not valid TOML: {error}") from None
    if name in recipe_names():
        return name, tomllib.loads(files("daybreak.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8"))
    depth = depth_of(name)
    if depth is not None:
        return name, member(depth)
    if name.endswith(".toml"):
        others = sorted(path.name for path in Path(name).parent.glob("*.toml"))
        raise UserError(f"recipe file {name} does not exist{_nearest(Path(name).name, others)}")
    if is_a("corpus", Path(name)):
        raise UserError(f"{name} is a corpus, not a recipe: give one, as daybreak train gpt2-tiny --data {name}")
    if is_a("run", Path(name)):
        raise UserError(
            f"{name} is a run, not a recipe: daybreak train {name}/recipe.toml --out {name} goes on with it"
        )
    beside_it = f" (did you mean {name}.toml?)" if Path(f"{name}.toml").is_file() else ""
    hint = beside_it or _nearest(name, recipe_names())
    raise UserError(f"unknown recipe {name!r}{hint}; daybreak recipes lists them")


def _validated(content: Mapping[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problems = "\n  ".join(_explain(each, content) for each in error.errors())
        raise UserError(f"{where} is not valid:\n  {problems}") from None


def _explain(error: Any, content: Mapping[str, Any]) -> str:
    """One validation error as a person would say it."""
    key = _dotted(error["loc"], content, missing=error["type"] in ("missing", "extra_forbidden"))
    match error["type"]:
        case "extra_forbidden":
            name = str(error["loc"][-1])
            hint = f" (it is {_ELSEWHERE[name]} here)" if name in _ELSEWHERE else ""
            known = _known_keys(error["loc"][:-1])
            if name in known and not hint:  # of another kind of the same part
                table = key.rpartition(".")[0]
                return f"unknown key {key}: {table} of this kind has none; another {table}.kind has"
            return f"unknown key {key}{hint or _nearest(name, known)}"
        case "union_tag_invalid":
            kinds = [kind.strip(" '") for kind in error["ctx"]["expected_tags"].split(",")]
            found = error["ctx"]["tag"]
            return f"unknown {key}.kind = {found!r}{_nearest(found, kinds)}; it is one of {', '.join(kinds)}"
        case "missing":
            table = key.rpartition(".")[0]
            anew = f"; another {table}.kind begins with none of the settings before" if table == "optimizer" else ""
            return f"{key} is missing{anew}"
        case "value_error":
            message = str(error["ctx"]["error"])
            return message if not key or message.startswith(key.split(".")[0]) else f"{key}: {message}"
    value = error["input"]
    shown = "" if isinstance(value, Mapping) else f" = {value!r}"
    return f"{key}{shown}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _dotted(location: tuple[Any, ...], content: Any, *, missing: bool) -> str:
    """The key a validation error is about, without the tags of unions that pydantic puts in."""
    parts: list[str] = []
    for index, part in enumerate(location):
        inside = isinstance(content, Mapping) and part in content
        if inside or (isinstance(content, list | tuple) and isinstance(part, int) and part < len(content)):
            content = content[part]
        elif not missing or index < len(location) - 1:
            continue
        parts.append(str(part))
    return ".".join(parts)


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """Keys that the table at `location` may hold, from the JSON schema."""
    schema = Recipe.model_json_schema()
    tables = [schema]
    for part in location:
        tables = [found for table in tables for found in _below(schema, table, str(part))] or tables
    return sorted({key for table in tables for key in table.get("properties", {})})


def _below(schema: Any, table: Any, part: str) -> list[Any]:
    target = table.get("properties", {}).get(part)
    if target is None:
        return []
    choices = [target, *target.get("oneOf", []), *target.get("anyOf", []), target.get("items", {})]
    found = [schema["$defs"][choice["$ref"].split("/")[-1]] if "$ref" in choice else choice for choice in choices]
    return [each for each in found if "properties" in each]


def _nearest(name: object, known: list[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def flattened(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Tables within tables as one, by dotted keys; the items of a list of tables are numbered from 1."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            value = {str(number): item for number, item in enumerate(value, start=1)}
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def _toml_lines(table: Mapping[str, Any]) -> list[str]:
    """`key = value` lines; TOML has no null, and what is None is the default."""
    return [f"{key} = {toml_value(value)}" for key, value in table.items() if value is not None]


def toml_value(value: Any) -> str:
    """A value as TOML; a JSON string is a TOML string, and a float never reads as an integer."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items() if item is not None) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
