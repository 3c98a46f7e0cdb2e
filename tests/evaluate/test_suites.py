"""Suites: scores by their published formulas, published figures as printed, and what is missing said aloud."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from daybreak.data.tokenizer import byte_tokenizer
from daybreak.errors import UserError
from daybreak.evaluate.benchmarks import open_benchmarks
from daybreak.evaluate.dclm_core import measure_core
from daybreak.evaluate.gpt_star import measure_gpt_star
from daybreak.evaluate.language_model import DaybreakModel
from daybreak.evaluate.results import Figure, TaskResult, TaskResults
from daybreak.evaluate.sweep import measure
from daybreak.evaluate.task_choice import TaskChoice
from daybreak.evaluate.wikitext_articles import read_articles
from gpt2_weights import random_gpt2
from made_benchmarks import write_lines

METRICS = ("acc", "acc_norm", "exact_match", "em", "perplexity", "word_perplexity")
WITHOUT = {"jeopardy", "squad"}  # not in the harness


def unchecked(_: TaskChoice) -> None:
    """Files that are not there may be."""


class Recorded:
    """Stands for a model: right in `accuracy` of all items of the tasks whose data is there."""

    def __init__(self, accuracy: float, lacking: tuple[str, ...] = ()) -> None:
        self.accuracy, self.lacking = accuracy, lacking
        self.asked: list[TaskChoice] = []

    def __call__(self, choice: TaskChoice) -> TaskResults:
        (name,) = choice.names
        if name in self.lacking:
            raise UserError(f"task {name} cannot be read")
        self.asked.append(choice)
        figures = {metric: Figure(self.accuracy, 0.01) for metric in METRICS}
        return TaskResults([TaskResult(name, figures, "1.0", choice.shots or 0, 100)], 1024, "0.4.13")


def test_core_has_22_tasks_with_their_shots_and_chance() -> None:
    core = measure_core(Recorded(1.0), unchecked, {})
    assert len(core.tasks) == 22
    shots = {task.name: task.shots for task in core.tasks}
    zero = {"hellaswag_zeroshot", "copa", "openbook_qa", "lambada_openai", "winograd", "winogrande", "coqa"}
    assert {name for name, count in shots.items() if count == 0} == zero
    assert shots["agi_eval_lsat_ar"] == 3
    assert set(shots.values()) == {0, 3, 10}
    chance = {task.name: task.chance for task in core.tasks}
    assert chance["boolq"] == 0.62
    assert chance["bigbench_language_identification"] == 0.091
    assert sum(chance.values()) == pytest.approx(5 * 0.25 + 4 * 0.5 + 2 * 0.2 + 0.62 + 0.091)


def test_perfect_is_one_and_guessing_is_zero() -> None:
    assert measure_core(Recorded(1.0), unchecked, {}).score == pytest.approx(1.0)
    core = measure_core(Recorded(0.5), unchecked, {})
    assert core.centred["copa"] == 0.0
    assert core.centred["hellaswag"] == pytest.approx((0.5 - 0.25) / 0.75)
    assert core.centred["boolq"] == pytest.approx((0.5 - 0.62) / 0.38)
    assert core.score == pytest.approx(math.fsum(core.centred.values()) / len(core.centred))


def test_a_partial_core_is_called_partial_and_says_what_is_missing() -> None:
    core = measure_core(Recorded(0.5, lacking=("piqa", "boolq")), unchecked, {})
    assert core.partial
    assert set(core.missing) == {"piqa", "boolq", *WITHOUT}
    text = "\n".join(core.table())
    assert "partial CORE" in text
    assert "over 18 of 22 tasks" in text
    assert "missing: squad (lm-evaluation-harness has no such task; give DCLM's file by --local squad=FILE)" in text
    assert "core" not in core.described()
    assert core.described()["partial_core"] == core.score
    nothing = measure_core(lambda choice: Recorded(0.5, choice.names)(choice), unchecked, {})
    assert nothing.described()["partial_core"] is None


def test_files_reach_their_tasks_under_either_name(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("hellaswag", "openbook_qa", "wsc273", "arc_easy", "arc_easy:train")}
    recorded = Recorded(0.5)
    measure_core(recorded, unchecked, files, limit=7)
    by_task = {(choice.names[0], choice.shots): choice.local for choice in recorded.asked}
    assert by_task["hellaswag", 0] == by_task["hellaswag", 10] == {"hellaswag": tmp_path / "hellaswag"}
    assert by_task["openbookqa", 0] == {"openbookqa": tmp_path / "openbook_qa"}
    assert by_task["wsc273", 0] == {"wsc273": tmp_path / "wsc273"}
    assert by_task["arc_easy", 10].keys() == {"arc_easy", "arc_easy:train"}
    assert by_task["piqa", 10] == {}
    assert {choice.limit for choice in recorded.asked} == {7}
    with pytest.raises(UserError, match="which is not among the tasks of this suite"):
        measure_core(recorded, unchecked, {"blimp": tmp_path})


def test_what_the_harness_lacks_is_asked_of_dclms_own_files(tmp_path: Path) -> None:
    rows = [{"context": f"CAPITALS: of land {number}", "continuation": f" town {number}"} for number in range(12)]
    local = {name: write_lines(tmp_path / f"{name}.jsonl", rows) for name in ("jeopardy", "squad")}
    model, asked = random_gpt2(context=512), {}

    def measure(choice: TaskChoice) -> TaskResults:
        if choice.names[0] not in ("core_jeopardy", "core_squad"):
            raise UserError("not here")
        benchmarks = open_benchmarks(choice)
        results = benchmarks.measure(model, byte_tokenizer(), precision="fp32", context=512)
        asked[choice.names[0]] = benchmarks.loaded.tasks[choice.names[0]].instances[0].args
        return results

    core = measure_core(measure, unchecked, local)
    assert core.accuracies.keys() == {"jeopardy", "squad"}
    for name, answer in (("core_jeopardy", "\nAnswer:"), ("core_squad", "")):
        context, continuation = asked[name]
        examples = context.split("\n\n")
        assert len(examples) == 11
        assert examples[-1] == f"CAPITALS: of land 0{answer}"
        assert continuation == " town 0"
        assert all(f"{answer} town " in example for example in examples[:-1])


def test_a_wrong_file_is_no_missing_task(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="task piqa cannot be read"):
        measure_core(Recorded(0.5, lacking=("piqa",)), unchecked, {"piqa": tmp_path})


def test_a_wrong_file_is_said_before_anything_is_scored(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "wiki.jsonl", [{"text": "no page"}])
    recorded = Recorded(0.5)
    with pytest.raises(UserError, match=r"wiki\.jsonl: task wikitext needs the field 'page', which.*have text"):
        measure_gpt_star(recorded, open_benchmarks, lambda *_: [], 1024, {"wikitext": file})
    with pytest.raises(UserError, match=r"wiki\.jsonl: task arc_easy needs the field 'question'"):
        measure_core(recorded, open_benchmarks, {"arc_easy": file})
    assert recorded.asked == []


def test_wikitexts_sweep_reads_what_its_task_reads(tmp_path: Path) -> None:
    """Articles that fit into the context cost the same in both: their last windows are all that differ."""
    pages = (" = One = \n \n Prices of 1 @,@ 000 ( or so ) , the end . \n", " = Two = \n \n A well @-@ known tale . \n")
    (tmp_path / "wiki.test.tokens").write_text("".join(pages))
    local, gpt = {"wikitext": tmp_path / "wiki.test.tokens"}, random_gpt2(context=128)
    tokenizer = byte_tokenizer()
    (task,) = (
        open_benchmarks(TaskChoice(("wikitext",), local=local)).measure(gpt, tokenizer, precision="fp32", context=128)
    ).tasks
    device = torch.device("cpu")
    model = DaybreakModel.of(gpt, tokenizer, name="", context=128, tokens_at_once=1024, device=device, precision="fp32")
    found = measure(model, read_articles(model, tmp_path / "wiki.test.tokens"), 128)
    assert found.word_perplexity == pytest.approx(task.figures["word_perplexity"].value, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(task.figures["bits_per_byte"].value, rel=1e-5)


def test_gpt_stars_table_has_the_published_rows_and_what_is_wrong_with_them(tmp_path: Path) -> None:
    def sweep(_: str, file: Path, contexts: Sequence[int]) -> list[dict[str, float]]:
        assert file == tmp_path / "enwik8.txt.xz"
        return [{"bits_per_byte": 1 + context / 1e4} for context in contexts[:-1]] + [{"context": contexts[-1]}]

    local = {"enwik8": tmp_path / "enwik8.txt.xz"}
    row = measure_gpt_star(Recorded(0.4, lacking=("winogrande",)), unchecked, sweep, 1024, local)
    lines = row.table()
    by_model = {line.split("  ")[0]: line.split()[-6:] for line in lines[1:13]}
    assert by_model["this one"] == ["40.00", "0.4000", "0.4000", "40.00", "40.00", "–"]
    assert by_model["127*, 26 B tokens"] == ["36.23", "28.60", "37.99", "63.17", "28.07", "51.46"]
    assert by_model["GPT-2 small, 21 B"] == ["36.52", "30.05", "37.86", "62.46", "28.57", "–"]
    assert by_model["GPT-3 350M, 300 B"] == ["54.30", "9.09", "–", "70.20", "43.60", "52.10"]
    assert len(by_model) == 12
    text = "\n".join(lines)
    assert "38.44 where every token is counted" in text
    assert "missing: winogrande (task winogrande cannot be read)" in text
    (ours,) = (line for line in lines if line.startswith("enwik8, bits per byte: this one"))
    assert ours.split()[-5:] == ["1.102", "1.205", "1.307", "1.410", "–"]
    (small,) = (line for line in lines if line.startswith("WikiText, perplexity: 127*, every"))
    assert small.split()[-5:] == ["38.44", "36.71", "36.17", "36.00", "35.70"]
    (medium,) = (line for line in lines if line.startswith("enwik8, bits per byte: 303*"))
    assert medium.split()[-5:] == ["1.251", "1.239", "1.237", "1.236", "–"]
    assert row.described()["published"]["1B*, 26 B"]["LAMBADA ppl"] == 9.758
