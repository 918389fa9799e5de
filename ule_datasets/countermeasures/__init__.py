"""Countermeasures: what a victim may do to its images before training on them and while it does.

Each is a frozen dataclass in a module of its own here, a ``Countermeasure`` with the hooks it needs, and a row in
``COUNTERMEASURES``: its name in a strategy, its options and what people are told about it come from the class, and
``tests/countermeasures/test_countermeasure_contract.py`` holds it to what all of them promise.
"""

from __future__ import annotations

from typing import Final

from ule_datasets.base.choices import STRATEGIES
from ule_datasets.base.errors import InputError
from ule_datasets.base.names import unknown
from ule_datasets.countermeasures.adversarial import L2Attack, LInfAttack
from ule_datasets.countermeasures.cutout import Cutout
from ule_datasets.countermeasures.filtering import Bilateral, Gaussian3, Mean3, Median3
from ule_datasets.countermeasures.mixing import CutMix, Mixup
from ule_datasets.countermeasures.projection import OrthogonalProjection, OrthogonalProjectionAsReleased
from ule_datasets.countermeasures.randaugment import RandAugment, TorchvisionRandAugment
from ule_datasets.countermeasures.squeezing import BitDepth, Gray, Jpeg
from ule_datasets.countermeasures.ueraser import UEraser, UEraserJpeg, UEraserLite, UEraserMax
from ule_datasets.victims.augmentation import Augmentation
from ule_datasets.victims.strategy import Countermeasure, Strategy

COUNTERMEASURES: Final[tuple[type[Countermeasure], ...]] = (
    Gray,
    BitDepth,
    Mean3,
    Gaussian3,
    Median3,
    Bilateral,
    Jpeg,
    OrthogonalProjection,
    OrthogonalProjectionAsReleased,
    LInfAttack,
    L2Attack,
    UEraser,
    UEraserLite,
    UEraserMax,
    UEraserJpeg,
    RandAugment,
    TorchvisionRandAugment,
    Cutout,
    Mixup,
    CutMix,
)
"""What strategies are made of, in canonical order."""

ORACLES: Final[dict[str, tuple[str, ...]]] = {"iss": ("gray", "jpeg")}
"""What papers call the best of several strategies by clean test accuracy. Nobody who trains can choose so, having no
clean test images: it is an oracle's choice, and no strategy."""


def alternatives(slug: str) -> tuple[str, ...]:
    """The strategies of which a paper's ``slug`` is the best one: itself, or those an oracle chooses among."""
    return ORACLES.get(slug, (slug,))


def parse_strategy(slug: str, *, flippable: bool = True) -> Strategy:
    """The strategy of a slug: ``none``, ``standard``, or parts joined by ``+`` in any order.

    ``none`` neither crops nor flips; everything else crops (padding 4) and flips, if images may be mirrored. The
    strategy's name has the parts in canonical order.

    Raises:
        InputError: a part is unknown, two parts would take the same place, or it is an oracle's choice.
    """
    if slug in ORACLES:
        raise InputError(
            f"strategy {slug!r} is an oracle's choice, the best of {' and '.join(ORACLES[slug])} by clean test "
            f"accuracy; name {','.join(ORACLES[slug])}"
        )
    if slug == "none":
        return Strategy(name=slug, augmentation=Augmentation(crop_padding=0, flip=False))
    taken: dict[str, Countermeasure] = {}
    for part in [] if slug == "standard" else [_part(word, slug) for word in slug.split("+")]:
        other = taken.setdefault(_place(type(part)), part)
        if other is not part:
            raise InputError(f"strategy {slug!r}: {other.name} and {part.name} exclude each other; {_known()}")
    parts = tuple(sorted(taken.values(), key=lambda part: COUNTERMEASURES.index(type(part))))
    augmentation = Augmentation(crop_padding=4, flip=flippable)
    return Strategy(name="+".join(part.name for part in parts) or "standard", augmentation=augmentation, parts=parts)


def _part(word: str, slug: str) -> Countermeasure:
    for kind in COUNTERMEASURES:
        part = kind.parse(word)
        if part is not None:
            return part
    raise unknown(f"strategy {slug!r}: {word!r} is not known", word, STRATEGIES, _known())


def _place(kind: type[Countermeasure]) -> str:
    return kind.place or kind.word


def _known() -> str:
    places: dict[str, list[str]] = {}
    for kind in COUNTERMEASURES:
        places.setdefault(_place(kind), []).append(kind.word)
    exclusive = ", ".join(f"one of {' and '.join(words)}" for words in places.values() if len(words) > 1)
    return (
        f"a strategy is none, standard, or one or more of {', '.join(kind.form() for kind in COUNTERMEASURES)} "
        f"joined by '+', with at most {exclusive}"
    )
