"""Odd images in every form of a source: refused by name, left out, or converted and counted. Nothing foreign runs."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import Listening, Outcome, make_recipe, read
from odd_images import FOREIGN, NEVER, ODD, PIXELS, PLAIN, SIDE, TURNABLE, exif, save

from ule_datasets import load
from ule_datasets.base.errors import InputError
from ule_datasets.building import BuildOptions, build
from ule_datasets.cli.verify import main as verify
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.codec import FINISHED, decode_rgb
from ule_datasets.dataset.manifest import FileRecord, Manifest
from ule_datasets.dataset.shards import file_record, parquet, webdataset
from ule_datasets.dataset.shards.reading import read_shard
from ule_datasets.sources.imagenet import IMAGENET1K
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.reading import Source, read_source
from ule_datasets.sources.spec import Preprocess, SourceSpec

FORMS = ("image folder", "parquet", "webdataset")
CONVERTING = dataclasses.replace(OWN_IMAGES, preprocess=Preprocess(resize=None, crop=SIDE, convert="RGB"))
PLAIN_TWO = {"one": save(255 - PIXELS, "PNG"), "two": save(PIXELS // 2, "BMP")}
"""An image for each of two classes."""
ADVICE = "convert it to RGB first, or build with --crop PIXELS, which does"


def write(form: str, folder: Path, images: Mapping[str, bytes]) -> Path:
    """A training split of images in two classes by turns; file names say PNG whatever they are."""
    files = [(f"{index:03d}", index % 2, data) for index, data in enumerate(images.values())]
    folder.mkdir(parents=True)
    match form:
        case "image folder":
            for name, label, data in files:
                path = folder / "train" / "ab"[label] / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        case "parquet":
            rows = [{"bytes": data, "path": f"{name}.png"} for name, _, data in files]
            labels = [label for _, label, _ in files]
            pq.write_table(pa.table({"image": rows, "label": labels}), folder / "train.parquet")
        case "webdataset":
            with tarfile.open(folder / "train.tar", "w") as tar:
                for name, label, data in files:
                    for member, content in ((f"{name}.png", data), (f"{name}.cls", str(label).encode())):
                        info = tarfile.TarInfo(member)
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))
    return folder


def skipping(where: Path, spec: SourceSpec = OWN_IMAGES) -> Source:
    with LocalExecutor(1) as executor:
        return read_source(spec, str(where), executor=executor, reporter=Listening(), skip_unusable=True)


# --- form x oddity x step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ODD)
def test_an_odd_image_is_refused_left_out_or_converted(form: str, name: str, tmp_path: Path) -> None:
    odd = ODD[name]
    where = write(form, tmp_path / "source", {**PLAIN_TWO, "odd": odd.data})
    with pytest.raises(InputError) as refused:
        read(where)
    said = f" is not a plain RGB image ({odd.named}); {ADVICE}; the same command with --skip-unusable"
    assert str(refused.value).startswith("1 unusable sample: ")
    assert said in str(refused.value)
    left = skipping(where)
    assert len(left.train) == 2
    assert left.findings.about() == {"left_out": {"train": 1}}
    converted = read(where, CONVERTING)
    assert len(converted.train) == 3
    about = {
        "converted_to_rgb": {} if odd.mode == "RGB" else {odd.mode: 1},
        "changed": dict.fromkeys(odd.changed, 1),
    }
    assert converted.findings.about() == {key: value for key, value in about.items() if value}
    assert converted.findings.lines()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [*NEVER, *FOREIGN])
def test_what_cannot_be_converted_is_refused_with_and_without_a_step(form: str, name: str, tmp_path: Path) -> None:
    data, said = {**NEVER, **FOREIGN}[name]
    where = write(form, tmp_path / "source", {**PLAIN_TWO, "odd": data})
    for spec in (OWN_IMAGES, CONVERTING):
        with pytest.raises(InputError) as refused:
            read(where, spec)
        assert said in str(refused.value)
        assert len(skipping(where, spec).train) == 2


@pytest.mark.parametrize("spec", [OWN_IMAGES, CONVERTING], ids=["as they are", "converted"])
def test_the_same_images_give_the_same_samples_in_every_form(spec: SourceSpec, tmp_path: Path) -> None:
    images = {**PLAIN, **{f"turned {turn}": TURNABLE["JPEG"](exif(turn)) for turn in range(1, 9)}}
    if spec is CONVERTING:
        images |= {name: odd.data for name, odd in ODD.items()}
    first, *others = (read(write(form, tmp_path / form, images), spec) for form in FORMS)
    assert len(first.train) == len(images)
    for other in others:
        assert other.train.digest == first.train.digest
        assert other.train.keys == first.train.keys
        assert other.findings == first.findings


# --- orientation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("published", [False, True])
def test_own_photographs_are_turned_and_those_of_published_sources_are_not(
    form: str, tmp_path: Path, *, published: bool
) -> None:
    spec = dataclasses.replace(OWN_IMAGES, url="https://example.org/") if published else OWN_IMAGES
    photo = TURNABLE["JPEG"](exif(3))
    source = read(write(form, tmp_path / "source", {**PLAIN_TWO, "photo": photo}), spec)
    stored = decode_rgb(TURNABLE["JPEG"](b""), "it").pixels
    expected = stored if published else stored[::-1, ::-1]
    assert expected.tobytes() in {image.tobytes() for image in source.train.images}
    what = "used as stored although marked as turned" if published else "turned upright"
    assert source.findings.about() == {"changed": {what: 1}}
    assert source.findings.lines() == [f"{what}: 1 image"]


def test_whether_photographs_are_turned_can_be_chosen_and_unchosen_changes_no_recipe() -> None:
    assert OWN_IMAGES.turns_upright
    assert not IMAGENET1K.turns_upright
    assert dataclasses.replace(IMAGENET1K, upright=True).turns_upright
    assert not dataclasses.replace(OWN_IMAGES, upright=False).turns_upright


# --- bounds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_the_bound_on_pixels_holds_in_every_form_and_can_be_moved(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = save(np.zeros((SIDE, SIDE + 1, 3), np.uint8), "PNG")
    where = write(form, tmp_path / "source", {**PLAIN_TWO, "large": large})
    monkeypatch.setenv("ULE_MAX_PIXELS", str(SIDE * SIDE))
    with pytest.raises(InputError, match=r"has 17 x 16 pixels, more than 256: make it smaller, or .*_MAX_PIXELS=272"):
        read(where, CONVERTING)
    monkeypatch.setenv("ULE_MAX_PIXELS", "272")
    assert len(read(where, CONVERTING).train) == 3


# --- nothing foreign runs -------------------------------------------------------------------------------------


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that is there when anything has started Ghostscript."""
    mark = tmp_path / "ran"
    for name in ("gs", "gswin64c"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!{sys.executable}\nopen({str(mark)!r}, 'w')\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    yield mark
    assert not mark.exists()


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n{ } loop\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_postscript_in_a_source_starts_nothing(
    form: str,
    workers: str,
    tmp_path: Path,
    ran: Path,
    run_cli: Callable[..., Outcome],
    tried: Callable[..., None],
) -> None:
    where = write(form, tmp_path / "source", {**PLAIN_TWO, "odd": POSTSCRIPT})
    for more in ((), ("--crop", str(SIDE))):
        outcome = run_cli("ops", "--source", where, "--out", tmp_path / "out", "--workers", workers, *more)
        assert outcome.code == 2
        assert "is PostScript, a format that is not read: convert it to PNG" in outcome.complaint[0]
    assert not ran.exists()
    tried("PostScript in a source", 2)


@pytest.mark.parametrize("formats", [("parquet",), ("webdataset",), ("parquet", "webdataset")])
@pytest.mark.parametrize(
    "data",
    [POSTSCRIPT, save(PIXELS, "BMP"), ODD["16-bit PNG"].data, ODD["animated PNG"].data, TURNABLE["PNG"](exif(6))],
    ids=["PostScript", "BMP", "16 bits", "animated", "turned"],
)
def test_other_images_than_plain_png_are_found_in_a_finished_dataset_and_none_starts_anything(
    formats: tuple[str, ...], data: bytes, tmp_path: Path, ran: Path
) -> None:
    out = tmp_path / "out"
    where = write("image folder", tmp_path / "source", PLAIN_TWO)
    build(make_recipe(), BuildOptions(out=out, source=str(where), formats=formats), Listening())
    load(out)[0]
    put_first(out, data)
    report = tmp_path / "report"
    assert verify([str(out), "--integrity-only", "--quiet", "--workers", "1", "--report", str(report)]) == 1
    checks = json.loads((report / "report.json").read_text())["datasets"][0]["checks"]
    assert "train: shards" in {check["name"] for check in checks if not check["passed"]}
    with pytest.raises(InputError, match="the image of"):
        load(out)
    with pytest.raises(InputError):
        decode_rgb(data, "it", FINISHED)


def put_first(folder: Path, data: bytes) -> None:
    """Make an image the first one of a dataset of one training shard, with the digests of files that belong to it."""
    manifest = Manifest.read(folder)
    for record in (*manifest.shards("data/train-"), *manifest.shards("webdataset/train-")):
        path = folder / record.path
        content = read_shard(path, manifest.class_names)
        columns = content.labels, content.keys, np.array(content.poisoned), manifest.class_names
        encoded = [data, *content.encoded[1:]]
        if path.suffix == ".tar":
            webdataset.write(path, encoded, *columns)
        else:
            parquet.write(parquet.table_of(encoded, *columns), path)
    files = tuple(FileRecord(path=file.path, **file_record(folder / file.path)) for file in manifest.files)
    (folder / "manifest.json").write_text(dataclasses.replace(manifest, files=files).to_json())
