"""Links lead somewhere, on GitHub and in the site."""

import re
from pathlib import Path

import pytest

from linked_files import linked_from, page_of, place_of, rewritten, with_contents

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files_of_the_repository(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)\s#]+)", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_a_link_out_of_docs_leads_to_a_page_of_the_site() -> None:
    text = (
        "See [it](../src/daybreak/errors.py), [all](../studies/results), [budgets](budgets.md#is-it-kept), [x](#here)."
    )
    assert linked_from(text, "data.md") == {"src/daybreak/errors.py", "studies/results"}
    turned = rewritten(text, "data.md")
    assert "[it](files/src/daybreak/errors.py.md)" in turned
    assert "[all](files/studies/results/index.md)" in turned
    assert "[budgets](budgets.md#is-it-kept)" in turned
    assert rewritten("[x](../../../LICENSE)", "reference/api/model.md") == "[x](../../files/LICENSE.md)"


def test_the_page_of_a_file_shows_it_and_that_of_a_folder_its_files() -> None:
    assert "class UserError(Exception):" in page_of("src/daybreak/errors.py")
    assert "](muon.toml.md)" in page_of("studies")
    assert with_contents({"studies"}) >= {"studies", "studies/muon.toml", "studies/both_ends.py"}
    assert place_of("studies") == "files/studies/index.md"
