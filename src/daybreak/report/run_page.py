"""The page of one run, or of several laid over one another."""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from daybreak.duration import human_dollars, human_seconds
from daybreak.report import curves, measures, settings, tables
from daybreak.report.charts import Chart
from daybreak.report.figures import small_figure, switched_figure
from daybreak.report.html import Content, details, element, page, section
from daybreak.report.observed import Observed
from daybreak.report.places import with_names
from daybreak.report.words import NOTHING, number

_MOST_CHARTS = 9
_FEW_ROWS = 12
_SAMPLES = (12, 2)  # of one run, and the fewest of each of many, so that a page stays small
_VALIDATIONS = (60, 10)
_LONGEST_SAMPLE = 2000  # characters


def page_of_runs(runs: Sequence[Observed]) -> bytes:
    """The whole file; the same runs give the same bytes."""
    several = len(runs) > 1
    title = f"{len(runs)} runs compared" if several else runs[0].name
    parts = [section("outcome", "Outcome", *_outcome(runs)), section("loss", "Loss", *_loss(runs))]
    sections = [
        section("differences", "What differs", *_differences(runs)) if several else None,
        *(parts if several else reversed(parts)),
        _sources(runs),
        section("evaluations", "Evaluations", *_evaluations(runs)),
        section("optimisation", "Optimisation", *_optimisation(runs)),
        section("speed", "Speed and cost", *_speed(runs)),
        _events(runs) if several else None,
        _samples(runs),
        section("recipe", "Recipe", *_recipe(runs)),
        section("environment", "Environment", settings.environment(runs)),
        section("reading", "How to read this page", *_notes(runs)),
    ]
    return page(title, _header(title, runs), [each for each in sections if each is not None])


def _header(title: str, runs: Sequence[Observed]) -> Element:
    if len(runs) > 1:
        names = element("p", ", ".join(run.name for run in runs), class_="subtitle")
        return element("header", element("h1", title), names)
    (run,) = runs
    described = run.recipe.description
    said = f"{run.recipe.name or 'no name'}{f': {described}' if described else ''}"
    rate = tables.speed_of(run)
    tiles = [
        ("validation loss", number(run.final_loss, 4), "nats a token"),
        ("bits a byte", number(run.bits_per_byte, 4), "of validation text"),
        (
            "training loss",
            number(float(run.last_losses.mean()) if len(run.last_losses) else None, 4),
            tables.over_last(run.last_steps),
        ),
        ("budget", str(run.recipe.budget), tables.state(run)),
        ("time", NOTHING if run.seconds is None else human_seconds(run.seconds), f"{number(run.last('step'))} steps"),
        ("speed", number(rate), "tokens a second"),
    ]
    if run.dollars is not None:
        tiles.append(("cost", human_dollars(run.dollars), f"at {human_dollars(run.recipe.price or 0)} an hour"))
    shown = [
        element("div", element("dt", name), element("dd", element("b", value), element("span", unit)))
        for name, value, unit in tiles
    ]
    return element(
        "header", element("h1", title), element("p", said, class_="subtitle"), element("dl", *shown, class_="tiles")
    )


def _differences(runs: Sequence[Observed]) -> list[Content]:
    found = settings.differences(runs)
    return [element("p", "Nothing: the recipes are the same.") if found is None else found]


def _outcome(runs: Sequence[Observed]) -> list[Content]:
    table = tables.outcome(runs)
    happened = tables.events(runs[0]) if len(runs) == 1 else None
    return [table] if happened is None else [element("div", table, happened, class_="grid")]


def _loss(runs: Sequence[Observed]) -> list[Content]:
    if not any(len(run.journal) for run in runs):
        return [_nothing("No step was recorded yet.")]
    choices = [(name, curves.loss_charts(curves.alone(runs), along)) for along, name in curves.AXES.items()]
    whole = choices[0][1][0]
    return [switched_figure("loss-against", choices, f"{_thinned([whole])} {curves.FLOPS_NOTE}")]


def _thinned(charts: Sequence[Chart]) -> str:
    """What a point of these charts stands for."""
    steps = curves.together(charts)
    if steps == 1:
        return "Every step is drawn."
    has_band = any(line.curve.has_band for chart in charts for line in chart.lines)
    band = "; the band reaches from the lowest of them to the highest" if has_band else ""
    return f"A point is the mean of up to {steps:,} steps{band}."


def _sources(runs: Sequence[Observed]) -> Element | None:
    table = tables.sources(runs)
    if table is None:
        return None
    charts = measures.source_charts(runs, _MOST_CHARTS)
    figures = [small_figure(chart, f"The {chart.says}.", with_legend=True) for chart in charts]
    return section("sources", "Loss by source", element("div", *figures, table, class_="grid"))


def _evaluations(runs: Sequence[Observed]) -> list[Content]:
    found: list[Content] = []
    benchmarks = tables.tasks(runs)
    if benchmarks is not None:
        charts = measures.task_charts(runs, _MOST_CHARTS)
        figures = [small_figure(chart, _task_caption(chart), with_legend=len(runs) > 1) for chart in charts]
        found += [benchmarks, element("div", *figures, class_="grid")]
    most_validations = _most(*_VALIDATIONS, len(runs))
    for run in runs:
        table = tables.validations(run, most_validations)
        if table is None:
            found.append(_nothing(f"{run.name} was not evaluated yet."))
        else:
            count = len(run.validations)
            said = f"{count:,} validation{'s' if count > 1 else ''} of {run.name}"
            found.append(details(said, table, opened=len(runs) == 1 and count <= _FEW_ROWS))
    return found


