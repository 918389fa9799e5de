"""The limit of reading an ImageNet-like folder, and what other decoders would gain and change.

    python benchmarks/decode.py FOLDER [--images 2000] [--workers 1 2]

Our way to 224 x 224 pixels is Pillow's decoder and Pillow's antialiased resize (``ule_datasets.data.codec``). Beside
it, in the same run, with one thread per process and on the same files already in memory: decoding alone, torchvision's
decoder and resize, simplejpeg and OpenCV where they are installed, and two short cuts that decode to a smaller size
(Pillow's ``draft``, simplejpeg's ``min_height``). How far the pixels of each are from ours is printed too: digests are
of pixels, so only a way whose pixels are ours can take its place.

The second table has the other pieces that the time of a build is made of: reading a file, encoding PNG, sha256, and
writing and reading raw images of 150,528 bytes.

Files that are not RGB JPEG, or broken, are left out. With several processes each has its share of the files; times are
per image and process.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from common import Timing, finish, interleaved, seconds_of, table
from PIL import Image

from ule_datasets.base.errors import InputError
from ule_datasets.compute.executor import available_cpus
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.codec import decode_rgb, encode_png, resize_and_crop

if TYPE_CHECKING:
    import torch

RESIZE, CROP = 256, 224
SUFFIXES = (".jpeg", ".jpg")
JPEG_START = b"\xff\xd8"
OURS = "Pillow, resize, crop (ours)"
ALTERNATIVES = {"simplejpeg": "simplejpeg", "cv2": "opencv-python-headless"}
"""Modules, and what to install for them."""
IMAGES_FOR_PIECES = 500
IMAGES_COMPARED = 500
WARM_UP = 3
Decoder = Callable[[bytes], np.ndarray]
Images = Sequence[np.ndarray]


@dataclass(frozen=True, slots=True)
class Task:
    """One side, for one process."""

    side: str
    paths: tuple[Path, ...]
    work: Path
    """A folder for files that are written."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far the pixels of one way are from ours."""

    identical: float
    """Share of the images that are equal in every byte."""
    largest: int
    mean: float
    """Mean absolute difference over all images, in grey levels."""


