"""What is wrong with the items of a task, said before any is scored: the harness passes over it, or stumbles late."""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from jinja2 import TemplateError, meta
from lm_eval.api.task import ConfigurableTask
from lm_eval.utils import env

from daybreak.errors import UserError

_TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice")
_ABSENT = re.compile(r"'([^']+)' is undefined|has no attribute '([^']+)'")


def require_fields(name: str, settings: Mapping[str, Any], fields: Sequence[str], where: str) -> None:
    """Raises UserError if a template names a field that the items do not have.

    Args:
        settings: of the task, as its YAML has them; one that makes its items anew is let be.
        fields: of the items.
        where: they come from.
    """
    if settings.get("process_docs") is not None:
        return
    for field in _fields_read(settings):
        if field not in fields:
            raise UserError(missing_field(name, field, fields, where))


def missing_field(name: str, field: str, fields: Sequence[str], where: str) -> str:
    """The message for it."""
    return f"{where}: task {name} needs the field {field!r}, which its items lack; they have {', '.join(fields)}"


def field_that_lacked(error: Exception) -> str | None:
    """The field that a task's own code or template looked for in vain; None if it failed at something else."""
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
        return error.args[0]
    absent = _ABSENT.search(str(error)) if isinstance(error, TemplateError) else None
    return None if absent is None else absent[1] or absent[2]


def require_answerable(name: str, task: Any, where: str, limit: int | None = None) -> None:
    """Raises UserError if items have nothing in a field that is read, or an answer that is none of their options.

    Args:
        limit: the first items alone; all unless given.
    """
    if not isinstance(task, ConfigurableTask):  # whose code alone knows what it reads
        return
    config, docs = task.config, list(islice(task.eval_docs, limit))
    plain = {key: each for key in _TEMPLATES if "{%" not in str(each := getattr(config, key))}  # without conditions
    read = [field for field in _fields_read(plain) if field in task.features]
    empty = [any(doc[field] is None for field in read) for doc in docs]
    if any(empty):
        doc = docs[empty.index(True)]
        field = next(field for field in read if doc[field] is None)
        raise UserError(_counted(name, where, empty, f"it has no {field}"))
    if task.OUTPUT_TYPE != "multiple_choice" or isinstance(config.doc_to_target, int):
        return
    wrong = [not _has_its_answer(task, doc) for doc in docs]
    if any(wrong):
        doc = docs[wrong.index(True)]
        answer, options = _answer(task, doc), ", ".join(map(repr, task.doc_to_choice(doc)))
        raise UserError(_counted(name, where, wrong, f"its answer {answer!r} is none of its options ({options})"))


def require_examples(tasks: Mapping[str, Any], shots: int | None) -> None:
    """Raises UserError if there are fewer items than are to stand in front of one.

    Args:
        shots: examples in front of each item; the task's own number unless given.
    """
    for name, task in tasks.items():
        own = task.get_config("num_fewshot")
        wanted = own if shots is None or own == 0 else shots
        if not wanted or not isinstance(task, ConfigurableTask) or not hasattr(task, "sampler"):
            continue
        drawn_from = task.fewshot_cfg.split
        itself = drawn_from is not None and drawn_from == task.config.test_split  # the one that is asked is left out
        needed, there = wanted + itself, len(task.sampler.df)
        if there < needed:
            raise UserError(
                f"{wanted} examples in front of each item of {name} need at least {needed:,} items to draw them from; "
                f"there are {there:,}: take a smaller --few-shot, or more items"
            )


def _fields_read(settings: Mapping[str, Any]) -> list[str]:
    """The fields that a task's templates name, as far as can be seen; its own code may read others."""
    found: list[str] = []
    for template in (settings.get(key) for key in _TEMPLATES):
        if isinstance(template, str) and template.isidentifier():
            found.append(template)
        elif isinstance(template, str):
            try:
                found += sorted(meta.find_undeclared_variables(env.parse(template)) - env.globals.keys())
            except TemplateError:
                continue  # the harness tells when it reads it
    return list(dict.fromkeys(found))


def _answer(task: Any, doc: Any) -> Any:
    ask: Callable[[Any], Any] = task.doc_to_text if task.multiple_input else task.doc_to_target
    return ask(doc)


def _has_its_answer(task: Any, doc: Any) -> bool:
    answer, options = _answer(task, doc), task.doc_to_choice(doc)
    answers = answer if isinstance(answer, list) else [answer]
    return bool(answers) and all(
        0 <= each < len(options) if isinstance(each, int) else each in options for each in answers
    )


def _counted(name: str, where: str, wrong: Sequence[bool], why: str) -> str:
    some = f"{sum(wrong):,} of {len(wrong):,} items cannot be asked"
    return f"{where}: task {name}: {some}; the first is item {wrong.index(True) + 1:,}: {why}"
