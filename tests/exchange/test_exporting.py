"""daybreak export and daybreak import, from a trained run to a folder and back to a run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import daybreak.exchange.check
from daybreak import export, import_model, load, train
from daybreak.cli import app
from daybreak.data.shards import Corpus
from daybreak.errors import UserError
from daybreak.evaluate.results import Figure, TaskResult, TaskResults
from daybreak.evaluate.task_choice import TaskChoice
from daybreak.recipe import Recipe
from daybreak.run import Run
from daybreak.sampling.settings import SamplingConfig

SETTINGS = (
    "data.tokenizer=bytes", "data.window=16", "batch.tokens=64", "model.layers=1", "model.heads=2", "model.dim=16",
    "model.context=16", "model.vocab_size=320", "budget=3steps", "evaluation.tokens=100", "diagnostics.every=never",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("run") / "run"
    return train(Recipe.load("gpt2-tiny", *SETTINGS), data=corpus.path, out=out)


@pytest.fixture(scope="module")
def own(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model that no class of transformers can be."""
    out = tmp_path_factory.mktemp("own") / "own"
    settings = ("model.embedding_skip=true", "model.lookup={ngrams=[2], rows=64, values='all'}")
    return train(Recipe.load("gpt2-tiny", *SETTINGS, *settings), data=corpus.path, out=out)


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "mine"
    export(run.path, folder, license="mit")
    return folder


def said(*words: object) -> tuple[int, str]:
    """What a command comes to; mistakes of a person come through as an exception."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, UserError):
        raise result.exception
    return result.exit_code, result.output


def test_an_exported_run_writes_what_the_run_writes(run: Run, exported: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(exported)
    model = AutoModelForCausalLM.from_pretrained(exported)
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer("The sun").input_ids]])
    made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    ours = run.sample("The sun", tokens=8, sampling=SamplingConfig(greedy=True))[0].text
    assert tokenizer.decode(made[0, 1:]) == ours


def test_the_model_card_is_one_and_names_no_path_of_this_machine(run: Run, exported: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(exported / "README.md")
    assert (card.data.license, card.data.pipeline_tag, card.data.model_name) == ("mit", "text-generation", "mine")
    by_metric = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert by_metric == {"loss": run.final_loss, "bits_per_byte": run.result["validation"]["bits_per_byte"]}
    for stated in ("gpt2-tiny", "3 steps", "192 tokens", 'corpus = "corpus"', "documents: "):
        assert stated in card.text
    assert str(run.path.parent) not in card.content
    assert str(run.recipe.data.corpus) not in card.content


def test_the_card_names_no_path_of_what_the_run_began_from(run: Run, corpus: Corpus, tmp_path: Path) -> None:
    begun = train(Recipe.load("gpt2-tiny", *SETTINGS, f"init={run.path}"), data=corpus.path, out=tmp_path / "begun")
    export(begun.path, tmp_path / "exported")
    card = (tmp_path / "exported" / "README.md").read_text()
    assert str(run.path.parent) not in card
    assert 'source = "run"' in card


def test_the_card_has_benchmarks_with_their_standard_errors(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = TaskResult("arc_easy", {"acc": Figure(0.25, 0.125)}, version="1.0", shots=0, items=8)
    monkeypatch.setattr(Run, "evaluate_tasks", lambda *_: TaskResults([task], 16, "0.4"))
    recorded = {"step": 3, "results": {"piqa": {"acc": 0.5, "acc_stderr": 0.1}}}
    monkeypatch.setattr(Run, "metrics", lambda *_: [recorded])
    export(run.path, tmp_path / "card", evaluate=True, tasks=TaskChoice(("arc_easy",)))
    text = (tmp_path / "card/README.md").read_text()
    assert "| arc_easy | accuracy | 25.00 % | 12.50 % | 8 items, 0 shots, version 1.0 |" in text
    assert "| piqa | accuracy | 50.00 % | 10.00 % | at step 3 |" in text
    assert f"| the whole validation split | loss | {run.evaluate().loss:.4f} nats a token |" in text


def test_what_was_exported_comes_in_as_a_run(run: Run, exported: Path, tmp_path: Path) -> None:
    again = import_model(str(exported), tmp_path / "again")
    assert (again.recipe.model, again.tokenizer) == (run.recipe.model, run.tokenizer)
    ours = run.checkpoint.weights()
    assert all(torch.equal(ours[name], tensor) for name, tensor in again.checkpoint.weights().items())
    greedy = SamplingConfig(greedy=True)
    assert again.sample("The sun", tokens=8, sampling=greedy) == run.sample("The sun", tokens=8, sampling=greedy)
    (tmp_path / "text.txt").write_text("the sun is up")
    source = str(tmp_path / "text.txt")
    assert again.evaluate_text(source).figures["loss"] == pytest.approx(run.evaluate_text(source).figures["loss"])
    assert again.evaluate(run.recipe.data.corpus).loss == pytest.approx(run.evaluate().loss, rel=1e-3)
    with pytest.raises(UserError, match="no corpus"):
        again.evaluate()
    assert export(again.path, tmp_path / "twice").architecture == "GPT2LMHeadModel"
    assert f"that of hf:{exported.name}" in (tmp_path / "twice/README.md").read_text()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / "twice" / name).read_bytes() == (exported / name).read_bytes()


def test_a_model_with_its_own_code_says_so_and_comes_in_without_it(own: Run, tmp_path: Path) -> None:
    code, output = said("export", own.path, tmp_path / "own")
    assert code == 0
    assert "no class of transformers can be this model" in output
    assert "no model.embedding_skip = true: GPT2LMHeadModel, LlamaForCausalLM" in output
    assert "trust_remote_code=True" in output
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "own", trust_remote_code=False)
    for name in ("modeling_daybreak.py", "configuration_daybreak.py"):
        (tmp_path / "own" / name).write_text("raise SystemExit('this code was run')")
    code, output = said("import", tmp_path / "own", tmp_path / "again")
    assert (code, load(tmp_path / "again").recipe.model) == (0, own.recipe.model)


@pytest.mark.slow
def test_its_own_code_runs_where_it_is_trusted_and_only_there(own: Run, tmp_path: Path) -> None:
    """In a process that knows nothing of Daybreak."""
    export(own.path, tmp_path / "own")
    script = """
