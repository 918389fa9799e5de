"""What ``ule-build`` costs per image at the scale of ImageNet, and what grows with the number of images.

    python benchmarks/scale.py FOLDER [--images 5000 50000] [--workers 1 2] [--executor local|ray] [--json FILE]
    python benchmarks/scale.py --metadata 1281167 10000000

The first form builds subsets of a folder such as ``benchmarks/synthetic_images.py`` writes (links to the first images
of every class of both splits), with the command that a user would type. The time of each phase comes from
``manifest.json``; the memory of every process and the bytes on disk are read while it runs. Right before and right
after each build the limits are measured on the same cores, with as many processes: reading, decoding and resizing
files and nothing else, summing the moments of the same pixels (which is the search but for reading them and for the
choice), and encoding them as PNG. All builds of the same images must have
written the same files.

The second form feeds what the main process knows about its images (names, keys, digests, labels, no pixels) to the
code that brings them into order and plans the work, for more images than there are, and says what that takes.

Linux only.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import pickle
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from common import finish, table
from decode import CROP, RESIZE
from memory import KIB_MB, PROC, Memory, read, ule_build

from ule_datasets.base.errors import InputError
from ule_datasets.base.options import FORMATS
from ule_datasets.compute.executor import available_cpus
from ule_datasets.compute.opening import EXECUTORS
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.codec import Rules, decode_rgb, encode_png
from ule_datasets.data.split import Split, order_free_digest
from ule_datasets.data.spool import view
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.dataset.shards import ShardResult, shard_rows
from ule_datasets.methods.engine.moments import moments_by_class
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.sources.collect import collect
from ule_datasets.sources.decode import ChunkTask, Decoded
from ule_datasets.sources.image_folder import FILES_PER_CHUNK, Files
from ule_datasets.sources.imagenet import IMAGENET1K, WNIDS

SECONDS_BETWEEN_READINGS = 0.25
SECONDS_BETWEEN_LISTINGS = 2.0
IMAGE_BYTES = CROP * CROP * 3
SPLITS = ("train", "val")
PHASES = ("read source", "craft", "assemble")
AIM_SEARCH, AIM_ASSEMBLY = 0.10, 1.2
FORMAT_CHOICES = {**{name: (name,) for name in FORMATS}, "both": FORMATS}
IMAGES_PER_TASK = 100
IMAGES_PER_CHOICE = 64
SHARD_MEBIBYTES = 256
"""Raw pixels per shard of the recipes for ImageNet."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Images per second of all processes together that do nothing else."""

    decode: float
    """Read a file, decode, resize, crop."""
    moments: float
    """The sums of the One-Pixel Shortcut over the result, which is in memory."""
    encode: float
    """PNG of the result."""


@dataclass(slots=True, kw_only=True)
class Build:
    """What was seen of one build."""

    images: int
    """Asked for, of the training split."""
    workers: int
    formats: str
    load: float
    """Load average of the machine over the minute before."""
    limits: list[Limits] = field(default_factory=list)
    """Before and after."""
    wall: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    """By phase."""
    examples: dict[str, int] = field(default_factory=dict)
    """Images in the dataset, by split."""
    memory: Memory = field(default_factory=Memory)
    spool: int = 0
    """Largest number of bytes of decoded images on disk."""
    disk: int = 0
    """Largest number of bytes in the folder of the build, all files."""
    outputs: dict[str, int] = field(default_factory=dict)
    """Bytes of the dataset by format."""
    shards: dict[str, str] = field(default_factory=dict)
    """Digests of the files that hold images."""

    @property
    def total(self) -> int:
        """Images of both splits."""
        return sum(self.examples.values())

    def rate(self, phase: str) -> float:
        """Images per second; only the search leaves the test split alone."""
        return (self.examples["train"] if phase == "craft" else self.total) / self.seconds[phase]

    def limit(self, what: str) -> float:
        """Mean of before and after."""
        return statistics.mean(float(getattr(limits, what)) for limits in self.limits)

    def worker(self, kind: int) -> float:
        """The largest worker's PSS (0) or RSS (1) in MB; 0 where the main process does the work."""
        seen = [values[kind] for role, values in self.memory.processes.items() if role.startswith("worker")]
        return max(seen, default=0.0)


