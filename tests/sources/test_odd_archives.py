"""Archives and tables with something odd in them: refused by name, and all the rest kept where that is agreed to."""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import (
    class_names,
    complaint,
    encode,
    make_images,
    make_splits,
    read,
    run_python,
    write_cifar_batches,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ule_datasets.base.errors import InputError
from ule_datasets.base.limits import Limit
from ule_datasets.data.parquet_pages import DICTIONARY, opened, pages
from ule_datasets.sources import parquet, tar
from ule_datasets.sources.forms import RawSample
from ule_datasets.sources.unusable import Unusable
from ule_datasets.sources.webdataset import Shard

IMAGES = [encode(image) for image in make_images(6, 1, 8).images]
END = bytes(2 * tar.BLOCK)


# --- tar archives ---------------------------------------------------------------------------------------------


def member(name: str, data: bytes = b"", **fields: Any) -> bytes:
    """One member as ``tarfile`` writes it."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % tar.BLOCK)


def pax(records: dict[str, str], *, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """An extended header."""
    content = b""
    for name, value in records.items():
        length = len(f" {name}={value}\n".encode())
        total = length + len(str(length + len(str(length))))
        content += f"{total} {name}={value}\n".encode()
    return member("pax", content, type=kind)


def sample(key: str, number: int) -> bytes:
    return member(f"{key}.png", IMAGES[number]) + member(f"{key}.cls", b"%d" % number)


def whole(odd: bytes = b"", *, end: bytes = END) -> bytes:
    """Samples ``a`` to ``d``, something odd in the middle of them."""
    return sample("a", 0) + sample("b", 1) + odd + sample("c", 2) + sample("d", 3) + end


def sparse_of_gnu(name: str, size: int) -> bytes:
    """A member of the old kind whose hole is of any size."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"\x80" + size.to_bytes(11, "big")
    return checked(header)


def checked(header: bytearray) -> bytes:
    """With the checksum that belongs to it."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def declared(name: str, size: int) -> bytes:
    """A header of a file of any size, without the file."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


TARS: dict[str, tuple[bytes, str, int]] = {
    "repeated in the sample": (
        whole(member("x.png", IMAGES[4]) + sample("x", 5)),
        r"t.tar \(x\): x.png is in the archive twice",
        4,
    ),
    "repeated later": (
        whole()[: -len(END)] + sample("a", 4) + END,
        r"\(a\): its members are in the archive a second",
        4,
    ),
    "twice the archive": (whole() + whole(), "there is more after its end mark at byte .*tar --ignore-zeros", 4),
    "text after the end": (whole(end=END + b"thanks for all the fish"), "there is more after its end mark", 4),
    "preallocated": (whole(end=bytes(2**21)), "it is empty from byte .* incomplete download", 4),
    "no end mark": (whole(end=b""), "cut off: it lacks the end mark", 4),
    "cut in a header": (whole(end=b"")[: -tar.BLOCK - 100], "it lacks the end mark", 3),
    "cut in an image": (whole()[: -len(END) - 3 * tar.BLOCK], "is cut off within d.png", 3),
    "damaged header": (whole(b"?" * tar.BLOCK), "a header in it is damaged at byte", 2),
    "a link to a member": (
        whole(member("x.png", type=tarfile.LNKTYPE, linkname="a.png") + member("x.cls", b"1")),
        r"\(x\): x.png is a link to another member: .*--hard-dereference",
        4,
    ),
    "a symbolic link": (
        whole(member("x.png", type=tarfile.SYMTYPE, linkname="/etc/passwd") + member("x.cls", b"1")),
        r"\(x\): x.png is a symbolic link: .*--dereference",
        4,
    ),
    "a device": (whole(member("x.png", type=tarfile.CHRTYPE) + member("x.cls", b"1")), "x.png is a device", 4),
    "a pipe": (whole(member("x.cls", type=tarfile.FIFOTYPE)), "x.cls is a named pipe", 4),
    "sparse, by GNU": (whole(sparse_of_gnu("x.png", 2**40) + member("x.cls", b"1")), "x.png is a sparse file", 4),
    "sparse, in a header": (
        whole(
            pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x.png"})
            + member("GNUSparseFile.0/x.png", b"0\n")
            + member("x.cls", b"1")
        ),
        "x.png is a sparse file: archive it without --sparse",
        4,
    ),
    "an extended header of 2 MB": (
        whole(pax({"comment": "x" * 2**21}) + member("x.png", IMAGES[4]) + member("x.cls", b"1")),
        "x.png is described by a header of 2,097,1.. bytes",
        4,
    ),
    "a damaged extended header": (whole(member("pax", b"99 path=x", type=tarfile.XHDTYPE)), "extended header in it", 2),
    "a negative size": (whole(pax({"size": "-512"}) + sample("x", 4)), "no file has such a size", 2),
    "an absurd size": (whole(declared("x.png", 2**60)), "no file has such a size", 2),
    "a size beyond the end": (whole(declared("x.png", 2**33)), "x.png takes 8,192 MiB, .*ULE_MAX_IMAGE_FILE", 2),
    "a class of 2 MB": (whole(member("x.png", IMAGES[4]) + member("x.cls", b"1" * 2**21)), "x.cls takes 2 MiB", 4),
    "a class of 5,000 digits": (
        whole(member("x.png", IMAGES[4]) + member("x.cls", b"1" * 5000)),
        "not a class number",
        4,
    ),
    "a class by name": (whole(member("x.png", IMAGES[4]) + member("x.cls", b"dog")), "holds b'dog', not a class", 4),
    "no image": (whole(member("readme.md", b"?")), r"\(readme\): expected one image .* found \['md'\]", 4),
    "dots": (
        whole(member("v1.0.png", IMAGES[4]) + member("v1.0.cls", b"4")),
        r"\(v1\): WebDataset takes a name up to its first dot for the key, so that v1.0.png has key 'v1': rename",
        4,
    ),
    "gzip, cut": (gzip.compress(whole(), mtime=0)[:-60], "its compressed data breaks off", 3),
    "gzip, and more": (gzip.compress(whole(), mtime=0) + b"more", "its compressed data breaks off", 4),
}


@pytest.mark.parametrize("name", TARS)
def test_what_is_odd_in_a_tar_archive_is_named_and_the_rest_can_be_kept(name: str, tmp_path: Path) -> None:
    content, message, kept = TARS[name]
    (tmp_path / "t.tar").write_bytes(content)
    with pytest.raises(InputError, match=f"unusable sample.*{message}") as caught:
        read(tmp_path)
    assert "--skip-unusable leaves such images out" in str(caught.value)
    source = read(tmp_path, skip_unusable=True)
    assert len(source.train) == kept
    assert sorted(source.train.labels.tolist()) == list(range(kept))
    assert source.findings.left_out
    assert any(re.search(message, problem) for _, problem in source.findings.left_out)


FINE: dict[str, bytes] = {
    "plain": whole(),
    "one empty block": whole(end=bytes(tar.BLOCK)),
    "gzip": gzip.compress(whole(), mtime=0),
    "folders": whole(member("inside", type=tarfile.DIRTYPE)),
    "no dot": whole(member("LICENSE", b"?")),
    "hidden": whole(member("._x.png", b"?") + member("./.x.cls", b"?") + member("__MACOSX/y.png", b"?")),
    "of webdataset": whole(member("__meta__", b"?") + member("__x__/y.png", b"?")),
    "global header": whole(pax({"comment": "of git"}, kind=tarfile.XGLTYPE)),
    "a device that is no part": whole(member("x", type=tarfile.CHRTYPE)),
    "a large text beside": whole()[: -len(END)] + member("d.txt", bytes(2**21)) + END,
    "long names": sample("a", 0) + sample("b" * 300, 1) + sample("c", 2) + sample("d", 3) + END,
    "names of pax": sample("a", 0)
    + pax({"path": "é" * 200 + ".png", "size": str(len(IMAGES[1]))})
    + member("short", IMAGES[1])
    + pax({"path": "é" * 200 + ".cls"})
    + member("short", b"1")
    + sample("c", 2)
    + sample("d", 3)
    + END,
}


@pytest.mark.parametrize("name", FINE)
def test_archives_of_every_tool_are_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(FINE[name])
    source = read(tmp_path)
    plain = tmp_path / "plain.tar"
    plain.write_bytes(whole())
    assert (source.train.digest, source.train.keys) == (read(plain).train.digest, read(plain).train.keys)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@settings(max_examples=25, deadline=None)
@given(members=st.lists(st.tuples(st.text("abé./_", min_size=1, max_size=120), st.binary(max_size=1500)), max_size=6))
def test_members_are_those_that_the_standard_library_finds(form: int, members: list[tuple[str, bytes]]) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            try:
                archive.addfile(info, io.BytesIO(data))
            except ValueError:  # too long for this format
                stream.truncate(archive.offset)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        files = [info for info in archive if info.isfile()]
        expected = [(info.name, archive.extractfile(info).read()) for info in files]  # type: ignore[union-attr]
    stream.seek(0)
    assert [(found.name, found.read()) for found in tar.members(stream)] == expected


def test_every_cut_of_an_archive_is_named_and_every_whole_sample_kept(tmp_path: Path) -> None:
    content = whole()
    path = tmp_path / "t.tar"
    ends = [len(sample("a", number)) for number in range(4)]
    for length in range(100, len(content) - len(END), 97):
        path.write_bytes(content[:length])
        given = list(Shard(path).samples())
        kept = [found for found in given if isinstance(found, RawSample)]
        assert isinstance(given[-1], Unusable)
        assert [found.label for found in kept] == list(range(len(kept)))
        assert len(kept) >= sum(length >= sum(ends[: number + 1]) for number in range(4))


def test_neither_holes_nor_compressed_zeros_take_memory(tmp_path: Path) -> None:
    zeros = member("x.txt", bytes(2**24))
    bombs = {
        "sparse": whole(sparse_of_gnu("x.png", 2**40)),
        "zeros": gzip.compress(whole(zeros), 1, mtime=0),
        "header": gzip.compress(whole(pax({"comment": "x" * 2**24}) + sample("x", 1)), 1, mtime=0),
    }
    for name, content in bombs.items():
        path = tmp_path / f"{name}.tar"
        path.write_bytes(content)
        tracemalloc.start()
        assert sum(isinstance(found, RawSample) for found in Shard(path).samples()) == 4
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**23, name


def test_a_limit_is_raised_by_a_variable_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes(whole(member("x.png", bytes(3 * 2**20)) + member("x.cls", b"4")))
    monkeypatch.setenv("ULE_MAX_IMAGE_FILE", "2")
    assert "x.png takes 3 MiB, allowed are 2: ULE_MAX_IMAGE_FILE (in MiB) allows more" in complaint(lambda: read(path))
    monkeypatch.setenv("ULE_MAX_IMAGE_FILE", "4")
    assert "(x) is not a readable image" in complaint(lambda: read(path))
    monkeypatch.setenv("ULE_MAX_IMAGE_FILE", "much")
    assert complaint(lambda: read(path)) == "ULE_MAX_IMAGE_FILE is 'much', must be a number of mebibytes"


# --- Parquet --------------------------------------------------------------------------------------------------

LABELS = [0, 1, 2, 3]
ENCODED = IMAGES[:4]
AS_STRUCT = [{"bytes": data, "path": f"{number}.png"} for number, data in enumerate(ENCODED)]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def tabled(path: Path, images: Any, labels: Any, **options: Any) -> Path:
    pq.write_table(pa.table({"image": images, "label": labels}), path / "t.parquet", **options)
    return path


COLUMNS: dict[str, tuple[Any, Any]] = {
    "struct": (AS_STRUCT, LABELS),
    "binary": (ENCODED, LABELS),
    "binary view": (pa.array(ENCODED, pa.binary_view()), LABELS),
    "large binary": (pa.array(ENCODED, pa.large_binary()), LABELS),
    "dictionary": (pa.array(ENCODED).dictionary_encode(), LABELS),
    "dictionary of large binary": (pa.array(ENCODED, pa.large_binary()).dictionary_encode(), LABELS),
    "lists of bytes": (pa.array([list(data) for data in ENCODED], pa.list_(pa.uint8())), LABELS),
    "large lists of bytes": (pa.array([list(data) for data in ENCODED], pa.large_list(pa.uint8())), LABELS),
    "struct of binary view": (
        pa.array(AS_STRUCT, pa.struct([("bytes", pa.binary_view()), ("path", pa.string_view())])),
        LABELS,
    ),
    "struct without path": (pa.array(AS_STRUCT, pa.struct([("bytes", pa.large_binary())])), LABELS),
    "struct with more": ([{**row, "width": 8} for row in AS_STRUCT], LABELS),
    "labels of one byte": (ENCODED, pa.array(LABELS, pa.uint8())),
    "labels of fractions without a fraction": (ENCODED, pa.array(LABELS, pa.float64())),
    "labels of a dictionary": (ENCODED, pa.array(LABELS, pa.int32()).dictionary_encode()),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_of_every_tool_are_read(name: str, tmp_path: Path) -> None:
    source = read(tabled(tmp_path, *COLUMNS[name]))
    (tmp_path / "tar").mkdir()
    (tmp_path / "tar" / "t.tar").write_bytes(whole())
    assert source.train.keys == read(tmp_path / "tar").train.keys


def third(value: Any, values: Any = AS_STRUCT) -> Any:
    return [*values[:2], value, *values[2:]]


ROWS: dict[str, tuple[Any, Any, str]] = {
    "null image": (third(None), third(9, LABELS), r"row 2\) has no image: 'image' is null"),
    "null label": (third(AS_STRUCT[0]), third(None, LABELS), r"row 2\) has no label: 'label' is null"),
    "null bytes": (third({"bytes": None, "path": "/x.png"}), third(9, LABELS), "points to images on another machine"),
    "null bytes without a path": (third({"bytes": None, "path": None}), third(9, LABELS), "'image' is null"),
    "a null without paths": (
        pa.array(third(None, [{"bytes": each} for each in ENCODED])),
        third(9, LABELS),
        "'image' is null",
    ),
    "null of a view": (pa.array(third(None, ENCODED), pa.binary_view()), third(9, LABELS), "'image' is null"),
    "null of a dictionary": (pa.array(third(None, ENCODED)).dictionary_encode(), third(9, LABELS), "'image' is null"),
    "empty": (third(b"", ENCODED), third(9, LABELS), "is not a readable image"),
    "a path that is no text": (
        pa.array(
            third({"bytes": b"", "path": b"\xff"}, [{**row, "path": row["path"].encode()} for row in AS_STRUCT]),
            pa.struct([("bytes", pa.binary()), ("path", pa.binary())]),
        ).cast(STRUCT, safe=False),
        third(9, LABELS),
        "a name or label that is not UTF-8",
    ),
    "a label below": (third(AS_STRUCT[0]), third(-1, LABELS), "has label -1"),
    "a fraction": (third(AS_STRUCT[0]), pa.array(third(0.5, [0, 1, 2, 3])), "labels must be class numbers"),
}


LABELS_BY_NAME: dict[str, tuple[Any, Any, Any]] = {
    "texts": (list("cabc"), ("a", "b", "c"), [0, 1, 2, 2]),
    "large texts": (pa.array(list("cabc"), pa.large_string()), ("a", "b", "c"), [0, 1, 2, 2]),
    "views": (pa.array(list("cabc"), pa.string_view()), ("a", "b", "c"), [0, 1, 2, 2]),
    "a dictionary": (pa.array(list("cabc")).dictionary_encode(), ("a", "b", "c"), [0, 1, 2, 2]),
    "numbers as texts": (["10", "2", "0", "10"], tuple(map(str, range(11))), [0, 2, 10, 10]),
    "numbers among names": (["10", "2", "x", "10"], ("10", "2", "x"), [0, 0, 1, 2]),
}


@pytest.mark.parametrize("name", LABELS_BY_NAME)
def test_labels_that_are_texts_are_classes_in_their_order(name: str, tmp_path: Path) -> None:
    labels, class_names, expected = LABELS_BY_NAME[name]
    source = read(tabled(tmp_path, ENCODED, labels, row_group_size=2))
    assert source.class_names == class_names
    assert sorted(source.train.labels.tolist()) == expected


def test_captions_and_texts_beside_numbers_are_no_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "MOST_CLASSES", 3)
    tabled(tmp_path, ENCODED, ["a cat", "a dog", "a cat on a dog", "nothing"])
    assert "'label' has more than 3 different texts, which are no classes" in complaint(lambda: read(tmp_path))
    (tmp_path / "t.parquet").rename(tmp_path / "other.parquet")
    tabled(tmp_path, ENCODED, LABELS)
    assert "t.parquet has numbers" in complaint(lambda: read(tmp_path))


@pytest.mark.parametrize(("text", "why"), [(None, "null"), ("", "empty")])
def test_a_label_without_a_text_is_named_and_can_be_left_out(text: str | None, why: str, tmp_path: Path) -> None:
    tabled(tmp_path, ENCODED, ["a", text, "b", "a"])
    assert f"row 1) has no label: 'label' is {why}" in complaint(lambda: read(tmp_path))
    assert read(tmp_path, skip_unusable=True).class_names == ("a", "b")


@pytest.mark.parametrize("name", ROWS)
def test_what_is_odd_in_a_table_is_named_and_the_rest_can_be_kept(name: str, tmp_path: Path) -> None:
    images, labels, message = ROWS[name]
    tabled(tmp_path, images, labels)
    with pytest.raises(InputError, match=f"unusable sample.*{message}.*--skip-unusable"):
        read(tmp_path)
    source = read(tmp_path, skip_unusable=True)
    assert sorted(source.train.labels.tolist()) == LABELS
    assert len(source.findings.left_out) == 1


def test_a_few_images_that_stand_for_many_rows_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    large = bytes(48 * 2**20)
    images = pa.DictionaryArray.from_arrays(pa.array([0] * 500, pa.int32()), pa.array([large]))
    tabled(tmp_path, images, [0] * 500, compression="zstd")
    path = tmp_path / "t.parquet"
    assert path.stat().st_size < 2**14
    program = """
import resource, sys
from pathlib import Path
from ule_datasets.sources.parquet import RowGroup
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
print(len(next(RowGroup(Path(sys.argv[1]), 0, "image", "label").samples()).image))
"""
    done = run_python(program, path)
    assert done.code == 0, done.stderr
    assert int(done.stdout) == len(large)


def test_one_image_beyond_the_limit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULE_MAX_IMAGE_FILE", "1")
    tabled(tmp_path, [*ENCODED, bytes(2**21)], [*LABELS, 0])
    with pytest.raises(InputError, match=r"row 4\): its image takes 2 MiB, allowed are 1: ULE_MAX_IMAGE_FILE"):
        read(tmp_path)


def test_a_page_beyond_the_limit_is_named_whatever_the_end_of_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tabled(tmp_path, [bytes(3 * 2**20), *ENCODED], [0, *LABELS], compression="zstd")
    monkeypatch.setattr(parquet, "TABLE_PAGE", Limit("ULE_MAX_TABLE_PAGE", 2))
    assert "t.parquet: a page of row group 0 takes 3 MiB, allowed are 2: ULE_MAX_TABLE_PAGE" in complaint(
        lambda: read(tmp_path)
    )


@pytest.mark.parametrize("codec", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_the_headers_of_pages_are_those_that_were_written(codec: str, version: str, tmp_path: Path) -> None:
    options = {"compression": codec, "data_page_version": version, "data_page_size": 500, "write_statistics": True}
    path = tabled(tmp_path, ENCODED * 50, LABELS * 50, row_group_size=90, use_dictionary=["label"], **options)
    with (path / "t.parquet").open("rb") as file:
        table = opened(file)
        for number in range(len(table.groups)):
            for place, (name, column) in enumerate(table.columns(number)):
                theirs = table.file.metadata.row_group(number).column(place)
                found = list(pages(file, column))
                assert sum(page.packed for page in found) < theirs.total_compressed_size
                headers = theirs.total_compressed_size - sum(page.packed for page in found)
                assert theirs.total_uncompressed_size == sum(page.unpacked for page in found) + headers
                assert any(page.kind == DICTIONARY for page in found) == (name == "label")


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 3999), value=st.integers(0, 255))
def test_damaged_pages_end_in_words(place: int, value: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("pages")
    tabled(folder, ENCODED * 4, LABELS * 4, data_page_size=300)
    path = folder / "t.parquet"
    content = bytearray(path.read_bytes())
    content[4 + place % (len(content) - 12)] = value
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        read(folder, skip_unusable=True)


# --- files that are something else ----------------------------------------------------------------------------

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
OTHERS: dict[str, tuple[bytes, str]] = {
    "a pointer": (LFS, "a pointer of Git LFS, not the file itself: run git lfs pull"),
    "of git-annex": (
        b"/annex/objects/SHA256E-s9--00.tar\n",
        "a pointer of git-annex, not the file itself",
    ),
    "a page": (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page, perhaps of an error or a login"),
    "zip": (b"PK\x03\x04" + bytes(99), "a zip archive: unpack it"),
    "empty": (b"", "empty: an incomplete download"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(99), "compressed with zstd: unpack it"),
}


@pytest.mark.parametrize("suffix", [".tar", ".parquet"])
@pytest.mark.parametrize("name", OTHERS)
def test_files_that_are_something_else_are_called_what_they_are(name: str, suffix: str, tmp_path: Path) -> None:
    content, message = OTHERS[name]
    (tmp_path / f"t{suffix}").write_bytes(content)
    kind = {".tar": "tar archive", ".parquet": "Parquet file"}[suffix]
    assert f"t{suffix} is not a {kind}, but {message}" in complaint(lambda: read(tmp_path))


def test_an_archive_and_a_table_under_each_others_name_are_recognised(tmp_path: Path) -> None:
    tabled(tmp_path, AS_STRUCT, LABELS)
    table = (tmp_path / "t.parquet").rename(tmp_path / "t.tar")
    assert "t.tar is not a tar archive, but a Parquet file: call it .parquet" in complaint(lambda: read(tmp_path))
    table.unlink()
    (tmp_path / "t.parquet").write_bytes(whole())
    assert "t.parquet is not a Parquet file, but a tar archive: call it .tar" in complaint(lambda: read(tmp_path))


@pytest.mark.parametrize("suffix", [".zip", ".rar", ".csv.gz", ".tar.xz"])
def test_where_there_are_no_images_what_is_packed_is_said_to_be(suffix: str, tmp_path: Path) -> None:
    heads = {".zip": b"PK\x03\x04", ".rar": b"Rar!\x1a\x07", ".csv.gz": b"\x1f\x8b", ".tar.xz": b"\xfd7zXZ\x00"}
    (tmp_path / "notes.txt").write_text("?")
    (tmp_path / f"photos{suffix}").write_bytes(heads[suffix] + bytes(99))
    for place in (tmp_path, tmp_path / f"photos{suffix}"):
        message = complaint(lambda where=place: read(where))  # type: ignore[misc]
        assert re.search(f"no images found there, but photos{suffix} is .*: unpack it, and give what it holds", message)


# --- the original CIFAR-10 archive ----------------------------------------------------------------------------

NAMES = class_names(10)


def archived(path: Path, folder: Path, mode: Any = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        archive.add(folder / "cifar-10-batches-py", "cifar-10-batches-py")
    return path


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-python (1).tgz", "cifar-10-python.tar"])
@pytest.mark.parametrize("given", ["the file", "its folder"])
def test_the_archive_of_the_batches_is_read_as_they_are(name: str, given: str, tmp_path: Path) -> None:
    folder = write_cifar_batches(tmp_path / "batches", make_splits(), NAMES)
    (tmp_path / "packed").mkdir()
    path = archived(tmp_path / "packed" / name, folder, "w" if name.endswith(".tar") else "w:gz")
    source, expected = read(path if given == "the file" else path.parent), read(folder)
    assert (source.class_names, source.kind) == (expected.class_names, expected.kind)
    for split in ("train", "test"):
        assert source.splits[split].keys == expected.splits[split].keys


def test_batches_that_are_unpacked_are_read_rather_than_their_archive(tmp_path: Path) -> None:
    folder = write_cifar_batches(tmp_path, make_splits(), NAMES)
    archived(tmp_path / "cifar-10-python.tar.gz", folder).write_bytes(b"?")
    assert len(read(folder).train) == 40


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "cifar-10-python.tar.gz is not a whole tar archive"),
        (lambda data: LFS, "cifar-10-python.tar.gz is not a tar archive, but a pointer of Git LFS"),
        (lambda data: gzip.compress(END), "has no data_batch_1, as the original archive has: download it again"),
    ],
)
def test_a_damaged_archive_of_the_batches_is_named(damage: Any, message: str, tmp_path: Path) -> None:
    folder = write_cifar_batches(tmp_path / "batches", make_splits(), NAMES)
    path = archived(tmp_path / "cifar-10-python.tar.gz", folder)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=message):
        read(path)
