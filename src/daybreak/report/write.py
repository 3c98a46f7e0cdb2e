"""`write_report`: from folders to a page."""

from collections.abc import Sequence
from pathlib import Path

from daybreak.errors import UserError
from daybreak.files import require_text, write_bytes
from daybreak.folders import is_a, is_no
from daybreak.report.charts import MOST_LOOKS
from daybreak.report.observed import names_of, observe
from daybreak.report.run_page import page_of_runs
from daybreak.report.study_page import page_of_study
from daybreak.study.results import STUDY, read_study


def write_report(paths: Sequence[Path | str] | Path | str, out: Path | str | None = None) -> Path:
    """Write a run or a study as one HTML page that needs nothing but itself; several runs are laid over one another.

    Runs are read only, and may be training meanwhile.

    Args:
        out: the file; `report.html` in the folder unless given, and of several in the working directory.

    Returns:
        The path of the page.

    Raises:
        UserError: a path is no run and no study, or matplotlib is missing.
    """
    folders = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if not folders:
        raise UserError("no run: give the folder of one, or of several to be compared")
    if len(folders) > MOST_LOOKS:
        raise UserError(f"{len(folders)} runs are more than the {MOST_LOOKS} that a figure can tell apart; give fewer")
    for folder in folders:
        require_text(folder)
        if not (is_a("run", folder) or is_a("study", folder)):
            raise is_no(folder, "run", "study")
    page = Path(out) if out is not None else (folders[0] if len(folders) == 1 else Path()) / "report.html"
    require_text(page)
    if page.is_dir():
        raise UserError(f"{page} is a folder; give the page a name, as --out {page / 'report.html'}")
    if not page.parent.is_dir():
        raise UserError(f"{page.parent} does not exist; make it first, or choose another --out")
    studies = [folder for folder in folders if (folder / STUDY).is_file()]
    if studies and len(folders) > 1:
        raise UserError(f"{studies[0]} is a study, which has a page of its own; give it alone, or runs only")
    if studies:
        write_bytes(page, page_of_study(read_study(folders[0])))
        return page
    runs = [observe(folder, name) for folder, name in zip(folders, names_of(folders), strict=True)]
    write_bytes(page, page_of_runs(runs))
    return page
