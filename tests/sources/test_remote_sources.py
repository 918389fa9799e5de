"""Sources at URLs give what the same files give on this machine, and are read no further than needed."""

from __future__ import annotations

import dataclasses
import os
import pickle
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import (
    class_names,
    data_files,
    encode,
    make_images,
    make_splits,
    own_images,
    read,
    run_build,
    run_build_process,
    run_python,
    write_form,
    write_image_folder,
    write_parquet,
    write_webdataset,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import Web, s3_store, upload

from ule_datasets.base.errors import InputError
from ule_datasets.base.limits import Limit
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.places import remote_path
from ule_datasets.places import urls as remote
from ule_datasets.places.remote_path import RemotePath
from ule_datasets.sources import parquet
from ule_datasets.sources.decode import ChunkTask, _fingerprint
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.reading import Source, find_form, read_source

FORMS = ("parquet", "image folder", "webdataset")
NAMES = class_names(4)


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    with s3_store() as system:
        system.mkdir("bucket")
        yield system


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    (tmp_path / "web").mkdir()
    with Web(tmp_path / "web") as server:
        yield server


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.0)


def some_splits() -> dict[str, Any]:
    return make_splits(num_classes=4, per_class=5, size=12)


def assert_same(one: Source, other: Source) -> None:
    assert (one.kind, one.class_names, list(one.splits)) == (other.kind, other.class_names, list(other.splits))
    for name in one.splits:
        assert one.splits[name].digest == other.splits[name].digest
        assert one.splits[name].keys == other.splits[name].keys
        assert np.array_equal(one.splits[name].labels, other.splits[name].labels)


# --- the same dataset -----------------------------------------------------------------------------------------


def test_a_build_from_a_bucket_gives_the_files_of_one_from_a_folder(store: Any, tmp_path: Path) -> None:
    local = write_webdataset(tmp_path / "source", some_splits())
    url = upload(store, local, "bucket/build")
    here = run_build("ops", "--source", local, "--out", tmp_path / "here")
    there = run_build_process("ops", "--source", url, "--out", tmp_path / "there", "--workers", "2")
    assert (here.code, there.code) == (0, 0), here.stderr + there.stderr
    assert there.complaint == []
    assert data_files(tmp_path / "there") == data_files(tmp_path / "here")


def test_workers_open_urls_of_every_form_themselves(store: Any, web: Web, tmp_path: Path) -> None:
    places = {form: write_form(form, web.folder / form, some_splits(), NAMES) for form in FORMS}
    urls = [upload(store, local, f"bucket/workers/{form}") for form, local in places.items()]
    urls += [f"{web.url}/{form}" for form in FORMS]
    program = """
import sys
from pathlib import Path
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.base.progress import Reporter
from ule_datasets.sources.reading import read_source
from ule_datasets.sources.own_images import OWN_IMAGES
if __name__ == "__main__":
    with LocalExecutor(2, preload=("ule_datasets.sources.reading",)) as executor:
        for url in sys.argv[2:]:
            spool = Path(sys.argv[1], str(sys.argv.index(url)))
            source = read_source(OWN_IMAGES, url, executor=executor, reporter=Reporter(silent=True), spool=spool)
            print(*(split.digest for split in source.splits.values()))
"""
    done = run_python(program, tmp_path / "spool", *urls)
    assert done.code == 0, done.stderr
    expected = " ".join(split.digest for split in read(places["parquet"]).splits.values())
    assert done.stdout.splitlines() == [expected] * len(urls)


@pytest.mark.parametrize("form", FORMS)
def test_a_web_server_gives_the_same_source(form: str, web: Web) -> None:
    local = write_form(form, web.folder / "a b" / "100%", some_splits(), NAMES)
    for url in (f"{web.url}/a%20b/100%25", f"{web.url}/a%20b/100%25/", f"{web.url}/a%20b"):
        assert_same(read(url), read(local if url.endswith(("%25", "/")) else local.parent))
    assert all(span for method, path, span in web.requests if method == "GET" and path.endswith(("tar", "parquet")))


CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/test-*
  - split: test
    path: data/train-*
