"""Our models, and those of transformers, as lm-evaluation-harness asks them; what it finds, as our results.

With `tasks.py`, `built_in_tasks.py` and what these two read tasks with, the only file that knows that package.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, TextIO, final

import lm_eval.evaluator
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs

from daybreak.data.tokenizer import END_OF_TEXT, Tokenizer
from daybreak.distributed import ALONE, Ranks
from daybreak.errors import UserError
from daybreak.evaluate.generation import Prompt, continuations, fitted
from daybreak.evaluate.hugging_face import PREFIX, place_of
from daybreak.evaluate.likelihood import NOT_NUMBERS, score_windows
from daybreak.evaluate.quiet import quiet, variables
from daybreak.evaluate.results import Figure, TaskResult, TaskResults
from daybreak.evaluate.tasks import LoadedTasks
from daybreak.evaluate.windows import continuation_windows, rolling_windows
from daybreak.hardware import PrecisionName
from daybreak.model.gpt import GPT
from daybreak.progress import progress
from daybreak.sampling.settings import SamplingConfig

Working = Callable[[str, int, str], AbstractContextManager[Callable[[int], None]]]

_SEED = 1234  # the harness's own, of the examples in front of items
_BOOTSTRAPS = 1000  # of standard errors that no formula gives
_TOKENS_GENERATED = 256  # the harness's own, where a task does not say
_PIECES = 50  # that the progress of a model of transformers is shown in


@final
class DaybreakLM(TemplateLM):  # type: ignore[misc]
    """A GPT of ours, as the harness asks it. How texts become tokens is the harness's own rule for causal models.

    Args:
        context: tokens that the model sees at once.
        working: shows the progress of long work; `daybreak.progress.progress` unless given.
        ranks: share what is scored; what is generated, each generates.
    """

    backend = "causal"

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        precision: PrecisionName,
        context: int,
        working: Working = progress,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__()
        self._model, self._tokenizer, self._precision = model, tokenizer, precision
        self._context, self._working, self._ranks = context, working, ranks

    @property
    def max_length(self) -> int:
        return self._context

    @property
    def eot_token_id(self) -> int:
        return self._tokenizer.end_of_text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        ids: list[int] = self._tokenizer.encode(string).tolist()
        return ids

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        asked: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return asked

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], disable_tqdm: bool = True, **_: Any
    ) -> list[tuple[float, bool]]:
        windows = [continuation_windows(context, continuation, self._context) for _, context, continuation in requests]
        with self._working("scoring answers", sum(map(len, windows)), "item") as advance:
            return self._scored(windows, advance)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        texts = [self.tok_encode(request.args[0]) for request in requests]
        windows = [list(rolling_windows(tokens, self.eot_token_id, self._context)) for tokens in texts]
        with self._working("scoring texts", sum(map(len, windows)), "window") as advance:
            return [log_likelihood for log_likelihood, _ in self._scored(windows, advance)]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        prompts = [self._prompt(*request.args) for request in requests]
        with self._working("writing answers", len(prompts), "item") as advance:
            return continuations(self._model, self._tokenizer, prompts, precision=self._precision, advance=advance)

    def _scored(self, windows: Sequence[Sequence[Any]], advance: Callable[[int], None]) -> list[tuple[float, bool]]:
        """The windows of each request together."""
        flat = [window for each in windows for window in each]
        found = score_windows(self._model, flat, precision=self._precision, advance=advance, ranks=self._ranks)
        scores = iter(found)
        together = ([next(scores) for _ in each] for each in windows)
        return [(math.fsum(s.log_likelihood for s in each), all(s.greedy for s in each)) for each in together]

    def _prompt(self, text: str, settings: dict[str, Any]) -> Prompt:
        asked = dict(normalize_gen_kwargs(settings, _TOKENS_GENERATED))
        stops = tuple(filter(None, handle_stop_sequences(asked.get("until"), eos=END_OF_TEXT)))
        tokens, most = fitted(self.tok_encode(text) or [self.eot_token_id], asked["max_gen_toks"], self._context)
        if not asked.get("do_sample"):
            return Prompt(tokens, most, stops, SamplingConfig(greedy=True))
        temperature = asked.get("temperature") or 1.0
        sampling = SamplingConfig(temperature=temperature, top_k=asked.get("top_k"), top_p=asked.get("top_p"))
        return Prompt(tokens, most, stops, sampling)


@final
class Watched(LM):  # type: ignore[misc]
    """Another model of the harness's, whose progress is shown; asked piece by piece."""

    def __init__(self, inner: Any, shown_on: TextIO) -> None:
        super().__init__()
        self._inner, self._shown_on = inner, shown_on

    @property
    def max_length(self) -> int:
        return int(self._inner.max_length)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        return self._asked("scoring answers", requests, self._inner.loglikelihood)

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        return self._asked("scoring texts", requests, self._inner.loglikelihood_rolling)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        return self._asked("writing answers", requests, self._inner.generate_until)

    def _asked(self, what: str, requests: list[Instance], ask: Callable[[list[Instance]], list[Any]]) -> list[Any]:
        answers: list[Any] = []
        size = max(64, -(-len(requests) // _PIECES))
        with progress(what, len(requests), "item", self._shown_on) as advance:
            for start in range(0, len(requests), size):
                answers += ask(requests[start : start + size])
                _require_numbers(answers[start:])
                advance(len(requests[start : start + size]))
        return answers


def open_transformers(name: str, *, device: str, context: int | None = None, batch: int = 16) -> Any:
    """A model of transformers, in the harness's own class for them: safetensors alone, and nobody's code is run.

    Args:
        name: a folder, or a name on the hub; with or without `hf:`.
        context: tokens that the model sees at once; its own unless given.
        batch: rows at once.

    Raises:
        UserError: there is no such model, or it needs code of its own.
    """
    from lm_eval.models.huggingface import HFLM  # slow to import

    place = place_of(name)
    with quiet():
        try:
            return HFLM(
                pretrained=place,
                device=device,
                batch_size=batch,
                max_length=context,
                use_safetensors=True,
                trust_remote_code=False,  # said, and not only left out: transformers would ask a person otherwise
            )
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise UserError(f"{PREFIX}{place} cannot be read: {' '.join(str(error).split())[:400]}") from error


@final
@dataclass(frozen=True)
class Benchmarks:
    """Tasks that any model can be measured on, again and again.

    Attributes:
        shots: examples in front of each item; the tasks' own numbers unless given.
        limit: the first items of each task; all unless given.
    """

    loaded: LoadedTasks
    shots: int | None = None
    limit: int | None = None

    def measure(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        *,
        precision: PrecisionName,
        context: int,
        working: Working | None = None,
        ranks: Ranks = ALONE,
    ) -> TaskResults:
        """Our own model on all tasks.

        Args:
            working: shows the progress of long work; on standard error unless given.
            ranks: share the work, and each knows the results.
        """
        with quiet() as ours:
            shown = working or partial(progress, stream=ours)
            return self._results(DaybreakLM(model, tokenizer, precision, context, shown, ranks))

    def measure_transformers(self, model: Any) -> TaskResults:
        """A model that `open_transformers` opened, through the harness's own class."""
        with quiet() as ours:
            return self._results(Watched(model, ours))

    def _results(self, lm: Any) -> TaskResults:
        for task in self.loaded.tasks.values():
            own = task.get_config("num_fewshot")
            if own != 0:  # a task that says 0 has no examples that could stand in front
                task.set_config(key="num_fewshot", value=(own or 0) if self.shots is None else self.shots)
            task.set_fewshot_seed(seed=_SEED)
        names = {"tasks": dict(self.loaded.tasks), "groups": dict(self.loaded.groups)}
        names["group_map"] = {group.name: group.child_names for group in self.loaded.groups.values()}
        # In one process: a pool of others is forked otherwise, in the middle of a run.
        try:
            with variables(DISABLE_MULTIPROC="1"):
                found = lm_eval.evaluator.evaluate(
                    lm, names, limit=self.limit, bootstrap_iters=_BOOTSTRAPS, log_samples=False
                )
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise UserError(f"{', '.join(self.loaded.tasks)} could not be evaluated: {why}") from error
        tasks = [self._result(name, found) for name in self.loaded.order if name in found["results"]]
        return TaskResults(tasks, lm.max_length, version("lm_eval"))

    def _result(self, name: str, found: Any) -> TaskResult:
        values = found["results"][name]
        figures: dict[str, Figure] = {}
        filters = {key.split(",")[1] for key in values if "," in key}
        for key, value in values.items():
            metric, comma, way = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = values.get(f"{metric}_stderr,{way}")
            label = metric if len(filters) == 1 else f"{metric}[{way}]"
            known = isinstance(error, int | float) and not math.isnan(error)
            figures[label] = Figure(float(value), float(error) if known else None)
        if "bits_per_byte" in figures and name in self.loaded.tasks:
            figures["bits_per_character"] = Figure(
                figures["bits_per_byte"].value * _bytes_per_character(self.loaded.tasks[name])
            )
        below = found["group_subtasks"].get(name, [])
        items = sum(found["n-samples"][each]["effective"] for each in self._leaves(name))
        return TaskResult(
            name=name,
            figures=figures,
            version=str(found["versions"].get(name, "")),
            shots=int(found["n-shot"].get(name, 0)),
            items=items,
            chance=self._chance(name),
            of=len(below),
            member=any(name in group.child_names for group in self.loaded.groups.values()),
            note=self.loaded.notes.get(name, ""),
        )

    def _chance(self, name: str) -> float | None:
        """Of a task; of a group, if all its tasks have the same."""
        each = {_chance(self.loaded.tasks[leaf]) for leaf in self._leaves(name)}
        return each.pop() if len(each) == 1 else None

    def _leaves(self, name: str) -> list[str]:
        if name in self.loaded.groups:
            return [task.task_name for task in self.loaded.groups[name].get_all_tasks()]
        return [name]


def _require_numbers(answers: Sequence[Any]) -> None:
    """Raises UserError if a log-likelihood is NaN; answers in words are none."""
    likelihoods = (answer[0] if isinstance(answer, tuple) else answer for answer in answers)
    if any(isinstance(each, float) and math.isnan(each) for each in likelihoods):
        raise UserError(NOT_NUMBERS)


def _chance(task: Any) -> float | None:
    """The mean over the items of 1 / options; None where there are not several, of which one is right."""
    own_rule = getattr(task.config, "process_results", None) is not None
    if task.OUTPUT_TYPE != "multiple_choice" or own_rule or getattr(task, "multiple_target", 0):
        return None
    if "acc_mutual_info" in task.aggregation():  # each option is asked twice
        return None
    options = Counter(instance.doc_id for instance in task.instances)
    return math.fsum(1 / count for count in options.values()) / len(options)


def _bytes_per_character(task: Any) -> float:
    texts = [instance.args[0] for instance in task.instances]
    return sum(len(text.encode()) for text in texts) / sum(len(text) for text in texts)
