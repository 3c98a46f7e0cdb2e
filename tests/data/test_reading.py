"""What a run reads: the corpora that a recipe names, opened, and refused where they do not fit together."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daybreak.data.hashing import Words
from daybreak.data.mixture import MixtureOrder, MixtureSource
from daybreak.data.order import Order
from daybreak.data.prepare import prepare
from daybreak.data.reading import DataConfig, Reading
from daybreak.data.shards import Corpus
from daybreak.data.windows import IGNORED, JoinedWindows, WindowRows, Windows
from daybreak.errors import UserError
from daybreak.recipe import Recipe


def make_corpus(folder: Path, *, characters: int = 400, tokenizer: str = "bytes") -> Corpus:
    """Letters of their own for each name, a tenth of them to validate on."""
    text = folder.with_suffix(".txt")
    text.write_text("".join(random.Random(folder.name).choices("abcdefghijklmnop ", k=characters)))
    return prepare([str(text)], folder, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three corpora; 90 % of their characters and an end-of-text to train on, in windows of 16."""
    path = tmp_path_factory.mktemp("corpora")
    for name, characters in (("a", 400), ("b", 200), ("c", 100)):
        make_corpus(path / name, characters=characters)
    return path


def mixture(*sources: dict[str, Any], **settings: Any) -> DataConfig:
    return DataConfig(mixture=tuple(MixtureSource(**source) for source in sources), window=16, **settings)


