"""What a study compares: a base, its changes one by one and taken away one by one, at one budget, over seeds."""

import itertools
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self, final

from pydantic import Field, ValidationError, field_validator, model_validator

from daybreak.configuration import Configuration
from daybreak.duration import Duration, DurationField, Unit
from daybreak.errors import UserError
from daybreak.recipe import Recipe, flattened, parse_overrides, toml_value

BASE, ALL = "base", "all"
_LONGEST_NAME = 100  # of a change, in characters: it becomes a folder
_BUDGETS = {Unit.SECONDS: "time", Unit.TOKENS: "tokens", Unit.FLOPS: "FLOPs"}
# What the study itself sets.
_SET = ("budget", "counts", "price", "seed", "name", "description", "extends")
_OTHER_TEXT = ("data.corpus", "data.mixture", "data.tokenizer")


@final
class Modes(Configuration):
    """Which variants the changes make.

    Attributes:
        add_one: the base with each change alone, compared with the base.
        leave_one_out: all changes together, compared with the base; all but each one, compared with all.
    """

    add_one: bool = Field(default=True, alias="add-one")
    leave_one_out: bool = Field(default=False, alias="leave-one-out")


@final
class Design(Configuration):
    """A study, as its TOML file says.

    Attributes:
        base: a recipe's name or path.
        settings: overrides of the base that every variant has.
        budget: what each trial may spend: a time, tokens or FLOPs.
        clock: how a time is held equal. `pace`: each variant's speed is measured before the first trial, by turns with
            the base's, and every trial has the steps that the time holds at that speed; what else the machine does
            later changes nothing. `wall`: every trial trains until the time is over.
        seeds: how many, or which.
        changes: overrides by the name of the change.
        tune: settings that every variant chooses for itself: values by key, all combinations are tried.
        tuning_budget: of each of those trials; the study's unless given.
        validation: a corpus whose held-out text measures all variants, where changes are of the text they train on.
        keep: leave the weights of finished trials on disk.
    """

    base: str
    settings: tuple[str, ...] = ()
    budget: DurationField
    clock: Literal["pace", "wall"] = "pace"
    seeds: tuple[int, ...]
    changes: Mapping[str, tuple[str, ...]] = Field(min_length=1)
    modes: Modes = Modes()
    tune: Mapping[str, tuple[Any, ...]] = {}
    tuning_budget: DurationField | None = None
    validation: str | None = None
    keep: bool = False

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted_from_one(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return tuple(range(1, value + 1))
        return value

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        for name, budget in (("budget", self.budget), ("tuning_budget", self.tuning_budget)):
            if budget is not None and (budget.unit not in _BUDGETS or budget.amount <= 0):
                raise ValueError(
                    f"{name} = {budget}: trials are held equal in time, tokens or FLOPs; give one of these"
                )
        if not self.seeds:
            raise ValueError("seeds: give at least one")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds = {list(self.seeds)}: give each once")
        if min(self.seeds) < 0:
            raise ValueError(f"seeds = {list(self.seeds)}: they count from 0")
        if not self.modes.add_one and not self.modes.leave_one_out:
            raise ValueError("modes: neither add-one nor leave-one-out is on, so there is nothing to compare")
        if self.modes.leave_one_out and len(self.changes) < 2:
            raise ValueError("modes.leave-one-out needs two changes or more")
        _require_unset("settings", _leaves("settings", self.settings))
        _require_unset("tune", self.tune)
        for key in self.tune:
            if _is_under(key, ("data", "evaluation")):
                raise ValueError(f"tune: {key} is what the loss is measured on or by; it cannot be chosen by the loss")
        if any(not values for values in self.tune.values()):
            raise ValueError('tune: each key needs the values to try, as "optimizer.lr" = [1e-3, 3e-3]')
        for name, overrides in self.changes.items():
            _require_a_name(name)
            self._require_fair(name, overrides)
        return self

    def _require_fair(self, name: str, overrides: tuple[str, ...]) -> None:
        """Raises ValueError for a change of what is held equal, of what measures, or of what is tuned."""
        keys = _leaves(name, overrides)
        _require_unset(name, keys)
        for key in keys:
            if _is_under(key, ("evaluation",)):
                raise ValueError(f"{name}: {key} is what a study measures by; it cannot be changed in one")
            if _is_under(key, _OTHER_TEXT) and self.validation is None:
                raise ValueError(
                    f"{name}: {key} changes the text, and with it what the loss is measured on; give validation, the "
                    "corpus whose held-out text measures all variants"
                )
            if key in self.tune:
                raise ValueError(
                    f"{name}: {key} is tuned, for every variant alike; leave it out of the change or of tune"
                )

    @classmethod
    def load(cls, path: Path) -> "Design":
        """Read a study's file.

        Raises:
            UserError: there is none, or it does not validate.
        """
        if not path.is_file():
            raise UserError(f"{path} does not exist; a study is a TOML file with base, budget, seeds and [changes]")
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8-sig", errors="replace"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not valid TOML: {error}") from None
        return cls.of(content, str(path))

    @classmethod
    def of(cls, content: Mapping[str, Any], where: str) -> "Design":
        """Raises UserError if the content is no design."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            problems = "\n  ".join(map(_explained, error.errors()))
            raise UserError(f"study {where} is not valid:\n  {problems}") from None

    @property
    def is_paced(self) -> bool:
        """Whether a time is given to trials as steps, at the speed of each variant."""
        return self.budget.unit is Unit.SECONDS and self.clock == "pace"

    @property
    def held_equal(self) -> str:
        """What all trials are given alike, in words."""
        if self.budget.unit is not Unit.SECONDS:
            return f"{self.budget.amount:,.0f} {self.budget.unit.value}"
        by = "as steps at each variant's measured speed" if self.is_paced else "by the clock"
        return f"{self.budget} of training, {by}"

    @property
    def seeds_said(self) -> str:
        """How many, in words."""
        return f"{len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}"


@final
class Variant(Configuration):
    """One of the recipes that a study compares.

    Attributes:
        reference: the variant it is compared with; None for the base.
        overrides: of the base's recipe.
    """

    name: str
    reference: str | None
    overrides: tuple[str, ...]

    def with_overrides(self, more: Iterable[str]) -> Self:
        """The same with other settings as well."""
        return self.model_copy(update={"overrides": (*self.overrides, *more)})

    def recipe(self, design: Design, beside: Path) -> Recipe:
        """What it trains, but for budget, seed and what is tuned.

        Args:
            beside: the folder of the study's file, from which the path of the base counts.
        """
        base = beside / design.base
        name = str(base) if base.suffix == ".toml" and base.is_file() else design.base
        overrides = (*design.settings, *self.overrides)
        try:
            recipe = Recipe.load(name, *overrides, f"budget={design.budget}", "counts=train")
        except UserError as error:
            raise UserError(f"{self.name}: {error}") from None
        if recipe.early_stop is not None:
            raise UserError(f"{self.name}: early_stop ends trials before they have spent the same; leave it out")
        return recipe.model_copy(update={"name": self.name})


def settings_to_try(design: Design) -> list[tuple[str, ...]]:
    """All combinations of what is tuned, as overrides; none where nothing is."""
    if not design.tune:
        return []
    return [
        tuple(f"{key}={toml_value(value)}" for key, value in zip(design.tune, values, strict=True))
        for values in itertools.product(*design.tune.values())
    ]


def variants(design: Design) -> list[Variant]:
    """The base first, then each variant behind its reference.

    Raises:
        UserError: two changes set the same key to different values, so that they cannot be made together.
    """
    made = [Variant(name=BASE, reference=None, overrides=())]
    if design.modes.add_one:
        made += [Variant(name=name, reference=BASE, overrides=each) for name, each in design.changes.items()]
    if design.modes.leave_one_out:
        _require_together(design.changes)
        made.append(Variant(name=ALL, reference=BASE, overrides=_together(design.changes)))
        for name in design.changes:
            others = {other: each for other, each in design.changes.items() if other != name}
            made.append(Variant(name=f"{ALL}-without-{name}", reference=ALL, overrides=_together(others)))
    names = [variant.name for variant in made]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two variants would be named {name}; name that change otherwise")
    return made


def _together(changes: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(override for each in changes.values() for override in each)


def _require_together(changes: Mapping[str, tuple[str, ...]]) -> None:
    """Raises UserError for changes that would undo one another."""
    seen: dict[str, tuple[str, Any]] = {}
    for name, overrides in changes.items():
        for key, value in _leaves(name, overrides).items():
            for other, (change, before) in seen.items():
                if key == other and value == before:
                    continue
                if _is_under(key, (other,)) or _is_under(other, (key,)):
                    raise UserError(
                        f"changes {change} and {name} both set {key}, to {before} and {value}: they cannot be made "
                        "together; set modes.leave-one-out = false, or make them one change"
                    )
            seen[key] = name, value


def _require_a_name(name: str) -> None:
    """Raises ValueError for a name that is the study's own, or cannot be a folder's."""
    signs = all(sign.isalnum() or sign in "-_.+" for sign in name)
    if name in ("", BASE, ALL) or name[0] in "-." or not signs or len(name) > _LONGEST_NAME:
        raise ValueError(
            f"a change may not be named {name!r}: use up to {_LONGEST_NAME} letters, digits and - _ . +, none of - . "
            "first, and neither base nor all"
        )


def _require_unset(where: str, keys: Iterable[str]) -> None:
    """Raises ValueError for keys of what the study sets."""
    for key in keys:
        if _is_under(key, _SET):
            raise ValueError(f"{where}: {key} is what the study sets itself; leave it out")


def _leaves(where: str, overrides: Iterable[str]) -> dict[str, Any]:
    """What overrides set, by whole keys: `model.mlp={kind='glu'}` sets `model.mlp.kind`."""
    try:
        return flattened(parse_overrides(overrides))
    except UserError as error:
        raise ValueError(f"{where}: {error}") from None


def _is_under(key: str, tables: tuple[str, ...]) -> bool:
    return any(key == table or key.startswith(f"{table}.") for table in tables)


def budget_in_steps(seconds: float, step_seconds: float) -> Duration:
    """Steps that a time holds at a measured speed; at least one."""
    return Duration(max(1, round(seconds / step_seconds)), Unit.STEPS)


def _explained(error: Any) -> str:
    """One validation error as a person would say it."""
    key, message = ".".join(map(str, error["loc"])), error["msg"].removeprefix("Value error, ")
    if error["type"] == "tuple_type":
        return f'{key}: give a list, as ["model.bias=false"]' if key != "seeds" else "seeds: give a number, or a list"
    if error["type"] == "extra_forbidden" and error["loc"][0] == "modes":
        return f"unknown key {key}; modes has add-one, leave-one-out"
    if error["type"] == "extra_forbidden":
        return f"unknown key {key}; a study has {', '.join(Design.model_fields)}"
    return f"{key}: {message}" if key else str(message)
