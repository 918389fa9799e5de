"""Countermeasures of the training kind: what a victim may do to the images while training on them.

A ``Strategy`` names one stage of each sort at most; the training loop runs them in order: crop and flip,
``on_bytes``, conversion to [0, 1], ``on_floats``, ``attack`` (against the labels as they are), ``mixing``.
Every stage works on whole batches where they are, draws only from the generator it is given, and never waits
for the device (but for ``randaugment-torchvision``). A new one is a module here and a row in ``PARTS`` and ``_STAGES``.
"""

from __future__ import annotations

import re
from typing import Any, Final

from ule_datasets.base.errors import InputError
from ule_datasets.countermeasures.adversarial import L2Attack, LInfAttack
from ule_datasets.countermeasures.cutout import Cutout
from ule_datasets.countermeasures.mixing import CutMix, Mixup
from ule_datasets.countermeasures.randaugment import RandAugment, TorchvisionRandAugment
from ule_datasets.victims.augmentation import Augmentation
from ule_datasets.victims.strategy import Attack, ByteStage, FloatStage, Mixing, Strategy

__all__ = [
    "STRATEGIES",
    "CutMix",
    "Cutout",
    "L2Attack",
    "LInfAttack",
    "Mixup",
    "RandAugment",
    "TorchvisionRandAugment",
    "parse_strategy",
]


STRATEGIES: Final[tuple[str, ...]] = (
    "none",
    "standard",
    "mixup",
    "cutout",
    "randaugment",
    "randaugment+cutout",
    "cutmix",
    "linf-at",
    "linf-at+mixup",
    "linf-at+cutout",
    "linf-at+randaugment",
    "l2-at-eps0.5",
    "l2-at-eps1",
    "l2-at-eps2",
)
"""Those in the papers' tables; ``parse_strategy`` knows any combination of their parts."""

PARTS: Final[dict[str, Attack | ByteStage | FloatStage | Mixing]] = {
    part.name: part for part in (LInfAttack(), RandAugment(), TorchvisionRandAugment(), Cutout(), Mixup(), CutMix())
}
"""What strategies are made of, besides l2-at-epsE."""

_STAGES: Final = {
    LInfAttack: "attack",
    L2Attack: "attack",
    RandAugment: "on_bytes",
    TorchvisionRandAugment: "on_bytes",
    Cutout: "on_floats",
    Mixup: "mixing",
    CutMix: "mixing",
}
"""In canonical order."""

_L2 = re.compile(r"l2-at-eps([0-9]+(?:\.[0-9]+)?)")

CROP_PADDING: Final = 4


def parse_strategy(slug: str, *, flippable: bool = True) -> Strategy:
    """The strategy of a slug: ``none``, ``standard``, or parts joined by ``+`` in any order.

    ``none`` neither crops nor flips; everything else crops (padding 4) and flips.

    Args:
        slug: e.g. ``cutout+linf-at``; the strategy's name has the parts in canonical order.
        flippable: whether images may be mirrored; not so for digits.

    Raises:
        InputError: a part is unknown, or two parts would take the same place.
    """
    if slug == "none":
        return Strategy(name=slug, augmentation=Augmentation(crop_padding=0, flip=False))
    stages: dict[str, Any] = {}
    for part in [] if slug == "standard" else [_part(word, slug) for word in slug.split("+")]:
        stage = _STAGES[type(part)]
        if stage in stages:
            raise InputError(f"strategy {slug!r}: {stages[stage].name} and {part.name} exclude each other; {_known()}")
        stages[stage] = part
    names = [stages[stage].name for stage in dict.fromkeys(_STAGES.values()) if stage in stages]
    augmentation = Augmentation(crop_padding=CROP_PADDING, flip=flippable)
    return Strategy(name="+".join(names) or "standard", augmentation=augmentation, **stages)


def _part(word: str, slug: str) -> Any:
    if word in PARTS:
        return PARTS[word]
    matched = _L2.fullmatch(word)
    radius = float(matched[1]) if matched else 0.0
    if not 0 < radius < float("inf"):
        raise InputError(f"strategy {slug!r}: {word!r} is not known; {_known()}")
    return L2Attack(radius=radius)


def _known() -> str:
    return (
        f"a strategy is none, standard, or one or more of {', '.join(PARTS)}, l2-at-epsE (with a radius E above 0) "
        "joined by '+', with at most one attack, one RandAugment, and one of mixup and cutmix"
    )
