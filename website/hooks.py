"""What `mkdocs build` does beside: pages that are made of the code, and links that leave `docs/`."""

import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

from commands import exit_codes, verbs
from linked_files import linked_from, page_of, place_of, rewritten, with_contents
from recipe_table import recipe_table
from settings import settings_tables

# Where a page says `<!-- made here: NAME -->`; GitHub shows what stands around it.
_MAKERS = {"settings": settings_tables, "recipes": recipe_table, "verbs": verbs, "exit codes": exit_codes}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """A page for every file of the repository that a page links to."""
    pages = [file for file in files if file.src_uri.endswith(".md")]
    linked = set[str]().union(*(linked_from(_made(file.content_string), file.src_uri) for file in pages))
    for path in sorted(with_contents(linked)):
        files.append(File.generated(config, place_of(path), content=page_of(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """What is made of the code, and links to the pages of files."""
    return rewritten(_made(markdown), page.file.src_uri)


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """A page that fetches nothing: what the theme would take from elsewhere is ours, or an error.

    Raises:
        PluginError: a page would fetch something from the network.
    """
    ours = get_relative_url("javascripts/search-from-files.js", page.url)
    output = output.replace("https://unpkg.com/iframe-worker/shim", ours)
    fetched = re.findall(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?(https?://[^\"> ]+)", output)
    if fetched:
        raise PluginError(f"{page.file.src_uri} would fetch {', '.join(fetched)}")
    return output


def _made(markdown: str) -> str:
    for name, make in _MAKERS.items():
        mark = f"<!-- made here: {name} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return markdown
