"""What a run is, beside what it says: its facts and its loss curve."""

from dataclasses import replace
from xml.etree.ElementTree import Element

from daybreak.duration import human_seconds
from daybreak.playground.markup import html
from daybreak.report import curves
from daybreak.report.charts import SMALL, draw
from daybreak.report.figures import legend
from daybreak.report.html import element, figure
from daybreak.report.observed import Observed
from daybreak.report.words import number


def about(run: Observed, tokenizer: str, place: int) -> str:
    """Facts and loss curve as HTML.

    Args:
        tokenizer: its name.
        place: of the run on the page; ids of the figure begin with it.

    Raises:
        UserError: matplotlib is missing.
    """
    described = element("p", run.recipe.description) if run.recipe.description else None
    parts = (element("h3", run.name), described, _facts(run, tokenizer), _loss(run, place))
    return html(element("section", *parts, class_="about"))


def _facts(run: Observed, tokenizer: str) -> Element:
    model = run.recipe.model
    facts = [
        ("validation loss", number(run.final_loss, 4), "nats a token"),
        ("bits a byte", number(run.bits_per_byte, 4), "of validation text"),
        ("parameters", number(run.parameters), f"{model.layers} layers, width {model.dim}"),
        ("recipe", run.recipe.name or "no name", f"seed {run.recipe.seed}"),
        ("budget", str(run.recipe.budget), _spent(run)),
        ("context", number(model.context), f"tokens of {tokenizer}"),
    ]
    tiles = [
        element("div", element("dt", name), element("dd", element("b", value), element("span", unit)))
        for name, value, unit in facts
    ]
    return element("dl", *tiles, class_="tiles")


def _spent(run: Observed) -> str:
    steps = f"{number(run.last('step'))} steps, {number(run.last('tokens'))} tokens"
    return steps if run.seconds is None else f"{steps}, {human_seconds(run.seconds)}"


def _loss(run: Observed, place: int) -> Element:
    if not len(run.journal):
        return element("p", "No step was recorded yet.", class_="note")
    whole, *_ = curves.loss_charts(curves.alone([run]), "steps")
    chart = replace(whole, name=f"run-{place}-{whole.name}")
    return figure("Training and validation loss as training went.", legend([chart]), draw(chart, SMALL))
