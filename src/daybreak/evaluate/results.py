"""What benchmarks came to, whoever was measured: figures with their standard errors, as a table and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from daybreak.text_table import plain_table

_SPOKEN = {
    "acc": "accuracy",
    "acc_norm": "normalised accuracy",
    "exact_match": "exact match",
    "word_perplexity": "word perplexity",
    "byte_perplexity": "byte perplexity",
    "bits_per_byte": "bits per byte",
    "bits_per_character": "bits per character",
}
_GUESSED = ("acc", "acc_norm", "acc_bytes")  # by the options of an item
_SHARES = ("acc", "exact_match", "em", "f1", "contains")


@final
@dataclass(frozen=True)
class Figure:
    """A mean over a task's items; its standard error where there is a formula or a bootstrap for it."""

    value: float
    standard_error: float | None = None


@final
@dataclass(frozen=True)
class TaskResult:
    """One task, or the average over a group of tasks.

    Attributes:
        figures: by metric, as the harness calls it: `acc`, `acc_norm`, `perplexity`, `word_perplexity`.
        version: of the task, as its file states it.
        shots: examples in front of each item.
        items: that were evaluated.
        chance: the accuracy of guessing among the options of each item; None where it has none.
        of: how many tasks a group's average is over; 0 for a task.
        member: it is a task of a group that is there too.
        note: what is special about it, for the person.
    """

    name: str
    figures: Mapping[str, Figure]
    version: str
    shots: int
    items: int
    chance: float | None = None
    of: int = 0
    member: bool = False
    note: str = ""

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "metrics": {name: figure.value for name, figure in self.figures.items()},
            "standard_errors": {
                name: figure.standard_error
                for name, figure in self.figures.items()
                if figure.standard_error is not None
            },
            "version": self.version,
            "few_shot": self.shots,
            "items": self.items,
            **({} if self.chance is None else {"chance": self.chance}),
            **({"tasks": self.of} if self.of else {}),
            **({"note": self.note} if self.note else {}),
        }

    def recorded(self) -> dict[str, float]:
        """As metrics.jsonl has it: metric, and metric_stderr where it is known."""
        figures: dict[str, float] = {}
        for name, figure in self.figures.items():
            figures[name] = figure.value
            if figure.standard_error is not None:
                figures[f"{name}_stderr"] = figure.standard_error
        return figures

    def line(self) -> str:
        """`lambada_openai accuracy 36.2 %, perplexity 28.60`."""
        return f"{self.name} " + ", ".join(f"{spoken(name)} {shown(name, f.value)}" for name, f in self.figures.items())


@final
@dataclass(frozen=True)
class TaskResults:
    """Of one model on several tasks.

    Attributes:
        context: tokens that the model saw at once.
        harness: the version of lm-evaluation-harness that made the requests and the metrics.
    """

    tasks: Sequence[TaskResult]
    context: int
    harness: str

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "context": self.context,
            "lm_eval": self.harness,
            "tasks": {task.name: task.described() for task in self.tasks},
        }

    def table(self) -> list[str]:
        """A line for each figure, under a header."""
        rows: list[tuple[str, ...]] = [("task", "metric", "value", "± s.e.", "chance", "items", "shots", "version")]
        for task in self.tasks:
            about = ("  " * task.member + task.name, f"{task.items:,}", str(task.shots), task.version)
            for name, figure in task.figures.items():
                error = "" if figure.standard_error is None else shown(name, figure.standard_error)
                chance = "" if task.chance is None or name not in _GUESSED else shown(name, task.chance)
                rows.append((about[0], spoken(name), shown(name, figure.value), error, chance, *about[1:]))
                about = ("", "", "", "")
        if all(task.chance is None for task in self.tasks):
            rows = [(*row[:4], *row[5:]) for row in rows]
        lines = plain_table(rows, left=(0, 1))
        notes = [f"{task.name}: {task.note}" for task in self.tasks if task.note]
        return [*lines, *notes, f"context {self.context:,} tokens; lm-evaluation-harness {self.harness}"]


def spoken(metric: str) -> str:
    """A metric by the name that people know it by."""
    name, _, way = metric.partition("[")
    return f"{_SPOKEN.get(name, name.replace('_', ' '))}{f' [{way}' if way else ''}"


def shown(metric: str, value: float) -> str:
    """A share in percent, everything else with four digits behind the point, or four in all where it is large."""
    if metric.startswith(_SHARES):
        return f"{100 * value:.2f} %"
    return f"{value:,.4g}" if value >= 1e4 else f"{value:.4f}"
