"""What a victim does to its images: countermeasures, each an object with the hooks it needs, and strategies of them."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, get_type_hints

import numpy as np

from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.data.spool import Images
from ule_datasets.models.weights import Weights
from ule_datasets.victims.augmentation import Augmentation
from ule_datasets.victims.preparation import Preparation

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_DIGITS = {float: r"[0-9]+(?:\.[0-9]+)?", int: r"[0-9]+"}  # how the values of options are written


@dataclass(frozen=True, eq=False, slots=True)
class Mixed:
    """A batch to train on with the loss ``weight * CE(labels) + (1 - weight) * CE(other_labels)`` of each image."""

    images: Tensor
    """Float32 [B, 3, H, W]."""
    labels: Tensor
    """The batch's own, int64 [B]."""
    other_labels: Tensor
    """Of the images that were mixed in, int64 [B]."""
    weight: Tensor
    """Share of ``labels``, from 0 to 1: float32, a scalar for the batch or [B], on the device of the images."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training run stands."""

    epoch: int
    """Counted from 1."""
    epochs: int
    """Of the whole run."""


class Option(NamedTuple):
    """A field of a countermeasure that its part of a strategy's name may set: ``eps0.5`` sets one to 0.5."""

    key: str
    """Lower-case letters before the value; none, where nothing else could be meant."""
    field: str
    """Of type float or int. One that has a default may be left out of the name, and is where it has it."""
    help: str
    """What may be given, e.g. ``a radius E above 0``: ``letter`` stands for the value."""

    @property
    def letter(self) -> str:
        """The first one of the key, or else of the field."""
        return (self.key or self.field)[0].upper()


