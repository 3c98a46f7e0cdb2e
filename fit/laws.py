"""Fit the laws to the runs of `grid.py`, and write them into the package, with a figure.

python fit/laws.py                  # writes src/daybreak/laws.json and docs/figures/laws.svg, prints the tables

Two ways (Hoffmann et al. 2022): parabolas through runs of equal FLOPs, and of equal seconds at the speed that each
depth had (approach 2), and one formula through all runs (approach 3), which is what the package uses. What it says of a
run is judged with that run left out. The formula's exponents are taken to be equal: small runs cannot tell them apart,
and left-out runs are foretold better so; it makes the best N grow with the root of the FLOPs, as approaches 1 and 2
found there.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from grid import SWEEP_WIDTHS, TEXT, read_results
from scipy.optimize import minimize

from daybreak.family import lr_factor
from daybreak.training.budget import FEW_STEPS
from daybreak.training.forecast import CurveLaw, Forecast

PACKAGE = Path(__file__).parent.parent / "src" / "daybreak"
FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "laws.svg"
_HUBER = 1e-3  # as there, in log loss
_STARTS = {"e": (0.5, 1.0), "a": (2.0, 5.0, 8.0), "b": (3.0, 6.0, 9.0), "exponent": (0.2, 0.5)}
_SECONDS = (100, 200, 400, 700)  # of one thread
_WARMUP, _DECAY = 0.01, 0.6  # of the family's schedule
_OTHER_RECIPES = 1.5  # what forecasts of recipes other than the family's were off by, as found (docs/log.md)
_FORECAST_AT = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Point:
    """A finished run of steps enough to learn: N is a sixth of the FLOPs a token."""

    depth: int
    flops: float
    n: float
    tokens: float
    loss: float


def points(records: Sequence[Mapping[str, Any]], kind: str = "grid") -> list[Point]:
    return [
        Point(each["depth"], each["flops"], each["flops_per_token"] / 6, each["tokens"], each["loss"])
        for each in records
        if each["kind"] == kind and each["steps"] >= FEW_STEPS
    ]


def fit_formula(runs: Sequence[Point], starts: Sequence[Sequence[float]] | None = None) -> list[float]:
    """log E, log A, log B and the exponent with the least Huber loss between log losses, from many starts."""
    n, tokens, loss = (np.array([getattr(run, name) for run in runs]) for name in ("n", "tokens", "loss"))

    def objective(x: np.ndarray) -> float:
        e, a, b, exponent = x
        terms = np.stack([np.full_like(n, e), a - exponent * np.log(n), b - exponent * np.log(tokens)])
        residual = np.logaddexp.reduce(terms) - np.log(loss)
        size = np.abs(residual)
        return float(np.where(size < _HUBER, 0.5 * size**2, _HUBER * (size - 0.5 * _HUBER)).sum())

    tried = starts or list(itertools.product(*_STARTS.values()))
    found = [
        minimize(objective, start, method="Nelder-Mead", options={"maxiter": 9000, "fatol": 1e-14, "xatol": 1e-9})
        for start in tried
    ]
    return [float(value) for value in min(found, key=lambda each: each.fun).x]


def formula(x: Sequence[float], n: float, tokens: float) -> float:
    e, a, b, exponent = x
    return math.exp(e) + math.exp(a - exponent * math.log(n)) + math.exp(b - exponent * math.log(tokens))


def left_out_errors(runs: Sequence[Point], whole: Sequence[float]) -> list[float]:
    """What the formula, fitted to the others, says of each run, less what the run came to; in nats."""
    errors = []
    for run in runs:
        others = fit_formula([other for other in runs if other is not run], [whole])
        errors.append(formula(others, run.n, run.tokens) - run.loss)
    return errors


def vertex(level: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """N and loss at the vertex of a parabola in log N through pairs of both; None if it lies outside of them."""
    x, losses = np.log([n for n, _ in level]), [loss for _, loss in level]
    second, first, constant = np.polyfit(x, losses, 2)
    at = -first / (2 * second)
    if second <= 0 or not x.min() <= at <= x.max():
        return None
    return math.exp(at), float(constant + first * at + second * at**2)


def of_equal_seconds(runs: Sequence[Point], speeds: Mapping[int, float], seconds: float) -> list[tuple[float, float]]:
    """N and loss of each depth after so many seconds, on a line in log FLOPs between the runs on both sides."""
    level = []
    for depth, speed in sorted(speeds.items()):
        own = sorted((run for run in runs if run.depth == depth), key=lambda run: run.flops)
        flops = speed * seconds
        if own[0].flops <= flops <= own[-1].flops:
            x = np.log([run.flops for run in own])
            level.append((own[0].n, float(np.interp(math.log(flops), x, [run.loss for run in own]))))
    return level


def best_factors(records: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """By width, the factor of all learning rates at the vertex of a parabola through the three lowest losses."""
    found = {}
    for width, tried in sweeps(records).items():
        if len(tried) < 3:
            continue
        ordered = sorted(tried)
        middle = min(range(1, len(ordered) - 1), key=lambda index: tried[ordered[index]])
        near = ordered[middle - 1 : middle + 2]
        second, first, _ = np.polyfit(np.log(near), [tried[factor] for factor in near], 2)
        found[width] = math.exp(-first / (2 * second))
    return found


def sweeps(records: Sequence[Mapping[str, Any]]) -> dict[int, dict[float, float]]:
    """By width and factor, the loss."""
    found: dict[int, dict[float, list[float]]] = {width: {} for width in SWEEP_WIDTHS}
    for each in records:
        if each["kind"] == "sweep":
            found[each["width"]].setdefault(each["factor"], []).append(each["loss"])
    return {
        width: {factor: sum(losses) / len(losses) for factor, losses in tried.items()} for width, tried in found.items()
    }


def forecast_errors(record: Mapping[str, Any], law: CurveLaw) -> Iterator[tuple[float, float]]:
    """Progress, and how far the forecast made there was off, in nats."""
    curve, due = record["curve"], list(_FORECAST_AT)
    forecast, share = Forecast(law), 1 / len(curve)
    for index, loss in enumerate(curve):
        progress = index * share
        forecast.note_step(progress, share, _lr_share(progress + share / 2), loss)
        while due and progress + share >= due[0] - 1e-9:
            said = forecast.at_end(_trained_from(progress + share), 0.0)
            if said is not None:
                yield due[0], said[0] - record["loss"]
            due.pop(0)


def _lr_share(progress: float) -> float:
    return min(1.0, progress / _WARMUP) * min(1.0, (1 - progress) / _DECAY)


def _trained_from(progress: float) -> float:
    """The sum of shares of the peak learning rate over the progress that is left, behind the warm-up."""
    left = 1 - progress
    return left**2 / (2 * _DECAY) if left <= _DECAY else left - _DECAY / 2


def fit_curve(records: Sequence[Mapping[str, Any]]) -> CurveLaw:
    """The exponent and the noise with the least squared errors of forecasts, and twice their root mean as bands."""
    runs = [each for each in records if each["kind"] == "grid" and each["steps"] >= FEW_STEPS]

    def errors(x: Sequence[float]) -> list[tuple[float, float]]:
        law = CurveLaw(float(x[0]), float(x[1]), ((0.0, 0.0),))
        return [error for run in runs for error in forecast_errors(run, law)]

    best = minimize(lambda x: np.mean([e**2 for _, e in errors(x)]), (0.3, 0.03), method="Nelder-Mead").x
    by_progress = [(at, [e for place, e in errors(best) if place == at]) for at in _FORECAST_AT]
    bands = tuple(
        (at, round(2 * _OTHER_RECIPES * math.sqrt(np.mean(np.square(found))), 4)) for at, found in by_progress if found
    )
    return CurveLaw(round(float(best[0]), 4), round(float(best[1]), 4), bands)


def speeds(records: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """FLOP/s of each depth's grid runs, on one thread: the median."""
    grid = [each for each in records if each["kind"] == "grid"]
    return {
        depth: median(each["flops"] / each["train_seconds"] for each in grid if each["depth"] == depth)
        for depth in sorted({each["depth"] for each in grid})
    }