def test_the_windows_of_a_mixture_are_those_of_its_corpora_one_behind_the_other(folder: Path) -> None:
    data = mixture({"corpus": "a"}, {"corpus": "b", "epochs": 0.5}, {"corpus": "c", "epochs": 3}).given(folder)
    reading = Reading.open(data)
    sizes = [22, 11, 5]  # 361, 181 and 91 tokens
    windows = reading.windows
    assert (len(windows), windows.window) == (sum(sizes), 16)
    numbers = random.Random(0).sample(range(38), 38)
    read = windows.read(np.asarray(numbers, dtype=np.uint64))
    texts = [(folder / f"{name}.txt").read_bytes() for name in "abc"]
    tokens = [[256, *text[: len(text) * 9 // 10]] for text in texts]
    expected = [tokens[name][16 * index : 16 * index + 17] for name, size in enumerate(sizes) for index in range(size)]
    assert read.inputs.tolist() == [expected[number][:-1] for number in numbers]
    assert read.targets.tolist() == [expected[number][1:] for number in numbers]
    order = reading.order(seed=3)
    assert order == MixtureOrder((22, 11, 5), (22, 6, 15), 3)
    assert (reading.pass_windows, reading.pass_tokens) == (43, 43 * 16)
    assert reading.validation_tokens == 3 + 40 + 20 + 10


def test_one_corpus_is_read_in_the_order_that_it_always_had(folder: Path) -> None:
    reading = Reading.open(DataConfig(corpus=str(folder / "a"), window=16))
    assert reading.order(seed=3) == Order(22, 3)
    assert (reading.pass_windows, reading.pass_tokens, reading.names) == (22, 361, ("a",))
    assert reading.described() == {"corpus": Corpus.open(folder / "a").identity}


def test_what_was_read_is_described_by_hashes_and_quotas(folder: Path) -> None:
    reading = Reading.open(mixture({"corpus": "c", "share": 1}, {"corpus": "a", "share": 2}).given(folder))
    identities = {name: Corpus.open(folder / name).identity for name in "ac"}
    assert reading.described() == {
        "mixture": [
            {"corpus": "c", "identity": identities["c"], "windows": 5, "of": 5},
            {"corpus": "a", "identity": identities["a"], "windows": 10, "of": 22},
        ]
    }


def test_a_folder_is_where_a_mixture_lies_and_a_corpus_takes_its_place(folder: Path) -> None:
    shipped = mixture({"corpus": "a"}, {"corpus": "b", "epochs": 0.5})
    there = shipped.given(folder)
    assert there.places == (str(folder / "a"), str(folder / "b"))
    assert [source.epochs for source in there.mixture] == [1.0, 0.5]
    assert there.given(folder).places == there.places  # by their names, wherever they lay
    assert shipped.given(folder / "c") == DataConfig(corpus=str(folder / "c"), window=16)


def test_corpora_of_one_name_are_told_apart_by_their_paths(folder: Path, tmp_path: Path) -> None:
    other = prepare([str(folder / "b.txt"), str(folder / "c.txt")], tmp_path / "a", tokenizer="bytes")
    data = mixture({"corpus": str(folder / "a")}, {"corpus": str(other.path)})
    assert Reading.open(data).names == (str(folder / "a"), str(tmp_path / "a"))
    with pytest.raises(UserError, match="two corpora named a"):
        data.given(folder)


def refusal(data: DataConfig) -> str:
    with pytest.raises(UserError) as refused:
        _ = Reading.open(data).pass_windows
    return str(refused.value)


def test_corpora_that_do_not_fit_together_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    a = {"corpus": str(folder / "a")}
    make_corpus(tmp_path / "chars", tokenizer="chars")
    message = refusal(mixture(a, {"corpus": str(tmp_path / "chars")}))
    assert f"{folder / 'a'} was prepared with bytes" in message
    assert f"{tmp_path / 'chars'} with another (chars)" in message

    (tmp_path / "again").symlink_to(folder / "a")
    message = refusal(mixture(a, {"corpus": str(tmp_path / "again")}))
    assert f"{folder / 'a'} and {tmp_path / 'again'} are the same corpus" in message

    message = refusal(mixture(a, {"corpus": "nowhere"}))
    assert "nowhere, of data.mixture, is not a corpus" in message
    assert "--data FOLDER" in message

    make_corpus(tmp_path / "short", characters=12)
    assert f"{tmp_path / 'short'} has 11 tokens" in refusal(mixture(a, {"corpus": str(tmp_path / "short")}))
    assert f"{tmp_path / 'short'} has 11 tokens" in refusal(DataConfig(corpus=str(tmp_path / "short"), window=16))
    assert "give --data" in refusal(DataConfig(window=16))


def test_a_damaged_corpus_of_a_mixture_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "corpora")
    shard = tmp_path / "corpora" / "b" / "train-00000.bin"
    content = bytearray(shard.read_bytes())
    content[10] ^= 1
    shard.write_bytes(content)
    data = mixture({"corpus": "a"}, {"corpus": "b"}).given(tmp_path / "corpora")
    assert str(shard) in refusal(data)
    assert Reading.open(data, Corpus.open_unverified).pass_windows == 33


@pytest.mark.parametrize(
    ("sources", "named"),
    [
        ("[{corpus='a', epochs=1, share=1}]", "data.mixture: a has both epochs and share"),
        ("[{corpus='a', epochs=0}]", "data.mixture.0.epochs = 0: input should be greater than 0"),
        ("[{corpus='a', share=-1}]", "data.mixture.0.share = -1: input should be greater than 0"),
        ("[{corpus='a', share=1}, {corpus='b', epochs=1}]", "data.mixture: a has a share, b epochs"),
        ("[{corpus='a', share=1}, {corpus='b'}]", "data.mixture: a has a share, b epochs"),
        ("[{corpus='a'}, {corpus='b'}, {corpus='a'}]", "data.mixture: the corpus a is in it twice"),
        ("[{epochs=1}]", "data.mixture.0.corpus is missing"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused_with_its_fields(sources: str, named: str) -> None:
    with pytest.raises(UserError) as refused:
        Recipe.load("gpt2-tiny", f"data.mixture={sources}")
    assert named in str(refused.value)


def test_one_epoch_is_what_a_corpus_without_an_amount_gives() -> None:
    recipe = Recipe.load("gpt2-tiny", "data.mixture=[{corpus='a'}, {corpus='b', epochs=0.5}]")
    assert [(source.epochs, source.share) for source in recipe.data.mixture] == [(1.0, None), (0.5, None)]


def test_the_fingerprint_knows_amounts_and_not_places(folder: Path) -> None:
    recipe = Recipe.load("gpt-star-127m")
    assert recipe.with_data(folder).data.places[0] == str(folder / "openwebtext")
    assert recipe.with_data(folder).fingerprint == recipe.fingerprint
    less = [{"corpus": source.corpus, "epochs": 1} for source in recipe.data.mixture]
    content = recipe.model_dump(mode="json")
    content["data"]["mixture"] = less
    assert Recipe.model_validate(content).fingerprint != recipe.fingerprint


class OneTarget(Windows):
    """Stands for windows of another kind: of each row the last target alone is real."""

    window = 4

    def __len__(self) -> int:
        return 2

    def read(self, numbers: Words) -> WindowRows:
        inputs = np.full((len(numbers), 4), 9) + numbers[:, None].astype(np.int64)
        targets = np.where(np.arange(4) == 3, inputs, IGNORED)
        return WindowRows(inputs, targets)


def test_windows_of_any_kind_are_joined_as_they_are() -> None:
    read = JoinedWindows([OneTarget(), OneTarget()]).read(np.asarray([3, 0, 2], dtype=np.uint64))
    assert read.inputs.tolist() == [[10] * 4, [9] * 4, [9] * 4]
    assert read.targets.tolist() == [[IGNORED] * 3 + [last] for last in (10, 9, 9)]