class Countermeasure:
    """A frozen dataclass that says its word and overrides the hooks it needs; the others leave everything alone.

    A run's hooks are called in the order in which they stand here, those of one kind in the order of the
    countermeasures' table. They never write to what they are given, work on whole batches on whatever device those
    are, and draw only from the generator they are given.
    """

    __slots__ = ()

    word: ClassVar[str]
    """Names it in a strategy: lower-case letters and digits, with hyphens between."""
    citation: ClassVar[str]
    """Key in ``cards/citations.bib``."""
    options: ClassVar[tuple[Option, ...]] = ()
    """In the order in which a name has them."""
    place: ClassVar[str] = ""
    """Of countermeasures with the same place a strategy has at most one, e.g. one attack; empty: its own word."""
    shows: ClassVar[str] = ""
    """What it has learned, as the caption of an image for each class; empty: something else, or nothing."""

    def prepare(self, images: Images, labels: np.ndarray, context: Preparation) -> Images:
        """Change a whole training set, once before all training on it.

        Args:
            images: uint8 [N, H, W, 3], in memory or on disk.
            labels: int64 [N].
            context: what it may use; ``context.piecewise`` shares the work, and resumes it.

        Returns:
            As many images of the same shape and type, in the same order.
        """
        return images

    def learn(self, images: Images, labels: np.ndarray, context: Preparation) -> np.ndarray:
        """Find out what ``on_levels`` has to know of a whole training set, once before all training on it.

        Args:
            images: uint8 [N, H, W, 3] as the strategy's parts have prepared them, in memory or on disk.
            labels: int64 [N].
            context: what it may use.

        Returns:
            Numbers of any shape, which are kept: the same with any number of workers. Where ``shows`` says what they
            are, float32 [classes, H, W, 3].
        """
        return np.empty(0, dtype=np.float32)

    def on_levels(self, images: Tensor, rows: Tensor, learned: Tensor) -> Tensor:
        """Change whole images, before crop and flip, to values that need be no bytes.

        Args:
            images: float32 [B, H, W, 3] in levels: bytes, or what another part has left.
            rows: their places in the training set, int64 [B].
            learned: what ``learn`` has given.

        Returns:
            Float32 [B, H, W, 3] in levels, which may be below 0 and above 255.
        """
        return images

    def on_bytes(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change images after crop and flip: uint8 [B, H, W, 3] to the same. The generator is on the CPU."""
        return images

    def on_floats(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change images in [0, 1]: float32 [B, 3, H, W] to the same. The generator is on the CPU."""
        return images

    def attack(
        self, images: Tensor, labels: Tensor, model: nn.Module, generator: torch.Generator, progress: Progress
    ) -> Tensor:
        """Change images with the help of the model that is trained on them, against their labels before mixing.

        Args:
            images: float32 [B, 3, H, W] in [0, 1].
            labels: int64 [B].
            model: images to logits; its training flags, ``requires_grad`` and ``.grad`` stay as they were.
            generator: on the device of the images.
            progress: of the run.

        Returns:
            Detached float32 [B, 3, H, W] in [0, 1].
        """
        return images

    def mix(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Mixed:
        """Combine the images of a batch, and their labels: float32 [B, 3, H, W], int64 [B]; a generator on the CPU."""
        return Mixed(images, labels, labels, images.new_ones(()))

    @property
    def weights(self) -> tuple[Weights, ...]:
        """The trained models that it starts from."""
        return ()

    @property
    def passes(self) -> float:
        """What ``attack`` costs, in forward passes of the model over a batch; a gradient is worth another one."""
        return 0

    @property
    def name(self) -> str:
        """Its part of a strategy's name: the word, and the options that are not at their defaults."""
        parts = [self.word]
        for option in self.options:
            if (value := getattr(self, option.field)) != self._default(option):
                parts.append(option.key + np.format_float_positional(value, trim="-"))
        return "-".join(parts)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The countermeasure with that part of a strategy's name; ``None``: there is none of this class."""
        kinds, pattern = get_type_hints(cls), re.escape(cls.word)
        for option in cls.options:
            pattern += (
                f"(?:-{option.key}({_DIGITS[kinds[option.field]]})){'' if cls._default(option) is MISSING else '?'}"
            )
        matched = re.fullmatch(pattern, text)
        if matched is None:
            return None
        texts = {option.field: text for option, text in zip(cls.options, matched.groups(), strict=True) if text}
        try:
            return cls(**{field: kinds[field](text) for field, text in texts.items()})
        except InputError:
            return None

    @classmethod
    def form(cls) -> str:
        """How it is written in a strategy, for people: ``l2-at-epsE (with a radius E above 0)``, say."""
        words = [cls.word]
        for option in cls.options:
            word = f"-{option.key}{option.letter}"
            words.append(word if cls._default(option) is MISSING else f"[{word}]")
        hints = " and ".join(option.help for option in cls.options)
        return "".join(words) + (f" (with {hints})" if hints else "")

    @classmethod
    def _default(cls, option: Option) -> Any:
        return next(field.default for field in fields(cls) if field.name == option.field)  # type: ignore[arg-type]


class EachImage(Countermeasure):
    """One that changes every training image by itself, before all training and without any choice at random."""

    __slots__ = ()

    def prepare(self, images: Images, labels: np.ndarray, context: Preparation) -> Images:
        """Piece by piece, on all workers."""
        return context.piecewise(self.changed, images, label=self.name)

    def changed(self, images: np.ndarray, seed: Seed) -> np.ndarray:
        """Uint8 [n, H, W, 3] to the same; the seed is not used."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class Strategy:
    """How the images of a training run are changed; ``dataclasses.asdict`` of it is plain JSON."""

    name: str
    """Its slug in canonical order, e.g. ``standard`` or ``linf-at+randaugment+cutout``."""
    augmentation: Augmentation
    """Crop and flip, before all parts but those that prepare the training set or change whole images."""
    parts: tuple[Countermeasure, ...] = ()
    """In canonical order, each in a place of its own."""

    def having(self, hook: str) -> tuple[Countermeasure, ...]:
        """The parts that have a hook, e.g. ``mix``."""
        return tuple(part for part in self.parts if getattr(type(part), hook) is not getattr(Countermeasure, hook))

    def __str__(self) -> str:
        return self.name