class Disk:
    """Watches the folder of a build."""

    def __init__(self, out: Path, build: Build) -> None:
        self._out = out
        self._build = build
        self._listed = -SECONDS_BETWEEN_LISTINGS

    def observe(self, _: int, elapsed: float) -> None:
        """List it, unless that was done a moment ago."""
        if elapsed - self._listed < SECONDS_BETWEEN_LISTINGS:
            return
        self._listed = elapsed
        sizes = list(file_sizes(self._out))
        self._build.disk = max(self._build.disk, sum(size for _, size in sizes))
        self._build.spool = max(self._build.spool, sum(size for path, size in sizes if path.parent.name == "spool"))


def main() -> None:
    """Run what was asked for and print it."""
    args = arguments()
    if not PROC.is_dir():
        raise SystemExit("this benchmark reads /proc, which this system does not have")
    if args.metadata:
        counts = {count: in_a_new_process(partial(metadata_stages, count)) for count in args.metadata}
        print_metadata(counts)
        choice = choice_seconds()
        print(f"\n  choosing the pixel of one class of {CROP} x {CROP} images from its moments: {choice:.3f} s")
        stages = {str(count): [asdict(stage) for stage in stages] for count, stages in counts.items()}
        finish(args.json, {"metadata": stages, "seconds to choose a pixel": choice})
        return
    builds: list[Build] = []
    with tempfile.TemporaryDirectory(dir=args.work, prefix="ule-scale-") as folder:
        for images in args.images:
            source = subset(args.folder, images, Path(folder) / f"source-{images}")
            for workers, formats in itertools.product(args.workers, args.formats):
                builds.append(one_build(source, images, workers, formats, args))
                print_progress(builds[-1])
            shutil.rmtree(source)
    check_equal(builds)
    for formats in args.formats:
        print_builds([build for build in builds if build.formats == formats], f"{args.recipe}, {formats}")
    finish(args.json, {"recipe": args.recipe, "executor": args.executor, "builds": [asdict(build) for build in builds]})


