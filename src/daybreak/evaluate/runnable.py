"""Tasks that are not run, and metrics that there are not: said before their data is read."""

import difflib
from collections.abc import Mapping
from typing import Any

import lm_eval.api.metrics  # noqa: F401 - which fills the harness's table of metrics
from lm_eval.api.registry import get_metric, metric_registry

from daybreak.errors import UserError
from daybreak.evaluate.quiet import quiet


def require_runnable(name: str, settings: Mapping[str, Any]) -> None:
    """Raises UserError if a task runs what the model writes, or asks for a metric that the harness does not have.

    Args:
        settings: of the task, as its YAML has them.
    """
    if settings.get("unsafe_code"):
        raise UserError(f"task {name} runs code that the model writes (unsafe_code); such tasks are not run here")
    if settings.get("process_results") is not None:  # whose metrics have names of their own
        return
    for each in settings.get("metric_list") or ():
        metric = each.get("metric") if isinstance(each, Mapping) else None
        if metric is None:
            raise UserError(f"task {name}: each of its metric_list needs a metric, as {{ metric: acc }}")
        if metric in metric_registry or not str(metric).isidentifier():  # a function of the task's, by its path
            continue
        with quiet():
            known = get_metric(metric, bool(each.get("hf_evaluate")))
        if known is None:
            close = difflib.get_close_matches(metric, list(metric_registry), n=3)
            hint = f" (did you mean {' or '.join(close)}?)" if close else ""
            raise UserError(f"task {name}: lm-evaluation-harness has no metric {metric!r}{hint}")
