"""UEraser: against the published loss image by image, its schedule, its variants, and a machine without kornia."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ule_datasets.base.errors import InputError
from ule_datasets.base.seeds import Seed
from ule_datasets.countermeasures import parse_strategy
from ule_datasets.countermeasures.squeezing import Jpeg
from ule_datasets.countermeasures.ueraser import UEraser, UEraserJpeg, UEraserLite, UEraserMax
from ule_datasets.models.architectures import build_model
from ule_datasets.victims.strategy import Progress

pytestmark = pytest.mark.usefixtures("one_thread")

FIRST, LAST = Progress(epoch=3, epochs=10), Progress(epoch=4, epochs=10)


def batch() -> tuple[Tensor, Tensor]:
    images = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return images.contiguous(memory_format=torch.channels_last), torch.arange(12) % 3


def attacked(one: UEraser, progress: Progress, model: nn.Module, seed: int = 5) -> Tensor:
    return one.attack(*batch(), model, torch.Generator().manual_seed(seed), progress)


def drawn(one: UEraser, count: int, seed: int = 5) -> list[Tensor]:
    """The draws that the countermeasure looks at, one after the other, from the same random numbers."""
    images, _ = batch()
    augment, state = one._augmentation(), torch.get_rng_state()
    torch.manual_seed(int(torch.randint(0, 2**62, (), generator=torch.Generator().manual_seed(seed))))
    draws = [augment(images) for _ in range(count)]
    torch.set_rng_state(state)
    return draws


@pytest.mark.parametrize(
    "one", [UEraser(), UEraserMax(draws=3), UEraser(plasma=1), UEraserJpeg()], ids=lambda o: o.name
)
def test_each_image_is_the_draw_with_the_highest_loss(one: UEraser) -> None:
    model, (_, labels) = build_model("convnet3-w16", 3, seed=0), batch()
    result = attacked(one, FIRST, model)
    draws = drawn(one, one.draws)
    losses = []
    for draw in draws:
        seeing = copy.deepcopy(model).train()
        logits = seeing(draw)
        losses.append([functional.cross_entropy(logits[row, None], labels[row, None]).item() for row in range(12)])
    for row in range(12):
        worst = max(range(one.draws), key=lambda number: losses[number][row])
        assert torch.equal(result[row], draws[worst][row])
    assert len({max(range(one.draws), key=lambda n: losses[n][row]) for row in range(12)}) > 1, "each by itself"


def test_training_on_the_worst_draws_has_the_gradient_of_the_published_loss() -> None:
    """The mean over images of the largest of the draws' losses; a model without batch norm, where they are the same."""
    torch.manual_seed(0)
    model, (_, labels) = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3)), batch()
    every = torch.stack([functional.cross_entropy(model(one), labels, reduction="none") for one in drawn(UEraser(), 5)])
    expected = torch.autograd.grad(every.amax(dim=0).mean(), list(model.parameters()))
    loss = functional.cross_entropy(model(attacked(UEraser(), FIRST, model)), labels)
    for found, wanted in zip(torch.autograd.grad(loss, list(model.parameters())), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("one", "progress"), [(UEraser(), LAST), (UEraserLite(), FIRST), (UEraserMax(draws=1), LAST)], ids=str
)
def test_otherwise_it_is_the_first_draw_and_the_model_is_not_asked(one: UEraser, progress: Progress) -> None:
    def asked(images: Tensor) -> Tensor:
        raise AssertionError("the model was asked")

    model = nn.Linear(1, 1)
    model.forward = asked  # type: ignore[method-assign]
    assert torch.equal(attacked(one, progress, model), drawn(one, 1)[0])


@pytest.mark.parametrize(("one", "last"), [(UEraser(), 60), (UEraserLite(), 0), (UEraserMax(), 200)], ids=str)
def test_the_worst_draw_is_taken_in_the_paper_s_epochs(one: UEraser, last: int) -> None:
    model, alone = build_model("convnet3-w16", 3, seed=0), drawn(one, 1)[0]
    for epoch in (1, 60, 61, 200):
        result = attacked(one, Progress(epoch=epoch, epochs=200), model)
        assert torch.equal(result, alone) == (epoch > last)


def test_draws_of_the_jpeg_variant_are_compressed_each_by_itself() -> None:
    plain, compressed = drawn(UEraser(), 1)[0], drawn(UEraserJpeg(quality=40), 1)[0]
    eight_bits = plain.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for image, result in zip(eight_bits, compressed, strict=True):
        alone = Jpeg(quality=40).changed(image[None], Seed(0))[0]
        assert torch.equal(result.mul(255).round().permute(1, 2, 0), torch.from_numpy(alone).float())


def test_its_cost_is_that_of_the_draws() -> None:
    assert UEraserLite().passes == 0
    assert UEraser().passes == pytest.approx(0.3 * 5)
    assert UEraserMax(draws=7).passes == 7


def test_its_settings_stand_in_its_name_and_impossible_ones_are_refused() -> None:
    assert parse_strategy("ueraser-max-p1-k3").parts == (UEraserMax(plasma=1, draws=3),)
    assert parse_strategy("cutmix+ueraser").name == "ueraser+cutmix"
    for build in (lambda: UEraser(plasma=1.5), lambda: UEraser(draws=0), lambda: UEraserJpeg(quality=0)):
        with pytest.raises(InputError, match="must be"):
            build()


def test_without_kornia_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    with pytest.raises(InputError, match=r"pip install .ule-datasets\[ueraser\]"):
        attacked(UEraser(), FIRST, nn.Linear(1, 1))