def arguments() -> argparse.Namespace:
    """The checked command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path, nargs="?", help="train/CLASS/* and val/CLASS/*")
    options.add_argument(
        "--images",
        type=int,
        nargs="+",
        default=[5000, 50_000],
        help="training images of a build (default: %(default)s)",
    )
    options.add_argument(
        "--workers", type=int, nargs="+", default=sorted({1, available_cpus()}), help="default: 1 and one per CPU"
    )
    options.add_argument("--executor", choices=EXECUTORS, default="local", help="default: %(default)s")
    options.add_argument(
        "--formats", choices=FORMAT_CHOICES, nargs="+", default=["parquet", "both"], help="default: %(default)s"
    )
    options.add_argument("--recipe", default="ops", help="of one's own images: a name or file (default: %(default)s)")
    options.add_argument(
        "--limit-images", type=int, default=1000, help="what the limits are measured on (default: %(default)s)"
    )
    options.add_argument("--work", type=Path, help="where datasets are built (default: the temporary folder)")
    options.add_argument(
        "--metadata", type=int, nargs="+", help="build nothing: only the main process, for so many images"
    )
    options.add_argument("--json", type=Path, help="also write every number to this file")
    args = options.parse_args()
    if (args.folder is None) == (args.metadata is None):
        options.error("give either a FOLDER or --metadata COUNT")
    if min(*args.images, *args.workers, *(args.metadata or ()), args.limit_images) < 1:
        options.error("--images, --workers, --limit-images and --metadata must be at least 1")
    return args


def subset(folder: Path, images: int, out: Path) -> Path:
    """A folder of links to the first images of every class: equally many of each, give or take one."""
    classes = {split: sorted(path for path in (folder / split).iterdir() if path.is_dir()) for split in SPLITS}
    files = {path: sorted(path.iterdir(), key=by_number) for paths in classes.values() for path in paths}
    present = sum(len(files[path]) for path in classes["train"])
    if images > present:
        raise SystemExit(f"{folder} has {present:,} training images, not {images:,}")
    for split, paths in classes.items():
        for number, path in enumerate(paths):
            share = images / len(paths) if split == "train" else len(files[path]) * images / present
            count = max(1, int((number + 1) * share) - int(number * share))
            (out / split / path.name).mkdir(parents=True)
            for file in files[path][:count]:
                (out / split / path.name / file.name).symlink_to(file.resolve())
    return out


def by_number(file: Path) -> tuple[int, str]:
    """Orders ``n01440764_9`` before ``n01440764_10``."""
    return len(file.name), file.name


def one_build(source: Path, images: int, workers: int, formats: str, args: argparse.Namespace) -> Build:
    """Build, watching, between two measurements of the limits; the dataset is deleted."""
    build = Build(images=images, workers=workers, formats=formats, load=os.getloadavg()[0])
    out = source.with_name("dataset")
    paths = evenly_spaced(sorted((source / "train").rglob("*.*")), args.limit_images)
    arguments = [args.recipe, "--crop", str(CROP), "--resize", str(RESIZE), "--source", str(source)]
    arguments += ["--skip-unusable", "--out", str(out)]
    arguments += ["--workers", str(workers), "--executor", args.executor]
    arguments += [word for name in FORMAT_CHOICES[formats] for word in ("--format", name)]
    build.limits.append(limits(paths, workers))
    observers = [build.memory.observe, Disk(out, build).observe]
    build.wall, _ = ule_build(arguments, observers, SECONDS_BETWEEN_READINGS)
    build.limits.append(limits(paths, workers))
    manifest = Manifest.read(out)
    build.seconds = manifest.timings
    build.examples = {name: record.num_examples for name, record in manifest.splits.items()}
    for name, where in zip(FORMATS, ("data/", "webdataset/"), strict=True):
        shards = [record for record in manifest.files if record.path.startswith(where)]
        build.outputs |= {name: sum(record.size for record in shards)} if shards else {}
        build.shards |= {record.path: record.sha256 for record in shards}
    shutil.rmtree(out)
    return build


def evenly_spaced(paths: Sequence[Path], count: int) -> list[Path]:
    """At most ``count`` of the files, from all classes."""
    return [paths[place * len(paths) // count] for place in range(count)] if len(paths) > count else list(paths)


def limits(paths: Sequence[Path], workers: int) -> Limits:
    """Measure them in local processes, each with a part of the files at a time."""
    parts = [tuple(paths[start : start + IMAGES_PER_TASK]) for start in range(0, len(paths), IMAGES_PER_TASK)]
    with LocalExecutor(workers, preload=("ule_datasets.data.codec", "PIL.PngImagePlugin")) as executor:
        list(executor.map(bare_loops, [parts[0]] * workers))
        results = list(executor.map(bare_loops, parts))
    count, *seconds = (sum(result[index] for result in results) for index in range(4))
    return Limits(*(workers * count / each for each in seconds))


def bare_loops(paths: tuple[Path, ...]) -> tuple[int, float, float, float]:
    """How many of the files are images, and the seconds for decoding, summing and encoding all of these."""
    images, rules = [], Rules(convert=True, resize=RESIZE, crop=CROP)
    started = time.perf_counter()
    for path in paths:
        try:
            images.append(decode_rgb(path.read_bytes(), str(path), rules).pixels)
        except InputError:
            continue  # the build leaves the same files out
    decoded = time.perf_counter()
    pixels = np.array(images, dtype=np.uint8).reshape(-1, CROP, CROP, 3)
    stacked = time.perf_counter()
    list(moments_by_class(pixels, np.zeros(len(pixels), dtype=np.int64), 1, cross=False, executor=LocalExecutor()))
    summed = time.perf_counter()
    for image in images:
        encode_png(image)
    return len(images), decoded - started, summed - stacked, time.perf_counter() - summed


def file_sizes(folder: Path) -> Iterator[tuple[Path, int]]:
    """All files below a folder in which others work: those that have just gone are left out."""
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                yield Path(path, name), Path(path, name).stat().st_size
            except FileNotFoundError:
                continue


def check_equal(builds: Sequence[Build]) -> None:
    """Nothing may depend on the number of workers, or on the other format."""
    for one, other in itertools.combinations(builds, 2):
        common = one.shards.keys() & other.shards.keys() if one.images == other.images else set()
        different = sorted(path for path in common if one.shards[path] != other.shards[path])
        if different:
            raise SystemExit(
                f"{one.images} images: {different[0]} differs between {one.workers} and {other.workers} workers"
            )


def print_progress(build: Build) -> None:
    """A line for each build as it ends."""
    phases = ", ".join(f"{phase} {build.seconds[phase]:.1f} s" for phase in PHASES)
    print(
        f"{build.images:,} images, {build.workers} workers, {build.formats}: {phases}; load {build.load:.1f}",
        flush=True,
    )


def print_builds(builds: Sequence[Build], title: str) -> None:
    """Everything, a column for each build."""
    header = ["", *(f"{build.images:,} x {build.workers}" for build in builds)]

    def row(name: str, value: Callable[[Build], float], form: str = ",.0f") -> list[str]:
        return [name, *(format(value(build), form) for build in builds)]

    speed = [row(phase, partial(Build.rate, phase=phase)) for phase in PHASES]
    speed.append(row("limit: decode, resize", lambda build: build.limit("decode")))
    speed.append(row("limit: moments", lambda build: build.limit("moments")))
    speed.append(row("limit: PNG", lambda build: build.limit("encode")))
    table(f"{title}: images/s, training images x workers", header, speed)
    ratios = [
        row("read source, times the limit", lambda build: build.limit("decode") / build.rate("read source"), ".2f"),
        row(
            f"search over decoding (aim {AIM_SEARCH})", lambda build: build.limit("decode") / build.rate("craft"), ".3f"
        ),
        row("search, times the moments", lambda build: build.limit("moments") / build.rate("craft"), ".2f"),
        row(
            f"assemble, times PNG (aim {AIM_ASSEMBLY})",
            lambda build: build.limit("encode") / build.rate("assemble"),
            ".2f",
        ),
        row("speed-up over fewest workers", partial(speed_up, builds), ".2f"),
        row("largest change of a limit during the build", drift, ".2f"),
        row("load before", lambda build: build.load, ".1f"),
    ]
    table(f"{title}: ratios", header, ratios)
    times = [row(phase, partial(seconds_of, phase=phase), ",.1f") for phase in builds[0].seconds]
    table(f"{title}: seconds", header, [*times, row("wall time", lambda build: build.wall, ",.1f")])
    memory = [
        [f"{name}, {kind}", *(f"{value(build, index):,.0f}" for build in builds)]
        for name, value in (("main process", main_process), ("largest worker", Build.worker))
        for index, kind in enumerate(("PSS", "RSS"))
    ]
    memory.append(row("all at one moment, PSS", lambda build: build.memory.total_pss))
    table(f"{title}: peak memory in MB", header, memory)
    disk = [row("decoded images, bytes an image", lambda build: build.spool / build.total)]
    disk += [row(f"{name}, bytes an image", partial(output_of, name=name)) for name in builds[0].outputs]
    disk += [row("decoded images, GB", lambda build: build.spool / 1e9, ".2f")]
    disk += [row("everything at its largest, GB", lambda build: build.disk / 1e9, ".2f")]
    table(f"{title}: disk", header, disk)


def seconds_of(build: Build, phase: str) -> float:
    """Seconds of a phase."""
    return build.seconds[phase]


def output_of(build: Build, name: str) -> float:
    """Bytes of an image in a format."""
    return build.outputs[name] / build.total


def main_process(build: Build, kind: int) -> float:
    """PSS (0) or RSS (1) of the main process in MB."""
    return build.memory.processes["main"][kind]


def speed_up(builds: Sequence[Build], build: Build) -> float:
    """Of the three phases together, over the build of as many images with the fewest workers."""
    same = [other for other in builds if other.images == build.images]
    slowest = min(same, key=lambda other: other.workers)
    return sum(slowest.seconds[phase] for phase in PHASES) / sum(build.seconds[phase] for phase in PHASES)


def drift(build: Build) -> float:
    """How far apart the limits before and after are: what other work on the machine did to the numbers."""
    before, after = build.limits
    return max(abs(after.decode / before.decode - 1), abs(after.encode / before.encode - 1))


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of the main process."""

    name: str
    seconds: float
    rss: float
    """Resident afterwards, in MB more than before the first step."""
    peak: float
    """The largest until then, likewise."""


