"""Inputs: small, the same each time, and known again; bundles, standard input."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from daybreak.data.corpora import open_source, open_sources
from daybreak.data.documents import PLAIN, Fields, Tally
from daybreak.data.inputs import Input, file_input, file_inputs


def texts_of(each: Input) -> list[str]:
    return ["".join(document.pieces) for document in each.read(Tally())]


def write_many(folder: Path, count: int, size: int) -> list[Path]:
    paths = [folder / f"{number:03}.txt" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_text(f"{number} ".ljust(size, "x"))
    return paths


def test_an_input_is_small_and_can_be_sent_to_another_process(tmp_path: Path) -> None:
    write_many(tmp_path, 3, 10)
    for source in open_sources([str(tmp_path), "zero-one"], Fields("body", ("ArXiv",))):
        for each in source.inputs:
            sent = pickle.dumps(each)
            assert len(sent) < 2000
            assert pickle.loads(sent) == each  # noqa: S301


def test_the_identity_changes_with_content_time_and_options_and_with_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    first = file_input(path, PLAIN).identity()
    assert json.loads(json.dumps(first)) == first
    assert file_input(path, PLAIN).identity() == first
    changed = [file_input(path, Fields("body")).identity(), file_input(path, Fields(components=("a",))).identity()]
    os.utime(path, ns=(0, 0))
    changed.append(file_input(path, PLAIN).identity())
    path.write_text("longer")
    changed.append(file_input(path, PLAIN).identity())
    assert len({json.dumps(identity, sort_keys=True) for identity in [first, *changed]}) == 5


def test_small_files_are_bundled_in_order_and_large_ones_stand_alone(tmp_path: Path) -> None:
    paths = write_many(tmp_path, 40, 300_000)
    (tmp_path / "020.txt").write_text("y" * 5_000_000)
    inputs = file_inputs(paths, PLAIN)
    assert len(inputs) == 5
    assert [text.split()[0][:3] for each in inputs for text in texts_of(each)] == [
        "yyy" if number == 20 else str(number) for number in range(40)
    ]
    assert sum(each.size or 0 for each in inputs) == 39 * 300_000 + 5_000_000
    assert len({json.dumps(each.identity()) for each in inputs}) == 5


def test_files_of_every_kind_are_found_in_a_folder(tmp_path: Path) -> None:
    names = ["a.csv", "a.html", "a.jsonl", "a.parquet", "a.tar.gz", "a.tsv.xz", "a.txt", "a.warc.gz", "a.zip"]
    for name in [*names, "a.png", "a.7z", "a.gz.bin"]:
        (tmp_path / name).write_text("x")
    (bundle,) = open_source(str(tmp_path)).inputs
    assert [Path(each["path"]).name for each in bundle.identity()["inputs"]] == names


@pytest.mark.parametrize(
    ("content", "kind", "texts"),
    [
        (b'{"text": "one"}\n{"text": "two"}\n', "JSONL", ["one", "two"]),
        (b'\xef\xbb\xbf{"text": "one"}', "JSONL", ["one"]),
        (b'{"not": json}\n', "text", ['{"not": json}\n']),
        (b'["a", "list"]\n', "text", ['["a", "list"]\n']),
        ("Täglich\nneu".encode(), "text", ["Täglich\nneu"]),
        (b"", "text", []),
    ],
)
def test_standard_input_is_jsonl_if_its_first_line_is_an_object(
    content: bytes, kind: str, texts: list[str], tmp_path: Path
) -> None:
    """It can be read again, is known by its content, and leaves nothing behind."""
    program = (
        "import json; from daybreak.data.corpora import open_source; from daybreak.data.documents import Tally\n"
        "(each,) = open_source('-').inputs\n"
        "read = lambda: [''.join(document.pieces) for document in each.read(Tally())]\n"
        "print(json.dumps([read(), read(), each.identity()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=content,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    first, again, identity = json.loads(done.stdout)
    assert first == again == texts
    assert identity["sha256"] == hashlib.sha256(content).hexdigest()
    assert "path" not in identity
    assert f"read as {kind}".encode() in done.stderr
    assert list(tmp_path.iterdir()) == []
