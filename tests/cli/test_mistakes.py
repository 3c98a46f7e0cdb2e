"""What people get wrong on the command line, and the way on that they are shown."""

import shlex
import sys
from pathlib import Path

import pytest

from daybreak import Recipe, train
from daybreak.cli import main
from daybreak.data.shards import Corpus
from made_text import write_documents

TINY = (
    *("data.tokenizer=bytes", "data.window=16", "batch.tokens=64", "evaluation.tokens=100", "budget=2steps"),
    *("model.layers=1", "model.heads=2", "model.dim=16", "model.context=16", "model.vocab_size=257"),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Path:
    """Somebody's working folder: a corpus, two runs, notes, a recipe."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "data").mkdir()
    (folder / "data" / "mine").symlink_to(corpus.path)
    for name in ("mine", "other"):
        train(Recipe.load("gpt2-tiny", *TINY), data=folder / "data" / "mine", out=folder / "runs" / name)
    (folder / "notes").mkdir()
    write_documents(folder / "notes")
    (folder / "wide.toml").write_text('extends = "gpt2-tiny"')
    return folder


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("trian", "Did you mean 'train'?"),
        ("train gpt2-tiny --dta data/mine", "--data"),
        ("sample runs/mien", "is not a run: there is no such folder; there are runs/mine, runs/other"),
        ("sample mine", "there are runs/mine, runs/other"),
        ("sample runs", "it has no recipe.toml; there are runs/"),
        ("sample data/mine", "is not a run: it is a corpus; there"),
        ("sample wide.toml", "it is a file; there"),
        ("sample runs/mine/checkpoints/step-00000002", "it is a checkpoint of runs/mine"),
        ("evaluate elsewhere/run", "there are runs/mine, runs/other"),
        ("extend runs/mien budget=4steps", "there are runs/mine"),
        ("compare runs/mine runs/othr", "there are runs/other, runs/mine"),
        ("report runs/othr", "there are runs/other, runs/mine"),
        ("report notes", "there are runs/"),
        ("verify notes", "is not a run or a corpus"),
        ("inspect data/mien", "is not a corpus: there is no such folder; there is data/mine"),
        ("inspect runs/mine", "it is a run; there is data/mine"),
        ("train gpt2-tiny", "daybreak prepare makes one"),
        ("train gpt2-tiny --data data/mien", "there is data/mine"),
        ("train gpt2-tiyn --data data/mine", "did you mean gpt2-tiny?"),
        ("train wide --data data/mine", "did you mean wide.toml?"),
        ("train wied.toml --data data/mine", "did you mean wide.toml?"),
        ("train data/mine", "daybreak train gpt2-tiny --data data/mine"),
        ("train runs/mine", "daybreak train runs/mine/recipe.toml --out runs/mine goes on"),
        ("train gpt2-tiny --data data/mine learning_rate=1e-3", "optimizer.lr"),
        ("train gpt2-tiny --data data/mine model.layer=2", "unknown key model.layer (did you mean layers?)"),
        ("train gpt2-tiny --data data/mine budget", "write key=value"),
        ("train gpt2-tiny --data data/mine", "add data.tokenizer=bytes"),
        ("train gpt2-tiny --data data/mine --stop-after 5steps", "write 3h or 170m"),
        ("prepare note --tokenizer bytes --out data/new", "did you mean notes?"),
        ("prepare shakespear --tokenizer bytes --out data/new", "did you mean shakespeare?"),
        ("prepare notes --tokenizer bytes --out data/mine", "choose another --out"),
        ("prepare notes --tokenizer BPE:300 --out data/new", "bpe:"),
        ("plan auto", "daybreak train auto budget="),
        ("plan gpt2 --device 'RTX 3900'", "RTX 3090"),
        ("recipes gpt3", "did you mean gpt2?"),
        ("study bias.toml", "base, budget, seeds and [changes]"),
        (
            f"train gpt2-tiny {' '.join(TINY)} --data data/mine --out runs/new execution.device=cuda:77",
            "daybreak doctor",
        ),
    ],
)
def test_the_message_names_the_way_on(
    home: Path, line: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["daybreak", *shlex.split(line)])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 2, error
    assert said in " ".join(error.split()), error
    assert "Traceback" not in error
