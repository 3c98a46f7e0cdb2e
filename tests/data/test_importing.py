"""Token files of other tools, written here by the formulas of those tools, and read as they lie."""

import json
import struct
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest

from daybreak import Recipe, cli, train
from daybreak.data.document_starts import DocumentStarts
from daybreak.data.importing import import_files
from daybreak.data.shards import SPLITS, Corpus
from daybreak.data.token_files import KINDS
from daybreak.data.tokenizer import END_OF_TEXT, GPT2_PATTERN, Tokenizer
from daybreak.errors import UserError
from daybreak.files import read_sealed, sha256_file
from daybreak.verify import verify

END = 256
DOCUMENTS = [b"the first", b"", b"a second one, which is longer", b"x", "naïve 🌍".encode(), b"the last of them"]
OTHERS = [b"text that is held out", b"and more of it"]

Documents = Sequence[Sequence[int]]


def in_front(documents: Sequence[bytes]) -> list[list[int]]:
    """As llm.c and build-nanogpt have it."""
    return [[END, *document] for document in documents]


def behind(documents: Sequence[bytes]) -> list[list[int]]:
    """As nanoGPT and datatrove have it."""
    return [[*document, END] for document in documents]


def joined(documents: Documents) -> list[int]:
    return [token for document in documents for token in document]


def starts_of(documents: Documents) -> list[int]:
    return [0, *accumulate(map(len, documents))][:-1]


def write_nanogpt(path: Path, tokens: Sequence[int]) -> Path:
    path.write_bytes(struct.pack(f"<{len(tokens)}H", *tokens))
    return path


def write_llm_c(path: Path, tokens: Sequence[int], magic: int = 20240520, version: int = 1, code: str = "H") -> Path:
    header = struct.pack("<256i", magic, version, len(tokens), *[0] * 253)
    path.write_bytes(header + struct.pack(f"<{len(tokens)}{code}", *tokens))
    return path


def write_npy(path: Path, tokens: Sequence[int]) -> Path:
    np.save(path, np.asarray(tokens, dtype=np.uint16))
    return path


def write_datatrove(path: Path, documents: Documents, code: str = "H", name: str = "bytes|2") -> Path:
    tokens, ends = joined(documents), list(accumulate(map(len, documents)))
    path.write_bytes(struct.pack(f"<{len(tokens)}{code}", *tokens))
    Path(f"{path}.index").write_bytes(struct.pack(f"<{len(ends)}Q", *ends))
    Path(f"{path}.metadata").write_text(f"{name}\n{len(tokens)}\n{len(tokens)} T")
    return path


def write(kind: str, folder: Path, name: str, documents: Documents) -> Path:
    if kind == "datatrove":
        return write_datatrove(folder / f"{name}.ds", documents)
    if kind == "npy":
        return write_npy(folder / f"{name}.npy", joined(documents))
    writer = {"nanogpt": write_nanogpt, "llm.c": write_llm_c}[kind]
    return writer(folder / f"{name}.bin", joined(documents))


def tokens_of(corpus: Corpus, split: str = "train") -> list[int]:
    stream = corpus.stream(split)
    return stream.read(0, len(stream)).tolist()


def starts_in(corpus: Corpus, split: str = "train") -> list[int]:
    starts = DocumentStarts(corpus, split)
    return starts.read(0, len(starts))[:-1].tolist()


def wide_tokenizer(folder: Path) -> Path:
    """70,000 ids, which need four bytes each."""
    ranks = {bytes([value]): value for value in range(256)}
    ranks |= {b"w" + number.to_bytes(3, "big"): number for number in range(256, 69_999)}
    path = folder / "wide.json"
    path.write_text(json.dumps(Tokenizer("wide", GPT2_PATTERN, ranks, {END_OF_TEXT: 69_999}).to_json()))
    return path


def held_out(folder: Path) -> Path:
    return write_nanogpt(folder / "held-out.bin", joined(behind(OTHERS)))


