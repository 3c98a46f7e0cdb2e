"""What the package must never do, read from its syntax trees; and that secrets stay where they were."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import daybreak
from daybreak.data.shards import Corpus

SOURCES = sorted(Path(daybreak.__file__).parent.rglob("*.py"))
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_CALLS = {
    "torch.load", "torch.save", "torch.hub.load", "np.load", "numpy.load", "os.system", "os.popen",
    "subprocess.getoutput", "subprocess.getstatusoutput", "yaml.load",
    "dist.broadcast_object_list", "dist.all_gather_object", "dist.gather_object", "dist.scatter_object_list",
    "time.time", "time.time_ns", "datetime.now",
}  # fmt: skip
FORBIDDEN_ARGUMENTS = {"allow_pickle", "trust_remote_code", "weights_only", "shell"}


def faults(tree: ast.AST) -> Iterator[str]:
    """Every use of what is forbidden, with its line."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            yield from (f"{line}: import {a.name}" for a in node.names if a.name.split(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
            yield f"{line}: from {node.module}"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in FORBIDDEN_CALLS or called in FORBIDDEN_NAMES:
                yield f"{line}: {called}"
            for argument in node.keywords:
                truth = not (isinstance(argument.value, ast.Constant) and argument.value.value is False)
                if argument.arg in FORBIDDEN_ARGUMENTS and truth:
                    yield f"{line}: {argument.arg}="


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_pickle_no_evaluation_no_shell_and_no_wall_clock(source: Path) -> None:
    assert list(faults(ast.parse(source.read_text()))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "eval('1')",
        "exec(code)",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "dist.broadcast_object_list(values)",
        "began = time.time()",
    ],
)
def test_the_check_sees_what_it_forbids(code: str) -> None:
    assert len(list(faults(ast.parse(code)))) >= 1


def test_the_check_lets_pass_what_is_allowed() -> None:
    assert not list(faults(ast.parse("subprocess.run(['ls'], shell=False); model.eval(); re.compile('a')")))


def test_a_secret_of_the_environment_is_in_no_file_and_no_output(corpus: Corpus, tmp_path: Path) -> None:
    secret = "canary-4f1c9d7e-never-to-be-seen"
    secrets = dict.fromkeys(("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY"), secret)
    settings = [
        "data.tokenizer=bytes", "data.window=16", "batch.tokens=64", "model.layers=1", "model.heads=2", "model.dim=16",
        "model.context=16", "model.vocab_size=257", "budget=3steps", "evaluation.tokens=100", "execution.threads=1",
        "tracking={kinds='tensorboard, trackio, wandb', every='1 steps'}",
    ]  # fmt: skip
    words = [sys.executable, "-m", "daybreak", "train", "gpt2-tiny", *settings, "--data", str(corpus.path)]
    environment = os.environ | secrets | {"WANDB_MODE": "offline", "HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [*words, "--out", str(tmp_path / "run")], env=environment, capture_output=True, text=True, check=True
    )
    assert "warning: " not in done.stderr.replace("warning: about 3 steps", "")
    assert secret not in done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".wandb", ".db", ".jsonl", ".safetensors"}
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
