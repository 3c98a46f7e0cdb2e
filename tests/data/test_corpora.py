"""Named corpora: what is in them, and the entropy of the one whose entropy is known."""

import hashlib
import json
import math
import re
import sysconfig
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

import pytest

from daybreak.data import corpora
from daybreak.data.corpora import Source, open_source, open_sources, settle
from daybreak.data.documents import Document, Fields, Tally
from daybreak.data.inputs import NAMED_CORPORA
from daybreak.data.wikitext import WikitextInput
from daybreak.errors import UserError


def text_of(document: Document) -> str:
    return "".join(document.pieces)


def documents_of(sources: Sequence[Source], tally: Tally) -> Iterator[Document]:
    return (document for source in sources for one in source.inputs for document in one.read(tally))


def read(name: str) -> Iterator[Document]:
    return documents_of([open_source(name)], Tally())


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file here has the name of a corpus."""
    monkeypatch.chdir(tmp_path)


def test_zero_one_has_10000_documents_of_1000_words_in_the_stated_proportion() -> None:
    ones = documents = 0
    for document in read("zero-one"):
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
    for document in islice(read("zero-one"), 300):
        words = text_of(document).split()
        pairs.update(before + after for before, after in pairwise(words))
    total = pairs.total()
    for pair, probability in {"00": 1 / 9, "01": 2 / 9, "10": 2 / 9, "11": 4 / 9}.items():
        assert pairs[pair] / total == pytest.approx(probability, abs=0.004)


def test_zero_one_is_the_same_each_time_and_its_documents_differ() -> None:
    source = open_source("zero-one")
    first, again = ([text_of(document) for document in islice(documents_of([source], Tally()), 20)] for _ in range(2))
    assert first == again
    assert len(set(first)) == 20


def test_zero_one_never_changes() -> None:
    (document,) = islice(read("zero-one"), 1)
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
    origins = [Path(document.origin) for document in read("stdlib")]
    folder = Path(sysconfig.get_path("stdlib"))
    names = {origin.relative_to(folder).as_posix() for origin in origins}
    assert {"os.py", "random.py", "json/decoder.py", "asyncio/tasks.py"} <= names
    assert not any("site-packages" in name or "/test" in name or name.startswith("test/") for name in names)
    assert len(origins) == len(names) > 200


def test_stdlib_documents_are_the_files() -> None:
    texts = {Path(document.origin).name: text_of(document) for document in islice(read("stdlib"), 40)}
    folder = Path(sysconfig.get_path("stdlib"))
    assert texts["abc.py"] == (folder / "abc.py").read_bytes().decode("utf-8")


def test_shakespeare_comes_verified_from_the_cache(
    test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAYBREAK_CACHE", str(tmp_path))
    (tmp_path / "tinyshakespeare.txt").write_bytes((test_data / "tinyshakespeare/input.txt").read_bytes())
    (text,) = [text_of(document) for document in read("shakespeare")]
    assert len(text) == 1_115_394
    assert len(set(text)) == 65


def test_a_file_in_the_way_is_meant_rather_than_the_named_corpus(tmp_path: Path) -> None:
    (tmp_path / "zero-one").write_text("my own zeros and ones")
    assert [text_of(document) for document in read("zero-one")] == ["my own zeros and ones"]


def test_a_source_can_be_read_as_often_as_needed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "one"}) + "\n" + json.dumps({"text": "two"}))
    source = open_source("a.jsonl")
    texts = [[text_of(document) for document in documents_of([source], Tally())] for _ in range(3)]
    assert texts == [["one", "two"]] * 3


def test_sources_keep_the_order_they_were_given_in(tmp_path: Path) -> None:
    for name in "ba":
        (tmp_path / f"{name}.txt").write_text(name)
    assert [source.name for source in open_sources(["b.txt", "zero-one", "a.txt"])] == ["b.txt", "zero-one", "a.txt"]


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"'shakespear'.*stdlib, zero-one, shakespeare"):
        open_source("shakespear")


def test_the_mixture_says_of_what_it_is_made() -> None:
    with pytest.raises(UserError, match=r"openwebtext, and bookcorpus2, books3, philpapers and openwebtext2"):
        open_source("webtext++")


def test_the_names_in_messages_are_those_that_can_be_opened() -> None:
    assert set(NAMED_CORPORA) == set(corpora._NAMED)


def write_zip(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)


@pytest.mark.parametrize("name", ["enwik8", "text8"])
def test_a_zipped_corpus_is_read_from_its_archive(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small archive in place of the download, of which name, size and hash are taken as stated."""
    stated = []

    def downloaded(url: str, file: str, *, size: int, sha256: str) -> Path:
        stated.append((url, file, len(sha256)))
        write_zip(tmp_path / file, name, b"anarchism originated as a term of abuse")
        return tmp_path / file

    monkeypatch.setattr(corpora, "download", downloaded)
    assert [text_of(document) for document in read(name)] == ["anarchism originated as a term of abuse"]
    assert stated == [(f"http://mattmahoney.net/dc/{name}.zip", f"{name}.zip", 64)]


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("wikitext", "Salesforce/wikitext:wikitext-103-raw-v1"),
        ("openwebtext", "Skylion007/openwebtext:plain_text"),
        ("fineweb-edu", "HuggingFaceFW/fineweb-edu:sample-10BT"),
    ],
)
def test_corpora_of_the_hub_are_pinned_to_a_commit(name: str, repository: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(corpora, "open_hub", lambda source, fields: opened.append(source) or ())
    open_source(name)
    assert re.fullmatch(f"hub:{repository}@[0-9a-f]{{40}}", opened[0])


def test_a_component_that_no_record_has_is_an_error_that_lists_those_there_are(tmp_path: Path) -> None:
    for file, component in {"a.jsonl": "ArXiv", "b.jsonl": "Books3"}.items():
        (tmp_path / file).write_text(json.dumps({"text": "x", "meta": {"pile_set_name": component}}) + "\n")
    for wanted, missing in {("ArXiv", "Books3"): False, ("ArXiv", "Books4"): True}.items():
        tally, fields = Tally(), Fields(components=wanted)
        sources = open_sources(["a.jsonl", "b.jsonl"], fields)
        assert len(list(documents_of(sources, tally))) == 2 - missing
        if missing:
            with pytest.raises(UserError, match=r"'Books4'; components that were seen: ArXiv, Books3"):
                settle(tally, fields)
        else:
            settle(tally, fields)


def test_what_was_passed_over_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text('{"text": ""}\n{"text": "x"}\n' * 600)
    tally = Tally()
    assert len(list(documents_of(open_sources(["a.jsonl", "b.jsonl"]), tally))) == 1200
    settle(tally, Fields())
    assert capsys.readouterr().err == "passed over: 1,200 records without text\n"


def test_wikitext_is_read_by_article(test_data: Path, tmp_path: Path) -> None:
    """The validation split has 60 articles (arXiv 1609.07843), whose lines are joined again."""
    raw = (test_data / "wikitext103/wiki.valid.tokens").read_text(encoding="utf-8")
    lines = ["" if line == " \n" else line for line in raw.splitlines(keepends=True)]
    half = len(lines) // 2
    for name, part in {"a": lines[:half], "b": lines[half:]}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in part))
    inputs = open_source("*.jsonl").inputs
    articles = [text_of(document) for document in WikitextInput("wikitext", None, inputs).read(Tally())]
    assert len(articles) == 60
    assert articles[0].startswith(" = Homarus gammarus = \n")
    assert "".join(articles) == "".join(lines)


def test_a_url_must_state_what_it_is(tmp_path: Path) -> None:
    for url in (
        "https://example.org/a.txt",
        "https://example.org/a.txt#sha256=abc&size=3",
        "http://example.org/#size=3",
    ):
        with pytest.raises(UserError, match=r"add #sha256=HEX&size=BYTES"):
            open_source(url)
