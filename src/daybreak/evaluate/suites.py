"""Suites: several tasks that make one score or one table, beside the figures that others published."""

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final, get_args

from daybreak.data.compression import suffixes
from daybreak.errors import UserError
from daybreak.evaluate.benchmarks import TaskChoice
from daybreak.evaluate.results import Figure, TaskResult, TaskResults, shown
from daybreak.text_table import plain_table

SuiteName = Literal["core", "gpt-star"]
SUITES: tuple[SuiteName, ...] = get_args(SuiteName)
Measure = Callable[[TaskChoice], TaskResults]
Sweep = Callable[[Path, Sequence[int]], Sequence[Mapping[str, Any]]]

_NO_TEXTS = (".jsonl", ".json", ".ndjson", ".parquet")  # items of a task, not a text
_PUBLISHED = Path(__file__).parent / "published"
_OWN_TASKS = _PUBLISHED / "core_tasks"
_NOT_THERE = "lm-evaluation-harness has no such task"


@final
@dataclass(frozen=True)
class CoreTask:
    """One of the tasks of CORE.

    Attributes:
        harness: the harness's task that asks the same; None if it has none.
        own: the task that asks it in its place, of a file in DCLM's form.
        metric: of that task, an accuracy.
        chance: the accuracy of guessing.
    """

    name: str
    shots: int
    chance: float
    harness: str | None = None
    own: str | None = None
    metric: str = "acc"

    @property
    def asked(self) -> str:
        """The task that is run."""
        return self.harness or self.own or self.name


@final
@dataclass(frozen=True)
class Core:
    """What a model came to on CORE (Li et al. 2024, arXiv 2406.11794).

    Attributes:
        accuracies: of the tasks that could be run, by name.
        missing: why the others could not.
        compare: what others came to on all tasks.
    """

    tasks: Sequence[CoreTask]
    accuracies: Mapping[str, Figure]
    missing: Mapping[str, str]
    compare: Mapping[str, float]

    @property
    def centred(self) -> dict[str, float]:
        """(accuracy - chance) / (1 - chance): 0 is guessing, 1 is perfect."""
        chance = {task.name: task.chance for task in self.tasks}
        return {name: (figure.value - chance[name]) / (1 - chance[name]) for name, figure in self.accuracies.items()}

    @property
    def score(self) -> float:
        """The mean over the tasks that could be run."""
        return math.fsum(self.centred.values()) / len(self.centred) if self.centred else math.nan

    @property
    def partial(self) -> bool:
        return bool(self.missing)

    def described(self) -> dict[str, Any]:
        """As JSON has it; a partial score has another name, so that nobody takes it for the whole."""
        score = None if math.isnan(self.score) else self.score
        return {
            "suite": "core",
            "partial_core" if self.partial else "core": score,
            "tasks": {
                task.name: {
                    "accuracy": self.accuracies[task.name].value,
                    "standard_error": self.accuracies[task.name].standard_error,
                    "chance": task.chance,
                    "centred": self.centred[task.name],
                    "few_shot": task.shots,
                    "task": task.asked,
                    "metric": task.metric,
                }
                for task in self.tasks
                if task.name in self.accuracies
            },
            "missing": dict(self.missing),
        }

    def table(self) -> list[str]:
        rows = [("task", "as", "shots", "accuracy", "± s.e.", "chance", "centred")]
        for task in self.tasks:
            if task.name in self.accuracies:
                figure = self.accuracies[task.name]
                error = "" if figure.standard_error is None else f"{100 * figure.standard_error:.2f} %"
                accuracy = f"{100 * figure.value:.2f} %"
                chance, centred = f"{100 * task.chance:.1f} %", f"{self.centred[task.name]:.4f}"
                how = f"{task.asked}, {task.metric}"
                rows.append((task.name, how, str(task.shots), accuracy, error, chance, centred))
        lines = plain_table(rows, left=(0, 1)) if self.accuracies else []
        lines += [f"missing: {name} ({why})" for name, why in self.missing.items()]
        of = f"{len(self.accuracies)} of {len(self.tasks)} tasks"
        if self.partial:
            lines.append(f"partial CORE {self.score:.4f}, over {of}: not to be compared with a CORE of all")
        else:
            lines.append(f"CORE {self.score:.4f}, over {of}")
        return [*lines, *(f"  {name}: {score:.4f}" for name, score in self.compare.items())]


@final
@dataclass(frozen=True)
class Column:
    """Of a table of results."""

    name: str
    task: str
    metric: str