import sys
import torch
sys.modules["daybreak"] = None
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
folder = sys.argv[1]
tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer("The sun").input_ids]])
made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
print(repr((tokenizer.decode(made[0, 1:]), round(float(model(ids, labels=ids).loss), 3))))
model.save_pretrained(folder + "-again")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "own")], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    ids = torch.tensor([[256, *b"The sun"]])
    with torch.no_grad():
        loss = float(own.model(ids[:, :-1], ids[:, 1:])) / 7
    text = own.sample("The sun", tokens=6, sampling=SamplingConfig(greedy=True))[0].text
    assert done.stdout.strip() == repr((text, round(loss, 3)))
    assert (tmp_path / "own-again/modeling_daybreak.py").is_file()


def test_nothing_is_left_where_logits_differ(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = daybreak.exchange.check.load_with_transformers

    def wrong(folder: Path, architecture: str) -> Any:
        model = right(folder, architecture)
        model.transformer.ln_f.bias.add_(0.01)
        return model

    monkeypatch.setattr("daybreak.exchange.check.load_with_transformers", wrong)
    with pytest.raises(UserError, match=r"does not compute .* differ by at most \d"):
        export(run.path, tmp_path / "there")
    assert list(tmp_path.iterdir()) == []


def test_without_transformers_it_says_what_to_install(
    run: Run, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'daybreak\[hf\]'"):
        export(run.path, tmp_path / "there")
    with pytest.raises(UserError, match=r"pip install 'daybreak\[hf\]'"):
        import_model(str(exported), tmp_path / "there")
    assert list(tmp_path.iterdir()) == []


def test_what_lies_there_is_not_written_over(run: Run, exported: Path) -> None:
    with pytest.raises(UserError, match="exists already"):
        export(run.path, exported)
    with pytest.raises(UserError, match="exists already"):
        import_model(str(exported), run.path)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["hf:./nowhere", "RUN"], "there is no folder"),
        (["FOLDER"], r"write: .* import .* RUN"),
        (["FOLDER", "RUN", "more"], r"write: .* import .* RUN"),
        (["FOLDER", "RUN", "--tokenizer", "gpt2"], "are of token files"),
        (["tokens.bin"], "--out FOLDER"),
    ],
)
def test_mistakes_in_an_import_are_said(words: list[str], reason: str, exported: Path, tmp_path: Path) -> None:
    named = {"FOLDER": str(exported), "RUN": str(tmp_path / "run")}
    with pytest.raises(UserError, match=reason):
        said("import", *(named.get(word, word) for word in words))


def test_options_of_benchmarks_need_benchmarks(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name them by --tasks"):
        said("export", run.path, tmp_path / "there", "--limit", 3)


def test_the_configuration_is_plain_json_that_older_tools_read(exported: Path) -> None:
    content = json.loads((exported / "config.json").read_text())
    assert (content["architectures"], content["model_type"]) == (["GPT2LMHeadModel"], "gpt2")
    assert [content[f"{name}_token_id"] for name in ("bos", "eos", "pad")] == [256] * 3
    assert content["daybreak"]["format"] == 1