def in_a_new_process(function: Callable[[], list[Stage]]) -> list[Stage]:
    """Its result, from a process that has done nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function).result()


def metadata_stages(count: int) -> list[Stage]:
    """What the main process does with so many images of ImageNet's form, step by step; sample digests are made up."""
    stages: list[Stage] = []
    base = resident()[0]
    clock = time.perf_counter()

    def done(name: str) -> None:
        nonlocal clock
        seconds, (rss, peak) = time.perf_counter() - clock, resident()
        stages.append(Stage(name, seconds, rss - base, peak - base))
        clock = time.perf_counter()

    chunks = [(task, received(task, number)) for number, task in enumerate(chunk_tasks(count))]
    done("file names listed, what workers say of the chunks received")
    splits, findings = collect({"train": chunks}, "FOLDER")
    train = splits["train"]
    assert len(train) == count
    done("keys, canonical order, source digest")
    del chunks, splits, findings
    done("let go")
    sent = sum(len(pickle.dumps(part)) for part in class_parts(train)) / count
    done(f"search planned, {sent:.1f} bytes an image sent to workers")
    parts = shard_parts(train)
    done(f"{len(parts):,} shards of {SHARD_MEBIBYTES} MiB planned")
    sent = sum(len(pickle.dumps(part)) for part in parts) / count
    done(f"their tasks sent, {sent:.1f} bytes an image")
    results = [written(part, number) for number, part in enumerate(parts)]
    done("what workers say of the shards received")
    order_free_digest([bytes.fromhex(digest) for result in results for digest in result.sample_digests])
    done("digest of the dataset")
    return stages


