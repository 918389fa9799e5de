"""The surrogate trains as plain torch does, repeats on any number of threads, and is frozen without a trace."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ule_datasets.compute.devices import cpu_threads, products_in
from ule_datasets.compute.precision import Precision
from ule_datasets.methods.engine.settings import SurrogateSettings
from ule_datasets.methods.engine.surrogate import Surrogate
from ule_datasets.models.architectures import build_model

CPU = torch.device("cpu")
SETTINGS = SurrogateSettings(model="convnet3-w16", batch_size=32)
MODELS = ("convnet3-w16", "resnet18-w8")
NUM_CLASSES = 3


@pytest.fixture(autouse=True)
def threads_restored() -> Iterator[None]:
    """One thread, unless a test says otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def surrogate(*, seed: int = 1, **changes: Any) -> Surrogate:
    settings = dataclasses.replace(SETTINGS, **changes)
    return Surrogate(build_model(settings.model, NUM_CLASSES, seed=seed), settings, device=CPU)


def batch(count: int = 32, *, seed: int = 0, size: int = 16) -> tuple[Tensor, Tensor]:
    """Images in units of 1, channels-last, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(NUM_CLASSES, (count,), generator=generator)
    images = (torch.rand(count, size, size, 3, generator=generator) + 0.2 * labels[:, None, None, None]) / 1.4
    return images.permute(0, 3, 1, 2), labels


def trained(steps: int = 3, **settings: Any) -> Surrogate:
    """A surrogate whose batch norm has seen something."""
    made = surrogate(**settings)
    for number in range(steps):
        made.step(*batch(seed=100 + number))
    return made


def state_of(made: Surrogate) -> dict[str, np.ndarray]:
    """Parameters and statistics, and the optimiser's memory, by name."""
    model, optimiser = made.parts().values()
    assert isinstance(model, nn.Module)
    assert isinstance(optimiser, torch.optim.Optimizer)
    state = {f"model.{name}": tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        if parameter in optimiser.state:
            state[f"momentum.{name}"] = optimiser.state[parameter]["momentum_buffer"].numpy().copy()
    return state


def plain(made: Surrogate, model: str = SETTINGS.model) -> nn.Module:
    """The same model in torch's own terms."""
    copied = build_model(model, NUM_CLASSES, seed=0)
    tensors = {n.removeprefix("model."): torch.from_numpy(a) for n, a in state_of(made).items() if n.startswith("mod")}
    copied.load_state_dict(tensors)
    return copied


def equal(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def autograd(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient of the summed cross entropy with respect to the images, and that sum."""
    images = images.clone().requires_grad_(True)
    loss = functional.cross_entropy(model(images), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, images)
    return gradient, loss.detach()


# --- frozen ---


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("model", MODELS)
def test_a_frozen_surrogate_has_the_gradients_of_the_unfolded_model_in_evaluation_mode(model: str) -> None:
    made, (images, labels) = trained(model=model), batch(seed=5)
    expected, expected_loss = autograd(plain(made, model).eval(), images, labels)
    gradient, loss = made.frozen(Precision.FLOAT32).input_gradient(images, labels)
    assert expected.abs().max() > 0
    assert torch.allclose(gradient, expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max()))
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-9)


def test_the_gradients_are_not_those_of_the_model_in_training_mode() -> None:
    made, (images, labels) = trained(), batch(seed=5)
    expected, _ = autograd(plain(made).train(), images, labels)
    gradient, _ = made.frozen(Precision.FLOAT32).input_gradient(images, labels)
    assert not torch.allclose(gradient, expected, rtol=1e-1, atol=1e-2 * float(expected.abs().max()))


@pytest.mark.usefixtures("in_float64")
def test_images_are_judged_one_by_one_by_their_logits_in_evaluation_mode() -> None:
    made, (images, labels) = trained(), batch(seed=6)
    logits = plain(made).eval()(images).detach()
    expected = logits.argmax(dim=1) == labels
    assert 0 < expected.sum() < len(labels)
    right, losses = made.frozen(Precision.FLOAT32).judge(images, labels)
    assert torch.equal(right, expected)
    assert torch.allclose(losses, functional.cross_entropy(logits, labels, reduction="none"), rtol=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_freezing_leaves_the_surrogate_as_it_was(model: str) -> None:
    made, untouched = trained(model=model), trained(model=model)
    before = state_of(made)
    frozen = made.frozen(Precision.FLOAT32)
    frozen.input_gradient(*batch(seed=7))
    frozen.judge(*batch(seed=7))
    assert equal(state_of(made), before)
    for each in (made, untouched):
        each.step(*batch(seed=8))
    assert equal(state_of(made), state_of(untouched))


def test_what_is_frozen_does_not_follow_later_training() -> None:
    made, examples = trained(), batch(seed=5)
    frozen = made.frozen(Precision.FLOAT32)
    before, _ = frozen.input_gradient(*examples)
    made.step(*batch(seed=9))
    after, _ = frozen.input_gradient(*examples)
    assert torch.equal(before, after)
    assert not torch.equal(before, made.frozen(Precision.FLOAT32).input_gradient(*examples)[0])


def test_the_images_given_are_not_changed_and_get_no_gradient() -> None:
    images, labels = batch()
    before = images.clone()
    trained().frozen(Precision.FLOAT32).input_gradient(images, labels)
    assert torch.equal(images, before)
    assert not images.requires_grad
    assert images.grad is None


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [16, 32])
def test_gradients_are_the_same_to_the_last_bit_in_any_batches_of_equal_size(model: str, size: int) -> None:
    frozen, (images, labels) = trained(model=model).frozen(Precision.FLOAT32), batch(64, size=size)
    whole, loss = frozen.input_gradient(images, labels)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    shuffled = images[order].contiguous(memory_format=torch.channels_last)
    assert torch.equal(whole[order], frozen.input_gradient(shuffled, labels[order])[0])
    beside_others = torch.cat([images[:32], torch.full_like(images[32:], 0.3)])
    assert torch.equal(whole[:32], frozen.input_gradient(beside_others, labels)[0][:32])
    halves = [frozen.input_gradient(images[part], labels[part])[1] for part in (slice(32), slice(32, None))]
    assert float(loss) == pytest.approx(float(halves[0] + halves[1]), rel=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_gradients_are_the_same_to_the_last_bit_for_any_number_of_threads(model: str) -> None:
    frozen, examples = trained(model=model).frozen(Precision.FLOAT32), batch(64)
    one, _ = frozen.input_gradient(*examples)
    torch.set_num_threads(2)
    two, _ = frozen.input_gradient(*examples)
    assert torch.equal(one, two)


def test_bfloat16_changes_the_gradients_a_little_and_gives_them_in_float32() -> None:
    made, examples = trained(), batch(64)
    exact, _ = made.frozen(Precision.FLOAT32).input_gradient(*examples)
    coarse, loss = made.frozen(Precision.BFLOAT16).input_gradient(*examples)
    assert (coarse.dtype, loss.dtype) == (torch.float32, torch.float32)
    assert not torch.equal(exact, coarse)
    assert functional.cosine_similarity(exact.flatten(), coarse.flatten(), dim=0) > 0.95


# --- training ---


@pytest.mark.parametrize("model", MODELS)
def test_steps_are_the_same_to_the_last_bit_for_any_number_of_threads(model: str) -> None:
    one = trained(4, model=model)
    torch.set_num_threads(2)
    assert equal(state_of(trained(4, model=model)), state_of(one))


def test_a_step_gives_the_number_of_threads_back() -> None:
    torch.set_num_threads(2)
    surrogate().step(*batch())
    assert torch.get_num_threads() == 2
    with pytest.raises(RuntimeError):
        surrogate().step(batch()[0][:, :2], batch()[1])
    assert torch.get_num_threads() == 2


def stepped_by_hand(
    model: nn.Module, buffers: dict[str, Tensor], examples: tuple[Tensor, Tensor], settings: SurrogateSettings
) -> float:
    """Torch's SGD with momentum after scaling the gradient to the clip, written out; the norm before."""
    model.train().zero_grad()
    images, labels = examples
    torch.autograd.backward(functional.cross_entropy(model(images), labels))
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    norm = float(torch.cat([g.flatten() for g in gradients.values()]).double().norm())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gradient = gradients[name] * min(1.0, settings.gradient_clip / norm) + settings.weight_decay * parameter
            buffers[name] = settings.momentum * buffers[name] + gradient if name in buffers else gradient
            parameter.sub_(settings.learning_rate * buffers[name])
    return norm


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("clip", [0.05, 1e9])
def test_steps_are_those_of_sgd_with_momentum_and_a_clipped_gradient(clip: float) -> None:
    made, by_hand = surrogate(gradient_clip=clip), build_model(SETTINGS.model, NUM_CLASSES, seed=1)
    settings = dataclasses.replace(SETTINGS, gradient_clip=clip)
    buffers: dict[str, Tensor] = {}
    for number in range(3):
        norm = stepped_by_hand(by_hand, buffers, batch(seed=number), settings)
        assert 0.1 < norm < 1e3, "the small clip has an effect, the large one none"
        made.step(*batch(seed=number))
    state = state_of(made)
    for name, tensor in by_hand.state_dict().items():
        assert np.allclose(state[f"model.{name}"], tensor.numpy(), rtol=1e-6, atol=1e-8), name
    for name, buffer in buffers.items():
        # Torch adds 1e-6 to the norm.
        assert np.allclose(state[f"momentum.{name}"], buffer.numpy(), rtol=1e-5, atol=1e-9), name


def test_a_huge_gradient_moves_the_parameters_by_the_clip_and_no_further() -> None:
    made = surrogate(learning_rate=1.0, momentum=0.0, weight_decay=0.0)
    model = made.parts()["model"]
    assert isinstance(model, nn.Module)
    with torch.no_grad():
        model.get_parameter("classifier.weight").mul_(1e6)
    state, by_hand = state_of(made), plain(made)
    norm = stepped_by_hand(by_hand, {}, batch(), dataclasses.replace(SETTINGS, learning_rate=0))
    assert norm > 1e4
    made.step(*batch())
    parameters = [f"model.{name}" for name, _ in by_hand.named_parameters()]
    after = state_of(made)
    moved = np.concatenate([(after[n].astype(np.float64) - state[n]).ravel() for n in parameters])
    # The classifier's weights are too large for float32 to hold such a small step exactly.
    assert 0 < np.linalg.norm(moved) < 1.1 * SETTINGS.gradient_clip


@pytest.mark.usefixtures("in_float64")
def test_a_step_tells_summed_loss_and_right_answers_from_before_it() -> None:
    made, (images, labels) = surrogate(), batch()
    logits = plain(made).train()(images).detach()
    loss, correct = made.step(images, labels).tolist()
    assert loss == pytest.approx(float(functional.cross_entropy(logits, labels, reduction="sum")), rel=1e-9)
    assert correct == int((logits.argmax(dim=1) == labels).sum())


# --- state ---


def test_a_copy_goes_its_own_way_from_the_same_state() -> None:
    made, untouched = trained(), trained()
    copied = copy.deepcopy(made)
    copied.step(*batch(seed=1))
    assert equal(state_of(made), state_of(untouched))
    made.step(*batch(seed=1))
    assert equal(state_of(made), state_of(copied))


def test_the_seed_alone_decides_the_initialisation() -> None:
    assert equal(state_of(surrogate(seed=1)), state_of(surrogate(seed=1)))
    assert not equal(state_of(surrogate(seed=1)), state_of(surrogate(seed=2)))


# --- torch's settings ---


def fp32_precisions() -> tuple[str, str]:
    cudnn: Any = torch.backends.cudnn
    return torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision


@pytest.mark.parametrize(
    ("precision", "expected"), [(Precision.FLOAT32, "ieee"), (Precision.TF32, "tf32"), (Precision.BFLOAT16, "ieee")]
)
def test_products_are_in_the_precision_asked_for_and_torch_is_restored(precision: Precision, expected: str) -> None:
    before = fp32_precisions()

    def fail_inside() -> None:
        with products_in(precision):
            assert fp32_precisions() == (expected, expected)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert fp32_precisions() == before


def test_threads_are_given_back_when_the_work_fails() -> None:
    def fail_inside() -> None:
        with cpu_threads(1):
            assert torch.get_num_threads() == 1
            raise RuntimeError("inside")

    torch.set_num_threads(2)
    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert torch.get_num_threads() == 2
