"""Archives: read member by member, by the reader for each name; what could harm is refused, loudly."""

import bz2
import gzip
import io
import json
import lzma
import stat
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd

from daybreak.data import archives
from daybreak.data.documents import PLAIN, Tally
from daybreak.data.inputs import file_input
from daybreak.errors import UserError

TARS: dict[str, Callable[[bytes], bytes]] = {
    "a.tar": bytes,
    "a.tar.gz": gzip.compress,
    "a.tgz": gzip.compress,
    "a.tar.xz": lzma.compress,
    "a.tar.bz2": bz2.compress,
    "a.tar.zst": zstd.compress,
}
Members = dict[str, bytes]


def tar_of(members: Members, *extra: tarfile.TarInfo) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info in extra:
            archive.addfile(info)
    return packed.getvalue()


def zip_of(members: Members, *extra: zipfile.ZipInfo) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for info in extra:
            archive.writestr(info, b"target")
    return packed.getvalue()


def read(path: Path, tally: Tally | None = None) -> list[str]:
    return ["".join(document.pieces) for document in file_input(path, PLAIN).read(tally or Tally())]


MEMBERS = {
    "b.txt": "Täglich\n".encode(),
    "deep/er/a.jsonl": b'{"text": "one"}\n{"text": "two"}\n',
    "a.jsonl.xz": lzma.compress(b'{"text": "three"}\n'),
    "table.csv": b"id,text\n1,four\n",
    "empty.txt": b"",
}
TEXTS = ["Täglich\n", "one", "two", "three", "four"]


