"""What a corpus is to be made of, and how."""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

from daybreak.data.clean import Cleaning
from daybreak.data.corpora import Source
from daybreak.data.deduplicate import Duplicates
from daybreak.data.documents import Fields
from daybreak.data.tasks import made_by
from daybreak.data.tokenizer import Tokenizer
from daybreak.executor import Workers
from daybreak.files import canonical_json, sha256_bytes, sha256_file


@final
@dataclass(frozen=True)
class Asked:
    """All that `prepare` was given.

    Attributes:
        known_tokenizer: the one called `tokenizer`, with its specials, unless it is learned from the text.
        specials: names of special tokens that it has besides.
    """

    sources: list[Source]
    fields: Fields
    tokenizer: str
    known_tokenizer: Tokenizer | None
    specials: tuple[str, ...]
    validation: float
    cleaning: Cleaning
    duplicates: Duplicates
    against: tuple[Path, ...]
    rejects: Path | None
    out: Path
    workers: Workers

    @property
    def work(self) -> Path:
        return self.out.with_name(f".{self.out.name}.partial")

    @property
    def cleans(self) -> bool:
        return self.cleaning != Cleaning() or self.duplicates != "none" or bool(self.against)

    @cached_property
    def plan(self) -> dict[str, Any]:
        """All that the corpus depends on."""
        return {
            "sources": [[one.identity() for one in each.inputs] for each in self.sources],
            "tokenizer": self.tokenizer if self.known_tokenizer is None else self.known_tokenizer.identity,
            **({"specials": self.specials} if self.specials and self.known_tokenizer is None else {}),
            "validation": self.validation,
            "cleaning": asdict(self.cleaning),
            "duplicates": self.duplicates,
            "against": [sha256_file(path) for path in self.against],
            "made_by": made_by(),
        }

    @property
    def identity(self) -> str:
        """SHA-256 of the plan."""
        return sha256_bytes(canonical_json(self.plan))
