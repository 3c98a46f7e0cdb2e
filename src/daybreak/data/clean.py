"""Cleaning: text is mended, and filters decide, with a reason, which documents go. The caller drops and counts.

The filters are for prose in languages that part words by blanks. Their thresholds are those of Gopher (Rae et al.
2021, appendix A1.1) unless a comment says otherwise, measured more simply: symbols are counted together, repeated
phrases as shares of words, not of characters; its upper limit of words and its stop words are left out. Tokens a
character are from Cramming (Geiping and Goldstein 2022, section 4.4).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, final

import numpy as np

from daybreak.data.words import Words, shingles
from daybreak.errors import UserError

_COULD_CHANGE = re.compile(r"[^\t\n\x20-\x25\x27-\x7e]")  # of all characters, by ftfy
_ENDS_OF_SENTENCES = tuple(".!?\"'):;…”’»")
_BULLETS = tuple("•‣·*-–—|#")
_MAILBOX = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])")
_BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_ADDRESS = re.compile(
    rf"(?<![\w.])(?:{_BYTE}\.){{3}}{_BYTE}(?!\w|\.\d)"
    r"|(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}(?![\w:])"
)
_SUFFICES = 4000  # characters, to tell a language, or how rare words are


@final
@dataclass(frozen=True)
class Cleaning:
    """What is done to documents before they become tokens.

    Attributes:
        mend: broken encodings, odd line ends and control characters, by ftfy, and Unicode's normal form NFC.
        filter: drop poor documents.
        language: drop those in another, by its ISO 639-1 code.
        mask_personal: e-mail and IP addresses become `[e-mail]` and `[IP]`.
        since, until: drop documents from before the one or from after the other, and those without a date; ISO dates.
        tokens_per_character: drop documents of more, whose words are rare.
    """

    mend: bool = False
    filter: bool = False
    language: str | None = None
    mask_personal: bool = False
    since: str | None = None
    until: str | None = None
    tokens_per_character: float | None = None


@final
@dataclass(frozen=True)
class Beginning:
    """What a document is judged by: its first million characters or so, which for most is all of it.

    Attributes:
        lines: without blank ones.
    """

    text: str
    words: Words
    lines: tuple[str, ...]

    @classmethod
    def of(cls, text: str, words: Words) -> "Beginning":
        return cls(text, words, tuple(line for line in map(str.strip, text.split("\n")) if line))


def cleaned(text: str, cleaning: Cleaning) -> str:
    """A piece of a document, mended and masked as asked."""
    if cleaning.mend:
        text = mended(text)
    if cleaning.mask_personal:
        text = _ADDRESS.sub("[IP]", _MAILBOX.sub("[e-mail]", text))
    return text


def mended(text: str) -> str:
    """`ftfy.fix_text` of a text; lines that it could not change are not given to it.

    Raises:
        UserError: ftfy is not installed.
    """
    ftfy = _ftfy()
    first_tag = text.find("<")  # from the line of the first on, ftfy leaves HTML's entities as they are
    parts: list[str] = []
    done = 0
    while found := _COULD_CHANGE.search(text, done):
        start = text.rfind("\n", done, found.start()) + 1 or done
        end = text.find("\n", found.start()) + 1 or len(text)
        entities = False if -1 < first_tag < end else "auto"
        parts += [text[done:start], ftfy.fix_text(text[start:end], unescape_html=entities)]
        done = end
    return "".join([*parts, text[done:]])


def reason_to_drop(
    beginning: Beginning, date: str | None, cleaning: Cleaning, count_tokens: Callable[[str], int] | None
) -> str | None:
    """Why a document goes; None if it stays.

    Args:
        count_tokens: of a text; needed for `tokens_per_character` alone.
    """
    if cleaning.since is not None or cleaning.until is not None:
        if date is None:
            return "no date"
        if not (cleaning.since or "") <= date <= (cleaning.until or "9999"):
            return "date"
    if cleaning.filter:
        for reason, decides in _FILTERS:
            if decides(beginning):
                return reason
    text = beginning.text[:_SUFFICES]
    if cleaning.language is not None and _language_of(text) != cleaning.language:
        return "language"
    if cleaning.tokens_per_character is not None:
        assert count_tokens is not None
        if count_tokens(text) > cleaning.tokens_per_character * len(text):
            return "rare words"
    return None


def _is_short(beginning: Beginning) -> bool:
    return len(beginning.words) < 50


def _has_odd_words(beginning: Beginning) -> bool:
    return not 3 <= beginning.words.lengths.mean() <= 10


def _has_many_symbols(beginning: Beginning) -> bool:
    symbols = sum(beginning.text.count(symbol) for symbol in ("#", "...", "…"))
    return symbols > 0.1 * len(beginning.words)


def _has_few_letters(beginning: Beginning) -> bool:
    """Digits are a fifth, or letters are not three fifths, of what is not blank: thresholds of our own."""
    letters, digits, visible = _kinds_of_characters(beginning.text)
    return digits > 0.2 * visible or letters < 0.6 * visible


def _repeats_lines(beginning: Beginning) -> bool:
    """More than a fifth of the text is in lines that were there before."""
    seen: set[str] = set()
    repeated = 0
    for line in beginning.lines:
        if line in seen:
            repeated += len(line)
        seen.add(line)
    return repeated > 0.2 * sum(map(len, beginning.lines))


def _repeats_phrases(beginning: Beginning) -> bool:
    """One run of three words makes up 18 % of the text, or more than 10 % of the runs of ten were there before."""
    hashes = beginning.words.hashes
    _, counts = np.unique(shingles(hashes, 3), return_counts=True)
    tens = shingles(hashes, 10)
    return bool(3 * counts.max() > 0.18 * len(hashes) and counts.max() > 2) or len(np.unique(tens)) < 0.9 * len(tens)


def _is_list(beginning: Beginning) -> bool:
    """Nine in ten lines begin with a bullet, three in ten end in an ellipsis; or, of ten and more lines, those that are
    short and end no sentence hold seven tenths of the text, which is a threshold of our own."""
    lines = beginning.lines
    bullets = sum(line.startswith(_BULLETS) for line in lines)
    cut_short = sum(line.endswith(("...", "…")) for line in lines)
    items = sum(len(line) for line in lines if len(line) < 60 and not line.endswith(_ENDS_OF_SENTENCES))
    is_itemised = len(lines) >= 10 and items > 0.7 * sum(map(len, lines))
    return bullets > 0.9 * len(lines) or cut_short > 0.3 * len(lines) or is_itemised


_FILTERS: tuple[tuple[str, Callable[[Beginning], bool]], ...] = (
    ("few words", _is_short),
    ("odd words", _has_odd_words),
    ("many symbols", _has_many_symbols),
    ("few letters", _has_few_letters),
    ("repeated lines", _repeats_lines),
    ("repeated phrases", _repeats_phrases),
    ("list", _is_list),
)


def _kinds_of_characters(text: str) -> tuple[int, int, int]:
    """Letters (with all that lies beyond ASCII), digits, and all that is not blank; in bytes of UTF-8."""
    counts = np.bincount(np.frombuffer(text.encode(), dtype=np.uint8), minlength=256)
    return int(counts[_LETTERS].sum()), int(counts[_DIGITS].sum()), int(counts[_VISIBLE].sum())


_LETTERS = np.array([byte >= 0x80 or chr(byte).isalpha() for byte in range(256)])
_DIGITS = np.array([byte < 0x80 and chr(byte).isdigit() for byte in range(256)])
_VISIBLE = np.array([byte >= 0x80 or not chr(byte).isspace() for byte in range(256)])


@cache
def _ftfy() -> Any:
    try:
        import ftfy
    except ImportError:
        raise UserError("mending text needs the package ftfy: pip install 'daybreak[data]'") from None
    return ftfy


def _language_of(text: str) -> str:
    """Raises UserError: py3langid is not installed."""
    try:
        from py3langid.langid import classify
    except ImportError:
        raise UserError("telling languages needs the package py3langid: pip install 'daybreak[language]'") from None
    return str(classify(text)[0])
