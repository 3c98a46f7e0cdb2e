"""The pipeline as a whole: cleaned, deduplicated, killed, and done by several; against the same work done plainly."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from daybreak.data import stages
from daybreak.data.blocks import Block
from daybreak.data.clean import Cleaning
from daybreak.data.documents import Document
from daybreak.data.prepare import prepare
from daybreak.data.shards import Corpus, documents_file
from daybreak.errors import UserError
from daybreak.files import locked

OPTIONS = ("--tokenizer", "bpe:400", "--clean", "--deduplicate", "near", "--mask-personal")


def prose(generator: random.Random, words: int = 120) -> str:
    """Sentences of a thousand words, of which no two texts share many in a row."""
    letters = "etaoinshrdlucm"
    known = ["".join(random.Random(number).choices(letters, k=2 + number % 7)) for number in range(1000)]
    chosen = generator.choices(known, k=words)
    return ". ".join(" ".join(chosen[start : start + 12]) for start in range(0, words, 12)) + "."


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two files of prose, with copies, near-copies, mojibake, poor documents and an evaluation set's sentence."""
    folder, generator = tmp_path_factory.mktemp("sources"), random.Random(1)
    texts = [prose(generator) for _ in range(400)]
    texts[50] = texts[10]
    texts[60] = texts[20].replace(".", ". And then,", 1)
    texts[70] = "too short"
    texts[80] += " Questions go to someone@example.org or 10.0.0.1."
    texts[90] += " Itâ€™s mended."
    texts[310] = texts[30]
    texts[320] = f"{texts[320]} {evaluated()} {prose(generator, 30)}"
    files = [folder / "one.jsonl", folder / "two.jsonl"]
    for file, some in zip(files, (texts[:300], texts[300:]), strict=True):
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in some), encoding="utf-8")
    (folder / "questions.jsonl").write_text(
        json.dumps({"question": {"stem": evaluated()}, "answers": ["A", "B"]}) + "\n"
    )
    return files


def evaluated() -> str:
    return "which of these thirteen words in a row would tell a model what the answer is"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def documents_of(corpus: Corpus) -> list[str]:
    found = []
    for split in (corpus.train, corpus.validation):
        for shard in split.shards:
            tokens = np.fromfile(corpus.path / shard.file, "<u2")
            starts = np.fromfile(corpus.path / documents_file(shard.file), "<u8").astype(int)
            found += [corpus.tokenizer.decode(part[1:]) for part in np.split(tokens, starts[1:])]
    return found


