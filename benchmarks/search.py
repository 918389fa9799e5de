"""How long the One-Pixel-Shortcut search takes on the 50,000 training images of CIFAR-10.

    python benchmarks/search.py --source DIR

Our search (moments, scores of all 81,920 candidates, choice) runs for both objectives as a build does, with one process
and with one per CPU. In the same run, with interleaved repetitions, it is compared with

- one read of the same bytes: ``np.fromfile`` on a file of the raw pixels that is in the page cache;
- one pass over them in memory: ``np.bitwise_xor.reduce`` over 64-bit words;
- the search as research code does it: for every class, position and colour the float64 distances of all images
  of the class, their mean and their deviation. It is timed on a random sample of candidates and extrapolated;
  turning the images of each class into float64 is timed in full.

The sampled float scores are checked against the exact ones, and no sampled candidate may beat the chosen pixel.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from common import Timing, finish, interleaved, parser, read_cifar10, seconds_of, table, wall
from threadpoolctl import threadpool_limits

from ule_datasets.compute.executor import available_cpus
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.split import Split
from ule_datasets.methods.engine.moments import Moments, moments_by_class
from ule_datasets.methods.one_pixel_shortcut import CORNERS, Objective, OnePixelShortcut, _scores

NUM_CLASSES = 10
READ, PASS = "one read: np.fromfile, page cache", "one pass: np.bitwise_xor.reduce, in memory"
AIM = "aims: within 3 times the read; hundreds of times faster than the loop"
TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """A random sample of candidates: every array has one entry per candidate."""

    classes: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    colours: np.ndarray

    @classmethod
    def draw(cls, train: Split, size: int) -> Sample:
        """Distinct candidates out of all, in the order in which the loop would come to them."""
        shape = (NUM_CLASSES, *train.images.shape[1:3], len(CORNERS))
        chosen = np.random.default_rng(0).choice(np.prod(shape), size, replace=False)
        return cls(*np.unravel_index(np.sort(chosen), shape))

    def of_class(self, number: int) -> Iterator[tuple[int, int, int]]:
        """Row, column and colour of the candidates of one class."""
        mine = self.classes == number
        triples = zip(self.rows[mine].tolist(), self.columns[mine].tolist(), self.colours[mine].tolist(), strict=True)
        yield from triples


def main() -> None:
    """Run the comparison, print it, and fail if the two searches disagree."""
    options = parser(__doc__, repeats=5)
    options.add_argument("--sample", type=int, default=1000, help="candidates that the float loop scores")
    args = options.parse_args()
    train = read_cifar10(args.source).train
    sample = Sample.draw(train, args.sample)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        raw = Path(folder) / "pixels.raw"
        train.pixels().tofile(raw)
        executors = [running.enter_context(LocalExecutor(number)) for number in sorted({1, available_cpus()})]
        timings = interleaved(sides(train, sample, raw, executors), args.repeats)
    print_timings(timings, train, args.sample)
    checks = {objective: check(train, sample, objective) for objective in Objective}
    for objective, (difference, better) in checks.items():
        print(
            f"  {objective}: exact and float scores of the sample differ by {difference:.1e} at most (relative); "
            f"{better} sampled candidates are better than the chosen pixel of their class"
        )
    finish(args.json, {"seconds": seconds_of(timings), "sampled": args.sample, "checks": checks})
    if any(difference > TOLERANCE or better for difference, better in checks.values()):
        raise SystemExit("the float loop and the exact search disagree")


def sides(
    train: Split, sample: Sample, raw: Path, executors: Sequence[LocalExecutor]
) -> dict[str, Callable[[], float]]:
    """Everything that is timed, by the name it is printed with; all but the loop have run once.

    The processes stay from one search to the next, as those of a build do, which have read the source before.
    """
    words = train.pixels().reshape(-1).view(np.uint64)
    result = {
        READ: wall(partial(np.fromfile, raw, dtype=np.uint8)),
        PASS: wall(partial(np.bitwise_xor.reduce, words)),
    }
    for objective in Objective:
        for executor in executors:
            result[ours(objective, executor.workers)] = wall(partial(search, train, objective, executor))
    for side in result.values():
        side()
    return result | {loop(objective): partial(loop_seconds, train, sample, objective) for objective in Objective}


def ours(objective: Objective, workers: int) -> str:
    """Name of our search."""
    return f"our search, {objective}, {workers} process{'es' if workers > 1 else ''}"


def loop(objective: Objective) -> str:
    """Name of the loop."""
    return f"loop over candidates, {objective}"


def search(train: Split, objective: Objective, executor: LocalExecutor) -> None:
    """What is timed: moments, scores, choice. With one worker, linear algebra gets one thread as well."""
    with threadpool_limits(1) if executor.workers == 1 else nullcontext():
        OnePixelShortcut(objective=objective).search(moments_of(train, objective, executor))


def moments_of(train: Split, objective: Objective, executor: LocalExecutor) -> Iterator[Moments]:
    """Of each class, as a build takes them."""
    cross = objective is Objective.MEAN_OVER_VAR
    return moments_by_class(train.images, train.labels, NUM_CLASSES, cross=cross, executor=executor)


def loop_seconds(train: Split, sample: Sample, objective: Objective) -> float:
    """How long the loop over all candidates would take: float images of all classes, scores of a sample."""
    preparing = scoring = 0.0
    for number in range(NUM_CLASSES):
        started = time.perf_counter()
        images = class_images(train, number)
        prepared = time.perf_counter()
        for candidate in sample.of_class(number):
            float_score(images, *candidate, objective)
        scoring += time.perf_counter() - prepared
        preparing += prepared - started
    return preparing + scoring * num_candidates(train) / len(sample.rows)


def num_candidates(train: Split) -> int:
    """Classes x positions x colours."""
    return NUM_CLASSES * train.images[0, ..., 0].size * len(CORNERS)


def class_images(train: Split, number: int) -> np.ndarray:
    """The images of a class, float64 in [0, 1]."""
    images: np.ndarray = train.pixels()[train.labels == number] / 255.0
    return images


def float_score(images: np.ndarray, row: int, column: int, colour: int, objective: Objective) -> float:
    """One candidate, the straightforward way; 0 where the pixel would change nothing."""
    distances = np.abs(images[:, row, column] - CORNERS[colour])
    if objective is Objective.MEAN_OVER_STD:
        mean, spread = distances.mean(), distances.std()
    else:
        summed = distances.sum(axis=1)
        mean, spread = summed.mean(), summed.var()
    return float(mean / spread) if mean > 0 else 0.0


def check(train: Split, sample: Sample, objective: Objective) -> tuple[float, int]:
    """Largest relative difference of exact and float scores in the sample, and how many beat the chosen pixel.

    A candidate that an earlier class has taken is available to later ones in neither search.
    """
    moments = list(moments_of(train, objective, LocalExecutor()))
    chosen = [pixels[0] for pixels in OnePixelShortcut(objective=objective).search(moments)]
    taken: set[tuple[int, int, int]] = set()
    largest, better = 0.0, 0
    for number, pixel in enumerate(chosen):
        images, exact = class_images(train, number), exact_scores(moments[number], objective)
        best = float_score(images, *pixel.pair, objective)
        for candidate in (pixel.pair, *sample.of_class(number)):
            score = float_score(images, *candidate, objective)
            largest = max(largest, abs(score / exact[candidate] - 1))
            better += candidate not in taken and score > best * (1 + TOLERANCE)
        taken.add(pixel.pair)
    return largest, better


def exact_scores(moments: Moments, objective: Objective) -> np.ndarray:
    """Our scores of one class in the units of the float loop (images in [0, 1]); float64 [H, W, 8]."""
    distance, spread = _scores(moments, objective)
    if objective is Objective.MEAN_OVER_STD:
        scores: np.ndarray = distance / np.sqrt(spread)
    else:
        scores = 255.0 * moments.count * distance / spread
    return scores


def print_timings(timings: dict[str, Timing], train: Split, sampled: int) -> None:
    """The table: every side against the read, the pass and, where it is our search, the loop."""
    rows = []
    for name, timing in timings.items():
        objective = next((objective for objective in Objective if name.startswith(f"our search, {objective},")), None)
        faster = f"{timings[loop(objective)].median / timing.median:,.0f}" if objective else ""
        rows.append(
            [
                name,
                f"{timing.median:.3f}",
                f"{timing.fastest:.3f}",
                f"{timing.median / timings[READ].median:,.1f}",
                f"{timing.median / timings[PASS].median:,.1f}",
                faster,
            ]
        )
    title = f"One-Pixel-Shortcut search, {len(train):,} images, {train.images.nbytes / 1e6:.1f} MB; ratios of medians"
    table(title, ["", "median s", "min s", "/ read", "/ pass", "faster than loop"], rows)
    print(f"  {AIM}")
    print(f"  the loop is extrapolated from {sampled:,} of {num_candidates(train):,} candidates")


if __name__ == "__main__":
    main()