@pytest.mark.parametrize("laid", [in_front, behind])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_read_as_it_lies(kind: str, laid: Callable[..., list[list[int]]], tmp_path: Path) -> None:
    paths = [write(kind, tmp_path, name, laid(each)) for name, each in (("a", DOCUMENTS), ("b", OTHERS))]
    corpus = import_files(paths[:1], tmp_path / "out", tokenizer="bytes", validation=paths[1:])
    for split, documents in (("train", DOCUMENTS), ("validation", OTHERS)):
        assert tokens_of(corpus, split) == joined(laid(documents))
        assert starts_in(corpus, split) == starts_of(laid(documents))
        assert corpus.split(split).documents == len(documents)
        assert corpus.split(split).bytes == sum(map(len, documents))
    assert Corpus.open(tmp_path / "out").identity == corpus.identity
    assert [each for each in verify(tmp_path / "out") if each.problem] == []


@pytest.mark.parametrize("kind", ["llm.c", "datatrove"])
def test_ids_of_four_bytes_are_read_as_they_lie(kind: str, tmp_path: Path) -> None:
    documents = [[69_999, 65_536, 5], [69_999, 69_998, 65_535, 300]]
    if kind == "llm.c":
        path = write_llm_c(tmp_path / "a.bin", joined(documents), magic=20240801, version=7, code="I")
    else:
        path = write_datatrove(tmp_path / "a.ds", documents, code="I", name="meta-llama/Llama-3.1-8B|4")
    corpus = import_files([path], tmp_path / "out", tokenizer=str(wide_tokenizer(tmp_path)), share=0.5)
    assert tokens_of(corpus) + tokens_of(corpus, "validation") == joined(documents)
    assert corpus.train.bytes + corpus.validation.bytes == 4 + 1 + 4 + 4 + 4


@pytest.mark.parametrize("laid", [in_front, behind])
def test_documents_run_over_files_in_either_layout(laid: Callable[..., list[list[int]]], tmp_path: Path) -> None:
    tokens = joined(laid(DOCUMENTS))
    for cut in range(1, len(tokens), 1 if laid is behind else 5):
        if laid is behind and tokens[cut - 1] != END:
            continue  # the first file would tell its layout by nothing
        (folder := tmp_path / str(cut)).mkdir()
        files = [write_llm_c(folder / "a.bin", tokens[:cut]), write_llm_c(folder / "b.bin", tokens[cut:])]
        corpus = import_files(files, folder / "out", tokenizer="bytes", validation=[held_out(folder)])
        assert tokens_of(corpus) == tokens
        assert starts_in(corpus) == starts_of(laid(DOCUMENTS))


def test_a_file_that_neither_begins_nor_ends_with_an_end_of_text_is_read_as_its_kind_has_it(tmp_path: Path) -> None:
    tokens = [1, 2, END, 3, END, 4]
    for kind, starts in {"llm.c": [0, 2, 4], "npy": [0, 2, 4], "nanogpt": [0, 3, 5]}.items():
        path = {"llm.c": write_llm_c, "npy": write_npy, "nanogpt": write_nanogpt}[kind](
            tmp_path / f"{kind}{'.npy' if kind == 'npy' else '.bin'}", tokens
        )
        corpus = import_files([path], tmp_path / f"out-{kind}", tokenizer="bytes", validation=[held_out(tmp_path)])
        assert starts_in(corpus) == starts


def test_an_index_tells_documents_apart_that_no_token_does(tmp_path: Path) -> None:
    """datatrove adds no end-of-text unless asked to; a document without a token is none."""
    paths = [
        write_datatrove(tmp_path / "a.ds", [[1, 2], [], [3], [4, 5, 6], []]),
        write_datatrove(tmp_path / "b.ds", [[7], [8, 9]]),
    ]
    corpus = import_files(paths, tmp_path / "out", tokenizer="bytes", validation=[held_out(tmp_path)])
    assert tokens_of(corpus) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert starts_in(corpus) == [0, 2, 3, 6, 7]


def test_blocks_that_are_read_at_once_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for laid in (in_front, behind):
        for kind in ("nanogpt", "datatrove"):
            path = write(kind, tmp_path, f"{laid.__name__}-{kind}", laid(DOCUMENTS))
            manifests = []
            for block in (1, 2, 7, 1 << 20):
                monkeypatch.setattr("daybreak.data.importing._BLOCK", block)
                out = tmp_path / f"{laid.__name__}-{kind}-{block}"
                manifests.append(
                    read_sealed(import_files([path], out, tokenizer="bytes", share=0.4).path / "manifest.json")
                )
            assert all(manifest == manifests[0] for manifest in manifests)


