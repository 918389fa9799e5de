"""How long it takes to write the 50,000 training images of CIFAR-10 as Parquet and as WebDataset shards.

    python benchmarks/assembly.py --source DIR

Assembling as ``ule-build ops-cifar10`` does it (perturb, check the budget, encode once, write both formats,
digests and checksums), with all CPUs and with one, is compared in one run and with interleaved repetitions with

- what one would write without this library, from PIL images of the finished dataset, in one process as both
  libraries work by default: ``datasets.Dataset.from_dict`` and ``to_parquet``, plus ``webdataset.TarWriter`` with
  ``png``, ``cls`` and ``json``;
- the limit: encoding every image with our encoder, through the same executor in pieces of 500 images, nothing
  written; and once more in as many pieces as there are shards, which shows what uneven sharing costs.

Workers are started before the clock is. Two more tables, both for one core, are the reasons for the encoder's
settings and for our own tar headers.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from common import Timing, finish, interleaved, parser, read_cifar10, seconds_of, table, wall
from PIL import Image

from builders import RECIPES
from ule_datasets.base.options import FORMATS
from ule_datasets.base.progress import Reporter
from ule_datasets.building import WORKER_MODULES
from ule_datasets.compute.executor import available_cpus
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.codec import COMPRESS_LEVEL, encode_png
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.data.split import Split
from ule_datasets.dataset.shards import parquet, shard_rows, webdataset
from ule_datasets.packaging.assembly import Assembly
from ule_datasets.packaging.crafting import Workshop, craft
from ule_datasets.packaging.folder import BuildFolder
from ule_datasets.sources.reading import Source

RECIPE = RECIPES["ops-cifar10"]
SILENT = Reporter(silent=True)
DATASETS, WEBDATASET = "datasets: from_dict(PIL), to_parquet", "webdataset: TarWriter(PIL)"
OTHERWISE = "both"
AIM = "aims: at least 3 times faster than both; within 1.3 times encoding alone"
IMAGES_PER_PIECE = 500
IMAGES_FOR_SETTINGS = 10_000
Encoder = Callable[[np.ndarray], bytes]


def main() -> None:
    """Run the comparisons and print them."""
    options = parser(__doc__, repeats=3)
    options.add_argument("--images", type=int, default=50_000, help="for a quick look (default: %(default)s)")
    options.add_argument("--work", type=Path, help="where to write (default: the temporary folder)")
    args = options.parse_args()
    source = first_images(read_cifar10(args.source), args.images)
    perturbation = craft(RECIPE, source, Workshop(reporter=SILENT))
    with ExitStack() as stack:
        counts = sorted({1, available_cpus()}, reverse=True)
        executors = [stack.enter_context(LocalExecutor(count, preload=WORKER_MODULES)) for count in counts]
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=args.work)))
        spooled = first_images(read_cifar10(args.source, spool=work / "spool"), args.images)
        timings = interleaved(assembly_sides(source, spooled, perturbation, executors, work), args.repeats)
        writing = interleaved(writing_sides(source, work), args.repeats)
    timings[OTHERWISE] = total(timings[DATASETS], timings[WEBDATASET])
    print_assembly(timings, len(source.train), counts)
    encoders = compare_encoders(source.train.pixels()[:IMAGES_FOR_SETTINGS], args.repeats)
    print_speeds(writing, len(source.train))
    seconds = seconds_of(timings | writing)
    finish(args.json, {"images": len(source.train), "seconds": seconds, "encoders": encoders})


def first_images(source: Source, count: int) -> Source:
    """The training split alone, or its first images."""
    return dataclasses.replace(source, splits={"train": source.train.rows(0, count)})


def assembly_sides(
    source: Source, spooled: Source, perturbation: Perturbation, executors: list[LocalExecutor], work: Path
) -> dict[str, Callable[[], float]]:
    """The main table; every executor's workers run already. Ours starts from images on disk, as a build does."""
    train = source.train
    sides: dict[str, Callable[[], float]] = {}
    images = perturbation.apply(train.pixels(), train.labels, train.keys)
    shards = shard_rows(len(train), images[0].nbytes, RECIPE.shard_mebibytes)
    for executor in executors:
        start_workers(executor)
        sides[ours(executor.workers)] = partial(in_new_folder, work, partial(assemble, spooled, perturbation, executor))
        small = [range(first, first + IMAGES_PER_PIECE) for first in range(0, len(train), IMAGES_PER_PIECE)]
        sides[encoding(executor.workers)] = wall(partial(encode_pieces, executor, images, small))
        if executor.workers > 1:
            sides[f"  in {len(shards)} pieces"] = wall(partial(encode_pieces, executor, images, shards))
    sides[DATASETS] = partial(in_new_folder, work, partial(write_with_datasets, train, images, source.class_names))
    sides[WEBDATASET] = partial(in_new_folder, work, partial(write_with_webdataset, train, images, source.class_names))
    return sides


