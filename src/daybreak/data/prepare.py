"""Text -> corpus: what is asked for, checked, and made by the stages of `pipeline`."""

import math
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from daybreak.data.asked import Asked
from daybreak.data.clean import Cleaning
from daybreak.data.compression import suffixes
from daybreak.data.corpora import open_sources
from daybreak.data.deduplicate import Duplicates
from daybreak.data.documents import PLAIN, Fields
from daybreak.data.inputs import FileInput, Input, files_of, find_files
from daybreak.data.pipeline import make
from daybreak.data.shards import Corpus
from daybreak.data.tokenizer import is_learned, make_tokenizer
from daybreak.errors import UserError
from daybreak.executor import Workers
from daybreak.files import locked, read_sealed, require_space, require_text, space_errors
from daybreak.progress import human_bytes, say

_UNPACKED = {".gz": 3.5, ".xz": 4.5, ".bz2": 4.5, ".zst": 4.0, ".zip": 3.5, ".parquet": 2.5}  # times the packed size
_WORTH_SAYING = 1_000_000_000  # bytes
_WORTH_KEEPING = 30.0  # seconds of work


def prepare(
    names: Sequence[str],
    out: Path,
    *,
    tokenizer: str = "gpt2",
    specials: Sequence[str] = (),
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
        tokenizer: `bytes`, `chars`, `gpt2`, `bpe:SIZE`, or the path of a tokenizer, corpus or run.
        specials: special tokens to add to it, which text turns into where it spells their names.
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
    cleaning = cleaning or Cleaning()
    _require_sense(names, tokenizer, validation, cleaning, workers)
    require_text(out)
    known = None if is_learned(tokenizer) else make_tokenizer(tokenizer, iter(()), specials)
    asked = Asked(
        sources=open_sources(names, fields),
        tokenizer=tokenizer,
        known_tokenizer=known,
        specials=tuple(specials),
        fields=fields,
        validation=validation,
        cleaning=cleaning,
        duplicates=duplicates,
        against=tuple(find_files(against)) if against else (),
        rejects=rejects,
        out=out.absolute(),
        workers=workers or Workers(),
    )
    if out.is_symlink() and not out.exists():
        raise UserError(f"{out} is a link that leads nowhere; choose another --out")
    if out.exists():
        _require_same(asked)
        say(f"{out} is there already, made of the same")
        if asked.work.exists():  # by a kill at the very end
            with locked(asked.work):
                _remove_all(asked.work)
        return Corpus.open(out)
    if rejects is not None:
        _require_place_for_rejects(rejects, asked)
    began = time.monotonic()
    with locked(asked.work):
        goes_on = any(asked.work.glob("*/*.json"))
        if goes_on:
            say(f"going on with what lies in {asked.work}")
        _require_disk(asked)
        try:
            with space_errors(asked.work):
                make(asked)
        except BaseException:
            if goes_on or time.monotonic() - began >= _WORTH_KEEPING:
                say(f"what was done is kept in {asked.work}; the same command goes on from there")
            else:
                _remove_all(asked.work)
            raise
    shutil.rmtree(asked.work, ignore_errors=True)
    return Corpus.open(out)


def _require_sense(
    names: Sequence[str], tokenizer: str, validation: float, cleaning: Cleaning, workers: Workers | None
) -> None:
    """Raises UserError for what can be known to be wrong before anything is opened."""
    if not 0 < validation < 1:
        raise UserError(f"--val {validation:g} is no share: it must lie between 0 and 1, as 0.1")
    if workers is not None and workers.engine == "ray" and "-" in names:
        raise UserError("standard input is not at hand on other machines; give --engine ray files that all of them see")
    if cleaning.since is not None and cleaning.until is not None and cleaning.since > cleaning.until:
        raise UserError(f"--since {cleaning.since} is later than --until {cleaning.until}")
    most = cleaning.tokens_per_character
    if most is not None and not 0 < most < math.inf:
        raise UserError(f"--tokens-per-character {most} drops all documents, or none; give a share as 0.3")
    if most is not None and is_learned(tokenizer):
        raise UserError(f"tokens a character cannot be counted by {tokenizer}, which is learned from what is left")


def _require_place_for_rejects(rejects: Path, asked: Asked) -> None:
    """Raises UserError where what is dropped could not be kept, or would take the place of something else."""
    place = rejects.absolute()
    if not place.parent.is_dir():
        raise UserError(f"--rejects {rejects}: its folder does not exist")
    if place in (asked.out, asked.work) or {asked.out, asked.work} & set(place.parents):
        raise UserError(f"--rejects {rejects} lies where the corpus will; choose another file")
    read = {one.path.resolve() for one in _inputs(asked) if isinstance(one, FileInput)}
    if place.resolve() in read | {each.resolve() for each in asked.against}:
        raise UserError(f"--rejects {rejects} is itself a source; choose another file")
    if place.exists() and not any(asked.work.glob("*/*.json")):
        raise UserError(f"--rejects {rejects} exists already; choose another file, or delete it")


def _inputs(asked: Asked) -> list[Input]:
    return [each for source in asked.sources for one in source.inputs for each in files_of(one)]


def _remove_all(work: Path) -> None:
    """All but the lock, which whoever holds it removes."""
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def _require_same(asked: Asked) -> None:
    manifest = asked.out / "manifest.json"
    if not manifest.is_file() or read_sealed(manifest).get("plan") != asked.identity:
        raise UserError(f"{asked.out} exists already; choose another --out, or delete it to prepare it again")
    if asked.rejects is not None and not asked.rejects.exists():
        raise UserError(f"{asked.out} was made before, and {asked.rejects} was not; delete the former to make both")


def _require_disk(asked: Asked) -> None:
    """Say what disk will be needed, and see that it is there."""
    inputs = _inputs(asked)
    text = sum(_text_bytes(each) for each in inputs)
    copies = 2 if asked.cleans else 1
    needed = int(text * (copies + 2 * _token_bytes(asked.tokenizer)))
    if any(each.size is None for each in inputs):
        say("how much disk is needed is not known: an input does not tell its size")
    elif needed > _WORTH_SAYING:
        say(f"about {human_bytes(needed)} of disk are needed, most of it only until the corpus is whole")
    made = sum(path.stat().st_size for path in asked.work.rglob("*") if path.is_file())
    require_space(asked.work, max(0, needed - made))


def _text_bytes(one: Input) -> float:
    """About how much text an input holds."""
    kind, packing = suffixes(Path(one.name))
    return (one.size or 0) * max(_UNPACKED.get(kind, 1.0), _UNPACKED.get(packing, 1.0))


def _token_bytes(tokenizer: str) -> float:
    """Bytes of tokens for each of text, on the safe side."""
    return 2.4 if tokenizer in ("bytes", "chars") or re.fullmatch(r"bpe:[0-9]{3}", tokenizer) else 0.9
