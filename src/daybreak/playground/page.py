"""The page: its fields and buttons, and what they do. All that it shows is made elsewhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from daybreak.errors import UserError
from daybreak.playground import markup
from daybreak.playground.asked import LONGEST_STOP, MOST_STOPS, Limits, read_asked
from daybreak.playground.continuing import Player, continued
from daybreak.playground.settings import FEW, SETTINGS, Setting
from daybreak.playground.stops import Stops

if TYPE_CHECKING:
    import gradio as gr

_TOKENS = 200  # to begin with
_FIELDS = ("run", "prompt", "tokens", "greedy", "seed", "stop", *(setting.name for setting in SETTINGS))


@final
@dataclass(frozen=True)
class _Side:
    """One of two places for a run: which run it is, what it said, what is going on, what it is."""

    run: "gr.Dropdown"
    text: "gr.HTML"
    status: "gr.HTML"
    about: "gr.HTML"


def build_page(players: Sequence[Player], limits: Limits, stops: Stops) -> "gr.Blocks":
    """The page of one run, or of several of which two are seen side by side."""
    import gradio as gr

    by_name = {player.name: player for player in players}
    names = list(by_name)

    def answer(request: gr.Request, *values: Any) -> Iterator[tuple[str, str]]:
        """Text and status, again and again while the text grows."""
        fields = dict(zip(_FIELDS, values, strict=True))
        try:
            player = by_name.get(str(fields["run"]))
            if player is None:
                raise UserError(f"there is no run {fields['run']} on this page; there is {' and '.join(names)}")
            asked = read_asked(fields, limits)
        except UserError as error:
            yield "", markup.problem(str(error))
            return
        text = ""
        with stops.of(str(request.session_hash)) as stopped:
            try:
                for shown in continued(player, asked, stopped):
                    text = shown.text
                    yield text, shown.status
            except Exception:
                yield text, markup.problem("this failed by a fault of the program; its terminal says where")
                raise

    def stop_mine(request: gr.Request) -> None:
        stops.stop(str(request.session_hash))

    page: gr.Blocks
    with gr.Blocks(title=f"Daybreak: {', '.join(names)}", analytics_enabled=False) as page:
        gr.HTML(markup.heading(names))
        with gr.Row(elem_id="areas"):
            with gr.Column(elem_id="writing"):
                prompt = gr.Textbox(
                    label="Prompt",
                    info="What is to be continued. Without a prompt, a document begins. Shift + Enter continues.",
                    lines=3,
                    max_lines=14,
                    max_length=limits.characters,
                    elem_id="prompt",
                )
                with gr.Row(elem_id="buttons"):
                    go = gr.Button("Continue", variant="primary", elem_id="go", min_width=110)
                    another = gr.Button("Another", elem_id="another", min_width=90)
                    stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=90)
                gr.Checkbox(label="Colour by probability", elem_id="colour", container=False)
                gr.HTML(markup.legend(), elem_id="colour-legend")
                with gr.Row(elem_id="sides"):
                    outputs = [_output(names, at) for at in range(min(2, len(names)))]
                gr.HTML(markup.note(limits.said))
            with gr.Column(elem_id="settings"):
                tokens, greedy, seed, stop_at, values = _settings(limits)
            with gr.Row(elem_id="runs"):
                sides = [
                    _Side(*output, gr.HTML(by_name[names[at]].about, elem_id=f"about-{at}"))
                    for at, output in enumerate(outputs)
                ]
        asked_again = another.click(lambda number: (number or 0) + 1, seed, seed, api_visibility="private", queue=False)
        for at, side in enumerate(sides):
            inputs = [side.run, prompt, tokens, greedy, seed, stop_at, *values]
            what: dict[str, Any] = {
                "fn": answer,
                "inputs": inputs,
                "outputs": [side.text, side.status],
                "preprocess": False,  # the fields are checked in one place, with messages for people
                "show_progress": "hidden",
                "concurrency_limit": None,  # a run's turns are what limits
            }
            gr.on(
                [go.click, prompt.submit],
                **what,
                api_name="continue",
                api_visibility="public" if at == 0 else "private",
            )
            asked_again.then(**what, api_visibility="private")
            side.run.change(
                lambda name: by_name[name].about, side.run, side.about, api_visibility="private", show_progress="hidden"
            )
        stop.click(stop_mine, queue=False, api_visibility="private")
    return page


def _output(names: Sequence[str], at: int) -> tuple["gr.Dropdown", "gr.HTML", "gr.HTML"]:
    """Where one run speaks."""
    import gradio as gr

    several = len(names) > 1
    with gr.Column(elem_classes="side"):
        label = ("Left", "Right")[at]
        run = gr.Dropdown(names, value=names[at], label=label, visible=several, elem_id=f"run-{at}", filterable=False)
        status = gr.HTML(markup.status("Nothing was asked yet."), elem_id=f"status-{at}")
        text = gr.HTML("", elem_id=f"text-{at}")
    return run, text, status


def _settings(limits: Limits) -> tuple["gr.Slider", "gr.Checkbox", "gr.Number", "gr.Textbox", list["gr.Slider"]]:
    """Fields of tokens, greedy, seed, stop strings, and of `SETTINGS` in their order."""
    import gradio as gr

    tokens = gr.Slider(
        1, limits.tokens, min(_TOKENS, limits.tokens), step=1, label="Tokens", info="How many to make at most."
    )
    greedy = gr.Checkbox(label="Greedy", info="Always the likeliest token: temperature and the cuts are left out.")
    few = [_slider(setting) for setting in SETTINGS[:FEW]]
    seed = gr.Number(
        0, label="Seed", info="The same seed gives the same text; Another takes the next.", precision=0, minimum=0,
    )  # fmt: skip
    with gr.Accordion("More settings", open=False):
        rest = [_slider(setting) for setting in SETTINGS[FEW:]]
        stop_at = gr.Textbox(
            label="Stop strings",
            info=f"One a line, up to {MOST_STOPS} of {LONGEST_STOP} characters; \\n is a line break.",
            lines=2,
            max_lines=MOST_STOPS,
        )
    return tokens, greedy, seed, stop_at, [*few, *rest]


def _slider(setting: Setting) -> "gr.Slider":
    import gradio as gr

    return gr.Slider(
        setting.low, setting.high, setting.start, step=setting.step, label=setting.label, info=setting.explains
    )
