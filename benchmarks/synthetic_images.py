"""Write a folder of made-up photographs that is laid out as ImageNet is, for rehearsing builds at its scale.

    python benchmarks/synthetic_images.py OUT --classes 100 --images 50000 --seed 0

``OUT/train/CLASS/CLASS_NUMBER.JPEG`` and ``OUT/val/CLASS/val_NUMBER.JPEG``: baseline JPEG, 4:2:0, quality 75 to 95,
sides of 224 to 640 pixels and mostly 500 x 375. Detail lies in patches on smooth ground, so that files are as large,
and take about as long to decode, as photographs. Each class has a mean colour and textures of its own and can be
learned. As among ImageNet's files there are grey ones (one in 500), CMYK ones (one in 5,000) and PNG files
named JPEG (one in 10,000).

Every image depends on the seed, its class and its number alone, never on the number of workers; its bytes depend on
the versions printed at the end too.
"""

from __future__ import annotations

import argparse
import io
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from common import finish, table
from PIL import Image

from ule_datasets.base.progress import Reporter
from ule_datasets.compute.executor import available_cpus
from ule_datasets.compute.processes import LocalExecutor

TEXTURE_SIDE = 1024
LONGEST, SHORTEST = 640, 224
DETAILED, SMOOTH = 48, 16
GREY_EVERY, CMYK_EVERY, PNG_EVERY = 500, 5_000, 10_000
TRAIN_PER_VALIDATION = 25
SPLITS = ("train", "val")
BANK, CLASS, IMAGE = range(3)
"""What a stream of random numbers is for; the first word after the seed."""
DAMAGES = ("cut in half", "random bytes", "empty")


@dataclass(frozen=True, slots=True)
class Task:
    """One class of one split."""

    folder: Path
    split: str
    label: int
    numbers: range
    """Of its images, within the split."""
    broken: dict[int, str]
    """Those among ``numbers`` whose file is damaged, and how: one of ``DAMAGES``."""
    seed: int


@dataclass(slots=True)
class Written:
    """What a task left on disk."""

    kinds: Counter[str] = field(default_factory=Counter)
    num_bytes: int = 0
    pixels: int = 0
    sides: tuple[int, int] = (0, 0)
    """Sums of the widths and of the heights."""
    broken: list[tuple[Path, str]] = field(default_factory=list)

    def add(self, other: Written) -> None:
        """Count what another task wrote."""
        self.kinds += other.kinds
        self.num_bytes += other.num_bytes
        self.pixels += other.pixels
        self.sides = (self.sides[0] + other.sides[0], self.sides[1] + other.sides[1])
        self.broken += other.broken


@dataclass(frozen=True, slots=True)
class Style:
    """What the images of a class have in common."""

    colour: tuple[float, float, float]
    """Mean brightness, blue and red difference (of YCbCr, 0 to 255)."""
    textures: tuple[int, int]
    """The detailed textures that most of its images show."""


def main() -> None:
    """Write the folder and say what is in it."""
    args = arguments()
    names = class_names(args.classes, imagenet=args.imagenet_names)
    tasks = plan(args.out, names, args.images, args.broken, args.seed)
    total, started = Written(), time.perf_counter()
    with LocalExecutor(args.workers) as executor:
        results = executor.map(write_class, tasks)
        for written in Reporter().track(results, total=len(tasks), label="writing", unit="folder"):
            total.add(written)
    report(total, time.perf_counter() - started, args.workers)
    finish(
        args.json,
        {
            "kinds": dict(total.kinds),
            "bytes": total.num_bytes,
            "pixels": total.pixels,
            "broken": [str(path) for path, _ in total.broken],
        },
    )


