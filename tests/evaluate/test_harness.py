"""Figures of benchmarks are those of the harness's own class for models of transformers, on the same weights."""

import importlib
import json
from pathlib import Path

import pytest
import torch

from daybreak.data.tokenizer import Tokenizer, byte_tokenizer, gpt2_tokenizer
from daybreak.errors import UserError
from daybreak.evaluate.benchmarks import open_benchmarks
from daybreak.evaluate.built_in_tasks import folders_of
from daybreak.evaluate.harness import open_transformers
from daybreak.evaluate.results import TaskResults
from daybreak.evaluate.task_choice import TaskChoice
from daybreak.evaluate.task_code import run_its_code
from daybreak.exchange.check import load_with_transformers
from daybreak.exchange.write import write_model
from daybreak.model.gpt import GPT
from gpt2_weights import random_gpt2
from made_benchmarks import arc, blimp, lambada, task_folder, write_lines

pytestmark = pytest.mark.usefixtures("offline_hub")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmarks")


@pytest.fixture(scope="module")
def gpt2() -> GPT:
    return random_gpt2()


@pytest.fixture(scope="module")
def saved(gpt2: GPT, made: Path) -> Path:
    """The model as it is exported."""
    folder = made / "model"
    folder.mkdir()
    write_model(folder, gpt2, byte_tokenizer())
    return folder


def measured(choice: TaskChoice, model: GPT, tokenizer: Tokenizer | None = None) -> TaskResults:
    tokenizer = tokenizer or byte_tokenizer()
    return open_benchmarks(choice).measure(model, tokenizer, precision="fp32", context=model.config.context)


def assert_same_figures(ours: TaskResults, theirs: TaskResults) -> None:
    assert [task.name for task in ours.tasks] == [task.name for task in theirs.tasks]
    for mine, other in zip(ours.tasks, theirs.tasks, strict=True):
        assert mine.figures.keys() == other.figures.keys()
        for name, figure in mine.figures.items():
            assert figure.value == pytest.approx(other.figures[name].value, rel=1e-4), (mine.name, name)
            assert (figure.standard_error is None) == (other.figures[name].standard_error is None)


def test_the_figures_are_those_of_the_harnesss_own_class(gpt2: GPT, saved: Path, made: Path) -> None:
    local = {"lambada_openai": lambada(made), "arc_easy": arc(made), "blimp": blimp(made)}
    choice = TaskChoice(tuple(local), local=local)
    ours = measured(choice, gpt2)
    theirs = open_benchmarks(choice).measure_transformers(open_transformers(str(saved), device="cpu", batch=5))
    assert_same_figures(ours, theirs)
    assert [task.name for task in ours.tasks] == [
        "lambada_openai", "arc_easy", "blimp", "blimp_adjunct_island", "blimp_causative"
    ]  # fmt: skip
    by_name = {task.name: task for task in ours.tasks}
    assert "2 of its 67" in by_name["blimp"].note
    assert by_name["blimp"].items == 16
    halves = [by_name[f"blimp_{name}"].figures["acc"].value for name in ("adjunct_island", "causative")]
    assert by_name["blimp"].figures["acc"].value == pytest.approx(sum(halves) / 2)
    assert 0 < by_name["arc_easy"].figures["acc_norm"].value < 1
    assert by_name["lambada_openai"].figures["perplexity"].value > 1
    assert ours.context == theirs.context == 128


def test_task_files_nobody_has_seen(gpt2: GPT, saved: Path, made: Path) -> None:
    """Each kind of task; texts longer than the context, answers that are generated; data files beside their YAML."""
    choice = TaskChoice(folder=task_folder(made / "tasks"))
    ours = measured(choice, gpt2)
    theirs = open_benchmarks(choice).measure_transformers(open_transformers(str(saved), device="cpu", batch=3))
    assert_same_figures(ours, theirs)
    figures = {task.name: set(task.figures) for task in ours.tasks}
    assert figures == {
        "made_choices": {"acc", "acc_norm"},
        "made_cloze": {"perplexity", "acc"},
        "made_pairs": {"acc"},
        "made_texts": {"word_perplexity", "bits_per_byte", "bits_per_character"},
        "made_answers": {"exact_match"},
    }
    assert {task.version for task in ours.tasks} == {"2.5"}
    texts = next(task for task in ours.tasks if task.name == "made_texts").figures
    assert texts["bits_per_character"].value == pytest.approx(texts["bits_per_byte"].value)  # all of it is ASCII


