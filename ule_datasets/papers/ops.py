"""The statements of the One-Pixel Shortcut paper that compare the accuracies of several cells."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from ule_datasets.papers.rules import Part, Parts
from ule_datasets.papers.statistics import Judged, below, deviations_below, mean_below, unusable, within

CLEAN, EM, OPS = "cifar10", "em-cifar10", "ops-cifar10"
ROLES = (CLEAN, EM, OPS)
"""Datasets whose trained models the paper's analyses look at."""
GENERATOR = "resnet18"
"""The architecture that crafted the error-minimising noise."""
TRANSFER_MODELS = ("lenet5", "cvt-7-4", "cct-7-3x1", "densenet121", "resnet18", "wrn-28-10")
AUGMENTATIONS = ("mixup", "cutout", "randaugment")
ADVERSARIAL = ("linf-at", *(f"linf-at+{name}" for name in AUGMENTATIONS))
TABLE_5_STRATEGIES = ("standard", *AUGMENTATIONS, "randaugment+cutout", *ADVERSARIAL)
PIXELS = (CLEAN, OPS, "ops-cifar10-k2", "ops-cifar10-k3", "ops-cifar10-k4")
"""Datasets by the number of perturbed pixels, from 0 on."""
NEAR_CHANCE = 2.0
"""Points above chance below which more pixels cannot lower the accuracy further."""


def _seedwise_below(a: Sequence[float], b: Sequence[float], bound: float = 0.0) -> Judged:
    """Positions belong together; without as many of both, the comparison falls back on Welch's."""
    return below(a, b, bound, paired=len(a) == len(b))


def _em_transfer(chance: float) -> list[Part]:
    ops_below_em = [
        Part(f"OPS below EM on {model}", ((OPS, model, "standard"), (EM, model, "standard")), _seedwise_below)
        for model in TRANSFER_MODELS
    ]
    strongest = [
        Part(
            f"EM on {GENERATOR} below EM on {model}",
            ((EM, GENERATOR, "standard"), (EM, model, "standard")),
            lambda a, b: below(a, b, paired=False),
        )
        for model in TRANSFER_MODELS
        if model != GENERATOR
    ]
    return ops_below_em + strongest


def _linf_at(chance: float) -> list[Part]:
    clean, em, ops = ((name, "resnet18", "linf-at") for name in (CLEAN, EM, OPS))
    return [
        Part("EM at most 2 points below clean", (clean, em), lambda a, b: _seedwise_below(a, b, 2.0), clean),
        Part("OPS at most 15 points above chance", (ops,), lambda values: mean_below(values, chance + 15), clean),
    ]


def _fewer_with_more_pixels(chance: float) -> list[Part]:
    def falls(more: Sequence[float], fewer: Sequence[float]) -> Judged:
        if open_ := unusable(more, fewer):
            return open_
        at_chance = max(statistics.fmean(more), statistics.fmean(fewer)) < chance + NEAR_CHANCE
        return _seedwise_below(more, fewer, 1.0 if at_chance else 0.0)

    return [
        Part(
            f"{count} below {count - 1} pixels under {strategy}",
            ((PIXELS[count], "resnet18", strategy), (PIXELS[count - 1], "resnet18", strategy)),
            falls,
        )
        for strategy in ("standard", *AUGMENTATIONS)
        for count in range(1, len(PIXELS))
    ]


def _l2_crossover(chance: float) -> list[Part]:
    half, one, two = ((OPS, "resnet18", f"l2-at-eps{radius}") for radius in ("0.5", "1", "2"))
    clean = (CLEAN, "resnet18", "l2-at-eps2")
    return [
        Part("OPS at radius 0.5 below radius 1", (half, one), _seedwise_below),
        Part("OPS at radius 1 below radius 2", (one, two), _seedwise_below),
        Part(
            "OPS within 3 points of clean at radius 2",
            (two, clean),
            lambda a, b: within(a, b, 3.0, paired=len(a) == len(b)),
            clean,
        ),
    ]


def _three_sigma(chance: float) -> list[Part]:
    cells = (OPS, "resnet18", "standard"), ("randpix-cifar10", "resnet18", "standard")
    return [Part("OPS more than 3 deviations below RandPix", cells, lambda a, b: deviations_below(a, b, 3.0))]


def _cifar10s_below_50(chance: float) -> list[Part]:
    return [
        Part(
            f"below 50 % under {strategy}",
            (("cifar10-s", "resnet18", strategy),),
            lambda values: mean_below(values, 50.0),
            (CLEAN, "resnet18", strategy),
        )
        for strategy in TABLE_5_STRATEGIES
    ]


STATEMENTS: dict[str, Parts] = {
    "ops-q-em-transfer": _em_transfer,
    "ops-q-randpix-3sigma": _three_sigma,
    "ops-q-linf-at-em": _linf_at,
    "ops-q-multipixel-monotone": _fewer_with_more_pixels,
    "ops-q-l2-crossover": _l2_crossover,
    "ops-q-cifar10s-below-50": _cifar10s_below_50,
}
