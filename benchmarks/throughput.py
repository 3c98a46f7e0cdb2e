"""Row c: tokens a second of the same work, ours as `daybreak train` does it and transformers' model in a bare loop.

Plain GPT-2 shapes; ours with its loader, guard and metrics, and with the precision and the chunks of the loss that it
chooses; not compiled. A process's first two steps do not count, its figure is the median of the others.
"""

import json
import statistics
import tempfile
from pathlib import Path

from daybreak.progress import say
from daybreak.training.metrics import read_metrics
from journal import Journal
from processes import Finished, our_command, peer_script, run
from protocol import Throughput
from texts import Text

ROW = "throughput"
WAYS = ("daybreak", "transformers", "transformers tuned")
_WARMING = 2


def measure(config: Throughput, text: Text, journal: Journal) -> None:
    """Measure what is missing, the ways by turns in fresh processes."""
    for vocab in config.steps:
        for round_ in range(1, config.rounds + 1):
            for way in WAYS:
                if journal.records(ROW, contestant=way, vocab=vocab, round=round_):
                    continue
                say(f"throughput: {way}, {vocab:,} words, round {round_}")
                steps, finished = _ours(config, vocab, text) if way == "daybreak" else _peer(config, vocab, way)
                rate = config.batch * config.context / statistics.median(steps[_WARMING:])
                key = {"contestant": way, "vocab": vocab, "round": round_}
                journal.add(ROW, **key, tokens_per_second=rate, step_seconds=steps, command=finished.command)


def _ours(config: Throughput, vocab: int, text: Text) -> tuple[list[float], Finished]:
    layers, heads, dim = config.shape
    settings = [
        f"model.layers={layers}",
        f"model.heads={heads}",
        f"model.dim={dim}",
        f"model.context={config.context}",
        f"model.vocab_size={vocab}",
        f"data.window={config.context}",
        f"data.tokenizer={text.corpus.tokenizer.name}",
        f"batch.tokens={config.batch * config.context}",
        f"budget={config.steps[vocab] + _WARMING}steps",
        "schedule.warmup=10%",
        f"evaluation.tokens={config.context}",
        "evaluation.every=never",
        "samples.every=never",
        "checkpoint.every=never",
        "execution.compile=false",
    ]
    with tempfile.TemporaryDirectory(prefix="daybreak-bench-") as folder:
        out = Path(folder) / "run"
        words = our_command("train", "gpt2-tiny", *settings, "--data", str(text.corpus.path), "--out", str(out))
        finished = run(words, Path(folder) / "log.txt")
        return [record["milliseconds"] / 1000 for record in read_metrics(out / "metrics.jsonl", "train")], finished


def _peer(config: Throughput, vocab: int, way: str) -> tuple[list[float], Finished]:
    shape = [str(size) for size in config.shape]
    sizes = {"--context": config.context, "--batch": config.batch, "--vocab": vocab}
    options = [word for option, size in sizes.items() for word in (option, str(size))]
    words = ["--shape", *shape, *options, "--steps", str(config.steps[vocab] + _WARMING)]
    words += ["--tuned"] if way.endswith("tuned") else []
    with tempfile.TemporaryDirectory(prefix="daybreak-bench-") as folder:
        finished = run(peer_script("transformers_step.py", *words), Path(folder) / "log.txt")
    return json.loads(finished.output.splitlines()[-1]), finished
