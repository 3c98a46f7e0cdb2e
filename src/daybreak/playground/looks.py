"""How the page looks: gradio's fields in the colours of reports, without fonts from elsewhere."""

from importlib.resources import files
from typing import TYPE_CHECKING

from daybreak.report.html import style

if TYPE_CHECKING:
    import gradio as gr

_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif")
_FIXED = ("ui-monospace", "SF Mono", "Menlo", "Consolas", "Liberation Mono", "monospace")
_COLOURS = {
    "body_background_fill": "var(--surface)",
    "body_text_color": "var(--ink)",
    "body_text_color_subdued": "var(--muted)",
    "background_fill_primary": "var(--surface)",
    "background_fill_secondary": "var(--raised)",
    "block_background_fill": "var(--surface)",
    "block_border_color": "var(--grid)",
    "block_label_text_color": "var(--ink)",
    "block_title_text_color": "var(--ink)",
    "block_info_text_color": "var(--muted)",
    "border_color_primary": "var(--grid)",
    "border_color_accent": "var(--link)",
    "color_accent": "var(--link)",
    "color_accent_soft": "var(--raised)",
    "input_background_fill": "var(--raised)",
    "input_border_color": "var(--edge)",
    "input_border_color_focus": "var(--link)",
    "input_placeholder_color": "var(--muted)",
    "slider_color": "var(--link)",
    "button_primary_background_fill": "var(--link)",
    "button_primary_background_fill_hover": "var(--link)",
    "button_primary_text_color": "var(--surface)",
    "button_secondary_background_fill": "var(--raised)",
    "button_secondary_background_fill_hover": "var(--grid)",
    "button_secondary_text_color": "var(--ink)",
    "button_cancel_background_fill": "var(--raised)",
    "button_cancel_background_fill_hover": "var(--grid)",
    "button_cancel_text_color": "var(--bad)",
    "checkbox_background_color": "var(--surface)",
    "checkbox_background_color_selected": "var(--link)",
    "checkbox_border_color": "var(--muted)",
    "checkbox_label_text_color": "var(--ink)",
}


def theme() -> "gr.themes.Base":
    """The page's colours follow the reader's system, as those of reports do: one value serves light and dark."""
    import gradio as gr

    made = gr.themes.Base(font=_FONT, font_mono=_FIXED)
    dark = {f"{name}_dark": value for name, value in _COLOURS.items() if hasattr(made, f"{name}_dark")}
    return made.set(**_COLOURS, **dark)


def colours() -> str:
    """For the head of the document: as part of `layout`, gradio would rewrite the rules for dark screens."""
    return f"<style>{style('colours.css')}{_own('colours.css')}</style>"


def layout() -> str:
    return _own("page.css")


def _own(name: str) -> str:
    return files("daybreak.playground").joinpath(name).read_text(encoding="utf-8")