def test_answers_are_generated_as_transformers_generates_them(gpt2: GPT, saved: Path, made: Path) -> None:
    """Word for word, also behind a prompt that does not fit into the context beside its answer."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from daybreak.evaluate.harness import DaybreakLM

    settings = {"until": ["zz", "\n"], "max_gen_toks": 20, "do_sample": False}
    prompts = ["The sun", "A river of stones", "light " * 40, "The sun"]
    requests = [Instance("generate_until", {}, (prompt, dict(settings)), index) for index, prompt in enumerate(prompts)]
    ours = DaybreakLM(gpt2, byte_tokenizer(), "fp32", 128).generate_until(requests)
    theirs = HFLM(pretrained=str(saved), device="cpu", batch_size=1).generate_until(requests, disable_tqdm=True)
    assert ours == theirs
    assert ours[0] == ours[3] != ours[1]


def test_an_exported_model_with_its_own_code_runs_in_the_harness(tmp_path: Path) -> None:
    """Handed over here as trust_remote_code=True would find it; texts of several lengths share a batch."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    from daybreak.evaluate.harness import DaybreakLM

    model = random_gpt2(position={"kind": "alibi"}, residual="parallel", lookup={"ngrams": (2,), "rows": 100})
    written = write_model(tmp_path, model, byte_tokenizer())
    theirs = HFLM(
        pretrained=load_with_transformers(tmp_path, written.architecture),
        tokenizer=PreTrainedTokenizerFast.from_pretrained(tmp_path),
        batch_size=3,
    )
    pairs = [("The sun", " is up"), ("A river of stones", " flows"), ("", "light")]
    requests = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
    ours = DaybreakLM(model, byte_tokenizer(), "fp32", 128)
    for mine, other in zip(
        ours.loglikelihood(requests), theirs.loglikelihood(requests, disable_tqdm=True), strict=True
    ):
        assert mine == (pytest.approx(other[0], rel=1e-4), other[1])
    settings = {"until": ["zz"], "max_gen_toks": 6, "do_sample": False}
    asked = [Instance("generate_until", {}, (prompt, dict(settings)), 0) for prompt, _ in pairs[:2]]
    assert ours.generate_until(asked) == theirs.generate_until(asked, disable_tqdm=True)


def test_a_group_of_groups_is_read_from_one_file(gpt2: GPT, made: Path) -> None:
    """MMLU: its subjects lie under tags, in groups, in a group."""
    subjects = ("anatomy", "marketing")
    rows = [
        {"question": f"{subject} {number}?", "subject": subject, "choices": ["a", "b", "c", "d"], "answer": number % 4}
        for subject, count in zip(subjects, (4, 8), strict=True)
        for number in range(count)
    ]
    local = {"mmlu": write_lines(made / "mmlu.jsonl", rows)}
    whole, *parts = measured(TaskChoice(("mmlu",), local=local, shots=1), gpt2).tasks
    assert [task.name for task in parts] == ["mmlu_anatomy", "mmlu_marketing"]
    assert "2 of its 57" in whole.note
    weighted = sum(task.figures["acc"].value * task.items for task in parts) / 12
    assert whole.figures["acc"].value == pytest.approx(weighted)  # by size, as MMLU's own group says
    assert {task.shots for task in (whole, *parts)} == {1}


def test_shots_stand_in_front_and_the_item_itself_is_not_among_them(gpt2: GPT, made: Path) -> None:
    file = arc(made)
    benchmarks = open_benchmarks(TaskChoice(("arc_easy",), local={"arc_easy": file}, shots=2, limit=5))
    result = benchmarks.measure(gpt2, byte_tokenizer(), precision="fp32", context=128).tasks[0]
    (task,) = benchmarks.loaded.tasks.values()
    asked = [instance.args[0] for instance in task.instances]
    assert result.shots == 2
    assert result.items == 5
    for context in asked:
        questions = [part.split("\n")[0] for part in context.split("Question: ")[1:]]
        assert len(questions) == len(set(questions)) == 3
    again = benchmarks.measure(gpt2, byte_tokenizer(), precision="fp32", context=128)
    assert again.tasks[0] == result
    other = arc(made, "examples.jsonl", seed=9)
    local = {"arc_easy": file, "arc_easy:train": other}
    apart = open_benchmarks(TaskChoice(("arc_easy",), local=local, shots=2, limit=5))
    apart.measure(gpt2, byte_tokenizer(), precision="fp32", context=128)
    (task,) = apart.loaded.tasks.values()
    examples = task.instances[0].args[0].split("Question: ")[1:3]
    assert all(example.split("\n")[0] in other.read_text() for example in examples)
    assert not any(example.split("\n")[0] in file.read_text() for example in examples)


