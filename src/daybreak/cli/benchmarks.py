"""Benchmarks and suites of them, as `daybreak evaluate --tasks` and `--suite` print them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from daybreak.cli.json_output import print_json

if TYPE_CHECKING:
    from daybreak.evaluate.language_model import LanguageModel
    from daybreak.evaluate.results import TaskResults
    from daybreak.evaluate.task_choice import TaskChoice


@final
@dataclass(frozen=True)
class Asked:
    """What stands behind `daybreak evaluate`.

    Attributes:
        model: a run's folder, or hf:FOLDER, or hf:OWNER/NAME.
        context: tokens that the model sees at once; its own unless given.
    """

    model: str
    tasks: str | None
    folder: Path | None
    suite: str | None
    local: tuple[str, ...]
    limit: int | None
    shots: int | None
    context: int | None
    as_json: bool


def evaluate_tasks(asked: Asked) -> None:
    """Measure a model on tasks, or on a suite of them, and print what it came to."""
    described, lines = _suite(asked) if asked.suite is not None else _tasks(asked)
    if asked.as_json:
        print_json(described)
        return
    print("\n".join(lines))
    if asked.limit is not None:
        print(f"the first {asked.limit} items of each task alone: no figures to compare with others'")


def _tasks(asked: Asked) -> tuple[dict[str, Any], list[str]]:
    from daybreak.evaluate.benchmarks import parse_local
    from daybreak.evaluate.task_choice import TaskChoice

    names = tuple(name.strip() for name in (asked.tasks or "").split(",") if name.strip())
    choice = TaskChoice(names, asked.folder, parse_local(asked.local), asked.shots, asked.limit)
    subject = _subject(asked.model)
    results = subject.measure(choice, asked.context)
    return {**subject.described, **results.described()}, results.table()


def _suite(asked: Asked) -> tuple[dict[str, Any], list[str]]:
    from daybreak.errors import UserError
    from daybreak.evaluate.benchmarks import open_benchmarks, parse_local, require_harness
    from daybreak.evaluate.dclm_core import measure_core
    from daybreak.evaluate.gpt_star import gpt_star_context, measure_gpt_star
    from daybreak.evaluate.suites import SUITES

    if asked.suite not in SUITES:
        raise UserError(f"--suite {asked.suite} is none; there are {', '.join(SUITES)}")
    if asked.tasks or asked.folder or asked.shots is not None:
        raise UserError("--suite has tasks and shots of its own; leave out --tasks, --tasks-from and --few-shot")
    require_harness()
    local, subject = parse_local(asked.local), _subject(asked.model)
    if asked.suite == "core":
        core = measure_core(lambda choice: subject.measure(choice, asked.context), open_benchmarks, local, asked.limit)
        return {**subject.described, **core.described()}, core.table()
    context = asked.context or min(gpt_star_context(), subject.positions or gpt_star_context())
    row = measure_gpt_star(
        lambda choice: subject.measure(choice, context),
        open_benchmarks,
        lambda name, file, contexts: _swept(subject.language_model(), name, file, contexts),
        context,
        local,
        asked.limit,
    )
    return {**subject.described, **row.described()}, row.table()


def _swept(model: "LanguageModel", name: str, file: Path, contexts: Sequence[int]) -> list[dict[str, Any]]:
    """What a text comes to at each context, rows not overlapping; WikiText's as its task reads it."""
    from daybreak.evaluate.sweep import sweep
    from daybreak.evaluate.text import read_text
    from daybreak.evaluate.wikitext_articles import read_articles

    texts = read_articles(model, file) if name == "wikitext" else [read_text(model, [str(file)])]
    return [row.figures for row in sweep(model, texts, contexts)]


@final
@dataclass(frozen=True)
class _Subject:
    """Whom benchmarks are asked of.

    Attributes:
        positions: the longest context that there are positions for; None where there is no end to them.
        measure: what it comes to on some tasks, at a context or its own.
        language_model: opens it, once, to measure texts with.
    """

    described: dict[str, Any]
    positions: int | None
    measure: "Callable[[TaskChoice, int | None], TaskResults]"
    language_model: "Callable[[], LanguageModel]"


def _subject(name: str) -> _Subject:
    """A run, or a model of transformers.

    Raises:
        UserError: there is no such run.
    """
    from daybreak.evaluate.hugging_face import PREFIX, open_hugging_face
    from daybreak.run import load

    if name.startswith(PREFIX):
        return _Subject({"model": name}, None, _of_transformers(name), cache(lambda: open_hugging_face(name)))
    run = load(name)
    described = {"run": name, "step": run.spent.steps}
    return _Subject(described, run.recipe.model.positions, run.evaluate_tasks, lambda: run.language_model)


def _of_transformers(name: str) -> "Callable[[TaskChoice, int | None], TaskResults]":
    from daybreak.evaluate.benchmarks import open_benchmarks
    from daybreak.hardware import choose_device

    @cache
    def opened(context: int | None) -> Any:
        from daybreak.evaluate.harness import open_transformers

        return open_transformers(name, device=str(choose_device("auto")), context=context)

    def measure(choice: "TaskChoice", context: int | None) -> "TaskResults":
        return open_benchmarks(choice).measure_transformers(opened(context))

    return measure
