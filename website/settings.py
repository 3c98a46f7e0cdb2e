"""All settings of a recipe as tables, read off the configurations: key, type, default, meaning."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from daybreak.configuration import Configuration
from daybreak.duration import Duration, parse_interval
from daybreak.recipe import Recipe

_BOUNDS = {
    "gt": "&gt; {}",
    "ge": "≥ {}",
    "lt": "&lt; {}",
    "le": "≤ {}",
    "min_length": "at least {}",
    "max_length": "at most {}",
}
_UNBOUNDED = (2**31 - 1, 10_000, 1e6, 1e9, 1e-6)  # limits that are there to catch slips of the finger


@dataclass(frozen=True)
class Setting:
    """One line of a table."""

    key: str
    type: str
    default: str
    meaning: str


def settings_tables() -> str:
    """A heading and a table for each table of a recipe, and for each kind of a part that has kinds."""
    return "\n\n".join(_table(key, model, depth) for key, model, depth in configurations())


def configurations() -> Iterator[tuple[str, type[Configuration], int]]:
    """Every configuration that a recipe may hold, with the key of its table and how deep it lies; the recipe first."""
    yield from _below("", Recipe, 0)


def settings_of(key: str, model: type[Configuration]) -> list[Setting]:
    """The settings of one table; tables inside it are not among them."""
    meanings = meanings_of(model)
    return [
        Setting(
            f"{key}.{name}" if key else name,
            type_of(field),
            _default(field),
            meanings.get(name, ""),
        )
        for name, field in model.model_fields.items()
        if not (name == "kind" and _is_told_apart(model))
        if not _models(field.annotation) or _is_list(field.annotation)
    ]


@cache
def meanings_of(model: type[Configuration]) -> dict[str, str]:
    """What `Attributes:` in a configuration's docstring says of each of its fields."""
    _, _, attributes = (inspect.getdoc(model) or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", attributes, flags=re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for name, text in entries}


def type_of(field: FieldInfo) -> str:
    """A type as a person would say it."""
    if (
        field.default_factory is None
        and isinstance(field.default, Duration | None)
        and parse_interval in _validators(field)
    ):
        return "interval, or `never`"
    return _said(field.annotation, tuple(field.metadata))


def _table(key: str, model: type[Configuration], depth: int) -> str:
    named = f' = "{get_args(model.model_fields["kind"].annotation)[0]}"' if _is_told_apart(model) else ""
    title = f"`{key}.kind{named}`" if named else f"`{key}`" if key else "At the top"
    rows = "\n".join(
        f"| `{each.key}`<br><small>{each.type}</small> | {each.default} | {each.meaning} |"
        for each in settings_of(key, model)
    )
    tables = [
        name
        for name, field in model.model_fields.items()
        if _models(field.annotation) and not _is_list(field.annotation)
    ]
    inside = (
        "Tables in it: " + ", ".join(f"`{f'{key}.' if key else ''}{name}`" for name in tables) + "." if tables else ""
    )
    head = "| setting | default | meaning |\n| --- | --- | --- |\n"
    parts = [
        f"{'#' * min(4, 2 + max(0, depth - 1))} {title}",
        _description(model) if key else "",
        head + rows if rows else "",
        inside,
    ]
    return "\n\n".join(part for part in parts if part)


def _is_told_apart(model: type[Configuration]) -> bool:
    """Whether it is one kind of several, so that its heading says which."""
    kind = model.model_fields.get("kind")
    return kind is not None and len(get_args(kind.annotation)) == 1


def _below(key: str, model: type[Configuration], depth: int) -> Iterator[tuple[str, type[Configuration], int]]:
    yield key, model, depth
    for name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            yield from _below(f"{key}.{name}" if key else name, inner, depth + 1)


def _models(annotation: Any) -> list[type[Configuration]]:
    if isinstance(annotation, type) and issubclass(annotation, Configuration):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is tuple


def _said(annotation: Any, marks: tuple[Any, ...]) -> str:
    bounds = "".join(
        f", {form.format(getattr(mark, name))}"
        for mark in marks
        for name, form in _BOUNDS.items()
        if getattr(mark, name, None) is not None and getattr(mark, name) not in _UNBOUNDED
    )
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _said(inner[0], (*inner[1:], *marks))
    if origin in (Union, UnionType):
        return ", or ".join(_said(each, ()) for each in inner if each is not NoneType) + bounds
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in inner)
    if origin is tuple:
        several = len(inner) == 1 or inner[-1] is Ellipsis
        return (f"list: {_said(inner[0], ())}" if several else f"list of {len(inner)}: {_said(inner[0], ())}") + bounds
    if isinstance(annotation, type) and issubclass(annotation, Configuration):
        return "table"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{each.value}`" for each in annotation)
    names = {bool: "true or false", int: "whole number", float: "number", str: "text", Duration: "duration"}
    return names[annotation] + bounds


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "required" if field.default_factory is None else ""
    if value is None:
        return "`never`" if parse_interval in _validators(field) else "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    if isinstance(value, str):
        return f'`"{value}"`' if isinstance(field.annotation, type) or not value else f"`{value}`"
    return f"`{value}`" if isinstance(value, Duration) else f"`{value:g}`"


def _validators(field: FieldInfo) -> list[Any]:
    return [getattr(mark, "func", None) for mark in field.metadata]


def _description(model: type[Configuration]) -> str:
    text, _, _ = (inspect.getdoc(model) or "").partition("Attributes:\n")
    return text.strip()
