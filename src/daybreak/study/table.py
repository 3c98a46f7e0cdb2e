"""A study as a table: Markdown that reads well in a terminal, and the sentences that belong to it."""

import math
from collections.abc import Iterator, Mapping, Sequence

from daybreak.study.results import Comparison, Study
from daybreak.study.runs import ComparedRuns
from daybreak.study.statistics import CONFIDENCE, POWER
from daybreak.text_table import markdown_table

_HEADS = (
    "variant", "to", "loss", "difference", "95 % interval", "p", "could show", "tokens/s", "memory", "verdict",
)  # fmt: skip


def shown(study: Study) -> str:
    """The whole of it."""
    return "\n".join(_lines(study)) + "\n"


def _lines(study: Study) -> Iterator[str]:
    design = study.design
    yield f"{design.base}, {design.seeds_said}, equal in {design.held_equal}"
    yield ""
    figures = {
        variant.name: (study.tokens_per_second(variant.name), _memory(study, variant.name))
        for variant in study.variants
    }
    losses = {variant.name: study.losses(variant.name) for variant in study.variants}
    first = study.variants[0].name
    yield from comparison_table(first, losses, study.comparisons, figures)
    yield ""
    yield from sentences(study.comparisons)
    lengths = {name: recipe.row_length for name, recipe in study.recipes.items()}
    for each in study.comparisons:
        if lengths[each.variant] != lengths[each.reference]:
            yield (
                f"{each.variant} was measured in rows of {lengths[each.variant]} tokens, {each.reference} in rows of "
                f"{lengths[each.reference]}: other rows of the same split, so part of the difference is of the text."
            )
    if study.missing:
        trials = "1 trial is" if study.missing == 1 else f"{study.missing} trials are"
        yield f"Not finished: {trials} missing; what stands here is of those that are done."
    for name, choice in study.tuned.items():
        yield f"{name} was trained with {' '.join(choice['chosen'])}, the best of {_tried(choice['losses'])}."


def shown_runs(compared: ComparedRuns) -> str:
    """The same of runs, and in what their recipes differ."""
    first = compared.groups[0].name
    losses = {group.name: group.losses for group in compared.groups}
    figures = {group.name: (group.tokens_per_second, None) for group in compared.groups}
    lines = [f"equal in {compared.equal}", ""]
    lines += [*comparison_table(first, losses, compared.comparisons, figures), "", *sentences(compared.comparisons)]
    for group in compared.groups[1:]:
        lines += ["", f"{group.name} differs from {first} in"]
        lines += [
            f"  {key}: {here} in {group.name}, {there} in {first}" for key, (here, there) in group.changes.items()
        ]
    return "\n".join(lines) + "\n"


def comparison_table(
    base: str,
    losses: Mapping[str, Mapping[int, float]],
    comparisons: Sequence[Comparison],
    figures: Mapping[str, tuple[float | None, int | None]],
) -> Iterator[str]:
    """A row for the base and for each comparison.

    Args:
        losses: by variant and seed.
        figures: tokens a second and bytes at the peak, by variant.
    """
    rows = [(base, "", _mean(losses[base]), "", "", "", "", *_speed(figures[base]), "")]
    for each in comparisons:
        found = each.difference
        rows.append(
            (
                each.variant,
                each.reference,
                _mean(losses[each.variant]),
                "" if math.isnan(found.mean) else f"{found.mean:+.4f}",
                "" if found.low is None else f"{found.low:+.4f} … {found.high:+.4f}",
                shown_p(each.p_adjusted),
                "" if found.detectable is None else f"{found.detectable:.4f}",
                *_speed(figures[each.variant]),
                each.verdict,
            )
        )
    yield from markdown_table(_HEADS, rows, left=(0, 1, len(_HEADS) - 1))


def sentences(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """What a reader must know of the figures."""
    yield "Loss in nats a token on held-out text, mean over seeds; a difference below zero is better."
    if any(each.difference.p is not None for each in comparisons):
        yield (
            f"Intervals by the paired t test over seeds. p is adjusted for {_counted(len(comparisons))} (Benjamini "
            f"and Hochberg); below {1 - CONFIDENCE:.2g} is a verdict."
        )
        yield f"Could show: the true difference that these seeds would find {POWER:.0%} of the time."
    elif comparisons and all(len(each.difference.by_seed) == 1 for each in comparisons):
        yield "One seed says nothing of chance."
    for each in comparisons:
        if each.difference.diverged:
            yield f"{each.variant} diverged with seeds {', '.join(map(str, each.difference.diverged))}."


def _counted(comparisons: int) -> str:
    return "1 comparison" if comparisons == 1 else f"{comparisons} comparisons"


def _memory(study: Study, variant: str) -> int | None:
    return study.paces[variant].peak_bytes if variant in study.paces else None


def _mean(losses: Mapping[int, float]) -> str:
    mean = math.fsum(losses.values()) / len(losses) if losses else math.nan
    return "n/a" if math.isnan(mean) else f"{mean:.4f}"


def shown_p(p: float | None) -> str:
    """Four digits; empty where there is none."""
    return "" if p is None else ("< 0.0001" if p < 1e-4 else f"{p:.4f}")


def _speed(figures: tuple[float | None, int | None]) -> tuple[str, str]:
    rate, memory = figures
    return "" if rate is None else f"{rate:,.0f}", "" if memory is None else f"{memory / 1e6:,.0f} MB"


def _tried(losses: Mapping[str, float | None]) -> str:
    return ", ".join(
        f"{settings} ({'diverged' if loss is None else f'{loss:.4f}'})" for settings, loss in losses.items()
    )