@final
@dataclass(frozen=True)
class GptStar:
    """A model's row in the tables of GPT*.

    Attributes:
        figures: ours, by column.
        missing: why a task could not be run.
        published: figures by model and column; accuracies in percent.
        corrections: what is wrong with them.
        sweep: published losses of texts by context, with the contexts.
        swept: ours, by text and context; None where it could not be measured.
    """

    context: int
    columns: Sequence[Column]
    figures: Mapping[str, Figure]
    missing: Mapping[str, str]
    published: Mapping[str, Mapping[str, float]]
    corrections: Sequence[str]
    sweep: Mapping[str, Any]
    swept: Mapping[str, Sequence[float | None]]

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "suite": "gpt-star",
            "context": self.context,
            "figures": {name: figure.value for name, figure in self.figures.items()},
            "standard_errors": {name: figure.standard_error for name, figure in self.figures.items()},
            "missing": dict(self.missing),
            "published": {model: dict(row) for model, row in self.published.items()},
            "sweep": {text: list(values) for text, values in self.swept.items()},
            "published_sweep": {"contexts": self.sweep["contexts"], **self.sweep["text"]},
            "corrections": list(self.corrections),
        }

    def table(self) -> list[str]:
        header = ("accuracies in percent", *(column.name for column in self.columns))
        ours = ("this one", *(self._cell(column) for column in self.columns))
        others = [
            (model, *(f"{row[column.name]:.2f}" if column.name in row else "–" for column in self.columns))
            for model, row in self.published.items()
        ]
        notes = [f"missing: {task} ({why})" for task, why in self.missing.items()]
        notes += [f"published: {each}" for each in self.corrections]
        notes.append(f"this one at a context of {self.context:,} tokens")
        return [*plain_table([header, ours, *others], left=(0,)), *notes, "", *self._sweep_table()]

    def _sweep_table(self) -> list[str]:
        """Ours and what was published of texts, by context."""
        contexts = [f"{context:,}" for context in self.sweep["contexts"]]
        rows = [("by context", *contexts)]
        for text, models in self.sweep["text"].items():
            ours = {"this one": self.swept[text]} if text in self.swept else {}
            for model, values in {**ours, **models}.items():
                cells = ["–" if value is None else f"{value:.3f}" if value < 10 else f"{value:.2f}" for value in values]
                rows.append((f"{text}: {model}", *cells, *("–" for _ in contexts[len(values) :])))
        return plain_table(rows, left=(0,))

    def _cell(self, column: Column) -> str:
        figure = self.figures.get(column.name)
        return "–" if figure is None else shown(column.metric, figure.value).removesuffix(" %")


def measure_core(measure: Measure, local: Mapping[str, Path], limit: int | None = None) -> Core:
    """Run what can be run of CORE.

    Args:
        measure: what some tasks come to; raises UserError where they cannot be run.
        local: files in place of data sets, by the name of a task, here or in the harness.
    """
    content = _content("core")
    tasks = [CoreTask(**task) for task in content["task"]]
    _require_known(local, [name for task in tasks for name in (task.name, task.asked)])
    accuracies: dict[str, Figure] = {}
    missing: dict[str, str] = {}
    for task in tasks:
        items = local.get(task.asked) or local.get(task.name)
        if task.harness is None and items is None:
            missing[task.name] = f"{_NOT_THERE}; give DCLM's file by --local {task.name}=FILE"
            continue
        files = {name: file for name, file in local.items() if name.startswith(f"{task.asked}:")}
        if items is not None:
            files[task.asked] = items
        folder = None if task.own is None else _OWN_TASKS
        choice = TaskChoice((task.asked,), folder, files, task.shots, limit)
        found = _measured(measure, choice, missing, task.name)
        if found is not None:
            accuracies[task.name] = found.figures[task.metric]
    return Core(tasks, accuracies, missing, content["compare"])


def measure_gpt_star(
    measure: Measure, sweep: Sweep, context: int, local: Mapping[str, Path], limit: int | None = None
) -> GptStar:
    """Run what can be run of the tasks that GPT* was published with.

    Args:
        measure: what some tasks come to; raises UserError where they cannot be run.
        sweep: what a text comes to at some contexts: `figures` of each.
        local: files in place of data sets, by task; and texts, `enwik8` and `text8`, to be measured by context.
    """
    content = _content("gpt-star")
    columns = [Column(**column) for column in content["column"]]
    tasks = dict.fromkeys(column.task for column in columns)
    texts: dict[str, dict[str, str]] = content["sweep"]["measured"]
    _require_known(local, list(dict.fromkeys((*tasks, *texts))))
    figures: dict[str, Figure] = {}
    missing: dict[str, str] = {}
    for task in tasks:
        files = {name: file for name, file in local.items() if name.partition(":")[0] == task}
        found = _measured(measure, TaskChoice((task,), local=files, shots=0, limit=limit), missing, task)
        if found is not None:
            figures |= {column.name: found.figures[column.metric] for column in columns if column.task == task}
    swept = {
        about["text"]: [row.get(about["figure"]) for row in sweep(local[name], content["sweep"]["contexts"])]
        for name, about in texts.items()
        if name in local and suffixes(local[name])[0] not in _NO_TEXTS
    }
    return GptStar(
        context, columns, figures, missing, content["published"], content["corrections"], content["sweep"], swept
    )


def gpt_star_context() -> int:
    """Tokens at once that the published figures were measured at."""
    return int(_content("gpt-star")["context"])


def _measured(measure: Measure, choice: TaskChoice, missing: dict[str, str], name: str) -> TaskResult | None:
    """What a task came to; None, and why, if its items cannot be had."""
    try:
        return measure(choice).tasks[0]
    except UserError as error:
        if choice.local:  # the person's file is wrong
            raise
        missing[name] = str(error)
        return None


def _require_known(local: Mapping[str, Path], names: Sequence[str]) -> None:
    for name in local:
        if name.partition(":")[0] not in names:
            raise UserError(f"--local names {name}, which is not among the tasks of this suite ({', '.join(names)})")


def _content(name: SuiteName) -> dict[str, Any]:
    return tomllib.loads((_PUBLISHED / f"{name}.toml").read_text(encoding="utf-8"))