@pytest.fixture(scope="module")
def undisturbed(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made by the command line in one process."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    subprocess.run([*command(sources, out), "--workers", "1"], check=True, capture_output=True)
    return out


def command(sources: list[Path], out: Path) -> list[str]:
    code = (
        "from daybreak.data import pipeline; pipeline._BLOCK_BYTES = 20_000; from daybreak.cli import main;"
        "__name__ == '__main__' and main()"
    )
    script = out.parent / "script.py"
    script.write_text(code)
    against, rejects = str(sources[0].with_name("questions.jsonl")), str(out.with_suffix(".rejects"))
    words = ["prepare", *map(str, sources), *OPTIONS, "--against", against, "--rejects", rejects, "--out", str(out)]
    return [sys.executable, str(script), *words]


def test_what_should_go_goes_and_what_should_stay_stays(sources: list[Path], undisturbed: Path) -> None:
    corpus = Corpus.open(undisturbed)
    texts = [json.loads(line)["text"] for file in sources for line in file.read_text("utf-8").splitlines()]
    gone = {50: "exact duplicate", 60: "near duplicate", 70: "few words", 310: "exact duplicate", 320: "evaluation set"}
    texts[80] = texts[80].replace("someone@example.org", "[e-mail]").replace("10.0.0.1", "[IP]")
    texts[90] = texts[90].replace("â€™", "'")
    assert sorted(documents_of(corpus)) == sorted(text for number, text in enumerate(texts) if number not in gone)
    rejects = [json.loads(line) for line in undisturbed.with_suffix(".rejects").read_text("utf-8").splitlines()]
    assert {each["text"]: each["reason"] for each in rejects} == {texts[number]: why for number, why in gone.items()}
    assert rejects[0]["origin"] == f"{sources[0]}:71"
    report = json.loads((undisturbed / "report.json").read_text())
    assert [each["documents"] for each in report["sources"]] == [300, 100]
    counts = {"exact duplicate": 2, "near duplicate": 1, "few words": 1, "evaluation set": 1}
    assert report["dropped"] == counts
    assert report["dropped_bytes"]["few words"] == len("too short")
    page = (undisturbed / "report.md").read_text(encoding="utf-8")
    assert all(reason in page for reason in counts)


def test_any_number_of_workers_makes_the_same(sources: list[Path], undisturbed: Path, tmp_path: Path) -> None:
    subprocess.run([*command(sources, tmp_path / "out"), "--workers", "3"], check=True, capture_output=True)
    assert files_of(tmp_path / "out") == files_of(undisturbed)
    assert (tmp_path / "out.rejects").read_bytes() == undisturbed.with_suffix(".rejects").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.rejects", "script.py"]


def test_killed_again_and_again_it_makes_the_same(sources: list[Path], undisturbed: Path, tmp_path: Path) -> None:
    """With its workers, at moments that leave some more of the work done each time."""
    out, generator, kills = tmp_path / "out", random.Random(0), 0
    kept: dict[Path, int] = {}
    while not out.exists():
        child = subprocess.Popen(
            [*command(sources, out), "--workers", "2"], stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            child.wait(timeout=0.5 + 0.1 * kills + generator.random() / 2)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            kills += 1
            results = {path: path.stat().st_mtime_ns for path in tmp_path.glob(".out.partial/*/*.json")}
            assert out.exists() or kept.items() <= results.items()  # what was finished is not done again
            kept = results or kept  # killed behind its end, it has swept them
        _, said = child.communicate()
        assert child.returncode in (0, -signal.SIGKILL), said
    assert kills
    assert kept
    subprocess.run(command(sources, out), check=True, capture_output=True)  # sweeps what a kill at the end left
    assert not (tmp_path / ".out.partial").exists()
    assert files_of(out) == files_of(undisturbed)


def test_the_same_again_is_there_already_and_other_is_refused(
    sources: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = [str(file) for file in sources]
    first = prepare(names, tmp_path / "out", tokenizer="bytes")
    before = files_of(first.path)
    assert prepare(names, tmp_path / "out", tokenizer="bytes").identity == first.identity
    assert "is there already" in capfd.readouterr().err
    for other in ({"tokenizer": "chars"}, {"cleaning": Cleaning(mend=True)}, {"validation": 0.2}):
        with pytest.raises(UserError, match="exists already"):
            prepare(names, tmp_path / "out", **{"tokenizer": "bytes", **other})  # type: ignore[arg-type]
    assert files_of(first.path) == before


def test_a_mistake_in_one_file_keeps_the_work_on_the_others(
    sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("daybreak.data.prepare._WORTH_KEEPING", 0.0)
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "fine"}\n{"text"')
    names = [str(sources[0]), str(broken)]
    read: list[str] = []
    read_blocks = stages.write_blocks

    def counted(documents: Iterable[Document], folder: Path, size: int) -> Iterator[Block]:
        read.append(folder.name)
        return read_blocks(documents, folder, size)

    monkeypatch.setattr(stages, "write_blocks", counted)
    with pytest.raises(UserError, match=r"broken\.jsonl:2"):
        prepare(names, tmp_path / "out", tokenizer="bytes")
    monkeypatch.setattr("daybreak.data.prepare._WORTH_KEEPING", 30.0)
    with pytest.raises(UserError, match=r"broken\.jsonl:2"):  # a short second sitting throws nothing away
        prepare(names, tmp_path / "out", tokenizer="bytes")
    broken.write_text('{"text": "fine"}\n')
    assert prepare(names, tmp_path / "out", tokenizer="bytes").train.documents > 200
    assert [read.count(name) for name in dict.fromkeys(read)] == [1, 2, 1]
    assert "going on with what lies in" in capfd.readouterr().err
    assert not (tmp_path / ".out.partial").exists()


def test_results_that_were_damaged_are_made_anew(
    sources: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As after a power cut, which leaves zeros where writes had not come to the disk."""
    names, options = [str(file) for file in sources], {"tokenizer": "bytes", "cleaning": Cleaning(mend=True)}
    expected = files_of(prepare(names, tmp_path / "expected", **options).path)  # type: ignore[arg-type]
    monkeypatch.setattr("daybreak.data.prepare._WORTH_KEEPING", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("daybreak.data.pipeline.write_manifest", _torn)
        with pytest.raises(RuntimeError, match="torn"):
            prepare(names, tmp_path / "out", **options)  # type: ignore[arg-type]
    damaged = [path for path in tmp_path.glob(".out.partial/*/**/*") if path.suffix in (".tokens", ".text", ".starts")]
    assert len(damaged) > 5
    for path in damaged:
        path.write_bytes(bytes(path.stat().st_size))
    assert files_of(prepare(names, tmp_path / "out", **options).path) == expected  # type: ignore[arg-type]
    assert "making it anew" in capfd.readouterr().err


def _torn(*_: object, **__: object) -> None:
    raise RuntimeError("torn")


def test_one_document_of_one_character_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n' * 5)
    with pytest.raises(UserError, match="too little to train on"):
        prepare([str(tmp_path / "a.jsonl")], tmp_path / "out", tokenizer="bytes", duplicates="exact")


@pytest.mark.parametrize("share", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_share_of_tokens_that_makes_no_sense_is_refused(share: float, sources: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tokens-per-character"):
        prepare([str(sources[0])], tmp_path / "out", cleaning=Cleaning(tokens_per_character=share))


def test_what_is_kept_of_the_dropped_is_there_where_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "too short"}\n{"text": "this too"}\n')
    with pytest.raises(UserError, match=r"all were dropped \(few words 2\)"):
        prepare([str(tmp_path / "a.jsonl")], tmp_path / "out", cleaning=Cleaning(filter=True), tokenizer="bytes",
                rejects=tmp_path / "rejects")  # fmt: skip
    assert len((tmp_path / "rejects").read_text().splitlines()) == 2


def test_a_corpus_inside_a_folder_is_not_read_as_text(sources: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("words " * 100)
    first = prepare([str(tmp_path / "text")], tmp_path / "text" / "corpus", tokenizer="bytes")
    again = prepare([str(tmp_path / "text")], tmp_path / "again", tokenizer="bytes")
    assert again.train.tokens == first.train.tokens


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": "two"}\n')
    read_blocks = stages.write_blocks

    def written_to(documents: Iterable[Document], folder: Path, size: int) -> Iterator[Block]:
        with path.open("a") as file:
            file.write('{"text": "three"}\n')
        return read_blocks(documents, folder, size)

    monkeypatch.setattr(stages, "write_blocks", written_to)
    with pytest.raises(UserError, match="changed while it was read"):
        prepare([str(path)], tmp_path / "out", tokenizer="bytes")
    assert [each.name for each in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_source_is_not_read_twice(sources: list[Path], tmp_path: Path) -> None:
    file = sources[0]
    for twice in ([str(file), f"{file.parent}/../{file.parent.name}/{file.name}"], [str(file.parent), str(file)]):
        with pytest.raises(UserError, match="would be read twice"):
            prepare(twice, tmp_path / "out", tokenizer="bytes")


def test_rejects_are_refused_early_where_they_cannot_be_kept(sources: list[Path], tmp_path: Path) -> None:
    names = [str(file) for file in sources]
    (tmp_path / "mine").write_text("mine")
    for place, says in (
        (tmp_path / "no" / "such", "its folder does not exist"),
        (sources[0], "is itself a source"),
        (tmp_path / "mine", "exists already"),
        (tmp_path / "out", "lies where the corpus will"),
    ):
        with pytest.raises(UserError, match=says):
            prepare(names, tmp_path / "out", tokenizer="bytes", rejects=place)
    assert (tmp_path / "mine").read_text() == "mine"
    prepare(names, tmp_path / "out", tokenizer="bytes")
    with pytest.raises(UserError, match=r"was made before, and .*rejects was not"):
        prepare(names, tmp_path / "out", tokenizer="bytes", rejects=tmp_path / "rejects")


def test_two_at_once_do_not_disturb_each_other(sources: list[Path], tmp_path: Path) -> None:
    with locked(tmp_path / ".out.partial"):
        second = subprocess.run(command(sources, tmp_path / "out"), capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert f"is in use by process {os.getpid()}" in second.stderr


@pytest.mark.slow
def test_memory_stays_bounded(tmp_path: Path) -> None:
    """A gigabyte, of which a line is 200 MB, in two workers: less than 1.5 GB in all processes together."""
    generator = random.Random(0)
    texts = [prose(generator, 400) for _ in range(500)]
    with (tmp_path / "large.jsonl").open("w") as file:
        file.write(json.dumps({"text": "A line of many words, and é. " * 7_000_000}) + "\n")
        while file.tell() < 1_000_000_000:
            file.write(json.dumps({"text": f"{generator.random()} {' '.join(generator.sample(texts, 4))}"}) + "\n")
    words = [str(tmp_path / "large.jsonl"), *OPTIONS, "--workers", "2", "--out", str(tmp_path / "out")]
    child = subprocess.Popen([sys.executable, "-m", "daybreak", "prepare", *words], stderr=subprocess.DEVNULL)
    most = 0
    while child.poll() is None:
        most = max(most, _resident(child.pid))
        time.sleep(0.05)
    assert child.returncode == 0
    assert most < 1_500_000_000


def _resident(parent: int) -> int:
    """Bytes of memory of a process and its children, shared pages counted once for each."""
    total = 0
    for process in [parent, *map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())]:
        try:
            fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        except FileNotFoundError:
            continue
        total += 1024 * int(fields.get("VmRSS", "0 kB").split()[0])
    return total
