"""Sources: named corpora, and all else that can be named on the command line.

`stdlib`: the source text of the Python standard library on this machine, without its tests.

`zero-one`: 10,000 documents of 1000 words, each `0` with probability 1/3 or `1` with probability
2/3, from a fixed seed. Its entropy is (1/3) ln 3 + (2/3) ln (3/2) = 0.6365 nats a word. A model that
also has to foresee the end of a document, which it cannot tell from the words, pays for that hazard of
1 in 1001 tokens: (1000/1001) · 0.6365 + H(1/1001) = 0.6438 nats a token. No model does better.

`shakespeare`: tiny Shakespeare, 1,115,394 characters (karpathy/char-rnn), downloaded and verified.

`enwik8`, `text8`: the first 100 MB of a dump of Wikipedia of 2006, and of its plain text in 27
characters (mattmahoney.net/dc/textdata.html), downloaded and verified.

`wikitext`: WikiText-103, raw, by article. `openwebtext`: 8,013,769 documents. `fineweb-edu`: its sample
of ten billion tokens. These three are streamed from the Hugging Face hub, each at a fixed commit.
"""

import random
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from daybreak.data.documents import PLAIN, Document, Fields, Tally
from daybreak.data.download import download, download_stated
from daybreak.data.hub import PREFIX, open_hub
from daybreak.data.inputs import FileInput, Input, file_input, file_inputs, files_of, find_files, standard_input
from daybreak.data.wikitext import WikitextInput
from daybreak.errors import UserError
from daybreak.progress import say

_ZERO_ONE_DOCUMENTS = 10_000
_ZERO_ONE_WORDS = 1_000
_ZERO_ONE_SEED = 0


@final
@dataclass(frozen=True)
class Source:
    """What one name on the command line stands for: inputs in a fixed order."""

    name: str
    inputs: tuple[Input, ...]


def open_sources(names: Sequence[str], fields: Fields = PLAIN) -> list[Source]:
    """Each of `names`, by `open_source`.

    Raises:
        UserError: something would be read twice.
    """
    sources = [open_source(name, fields) for name in names]
    seen: set[str] = set()
    for source in sources:
        for one in (each for bundle in source.inputs for each in files_of(bundle)):
            what = str(one.path.resolve()) if isinstance(one, FileInput) else one.name
            if what in seen:
                raise UserError(f"{what} would be read twice, the second time by {source.name}; give it once")
            seen.add(what)
    return sources


def open_source(name: str, fields: Fields = PLAIN) -> Source:
    """A named corpus; or what a path, folder, glob, URL, data set of the hub, or `-` (standard input) stands for.

    Raises:
        UserError: nothing has this name, or a download failed.
    """
    if name == "webtext++" and not Path(name).exists():
        raise UserError(
            "webtext++ is a mixture: prepare openwebtext, and bookcorpus2, books3, philpapers and openwebtext2 of The "
            "Pile, each with --component and --out FOLDER/NAME; then train the recipe webtext++ --data FOLDER"
        )
    named = _NAMED.get(name)
    if named is not None and not Path(name).exists():
        return Source(name, named())
    if name == "-":
        return Source(name, (standard_input(fields),))
    if name.startswith(PREFIX):
        return Source(name, open_hub(name, fields))
    if name.startswith(("https://", "http://")):
        path, sha256 = download_stated(name)
        return Source(name, (file_input(path, fields, name=name.partition("#")[0], sha256=sha256),))
    return Source(name, file_inputs(find_files([name]), fields))


def settle(tally: Tally, fields: Fields) -> None:
    """Say what all inputs together passed over.

    Raises:
        UserError: a component that was chosen is in none of them.
    """
    missing = [name for name in fields.components if not tally.components[name]]
    if missing:
        seen = ", ".join(sorted(name for name, count in tally.components.items() if count)) or "none"
        raise UserError(
            f"no record has the component {', '.join(map(repr, missing))}; components that were seen: {seen}"
        )
    for what, count in sorted(tally.passed.items()):
        say(f"passed over: {count:,} {what}")


@final
@dataclass(frozen=True)
class ZeroOneInput(Input):
    """Random words whose entropy is known."""

    documents: int
    words: int

    def read(self, tally: Tally) -> Iterator[Document]:
        generator = random.Random(_ZERO_ONE_SEED)
        for number in range(self.documents):
            text = " ".join("1" if generator.random() < 2 / 3 else "0" for _ in range(self.words))
            yield Document(f"zero-one:{number}", iter([text]))

    def identity(self) -> dict[str, Any]:
        return {"corpus": "zero-one", "seed": _ZERO_ONE_SEED, "documents": self.documents, "words": self.words}


def _stdlib() -> tuple[Input, ...]:
    folder = Path(sysconfig.get_path("stdlib"))
    left_out = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
    files = [path for path in sorted(folder.rglob("*.py")) if not left_out & set(path.relative_to(folder).parts)]
    return file_inputs(files, PLAIN)


def _zero_one() -> tuple[Input, ...]:
    return (ZeroOneInput("zero-one", None, _ZERO_ONE_DOCUMENTS, _ZERO_ONE_WORDS),)


def _shakespeare() -> tuple[Input, ...]:
    return _downloaded(
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "tinyshakespeare.txt",
        size=1_115_394,
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    )


def _enwik8() -> tuple[Input, ...]:
    return _downloaded(
        "http://mattmahoney.net/dc/enwik8.zip",
        "enwik8.zip",
        size=36_445_475,
        sha256="547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
    )


def _text8() -> tuple[Input, ...]:
    return _downloaded(
        "http://mattmahoney.net/dc/text8.zip",
        "text8.zip",
        size=31_344_016,
        sha256="a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
    )


def _wikitext() -> tuple[Input, ...]:
    lines = "hub:Salesforce/wikitext:wikitext-103-raw-v1@b08601e04326c79dfdd32d625aee71d232d685c3"
    return (WikitextInput("wikitext", None, open_hub(lines, PLAIN)),)


def _openwebtext() -> tuple[Input, ...]:
    return open_hub("hub:Skylion007/openwebtext:plain_text@79d93d786212f7344586290adb811d4ae6a1762c", PLAIN)


def _fineweb_edu() -> tuple[Input, ...]:
    return open_hub("hub:HuggingFaceFW/fineweb-edu:sample-10BT@87f09149ef4734204d70ed1d046ddc9ca3f2b8f9", PLAIN)


def _downloaded(url: str, name: str, *, size: int, sha256: str) -> tuple[Input, ...]:
    path = download(url, name, size=size, sha256=sha256)
    return (file_input(path, PLAIN, sha256=sha256),)


_NAMED: dict[str, Callable[[], tuple[Input, ...]]] = {
    "stdlib": _stdlib,
    "zero-one": _zero_one,
    "shakespeare": _shakespeare,
    "enwik8": _enwik8,
    "text8": _text8,
    "wikitext": _wikitext,
    "openwebtext": _openwebtext,
    "fineweb-edu": _fineweb_edu,
}
