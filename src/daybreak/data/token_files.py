"""Files of tokens that other tools wrote, told apart by their content and their names.

nanogpt    ids and nothing else (karpathy/nanoGPT, data/*/prepare.py)
llm.c      256 int32 in front of the ids: magic, version, how many ids (karpathy/llm.c, dev/data/data_common.py);
           modded-nanogpt's shards are the same
npy        NumPy's own format, one dimension (karpathy/build-nanogpt, fineweb.py)
datatrove  ids and nothing else in NAME.ds; NAME.ds.index says where documents end, NAME.ds.metadata which
           tokenizer, how wide, how many (huggingface/datatrove, pipeline/tokens/tokenizer.py)

Ids are little-endian uint16 or uint32 in all of them.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final, get_args

import numpy as np
import numpy.typing as npt

from daybreak.data.shards import token_dtype
from daybreak.data.tokenizer import Tokenizer
from daybreak.errors import UserError
from daybreak.files import require_text
from daybreak.progress import say

Kind = Literal["nanogpt", "llm.c", "npy", "datatrove"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_HEADER = 256 * 4  # bytes
_WIDTHS = {(20240520, 1): 2, (20240801, 7): 4}  # magic and version of llm.c: bytes of an id
_MAGICS = {magic for magic, _ in _WIDTHS}
_EVALUATION_MAGIC = 20240522
_NPY = b"\x93NUMPY"
_BLOCK = 1 << 20  # ends of documents read at once


@final
@dataclass(frozen=True)
class TokenFile:
    """A file of tokens.

    Attributes:
        path: where it lies, links followed.
        start: bytes in front of the first token.
        tokens: how many follow, up to the end of the file.
        index: the file that says where each document ends, counted in tokens, little-endian uint64; None without one.
    """

    path: Path
    kind: Kind
    dtype: np.dtype[Any]
    start: int
    tokens: int
    index: Path | None = None

    @property
    def bytes(self) -> int:
        """Of the whole file."""
        return self.start + self.tokens * self.dtype.itemsize

    def mapped(self) -> npt.NDArray[Any]:
        """Its tokens, (tokens,), memory-mapped."""
        return np.memmap(self.path, dtype=self.dtype, mode="r", offset=self.start, shape=(self.tokens,))

    def document_ends(self) -> npt.NDArray[np.uint64] | None:
        """The index, memory-mapped."""
        return None if self.index is None else np.memmap(self.index, dtype="<u8", mode="r")


def open_token_file(path: Path, tokenizer: Tokenizer, kind: Kind | None = None) -> TokenFile:
    """A file of tokens that `tokenizer` made; `kind` is seen from its content and its name unless given.

    Raises:
        UserError: it is missing, of no known kind, cut short, contradicts itself, or its ids are of another width.
    """
    require_text(path)
    if not path.is_file():
        raise UserError(f"{path} is no file of tokens: give the files themselves, in their order")
    path = path.resolve()
    dtype = token_dtype(tokenizer.vocab_size)
    match kind or _kind_of(path):
        case "llm.c":
            found = _open_llm_c(path)
        case "npy":
            found = _open_npy(path)
        case "datatrove":
            found = _open_datatrove(path, dtype)
        case "nanogpt":
            found = _open_bare(path, "nanogpt", dtype)
    if not found.tokens:
        raise UserError(f"{path} holds no tokens")
    if found.dtype != dtype:
        raise UserError(
            f"{path} holds ids of {found.dtype.itemsize} bytes, but the {tokenizer.vocab_size:,} ids of tokenizer "
            f"{tokenizer.name} take {dtype.itemsize}: another one made it; give that one as --tokenizer"
        )
    return found


def _kind_of(path: Path) -> Kind:
    with path.open("rb") as file:
        head = file.read(len(_NPY))
    if head == _NPY:
        return "npy"
    magic = int.from_bytes(head[:4], "little")
    if magic == _EVALUATION_MAGIC:
        raise UserError(f"{path} holds llm.c's questions for an evaluation, which are no text to train on")
    if magic in _MAGICS:
        return "llm.c"
    if path.suffix == ".ds":
        return "datatrove"
    if path.suffix == ".bin":
        return "nanogpt"
    raise UserError(
        f"{path} is of a kind that neither its content nor its name tells; say which: --format {', '.join(KINDS)}"
    )


def _open_bare(path: Path, kind: Kind, dtype: np.dtype[Any]) -> TokenFile:
    size = path.stat().st_size
    if size % dtype.itemsize:
        raise UserError(
            f"{path} has {size:,} bytes, which are no whole ids of {dtype.itemsize}: "
            "it was cut short, or is of another kind"
        )
    return TokenFile(path, kind, dtype, 0, size // dtype.itemsize)


def _open_llm_c(path: Path) -> TokenFile:
    size = path.stat().st_size
    if size < _HEADER:
        raise UserError(f"{path} has {size:,} bytes, fewer than the {_HEADER:,} of llm.c's header: it was cut short")
    magic, version, tokens = (int(each) for each in np.fromfile(path, "<i4", 3))
    if magic not in _MAGICS:
        raise UserError(
            f"{path} is no file of llm.c: it begins with {magic} instead of {' or '.join(map(str, _MAGICS))}"
        )
    if (magic, version) not in _WIDTHS:
        raise UserError(f"{path}: version {version} of llm.c's format {magic} is not known here")
    found = TokenFile(path, "llm.c", np.dtype(f"<u{_WIDTHS[magic, version]}"), _HEADER, tokens)
    if tokens < 0 or found.bytes != size:
        raise UserError(
            f"{path} contradicts itself: its header speaks of {tokens:,} tokens, which are {found.bytes:,} bytes, "
            f"but it has {size:,}"
        )
    return found


def _open_npy(path: Path) -> TokenFile:
    try:
        array: Any = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is no NumPy file of tokens, or was cut short: {error}") from None
    if array.ndim != 1 or array.dtype.str not in ("<u2", "<u4"):
        raise UserError(
            f"{path} holds {array.dtype} of shape {array.shape}, where one row of uint16 or uint32 should be"
        )
    found = TokenFile(path, "npy", array.dtype, array.offset, len(array))
    if found.bytes != path.stat().st_size:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, where its header speaks of {found.bytes:,}")
    return found


def _open_datatrove(path: Path, dtype: np.dtype[Any]) -> TokenFile:
    metadata, index = path.with_name(f"{path.name}.metadata"), path.with_name(f"{path.name}.index")
    if path.with_name(f"{path.name}.loss").exists():
        say(f"warning: {path}.loss is passed over: every token counts for the loss here")
    stated = _read_metadata(metadata) if metadata.is_file() else None
    width = dtype.itemsize if stated is None or stated.width is None else stated.width
    found = _open_bare(path, "datatrove", np.dtype(f"<u{width}"))
    if stated is not None and stated.tokens != found.tokens:
        raise UserError(f"{metadata} speaks of {stated.tokens:,} tokens, but {path.name} has {found.tokens:,}")
    if not index.is_file():
        return found
    _require_ends(index, found.tokens)
    return TokenFile(path, "datatrove", found.dtype, 0, found.tokens, index)


@final
@dataclass(frozen=True)
class _Metadata:
    """What datatrove states beside a file; older versions do not state the bytes of an id."""

    width: int | None
    tokens: int


def _read_metadata(path: Path) -> _Metadata:
    """Of three lines: the tokenizer and, behind a bar, the bytes of an id; the tokens; the same for people."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    name, bar, width = lines[0].rpartition("|") if lines else ("", "", "")
    if len(lines) < 2 or not re.fullmatch("[0-9]{1,18}", lines[1]) or (bar and width not in ("2", "4")):
        raise UserError(f"{path} is not datatrove's: it does not state a tokenizer and the number of tokens")
    say(f"{path.name.removesuffix('.metadata')}: made with tokenizer {name if bar else width}, as datatrove states")
    return _Metadata(int(width) if bar else None, int(lines[1]))


def _require_ends(index: Path, tokens: int) -> None:
    """Raises UserError unless an index rises to the last token."""
    size = index.stat().st_size
    if size == 0 or size % 8:
        raise UserError(f"{index} has {size:,} bytes, which are no whole ends of documents: it was cut short")
    ends = np.memmap(index, dtype="<u8", mode="r")
    if int(ends[-1]) != tokens:
        raise UserError(
            f"{index} ends at token {int(ends[-1]):,}, but there are {tokens:,}: they do not belong together"
        )
    for first in range(0, len(ends), _BLOCK):
        block = ends[first : first + _BLOCK + 1]
        if (block[1:] < block[:-1]).any():
            raise UserError(f"{index} is damaged: the ends of documents do not rise")
