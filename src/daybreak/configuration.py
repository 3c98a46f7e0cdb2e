"""What every configuration is: frozen, keyword-only, and strict about unknown keys."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from daybreak.errors import UserError


class Configuration(BaseModel):
    """Base of all configurations; a part's configuration stands in the part's own file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), validate_default=True, allow_inf_nan=False
    )


Size = Annotated[int, Field(gt=0, le=2**31 - 1)]


def words(value: Any) -> Any:
    """Names from text, as `embedding, head`; a list as it is."""
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def default_kind(kind: str) -> BeforeValidator:
    """For a union of configurations told apart by `kind`: the one that a table without a kind is."""

    def fill(value: Any) -> Any:
        return {"kind": kind, **value} if isinstance(value, Mapping) else value

    return BeforeValidator(fill)


def fill_kinds(configuration: type[Configuration], content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with the default kind in every table that names none; the rest as it is."""
    filled = dict(content)
    for name, field in configuration.model_fields.items():
        table = filled.get(name)
        if not isinstance(table, Mapping):
            continue
        for mark in field.metadata:
            if isinstance(mark, BeforeValidator):
                table = mark.func(table)  # type: ignore[call-arg]
        nested = isinstance(field.annotation, type) and issubclass(field.annotation, Configuration)
        filled[name] = fill_kinds(field.annotation, table) if nested else table  # type: ignore[arg-type]
    return filled


ConfigurationT = TypeVar("ConfigurationT", bound=Configuration)


def from_person(kind: type[ConfigurationT], settings: Mapping[str, Any]) -> ConfigurationT:
    """A configuration of settings that a person typed.

    Raises:
        UserError: they do not validate.
    """
    try:
        return kind(**settings)
    except ValidationError as error:
        problems = (
            str(each["ctx"]["error"])
            if each["type"] == "value_error"
            else f"{each['loc'][0]} = {each['input']!r}: {each['msg'][0].lower()}{each['msg'][1:]}"
            for each in error.errors()
        )
        raise UserError("; ".join(problems)) from None