def draw(runs: Sequence[Point], x: Sequence[float], records: Sequence[Mapping[str, Any]]) -> None:
    """Left, runs of equal FLOPs over N, with the formula; right, the sweeps of learning rates."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "daybreak", "svg.fonttype": "none", "font.size": 9}
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    levels = sorted({run.flops for run in runs})
    colours = pyplot.get_cmap("viridis")(np.linspace(0, 0.9, len(levels)))
    n = np.geomspace(min(run.n for run in runs), max(run.n for run in runs), 50)
    for flops, colour in zip(levels, colours, strict=True):
        level = [run for run in runs if run.flops == flops]
        left.plot([run.n for run in level], [run.loss for run in level], "o", color=colour)
        left.plot(n, [formula(x, each, flops / 6 / each) for each in n], color=colour, label=f"{flops:.3g} FLOPs")
    left.set(xscale="log", xlabel="N: FLOPs a token / 6", ylabel="validation loss, nats a token")
    left.set_ylim(min(run.loss for run in runs) - 0.1, max(run.loss for run in runs) + 0.1)
    left.legend(fontsize=8)
    for width, tried in sorted(sweeps(records).items()):
        factors = sorted(tried)
        right.plot(factors, [tried[factor] for factor in factors], "o-", label=f"width {width}")
    right.set(xscale="log", xlabel="factor of all learning rates", ylabel="validation loss, nats a token")
    right.set_xticks((0.25, 0.5, 1, 2, 4), labels=("1/4", "1/2", "1", "2", "4"))
    right.legend(fontsize=8)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    records = read_results()
    runs = points(records)
    x = fit_formula(runs)
    errors = left_out_errors(runs, x)
    e, a, b, exponent = x
    law = {
        "irreducible": math.exp(e),
        "a": math.exp(a),
        "alpha": exponent,
        "b": math.exp(b),
        "beta": exponent,
        "residual": float(np.sqrt(np.mean(np.square(errors)))),
        "least_flops": min(run.flops for run in runs),
        "most_flops": max(run.flops for run in runs),
        **json.loads(TEXT.read_text(encoding="utf-8")),
    }
    curve = fit_curve(records)
    document = {
        "made": datetime.now(UTC).date().isoformat(),
        "runs": len(runs),
        "loss": law,
        "curve": {"exponent": curve.exponent, "noise": curve.noise, "bands": curve.bands},
    }
    (PACKAGE / "laws.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    draw(runs, x, records)
    print(json.dumps(document, indent=2))
    print("\n| depth | FLOPs | tokens | loss | formula | left out |\n| --- | --- | --- | --- | --- | --- |")
    for run, error in zip(runs, errors, strict=True):
        said = formula(x, run.n, run.tokens)
        print(f"| {run.depth} | {run.flops:.3g} | {run.tokens:,} | {run.loss:.4f} | {said:.4f} | {error:+.4f} |")
    print("\n| equal | N at the vertex | loss there | lowest of the runs |\n| --- | ---: | ---: | --- |")
    levels = {
        f"{flops:.3g} FLOPs": [(run.n, run.loss) for run in runs if run.flops == flops]
        for flops in sorted({run.flops for run in runs})
    }
    for seconds in _SECONDS:
        levels[f"{seconds} s"] = of_equal_seconds(runs, speeds(records), seconds)
    for name, level in levels.items():
        if len(level) >= 3:
            found = vertex(level)
            best_n, best = min(level, key=lambda pair: pair[1])
            at = "beyond the runs | " if found is None else f"{found[0]:,.0f} | {found[1]:.3f}"
            print(f"| {name} | {at} | {best:.3f}, N = {best_n:,.0f} |")
    print("\n| width | best factor of all learning rates | the rule's | ratio |\n| --- | --- | --- | --- |")
    for width, factor in best_factors(records).items():
        print(f"| {width} | {factor:.2f} | {lr_factor(width):.2f} | {factor / lr_factor(width):.2f} |")


if __name__ == "__main__":
    main()