dataset_info:
  features:
  - name: label
    dtype:
      class_label:
        names:
          '0': red
          '1': green
          '2': blue
          '3': grey
---
"""


@pytest.mark.parametrize("form", ["parquet", "image folder"])
def test_a_card_at_a_url_is_read_as_one_here(form: str, web: Web) -> None:
    write_form(form, web.folder / "data", some_splits(), NAMES)
    write_form(form, web.folder / "drafts", some_splits(), NAMES)
    files = CARD if form == "parquet" else CARD.replace("test-*", "test/**").replace("train-*", "train/**")
    (web.folder / "README.md").write_text(files)
    here, there = read(web.folder), read(f"http://me:p4ssword@{web.host}/?sig=s3cret")
    assert_same(there, here)
    assert (len(there.train), len(there.splits["test"])) == (8, 20)
    assert there.class_names == (("red", "green", "blue", "grey") if form == "parquet" else NAMES)
    assert there.look is not None
    assert there.look.passed_over == here.look.passed_over  # type: ignore[union-attr]


def test_what_is_not_clear_in_a_card_at_a_url_is_refused(web: Web) -> None:
    write_form("parquet", web.folder / "data", some_splits(), NAMES)
    (web.folder / "README.md").write_text(CARD.replace("default", "one"))
    assert len(read(web.url).train) == 8
    two = CARD.replace("configs:", "configs:\n- config_name: two\n  data_files: data/*").replace("default", "one")
    (web.folder / "README.md").write_text(two)
    with pytest.raises(
        InputError, match=rf"{web.url}/? has several .*; say which one with a copy of it, --source FOLDER:"
    ):
        find_form(f"http://me:p4ssword@{web.host}/")


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_a_single_file_at_a_signed_url_is_a_source(form: str, web: Web) -> None:
    folder = write_form(form, web.folder, {"train": make_images(3, 4, 8)}, class_names(3), num_files=1)
    (path,) = folder.iterdir()
    assert_same(read(f"{web.url}/{path.name}?sig=s3cret%2F1&v=2"), read(path))
    assert {unquote(asked.partition("?")[2]) for _, asked, _ in web.requests} == {"sig=s3cret/1&v=2"}


def test_a_signed_query_and_a_password_go_along_to_every_file(web: Web) -> None:
    local = write_image_folder(web.folder, {"train": make_images(2, 2, 8)}, class_names(2))
    assert_same(read(f"http://me:p4ssword@{web.host}/?sig=s3cret"), read(local))
    assert len(web.requests) > 4
    assert all(path.endswith("?sig=s3cret") for _, path, _ in web.requests)


def test_a_bucket_itself_and_a_url_of_any_backend_are_sources(store: Any, tmp_path: Path) -> None:
    local = write_webdataset(tmp_path / "source", some_splits())
    store.mkdir("whole")
    upload(store, local, "whole")
    for url in ("s3://whole", "s3://whole/", f"file://{local}"):
        assert_same(read(url), read(local))


@pytest.mark.parametrize("at", ["s3", "http"])
def test_classes_may_be_called_anything(at: str, store: Any, web: Web) -> None:
    names = sorted(("tabby cat", "100%", "a#b", "übel", "a&b", "a+b", "x=1", "%20", "a;b", "it's"))
    local = write_image_folder(web.folder, {"train": make_images(len(names), 1, 8)}, names)
    source = read(web.url if at == "http" else upload(store, local, "bucket/names"))
    assert source.class_names == tuple(names)
    assert_same(source, read(local))


def test_images_without_labels_names_of_files_and_hidden_ones(store: Any, tmp_path: Path) -> None:
    images = make_images(1, 3, 8).images
    for index, name in enumerate(("a.png", "b.PNG", ".hidden.png")):
        (tmp_path / name).write_bytes(encode(images[index]))
    (tmp_path / "notes.txt").write_text("not an image")
    url = upload(store, tmp_path, "bucket/unlabelled")
    assert_same(read(url), read(tmp_path))
    (chunk,) = find_form(url).chunks["train"]
    assert [(sample.name, sample.origin) for sample in chunk.samples()] == [
        ("a", f"{url}/a.png"),
        ("b", f"{url}/b.PNG"),
    ]


def test_of_a_larger_bucket_only_the_classes_of_the_recipe_are_read(store: Any, tmp_path: Path) -> None:
    local = write_image_folder(tmp_path, {"train": make_images(4, 2, 8)}, NAMES)
    url = upload(store, local, "bucket/larger")
    spec = dataclasses.replace(own_images(None), class_names=NAMES[1:3], subset=True)
    assert_same(read(url, spec), read(local, spec))
    assert len(read(url, spec).train) == 4


def test_an_official_archive_with_a_list_of_validation_labels(store: Any, tmp_path: Path) -> None:
    top, images = tmp_path / "ILSVRC" / "Data" / "CLS-LOC", make_images(2, 2, 8).images
    wnids = ("n01440764", "n01443537")
    files = {
        f"train/{wnids[0]}/{wnids[0]}_1.JPEG": images[0],
        f"train/{wnids[1]}/{wnids[1]}_2.JPEG": images[1],
        "val/ILSVRC2012_val_00000001.JPEG": images[2],
        "test/ILSVRC2012_test_00000001.JPEG": images[3],
    }
    for name, image in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(encode(image))
    lines = ("ImageId,PredictionString", f"ILSVRC2012_val_00000001,{wnids[1]} 1 2 3 4")
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(lines))
    url = upload(store, tmp_path, "bucket/archive")
    assert_same(read(url), read(tmp_path))
    assert read(url).splits["test"].labels.tolist() == [1]


def test_splits_are_told_by_folders_and_withheld_labels_left_out(store: Any, tmp_path: Path) -> None:
    splits = make_splits(num_classes=2, per_class=2, size=8)
    write_parquet(tmp_path / "data" / "train", {"x": splits["train"]}, class_names(2), num_files=1)
    write_parquet(tmp_path / "data" / "validation", {"x": splits["test"]}, class_names(2), num_files=1)
    withheld = splits["test"]._replace(labels=np.full_like(splits["test"].labels, -1))
    write_parquet(tmp_path / "data" / "test", {"x": withheld}, class_names(2), num_files=1)
    assert_same(read(upload(store, tmp_path, "bucket/withheld")), read(tmp_path))


# --- how it is read -------------------------------------------------------------------------------------------


def test_a_tar_shard_is_a_stream_of_blocks(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_path, "BLOCK", 20_480)
    (path,) = write_webdataset(web.folder, {"train": make_images(4, 20, 16)}, num_files=1).iterdir()
    size = path.stat().st_size
    form = find_form(web.url)
    asked = [span for _, asked, span in web.requests if asked == f"/{path.name}" and span]
    assert asked == [(0, 20_480)], "labels are in the first block"
    web.requests.clear()
    (chunk,) = form.chunks["train"]
    assert sum(1 for _ in chunk.samples()) == 80
    spans = [span for method, _, span in web.requests if method == "GET"]
    expected = [(start, min(start + 20_480, size)) for start in range(0, size, 20_480)]
    assert spans == expected


def test_a_row_group_is_read_without_the_others(web: Web) -> None:
    folder = write_parquet(web.folder, {"train": make_images(4, 50, 32)}, NAMES, num_files=1, rows_per_group=20)
    (path,) = folder.iterdir()
    chunks = find_form(web.url).chunks["train"]
    assert len(chunks) == 10
    web.requests.clear()
    assert sum(1 for _ in chunks[3].samples()) == 20
    fetched = sum(span[1] - span[0] for _, _, span in web.requests if span)
    assert fetched < path.stat().st_size / 3


def test_a_row_group_is_asked_for_once_and_its_pages_looked_at_before_they_are_unpacked(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [bytes(3 * 2**20), bytes(2**10)] * 2
    pq.write_table(pa.table({"image": rows, "label": [0, 1] * 2}), web.folder / "t.parquet", compression="zstd")
    (chunk,) = find_form(web.url).chunks["train"]
    web.requests.clear()
    assert [len(raw.image) for raw in chunk.samples()] == [len(row) for row in rows]
    assert len([span for _, _, span in web.requests if span]) == 2, "the end of the file, and the group"
    monkeypatch.setattr(parquet, "TABLE_PAGE", Limit("ULE_MAX_TABLE_PAGE", 2))
    with pytest.raises(InputError, match=r"a page of row group 0 takes \d MiB, allowed are 2: ULE_MAX_TABLE_PAGE"):
        list(chunk.samples())
    monkeypatch.setenv("ULE_MEMORY", "1")
    path = web.folder / "t.parquet"
    pq.write_table(pa.table({"image": rows, "label": [0, 1] * 2}), path, compression="none", use_dictionary=False)
    with pytest.raises(InputError, match=r"row group 0 of http.*t.parquet takes .* of memory, 1.0 MiB are available"):
        list(find_form(web.url).chunks["train"][0].samples())


@given(
    spans=st.lists(st.tuples(st.integers(0, 2500), st.integers(0, 700)), max_size=6),
    asked=st.lists(st.tuples(st.integers(0, 2500), st.integers(0, 700)), max_size=4),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_parts_that_were_fetched_are_the_file_s(
    spans: list[tuple[int, int]], asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = random.Random(0).randbytes(2304)
    fetched = []

    def read_range(_: RemotePath, start: int, stop: int) -> bytes:
        assert 0 <= start < stop <= len(content)
        fetched.append((start, stop))
        return content[start:stop]

    monkeypatch.setattr(RemotePath, "read_range", read_range)
    monkeypatch.setattr(remote_path, "BLOCK", 100)
    monkeypatch.setattr(remote_path, "GAP", 50)
    file = RemotePath("http://x/y", size=len(content)).open_unbuffered()
    file.fetch((start, start + length) for start, length in spans)
    assert len(set(fetched)) == len(fetched)
    for start, length in [*asked, *spans]:
        fetched.clear()
        file.seek(start)
        assert file.read(length) == content[start : start + length]
        assert fetched == [] or (start, length) not in spans


def test_a_large_read_is_put_together_from_blocks(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_path, "BLOCK", 100)
    content = bytes(range(256)) * 9
    (web.folder / "x.tar").write_bytes(content)
    file = RemotePath.at(f"{web.url}/x.tar", (".tar",)).open_unbuffered()
    assert (file.seek(-300, os.SEEK_END), file.tell()) == (2004, 2004)
    assert file.read(250) == content[2004:2254]
    assert (file.read(99), file.read(1)) == (content[2254:], b"")
    assert file.seek(7) == 7
    assert file.read() == content[7:]
    assert (file.seek(99_999), file.read(5)) == (99_999, b"")


def test_a_bucket_is_listed_once_and_its_images_are_not_asked_about(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = upload(store, write_image_folder(tmp_path, some_splits(), NAMES), "bucket/once")
    listed, asked = [], []
    system = remote._file_system(url, os.getpid())[0]
    ls, info = system.ls, system.info
    monkeypatch.setattr(system, "ls", lambda path, **options: listed.append(path) or ls(path, **options))
    monkeypatch.setattr(system, "info", lambda path: asked.append(path) or info(path))
    with LocalExecutor(1) as executor:
        read_source(OWN_IMAGES, url, executor=executor, reporter=Reporter(silent=True), spool=tmp_path / "spool")
    assert len(listed) == len(set(listed)) == 1 + 2 + 2 * len(NAMES)
    assert asked == []


def test_what_goes_to_workers_is_small(store: Any, tmp_path: Path) -> None:
    url = upload(store, write_image_folder(tmp_path, some_splits(), NAMES), "bucket/small")
    root = RemotePath.at(url, ())
    there = pickle.loads(pickle.dumps(root / "train" / NAMES[0]))
    assert (str(there), there.tree) == (f"{url}/train/{NAMES[0]}", None)
    assert there == root / "train" / NAMES[0]


# --- versions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("at", ["s3", "http"])
def test_a_changed_file_changes_the_fingerprint(at: str, form: str, store: Any, web: Web) -> None:
    local = write_form(form, web.folder / "x", {"train": make_images(2, 4, 8)}, class_names(2))
    place = f"bucket/versions/{form}"

    def fingerprints() -> list[str]:
        url = f"{web.url}/x" if at == "http" else f"s3://{place}"
        return [
            _fingerprint(ChunkTask("train", chunk, None, None, OWN_IMAGES)) for chunk in find_form(url).chunks["train"]
        ]

    upload(store, local, place)
    before = fingerprints()
    upload(store, local, place)
    assert fingerprints() == before
    victim = sorted(path for path in local.rglob("*") if path.is_file())[0]
    content = bytearray(victim.read_bytes())
    if form == "image folder":
        content[-30] ^= 1
    elif form == "webdataset":
        content[-1100] ^= 1
    else:
        content[40] ^= 1
    victim.write_bytes(content)
    os.utime(victim, (10**9, 10**9))
    upload(store, local, place)
    after = fingerprints()
    assert len(after) == len(before)
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_a_query_that_is_signed_anew_does_not_change_the_fingerprint(web: Web) -> None:
    write_webdataset(web.folder, {"train": make_images(2, 4, 8)})
    prints = set()
    for signature in ("one", "two"):
        (chunk,) = find_form(f"{web.url}/train-000000.tar?sig={signature}").chunks["train"]
        prints.add(_fingerprint(ChunkTask("train", chunk, None, None, OWN_IMAGES)))
    assert len(prints) == 1


# --- failures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", ["between samples", "within a member", "to nothing"])
@pytest.mark.parametrize("at", ["s3", "http"])
def test_a_truncated_tar_file_is_noticed(cut: str, at: str, store: Any, web: Web) -> None:
    (path,) = write_webdataset(web.folder, {"train": make_images(2, 4, 16)}, num_files=1).iterdir()
    with tarfile.open(path) as tar:
        third = tar.getmembers()[4].offset
    path.write_bytes(path.read_bytes()[: {"between samples": third, "within a member": 3000, "to nothing": 0}[cut]])
    url = web.url if at == "http" else upload(store, web.folder, f"bucket/cut/{cut}")
    with pytest.raises(InputError, match=rf"{url}/train-000000.tar is not a (whole )?tar archive.*incomplete download"):
        read(url)


def test_a_file_that_shrinks_after_it_was_listed_is_noticed(store: Any, tmp_path: Path) -> None:
    images = write_image_folder(tmp_path / "i", {"train": make_images(1, 2, 8)}, ("a",))
    shards = write_webdataset(tmp_path / "w", {"train": make_images(2, 4, 8)}, num_files=1)
    for local, message in ((images, "when it was listed"), (shards, "no success in")):
        place = f"bucket/shrinks/{local.name}"
        (chunk,) = find_form(upload(store, local, place)).chunks["train"]
        for path in local.rglob("*"):
            if path.is_file():
                name = path.relative_to(local).as_posix()
                store.pipe_file(f"{place}/{name}", path.read_bytes()[:-600])
        with pytest.raises(InputError, match=message):
            list(chunk.samples())


def test_a_file_that_vanishes_after_it_was_listed_is_named(store: Any, tmp_path: Path) -> None:
    url = upload(store, write_image_folder(tmp_path, {"train": make_images(1, 2, 8)}, ("a",)), "bucket/vanishes")
    (chunk,) = find_form(url).chunks["train"]
    victim = str(chunk.paths[1])
    store.rm_file(victim.removeprefix("s3://"))
    with pytest.raises(InputError) as error:
        list(chunk.samples())
    assert str(error.value).startswith(f"cannot read {victim}: nothing is there")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://no-such-bucket/x", r"^cannot list s3://no-such-bucket/x: nothing is there \(.*bucket"),
        ("s3://bucket/no/such/folder", "^cannot list s3://bucket/no/such/folder: nothing is there$"),
        ("s3://bucket/no.parquet", "^cannot read s3://bucket/no.parquet: nothing is there"),
        ("http://127.0.0.1:9/x?sig=s3cret", r"^cannot list http://127.0.0.1:9/x: no success in 2 attempts \(.*onnect"),
        ("http://me:p4ssword@127.0.0.1:9/x.tar", "^cannot read http://127.0.0.1:9/x.tar: no success in 2 attempts"),
    ],
)
def test_a_place_where_nothing_is(url: str, message: str, store: Any) -> None:
    with pytest.raises(InputError, match=message) as error:
        find_form(url)
    assert "\n" not in str(error.value)
    assert "s3cret" not in str(error.value)
    assert "p4ssword" not in str(error.value)


def test_a_place_without_images(store: Any, tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("hello")
    url = upload(store, tmp_path, "bucket/without")
    with pytest.raises(InputError, match=f"--source {url}: no images found there; give hub:OWNER/NAME"):
        find_form(url)


def test_a_command_ends_with_the_message_and_code_2(store: Any, tmp_path: Path) -> None:
    outcome = run_build("ops", "--source", "s3://no-such-bucket/x", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "cannot list s3://no-such-bucket/x: nothing is there" in outcome.complaint[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("path", ["folder", "x.tar"])
def test_refusals_of_a_web_server(path: str, status: int, web: Web) -> None:
    web.status_for = lambda asked, times: status
    words = "nothing is there" if status == 404 else r"no permission \("
    with pytest.raises(InputError, match=rf"^cannot \w+ {web.url}/{path}: {words}"):
        find_form(f"{web.url}/{path}")


def test_passing_failures_are_lived_with(web: Web) -> None:
    local = write_image_folder(web.folder, {"train": make_images(2, 3, 8)}, class_names(2))
    web.status_for = lambda path, times: 503 if times == 1 else None
    assert_same(read(web.url), read(local))


def test_a_shard_survives_a_failure_in_its_middle(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_path, "BLOCK", 4096)
    local = write_webdataset(web.folder, {"train": make_images(2, 20, 16)}, num_files=1)
    web.status_for = lambda path, times: 500 if path.endswith(".tar") and times % 3 == 0 else None
    assert_same(read(web.url), read(local))
    assert sum(1 for _, path, _ in web.requests if path.endswith(".tar")) > 8


def test_a_server_that_ignores_ranges_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_path, "BLOCK", 2048)
    write_webdataset(tmp_path, {"train": make_images(2, 4, 8)}, num_files=1)
    with Web(tmp_path, ranges=False) as web:
        url = f"{web.url}/train-000000.tar"
        with pytest.raises(InputError, match=f"cannot read {url} in parts: its server ignores ranges; download it"):
            find_form(url)
    images = write_image_folder(tmp_path / "images", {"train": make_images(2, 2, 8)}, class_names(2))
    with Web(images, ranges=False) as web:
        assert_same(read(web.url), read(images))


def test_nothing_secret_is_in_origins_or_problems(web: Web) -> None:
    write_image_folder(web.folder / "i", {"train": make_images(1, 1, 8)}, ("a",))
    (web.folder / "i" / "train" / "a" / "broken.png").write_bytes(b"no image")
    write_webdataset(web.folder / "w", {"train": make_images(1, 1, 8)}, num_files=1)
    write_parquet(web.folder / "p", {"train": make_images(1, 1, 8)}, None, num_files=1)
    for form in "iwp":
        (chunk,) = find_form(f"http://me:p4ssword@{web.host}/{form}?sig=s3cret").chunks["train"]
        told = repr(chunk) + "".join(sample.origin for sample in chunk.samples())
        assert f"{web.url}/{form}/" in told
        assert "p4ssword" not in told
        assert "s3cret" not in told


@pytest.mark.parametrize("page", ['<a href="../">', '<a href="/elsewhere/x.png">', '<a href="?C=N;O=D">', "nothing"])
def test_links_that_are_not_in_the_folder_are_not_followed(page: str, web: Web) -> None:
    (web.folder / "index.html").write_text(f'<html><a href="a/">a</a>{page}</html>')
    write_image_folder(web.folder, {"a": make_images(2, 2, 8)}, class_names(2))
    assert_same(read(web.url), read(web.folder))
    assert not any("elsewhere" in path or "C=N" in path for _, path, _ in web.requests)


def test_a_folder_here_is_never_opened_through_a_url_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_path, "attempt", None)
    monkeypatch.setattr(remote_path, "ThreadPoolExecutor", None)
    for form in FORMS:
        assert len(read(write_form(form, tmp_path / form, some_splits(), NAMES)).train) == 20
