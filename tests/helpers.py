"""Tiny real-shaped images, the same samples in every form, recipes for them, and the command line in process."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pickle
import random
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from ule_datasets.base.checkpoint import Checkpoint, State
from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.bounds import L0
from ule_datasets.definition import Recipe
from ule_datasets.methods.method import Method
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.reading import Source, read_source
from ule_datasets.sources.spec import SourceSpec

CIFAR10_DIGESTS = {
    "train": "6a3b2c04d0a79ce272dcdacaf0bc440275db5a8cbe3717521a28fada2ea0d2ed",
    "test": "65a6ffe079453e514083f99356b35e02cbfd581b4951e3937fae188974b79f39",
}


class Samples(NamedTuple):
    """Clean images (uint8 [N, H, W, 3]) and their class numbers (int64 [N])."""

    images: np.ndarray
    labels: np.ndarray


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    stdout: str
    stderr: str

    @property
    def complaint(self) -> list[str]:
        """The lines on stderr that are neither progress nor warnings."""
        noise = re.compile(r"building \S+ \d|continuing: |warning: |source: |reading .*: \d+ of|assembling: \d+ of")
        return [line for line in self.stderr.splitlines() if line.strip() and not noise.match(line)]


class Listening(Reporter):
    """Says nothing, and remembers what it was told: in the given lists, if there are some."""

    def __init__(self, warnings: list[str] | None = None, said: list[str] | None = None) -> None:
        super().__init__(silent=True)
        self.warnings = [] if warnings is None else warnings
        self.said = [] if said is None else said

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Stopping:
    """A checkpoint whose process is interrupted at its n-th save: right before it, or right after."""

    def __init__(self, inner: Checkpoint, at: int, *, saved: bool = True) -> None:
        self.inner, self.at, self.saved, self.count = inner, at, saved, 0

    def load(self) -> State | None:
        return self.inner.load()

    def save(self, state: State) -> None:
        self.count += 1
        if self.count == self.at and not self.saved:
            raise KeyboardInterrupt
        self.inner.save(state)
        if self.count == self.at:
            raise KeyboardInterrupt


class StoppedError(Exception):
    """Stands for the end of a process."""


class Pausing:
    """A keeper that saves at some of the times that it is asked, and ends the run at the last: before or after that."""

    def __init__(self, inner: Checkpoint, *moments: int, when: str = "after") -> None:
        self.inner, self.moments, self.when, self.asked = inner, moments, when, 0

    def load(self) -> State | None:
        return self.inner.load()

    def due(self) -> bool:
        self.asked += 1
        return self.asked in self.moments

    def save(self, state: State) -> None:
        last = self.asked == self.moments[-1]
        if last and self.when == "before":
            raise StoppedError
        self.inner.save(state)
        if last:
            raise StoppedError


def complaint(action: Callable[[], object]) -> str:
    """The one line of the error."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- images -----------------------------------------------------------------------------------------------


def make_images(num_classes: int, per_class: int, size: int, *, seed: int = 0) -> Samples:
    """Deterministic images, all different: a colour and a gradient per class, noise per image; classes in turn."""
    labels = np.arange(num_classes * per_class, dtype=np.int64) % num_classes
    ramp = np.linspace(0, 60, size).astype(np.int64)
    images = np.empty((len(labels), size, size, 3), dtype=np.uint8)
    for index, label in enumerate(labels.tolist()):
        colour = np.frombuffer(hashlib.sha256(f"class {label}".encode()).digest()[:3], dtype=np.uint8).astype(np.int64)
        drawn = hashlib.shake_256(f"image {seed} {index}".encode()).digest(size * size * 3)
        noise = np.frombuffer(drawn, dtype=np.uint8).reshape(size, size, 3).astype(np.int64)
        images[index] = colour // 2 + ramp[:, None, None] + noise // 4
    return Samples(images, labels)


