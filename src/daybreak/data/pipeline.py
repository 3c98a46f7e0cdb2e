"""The stages of preparation in their order, with what goes from one to the next.

Each task leaves its results on disk, under a name that is the hash of all they depend on: what was done is not done
again, and what is made depends on the inputs and the options alone, not on workers, or on how often it was stopped.

    .OUT.partial/        until the corpus is whole
      read/              the inputs' documents, in blocks
      clean/             the same, cleaned and sketched
      duplicates/        documents that are like an earlier one
      tokens/            each block's tokens
      corpus/            becomes OUT
      */NAME.json        what a finished task returned, sealed
"""

import shutil
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import accumulate, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from daybreak.data import encoding, stages
from daybreak.data.asked import Asked
from daybreak.data.blocks import Block
from daybreak.data.clean import Cleaning
from daybreak.data.corpora import settle
from daybreak.data.deduplicate import BANDS
from daybreak.data.documents import Document, Tally
from daybreak.data.dropped import keep_rejects, report_of, shown_reasons
from daybreak.data.hashing import splitmix64
from daybreak.data.inspection import inspect_corpus
from daybreak.data.inspection_page import shown
from daybreak.data.overlap import runs_of
from daybreak.data.shards import SPLITS, Corpus, Shard, Split, write_manifest
from daybreak.data.tasks import named, perform
from daybreak.data.tokenizer import Tokenizer, make_tokenizer
from daybreak.errors import UserError
from daybreak.executor import run_tasks
from daybreak.files import (
    sha256_bytes,
    sha256_file,
    sync_tree,
    take_name,
    write_json,
    write_sealed,
)
from daybreak.progress import progress, say

_LEARNED_FROM = 100_000_000  # characters that a BPE is learned from, at most
_THINNED_WITHIN = 16  # pieces of a block, of which one is taken; beyond, blocks are left out
_SHARD_TOKENS = 100_000_000
_BLOCK_BYTES = 8_000_000  # of text in a block, the unit of work; more where there would be too many
_MOST_BLOCKS = 50_000
_KEYS_AT_ONCE = 4_000_000  # that a worker sorts
_SECONDS_BETWEEN_LOOKS = 2.0
_GATHERED_TOGETHER = 256  # blocks whose duplicates lie in one file
_NUMBERS_AT_ONCE = 1 << 20


def make(asked: Asked) -> None:
    """Make the corpus in the work's folder, and give it its name.

    Raises:
        UserError: the sources hold too little text, or none of it is left.
    """
    by_source = _read(asked)
    blocks, results = _clean(asked, [block for blocks in by_source for block in blocks])
    found = _compare(asked, blocks)
    kept = _kept_of_each(blocks, found)
    if not sum(kept):
        if asked.rejects is not None:
            keep_rejects(asked.rejects, [Path(block.stem) for block in blocks])
        reasons = shown_reasons(report_of(asked.sources, by_source, results)["dropped"])
        raise UserError(f"no document is left: all were dropped ({reasons}); --rejects FILE keeps them to be looked at")
    rule = _split_rule(asked, blocks, found, sum(kept))
    tokenizer_file = _tokenizer(asked, blocks, found, kept, rule)
    tokenizer = Tokenizer.load(tokenizer_file)
    stems, encoded = _tokenise(asked, blocks, found, kept, rule, tokenizer_file)
    corpus = asked.work / "corpus"
    shutil.rmtree(corpus, ignore_errors=True)
    corpus.mkdir()
    splits = {name: _assemble(asked, name, stems, encoded, tokenizer) for name in SPLITS}
    report = report_of(asked.sources, by_source, [*results, *encoded])
    if asked.cleans:
        dropped = report["dropped"]
        where = "" if asked.rejects is None else f"; they are kept in {asked.rejects}"
        say(f"dropped {sum(dropped.values()):,} documents: {shown_reasons(dropped) or 'none'}{where}")
    write_json(corpus / "report.json", report)
    write_manifest(corpus, tokenizer, splits, [source.name for source in asked.sources], plan=asked.identity)
    page = shown(inspect_corpus(Corpus.open_unverified(corpus)))
    (corpus / "report.md").write_text(page, encoding="utf-8")
    if asked.rejects is not None:
        cleaned = [Path(block.stem) for block in blocks] if asked.cleans else []
        keep_rejects(asked.rejects, [*cleaned, *stems])
    sync_tree(corpus)
    take_name(corpus, asked.out)
    say(f"what is in it: {asked.out / 'report.md'}, or daybreak inspect")


