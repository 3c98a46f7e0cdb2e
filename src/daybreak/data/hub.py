"""Data sets of the Hugging Face hub, streamed at a pinned revision through `datasets`; an input for each shard.

Only data sets that are plain data files are read: no code of theirs is run, and none of their formats can hold any.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from daybreak.data.documents import WITHOUT_TEXT, Document, Fields, Tally, document_of
from daybreak.data.download import cache_folder
from daybreak.data.inputs import Input
from daybreak.errors import UserError
from daybreak.files import canonical_json, sha256_bytes

PREFIX = "hub:"
_FORMATS = ("parquet", "json", "csv", "text", "arrow")
_SPLIT = "train"
_COMMIT = re.compile("[0-9a-f]{40}")


@final
@dataclass(frozen=True)
class HubInput(Input):
    """One shard of the training split of a data set.

    Attributes:
        dataset: OWNER/NAME, or the path of a folder.
        config: None for the data set's own choice.
        revision: the commit; None for a folder.
        state: SHA-256 of the names, sizes and times of a folder's files; None for the hub.
    """

    dataset: str
    config: str | None
    revision: str | None
    state: str | None
    shard: int
    shards: int
    fields: Fields

    def read(self, tally: Tally) -> Iterator[Document]:
        with _naming(self.name):
            rows = _stream(self.dataset, self.config, self.revision)
            if rows.num_shards != self.shards:
                raise UserError(f"{self.name} changed while it was read: {rows.num_shards} shards, not {self.shards}")
            for number, row in enumerate(rows.shard(self.shards, self.shard, contiguous=True), start=1):
                if row.get(self.fields.text_key, "") is None:
                    tally.passed[WITHOUT_TEXT] += 1
                    continue
                document = document_of(row, f"{self.name}:{number}", self.fields, tally)
                if document is not None:
                    yield document

    def identity(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "config": self.config,
            "revision": self.revision,
            "state": self.state,
            "shard": self.shard,
            "shards": self.shards,
            "fields": self.fields.to_json(),
        }


def open_hub(source: str, fields: Fields) -> tuple[HubInput, ...]:
    """The shards of `hub:OWNER/NAME[:CONFIG][@REVISION]` or `hub:FOLDER[:CONFIG]`.

    A revision that is a branch or a tag, and none at all, is resolved once to the commit that it is now.

    Raises:
        UserError: there is no such data set, configuration or revision; it is not of plain data files.
    """
    named, _, revision = source.removeprefix(PREFIX).partition("@")
    dataset, _, config = named.partition(":")
    if not dataset:
        raise UserError(f"{source} names no data set: hub:OWNER/NAME[:CONFIG][@REVISION] or hub:FOLDER")
    with _naming(source):
        if Path(dataset).is_dir():
            if revision:
                raise UserError(f"{source}: a folder has no revision")
            commit, state = None, _state(Path(dataset))
        else:
            commit, state = _commit(dataset, revision), None
        shards = _stream(dataset, config or None, commit).num_shards
    name = f"{PREFIX}{named}" + (f"@{commit[:12]}" if commit else "")
    return tuple(
        HubInput(f"{name}#{shard}", None, dataset, config or None, commit, state, shard, shards, fields)
        for shard in range(shards)
    )


def _stream(dataset: str, config: str | None, revision: str | None) -> Any:
    """The training split as an iterable of rows.

    Raises:
        UserError: its files are of a format that may hold more than data, or that has no text.
    """
    datasets = _datasets()
    builder = datasets.load_dataset_builder(
        dataset, name=config, revision=revision, cache_dir=str(cache_folder() / "huggingface" / "datasets")
    )
    made_of = type(builder).__module__.rpartition(".")[2]
    if made_of not in _FORMATS:
        raise UserError(f"{dataset} is a data set of {made_of}; those of {', '.join(_FORMATS)} are read")
    if made_of == "text":
        builder.config.sample_by = "document"  # as a file of text is read everywhere else; else each line is a row
    return builder.as_streaming_dataset(split=_SPLIT)


def _commit(dataset: str, revision: str) -> str:
    if _COMMIT.fullmatch(revision):
        return revision
    _datasets()
    from huggingface_hub import HfApi

    commit = HfApi().dataset_info(dataset, revision=revision or None).sha
    if commit is None:
        raise UserError(f"{dataset}: the hub names no commit for it; state one, as hub:{dataset}@COMMIT")
    return commit


def _state(folder: Path) -> str:
    found = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return sha256_bytes(
        canonical_json([[str(path.absolute()), file.st_size, file.st_mtime_ns] for path, file in found])
    )


@contextmanager
def _naming(origin: str) -> Iterator[None]:
    """Turn what goes wrong in `datasets` into a UserError that names the data set."""
    datasets = _datasets()
    import pyarrow
    from huggingface_hub import errors as hub

    # HTTPError is that of the HTTP client that this version of the hub's package uses; a script is a RuntimeError.
    web: type[Exception] = vars(hub)["HTTPError"]
    errors = (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError, pyarrow.ArrowException, web)
    try:
        yield
    except errors as error:
        raise UserError(f"{origin} cannot be read: {error}") from error


def _datasets() -> Any:
    """The package, told to keep its files in our cache, unless the person chose where."""
    if "HF_HOME" not in os.environ:
        for name, folder in {"HF_HUB_CACHE": "hub", "HF_DATASETS_CACHE": "datasets", "HF_XET_CACHE": "xet"}.items():
            os.environ.setdefault(name, str(cache_folder() / "huggingface" / folder))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import datasets
    except ImportError:
        raise UserError("data sets of the hub need the package datasets: pip install 'daybreak[data]'") from None
    return datasets
