"""Duplicates: planted ones are found, by the similarity that sets of words themselves have."""

import random
from pathlib import Path

import numpy as np
import pytest

from daybreak.data.deduplicate import SHINGLE, Sketched, duplicates_of_block, find_duplicates, keys_of, sketches_of
from daybreak.data.words import words_of


def made(generator: random.Random, words: int) -> list[str]:
    return [f"w{generator.randrange(20_000)}" for _ in range(words)]


def runs(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + SHINGLE]) for start in range(len(words) - SHINGLE + 1)}


def similarity(one: list[str], other: list[str]) -> float:
    """Jaccard's, of the sets themselves."""
    return len(runs(one) & runs(other)) / len(runs(one) | runs(other))


def altered(words: list[str], generator: random.Random, least: float) -> list[str]:
    """A copy in which words are replaced as long as the similarity is at least that."""
    copy = list(words)
    while True:
        attempt = list(copy)
        attempt[generator.randrange(len(attempt))] = f"x{generator.randrange(10**9)}"
        if similarity(words, attempt) < least:
            return copy
        copy = attempt


def find(
    texts: list[str], folder: Path, *, sizes: tuple[int, ...] = (), near: bool = True, parts: int = 3
) -> dict[int, tuple[int, bool]]:
    """By document: its original, and whether it is a copy."""
    from hashlib import blake2b

    blocks, first = [], 0
    for number, size in enumerate(sizes or (len(texts),)):
        some = texts[first : first + size]
        words = [words_of(text).hashes if near else np.empty(0, dtype=np.uint64) for text in some]
        found = sketches_of([blake2b(text.encode(), digest_size=16).digest() for text in some], words)
        block = Sketched(folder / f"{number}.sketches", folder / f"{number}.keys", first)
        found.tofile(block.sketches)
        keys_of(found, "near" if near else "exact").tofile(block.keys)
        blocks.append(block)
        first += size
    every = [find_duplicates(blocks, part, parts)[0] for part in range(parts)]
    return {
        int(each["document"]): (int(each["original"]), bool(each["exact"]))
        for each in duplicates_of_block(every, 0, len(texts))
    }


@pytest.fixture(scope="module")
def planted() -> tuple[list[str], dict[int, int], dict[int, int]]:
    """2,400 unrelated texts; behind them 300 copies and 300 of similarity 0.8 to 0.82, with their originals."""
    generator = random.Random(0)
    words = [made(generator, generator.randrange(60, 300)) for _ in range(2400)]
    texts = [" ".join(each) for each in words]
    copies, near = {}, {}
    for number in range(600):
        original = generator.randrange(2400)
        (copies if number < 300 else near)[len(texts)] = original
        texts.append(texts[original] if number < 300 else " ".join(altered(words[original], generator, 0.8)))
    return texts, copies, near


def test_planted_duplicates_are_found_and_others_are_not(
    planted: tuple[list[str], dict[int, int], dict[int, int]], tmp_path: Path
) -> None:
    texts, copies, near = planted
    found = find(texts, tmp_path, sizes=(700, 1, 1299, 1000))
    assert {number: (original, True) for number, original in copies.items()}.items() <= found.items()
    recall = sum(found.get(number, (-1,))[0] == original for number, original in near.items()) / len(near)
    assert recall >= 0.95
    lost = [number for number in found if number < 2400]
    assert len(lost) <= 0.005 * 2400


def test_what_is_found_depends_neither_on_blocks_nor_on_parts(
    planted: tuple[list[str], dict[int, int], dict[int, int]], tmp_path: Path
) -> None:
    texts = planted[0]
    ways = [((len(texts),), 1), ((1, 999, 2000), 7), ((1500, 1500), 16)]
    found = []
    for number, (sizes, parts) in enumerate(ways):
        (tmp_path / str(number)).mkdir()
        found.append(find(texts, tmp_path / str(number), sizes=sizes, parts=parts))
    assert found[0] == found[1] == found[2]


def test_only_copies_are_found_where_only_they_are_looked_for(
    planted: tuple[list[str], dict[int, int], dict[int, int]], tmp_path: Path
) -> None:
    texts, copies, _ = planted
    assert find(texts, tmp_path, near=False) == {number: (original, True) for number, original in copies.items()}


def test_many_of_one_kind_leave_the_first(tmp_path: Path) -> None:
    texts = ["one and the same text, said again and again and again, in so many words"] * 500
    assert find(texts, tmp_path) == dict.fromkeys(range(1, 500), (0, True))


def test_texts_without_words_are_compared_as_a_whole(tmp_path: Path) -> None:
    assert find(["...", "!!!", "...", ""], tmp_path) == {2: (0, True)}