@pytest.mark.parametrize("laid", [in_front, behind])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.9, 0.999])
def test_the_tail_is_kept_for_validation_from_the_start_of_a_document(
    share: float, laid: Callable[..., list[list[int]]], tmp_path: Path
) -> None:
    documents = laid([bytes([65 + number]) * (5 + number * 7 % 30) for number in range(40)])
    tokens, starts = joined(documents), starts_of(documents)
    paths = [
        write_llm_c(tmp_path / "a.bin", joined(documents[:15])),
        write_llm_c(tmp_path / "b.bin", joined(documents[15:])),
    ]
    corpus = import_files(paths, tmp_path / "out", tokenizer="bytes", share=share)
    assert tokens_of(corpus) + tokens_of(corpus, "validation") == tokens
    kept = round(len(tokens) * share)
    near = [start for start in starts if len(tokens) - kept <= start < len(tokens) - kept + kept // 2]
    assert corpus.train.tokens == (near[0] if near else len(tokens) - kept)
    assert starts_in(corpus) == [start for start in starts if start < corpus.train.tokens]
    assert starts_in(corpus, "validation") == sorted(
        {0, *(s - corpus.train.tokens for s in starts if s >= corpus.train.tokens)}
    )


def test_the_tail_of_text_without_documents_is_cut_at_its_place(tmp_path: Path) -> None:
    """nanoGPT's tiny Shakespeare has no end-of-text at all."""
    path = write_nanogpt(tmp_path / "train.bin", list(b"to be or not to be, that is the question" * 25))
    corpus = import_files([path], tmp_path / "out", tokenizer="bytes")
    assert (corpus.train.tokens, corpus.validation.tokens) == (990, 10)
    assert (corpus.train.documents, corpus.validation.documents) == (1, 1)
    assert (corpus.train.bytes, corpus.validation.bytes) == (990, 10)


def test_nothing_is_copied(tmp_path: Path) -> None:
    paths = [write_llm_c(tmp_path / f"{name}.bin", joined(in_front([b"text " * 50_000] * 2))) for name in "ab"]
    corpus = import_files(paths, tmp_path / "out", tokenizer="bytes")
    own = [path for path in corpus.path.iterdir() if not path.is_symlink()]
    assert sum(path.stat().st_size for path in own) < 20_000 < sum(path.stat().st_size for path in paths) / 50
    links = [path for path in corpus.path.iterdir() if path.is_symlink()]
    assert {link.stat().st_ino for link in links} == {path.stat().st_ino for path in paths}
    assert [path.stat().st_nlink for path in paths] == [1, 1]


def test_a_file_that_two_splits_share_is_hashed_once(tmp_path: Path) -> None:
    path = write_llm_c(tmp_path / "a.bin", joined(in_front(DOCUMENTS * 9)))
    corpus = import_files([path], tmp_path / "out", tokenizer="bytes", share=0.3)
    shared = [(size, sha256) for file, size, sha256 in corpus.files() if file.is_symlink()]
    assert shared == [(path.stat().st_size, sha256_file(path))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_anywhere_in_a_file_is_found(kind: str, tmp_path: Path) -> None:
    path = write(kind, tmp_path, "a", behind(DOCUMENTS))
    corpus = import_files([path], tmp_path / "out", tokenizer="bytes", share=0.3)
    content = path.read_bytes()
    for place in range(0, len(content), 11):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        wrong = [each.problem for each in verify(corpus.path) if each.problem]
        assert len(wrong) == 1
        assert "damaged: its SHA-256" in wrong[0]
        with pytest.raises(UserError, match=r"train-00000\.bin is damaged"):
            Corpus.open(corpus.path)
    path.write_bytes(content)
    Corpus.open(corpus.path)


@pytest.mark.parametrize("change", [lambda content: content[:-2], lambda content: content + b"\0\0"])
def test_a_file_of_another_length_is_found(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = write_llm_c(tmp_path / "a.bin", joined(in_front(DOCUMENTS)))
    corpus = import_files([path], tmp_path / "out", tokenizer="bytes", share=0.3)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=r"train-00000\.bin is damaged"):
        Corpus.open(corpus.path)


def test_a_file_that_was_moved_is_missed_by_its_name_and_found_again_by_a_new_link(tmp_path: Path) -> None:
    path = write_nanogpt(tmp_path / "a.bin", joined(behind(DOCUMENTS)))
    corpus = import_files([path], tmp_path / "out", tokenizer="bytes", validation=[held_out(tmp_path)])
    moved = path.rename(tmp_path / "b.bin")
    with pytest.raises(UserError, match=r"train-00000\.bin is missing: it leads to .*a\.bin"):
        Corpus.open(corpus.path)
    (corpus.path / "train-00000.bin").unlink()
    (corpus.path / "train-00000.bin").symlink_to(moved)
    assert Corpus.open(corpus.path).identity == corpus.identity


def test_manifests_of_prepared_corpora_are_what_they_were(corpus: Corpus, tmp_path: Path) -> None:
    known = {"file", "tokens", "documents", "sha256", "documents_sha256"}
    bare = import_files([held_out(tmp_path)], tmp_path / "bare", tokenizer="bytes", validation=[
        write_nanogpt(tmp_path / "b.bin", joined(behind(DOCUMENTS)))
    ])  # fmt: skip
    for each in (corpus, bare):
        splits = read_sealed(each.path / "manifest.json")["splits"]
        assert all(set(shard) == known for name in SPLITS for shard in splits[name]["shards"])


def short_header(folder: Path) -> Path:
    path = write_llm_c(folder / "a.bin", [1, 2])
    path.write_bytes(path.read_bytes()[:1000])
    return path


def header_of_more(folder: Path) -> Path:
    path = write_llm_c(folder / "a.bin", [1, 2, 3])
    path.write_bytes(path.read_bytes()[:-2])
    return path


def header_of_fewer(folder: Path) -> Path:
    path = write_llm_c(folder / "a.bin", [1, 2, 3])
    path.write_bytes(path.read_bytes() + b"\1\0")
    return path


def header_of_a_negative_number(folder: Path) -> Path:
    path = folder / "a.bin"
    path.write_bytes(struct.pack("<256i", 20240520, 1, -512, *[0] * 253))
    return path


def odd_bytes(folder: Path) -> Path:
    (folder / "a.bin").write_bytes(b"\1\0\2")
    return folder / "a.bin"


def empty(folder: Path) -> Path:
    (folder / "a.bin").write_bytes(b"")
    return folder / "a.bin"


def empty_npy(folder: Path) -> Path:
    return write_npy(folder / "a.npy", [])


def of_floats(folder: Path) -> Path:
    np.save(folder / "a.npy", np.ones(5))
    return folder / "a.npy"


def of_two_dimensions(folder: Path) -> Path:
    np.save(folder / "a.npy", np.ones((5, 2), dtype=np.uint16))
    return folder / "a.npy"


def of_big_endian_ids(folder: Path) -> Path:
    np.save(folder / "a.npy", np.ones(5, dtype=">u2"))
    return folder / "a.npy"


def of_objects(folder: Path) -> Path:
    """Which only pickle could read."""
    np.save(folder / "a.npy", np.asarray([{}], dtype=object), allow_pickle=True)
    return folder / "a.npy"


def cut_npy(folder: Path) -> Path:
    path = write_npy(folder / "a.npy", [1, 2, 3])
    path.write_bytes(path.read_bytes()[:-2])
    return path


def longer_npy(folder: Path) -> Path:
    path = write_npy(folder / "a.npy", [1, 2, 3])
    path.write_bytes(path.read_bytes() + b"\1\0")
    return path


def index_of_another_file(folder: Path) -> Path:
    path = write_datatrove(folder / "a.ds", [[1, 2], [3]])
    Path(f"{path}.index").write_bytes(struct.pack("<2Q", 2, 4))
    return path


def index_that_falls(folder: Path) -> Path:
    path = write_datatrove(folder / "a.ds", [[1, 2], [3], [4]])
    Path(f"{path}.index").write_bytes(struct.pack("<3Q", 3, 2, 4))
    return path


def cut_index(folder: Path) -> Path:
    path = write_datatrove(folder / "a.ds", [[1, 2], [3]])
    Path(f"{path}.index").write_bytes(struct.pack("<2Q", 2, 3)[:-1])
    return path


def metadata_of_another_file(folder: Path) -> Path:
    path = write_datatrove(folder / "a.ds", [[1, 2], [3]])
    Path(f"{path}.metadata").write_text("gpt2|2\n4\n4 T")
    return path


def metadata_of_something_else(folder: Path) -> Path:
    path = write_datatrove(folder / "a.ds", [[1, 2], [3]])
    Path(f"{path}.metadata").write_text("{}")
    return path


def metadata_of_four_bytes(folder: Path) -> Path:
    return write_datatrove(folder / "a.ds", [[1, 2], [3]], code="I", name="gpt2|4")


def unknown_kind(folder: Path) -> Path:
    return write_nanogpt(folder / "tokens.dat", [1, 2])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (short_header, "1,000 bytes, fewer than the 1,024"),
        (header_of_more, "speaks of 3 tokens, which are 1,030 bytes, but it has 1,028"),
        (header_of_fewer, "speaks of 3 tokens, which are 1,030 bytes, but it has 1,032"),
        (header_of_a_negative_number, "-512 tokens"),
        (lambda folder: write_llm_c(folder / "a.bin", [1], version=3), "version 3"),
        (lambda folder: write_llm_c(folder / "a.bin", [1], magic=20240522), "evaluation"),
        (lambda folder: write_llm_c(folder / "a.bin", [1], 20240801, 7, "I"), "ids of 4 bytes.*another one made it"),
        (odd_bytes, "3 bytes, which are no whole ids"),
        (empty, "no tokens"),
        (empty_npy, "no tokens|cannot mmap"),
        (of_floats, "float64"),
        (of_two_dimensions, r"shape \(5, 2\)"),
        (of_big_endian_ids, ">u2"),
        (of_objects, "no NumPy file of tokens"),
        (cut_npy, "cut short"),
        (longer_npy, "its header speaks of 134"),
        (index_of_another_file, "ends at token 4, but there are 3"),
        (index_that_falls, "do not rise"),
        (cut_index, "15 bytes"),
        (metadata_of_another_file, "speaks of 4 tokens.*has 3"),
        (metadata_of_something_else, "is not datatrove's"),
        (metadata_of_four_bytes, "ids of 4 bytes"),
        (unknown_kind, "--format nanogpt, llm.c, npy, datatrove"),
        (lambda folder: write_nanogpt(folder / "a.bin", [1, 2, 257, 3]), "the id 257 as token 2.*only 257 ids"),
        (lambda folder: write_nanogpt(folder / "a.bin", [1]), "one token"),
        (lambda folder: folder / "gone.bin", "is no file of tokens"),
        (lambda folder: folder, "is no file of tokens"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_what_is_wrong(
    make: Callable[[Path], Path], said: str, tmp_path: Path
) -> None:
    (folder := tmp_path / "files").mkdir()
    path = make(folder)
    with pytest.raises(UserError, match=said) as caught:
        import_files([path], tmp_path / "out", tokenizer="bytes")
    assert str(path) in str(caught.value)
    assert [each.name for each in tmp_path.iterdir()] == ["files"]


def test_a_kind_that_is_given_is_believed_if_the_file_can_be_of_it(tmp_path: Path) -> None:
    path = write_nanogpt(tmp_path / "tokens.dat", list(range(200)))
    corpus = import_files([path], tmp_path / "out", tokenizer="bytes", kind="nanogpt")
    assert tokens_of(corpus) == list(range(198))
    with pytest.raises(UserError, match=r"no file of llm\.c|fewer than"):
        import_files([path], tmp_path / "other", tokenizer="bytes", kind="llm.c")


def test_what_contradicts_itself_is_refused(tmp_path: Path) -> None:
    path, other = write_nanogpt(tmp_path / "a.bin", [1, 2, END]), held_out(tmp_path)
    (tmp_path / "link.bin").symlink_to(path)
    with pytest.raises(UserError, match="given twice"):
        import_files([path], tmp_path / "out", tokenizer="bytes", validation=[tmp_path / "link.bin"])
    with pytest.raises(UserError, match="--val and --validation"):
        import_files([path], tmp_path / "out", tokenizer="bytes", validation=[other], share=0.1)
    with pytest.raises(UserError, match=r"--val 1\.5"):
        import_files([path], tmp_path / "out", tokenizer="bytes", share=1.5)
    for learned in ("chars", "bpe:300"):
        with pytest.raises(UserError, match="learned from text"):
            import_files([path], tmp_path / "out", tokenizer=learned)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        import_files([path], tmp_path / "out", tokenizer="bytes")


def test_a_loss_mask_is_not_passed_over_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_datatrove(tmp_path / "a.ds", [[1, 2, END], [3, END]], name="gpt2|2")
    Path(f"{path}.loss").write_bytes(b"\1\0\1\1\1")
    import_files([path], tmp_path / "out", tokenizer="bytes")
    told = capsys.readouterr().err
    assert "a.ds.loss is passed over" in told
    assert "made with tokenizer gpt2" in told


RECIPE = """
budget = "8 steps"
data = { window = 16 }
batch = { tokens = 128 }
model = { layers = 1, heads = 2, dim = 16, context = 16, vocab_size = 257 }
optimizer = { lr = 1e-2 }
evaluation = { every = "50%", tokens = 64 }
execution = { micro_batch = 8, threads = 1, precision = "fp32" }
"""


def test_a_run_on_imported_tokens_is_the_run_on_prepared_ones(corpus: Corpus, tmp_path: Path) -> None:
    """Also where tokens lie behind a header, in several files, and validation is the tail of the last."""
    tokens, held = tokens_of(corpus), tokens_of(corpus, "validation")
    files = [
        write_llm_c(tmp_path / "a.bin", tokens[:5001]),
        write_npy(tmp_path / "b.npy", tokens[5001:9000]),
        write_nanogpt(tmp_path / "c.bin", tokens[9000:] + held),
    ]
    share = len(held) / (len(tokens) + len(held))
    imported = import_files(files, tmp_path / "out", tokenizer="bytes", share=share)
    assert tokens_of(imported, "validation") == held
    (tmp_path / "tiny.toml").write_text(RECIPE)
    recipe = Recipe.load(tmp_path / "tiny.toml")
    runs = [train(recipe, data=each.path, out=tmp_path / f"run-{each.path.name}") for each in (corpus, imported)]
    for kind in ("train", "validation"):
        losses = [[record["loss"] for record in run.metrics(kind)] for run in runs]
        assert losses[0] == losses[1]
        assert losses[0]
    assert runs[0].evaluate() == runs[1].evaluate()


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    """Forty megabytes; what is held is two blocks, of two bytes a token and of eight."""
    tokens = np.tile(np.asarray([END, *b"some words and no more"], dtype="<u2"), 900_000)
    (tmp_path / "a.bin").write_bytes(tokens.tobytes())
    size = tokens.nbytes
    tracemalloc.start()
    try:
        corpus = import_files([tmp_path / "a.bin"], tmp_path / "out", tokenizer="bytes")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert corpus.train.tokens + corpus.validation.tokens == len(tokens)
    assert size > 40_000_000
    assert peak < 25_000_000


def test_the_verb_imports_and_says_what_to_do_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_nanogpt(tmp_path / "train.bin", joined(behind(DOCUMENTS)))
    words = ["import", path, "--validation", held_out(tmp_path), "--tokenizer", "bytes", "--out", tmp_path / "out"]
    for extra, code in ((["--format", "parquet"], 2), (["--format", "nanogpt"], 0)):
        monkeypatch.setattr(sys, "argv", ["daybreak", *map(str, words), *extra])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert int(ended.value.code or 0) == code
        shown = capsys.readouterr()
        assert "parquet is not known; there are nanogpt, llm.c" in shown.err if code else "inspect" in shown.err
    assert f"{len(joined(behind(DOCUMENTS)))} tokens" in shown.out
