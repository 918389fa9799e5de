"""Reference models: their size is a strict test of their definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ule_datasets.errors import InputError
from ule_datasets.models import MODELS, build_model
from ule_datasets.models.resnet import BasicBlock, ResNet18

pytestmark = pytest.mark.usefixtures("one_thread")


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "expected"),
    [("resnet18", 11_173_962), ("resnet18-w8", 176_402), ("convnet3", 373_834), ("convnet3-w32", 94_762)],
)
def test_models_have_exactly_the_known_number_of_parameters(name: str, expected: int) -> None:
    assert num_parameters(build_model(name, 10, seed=0)) == expected


def test_more_classes_change_only_the_head() -> None:
    assert (
        num_parameters(build_model("resnet18", 100, seed=0)) - num_parameters(build_model("resnet18", 10, seed=0))
        == 90 * 513
    )


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (28, 28), (9, 40)])
@pytest.mark.parametrize("num_classes", [2, 17])
def test_resnet18_takes_any_size_from_8_and_any_number_of_classes(size: tuple[int, int], num_classes: int) -> None:
    logits = build_model("resnet18-w8", num_classes, seed=0)(torch.rand(2, 3, *size))
    assert logits.shape == (2, num_classes)
    assert torch.isfinite(logits).all()


def test_the_stem_keeps_the_resolution_and_the_stages_halve_it_three_times() -> None:
    model = ResNet18(10, width=4)
    features = model.stem(torch.rand(1, 3, 32, 32))
    assert features.shape == (1, 4, 32, 32)
    sizes = []
    for block in model.blocks:
        features = block(features)
        sizes.append(tuple(features.shape[1:3]))
    assert sizes == [(4, 32)] * 2 + [(8, 16)] * 2 + [(16, 8)] * 2 + [(32, 4)] * 2


def test_no_convolution_has_a_bias_and_only_shape_changes_have_a_convolution_in_the_shortcut() -> None:
    model = ResNet18(10, width=4)
    assert all(module.bias is None for module in model.modules() if isinstance(module, nn.Conv2d))
    blocks = [module for module in model.modules() if isinstance(module, BasicBlock)]
    plain = [isinstance(block.shortcut, nn.Identity) for block in blocks]
    assert plain == [True, True, False, True, False, True, False, True]


def test_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(
        InputError, match=r"no model 'vgg'; the models are resnet18, resnet18-w16, resnet18-w8, convnet3"
    ):
        build_model("vgg", 10, seed=0)


def test_every_factory_makes_a_new_model() -> None:
    for factory in MODELS.values():
        assert factory(10) is not factory(10)