def main() -> None:
    """Measure and print."""
    args = arguments()
    paths = usable(evenly_spaced(args.folder, args.images))
    if len(paths) < max(args.workers):
        raise SystemExit(f"{args.folder}: {len(paths)} usable RGB JPEG files, fewer than processes")
    say_what_is_absent()
    seconds: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        for count in args.workers:
            with LocalExecutor(count) as executor:
                timings = measure(executor, paths, Path(folder), args.repeats)
            print_timings(timings, count)
            seconds[str(count)] = seconds_of(timings)
    different = differences(paths[:: max(1, len(paths) // IMAGES_COMPARED)])
    print_differences(different, paths)
    pixels = {name: [d.identical, d.largest, d.mean] for name, d in different.items()}
    finish(args.json, {"images": len(paths), "seconds per image and process": seconds, "pixels": pixels})


def arguments() -> argparse.Namespace:
    """The checked command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path, help="JPEG files in any folders below")
    options.add_argument("--images", type=int, default=2000, help="how many, evenly spaced (default: %(default)s)")
    options.add_argument(
        "--workers", type=int, nargs="+", default=sorted({1, available_cpus()}), help="default: 1 and one per CPU"
    )
    options.add_argument("--repeats", type=int, default=3, help="repetitions (default: %(default)s)")
    options.add_argument("--work", type=Path, help="where raw images are written (default: the temporary folder)")
    options.add_argument("--json", type=Path, help="also write every number to this file")
    args = options.parse_args()
    if min(args.images, args.repeats, *args.workers) < 1:
        options.error("--images, --repeats and --workers must be at least 1")
    return args


def evenly_spaced(folder: Path, count: int) -> list[Path]:
    """At most ``count`` of the JPEG files below a folder, from all of its parts."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return [paths[place * len(paths) // count] for place in range(count)] if len(paths) > count else paths


def usable(paths: list[Path]) -> list[Path]:
    """The RGB JPEG files that can be decoded; says what the files are like."""
    kept, widths, heights, sizes = [], [], [], []
    for path in paths:
        data = path.read_bytes()
        if not data.startswith(JPEG_START):
            continue
        try:
            height, width, _ = plain(data).shape
        except InputError:
            continue
        kept.append(path)
        widths.append(width)
        heights.append(height)
        sizes.append(len(data))
    print(f"{len(kept):,} files; {len(paths) - len(kept)} more that are not RGB JPEG, or broken, are left out")
    if kept:
        print(f"mean: {np.mean(sizes) / 1e3:.1f} kB, {np.mean(widths):.0f} x {np.mean(heights):.0f} pixels")
    return kept


def say_what_is_absent() -> None:
    """Name the alternatives that are not measured."""
    for module, distribution in ALTERNATIVES.items():
        if find_spec(module):
            print(f"{distribution} {metadata.version(distribution)}")
        else:
            print(f"not measured, because it is not installed: {distribution}")


def measure(executor: LocalExecutor, paths: list[Path], work: Path, repeats: int) -> dict[str, Timing]:
    """Seconds per image and process of every side."""
    shares = [tuple(paths[first :: executor.workers]) for first in range(executor.workers)]

    def side(name: str) -> float:
        return statistics.mean(executor.map(seconds_per_image, [Task(name, share, work) for share in shares]))

    return interleaved({name: partial(side, name) for name in (*decoders(), READING, *PIECES)}, repeats)


def seconds_per_image(task: Task) -> float:
    """One repetition of one side in one process; files are read before the clock starts."""
    use_one_thread()
    if task.side == READING:
        return read_files(task.paths) / len(task.paths)
    if task.side in PIECES:
        images = prepared(task.paths[:IMAGES_FOR_PIECES])
        return PIECES[task.side](images, task.work) / len(images)
    decode = decoders()[task.side]
    data = [path.read_bytes() for path in task.paths]
    for some in data[:WARM_UP]:
        decode(some)
    started = time.perf_counter()
    for some in data:
        decode(some)
    return (time.perf_counter() - started) / len(data)


def use_one_thread() -> None:
    """In this process, whatever the libraries would do."""
    import torch

    torch.set_num_threads(1)
    if find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)


@cache
def decoders() -> dict[str, Decoder]:
    """Ways from a file's bytes to pixels; all but the first end with 224 x 224."""
    ways: dict[str, Decoder] = {
        "Pillow, decoding alone": plain,
        OURS: lambda data: square(plain(data)),
        "torchvision, our resize": lambda data: square(_hwc(_torchvision(data))),
        "torchvision, its resize": with_torchvision,
    }
    if find_spec("simplejpeg"):
        ways["simplejpeg, our resize"] = lambda data: square(_simplejpeg(data))
    if find_spec("cv2"):
        ways["OpenCV, our resize"] = lambda data: square(_opencv(data))
    ways["NOT PIXEL EXACT: Pillow with draft"] = lambda data: square(_draft(data))
    if find_spec("simplejpeg"):
        ways["NOT PIXEL EXACT: simplejpeg, scaled"] = lambda data: square(_simplejpeg(data, RESIZE))
    return ways


def plain(data: bytes) -> np.ndarray:
    """Our decoder."""
    return decode_rgb(data, "a file")[0]


def square(image: np.ndarray) -> np.ndarray:
    """Our resize and crop."""
    return resize_and_crop(image, RESIZE, CROP, "a file")


def with_torchvision(data: bytes) -> np.ndarray:
    """Decoded, resized and cropped as uint8 tensors."""
    from torchvision.transforms.v2 import functional

    small = functional.resize(_torchvision(data), [RESIZE], antialias=True)
    return np.ascontiguousarray(_hwc(functional.center_crop(small, [CROP, CROP])))


def _torchvision(data: bytes) -> torch.Tensor:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    decoded: torch.Tensor = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    return decoded


def _hwc(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


def _simplejpeg(data: bytes, shortest: int = 0) -> np.ndarray:
    import simplejpeg

    decoded: np.ndarray = simplejpeg.decode_jpeg(data, "RGB", min_height=shortest, min_width=shortest, strict=False)
    return decoded


def _opencv(data: bytes) -> np.ndarray:
    import cv2

    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    decoded: np.ndarray | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    assert decoded is not None
    return decoded


def _draft(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (RESIZE, RESIZE))
        return np.asarray(image)


@cache
def prepared(paths: tuple[Path, ...]) -> Images:
    """Images as they are stored, made once in every process."""
    return [square(plain(path.read_bytes())) for path in paths]


def read_files(paths: Sequence[Path]) -> float:
    """Seconds for the files' bytes, which the page cache has after the first repetition."""
    started = time.perf_counter()
    for path in paths:
        path.read_bytes()
    return time.perf_counter() - started


def encode(images: Images, _: Path) -> float:
    """Seconds of our PNG encoder."""
    started = time.perf_counter()
    for image in images:
        encode_png(image)
    return time.perf_counter() - started


def digest(images: Images, _: Path) -> float:
    """Seconds of sha256 over the raw bytes."""
    started = time.perf_counter()
    for image in images:
        hashlib.sha256(image.data).digest()
    return time.perf_counter() - started


def write(images: Images, work: Path, *, synced: bool = False) -> float:
    """Seconds for one raw file with all images; ``synced``: until they are on the disk."""
    with tempfile.TemporaryFile(dir=work, buffering=0) as file:
        started = time.perf_counter()
        for image in images:
            file.write(image.data)
        if synced:
            os.fsync(file.fileno())
        return time.perf_counter() - started


def read(images: Images, work: Path, *, evicted: bool = False) -> float:
    """Seconds for all images of a raw file, in random order; ``evicted``: after the page cache has dropped them."""
    size = images[0].nbytes
    order = np.random.default_rng(0).permutation(len(images)).tolist()
    with tempfile.TemporaryFile(dir=work, buffering=0) as file:
        for image in images:
            file.write(image.data)
        if evicted:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.perf_counter()
        for place in order:
            os.pread(file.fileno(), size, place * size)
        return time.perf_counter() - started


READING = "read a JPEG file, page cache"
"""The piece that works on the files themselves."""
PIECES: dict[str, Callable[[Images, Path], float]] = {
    "PNG, level 1": encode,
    "sha256 of the raw image": digest,
    "write raw, one after another": write,
    "write raw, then fsync": partial(write, synced=True),
    "read raw at random, page cache": read,
}
if hasattr(os, "posix_fadvise"):
    PIECES["read raw at random, evicted first"] = partial(read, evicted=True)


def print_timings(timings: dict[str, Timing], count: int) -> None:
    """Both tables."""
    base = timings[OURS].median
    heads = ["", "us, median", "us, min", "images/s, all", "times ours"]
    rows = {
        name: [
            name,
            f"{timing.median * 1e6:,.0f}",
            f"{timing.fastest * 1e6:,.0f}",
            f"{count / timing.median:,.0f}",
            f"{timing.median / base:.3f}",
        ]
        for name, timing in timings.items()
    }
    on = f"{count} process{'es' if count > 1 else ''}"
    pieces = (READING, *PIECES)
    table(f"From JPEG to pixels, {on}", heads, [row for name, row in rows.items() if name not in pieces])
    table(f"Other pieces, {CROP} x {CROP}, {on}", heads, [rows[name] for name in pieces])


def differences(paths: list[Path]) -> dict[str, Difference]:
    """Every way to 224 x 224 against ours."""
    use_one_thread()
    ways = {name: way for name, way in decoders().items() if way is not plain and name != OURS}
    gaps: dict[str, list[tuple[int, float]]] = {name: [] for name in ways}
    for path in paths:
        data = path.read_bytes()
        ours = square(plain(data)).astype(np.int16)
        for name, way in ways.items():
            gap = np.abs(ours - way(data))
            gaps[name].append((int(gap.max()), float(gap.mean())))
    return {
        name: Difference(
            identical=statistics.mean(largest == 0 for largest, _ in found),
            largest=max(largest for largest, _ in found),
            mean=statistics.mean(mean for _, mean in found),
        )
        for name, found in gaps.items()
    }


def print_differences(different: dict[str, Difference], paths: list[Path]) -> None:
    """The table of pixels, and how often ``draft`` does anything."""
    rows = [[name, f"{d.identical:.1%}", f"{d.largest}", f"{d.mean:.4f}"] for name, d in different.items()]
    table("Pixels against ours, grey levels", ["", "identical images", "largest", "mean difference"], rows)
    print(f"  draft makes {statistics.mean(map(drafted, paths)):.1%} of the images smaller")


def drafted(path: Path) -> bool:
    """Whether ``draft`` decodes this file to a smaller size: it only halves, and keeps the shorter side at 256."""
    with Image.open(path) as image:
        size = image.size
        image.draft("RGB", (RESIZE, RESIZE))
        return image.size != size


if __name__ == "__main__":
    main()