def test_nothing_but_progress_is_printed(gpt2: GPT, made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    measured(TaskChoice(("lambada_openai",), local={"lambada_openai": lambada(made)}), gpt2)
    out, err = capfd.readouterr()
    assert out == ""
    assert [line.split(":")[0] for line in err.splitlines()] == ["scoring answers"]


@pytest.mark.parametrize(
    ("names", "local", "message"),
    [
        (("piqa",), {}, r"piqa cannot be read.*--local piqa=FILE"),
        (("lambada_openay",), {}, r"unknown task 'lambada_openay' \(did you mean lambada_openai"),
        (("arc_easy",), {"arc_easy": "lambada.jsonl"}, r"arc_easy needs the field .question., which.*have text"),
        (("blimp",), {"blimp": "lambada.jsonl"}, r"no field of its first line names a task of blimp.*fields are text"),
        (("arc_easy",), {"piqa": "lambada.jsonl"}, r"--local names piqa, which is not among the tasks asked for"),
        (("arc_easy",), {"arc_easy": "broken.jsonl"}, r"broken\.jsonl:2 is not JSON"),
        ((), {}, r"name tasks, as --tasks"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(names: tuple[str, ...], local: dict[str, str], message: str, made: Path) -> None:
    lambada(made)
    (made / "broken.jsonl").write_text('{"question": "so far"}\n{"question": \n')
    with pytest.raises(UserError, match=message):
        open_benchmarks(TaskChoice(names, local={name: made / file for name, file in local.items()}))


def test_a_tag_is_its_tasks(gpt2: GPT, made: Path) -> None:
    """Those that the harness finds by reading all of its files; `arc_easy` has its tag in a list."""
    rows = [json.loads(line) for line in arc(made).read_text().splitlines()]
    names = ("ARC-Easy", "ARC-Challenge")
    file = write_lines(made / "arcs.jsonl", ({"of": names[n % 2], **row} for n, row in enumerate(rows)))
    tasks = measured(TaskChoice(("ai2_arc",), local={"ai2_arc": file}), gpt2).tasks
    assert {task.name: task.items for task in tasks} == {"arc_easy": 6, "arc_challenge": 6}
    local = {"arc_easy": arc(made), "arc_challenge": arc(made)}
    both = open_benchmarks(TaskChoice(("ai2_arc",), local=local)).loaded
    assert both.order == ("arc_challenge", "arc_easy")
    folders = {name: {folder.name for folder in folders_of(name)} for name in ("lambada", "chain_of_thought")}
    assert folders == {"lambada": {"lambada"}, "chain_of_thought": {"asdiv", "gsm8k", "gsm8k_platinum"}}


def test_code_that_cannot_be_imported_is_not_the_files_fault(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"its code in lm-evaluation-harness needs no_such, which is not installed"):
        run_its_code("coqa", lambda: importlib.import_module("no_such.part"), "file.jsonl")
    with pytest.raises(UserError, match=r"needs transformers\.no_such_part, which transformers \d.* does not have"):
        run_its_code("coqa", lambda: importlib.import_module("transformers.no_such_part"), "file.jsonl")


@pytest.mark.parametrize(
    ("third", "message"),
    [
        ({"right": 7}, r"made_choices: 1 of 6 items cannot be asked; the first is item 3: its answer 7 is none of its"),
        ({"ask": None}, r"made_choices: 1 of 6 items cannot be asked; the first is item 3: it has no ask"),
    ],
)
def test_an_item_that_cannot_be_asked_is_named(third: dict[str, object], message: str, tmp_path: Path) -> None:
    folder = task_folder(tmp_path / "tasks")
    rows = [json.loads(line) for line in (folder / "choices.jsonl").read_text().splitlines()]
    rows[2] |= third
    write_lines(folder / "choices.jsonl", rows)
    with pytest.raises(UserError, match=message):
        open_benchmarks(TaskChoice(("made_choices",), folder=folder))
    open_benchmarks(TaskChoice(("made_choices",), folder=folder, limit=2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("metric_list: [{metric: acuracy}]", r"has no metric 'acuracy'"),
        ("unsafe_code: true", r"made_choices runs code that the model writes"),
        ("num_fewshot: 6", r"6 examples in front of each item of made_choices need at least 7 items.*there are 6"),
    ],
)
def test_a_task_that_cannot_be_run_is_said_at_once(settings: str, message: str, tmp_path: Path) -> None:
    folder = task_folder(tmp_path / "tasks")
    file = folder / "choices.yaml"
    lines = [line for line in file.read_text().splitlines() if not line.startswith(settings.split(":")[0])]
    file.write_text("\n".join([*lines, settings, "fewshot_split: test\n"]))
    with pytest.raises(UserError, match=message):
        open_benchmarks(TaskChoice(("made_choices",), folder=folder))


def test_a_task_that_takes_the_place_of_a_built_in_one_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = task_folder(tmp_path / "tasks")
    (folder / "choices.yaml").write_text((folder / "choices.yaml").read_text().replace("made_choices", "piqa"))
    open_benchmarks(TaskChoice(folder=folder))
    assert [line for line in capsys.readouterr().err.splitlines() if "takes the place of" in line] == [
        f"piqa of {folder} takes the place of lm-evaluation-harness's own task of that name"
    ]


def test_chance_is_known_of_items_that_have_options(gpt2: GPT, made: Path) -> None:
    options = [{"text": [*"abcd"[:count]], "label": [*"ABCD"[:count]]} for count in (4, 2)]
    rows = [{"question": "?", "choices": each, "answerKey": "A"} for each in options]
    local = {"arc_easy": write_lines(made / "two.jsonl", rows), "lambada_openai": lambada(made)}
    results = measured(TaskChoice(tuple(local), local=local), gpt2)
    choices, cloze = results.tasks
    assert (choices.chance, cloze.chance) == (pytest.approx(0.375), None)
    assert choices.described()["chance"] == pytest.approx(0.375)
    header, first, *_ = results.table()
    assert header.split()[5] == "chance"
    assert "37.50 %" in first


def test_a_model_whose_logits_are_nan_has_no_figures(made: Path) -> None:
    model = random_gpt2()
    with torch.no_grad():
        model.embedding.weight.fill_(torch.nan)
    with pytest.raises(UserError, match=r"predictions are not numbers.*its training has diverged"):
        measured(TaskChoice(("arc_easy",), local={"arc_easy": arc(made)}), model)


def test_a_task_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("task: bad\nmetric_list: [\n")
    with pytest.raises(UserError, match=r"bad\.yaml is not valid YAML"):
        open_benchmarks(TaskChoice(folder=tmp_path))


def test_a_task_whose_name_is_a_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "five.yaml").write_text("task: 5\n")
    with pytest.raises(UserError, match=r"five\.yaml: task: 5 is no name"):
        open_benchmarks(TaskChoice(folder=tmp_path))


def test_a_file_that_a_task_names_but_is_nowhere(tmp_path: Path) -> None:
    folder = task_folder(tmp_path / "tasks")
    (folder / "cloze.jsonl").unlink()
    with pytest.raises(UserError, match=r"made_cloze reads cloze\.jsonl, which is neither here nor beside"):
        open_benchmarks(TaskChoice(("made_cloze",), folder=folder))


@pytest.fixture(scope="module")
def real(test_data: Path) -> dict[str, Path]:
    return {
        "lambada_openai": test_data / "lambada" / "lambada_test.jsonl",
        "arc_easy": test_data / "arc" / "ARC-Easy_validation.jsonl",
        "arc_challenge": test_data / "arc" / "ARC-Challenge_validation.jsonl",
        "blimp": test_data / "blimp" / "blimp.jsonl.xz",
    }


@pytest.mark.slow
def test_on_real_items_too(real: dict[str, Path], test_data: Path, tmp_path: Path) -> None:
    """LAMBADA, ARC and BLiMP with GPT-2's tokenizer."""
    tokenizer = gpt2_tokenizer()
    model = random_gpt2(vocab_size=tokenizer.vocab_size, context=256)
    write_model(tmp_path, model, tokenizer)
    choice = TaskChoice(tuple(real), local=real, limit=8)
    ours = measured(choice, model, tokenizer)
    theirs = open_benchmarks(choice).measure_transformers(open_transformers(str(tmp_path), device="cpu", batch=8))
    assert_same_figures(ours, theirs)
    assert sum(task.name.startswith("blimp_") for task in ours.tasks) == 34