def ours(workers: int) -> str:
    """Name of our assembly."""
    return f"ours, both formats, {workers} process{'es' if workers > 1 else ''}"


def encoding(workers: int) -> str:
    """Name of the limit."""
    return f"only encoding, {workers} process{'es' if workers > 1 else ''}"


def start_workers(executor: LocalExecutor) -> None:
    """Return when every worker has done something."""
    seen: set[int] = set()
    while len(seen) < executor.workers:
        seen.update(executor.map(own_process, range(2 * executor.workers)))


def own_process(_: int) -> int:
    """Where this ran, after a moment that leaves the next task to another worker."""
    time.sleep(0.05)
    return os.getpid()


def in_new_folder(work: Path, function: Callable[[Path], object]) -> float:
    """Seconds that ``function`` takes in an empty folder; making and deleting it are not counted."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        return wall(partial(function, Path(folder)))()


def assemble(source: Source, perturbation: Perturbation, executor: LocalExecutor, folder: Path) -> None:
    """Our way."""
    Assembly(RECIPE, FORMATS, source, perturbation, BuildFolder(folder)).run(executor, SILENT)


def encode_pieces(executor: LocalExecutor, images: np.ndarray, pieces: Iterable[range]) -> int:
    """Encode all images; the bytes stay with the workers."""
    return sum(executor.map(encoded_size, (images[piece.start : piece.stop] for piece in pieces)))


def encoded_size(images: np.ndarray) -> int:
    """Bytes of some images once encoded."""
    return sum(len(encode_png(image)) for image in images)


def write_with_datasets(train: Split, images: np.ndarray, class_names: tuple[str, ...], folder: Path) -> None:
    """Parquet as the documentation of ``datasets`` shows it."""
    import datasets

    datasets.disable_progress_bars()
    columns = {
        "image": [Image.fromarray(image) for image in images],
        "label": train.labels.tolist(),
        "key": list(train.keys),
        "poisoned": [True] * len(train),
    }
    features = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=list(class_names)),
        "key": datasets.Value("string"),
        "poisoned": datasets.Value("bool"),
    }
    dataset = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    dataset.to_parquet(folder / "train.parquet")


def write_with_webdataset(train: Split, images: np.ndarray, class_names: tuple[str, ...], folder: Path) -> None:
    """Tar as the documentation of ``webdataset`` shows it."""
    import webdataset as wds

    with wds.TarWriter(str(folder / "train.tar")) as writer:
        for image, label, key in zip(images, train.labels.tolist(), train.keys, strict=True):
            about = {"key": key, "label": label, "class": class_names[label], "poisoned": True}
            writer.write({"__key__": key, "png": Image.fromarray(image), "cls": label, "json": about})


def total(first: Timing, second: Timing) -> Timing:
    """One after the other."""
    return Timing(tuple(a + b for a, b in zip(first.seconds, second.seconds, strict=True)))


def print_assembly(timings: dict[str, Timing], num_images: int, counts: list[int]) -> None:
    """The main table, and how our side compares."""
    rows = [
        [name, f"{timing.median:.2f}", f"{timing.fastest:.2f}", f"{num_images / timing.median:,.0f}"]
        for name, timing in timings.items()
    ]
    table(f"Assembling {num_images:,} images in both formats", ["", "median s", "min s", "images/s"], rows)
    for count in counts:
        mine = timings[ours(count)].median
        faster, slower = timings[OTHERWISE].median / mine, mine / timings[encoding(count)].median
        print(f"  {ours(count)}: {faster:.1f} times faster than both, {slower:.2f} times encoding alone")
    print(f"  {AIM}")


def writing_sides(source: Source, work: Path) -> dict[str, Callable[[], float]]:
    """Writers that are handed the same encoded images."""
    train, names = source.train, source.class_names
    encoded, labels, poisoned = (
        [encode_png(image) for image in train.pixels()],
        train.labels.tolist(),
        [True] * len(train),
    )
    columns = (encoded, labels, train.keys, np.array(poisoned), names)
    samples = [
        {
            "__key__": key,
            "png": image,
            "cls": b"%d" % label,
            "json": json.dumps({"key": key, "label": label, "class": names[label], "poisoned": True}).encode(),
        }
        for image, label, key in zip(encoded, labels, train.keys, strict=True)
    ]
    writers: dict[str, Callable[[Path], object]] = {
        "ours: Parquet": lambda folder: parquet.write(parquet.table_of(*columns), folder / "train.parquet"),
        "ours: tar with png + cls + json": lambda folder: webdataset.write(folder / "train.tar", *columns),
        "tarfile, USTAR": partial(write_with_tarfile, samples),
        "webdataset: TarWriter(encoder=False)": partial(write_encoded_with_webdataset, samples),
    }
    return {name: partial(in_new_folder, work, writer) for name, writer in writers.items()}


def write_with_tarfile(samples: list[dict[str, Any]], folder: Path) -> None:
    """The standard library's headers."""
    with tarfile.open(folder / "train.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            for extension in ("png", "cls", "json"):
                info = tarfile.TarInfo(f"{sample['__key__']}.{extension}")
                info.size = len(sample[extension])
                tar.addfile(info, io.BytesIO(sample[extension]))


def write_encoded_with_webdataset(samples: list[dict[str, Any]], folder: Path) -> None:
    """The headers of ``webdataset``."""
    import webdataset as wds

    with wds.TarWriter(str(folder / "train.tar"), encoder=False) as writer:
        for sample in samples:
            writer.write(sample)


def print_speeds(timings: dict[str, Timing], num_images: int) -> None:
    """The table of writers."""
    rows = [
        [name, f"{num_images / timing.median:,.0f}", f"{num_images / timing.fastest:,.0f}"]
        for name, timing in timings.items()
    ]
    table("Writing encoded images, one core", ["", "images/s, median", "best"], rows)


def compare_encoders(images: np.ndarray, repeats: int) -> dict[str, dict[str, float]]:
    """Speed and size of PNG encoders and levels, printed and returned."""
    encoders = png_encoders()
    timings = interleaved({name: wall(partial(encode_with, e, images)) for name, e in encoders.items()}, repeats)
    results: dict[str, dict[str, float]] = {}
    rows = []
    for name, encode in encoders.items():
        speed, best = len(images) / timings[name].median, len(images) / timings[name].fastest
        size = encode_with(encode, images) / len(images)
        results[name] = {"images_per_second": speed, "best": best, "bytes_per_image": size}
        rows.append([name, f"{speed:,.0f}", f"{best:,.0f}", f"{size:,.0f}"])
    title = f"PNG encoders on {len(images):,} images, one core"
    table(title, ["", "images/s, median", "best", "bytes/image"], rows)
    return results


def encode_with(encode: Encoder, images: np.ndarray) -> int:
    """Bytes of all images, encoded one after the other."""
    return sum(len(encode(image)) for image in images)


def png_encoders() -> dict[str, Encoder]:
    """Ours, and the alternatives that are installed."""
    encoders: dict[str, Encoder] = {f"ours (Pillow, level {COMPRESS_LEVEL})": encode_png}
    levels = (1, 6, 9)
    encoders |= {
        f"Pillow, level {level}": partial(encode_with_pillow, level) for level in levels if level != COMPRESS_LEVEL
    }
    if find_spec("cv2"):
        encoders |= {f"OpenCV, level {level}": partial(encode_with_opencv, level) for level in levels}
    if find_spec("imagecodecs"):
        encoders |= {f"imagecodecs, level {level}": partial(encode_with_imagecodecs, level) for level in levels}
    return encoders


def encode_with_pillow(level: int, image: np.ndarray) -> bytes:
    """Pillow with another level than ours."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=level)
    return stream.getvalue()


def encode_with_opencv(level: int, image: np.ndarray) -> bytes:
    """OpenCV, which wants its channels the other way round."""
    import cv2

    encoded: np.ndarray = cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, level])[1]
    return encoded.tobytes()


def encode_with_imagecodecs(level: int, image: np.ndarray) -> bytes:
    """Imagecodecs, which calls libpng."""
    import imagecodecs

    return bytes(imagecodecs.png_encode(image, level=level))


if __name__ == "__main__":
    main()
