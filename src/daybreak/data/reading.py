"""What a run reads: one corpus, or the corpora of a mixture, opened and found to fit together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, final

from pydantic import model_validator

from daybreak.configuration import Configuration, Size
from daybreak.data.mixture import MixtureOrder, MixtureSource, quotas
from daybreak.data.order import Order
from daybreak.data.packing import document_rows
from daybreak.data.shards import Corpus
from daybreak.data.tokenizer import Tokenizer
from daybreak.data.windows import JoinedWindows, StreamWindows, Windows
from daybreak.errors import UserError

_NO_CORPUS = "no corpus: give --data CORPUS; daybreak prepare makes one"


@final
class DataConfig(Configuration):
    """What a run reads.

    Attributes:
        corpus: the folder of a prepared corpus; `--data` sets it.
        mixture: several corpora instead, each with its epochs or its share of a pass; `--data` says where they lie.
        window: tokens that are shuffled and counted as one unit.
        packing: windows are cut from the `stream` of documents, or hold whole `documents`, which the model sees alone.
        tokenizer: what the corpus must have been prepared with; none means any that fits.
    """

    corpus: str | None = None
    mixture: tuple[MixtureSource, ...] = ()
    window: Size
    packing: Literal["stream", "documents"] = "stream"
    tokenizer: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.corpus is not None and self.mixture:
            raise ValueError("data.corpus and data.mixture exclude each other; give one of them")
        return self

    @model_validator(mode="after")
    def _a_sound_mixture(self) -> Self:
        for index, place in enumerate(self.places):
            if place in self.places[:index]:
                raise ValueError(f"data.mixture: the corpus {place} is in it twice; give it once, with all its epochs")
        in_epochs = [source.corpus for source in self.mixture if source.share is None]
        in_shares = [source.corpus for source in self.mixture if source.share is not None]
        if in_epochs and in_shares:
            raise ValueError(
                f"data.mixture: {in_shares[0]} has a share, {in_epochs[0]} epochs; give all of them epochs, or all a "
                "share"
            )
        return self

    @property
    def places(self) -> tuple[str, ...]:
        """The folders of its corpora."""
        return (self.corpus,) if self.corpus is not None else tuple(source.corpus for source in self.mixture)

    def lying_at(self, places: Sequence[Path | str]) -> Self:
        """The same corpora in these folders, in their order."""
        if not self.mixture:
            (corpus,) = places
            return self.model_copy(update={"corpus": str(corpus)})
        moved = (
            source.model_copy(update={"corpus": str(place)}) for source, place in zip(self.mixture, places, strict=True)
        )
        return self.model_copy(update={"mixture": tuple(moved)})

    def given(self, path: Path) -> Self:
        """What `--data` makes of it: a corpus takes the place of all others, a folder of corpora holds the mixture's.

        Raises:
            UserError: two corpora of the mixture have one name.
        """
        if self.mixture and path.is_dir() and not _is_corpus(path):
            names = [Path(source.corpus).name for source in self.mixture]
            for index, name in enumerate(names):
                if name in names[:index]:
                    raise UserError(f"data.mixture has two corpora named {name}, which cannot both lie in {path}")
            return self.lying_at([path / name for name in names])
        return self.model_copy(update={"corpus": str(path), "mixture": ()})

    def separator(self, tokenizer: Tokenizer) -> int | None:
        """The id by which a model tells apart the documents of a row; None where it sees all of the row."""
        return tokenizer.end_of_text if self.packing == "documents" else None


@final
@dataclass(frozen=True)
class Reading:
    """What a run reads.

    Attributes:
        data: as the recipe has it.
        corpora: one, or those of the mixture in its order; all have one tokenizer.
    """

    data: DataConfig
    corpora: tuple[Corpus, ...]

    @classmethod
    def open(cls, data: DataConfig, read: Callable[[Path], Corpus] = Corpus.open) -> "Reading":
        """Open every corpus, and verify it unless `read` does not.

        Raises:
            UserError: none is named, one is missing or damaged, two are the same, or their tokenizers differ.
        """
        if not data.places:
            raise UserError(_NO_CORPUS)
        for place in map(Path, data.places):
            if data.mixture and not _is_corpus(place):
                raise UserError(
                    f"{place}, of data.mixture, is not a corpus: it has no manifest.json; make it with daybreak "
                    "prepare, and give --data FOLDER if the corpora of the mixture lie in a folder elsewhere"
                )
        corpora = tuple(read(Path(place)) for place in data.places)
        for index, corpus in enumerate(corpora):
            _require_another_text(corpora[:index], corpus)
        return cls(data, corpora)

    @classmethod
    def open_if_here(cls, data: DataConfig, given: Path | str | None) -> "Reading | None":
        """As `open`, of what `--data` gives.

        Returns:
            None where nothing is given and no corpus named, or none of a mixture's is here, as of one that ships.
        """
        if given is not None:
            return cls.open(data.given(Path(given)))
        if data.corpus is None and not any(_is_corpus(Path(place)) for place in data.places):
            return None
        return cls.open(data)

    @property
    def placed(self) -> DataConfig:
        """The recipe's, with folders that do not depend on where it is read."""
        return self.data.lying_at([corpus.path.resolve() for corpus in self.corpora])

    @property
    def tokenizer(self) -> Tokenizer:
        return self.corpora[0].tokenizer

    @property
    def names(self) -> tuple[str, ...]:
        """What its corpora are called: as their folders, with the whole path where two have one name."""
        names = tuple(corpus.path.resolve().name for corpus in self.corpora)
        return names if len(set(names)) == len(names) else tuple(str(corpus.path) for corpus in self.corpora)

    @property
    def validation_tokens(self) -> int:
        return sum(corpus.validation.tokens for corpus in self.corpora)

    @property
    def pass_windows(self) -> int:
        """Training windows of an epoch, or of a pass of the mixture."""
        return self.order(0).windows

    @property
    def pass_tokens(self) -> int:
        """Training tokens of an epoch, all of them, or of a pass of the mixture, in its windows."""
        return self.pass_windows * self.data.window if self.data.mixture else self.corpora[0].train.tokens

    @property
    def windows(self) -> Windows:
        """Those of all training splits."""
        return self._windows[0] if len(self._windows) == 1 else JoinedWindows(self._windows)

    def order(self, seed: int) -> Order | MixtureOrder:
        """Which of the windows stands at each place of a run."""
        sizes = tuple(len(windows) for windows in self._windows)
        if not self.data.mixture:
            return Order(sizes[0], seed)
        return MixtureOrder(sizes, quotas(self.data.mixture, sizes), seed)

    def described(self) -> dict[str, Any]:
        """Which text it is, by its hashes, for the run's identity; of a mixture also how many windows a pass takes."""
        order = self.order(0)
        if not isinstance(order, MixtureOrder):
            return {"corpus": self.corpora[0].identity}
        sources = zip(self.names, self.corpora, order.quotas, order.sizes, strict=True)
        return {
            "mixture": [
                {"corpus": name, "identity": corpus.identity, "windows": quota, "of": size}
                for name, corpus, quota, size in sources
            ]
        }

    @cached_property
    def _windows(self) -> tuple[Windows, ...]:
        return tuple(_windows_of(corpus, self.data) for corpus in self.corpora)