def arguments() -> argparse.Namespace:
    """The checked command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("out", type=Path, help="a folder that is empty or does not exist yet")
    options.add_argument("--classes", type=int, default=100, help="default: %(default)s")
    options.add_argument(
        "--images",
        type=int,
        default=50_000,
        help="training images of all classes together; validation has 1/25 of that, at least one for every class "
        "(default: %(default)s)",
    )
    options.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    options.add_argument("--workers", type=int, default=available_cpus(), help="default: one per CPU")
    options.add_argument("--broken", type=int, default=0, help="training images whose file is damaged (default: none)")
    options.add_argument(
        "--imagenet-names", action="store_true", help="call the classes n01440764... as ImageNet does, not n90000000..."
    )
    options.add_argument("--json", type=Path, help="also write every number to this file")
    args = options.parse_args()
    if args.classes < 1 or args.images < args.classes:
        options.error(f"--classes {args.classes} --images {args.images}: at least one class, and one image in each")
    if not 0 <= args.broken <= args.images:
        options.error(f"--broken {args.broken}: must be 0 to {args.images}, the number of images")
    if args.seed < 0 or args.workers < 1:
        options.error(f"--seed {args.seed} --workers {args.workers}: at least 0, and at least 1")
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        options.error(f"{args.out} exists already and is not an empty folder")
    return args


def class_names(count: int, *, imagenet: bool) -> tuple[str, ...]:
    """Names of the class folders, in label order."""
    if not imagenet:
        return tuple(f"n{90_000_000 + label}" for label in range(count))
    from ule_datasets.sources.imagenet import WNIDS

    if count > len(WNIDS):
        raise SystemExit(f"--classes {count}: ImageNet has {len(WNIDS)}")
    return WNIDS[:count]


def plan(out: Path, names: tuple[str, ...], images: int, num_broken: int, seed: int) -> list[Task]:
    """A task for every class of both splits: equally many images in each, give or take one."""
    broken = {(2 * i + 1) * images // (2 * num_broken): DAMAGES[i % len(DAMAGES)] for i in range(num_broken)}
    sizes = {"train": images, "val": max(len(names), images // TRAIN_PER_VALIDATION)}
    tasks = []
    for split in SPLITS:
        for label, name in enumerate(names):
            numbers = range(label * sizes[split] // len(names), (label + 1) * sizes[split] // len(names))
            damages = {n: how for n, how in broken.items() if n in numbers and split == "train"}
            tasks.append(Task(out / split / name, split, label, numbers, damages, seed))
    return tasks


def write_class(task: Task) -> Written:
    """Make and write the images of one class of one split."""
    task.folder.mkdir(parents=True)
    written = Written()
    for number in task.numbers:
        kind = kind_of(number) if task.split == "train" else "colour"
        data, (width, height) = image_file(task, number, kind)
        path = task.folder / file_name(task, number)
        if number in task.broken:
            kind = task.broken[number]
            data = damaged(data, kind)
            written.broken.append((path, kind))
        path.write_bytes(data)
        written.kinds[kind] += 1
        written.num_bytes += len(data)
        written.pixels += width * height
        written.sides = (written.sides[0] + width, written.sides[1] + height)
    return written


def kind_of(number: int) -> str:
    """How an image of the training split is stored: shares that do not depend on chance, and never meet."""
    for kind, every in (("PNG", PNG_EVERY), ("CMYK", CMYK_EVERY), ("grey", GREY_EVERY)):
        if number % every == every * 3 // 4:
            return kind
    return "colour"


def file_name(task: Task, number: int) -> str:
    """Unlike in the two splits, as ImageNet's are."""
    if task.split == "train":
        return f"{task.folder.name}_{number - task.numbers.start}.JPEG"
    return f"val_{number + 1:08d}.JPEG"


