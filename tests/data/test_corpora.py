"""Named corpora: what is in them, and the entropy of the one whose entropy is known."""

import hashlib
import json
import math
import re
import sysconfig
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

import pytest

from daybreak.data import corpora
from daybreak.data.corpora import open_source, open_sources
from daybreak.data.documents import Document
from daybreak.errors import UserError


def text_of(document: Document) -> str:
    return "".join(document.pieces)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file here has the name of a corpus."""
    monkeypatch.chdir(tmp_path)


def test_zero_one_has_10000_documents_of_1000_words_in_the_stated_proportion() -> None:
    ones = documents = 0
    for document in open_source("zero-one").read():
        text = text_of(document)
        assert len(text) == 1999
        ones += text.count("1")
        documents += 1
        if documents <= 100:
            assert re.fullmatch("[01]( [01]){999}", text)
    words = documents * 1000
    assert documents == 10_000
    assert abs(ones / words - 2 / 3) < 5 * math.sqrt(2 / 9 / words)  # five standard deviations


def test_zero_one_words_are_independent_of_one_another() -> None:
    pairs: Counter[str] = Counter()
    for document in islice(open_source("zero-one").read(), 300):
        words = text_of(document).split()
        pairs.update(before + after for before, after in pairwise(words))
    total = pairs.total()
    for pair, probability in {"00": 1 / 9, "01": 2 / 9, "10": 2 / 9, "11": 4 / 9}.items():
        assert pairs[pair] / total == pytest.approx(probability, abs=0.004)


def test_zero_one_is_the_same_each_time_and_its_documents_differ() -> None:
    source = open_source("zero-one")
    first, again = ([text_of(document) for document in islice(source.read(), 20)] for _ in range(2))
    assert first == again
    assert len(set(first)) == 20


def test_zero_one_never_changes() -> None:
    (document,) = islice(open_source("zero-one").read(), 1)
    assert hashlib.sha256(text_of(document).encode()).hexdigest()[:16] == "9ec37ee40cebe878"


def test_the_entropies_of_zero_one_are_those_its_docstring_states() -> None:
    """The loss of the best model, from the probabilities of a thousand words and the end of the document."""
    one, zero, words = 2 / 3, 1 / 3, 1000
    word = -one * math.log(one) - zero * math.log(zero)
    end = 1 / (words + 1)
    whole_document = -words * (math.log(1 - end)) + words * word - math.log(end)
    stated = {float(number) for number in re.findall(r"0\.6[0-9]{3}", corpora.__doc__ or "")}
    assert stated == {round(word, 4), round(whole_document / (words + 1), 4)} == {0.6365, 0.6438}


def test_stdlib_is_the_source_of_the_library_without_its_tests() -> None:
    origins = [Path(document.origin) for document in open_source("stdlib").read()]
    folder = Path(sysconfig.get_path("stdlib"))
    names = {origin.relative_to(folder).as_posix() for origin in origins}
    assert {"os.py", "random.py", "json/decoder.py", "asyncio/tasks.py"} <= names
    assert not any("site-packages" in name or "/test" in name or name.startswith("test/") for name in names)
    assert len(origins) == len(names) > 200


def test_stdlib_documents_are_the_files() -> None:
    texts = {Path(document.origin).name: text_of(document) for document in islice(open_source("stdlib").read(), 40)}
    folder = Path(sysconfig.get_path("stdlib"))
    assert texts["abc.py"] == (folder / "abc.py").read_bytes().decode("utf-8")


def test_shakespeare_comes_verified_from_the_cache(
    test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAYBREAK_CACHE", str(tmp_path))
    (tmp_path / "tinyshakespeare.txt").write_bytes((test_data / "tinyshakespeare/input.txt").read_bytes())
    (text,) = [text_of(document) for document in open_source("shakespeare").read()]
    assert len(text) == 1_115_394
    assert len(set(text)) == 65


def test_a_file_in_the_way_is_meant_rather_than_the_named_corpus(tmp_path: Path) -> None:
    (tmp_path / "zero-one").write_text("my own zeros and ones")
    assert [text_of(document) for document in open_source("zero-one").read()] == ["my own zeros and ones"]


def test_a_source_can_be_read_as_often_as_needed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "one"}) + "\n" + json.dumps({"text": "two"}))
    source = open_source("a.jsonl")
    assert [[text_of(document) for document in source.read()] for _ in range(3)] == [["one", "two"]] * 3


def test_sources_keep_the_order_they_were_given_in(tmp_path: Path) -> None:
    for name in "ba":
        (tmp_path / f"{name}.txt").write_text(name)
    assert [source.name for source in open_sources(["b.txt", "zero-one", "a.txt"])] == ["b.txt", "zero-one", "a.txt"]


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"'shakespear'.*stdlib, zero-one, shakespeare"):
        open_source("shakespear")