def make_splits(num_classes: int = 10, per_class: int = 4, size: int = 32) -> dict[str, Samples]:
    """A training split and a smaller, different test split."""
    return {
        "train": make_images(num_classes, per_class, size),
        "test": make_images(num_classes, max(1, per_class // 2), size, seed=1),
    }


def class_names(num_classes: int) -> tuple[str, ...]:
    """Names whose alphabetical order is their numerical order."""
    return tuple(f"class{number:03d}" for number in range(num_classes))


def encode(image: np.ndarray, **options: Any) -> bytes:
    """PNG bytes from an encoder set up otherwise than the library's."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", **{"compress_level": 6, **options})
    return stream.getvalue()


def shuffled(samples: Samples, seed: int) -> Samples:
    """The same samples in another order."""
    order = list(range(len(samples.labels)))
    random.Random(seed).shuffle(order)
    return Samples(samples.images[order], samples.labels[order])


# --- the same samples in every form --------------------------------------------------------------------------


def write_parquet(
    folder: Path,
    splits: Mapping[str, Samples],
    names: Sequence[str] | None,
    *,
    image_column: str = "img",
    seed: int = 1,
    num_files: int = 2,
    rows_per_group: int = 7,
) -> Path:
    """``SPLIT-0000i-of-0000n.parquet`` as ``datasets`` writes it: rows shuffled, several files and row groups.

    ``names`` go into the ``huggingface`` metadata in label order; ``None`` leaves the metadata out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for split, samples in splits.items():
        images, labels = shuffled(samples, seed)
        encoded = [encode(image) for image in images]
        for number in range(num_files):
            rows = slice(len(labels) * number // num_files, len(labels) * (number + 1) // num_files)
            path = folder / f"{split}-{number:05d}-of-{num_files:05d}.parquet"
            write_parquet_file(path, encoded[rows], labels[rows].tolist(), names, image_column, rows_per_group)
    return folder


def write_parquet_file(
    path: Path,
    encoded: Sequence[bytes],
    labels: Sequence[Any],
    names: Sequence[str] | None,
    image_column: str = "img",
    rows_per_group: int = 1000,
) -> Path:
    """One Parquet file with an image column of ``{bytes, path}`` and a ``label`` column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"bytes": data, "path": f"{index:05d}.png"} for index, data in enumerate(encoded)]
    table = pa.table({image_column: rows, "label": list(labels)})
    if names is not None:
        label = {"names": list(names), "_type": "ClassLabel"}
        info = {"info": {"features": {image_column: {"_type": "Image"}, "label": label}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, path, row_group_size=rows_per_group)
    return path


def write_image_folder(folder: Path, splits: Mapping[str, Samples], names: Sequence[str], *, seed: int = 2) -> Path:
    """``SPLIT/<class>/*.png``; file names are in no relation to the order of the samples."""
    for split, samples in splits.items():
        images, labels = shuffled(samples, seed)
        for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            path = folder / split / names[label] / f"{hashlib.sha256(f'{seed}{index}'.encode()).hexdigest()[:9]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(image, optimize=True))
    return folder


def write_webdataset(folder: Path, splits: Mapping[str, Samples], *, seed: int = 3, num_files: int = 2) -> Path:
    """``SPLIT-00000i.tar`` from the ``webdataset`` package's own writer."""
    import webdataset

    folder.mkdir(parents=True, exist_ok=True)
    for split, samples in splits.items():
        images, labels = shuffled(samples, seed)
        for number in range(num_files):
            with webdataset.TarWriter(str(folder / f"{split}-{number:06d}.tar")) as writer:
                for index in range(number, len(labels), num_files):
                    writer.write({"__key__": f"s{index:06d}", "png": encode(images[index]), "cls": int(labels[index])})
    return folder


def write_cifar_batches(
    folder: Path, splits: Mapping[str, Samples], names: Sequence[str], *, seed: int = 4, python2: bool = True
) -> Path:
    """``cifar-10-batches-py`` below ``folder``: pickle protocol 2, keys of bytes, pixels as rows of 3072.

    With ``python2`` byte for byte in the opcodes that Python 2 used for the published files.
    """
    target = folder / "cifar-10-batches-py"
    target.mkdir(parents=True, exist_ok=True)
    images, labels = shuffled(splits["train"], seed)
    for number in range(5):
        rows = slice(len(labels) * number // 5, len(labels) * (number + 1) // 5)
        part = Samples(images[rows], labels[rows])
        _write_batch(target / f"data_batch_{number + 1}", part, f"training batch {number + 1} of 5", python2)
    if "test" in splits:
        _write_batch(target / "test_batch", shuffled(splits["test"], seed), "testing batch 1 of 1", python2)
    meta = {b"num_cases_per_batch": 10000, b"label_names": [name.encode() for name in names], b"num_vis": 3072}
    (target / "batches.meta").write_bytes(_pickle(meta, python2))
    return folder


def write_cifar100_batches(
    folder: Path, splits: Mapping[str, Samples], names: Sequence[str], *, seed: int = 4, python2: bool = True
) -> Path:
    """``cifar-100-python`` below ``folder``, in the same way: a file for each split, and fine and coarse classes."""
    target = folder / "cifar-100-python"
    target.mkdir(parents=True, exist_ok=True)
    for split, title in (("train", "training batch 1 of 1"), ("test", "testing batch 1 of 1")):
        if split in splits:
            samples = shuffled(splits[split], seed)
            coarse = {b"coarse_labels": (samples.labels // 5).tolist()}
            _write_batch(target / split, samples, title, python2, labels=b"fine_labels", more=coarse)
    groups = [b"group%d" % number for number in range(-(-len(names) // 5))]
    meta = {b"fine_label_names": [name.encode() for name in names], b"coarse_label_names": groups}
    (target / "meta").write_bytes(_pickle(meta, python2))
    return folder


def write_svhn(folder: Path, splits: Mapping[str, Samples], *, seed: int = 5, compressed: bool = True) -> Path:
    """``SPLIT_32x32.mat`` from SciPy's own writer; 10 means the digit 0."""
    import scipy.io

    folder.mkdir(parents=True, exist_ok=True)
    for split, given in splits.items():
        images, labels = shuffled(given, seed)
        content = {"X": images.transpose(1, 2, 3, 0), "y": np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)}
        scipy.io.savemat(folder / f"{split}_32x32.mat", content, do_compression=compressed)
    return folder


def _write_batch(
    path: Path,
    samples: Samples,
    title: str,
    python2: bool,
    labels: bytes = b"labels",
    more: Mapping[bytes, list[int]] | None = None,
) -> None:
    content = {
        b"batch_label": title.encode(),
        labels: samples.labels.tolist(),
        **(more or {}),
        b"data": samples.images.transpose(0, 3, 1, 2).reshape(-1, 3072),
        b"filenames": [b"%06d.png" % index for index in range(len(samples.labels))],
    }
    path.write_bytes(_pickle(content, python2))


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes ``bytes`` as Python 2 wrote its ``str``: BINSTRING opcodes instead of calls of ``_codecs.encode``."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined] # noqa: RUF012

    def save_bytes(self, data: bytes) -> None:
        short = len(data) < 256
        self.write((b"U" + bytes([len(data)]) if short else b"T" + struct.pack("<i", len(data))) + data)
        self.memoize(data)

    dispatch[bytes] = save_bytes


def _pickle(content: Any, python2: bool) -> bytes:
    if not python2:
        return pickle.dumps(content, protocol=2)
    stream = io.BytesIO()
    _Python2Pickler(stream, protocol=2).dump(content)
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


FORMS = ("parquet", "image folder", "webdataset", "cifar batches", "cifar-100 batches", "svhn")


def write_form(form: str, folder: Path, splits: Mapping[str, Samples], names: Sequence[str], **options: Any) -> Path:
    """The samples in one of ``FORMS``."""
    match form:
        case "parquet":
            return write_parquet(folder, splits, names, **options)
        case "image folder":
            return write_image_folder(folder, splits, names, **options)
        case "webdataset":
            return write_webdataset(folder, splits, **options)
        case "cifar batches":
            return write_cifar_batches(folder, splits, names, **options)
        case "cifar-100 batches":
            return write_cifar100_batches(folder, splits, names, **options)
        case "svhn":
            return write_svhn(folder, splits, **options)
    raise AssertionError(form)


# --- reading and building ------------------------------------------------------------------------------------


def read(where: Path | str, spec: SourceSpec = OWN_IMAGES, *, skip_unusable: bool = False) -> Source:
    """The source at a location, in this process."""
    silent = Reporter(silent=True)
    with LocalExecutor(1) as executor:
        return read_source(spec, str(where), executor=executor, reporter=silent, skip_unusable=skip_unusable)


def own_images(num_classes: int | None) -> SourceSpec:
    """Own images; with a number, their classes are fixed whatever the form says about names; some have digits only."""
    if num_classes is None:
        return OWN_IMAGES
    names = class_names(num_classes)
    return dataclasses.replace(
        OWN_IMAGES, class_names=names, aliases=tuple(zip(map(str, range(10)), names, strict=False))
    )


def make_recipe(
    name: str = "tiny", *, num_classes: int | None = None, methods: Sequence[Method] | None = None, **fields: Any
) -> Recipe:
    """A small recipe for one's own images: One-Pixel Shortcut unless ``methods`` says otherwise.

    ``fields`` are any of ``Recipe``'s (``poison_rate``, ``shard_mebibytes``, ``budget``, ...).
    """
    defaults: dict[str, Any] = {
        "title": "Tiny",
        "summary": "Tiny images for a test.",
        "source": own_images(num_classes),
        "methods": tuple(methods or (OnePixelShortcut(),)),
        "budget": (L0(pixels=1),),
        "version": "1.0.0",
    }
    return Recipe(name=name, **{**defaults, **fields})


RECIPE_FILE = """
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.data.bounds import L0
from ule_datasets.definition import Recipe
from ule_datasets.sources.own_images import OWN_IMAGES

RECIPE = Recipe(
    name="my-recipe", title="Mine", summary="My images.", source=OWN_IMAGES,
    methods=(OnePixelShortcut(),), budget=(L0(pixels=1),), version="1.0.0",
)
"""
"""A correct recipe file of a user."""


def run_build(*arguments: str | Path) -> Outcome:
    """``ule-build`` in this process, with one worker unless the arguments say otherwise."""
    from ule_datasets.cli.build import main

    words = [str(argument) for argument in arguments]
    if "--workers" not in words:
        words = ["--workers", "1", *words]
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = main(words)
    return Outcome(code, stdout.getvalue(), stderr.getvalue())


def run_build_process(
    *arguments: str | Path, environment: Mapping[str, str] | None = None, file_size_limit: int | None = None
) -> Outcome:
    """``ule-build`` in a process of its own, where no file may grow beyond ``file_size_limit`` bytes."""
    program = "import sys; from ule_datasets.cli.build import main; sys.exit(main())"
    if file_size_limit is not None:
        limits = (file_size_limit, file_size_limit)
        program = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, {limits}); {program}"
    return run_python(program, *arguments, environment=environment)


def run_python(program: str, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> Outcome:
    """A Python program in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def snapshot(folder: Path) -> dict[str, str | None] | None:
    """Every file below a folder with its sha256, every folder with ``None``; ``None`` if there is no such folder."""
    if not folder.exists():
        return None
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def data_files(folder: Path) -> dict[str, str | None]:
    """The files of a built dataset that depend on nothing but recipe and source, with their sha256."""
    files = snapshot(folder)
    assert files is not None
    return {path: digest for path, digest in files.items() if digest and path not in ("manifest.json", ".local.json")}
