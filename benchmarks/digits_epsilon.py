"""How large the noise of digits-s has to be: the recipe with other bounds, built and verified.

    python benchmarks/digits_epsilon.py [--epsilon 8 16 24 32] [--seeds 3]

Digits are black and white, so the papers' 8/255 may be too little. The rule, fixed before the runs on the card (and
after a first look at two seeds): the smallest bound whose victims collapse, by the verdict of
``ule-verify --profile smoke`` on the mean over the seeds, both without augmentation and with random crops. Prints a
row for each bound; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from common import environment, table

from builders import RECIPES
from ule_datasets.base.progress import Reporter
from ule_datasets.build import BuildOptions, build
from ule_datasets.compute.executor import available_cpus
from ule_datasets.data.perturbation import FILE_NAME, Perturbation
from ule_datasets.methods.error_minimizing import ErrorMinimizing
from ule_datasets.recipe import Recipe
from ule_datasets.verify import VerifyOptions, verify


def with_bound(levels: int) -> Recipe:
    """digits-s with another bound; a step stays a tenth of it."""
    noise, pixel = RECIPES["digits-s"].methods
    assert isinstance(noise, ErrorMinimizing)
    noise = replace(noise, epsilon=levels, step_size=levels / 10)
    return replace(RECIPES["digits-s"], name=f"digits-s-eps{levels}", methods=(noise, pixel))


def row(levels: int, num_seeds: int) -> list[str]:
    """Build, verify, and put into words."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "digits"
        options = BuildOptions(out=out, formats=("parquet",), workers=available_cpus())
        build(with_bound(levels), options, Reporter())
        trace = Perturbation.load(out / FILE_NAME).about["methods"][0]["notes"]["trace"]
        checking = VerifyOptions(folders=(out,), num_seeds=num_seeds, workers=available_cpus())
        report = verify(checking, {}, Reporter())
    assert report.result is not None
    judged = [f"{c.poisoned} ({c.clean}), {c.collapse}" for c in report.result.comparisons]
    return [f"{levels}/255", str(len(trace)), f"{trace[-1]['mean_abs']:.1f}", *judged]


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epsilon", type=int, nargs="+", default=[8, 16, 24, 32])
    options.add_argument("--seeds", type=int, default=3)
    chosen = options.parse_args()
    rows = [row(levels, chosen.seeds) for levels in chosen.epsilon]
    header = ["bound", "rounds", "mean size, 1/255", "no augmentation: poisoned (clean)", "crop: poisoned (clean)"]
    table("digits-s with other bounds, clean test accuracy in percent", header, rows)
    for name, value in environment().items():
        print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
