"""One contract for every model; a new one is held to it by being in the table."""

from __future__ import annotations

import inspect
import sys
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from ule_datasets.base.errors import InputError
from ule_datasets.experiments.identity import PACKAGE, used_modules
from ule_datasets.models.architectures import MODELS, SMALLEST_IMAGE, forward_flop, model_factory, num_parameters

SIZE = 32
"""Every model takes images of so many rows and columns."""

every = pytest.mark.parametrize("name", MODELS)


def maker(name: str) -> Any:
    """The class or function behind a row."""
    factory = MODELS[name]
    return factory.func if isinstance(factory, partial) else factory


def without_memory(name: str, num_classes: int) -> nn.Module:
    with torch.device("meta"):
        return model_factory(name)(num_classes)


@every
@pytest.mark.parametrize("num_classes", [2, 7])
def test_it_gives_a_logit_for_each_class_of_each_image(name: str, num_classes: int) -> None:
    logits = without_memory(name, num_classes).eval()(torch.empty(3, 3, SIZE, SIZE, device="meta"))
    assert logits.shape == (3, num_classes)
    assert logits.dtype == torch.float32


@every
def test_its_size_and_its_work_are_positive_and_grow_with_the_classes(name: str) -> None:
    assert 0 < num_parameters(name, 2) < num_parameters(name, 7)
    assert 0 < forward_flop(name, 2, SIZE) <= forward_flop(name, 7, SIZE)


@every
def test_its_documentation_names_a_publication_or_says_that_there_is_none(name: str) -> None:
    module = str(inspect.getdoc(sys.modules[maker(name).__module__]))
    assert inspect.getdoc(maker(name))
    assert "of no publication" in module or any(str(year) in module for year in range(1989, 2030)), "its year"


@every
def test_images_that_are_too_small_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError) as caught:
        forward_flop(name, 2, SMALLEST_IMAGE - 1)
    assert "\n" not in str(caught.value)


@every
def test_all_its_code_is_in_the_identity_of_runs_with_it_and_no_other_models(name: str) -> None:
    made_of = {type(module).__module__ for module in without_memory(name, 2).modules()}
    own, used = {each for each in made_of if each.partition(".")[0] == PACKAGE}, used_modules(model_factory(name))
    assert own <= used
    others = {maker(other).__module__ for other in MODELS} - own - {maker(name).__module__}
    assert not others & used