@pytest.mark.parametrize("name", [*TARS, "a.zip"])
def test_each_member_is_read_by_the_reader_for_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(zip_of(MEMBERS) if name == "a.zip" else TARS[name](tar_of(MEMBERS)))
    assert read(tmp_path / name) == TEXTS
    origins = [document.origin for document in file_input(tmp_path / name, PLAIN).read(Tally())]
    assert origins[:2] == [f"{tmp_path / name}:b.txt", f"{tmp_path / name}:deep/er/a.jsonl:1"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_members_that_are_not_text_by_name_are_counted(pack: Callable[[Members], bytes], tmp_path: Path) -> None:
    others = {"a.png": b"\0", ".hidden.txt": b"no", "inner.zip": b"no", "a.parquet": b"no", "__MACOSX/._b.txt": b"\0"}
    path = tmp_path / ("a.zip" if pack is zip_of else "a.tar")
    path.write_bytes(pack({**others, "b.txt": b"yes"}))
    tally = Tally()
    assert read(path, tally) == ["yes"]
    assert tally.passed == {archives.UNREADABLE_MEMBERS: 5}


@pytest.mark.parametrize("pack", [tar_of, zip_of])
@pytest.mark.parametrize("name", ["../x.txt", "a/../../x.txt", "/etc/x.txt", "a/..", "C:\\x.txt", "..\\x.txt"])
def test_a_member_that_leads_out_of_the_folder_is_refused(
    name: str, pack: Callable[[Members], bytes], tmp_path: Path
) -> None:
    path = tmp_path / ("a.zip" if pack is zip_of else "a.tar")
    path.write_bytes(pack({"good.txt": b"good", name: b"bad"}))
    with pytest.raises(UserError) as refusal:
        read(path)
    assert str(path) in str(refusal.value)
    assert repr(name) in str(refusal.value)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, tmp_path: Path) -> None:
    info = tarfile.TarInfo("odd.txt")
    info.type, info.linkname = kind, "good.txt"
    (tmp_path / "a.tar").write_bytes(tar_of({"good.txt": b"good"}, info))
    with pytest.raises(UserError, match=r"a\.tar is refused: its member 'odd\.txt' is a link or a device"):
        read(tmp_path / "a.tar")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_a_zip_are_refused(kind: int, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("odd.txt")
    info.external_attr = (kind | 0o777) << 16
    (tmp_path / "a.zip").write_bytes(zip_of({"good.txt": b"good"}, info))
    with pytest.raises(UserError, match=r"a\.zip is refused: its member 'odd\.txt' is a link or a device"):
        read(tmp_path / "a.zip")


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    packed = bytearray(zip_of({"a.txt": b"secret"}))
    packed[packed.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(packed)
    with pytest.raises(UserError, match=r"a\.zip is refused: its member 'a\.txt' is encrypted"):
        read(tmp_path / "a.zip")


BOMB = b"0" * 3_000_000  # packed a thousandfold


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.xz", "a.tar.zst", "a.zip", "inside.zip"])
@pytest.mark.parametrize("members", [1, 3], ids=["one member", "several"])
def test_a_bomb_is_refused_in_bounded_memory(
    name: str, members: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_HARMLESS_BYTES", 1_000_000)
    content = {f"{number}.txt": BOMB[: len(BOMB) // members] for number in range(members)}
    if name == "inside.zip":  # a packed member of an archive that is not packed further
        content = {f"{number}.txt.xz": lzma.compress(text) for number, text in enumerate(content.values())}
    path = tmp_path / name
    path.write_bytes(zip_of(content) if name.endswith(".zip") else TARS[name](tar_of(content)))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=rf"{name} is refused: it unpacks to more than .* 200 times its own size"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()


def test_text_that_packs_well_is_no_bomb(tmp_path: Path) -> None:
    (tmp_path / "a.tar.xz").write_bytes(lzma.compress(tar_of({"a.txt": BOMB})))
    (tmp_path / "a.zip").write_bytes(zip_of({"a.txt": BOMB}))
    assert [len(text) for path in sorted(tmp_path.iterdir()) for text in read(path)] == [len(BOMB)] * 2


@pytest.mark.parametrize("name", [*TARS, "a.zip"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.6, 0.99])
def test_an_archive_that_breaks_off_is_named(name: str, kept: float, tmp_path: Path) -> None:
    members = {f"{number}.txt": json.dumps([number, *range(number, 3000)]).encode() for number in range(5)}
    packed = zip_of(members) if name == "a.zip" else TARS[name](tar_of(members))
    end = int(len(packed) * kept)
    if name == "a.tar" and kept == 0.99:
        end = len(packed.rstrip(b"\0"))
    (tmp_path / name).write_bytes(packed[:end])
    with pytest.raises(UserError, match=name):
        read(tmp_path / name)


@pytest.mark.parametrize("at", [0, 1], ids=["first header", "second header"])
def test_a_tar_with_a_damaged_header_is_named(at: int, tmp_path: Path) -> None:
    """tarfile itself takes all but the first for the end of the archive."""
    packed = bytearray(tar_of({"a.txt": b"a" * 600, "b.txt": b"b", "c.txt": b"c"}))
    place = at * (512 + 1024) + 20
    packed[place] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(packed)
    with pytest.raises(UserError, match=r"a\.tar"):
        read(tmp_path / "a.tar")


def test_a_tar_whose_end_is_cut_between_two_members_is_named(tmp_path: Path) -> None:
    packed = tar_of({"a.txt": b"a" * 600, "b.txt": b"b"})
    (tmp_path / "a.tar").write_bytes(packed[: 512 + 1024])
    with pytest.raises(UserError, match=r"a\.tar cannot be read: it is damaged or breaks off at byte 1,536"):
        read(tmp_path / "a.tar")


def test_a_zip_whose_content_is_damaged_is_named(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a.txt", "some text that is stored")
    (tmp_path / "a.zip").write_bytes(packed.getvalue().replace(b"some text", b"same text", 1))
    with pytest.raises(UserError, match=r"a\.zip:a\.txt cannot be read: Bad CRC"):
        read(tmp_path / "a.zip")


def test_a_zip_that_is_packed_once_more_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip.gz").write_bytes(gzip.compress(zip_of({"a.txt": b"x"})))
    with pytest.raises(UserError, match=r"a\.zip\.gz is packed twice"):
        read(tmp_path / "a.zip.gz")


def test_memory_does_not_grow_with_the_number_of_members(tmp_path: Path) -> None:
    peaks = []
    for count in (300, 2000):
        (tmp_path / "a.tar").write_bytes(tar_of({f"{number}.txt": b"x" for number in range(count)}))
        tracemalloc.start()
        try:
            assert sum(1 for _ in file_input(tmp_path / "a.tar", PLAIN).read(Tally())) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
