"""Text -> corpus: what is asked for, checked, and made by the stages of `pipeline`."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from daybreak.data.asked import Asked
from daybreak.data.clean import Cleaning
from daybreak.data.corpora import open_sources
from daybreak.data.deduplicate import Duplicates
from daybreak.data.documents import PLAIN, Fields
from daybreak.data.inputs import find_files
from daybreak.data.pipeline import make
from daybreak.data.shards import Corpus
from daybreak.data.tokenizer import is_learned, make_tokenizer
from daybreak.errors import UserError
from daybreak.executor import Workers
from daybreak.files import locked, read_sealed, require_space, require_text, space_errors
from daybreak.progress import human_bytes, say

_COMPRESSION = {".gz": 3.5, ".xz": 4.5, ".bz2": 4.5, ".zst": 4.0, ".tgz": 3.5, ".zip": 3.5, ".parquet": 2.5}
_WORTH_SAYING = 1_000_000_000  # bytes
_WORTH_KEEPING = 30.0  # seconds of work
_SHARE_OF_TOKENS = 0.6  # bytes of tokens for each of text, at most, but for bytes and characters


def prepare(
    names: Sequence[str],
    out: Path,
    *,
    tokenizer: str = "gpt2",
    validation: float = 0.1,
    cleaning: Cleaning | None = None,
    duplicates: Duplicates = "none",
    against: Sequence[str] = (),
    rejects: Path | None = None,
    fields: Fields = PLAIN,
    workers: Workers | None = None,
) -> Corpus:
    """Make a corpus of named corpora, files, folders and globs; called again after a stop, it goes on where it was.

    Args:
        names: what to read, in this order.
        out: the folder to make; it appears only when it is whole.
        tokenizer: `bytes`, `chars`, `gpt2`, `bpe:SIZE`, or the path of a tokenizer or corpus.
        validation: share of the documents kept for validation, between 0 and 1; of the
            characters where there is only one document.
        cleaning: how documents are mended, and which are dropped; nothing of the kind unless given.
        duplicates: which are dropped: `none`, `exact` copies of an earlier document, or `near` ones too.
        against: files of evaluation sets; documents that share 13 words in a row with one are dropped.
        rejects: a file to keep what is dropped, a line of JSON each.
        fields: which fields of records are read.
        workers: who does the work; this process alone unless given. Several need Python's usual guard,
            `if __name__ == "__main__"`.

    Raises:
        UserError: a source is missing, unreadable or empty; `out` exists; no space.
    """
    if not 0 < validation < 1:
        raise UserError(f"--val {validation:g} is no share: it must lie between 0 and 1, as 0.1")
    require_text(out)
    known = None if is_learned(tokenizer) else make_tokenizer(tokenizer, iter(()))
    if known is None and cleaning is not None and cleaning.tokens_per_character is not None:
        raise UserError(f"tokens a character cannot be counted by {tokenizer}, which is learned from what is left")
    asked = Asked(
        sources=open_sources(names, fields),
        tokenizer=tokenizer,
        known_tokenizer=known,
        fields=fields,
        validation=validation,
        cleaning=cleaning or Cleaning(),
        duplicates=duplicates,
        against=tuple(find_files(against)) if against else (),
        rejects=rejects,
        out=out.absolute(),
        workers=workers or Workers(),
    )
    if out.exists():
        _require_same(asked)
        say(f"{out} is there already, made of the same")
        shutil.rmtree(asked.work, ignore_errors=True)
        return Corpus.open(out)
    began = time.monotonic()
    with locked(asked.work):
        if any(asked.work.glob("*/*.json")):
            say(f"going on with what lies in {asked.work}")
        else:
            _require_disk(asked)
        try:
            with space_errors(asked.work):
                make(asked)
        except BaseException:
            _tidy_up(asked, time.monotonic() - began)
            raise
    shutil.rmtree(asked.work, ignore_errors=True)
    return Corpus.open(out)


def _tidy_up(asked: Asked, seconds: float) -> None:
    """Leave what is worth going on with, and nothing else."""
    if seconds >= _WORTH_KEEPING:
        say(f"what was done is kept in {asked.work}; the same command goes on from there")
        return
    for path in asked.work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def _require_same(asked: Asked) -> None:
    manifest = asked.out / "manifest.json"
    if not manifest.is_file() or read_sealed(manifest).get("plan") != asked.identity:
        raise UserError(f"{asked.out} exists already; choose another --out, or delete it to prepare it again")


def _require_disk(asked: Asked) -> None:
    """Say what disk will be needed, and see that it is there."""
    sizes = [(one.size, Path(one.name)) for source in asked.sources for one in source.inputs]
    text = sum(_text_bytes(size, path) for size, path in sizes if size is not None)
    copies = 2 if asked.cleans else 1
    tokens = 1.0 if asked.tokenizer in ("bytes", "chars") else _SHARE_OF_TOKENS
    needed = int(text * (copies + 2 * tokens))
    if any(size is None for size, _ in sizes):
        say("how much disk is needed is not known: an input does not tell its size")
    elif needed > _WORTH_SAYING:
        say(f"about {human_bytes(needed)} of disk are needed, most of it only until the corpus is whole")
    require_space(asked.work, needed)


def _text_bytes(size: int, path: Path) -> float:
    """About how much text a file holds."""
    return size * _COMPRESSION.get(path.suffix.lower(), 1.0)
