"""Benchmarks, as `daybreak evaluate --tasks` prints them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from daybreak.evaluate.benchmarks import TaskChoice
    from daybreak.evaluate.results import TaskResults

_HUGGING_FACE = "hf:"
_ROWS_AT_ONCE = 16  # of a model of transformers


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
    local: tuple[str, ...]
    limit: int | None
    shots: int | None
    context: int | None
    as_json: bool


def evaluate_tasks(asked: Asked) -> None:
    """Measure a model on tasks, and print what it came to."""
    from daybreak.evaluate.benchmarks import TaskChoice, parse_local

    names = tuple(name.strip() for name in (asked.tasks or "").split(",") if name.strip())
    choice = TaskChoice(names, asked.folder, parse_local(asked.local), asked.shots, asked.limit)
    results, about = measured(asked.model, choice, asked.context)
    if asked.as_json:
        print(json.dumps({**about, **results.described()}, indent=2, allow_nan=False))
        return
    print("\n".join(results.table()))
    if asked.limit is not None:
        print(f"the first {asked.limit} items of each task alone: no figures to compare with others'")


def measured(model: str, choice: "TaskChoice", context: int | None) -> "tuple[TaskResults, dict[str, Any]]":
    """What a model came to, and which it was.

    Raises:
        UserError: there is no such model or task.
    """
    if model.startswith(_HUGGING_FACE):
        from daybreak.evaluate.benchmarks import open_benchmarks
        from daybreak.hardware import choose_device

        benchmarks, device = open_benchmarks(choice), str(choose_device("auto"))
        name = model.removeprefix(_HUGGING_FACE)
        found = benchmarks.measure_transformers(name, device=device, context=context, batch=_ROWS_AT_ONCE)
        return found, {"model": model}
    from daybreak.run import load

    run = load(Path(model))
    return run.evaluate_tasks(choice, context), {"run": model, "step": run.spent.steps}