def _task_caption(chart: Chart) -> str:
    has_band = any(line.curve.has_band for line in chart.lines)
    as_far = ", as far as the axis reaches" if chart.y.logarithmic else ""
    band = f"; the band is a standard error wide on either side{as_far}" if has_band else ""
    return f"The {chart.says}{band}."


def _optimisation(runs: Sequence[Observed]) -> list[Content]:
    plain: list[tuple[Chart | None, str]] = [
        (curves.column_chart(runs, "lr", "learning rate"), "The learning rate of the first group of parameters."),
        (
            curves.column_chart(runs, "gradient_norm", "gradient norm", logarithmic=True),
            "The norm of the whole gradient before it is clipped.",
        ),
    ]
    for column, label in (("batch_tokens", "tokens a step"), ("length", "tokens a row")):
        if any(
            len(run.journal) and run.journal.columns[column].min() < run.journal.columns[column].max() for run in runs
        ):
            plain.append((curves.column_chart(runs, column, label), f"{label.capitalize()}, which grow."))
    layered = [
        (
            measures.layer_chart(runs, "update_size", "relative update"),
            "How large an update is, relative to its weights.",
        ),
        (
            measures.layer_chart(runs, "largest_logit", "largest logit"),
            "The largest logit of attention, and of the head.",
        ),
    ]
    found: list[Content] = [_grid(runs, plain)]
    if any(chart for chart, _ in layered):
        figures = [small_figure(chart, said, with_legend=True) for chart, said in layered if chart is not None]
        table = tables.layers(runs)
        found += [element("h3", "By layer"), element("div", *figures, class_="grid")]
        found += [] if table is None else [details("The newest figures by layer", table)]
    return found


def _speed(runs: Sequence[Observed]) -> list[Content]:
    charts: list[tuple[Chart | None, str]] = [
        (curves.column_chart(runs, "tokens_per_second", "tokens a second"), "Speed within steps."),
        (
            curves.column_chart(runs, "mfu", "MFU (%)", unit=0.01),
            "Model FLOPs utilisation: FLOPs as counted here, as a share of what the device can do.",
        ),
    ]
    grid, table = _grid(runs, charts), tables.speed(runs)
    if len(runs) > 1:
        return [grid, table]
    grid.append(table)
    return [grid]


def _grid(runs: Sequence[Observed], charts: Sequence[tuple[Chart | None, str]]) -> Element:
    figures = [
        small_figure(chart, f"{said} {_thinned([chart])}", with_legend=len(runs) > 1)
        for chart, said in charts
        if chart is not None
    ]
    return element("div", *figures, class_="grid")


def _events(runs: Sequence[Observed]) -> Element | None:
    found = [table for run in runs if (table := tables.events(run)) is not None]
    return section("events", "What happened", *found) if found else None


def _samples(runs: Sequence[Observed]) -> Element | None:
    found: list[Content] = []
    most = _most(*_SAMPLES, len(runs))
    for run in runs:
        records = run.journal.of_kind("sample")
        chosen = [records[index] for index in tables.spread(len(records), most)]
        if not records:
            continue
        if len(runs) > 1:
            found.append(element("h3", run.name))
        if len(chosen) < len(records):
            found.append(element("p", f"{len(chosen)} of {len(records):,}, evenly spread.", class_="note"))
        last = chosen[-1]["step"]
        found += [_sample(record, opened=record["step"] == last) for record in chosen]
    return section("samples", "Samples as training went", *found) if found else None


def _sample(record: dict[str, object], *, opened: bool) -> Element:
    text = str(record.get("text"))
    cut = "" if len(text) <= _LONGEST_SAMPLE else f"… ({len(text) - _LONGEST_SAMPLE:,} characters more)"
    step = record["step"]
    return details(f"Step {step:,}", element("pre", text[:_LONGEST_SAMPLE] + cut), opened=opened)


def _recipe(runs: Sequence[Observed]) -> list[Content]:
    found: list[Content] = []
    for run in runs:
        said, table = settings.difference_to_parent(run.recipe, run.name)
        whole = details(f"The whole recipe of {run.name}", element("pre", with_names(run.recipe).to_toml()))
        if len(runs) > 1:
            found.append(element("h3", run.name))
        found += [element("p", said), table if table is not None else _nothing("No setting differs."), whole]
    return found


def _notes(runs: Sequence[Observed]) -> list[Content]:
    notes = [
        "Losses are cross-entropies in nats a token. Validation while training is measured on a fixed part of the "
        "split; daybreak evaluate measures all of it.",
        "A single training loss is that of one batch, which is easier or harder than another: compare means, or "
        "validation losses. Two runs whose difference is as small as that between two seeds do not differ.",
        "Curves of many steps are drawn in points that stand for as many neighbouring steps each: their mean, and a "
        "band from the lowest to the highest, so that no spike is lost. With more than three runs bands are left out.",
        curves.FLOPS_NOTE + " What windows spare is not subtracted, what is recomputed not added.",
        "Time counts from process start over all sittings, with work that a crash lost, without downtime.",
    ]
    return [element("ul", *(element("li", note) for note in notes))]


def _most(of_one: int, fewest: int, runs: int) -> int:
    return max(fewest, of_one // runs)


def _nothing(text: str) -> Element:
    return element("p", text, class_="note")
