"""Pages of runs: whole, small, closed to the network, and true to what was measured."""

import math
import re
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import copy_identity, losses, train_record, write
from page_reader import Page, read

from daybreak import Recipe, Run, cli, load, write_report
from daybreak.errors import UserError
from daybreak.files import read_sealed, sha256_file, write_sealed
from daybreak.report.observed import names_of, observe
from daybreak.training.metrics import read_metrics

STEPS = 8000
NASTY = "<script>alert('x')</script> & \"quoted\" </pre></details><h1>out</h1> \x07 \ud800 漢字"


@pytest.fixture(scope="module")
def page(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return read(write_report(trained.path, tmp_path_factory.mktemp("pages") / "one.html").read_bytes())


def make_long_run(trained: Run, path: Path, steps: int) -> Path:
    """A run with all that can happen, in two sittings; half its budget is left."""
    copy_identity(trained.path, path)
    curve = losses(steps)
    blocks = ["embedding", *(f"blocks.{number}" for number in range(12)), "head"]
    half = steps // 2
    for attempt, part in ((1, range(1, half + 1)), (2, range(half + 1, steps + 1))):
        records: list[tuple[str, dict[str, Any]]] = []
        for step in part:
            loss = math.nan if step == 123 else float(curve[step - 1])
            records.append(("train", train_record(step, 2 * steps, loss=loss, skipped=int(step >= 123))))
            if step % (steps // 200) == 0:
                figures = {
                    "loss": 3.0 - step / steps,
                    "bits_per_byte": 1.5,
                    "sources": {"web & more": 2.9, "code": 3.1},
                }
                records.append(("validation", {"step": step, "tokens": 64 * step, "elapsed_seconds": 1.0, **figures}))
            if step % (steps // 20) == 0:
                records.append(("sample", {"step": step, "text": NASTY + " long" * 2000}))
                sizes = {name: 1e-3 * (1 + index) for index, name in enumerate(blocks)}
                logits = {name: 5.0 + index for index, name in enumerate(blocks[1:])}
                records.append(("layers", {"step": step, "tokens": 0, "update_size": sizes, "largest_logit": logits}))
                found = {"acc": step / steps / 2, "acc_stderr": 0.0123}
                records.append(("tasks", {"step": step, "tokens": 0, "results": {"lambada": found, "<b>arc": found}}))
        write(path, attempt, records)
    write(path, 2, [("rollback", {"step": steps - 1, "loss": 9.75, "back_to": half})])
    return path


@pytest.fixture(scope="module")
def long_run(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_long_run(trained, tmp_path_factory.mktemp("made") / "<i>long", STEPS)


@pytest.fixture(scope="module")
def long_page(long_run: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_report(long_run, tmp_path_factory.mktemp("pages") / "long.html").read_bytes()


def require_closed(page: Page) -> None:
    """Nothing on it is fetched or run, and every id is its own."""
    assert page.tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "form", "base"})
    assert all(reference.startswith("#") for _, reference in page.references)
    assert {reference[1:] for tag, reference in page.references if tag in ("a", "use")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert "default-src 'none'" in page.content
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", page.content)


def test_a_page_is_whole_and_needs_nothing_else(page: Page, long_page: bytes) -> None:
    require_closed(page)
    require_closed(read(long_page))
    assert all(page.pictures)


def test_a_page_of_many_steps_is_small(long_page: bytes) -> None:
    assert len(long_page) < 500_000


@pytest.mark.slow
def test_a_page_of_a_hundred_thousand_steps_is_no_larger(trained: Run, long_page: bytes, tmp_path: Path) -> None:
    run = make_long_run(trained, tmp_path / "run", 100_000)
    assert len(write_report(run).read_bytes()) < 1.05 * len(long_page)


def test_the_figures_are_those_of_the_metrics(trained: Run, page: Page) -> None:
    """Worked out once more from the records, and by the loop's own account of what was spent."""
    records = read_metrics(trained.path / "metrics.jsonl", "train")
    spent = read_sealed(trained.path / "finished.json")["spent"]
    loss = [record["loss"] for record in records]
    assert trained.final_loss is not None
    assert page.row("validation loss (nats a token)") == [f"{trained.final_loss:.4f}"]
    assert page.row("perplexity")[0] == f"{math.exp(trained.final_loss):,.2f}"
    assert page.row("training loss, mean of the last 4 steps") == [f"{statistics.fmean(loss[-4:]):.4f}"]
    assert page.row("training loss, last step") == [f"{loss[-1]:.4f}"]
    assert page.row("steps") == ["40"]
    assert page.row("tokens") == [f"{40 * 64:,}"]
    mantissa, _, exponent = f"{spent['flops']:.2e}".partition("e+")
    assert page.row("training FLOPs")[0].startswith(f"{mantissa} × 10")
    assert page.row("training FLOPs")[0].endswith(
        exponent.lstrip("0").translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    )
    rates = [record["tokens_per_second"] for record in records]
    assert page.row("tokens a second, median") == [f"{statistics.median(rates):,.0f}"]
    assert page.row("optimizer.lr") == ["0.003", "0.01"]
    assert page.row("price") == ["$2.50 an hour"]
    for record in trained.metrics("validation"):
        assert any(row[:1] == [str(record["step"])] and f"{record['loss']:.4f}" in row for row in page.rows)
    for record in trained.metrics("sample"):
        assert f"Step {record['step']}" in page.text


def test_the_mean_of_the_last_steps_is_of_two_hundred(long_page: bytes) -> None:
    page = read(long_page)
    last = losses(STEPS)[-200:]
    assert page.row("training loss, mean of the last 200 steps") == [f"{float(np.mean(last)):.4f}"]


def test_flops_along_the_run_end_with_what_the_loop_counted(trained: Run) -> None:
    observed = observe(trained.path, "tiny")
    columns = {**observed.journal.columns, "flops": np.full(40, np.nan)}
    worked_out = replace(observed, journal=replace(observed.journal, columns=columns))
    assert worked_out.flops[-1] == pytest.approx(trained.spent.flops, rel=1e-9)
    assert observed.flops[-1] == pytest.approx(trained.spent.flops, rel=1e-9)
    assert observed.along("time")[-1] == pytest.approx(trained.spent.elapsed_seconds)


def test_text_of_a_model_stays_text(long_page: bytes) -> None:
    page = read(long_page)
    assert "<script>alert('x')</script>" in page.text
    assert "</pre></details><h1>out</h1> \\x07 \\ud800 漢字" in page.text
    assert page.text.count("<i>long") >= 2  # a folder's name
    assert "script" not in page.tags
    assert b"<b>arc" not in long_page
    assert b"characters more)" in long_page


def test_what_happened_is_said_and_drawn(long_page: bytes) -> None:
    page = read(long_page)
    for words in (
        "sitting 2 begins",
        "back to the weights of step 4,000",
        "steps skipped, not finite: 1 (123)",
        "another sitting begins",
    ):
        assert words in page.text
    assert "A point is the mean of up to 50 steps; the band reaches" in page.text


def test_sources_tasks_and_layers_have_their_parts(long_page: bytes) -> None:
    page = read(long_page)
    assert page.row("web & more") == ["2.9000"]
    assert ["lambada", "accuracy", "50.00 % ± 1.23 %"] in page.rows
    assert page.row("blocks.11") == ["0.0130", "16.0"]
    assert page.row("head") == ["0.0140", "17.0"]
    assert any("relative update by layer" in (label or "") for label in page.pictures)


def test_the_same_run_gives_the_same_bytes(trained: Run, page: Page, tmp_path: Path) -> None:
    assert write_report([trained.path], tmp_path / "again.html").read_bytes().decode() == page.content


def test_several_runs_are_laid_over_one_another(trained: Run, tmp_path: Path) -> None:
    other = copy_identity(trained.path, tmp_path / "other")
    changed = Recipe.load(other / "recipe.toml", "optimizer.lr=2e-2")
    (other / "recipe.toml").write_text(changed.to_toml())
    identity = read_sealed(trained.path / "identity.json")
    write_sealed(other / "identity.json", {**identity, "recipe_sha256": sha256_file(other / "recipe.toml")})
    write(other, 1, [("train", train_record(step, 50, loss=float(loss))) for step, loss in enumerate(losses(30), 1)])
    written = write_report([trained.path, other], tmp_path / "both.html")
    page = read(written.read_bytes())
    require_closed(page)
    assert page.row("optimizer.lr") == ["0.01", "0.02"]
    first = next(row for row in page.rows if row[0] == "other" and len(row) > 5)
    assert f"{np.mean(losses(30)[-3:]):.4f} (of 3)" in first
    assert first[-1] == "40 steps, 60.0 % of it spent"
    assert page.text.index("What differs") < page.text.index("Outcome")


def test_a_run_before_its_first_step_has_a_page(trained: Run, tmp_path: Path) -> None:
    begun = copy_identity(trained.path, tmp_path / "begun")
    (begun / "execution.json").unlink()
    page = read(write_report(begun).read_bytes())
    assert (begun / "report.html").is_file()
    assert "No step was recorded yet." in page.text
    assert "not begun" in page.text


@pytest.mark.parametrize("steps", [1, 5])
def test_a_run_of_a_few_steps_has_a_page(trained: Run, tmp_path: Path, steps: int) -> None:
    few = copy_identity(trained.path, tmp_path / "few")
    write(
        few,
        1,
        [("train", train_record(step, 50, loss=math.nan, gradient_norm=math.nan)) for step in range(1, steps + 1)],
    )
    page = read(write_report(few).read_bytes())
    require_closed(page)
    assert page.row("training loss, last step") == ["–"]
    assert "not finite, skipped" in page.text


def test_writing_a_page_leaves_the_run_as_it_was(trained: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.path, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    write_report(run)
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert after.keys() - before.keys() == {run / "report.html"}
    assert all(after[path] == content for path, content in before.items())
    assert load(run).finished


def test_mistakes_are_said(trained: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run or a study: it has no recipe\.toml"):
        write_report(tmp_path)
    with pytest.raises(UserError, match="is not a run or a study: there is no such folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(UserError, match="given twice"):
        write_report([trained.path, trained.path])
    with pytest.raises(UserError, match="no run"):
        write_report([])
    with pytest.raises(UserError, match="is a folder"):
        write_report(trained.path, tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        write_report(trained.path, tmp_path / "nowhere" / "page.html")
    with pytest.raises(UserError, match="tell apart"):
        write_report([trained.path] * 25)


def test_the_command_prints_where_the_page_is(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = copy_identity(trained.path, tmp_path / "begun")
    monkeypatch.setattr("sys.argv", ["daybreak", "report", str(begun), "--out", str(tmp_path / "page.html")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert capsys.readouterr().out == f"{tmp_path / 'page.html'}\n"
    assert (tmp_path / "page.html").is_file()


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    assert names_of([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]
    assert names_of([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
