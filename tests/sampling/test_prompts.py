"""Prompts from files and standard input: read as they are, or refused with the line that is wrong."""

import io
import sys
from pathlib import Path

import pytest

from daybreak.errors import UserError
from daybreak.sampling.prompts import read_prompt, read_prompts


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("prompts.txt", "one\n  two \n\nthree", ["one", "  two ", "three"]),
        ("prompts.txt", "one\r\ntwo\r\n", ["one", "two"]),
        ("prompts.txt", "\ufeffone\n", ["one"]),
        ("prompts.txt", 'a\n{"prompt": "b"}\n', ["a", '{"prompt": "b"}']),
        ("prompts.txt", '{"text": "a"}\n', ['{"text": "a"}']),
        ("prompts.txt", '{"prompt": "a\\nb"}\n{"prompt": ""}\n', ["a\nb", ""]),
        ("prompts.jsonl", '{"prompt": "a\u2028b", "id": 3}\n\n{"prompt": "日"}', ["a\u2028b", "日"]),
    ],
)
def test_prompts_stand_one_a_line_or_in_json(tmp_path: Path, name: str, content: str, expected: list[str]) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert read_prompts(str(tmp_path / name)) == expected


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("empty.txt", b"", "holds no prompts"),
        ("blank.txt", b" \n\n", "holds no prompts"),
        ("latin.txt", b"caf\xe9\n", "is not UTF-8 at byte 3"),
        ("broken.jsonl", b'{"prompt": "a"}\n{"prompt": \n', r"line 2 is no JSON object with a text named .prompt."),
        ("other.jsonl", b'{"text": "a"}\n', "line 1 is no JSON object"),
        ("number.txt", b'{"prompt": "a"}\n\n{"prompt": 3}\n', "line 3 is no JSON object"),
        ("deep.jsonl", b"[" * 100_000, "line 1 is no JSON object"),
    ],
)
def test_what_is_wrong_with_prompts_is_said_with_its_place(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}.*{problem}"):
        read_prompts(str(tmp_path / name))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.txt cannot be read: No such file"):
        read_prompts(str(tmp_path / "missing.txt"))
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_prompts(str(tmp_path))


def test_standard_input_holds_prompts_or_one_prompt_of_many_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for content, prompts, prompt in ((b"a\nb\n", ["a", "b"], "a\nb"), (b"a\n\n", ["a"], "a\n"), (b"a", ["a"], "a")):
        for read, expected in ((lambda: read_prompts("-"), prompts), (read_prompt, prompt)):
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
            assert read() == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(UserError, match="standard input holds no prompts"):
        read_prompts("-")


def test_standard_input_that_is_closed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)  # as Python has it after <&-
    with pytest.raises(UserError, match="standard input is closed"):
        read_prompt()
