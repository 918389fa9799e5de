"""Architectures of torchvision, timm and open_clip by name, untrained and imported late; the last two are optional.

``timm:NAME`` is a classifier of ``timm.list_models()``; ``open_clip:NAME`` the vision tower of a model of
``open_clip.list_models()`` (float32 [B, 3, H, W] to its embedding, float32 [B, D]). Nothing is ever downloaded.

torchvision's residual networks for images of 224 x 224 pixels are from Kaiming He et al., "Deep Residual Learning for
Image Recognition", CVPR 2016: a 7 x 7 convolution of stride 2 and max pooling before the blocks; other sizes from 8 x 8
work, the final pooling is over what is left.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from ule_datasets.base.errors import InputError

TIMM, OPEN_CLIP = "timm:", "open_clip:"
EXTRA = 'pip install "ule-datasets[pretrained]"'
SMALLEST_TEXT_TOWER = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
"""open_clip makes both towers at once; this one is thrown away."""


def library_model(name: str) -> Callable[[int], nn.Module]:
    """A factory like those in ``MODELS``; that of a vision tower ignores the number of classes.

    Raises:
        InputError: the library is not installed, or has no such architecture.
    """
    if is_tower(name):
        return partial(_tower, _tower_settings(name))
    timm, wanted = _imported("timm", name), name.removeprefix(TIMM)
    _known(wanted, timm.list_models(), "timm has no model")
    return partial(_classifier, wanted)


def torchvision_model(name: str, num_classes: int) -> nn.Module:
    """By torchvision's name; resnet18 has 11,227,812 parameters for 100 classes, resnet50 has 23,712,932."""
    model: nn.Module = importlib.import_module("torchvision.models").get_model(name, num_classes=num_classes)
    return model


def is_library_model(name: str) -> bool:
    """Whether the name is one for ``library_model``, known or not."""
    return name.startswith((TIMM, OPEN_CLIP))


def is_tower(name: str) -> bool:
    """Whether the architecture ends with an embedding, without a head for classes."""
    return name.startswith(OPEN_CLIP)


def embedding_length(name: str) -> int:
    """Of the vision tower ``open_clip:NAME``.

    Raises:
        InputError: open_clip is not installed, or has no such tower.
    """
    return int(_tower_settings(name)["embed_dim"])


def _classifier(wanted: str, num_classes: int) -> nn.Module:
    model: nn.Module = importlib.import_module("timm").create_model(wanted, pretrained=False, num_classes=num_classes)
    return model


def _tower(settings: dict[str, Any], num_classes: int) -> nn.Module:
    whole = importlib.import_module("open_clip").CLIP(
        embed_dim=settings["embed_dim"],
        vision_cfg={**settings["vision_cfg"], "timm_model_pretrained": False},
        text_cfg=SMALLEST_TEXT_TOWER,
        quick_gelu=settings.get("quick_gelu", False),
    )
    tower: nn.Module = whole.visual
    return tower


def _tower_settings(name: str) -> dict[str, Any]:
    """What open_clip knows about a model; those that also write captions give tokens and are left out."""
    open_clip, wanted = _imported("open_clip", name), name.removeprefix(OPEN_CLIP)
    all_settings = {each: open_clip.get_model_config(each) for each in open_clip.list_models()}
    usable = [each for each, settings in all_settings.items() if "multimodal_cfg" not in settings]
    _known(wanted, usable, "open_clip has no tower of one vector an image")
    settings: dict[str, Any] = all_settings[wanted]
    return settings


def _imported(library: str, name: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise InputError(f"the model {name} needs {library}: {EXTRA} ({error})") from error


def _known(wanted: str, names: Sequence[str], complaint: str) -> None:
    """Refuse a name that is not among the names, with those that are close to it."""
    if wanted not in names:
        close = difflib.get_close_matches(wanted, names)
        others = f"close to it: {', '.join(close)}" if close else f"none of its {len(names)} names is close"
        raise InputError(f"{complaint} {wanted!r}; {others}")