def _read(asked: Asked) -> list[list[Block]]:
    """The blocks of each source."""
    folder = asked.work / "read"
    inputs = [one for source in asked.sources for one in source.inputs]
    size = max(_BLOCK_BYTES, sum(one.size or 0 for one in inputs) // _MOST_BLOCKS)
    tasks = [stages.Read(one, size, named(folder, one.identity(), size)) for one in inputs]
    with progress("reading", None, "B") as advance, _watched(folder, advance):
        results = perform(stages.read, tasks, asked.workers)
    tally = Tally()
    for result in results:
        tally.add(Tally.from_json(result["tally"]))
    settle(tally, asked.fields)
    of_each = iter(results)
    by_source = [
        [Block(**block) for _ in source.inputs for block in next(of_each)["blocks"]] for source in asked.sources
    ]
    blocks = [block for blocks in by_source for block in blocks]
    if sum(block.characters for block in blocks) < 2:
        names = ", ".join(source.name for source in asked.sources)
        raise UserError(f"the sources hold no text to train on and to validate on: {names}")
    replaced = sum(block.replaced for block in blocks)
    if replaced:
        say(f"warning: {replaced:,} characters were not valid UTF-8 and became U+FFFD; iconv converts other encodings")
    documents, size = sum(block.documents for block in blocks), sum(block.bytes for block in blocks)
    say(f"tokenizer {asked.tokenizer}, {documents:,} documents, {size / 1e6:,.1f} MB of text")
    return by_source


@contextmanager
def _watched(folder: Path, advance: Callable[[int], None]) -> Iterator[None]:
    """Advance by the text that appears in a folder meanwhile."""
    over = threading.Event()
    shown = _text_bytes_in(folder)  # of earlier sittings

    def look() -> None:
        nonlocal shown
        while not over.wait(_SECONDS_BETWEEN_LOOKS):
            size = _text_bytes_in(folder)
            advance(max(0, size - shown))
            shown = max(shown, size)

    watching = threading.Thread(target=look, daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
        advance(max(0, _text_bytes_in(folder) - shown))


def _text_bytes_in(folder: Path) -> int:
    size = 0
    for path in folder.glob("*/*.text"):
        with suppress(FileNotFoundError):  # begun anew just now
            size += path.stat().st_size
    return size


def _clean(asked: Asked, blocks: list[Block]) -> tuple[list[Block], list[dict[str, Any]]]:
    """The blocks that are left, and what each task returned."""
    if not asked.cleans:
        return blocks, []
    evaluation, tokenizer = None, None
    if asked.against:
        runs = runs_of(asked.against).astype("<u8").tobytes()
        if [sha256_file(path) for path in asked.against] != asked.plan["against"]:
            raise UserError("an evaluation set changed while it was read; prepare again once it stays as it is")
        evaluation = named(asked.work, "evaluation", sha256_bytes(runs))
        evaluation.write_bytes(runs)
    if asked.cleaning.tokens_per_character is not None:
        assert asked.known_tokenizer is not None  # seen to before
        tokenizer = named(asked.work, "tokenizer", asked.known_tokenizer.identity)
        write_json(tokenizer, asked.known_tokenizer.to_json())
    options = (asdict(asked.cleaning), asked.duplicates, *map(str, (evaluation, tokenizer)), asked.rejects is not None)
    tasks = [
        stages.Clean(
            block=block,
            out=named(asked.work / "clean", block.sha256, *options),
            cleaning=asked.cleaning,
            duplicates=asked.duplicates,
            evaluation=evaluation,
            tokenizer=tokenizer,
            keep_rejects=asked.rejects is not None,
        )
        for block in blocks
    ]
    looks = "cleaning" if asked.cleaning != Cleaning() or asked.against else "sketching"
    with progress(looks, sum(block.bytes for block in blocks), "B") as advance:
        results = perform(stages.clean, tasks, asked.workers, lambda task: advance(task.block.bytes))
    return [Block(**result["block"]) for result in results], results


def _compare(asked: Asked, blocks: list[Block]) -> list[Path | None]:
    """For each block the file of its duplicates."""
    documents = sum(block.documents for block in blocks)
    if asked.duplicates == "none" or not documents:
        return [None] * len(blocks)
    folder, firsts = asked.work / "duplicates", _firsts(blocks)
    listed = named(folder, asked.duplicates, [block.sha256 for block in blocks])
    folder.mkdir(exist_ok=True)
    write_sealed(
        listed,
        {"blocks": [[block.stem, first] for block, first in zip(blocks, firsts, strict=True) if block.documents]},
    )
    keys = documents * (1 + (BANDS if asked.duplicates == "near" else 0))
    parts = -(-keys // _KEYS_AT_ONCE)
    comparisons = [
        stages.Compare(listed, part, parts, named(folder, listed.name, part, parts)) for part in range(parts)
    ]
    with progress("comparing", documents, "documents") as advance:
        results = perform(stages.compare, comparisons, asked.workers, lambda _: advance(documents // parts))
    left = sum(result["left"] for result in results)
    if left:
        say(f"warning: {left:,} times a document had more candidates than are compared; duplicates may be left")
    found = tuple(task.out for task in comparisons)
    ends = [*firsts[_GATHERED_TOGETHER::_GATHERED_TOGETHER], documents]
    gathered = [
        stages.Gather(found, first, last, named(folder, listed.name, "of", first, last))
        for first, last in zip(firsts[::_GATHERED_TOGETHER], ends, strict=True)
    ]
    perform(stages.gather, gathered, asked.workers)
    return [gathered[number // _GATHERED_TOGETHER].out for number in range(len(blocks))]


def _kept_of_each(blocks: list[Block], found: list[Path | None]) -> list[int]:
    """How many documents of each block are no duplicates."""
    return [
        block.documents - len(stages.duplicates(block, first, of_block))
        for block, first, of_block in zip(blocks, _firsts(blocks), found, strict=True)
    ]


def _kept(blocks: list[Block], found: list[Path | None], place: int | None = None) -> Iterator[Document]:
    """The documents that are no duplicates, of all blocks or of the one at a place."""
    firsts = _firsts(blocks)
    for each in range(len(blocks)) if place is None else (place,):
        for document, reason in stages.without_duplicates(blocks[each], firsts[each], found[each]):
            if reason is None:
                yield document


def _tokenizer(
    asked: Asked, blocks: list[Block], found: list[Path | None], kept: list[int], rule: encoding.SplitRule
) -> Path:
    """The file of the tokenizer, which is learned if it is one that is."""
    if asked.known_tokenizer is not None:
        path = named(asked.work, "tokenizer", asked.known_tokenizer.identity)
        write_json(path, asked.known_tokenizer.to_json())
        return path
    depends_on = ([block.sha256 for block in blocks], asdict(rule), [str(each) for each in found], *asked.specials)
    path = named(asked.work, asked.tokenizer, *depends_on)
    if path.exists():
        return path
    texts = _text_to_learn_from(asked.tokenizer, blocks, found, kept, rule)
    learned = make_tokenizer(asked.tokenizer, texts, asked.specials)
    ids = learned.vocab_size - len(asked.specials)
    if asked.tokenizer.startswith("bpe:") and ids < int(asked.tokenizer[4:]):
        say(f"the text gave {ids:,} ids: it has too few distinct pairs for more")
    write_json(path, learned.to_json())
    return path


def _text_to_learn_from(
    name: str, blocks: list[Block], found: list[Path | None], kept: list[int], rule: encoding.SplitRule
) -> Iterator[str]:
    """All text for the characters in it; for a BPE the training split, thinned evenly to a bounded amount."""
    if name == "chars":
        yield from (text for document in _kept(blocks, found) for text in document.pieces)
        return
    stride = -(-sum(block.characters for block in blocks) // _LEARNED_FROM)
    of_blocks = max(1, stride // _THINNED_WITHIN)  # whole blocks are left out where there are many
    numbers = list(accumulate(kept, initial=0))
    training = (
        text
        for place in range(0, len(blocks), of_blocks)
        for number, document in enumerate(_kept(blocks, found, place), start=numbers[place])
        for split, _, text in rule.divide(document, number)
        if split == "train"
    )
    yield from islice(training, 0, None, stride // of_blocks)


def _split_rule(asked: Asked, blocks: list[Block], found: list[Path | None], documents: int) -> encoding.SplitRule:
    """Which of the documents that stay are kept for validation.

    Raises:
        UserError: too little stays.
    """
    if documents == 1:
        characters = sum(len(text) for document in _kept(blocks, found) for text in document.pieces)
        if characters < 2:
            raise UserError("one document of one character is left, too little to train on and to validate on")
        boundary = min(max(1, int(characters * (1 - asked.validation))), characters - 1)
        return encoding.SplitRule(asked.validation, 0, 0, boundary)
    lowest, highest = (0, splitmix64(0)), (0, splitmix64(0))
    for start in range(0, documents, _NUMBERS_AT_ONCE):
        hashes = splitmix64(np.arange(start, min(documents, start + _NUMBERS_AT_ONCE), dtype=np.uint64))
        low, high = int(hashes.argmin()), int(hashes.argmax())
        lowest = min(lowest, (start + low, int(hashes[low])), key=itemgetter(1))
        highest = max(highest, (start + high, int(hashes[high])), key=itemgetter(1))
    return encoding.SplitRule(asked.validation, lowest[0], highest[0], None)


def _tokenise(
    asked: Asked,
    blocks: list[Block],
    found: list[Path | None],
    kept: list[int],
    rule: encoding.SplitRule,
    tokenizer: Path,
) -> tuple[list[Path], list[dict[str, Any]]]:
    """Stems of each block's tokens, and what each task returned."""
    options = (asdict(rule), str(tokenizer), asked.rejects is not None)
    numbers = list(accumulate(kept, initial=0))[:-1]
    tasks = [
        encoding.Tokenise(
            block=block,
            first=first,
            number=number,
            found=of_block,
            rule=rule,
            tokenizer=tokenizer,
            out=named(asked.work / "tokens", block.sha256, first, number, str(of_block), *options),
            keep_rejects=asked.rejects is not None,
        )
        for block, first, number, of_block in zip(blocks, _firsts(blocks), numbers, found, strict=True)
    ]
    with progress("tokenising", sum(block.bytes for block in blocks), "B") as advance:
        began = time.monotonic()
        results = perform(encoding.tokenise, tasks, asked.workers, lambda task: advance(task.block.bytes))
        seconds = max(time.monotonic() - began, 1e-9)
    tokens = sum(split["tokens"] for result in results for split in result["splits"].values())
    say(f"{tokens:,} tokens, {tokens / seconds:,.0f} a second")
    return [task.out for task in tasks], results


def _assemble(
    asked: Asked, split: str, stems: list[Path], encoded: list[dict[str, Any]], tokenizer: Tokenizer
) -> Split:
    """A split's shards: its stream of tokens, cut."""
    totals = [result["splits"][split] for result in encoded]
    ends = list(accumulate(each["tokens"] for each in totals))
    tokens = ends[-1]
    tasks = []
    for shard, start in enumerate(range(0, tokens, _SHARD_TOKENS)):
        slices = _slices(stems, ends, start, min(tokens, start + _SHARD_TOKENS))
        out = asked.work / "corpus" / f"{split}-{shard:05d}.bin"
        tasks.append(encoding.Assemble(split, slices, tokenizer.vocab_size, out))
    shards = {task.out: result for task, result in run_tasks(encoding.assemble, tasks, asked.workers)}
    return Split(
        tokens=tokens,
        documents=sum(each["documents"] for each in totals),
        bytes=sum(each["bytes"] for each in totals),
        shards=tuple(Shard(**shards[task.out]) for task in tasks),
    )


def _slices(stems: list[Path], ends: list[int], low: int, high: int) -> tuple[tuple[Path, int, int], ...]:
    """Of each block's tokens, what lies in [low, high) of the stream.

    Args:
        ends: where in the stream each block's end.
    """
    slices = []
    for number in range(bisect_right(ends, low), len(stems)):
        start = ends[number - 1] if number else 0
        if start >= high:
            break
        slices.append((stems[number], max(low, start) - start, min(high, ends[number]) - start))
    return tuple(slices)


def _firsts(blocks: Sequence[Block]) -> list[int]:
    """The number of each block's first document among all."""
    return list(accumulate((block.documents for block in blocks), initial=0))[:-1]