def damaged(data: bytes, how: str) -> bytes:
    """What is left of a file."""
    if how == "cut in half":
        return data[: len(data) // 2]
    return stream_of(len(data)).bytes(len(data)) if how == "random bytes" else b""


def image_file(task: Task, number: int, kind: str) -> tuple[bytes, tuple[int, int]]:
    """The bytes of an image's file, and its width and height."""
    generator = stream_of(task.seed, IMAGE, SPLITS.index(task.split), number)
    image = photograph(style_of(task.seed, task.label), bank(task.seed), generator)
    quality = int(generator.integers(75, 96))
    if kind == "grey":
        image = image.getchannel("Y")
    elif kind == "CMYK":
        image = image.convert("RGB").convert("CMYK")
    stream = io.BytesIO()
    if kind == "PNG":
        image.convert("RGB").save(stream, "PNG")
    else:
        image.save(stream, "JPEG", quality=quality, subsampling="4:2:0")
    return stream.getvalue(), image.size


def photograph(style: Style, textures: tuple[Image.Image, ...], generator: np.random.Generator) -> Image.Image:
    """A YCbCr image: detail and smooth ground, one showing where a third texture is bright; colours vary slowly."""
    size = random_size(generator)
    detail = style.textures[generator.integers(2)] if generator.random() < 0.7 else generator.integers(DETAILED)
    ground, where, blue, red = DETAILED + generator.integers(SMOOTH, size=4)
    piece = [cut(textures[index], size, generator) for index in (detail, ground, where, blue, red)]
    brightness, blue_mean, red_mean = np.array(style.colour) + generator.normal(0, (12, 6, 6))
    contrast, saturation = generator.uniform(0.8, 1.2), generator.uniform(0.15, 0.35)
    mask = piece[2].point(levels(150, 4.0))
    grey = Image.composite(piece[0], piece[1], mask).point(levels(brightness, contrast))
    colours = (piece[3].point(levels(blue_mean, saturation)), piece[4].point(levels(red_mean, saturation)))
    return Image.merge("YCbCr", (grey, *colours))


def random_size(generator: np.random.Generator) -> tuple[int, int]:
    """Width and height: mostly 500 x 375, every fourth image upright."""
    long = 500 if generator.random() < 0.7 else int(generator.integers(320, LONGEST + 1))
    shape = generator.random()
    ratio = 4 / 3 if shape < 0.55 else 3 / 2 if shape < 0.8 else generator.uniform(1, 1.6)
    short = max(SHORTEST, round(long / ratio))
    return (short, long) if generator.random() < 0.25 else (long, short)


def cut(texture: Image.Image, size: tuple[int, int], generator: np.random.Generator) -> Image.Image:
    """A random piece of a texture."""
    left, top = (int(generator.integers(TEXTURE_SIDE - length + 1)) for length in size)
    return texture.crop((left, top, left + size[0], top + size[1]))


def levels(mean: float, slope: float) -> list[int]:
    """A table of grey levels for textures, whose mean is 128."""
    return [int(level) for level in np.clip(np.rint(mean + slope * (np.arange(256) - 128)), 0, 255)]


@cache
def style_of(seed: int, label: int) -> Style:
    """A class's own; colours are kept away from the ends of the scale."""
    generator = stream_of(seed, CLASS, label)
    brightness, blue, red = generator.uniform((90, 100, 100), (166, 156, 156))
    first, second = generator.integers(DETAILED, size=2)
    return Style((float(brightness), float(blue), float(red)), (int(first), int(second)))


@cache
def bank(seed: int) -> tuple[Image.Image, ...]:
    """Grey textures, made once in every process: the detailed ones, then the smooth ones."""
    generator = stream_of(seed, BANK)
    falls = [*np.linspace(0.5, 0.95, DETAILED), *np.linspace(1.6, 2.2, SMOOTH)]
    return tuple(texture(float(fall), generator) for fall in falls)


def texture(fall: float, generator: np.random.Generator) -> Image.Image:
    """A random field whose amplitudes fall with that power of the frequency; photographs have about 1."""
    rows, columns = np.fft.fftfreq(TEXTURE_SIDE, 1 / TEXTURE_SIDE), np.fft.rfftfreq(TEXTURE_SIDE, 1 / TEXTURE_SIDE)
    frequency = np.hypot(rows[:, None], columns)
    frequency[0, 0] = np.inf
    noise = np.fft.rfft2(generator.standard_normal((TEXTURE_SIDE, TEXTURE_SIDE)))
    values = np.fft.irfft2(noise / frequency**fall, s=(TEXTURE_SIDE, TEXTURE_SIDE))
    return Image.fromarray(np.clip(np.rint(128 + 56 / values.std() * values), 0, 255).astype(np.uint8))


def stream_of(seed: int, *purpose: int) -> np.random.Generator:
    """An independent stream of random numbers."""
    return np.random.default_rng((seed, *purpose))


def report(total: Written, seconds: float, workers: int) -> None:
    """Say what was written, and which files are broken."""
    count = total.kinds.total()
    table("Written", ["", "files"], [[kind, f"{number:,}"] for kind, number in total.kinds.most_common()])
    width, height = (side / count for side in total.sides)
    print(f"  mean file: {total.num_bytes / count / 1e3:.1f} kB, {width:.0f} x {height:.0f} pixels")
    print(f"  {total.num_bytes / 1e9:.2f} GB in {seconds:.1f} s, {count / seconds:,.0f} images/s, {workers} workers")
    for path, kind in total.broken:
        print(f"  broken: {path} ({kind})")


if __name__ == "__main__":
    main()
