"""Benchmarks of a model while it trains."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, final

from pydantic import Field, model_validator

from daybreak.configuration import Configuration, Size
from daybreak.data.tokenizer import Tokenizer
from daybreak.distributed import ALONE, Ranks
from daybreak.duration import Duration, IntervalField
from daybreak.evaluate.benchmarks import open_benchmarks, parse_local
from daybreak.evaluate.results import TaskResults
from daybreak.evaluate.task_choice import TaskChoice
from daybreak.hardware import PrecisionName
from daybreak.model.gpt import GPT

if TYPE_CHECKING:
    from daybreak.evaluate.harness import Benchmarks


@final
class TasksConfig(Configuration):
    """Benchmarks while training: how often (never, unless said), which, on what.

    Attributes:
        every: how often they are run.
        names: tasks of lm-evaluation-harness; all of `folder` where there are none.
        folder: of task files (YAML) of one's own.
        local: `NAME=FILE`, the items of a task from a file.
        limit: the first items of each task alone; none is left out unless given.
        shots: examples in front of each item; the task's own number unless given.
    """

    every: IntervalField = None
    names: tuple[str, ...] = ()
    folder: str | None = None
    local: tuple[str, ...] = ()
    limit: Size | None = None
    shots: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        named = self.names or self.folder is not None
        if named and self.every is None:
            raise ValueError("tasks.names needs tasks.every, as tasks.every=25%")
        if self.every is not None and not named:
            raise ValueError("tasks.every needs tasks.names, as tasks.names=['lambada_openai'], or tasks.folder")
        return self

    @property
    def choice(self) -> TaskChoice:
        """Raises UserError if a file is not there."""
        folder = None if self.folder is None else Path(self.folder)
        return TaskChoice(self.names, folder, parse_local(self.local), self.shots, self.limit)


@final
@dataclass(frozen=True)
class TaskEvaluation:
    """The same benchmarks again and again.

    Attributes:
        every: how often a training run measures them.
    """

    every: Duration
    benchmarks: "Benchmarks"
    tokenizer: Tokenizer

    @classmethod
    def of(cls, config: TasksConfig, tokenizer: Tokenizer) -> Self | None:
        """None where the recipe asks for no tasks.

        Raises:
            UserError: the package is missing, there is no such task, or its items are not to be had.
        """
        if config.every is None:
            return None
        return cls(config.every, open_benchmarks(config.choice), tokenizer)

    def measure(
        self,
        model: GPT,
        precision: PrecisionName,
        *,
        ranks: Ranks = ALONE,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> TaskResults | None:
        """What the model comes to, at its own context.

        Ranks share what is scored; each knows all results.

        Args:
            interrupted: asked before each batch.

        Returns:
            None if it was interrupted, on any rank.

        Raises:
            UserError: a task's own code failed at what the model said.
        """

        @contextmanager
        def unseen(_what: str, _total: int, _unit: str) -> Iterator[Callable[[int], None]]:
            def stop_if_asked(_amount: int) -> None:
                if ranks.any(interrupted()):
                    raise _Interruption

            yield stop_if_asked

        context = model.config.context
        try:
            return self.benchmarks.measure(
                model, self.tokenizer, precision=precision, context=context, working=unseen, ranks=ranks
            )
        except _Interruption:
            return None


@final
class _Interruption(BaseException):
    """Leaves the harness, which knows of no stop."""
