"""Named corpora: sources that need no path.

`stdlib`: the source text of the Python standard library on this machine, without its tests.

`shakespeare`: tiny Shakespeare, 1,115,394 characters (karpathy/char-rnn), downloaded and verified.

`zero-one`: 10,000 documents of 1000 words, each `0` with probability 1/3 or `1` with probability
2/3, from a fixed seed. Its entropy is (1/3) ln 3 + (2/3) ln (3/2) = 0.6365 nats a word. A model that
also has to foresee the end of a document, which it cannot tell from the words, pays for that hazard of
1 in 1001 tokens: (1000/1001) · 0.6365 + H(1/1001) = 0.6438 nats a token. No model does better.
"""

import random
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from daybreak.data.documents import Document, find_files, read_documents
from daybreak.data.download import download

_ZERO_ONE_DOCUMENTS = 10_000
_ZERO_ONE_WORDS = 1_000
_ZERO_ONE_SEED = 0


@final
@dataclass(frozen=True)
class Source:
    """Documents that can be read as often as needed, in the same order each time."""

    name: str
    read: Callable[[], Iterator[Document]]


def open_source(name: str) -> Source:
    """A named corpus, or the files that a path, folder or glob stands for.

    Raises:
        UserError: nothing has this name, or a download failed.
    """
    named = _NAMED.get(name)
    if named is not None and not Path(name).exists():
        return Source(name, named())
    files = find_files([name])
    return Source(name, lambda: read_documents(files))


def _stdlib() -> Callable[[], Iterator[Document]]:
    folder = Path(sysconfig.get_path("stdlib"))
    left_out = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
    files = [path for path in sorted(folder.rglob("*.py")) if not left_out & set(path.relative_to(folder).parts)]
    return lambda: read_documents(files)


def _shakespeare() -> Callable[[], Iterator[Document]]:
    path = download(
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "tinyshakespeare.txt",
        size=1_115_394,
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    )
    return lambda: read_documents([path])


def _zero_one() -> Callable[[], Iterator[Document]]:
    return lambda: _zero_one_documents(_ZERO_ONE_DOCUMENTS, _ZERO_ONE_WORDS)


def _zero_one_documents(documents: int, words: int) -> Iterator[Document]:
    generator = random.Random(_ZERO_ONE_SEED)
    for number in range(documents):
        text = " ".join("1" if generator.random() < 2 / 3 else "0" for _ in range(words))
        yield Document(f"zero-one:{number}", iter([text]))


_NAMED: dict[str, Callable[[], Callable[[], Iterator[Document]]]] = {
    "stdlib": _stdlib,
    "shakespeare": _shakespeare,
    "zero-one": _zero_one,
}


def open_sources(names: Sequence[str]) -> list[Source]:
    """Each of `names`, by `open_source`."""
    return [open_source(name) for name in names]
