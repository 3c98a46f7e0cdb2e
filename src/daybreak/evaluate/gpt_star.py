"""The tables that GPT* was published with, and a model's row in them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from daybreak.data.compression import suffixes
from daybreak.evaluate.results import Figure, shown
from daybreak.evaluate.suites import Check, Measure, measured, opened_first, published, require_known
from daybreak.evaluate.task_choice import TaskChoice
from daybreak.text_table import plain_table

Sweep = Callable[[str, Path, Sequence[int]], Sequence[Mapping[str, Any]]]

_NO_TEXTS = (".jsonl", ".json", ".ndjson", ".parquet")  # items of a task, not a text


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


def measure_gpt_star(
    measure: Measure,
    check: Check,
    sweep: Sweep,
    context: int,
    local: Mapping[str, Path],
    limit: int | None = None,
) -> GptStar:
    """Run what can be run of the tasks that GPT* was published with.

    Args:
        measure: what some tasks come to; raises UserError where they cannot be run.
        check: opens tasks; raises UserError where they cannot be read.
        sweep: what the text of that name comes to at some contexts: `figures` of each.
        local: files in place of data sets, by task; and texts, `enwik8` and `text8`, to be measured by context.
    """
    content = published("gpt-star")
    columns = [Column(**column) for column in content["column"]]
    tasks = dict.fromkeys(column.task for column in columns)
    texts: dict[str, dict[str, str]] = content["sweep"]["measured"]
    require_known(local, list(dict.fromkeys((*tasks, *texts))))
    figures: dict[str, Figure] = {}
    missing: dict[str, str] = {}
    choices = {
        task: TaskChoice(
            (task,),
            local={name: file for name, file in local.items() if name.partition(":")[0] == task},
            shots=0,
            limit=limit,
        )
        for task in tasks
    }
    opened_first(list(choices.values()), check)
    for task, choice in choices.items():
        found = measured(measure, choice, missing, task)
        if found is not None:
            figures |= {column.name: found.figures[column.metric] for column in columns if column.task == task}
    swept = {
        about["text"]: [row.get(about["figure"]) for row in sweep(name, local[name], content["sweep"]["contexts"])]
        for name, about in texts.items()
        if name in local and (name in tasks or suffixes(local[name])[0] not in _NO_TEXTS)
    }
    return GptStar(
        context, columns, figures, missing, content["published"], content["corrections"], content["sweep"], swept
    )


def gpt_star_context() -> int:
    """Tokens at once that the published figures were measured at."""
    return int(published("gpt-star")["context"])
