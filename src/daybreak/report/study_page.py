"""The page of a study: the verdicts first, then what they rest on."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element

from daybreak.files import read_sealed
from daybreak.finite import or_nan
from daybreak.report.charts import MOST_LOOKS
from daybreak.report.curves import AXES, FLOPS_NOTE, Group, loss_charts
from daybreak.report.figures import switched_figure
from daybreak.report.forest import Row, draw_forest
from daybreak.report.html import Content, details, element, figure, page, section, table
from daybreak.report.observed import Along, Observed, observe
from daybreak.report.places import corpora, with_names, without_folders
from daybreak.report.settings import difference_to_parent
from daybreak.report.words import NOTHING, number, percent, signed
from daybreak.study.results import Comparison, Study, trial_folder
from daybreak.study.statistics import POWER
from daybreak.study.table import sentences, shown_p

_COLOURS = {"helps": "good", "hurts": "bad", "diverged": "bad", "not shown": "muted", "unfinished": "muted"}
_AXES: tuple[Along, ...] = ("time", "steps", "tokens", "flops")
_WIDTHS = ((860, "wide"), (420, "narrow"))


def page_of_study(study: Study) -> bytes:
    """The whole file; the same study gives the same bytes."""
    design, comparisons = study.design, ordered(study)
    changes = f"{len(design.changes)} change{'s' if len(design.changes) > 1 else ''}"
    base = without_folders(design.base)
    said = (
        f"{base}, {changes} over {design.seeds_said}, equal in {design.held_equal}; measured on {_measured_on(study)}"
    )
    title = f"Study {study.path.resolve().name}"
    header = element("header", element("h1", title), element("p", said, class_="subtitle"))
    parts = [
        section("verdicts", "Verdicts", *_verdicts(study, comparisons)),
        section("differences", "Differences", *_differences(comparisons)),
        section("loss", "Loss as training went", *_loss(study)),
        section("trials", "Every trial", *_trials(study)),
        section("speed", "Speed and memory", *_speed(study)),
        section("design", "Design", *_design(study)),
        section("environment", "Environment", _environment(study)),
        section("reading", "How to read this page", _notes()),
    ]
    return page(title, header, parts)


def ordered(study: Study) -> list[Comparison]:
    """Those with the base first; of each reference the lowest difference first, and what has none last."""
    references = list(dict.fromkeys(variant.reference for variant in study.variants if variant.reference is not None))

    def place(each: Comparison) -> tuple[int, bool, float]:
        mean = each.difference.mean
        return references.index(each.reference), math.isnan(mean), 0.0 if math.isnan(mean) else mean

    return sorted(study.comparisons, key=place)


def _verdicts(study: Study, comparisons: Sequence[Comparison]) -> list[Content]:
    heads = ["variant", "verdict", "to", "difference", "95 % interval", "p", "could show"]
    rows: list[list[Content]] = [[study.variants[0].name, "base", *[""] * (len(heads) - 2)]]
    for each in comparisons:
        found = each.difference
        rows.append(
            [
                each.variant,
                element("strong", each.verdict, class_=f"verdict {_COLOURS[each.verdict]}"),
                each.reference,
                signed(found.mean, 4),
                "" if found.low is None else f"{signed(found.low, 4)} to {signed(found.high, 4)}",
                shown_p(each.p_adjusted),
                "" if found.detectable is None else number(found.detectable, 4),
            ]
        )
    speed = ("loss", "tokens/s", "memory")
    whole = [(*row, *_figures(study, str(row[0]))) for row in rows]
    caption = "Difference in validation loss, nats a token, mean over seeds; below zero is better"
    return [
        table((*heads, *speed), whole, caption=caption, texts=(1, 2)),
        *(element("p", line, class_="note") for line in _sentences(study, comparisons)),
    ]


def _sentences(study: Study, comparisons: Sequence[Comparison]) -> list[str]:
    """What must be known beside the figures."""
    said = list(sentences(comparisons)) if comparisons else ["No variant can be compared yet."]
    if study.missing:
        total = len(study.variants) * len(study.design.seeds)
        said.append(f"Not finished: {study.missing} of {total} trials are missing; what stands here is of those done.")
    return said


def _figures(study: Study, variant: str) -> tuple[Content, ...]:
    pace = study.paces.get(variant)
    memory = NOTHING if pace is None else f"{number(pace.peak_bytes / 1e6)} MB"
    return number(study.mean_loss(variant), 4), number(study.tokens_per_second(variant)), memory


def _differences(comparisons: Sequence[Comparison]) -> list[Content]:
    found: list[Content] = []
    for place, (reference, rows) in enumerate(forest_rows(comparisons).items(), start=1):
        label = forest_label(reference)
        pictures = [
            element("div", draw_forest(rows, f"forest-{place}", label, width), class_=class_)
            for width, class_ in _WIDTHS
        ]
        caption = (
            f"Left of zero is better than {reference}. A ring is a seed, the diamond their mean, the bar its 95 % "
            "interval; a bar that ends in an arrow goes on. A bar that does not cross zero may still be “not shown”: "
            "p is adjusted for all comparisons, an interval is not."
        )
        found.append(figure(caption, *pictures, class_="switched forest"))
    return found or [element("p", "No difference is known yet.", class_="note")]


def forest_rows(comparisons: Sequence[Comparison]) -> dict[str, list[Row]]:
    """What can be drawn, by reference."""
    rows: dict[str, list[Row]] = {}
    for each in comparisons:
        if each.difference.by_seed:
            rows.setdefault(each.reference, []).append(_row(each))
    return rows


def forest_label(reference: str) -> str:
    """What its axis says."""
    return f"difference to {reference} in validation loss (nats a token)"


def _row(each: Comparison) -> Row:
    found = each.difference
    interval = None if found.low is None or found.high is None else (found.low, found.high)
    return Row(each.variant, found.mean, interval, tuple(found.by_seed.values()), each.verdict, _COLOURS[each.verdict])


def _loss(study: Study) -> list[Content]:
    groups = [Group(name, runs) for name, runs in _observed(study).items() if runs]
    if len(groups) > MOST_LOOKS:
        return [element("p", f"More than {MOST_LOOKS} variants cannot be told apart in one figure.", class_="note")]
    if not groups:
        return [element("p", "No trial is done yet.", class_="note")]
    choices = [(AXES[along], loss_charts(groups, along)) for along in _AXES]
    paced = (
        " Time is that of the steps at the measured pace, by which trials were held equal." if _is_paced(study) else ""
    )
    caption = f"The mean over seeds; with few variants a band from the lowest seed to the highest.{paced} {FLOPS_NOTE}"
    return [switched_figure("loss-against", choices, caption)]


def _observed(study: Study) -> dict[str, tuple[Observed, ...]]:
    """The runs of the trials that are done, by variant."""
    paced = _is_paced(study)
    found = {}
    for name, trials in study.trials.items():
        runs = [observe(trial_folder(study.path, name, seed), name) for seed in trials]
        step_seconds = study.paces[name].step_seconds if paced else None
        found[name] = tuple(replace(run, step_seconds=step_seconds) for run in runs if len(run.journal))
    return found


def _is_paced(study: Study) -> bool:
    return study.design.is_paced and bool(study.paces)


def _trials(study: Study) -> list[Content]:
    seeds = study.design.seeds
    rows = [
        (variant.name, *(_loss_of(study, variant.name, seed) for seed in seeds), _steps(study, variant.name))
        for variant in study.variants
    ]
    heads = ("variant", *(f"seed {seed}" for seed in seeds), "steps")
    found: list[Content] = [table(heads, rows, caption="Validation loss of every trial (nats a token)")]
    for name, choice in study.tuned.items():
        tried = [(settings, number(or_nan(loss), 4)) for settings, loss in choice["losses"].items()]
        chosen = " ".join(choice["chosen"])
        found.append(details(f"{name} chose {chosen}", table(("tried", "loss"), tried, caption=f"What {name} tried")))
    return found


def _loss_of(study: Study, variant: str, seed: int) -> str:
    trial = study.trials[variant].get(seed)
    if trial is None:
        return NOTHING
    return "diverged" if math.isnan(trial.loss) else number(trial.loss, 4)


def _steps(study: Study, variant: str) -> str:
    steps = sorted({trial.steps for trial in study.trials[variant].values()})
    return NOTHING if not steps else " to ".join(number(each) for each in dict.fromkeys((steps[0], steps[-1])))


def _speed(study: Study) -> list[Content]:
    base = study.paces.get(study.variants[0].name)
    if base is None:
        return [element("p", "The speed of the variants was not measured yet.", class_="note")]
    rows = [
        (
            name,
            number(study.tokens_per_second(name)),
            number(1000 * pace.step_seconds, 2),
            percent(pace.step_seconds / base.step_seconds, 0),
            f"±{percent(pace.error)}",
            number(pace.peak_bytes / 1e6),
            number(pace.micro_batch),
        )
        for name, pace in study.paces.items()
    ]
    heads = (
        "variant",
        "tokens a second",
        "milliseconds a step",
        "of the base's",
        "known to",
        "memory (MB)",
        "micro-batch",
    )
    return [table(heads, rows, caption="Measured by turns with the base, before the first trial")]


def _design(study: Study) -> list[Content]:
    design = study.design
    rows = [
        (variant.name, variant.reference or NOTHING, without_folders(" ".join(variant.overrides)) or NOTHING)
        for variant in study.variants
    ]
    given = [
        ("base", without_folders(design.base)),
        ("settings", without_folders(" ".join(design.settings)) or "as the base has them"),
        ("equal in", design.held_equal),
        ("seeds", ", ".join(map(str, design.seeds))),
        ("measured on", _measured_on(study)),
        ("tuned for each variant", ", ".join(design.tune) or "nothing"),
    ]
    recipe = study.recipes[study.variants[0].name]
    said, differing = difference_to_parent(recipe, "the base")
    return [
        table(("what", "value"), given, caption="What all trials have alike", texts=(1,)),
        table(("variant", "to", "settings"), rows, caption="Variants", texts=(1, 2)),
        details("The base against the recipe that ships", element("p", said), differing),
        details("The whole recipe of the base", element("pre", with_names(recipe).to_toml())),
    ]


def _measured_on(study: Study) -> str:
    """The corpus whose held-out text measures the trials, and its identity once a trial of the base is done."""
    if study.design.validation is not None:
        return f"the held-out text of {Path(study.design.validation).name}"
    base = study.variants[0].name
    done = [trial_folder(study.path, base, seed) / "identity.json" for seed in study.trials[base]]
    names = corpora(study.recipes[base], read_sealed(done[0]) if done else {})
    return f"the held-out text of {' and '.join(names) or 'its corpus'}"


def _environment(study: Study) -> Element:
    rows: list[tuple[Content, ...]] = [("torch", study.torch), ("machine", study.machine)]
    rows += [
        (f"{name}: recipe", element("span", recipe.fingerprint, class_="long"))
        for name, recipe in study.recipes.items()
    ]
    return table(("what", "value"), rows, caption="Where the trials ran, and fingerprints of their recipes", texts=(1,))


def _notes() -> Element:
    notes = (
        "Two recipes with the same seed see the same text in the same order and begin, where they share parameters, "
        "from the same values. So differences are taken seed by seed, and their mean is tested by Student's paired t "
        "test.",
        "The interval holds the true mean difference in 95 of 100 studies. p is adjusted, so that it answers for all "
        "comparisons together: of those that are called, 5 % are false on average (Benjamini and Hochberg 1995).",
        f"“Not shown” is not “no difference”: “could show” says how large a true difference has to be for so many and "
        f"so scattered seeds to find it in {POWER:.0%} of studies.",
    )
    return element("ul", *(element("li", note) for note in notes))
