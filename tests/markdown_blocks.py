"""The code blocks of a Markdown file, and the commands in them.

A block that cannot run where tests do is marked in front, where readers do not see it:

    <!-- not run: needs eight GPUs -->
    <!-- not run where it says hub:: needs the network -->      the commands alone that hold this text
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?:^<!-- not run(?: where it says (?P<text>\S+?))?: (?P<reason>.+?) -->\n\s*)?"
    r"^```(?P<language>[\w.-]*)\n(?P<content>.*?)^```$",
    flags=re.DOTALL | re.MULTILINE,
)
_HEREDOC = re.compile(r"^cat > (\S+) <<'?(\w+)'?\n(.*?)^\2$", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        where: file and line, for messages.
        reason: why it is not run, or those of its commands are not that hold `text`; empty if all are.
    """

    where: str
    language: str
    content: str
    reason: str
    text: str

    def is_run(self, command: str = "") -> bool:
        """Whether it is to be run, or a command of it."""
        return not self.reason or (bool(self.text) and self.text not in command)

    @property
    def file_name(self) -> str | None:
        """What the first line says that it is to be saved as, `# wide.toml, …`."""
        named = re.match(r"# ([\w.-]+\.(?:toml|py))\b", self.content)
        return named[1] if named else None

    @property
    def files(self) -> dict[str, str]:
        """Files that a shell block writes, by `cat > NAME <<'END'`."""
        return {name: content for name, _, content in _HEREDOC.findall(self.content)}

    @property
    def commands(self) -> list[str]:
        """The lines of a shell block as a shell joins them, without comments and the files that it writes."""
        text = _HEREDOC.sub("", self.content).replace("\\\n", " ")
        return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def blocks_of(path: Path) -> Iterator[Block]:
    """All blocks of a file, in their order."""
    text = path.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("content"))
        yield Block(
            f"{path.name}:{line}", found["language"], found["content"], found["reason"] or "", found["text"] or ""
        )


def words_of(command: str) -> list[str]:
    """A command's words, as a shell splits them; of a pipe, those of its last program."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|;&")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words = list(lexer)
    return words[len(words) - words[::-1].index("|") :] if "|" in words else words


def of_daybreak(words: list[str]) -> list[str] | None:
    """The words from the verb on, if this starts Daybreak, by itself, Python or torchrun; else None."""
    if words[:1] == ["daybreak"]:
        return words[1:]
    for index in range(len(words) - 1):
        if words[index : index + 2] == ["-m", "daybreak"]:
            return words[index + 2 :]
    return None
