"""Files that are whole or absent, locks that end with their process."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daybreak.errors import UserError
from daybreak.files import (
    canonical_json,
    file_problem,
    locked,
    read_json,
    read_sealed,
    require_space,
    sha256_bytes,
    sha256_file,
    whole_folder,
    write_bytes,
    write_json,
    write_sealed,
)


def full_disk(_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_is_written_and_nothing_beside_it(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.bin", b"\x00new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.bin": b"\x00new"}


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    if broken == "fsync":
        monkeypatch.setattr(os, "fsync", full_disk)
    else:
        monkeypatch.setattr(Path, "replace", lambda *_: full_disk(None))
    with pytest.raises(UserError, match=r"no space left to write .*a\.bin"):
        write_bytes(path, b"new" * 1000)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"a.bin": b"old"}


def test_an_error_that_is_not_about_space_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_file_appears_only_once_its_bytes_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    sync, replace = os.fsync, Path.replace

    def recording_sync(descriptor: int) -> None:
        events.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        sync(descriptor)

    def recording_replace(path: Path, target: Path) -> Path:
        events.append(f"rename to {target.name}")
        return replace(path, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to tell which file a descriptor is")
    monkeypatch.setattr(os, "fsync", recording_sync)
    monkeypatch.setattr(Path, "replace", recording_replace)
    write_bytes(tmp_path / "a", b"new")
    assert events == ["sync .a.partial", "rename to a", f"sync {tmp_path.name}"]


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_canonical_json_is_ascii_and_keeps_the_value(value: object) -> None:
    written = canonical_json(value)
    assert written.isascii()
    assert json.loads(written) == value


def test_canonical_json_is_one_for_one_value() -> None:
    assert canonical_json({"b": 1, "a": [1, 2]}) == canonical_json({"a": [1, 2], "b": 1}) == b'{"a":[1,2],"b":1}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_json_is_written_for_people_and_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, 2.5, None], "a": "é"})
    assert read_json(tmp_path / "a.json") == {"b": [1, 2.5, None], "a": "é"}
    assert (tmp_path / "a.json").read_text().count("\n") > 3


def test_missing_and_damaged_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json does not exist"):
        read_json(tmp_path / "a.json")
    for content in (b"", b"{", b"\xff\xfe\x00", b'{"a": 1} x'):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.json is damaged"):
            read_json(tmp_path / "a.json")


SEALED = {"b": [1, 2.5, None], "a": "é", "nested": {"z": True, "a": {}}}


def test_what_is_sealed_is_read_back_without_its_seal(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_sealed(path, SEALED)
    assert read_sealed(path) == SEALED
    assert list(read_sealed(path)) == list(SEALED)
    written = json.loads(path.read_text())
    assert written.pop("seal") == hashlib.sha256(canonical_json(SEALED)).hexdigest()
    assert written == SEALED
    assert path.read_text().count("\n") > 3  # for people


@pytest.mark.parametrize("bit", range(8))
def test_no_flipped_bit_of_what_is_sealed_goes_unseen(tmp_path: Path, bit: int) -> None:
    path = tmp_path / "a.json"
    write_sealed(path, SEALED)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"a\.json is damaged"):
            read_sealed(path)


def test_no_byte_less_and_none_more_goes_unseen(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_sealed(path, SEALED)
    whole = path.read_bytes()
    others = [whole[:place] + whole[place + 1 :] for place in range(len(whole))]
    others += [whole[:place] for place in range(len(whole))]
    others += [whole[:place] + b" " + whole[place:] for place in range(len(whole) + 1)]
    for content in others:
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.json is damaged"):
            read_sealed(path)


def test_a_value_changed_by_hand_is_refused_until_it_is_sealed_again(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_sealed(path, SEALED)
    edited = json.loads(path.read_text()) | {"a": "e"}
    write_json(path, edited)
    with pytest.raises(UserError, match="does not fit its seal"):
        read_sealed(path)
    del edited["seal"]
    write_json(path, edited)
    with pytest.raises(UserError, match="does not fit its seal"):
        read_sealed(path)
    write_sealed(path, edited)
    assert read_sealed(path) == SEALED | {"a": "e"}


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b'{"a": NaN, "seal": "0"}', b'{"seal": NaN}'])
def test_what_was_never_sealed_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json"):
        read_sealed(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"b\.json does not exist"):
        read_sealed(tmp_path / "b.json")


def test_a_number_that_json_does_not_have_is_not_sealed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_sealed(path, SEALED)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_sealed(path, {"loss": float("nan")})
    assert path.read_bytes() == before


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    path, content = tmp_path / "a", b"content"
    assert file_problem(path, sha256_bytes(content)) == f"{path} is missing"
    path.write_bytes(content)
    assert file_problem(path, sha256_bytes(content)) is None
    assert file_problem(path, sha256_bytes(content), 7) is None
    assert "7 bytes instead of 8" in str(file_problem(path, sha256_bytes(content), 8))
    assert "SHA-256" in str(file_problem(path, sha256_bytes(b"Content"), 7))
    assert file_problem(tmp_path, sha256_bytes(content)) == f"{tmp_path} is missing"


def test_hashes_are_sha256(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == sha256_bytes(content) == hashlib.sha256(content).hexdigest()
    assert sha256_bytes(b"abc").startswith("ba7816bf8f01cfea")  # FIPS 180-2, B.1


def test_a_folder_takes_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "final"
    with whole_folder(final) as aside:
        (aside / "sub").mkdir()
        (aside / "sub" / "a").write_text("a")
        assert not final.exists()
        assert aside.parent == final.parent  # so that the rename cannot cross disks
    assert (final / "sub" / "a").read_text() == "a"
    assert not aside.exists()


def half_a_folder(final: Path, error: BaseException) -> None:
    with whole_folder(final) as aside:
        (aside / "a").write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError(), KeyboardInterrupt(), SystemExit()])
def test_a_folder_that_fails_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        half_a_folder(tmp_path / "final", error)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_on_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no space left to write .*final"):
        half_a_folder(tmp_path / "final", OSError(errno.ENOSPC, "No space left on device"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_begun_afresh_where_one_was_left_by_a_kill(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "other") as aside:
        leftover = tmp_path / aside.name.replace("other", "final")
    leftover.mkdir()
    (leftover / "old").write_text("old")
    with whole_folder(tmp_path / "final") as aside:
        assert aside == leftover
        assert list(aside.iterdir()) == []
    assert list((tmp_path / "final").iterdir()) == []


def test_a_folder_that_is_there_already_keeps_its_files(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "mine").write_text("mine")
    with pytest.raises(UserError, match="final exists by now"), whole_folder(tmp_path / "final") as aside:
        (aside / "a").write_text("a")
    assert [path.name for path in (tmp_path / "final").iterdir()] == ["mine"]


def test_two_do_not_fill_the_same_folder(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "final") as aside:
        (aside / "a").write_text("first")
        with (
            pytest.raises(UserError, match="final is being written by another process"),
            whole_folder(tmp_path / "final"),
        ):
            pytest.fail("both were let in")
    assert [path.read_text() for path in (tmp_path / "final").iterdir()] == ["first"]


def test_too_little_space_is_said_in_numbers(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    require_space(tmp_path / "not" / "yet", 1)
    with pytest.raises(UserError, match=r"no space for .*yet: 1,000,000,000,000 MB are needed, [0-9,]+ MB are free"):
        require_space(tmp_path / "not" / "yet", 10**18)


def test_space_is_measured_for_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    require_space(Path("not/yet"), 1)
    with pytest.raises(UserError, match="no space"):
        require_space(Path("not/yet"), 10**18)


HOLD = """
import sys, time
from pathlib import Path
from daybreak.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of `folder`."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_folder_in_use_is_refused_with_its_owner_and_free_once_that_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with holder(folder) as process:
        with pytest.raises(UserError, match=f"in use by process {process.pid};"), locked(folder):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locked(folder):
            pass


def test_a_refused_lock_leaves_the_owner_in_possession(tmp_path: Path) -> None:
    with holder(tmp_path) as process:
        for _ in range(3):
            with pytest.raises(UserError, match=str(process.pid)), locked(tmp_path):
                pass


def test_a_lock_is_free_again_behind_its_block_even_behind_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path):
        raise RuntimeError
    with holder(tmp_path):
        pass


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("no folder")
    with pytest.raises(UserError, match="run is a file"), locked(tmp_path / "run"):
        pass