def _windows_of(corpus: Corpus, data: DataConfig) -> Windows:
    """The windows of a corpus's training split.

    Raises:
        UserError: it holds none.
    """
    if data.packing == "documents":
        return document_rows(corpus, "train", data.window)
    windows = StreamWindows(corpus.stream("train"), data.window)
    if not len(windows):
        raise UserError(
            f"{corpus.path} has {corpus.train.tokens:,} tokens to train on, fewer than one data.window of "
            f"{data.window} and its successor; use more text or a smaller data.window"
        )
    return windows


def _require_another_text(before: Sequence[Corpus], corpus: Corpus) -> None:
    """Raises UserError where a corpus is one of those before it in the mixture, or has not their tokenizer."""
    for other in before:
        if other.tokenizer.identity != corpus.tokenizer.identity:
            raise UserError(
                f"a mixture has one tokenizer, but {other.path} was prepared with {other.tokenizer.name} and "
                f"{corpus.path} with another ({corpus.tokenizer.name}); prepare it with --tokenizer {other.path}"
            )
        if other.identity == corpus.identity:
            raise UserError(
                f"data.mixture: {other.path} and {corpus.path} are the same corpus; give it once, with all its epochs"
            )


def _is_corpus(path: Path) -> bool:
    return (path / "manifest.json").is_file()


def open_corpus(path: Path | None) -> Corpus:
    """Raises UserError if there is none, or it is missing or damaged."""
    if path is None:
        raise UserError(_NO_CORPUS)
    return Corpus.open(path)