def chunk_tasks(count: int) -> Iterator[ChunkTask]:
    """Chunks as ``image_folder`` makes them."""
    folder, spool = Path("FOLDER/train"), Path("OUT/.build/spool")
    for number, start in enumerate(range(0, count, FILES_PER_CHUNK)):
        rows = range(start, min(start + FILES_PER_CHUNK, count))
        labels = tuple(row * len(WNIDS) // count for row in rows)
        names = tuple(f"{WNIDS[label]}/{WNIDS[label]}_{row}.JPEG" for label, row in zip(labels, rows, strict=True))
        path = spool / f"train-{number:06d}.rgb"
        yield ChunkTask("train", Files(folder, names, labels), None, len(WNIDS), IMAGENET1K, path)


def received(task: ChunkTask, number: int) -> Decoded:
    """What a worker sends back about a chunk, through the pickling that this takes."""
    files = task.chunk
    assert isinstance(files, Files)
    decoded = Decoded(
        image_shape=(CROP, CROP, 3),
        labels=list(files.labels),
        digests=random_digests(len(files.names), 0, number),
        names=[path.stem for path in files.paths],
        first_origin=str(files.paths[0]),
    )
    copy: Decoded = pickle.loads(pickle.dumps(decoded))
    return copy


def class_parts(train: Split) -> Iterator[object]:
    """The images of one class after the other, as the search sends them to workers."""
    order = np.argsort(train.labels, kind="stable")
    starts = np.searchsorted(train.labels[order], np.arange(len(WNIDS) + 1)).tolist()
    for start, stop in itertools.pairwise(starts):
        yield view(train.images, order[start:stop])


def shard_parts(train: Split) -> list[Split]:
    """The rows of every shard."""
    return [train.rows(rows.start, rows.stop) for rows in shard_rows(len(train), IMAGE_BYTES, SHARD_MEBIBYTES)]


def written(part: Split, number: int) -> ShardResult:
    """What a worker sends back about a shard."""
    digests = tuple(digest.hex() for digest in random_digests(len(part), 1, number))
    result = ShardResult(
        files=({"format": "parquet", "size": 0, "sha256": digests[0]},),
        sample_digests=digests,
        num_poisoned=len(part),
        arrow_bytes=0,
    )
    copy: ShardResult = pickle.loads(pickle.dumps(result))
    return copy


def random_digests(count: int, *seed: int) -> list[bytes]:
    """Stand for sha256 values."""
    data = np.random.default_rng(seed).bytes(32 * count)
    return [data[32 * index : 32 * (index + 1)] for index in range(count)]


def resident() -> tuple[float, float]:
    """RSS of this process now and at its largest, in MB."""
    lines = read(PROC / "self" / "status").splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
    return float(values["VmRSS"]) * KIB_MB, float(values["VmHWM"]) * KIB_MB


def choice_seconds() -> float:
    """Seconds that the main process needs for the pixel of one class; median of five."""
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES_PER_CHOICE, CROP, CROP, 3), dtype=np.uint8)
    labels = np.zeros(len(pixels), dtype=np.int64)
    moments = list(moments_by_class(pixels, labels, 1, cross=False, executor=LocalExecutor()))
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        OnePixelShortcut().search(moments)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def print_metadata(counts: dict[int, list[Stage]]) -> None:
    """A table for each number of images."""
    for count, stages in counts.items():
        rows = [
            [
                stage.name,
                f"{stage.seconds:.1f}",
                f"{stage.rss:,.0f}",
                f"{stage.peak:,.0f}",
                f"{stage.peak * 1e6 / count:,.0f}",
            ]
            for stage in stages
        ]
        header = ["", "seconds", "MB afterwards", "MB at most", "bytes an image at most"]
        table(f"The main process with {count:,} images, without their pixels", header, rows)


if __name__ == "__main__":
    main()
