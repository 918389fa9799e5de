"""DeepConfuse learns step by step as the specification has it, and takes generators of others only as they are."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.methods.test_error_maximizing import context, patches
from ule_datasets.base.errors import InputError
from ule_datasets.compute.precision import Precision
from ule_datasets.data.perturbation import Additive
from ule_datasets.data.quantization import Quantize, quantize
from ule_datasets.data.split import Split
from ule_datasets.methods.deepconfuse import DeepConfuse, GeneratorFile, Normalisation, Selection, Trials
from ule_datasets.methods.engine.generators import ConfusingGenerator, enlarged
from ule_datasets.methods.method import Context, Crafted
from ule_datasets.models.architectures import MODELS, build_model
from ule_datasets.models.initialisation import initialised
from ule_datasets.models.vgg import VGG11
from ule_datasets.victims.augmentation import to_float

pytestmark = pytest.mark.usefixtures("one_thread")
METHOD = DeepConfuse(
    epsilon=40,
    trials=2,
    epochs=2,
    batch_size=16,
    classifier="convnet3-w16",
    learning_rate=0.05,
    generator_rate=1e-3,
    generator_width=2,
    held_out=0.2,
)


def craft(method: DeepConfuse, train: Split | None = None, **changes: Any) -> Crafted:
    return method.generate(train or patches(), dataclasses.replace(context(), **changes))


def levels_of(crafted: Crafted) -> np.ndarray:
    (layer,) = crafted.layers
    assert isinstance(layer, Additive)
    return layer.levels


def begun(method: DeepConfuse = METHOD, phases: int = 1) -> Trials:
    """After so many phases."""
    trials = Trials(method, patches(), context())
    for _ in range(phases):
        phase = trials.following()
        assert phase is not None
        for step in phase.steps:
            phase.step(step)
        trials._end(phase.end())
    return trials


# --- the networks ---


class PlainGenerator(nn.Module):
    """The generator's description with torch's own layers, under the names of the published files."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.dconv_down1, self.dconv_down2 = twice(3, w), twice(w, 2 * w)
        self.dconv_down3, self.dconv_down4 = twice(2 * w, 4 * w), twice(4 * w, 8 * w)
        self.pool = nn.AvgPool2d(2)
        self.larger = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.dconv_up3, self.dconv_up2, self.dconv_up1 = twice(12 * w, 4 * w), twice(6 * w, 2 * w), twice(3 * w, w)
        self.conv_last = nn.Sequential(nn.Conv2d(w, 3, 1), nn.BatchNorm2d(3))

    def forward(self, images: Tensor) -> Tensor:
        one = self.dconv_down1(images)
        two = self.dconv_down2(self.pool(one))
        three = self.dconv_down3(self.pool(two))
        up = self.larger(self.dconv_down4(self.pool(three)))
        up = self.larger(self.dconv_up3(torch.cat([up, three], dim=1)))
        up = self.larger(self.dconv_up2(torch.cat([up, two], dim=1)))
        return torch.tanh(self.conv_last(self.dconv_up1(torch.cat([up, one], dim=1))))


def twice(inputs: int, outputs: int) -> nn.Sequential:
    first = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*first, nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


def trained(width: int = 2) -> PlainGenerator:
    """A generator that has seen a few images, so that its averages are not those of the beginning."""
    plain = initialised(lambda: PlainGenerator(width), seed=3)
    plain(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    return plain.eval()


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("training", [False, True])
def test_the_generator_is_the_described_one(training: bool) -> None:
    plain = trained().train(training)
    ours = ConfusingGenerator(2).train(training)
    ours.load_state_dict(dict(zip(ours.state_dict(), plain.state_dict().values(), strict=True)))
    images = torch.rand(3, 3, 16, 24)
    assert torch.allclose(ours(images), plain(images))


def test_the_published_networks_have_their_sizes() -> None:
    assert sum(parameter.numel() for parameter in ConfusingGenerator(64).parameters()) == 7_788_681
    assert sum(parameter.numel() for parameter in VGG11(10, width=64, neck=2).parameters()) == 9_227_040


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (3, 5)])
def test_maps_are_enlarged_as_torch_does_it(size: tuple[int, int]) -> None:
    maps = torch.rand(2, 5, *size, dtype=torch.float64)
    expected = functional.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=True)
    assert torch.allclose(enlarged(maps), expected)


@pytest.mark.usefixtures("in_float64")
def test_the_classifier_is_the_described_one() -> None:
    ours = initialised(lambda: VGG11(5, width=4, neck=2), seed=0)
    layers: list[nn.Module] = []
    inputs = 3
    for what in (4, "M", 8, "M", 16, 16, "M", 32, 32, "M", 32, 32, "M"):
        if isinstance(what, str):
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(inputs, what, 3, padding=1), nn.BatchNorm2d(what), nn.ReLU()]
        inputs = what
    plain = nn.Sequential(*layers, nn.Conv2d(32, 2, 1), nn.Flatten(), nn.Linear(2, 5))
    plain.load_state_dict(dict(zip(plain.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.rand(4, 3, 32, 32)
    assert torch.allclose(ours(images), plain(images))


# --- the steps ---


def after_a_step(model: nn.Module, shown: Tensor, labels: Tensor, rate: float, *, keep: bool) -> nn.Module:
    """A new module with the parameters of the model after a step of SGD, written out; ``keep`` the step's graph."""
    parameters = dict(model.named_parameters())
    loss = functional.cross_entropy(model(shown), labels)
    gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=keep)
    other = copy.deepcopy(model)
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        place, _, own = name.rpartition(".")
        module = other.get_submodule(place)
        delattr(module, own)
        setattr(module, own, parameter - rate * gradient)
    return other


def batch_of(trials: Trials) -> tuple[Tensor, Tensor]:
    rows = trials.learned[trials.places("order", 0)]
    return to_float(trials.images[rows]), trials.labels[rows]


class Smooth(nn.Sequential):
    """A classifier without corners."""

    def __init__(self, num_classes: int) -> None:
        first = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.AvgPool2d(4)]
        second = [nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Softplus(), nn.AvgPool2d(4)]
        super().__init__(*first, *second, nn.Flatten(), nn.Linear(5, num_classes))


def model_of(trials: Trials, name: str = "classifier") -> nn.Module:
    return copy.deepcopy(getattr(trials, name).parts()["model"]).train()  # type: ignore[no-any-return]


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("offset", [0, 1])
def test_the_gradient_through_the_virtual_step_is_what_differences_show(
    offset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss on clean images after the step, as a number, for a generator that is moved a little either way.

    Without corners: gradients of ReLU and of maxima jump, which differences see and derivatives do not.
    """
    monkeypatch.setitem(MODELS, "smooth", Smooth)
    trials = begun(dataclasses.replace(METHOD, target_offset=offset, classifier="smooth"), phases=0)
    clean, labels = batch_of(trials)
    classifier, start = model_of(trials), copy.deepcopy(trials.learner.network)

    def wanted(generator: nn.Module) -> float:
        shown = (clean + 40 / 255 * generator(clean)).clamp(0, 1).detach()
        logits = after_a_step(copy.deepcopy(classifier), shown, labels, METHOD.learning_rate, keep=False)(clean)
        if offset:
            return functional.cross_entropy(logits, (labels + offset) % 3).item()
        return -functional.cross_entropy(logits, labels).item()

    trials.learner.step(trials.classifier, clean, labels)
    gradients = [parameter.grad for parameter in trials.learner.network.parameters()]
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        directions = [torch.randn(g.shape, generator=generator) for g in gradients if g is not None]
        values, step = [], 1e-6
        for sign in (1, -1):
            moved = copy.deepcopy(start)
            for parameter, direction in zip(moved.parameters(), directions, strict=True):
                parameter.data += sign * step * direction
            values.append(wanted(moved))
        expected = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True) if g is not None)
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert expected != 0


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("offset", [0, 2])
def test_steps_are_those_of_a_plain_restatement(offset: int) -> None:
    """Two generators, a classifier and its copy ahead, everything made anew for every batch, as specified."""
    trials = begun(dataclasses.replace(METHOD, target_offset=offset), phases=3)  # the second trial
    fixed, learner = copy.deepcopy(trials.frozen).eval(), copy.deepcopy(trials.learner.network).train()
    classifier = model_of(trials)
    adam = copy.deepcopy(trials.learner._optimiser.state_dict())
    optimiser = torch.optim.Adam(learner.parameters(), lr=METHOD.generator_rate, fused=False)
    optimiser.load_state_dict({**adam, "param_groups": optimiser.state_dict()["param_groups"]})
    sgd = torch.optim.SGD(classifier.parameters(), lr=METHOD.learning_rate)
    assert not trials.totals.any()
    total = 0.0
    for step in range(2 * len(trials.batches)):
        rows = trials.learned[trials.places("order", step)]
        clean, labels = to_float(trials.images[rows]), trials.labels[rows]
        shown = (clean + 40 / 255 * learner(clean)).clamp(0, 1)
        logits = after_a_step(classifier, shown, labels, METHOD.learning_rate, keep=True)(clean)
        loss = functional.cross_entropy(logits, labels)
        total += loss.item() * len(labels)
        optimiser.zero_grad()
        wanted = functional.cross_entropy(logits, (labels + offset) % 3) if offset else -loss
        torch.autograd.backward(wanted)
        optimiser.step()
        shown = (clean + 40 / 255 * fixed(clean)).clamp(0, 1)
        sgd.zero_grad()
        torch.autograd.backward(functional.cross_entropy(classifier(shown), labels))
        sgd.step()
        trials.learn(step)
    assert float(trials.totals[3]) == pytest.approx(total)
    pairs = [(learner, trials.learner.network), (classifier, trials.classifier.parts()["model"])]
    for one, other in pairs:
        assert isinstance(other, nn.Module)
        for (name, expected), got in zip(one.named_parameters(), other.parameters(), strict=True):
            assert torch.allclose(got, expected, atol=1e-8), name
    for expected, got in zip(fixed.state_dict().values(), trials.frozen.state_dict().values(), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("normalisation", Normalisation)
def test_the_test_is_that_of_a_plain_restatement(normalisation: Normalisation) -> None:
    """A new classifier, trained with the noise of the generator that has just learned, on clean images held out."""
    method = dataclasses.replace(METHOD, normalisation=normalisation)
    trials = begun(method, phases=2)
    learned = trials.learner.network.state_dict()
    assert all(torch.equal(value, learned[name]) for name, value in trials.frozen.state_dict().items())
    model, generator = model_of(trials, "tested"), copy.deepcopy(trials.frozen).eval()
    sgd = torch.optim.SGD(model.parameters(), lr=METHOD.learning_rate)
    phase = trials.following()
    assert phase is not None
    for step in phase.steps:
        rows = trials.learned[trials.places("test order", step)]
        clean, labels = to_float(trials.images[rows]), trials.labels[rows]
        with torch.no_grad():
            shown = (clean + 40 / 255 * generator(clean)).clamp(0, 1)
        sgd.zero_grad()
        torch.autograd.backward(functional.cross_entropy(model(shown), labels))
        sgd.step()
        phase.step(step)
    clean, labels = to_float(trials.images[trials.held]), trials.labels[trials.held]
    with torch.no_grad():
        right = model.train(normalisation is Normalisation.BATCHES)(clean).argmax(dim=1) == labels
    phase.end()
    assert trials.trace[0]["accuracy"] == pytest.approx(100 * float(right.double().mean()), abs=1e-3)


def test_nothing_is_learned_from_images_that_are_held_out_and_all_others_are_seen_in_every_pass() -> None:
    trials = begun()
    assert not set(trials.held.tolist()) & set(trials.learned.tolist())
    assert len(trials.held) + len(trials.learned) == len(trials.images)
    assert torch.bincount(trials.labels[trials.held]).tolist() == [4, 4, 4]
    for epoch in range(2):
        seen = torch.cat([trials.places("order", epoch * len(trials.batches) + batch) for batch in trials.batches])
        assert sorted(seen.tolist()) == list(range(len(trials.learned)))
    assert not torch.equal(trials.places("order", 0), trials.places("order", len(trials.batches)))


def test_a_single_image_left_over_takes_the_one_before_it_along() -> None:
    trials = Trials(dataclasses.replace(METHOD, batch_size=47), patches(), context())
    assert len(trials.learned) == 48
    assert [len(trials.places("order", batch)) for batch in trials.batches] == [47, 2]


# --- the choice ---


def scripted(method: DeepConfuse, accuracies: list[float], monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[bool]]:
    """Which trial is chosen if tests come out like this, and after which trial its generator was kept."""
    trials = Trials(dataclasses.replace(method, trials=len(accuracies)), patches(), context())
    kept = []
    for number, accuracy in enumerate(accuracies):
        monkeypatch.setattr(trials, "accuracy", lambda _, value=accuracy: value)
        trials.done = 2 * number + 2
        trials.totals[0] = 1
        before = trials.best.state_dict()["last.0.bias"].clone()
        trials.frozen.state_dict()["last.0.bias"].fill_(number + 7)
        trials._judged()
        kept.append(not torch.equal(before, trials.best.state_dict()["last.0.bias"]))
    return trials.chosen, kept


@pytest.mark.parametrize(
    ("changes", "chosen", "kept"),
    [
        ({}, 2, [True, True, False, False]),
        ({"selection": Selection.LAST}, 4, [True] * 4),
        ({"target_offset": 1}, 1, [True, False, False, False]),
    ],
)
def test_the_best_generator_is_kept(
    changes: dict[str, Any], chosen: int, kept: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    method = dataclasses.replace(METHOD, **changes)
    assert scripted(method, [50.0, 20.0, 20.0, 30.0], monkeypatch) == (chosen, kept)


def test_noise_comes_from_the_chosen_generator_within_the_bound() -> None:
    trials = begun(phases=6)
    assert trials.following() is None
    images = torch.from_numpy(patches().images)
    with torch.no_grad():
        noise = 40 * trials.best(to_float(images)).permute(0, 2, 3, 1).double().numpy()
    crafted = craft(METHOD)
    assert np.abs(levels_of(crafted) - quantize(noise, Quantize.HALF_UP)).max() <= 1  # halves, in other batches
    assert np.mean(levels_of(crafted) == quantize(noise, Quantize.HALF_UP)) > 0.999
    assert 0 < np.abs(levels_of(crafted).astype(int)).max() <= 40
    assert crafted.notes["chosen"] in (1, 2)
    assert len(crafted.notes["trace"]) == 2


def test_the_published_bound_is_eight_levels() -> None:
    assert str(DeepConfuse().bounds[0]) == "l_inf 8/255"


def test_a_generator_learns_to_confuse() -> None:
    """Classes that differ by brightness, which noise of 40/255 can turn round."""
    method = dataclasses.replace(
        METHOD, trials=6, epochs=6, epsilon=64, generator_rate=5e-3, learning_rate=0.1, normalisation="batches"
    )
    notes = craft(method).notes
    assert notes["clean_accuracy"] > 60
    assert notes["trace"][notes["chosen"] - 1]["accuracy"] < notes["clean_accuracy"] - 25
    assert method.shortfall(notes) == ""


def test_a_craft_that_confuses_nobody_is_told_to_fall_short() -> None:
    line = {"round": 1, "accuracy": 64.0}
    notes = {"clean_accuracy": 70.0, "chosen": 1, "trace": [line]}
    assert "right about 64.0 % of clean ones, and about 70.0 % without" in METHOD.shortfall(notes)
    assert METHOD.shortfall({**notes, "trace": [{**line, "accuracy": 52.0}]}) == ""
    assert METHOD.shortfall({"trace": []}) == "", "a generator of somebody else is not tested"


# --- a generator that is given ---


def given(path: Path, **changes: Any) -> DeepConfuse:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    file = GeneratorFile(name="mine", file_name=path.name, sha256=digest)
    return dataclasses.replace(METHOD, generator=file, **changes)


def as_saved(network: nn.Module, path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(dict(network.state_dict()), path)
    else:
        torch.save(network.state_dict(), path)
    return path


def test_a_published_generator_makes_the_noise_without_any_learning(tmp_path: Path) -> None:
    plain = trained()
    path = as_saved(plain, tmp_path / "atk.pth")
    crafted = craft(given(path), weights=tmp_path)
    with torch.no_grad():
        noise = 40 * plain(to_float(torch.from_numpy(patches().images))).permute(0, 2, 3, 1).double().numpy()
    assert np.mean(levels_of(crafted) == quantize(noise, Quantize.HALF_UP)) > 0.999
    assert crafted.notes["trace"] == []
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert crafted.notes["generator"] == {"origin": "file", "name": "mine", "sha256": digest}
    assert np.array_equal(levels_of(craft(given(path), weights=path)), levels_of(crafted)), "the file itself"


def test_generators_of_old_files_and_in_safetensors_are_taken(tmp_path: Path) -> None:
    ours = ConfusingGenerator(2).eval()
    state = {name: value for name, value in ours.state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "old.pth")
    as_saved(ours, tmp_path / "new.pth")
    old, new = (levels_of(craft(given(tmp_path / name), weights=tmp_path)) for name in ("old.pth", "new.pth"))
    assert np.array_equal(old, new)
    names = dict(sorted(ours.state_dict().items()))
    assert list(names) != list(ours.state_dict())


class Harm:
    """What a pickle may hold."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_files_that_hold_something_else_are_refused_in_one_line(tmp_path: Path) -> None:
    as_saved(ConfusingGenerator(3), tmp_path / "wide.pth")
    as_saved(build_model("convnet3-w16", 3, seed=0), tmp_path / "classifier.pth")
    broken = trained()
    broken.conv_last[0].bias.data.fill_(float("nan"))  # type: ignore[operator, union-attr]
    as_saved(broken, tmp_path / "broken.pth")
    (tmp_path / "harm.pth").write_bytes(pickle.dumps({"a": Harm(tmp_path / "harmed")}))
    (tmp_path / "empty.pth").write_bytes(b"")
    cases = {
        "wide.pth": "does not hold a generator of width 2: .* of its tensors have another shape or type, the first",
        "classifier.pth": "does not hold a generator of width 2: it has 20 tensors, expected 105",
        "broken.pth": "DeepConfuse: the generator makes noise that is no number",
        "harm.pth": "holds no weights that can be read safely",
        "empty.pth": "holds no weights that can be read safely",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            craft(given(tmp_path / name), weights=tmp_path)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "harmed").exists()


def test_a_generator_that_is_nowhere_or_another_one_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ULE_WEIGHTS", raising=False)
    path = as_saved(trained(), tmp_path / "atk.pth")
    method = given(path)
    with pytest.raises(InputError, match=r"the generator mine \(atk.pth\) are not downloaded by themselves: give"):
        craft(method)
    as_saved(ConfusingGenerator(2), path)
    with pytest.raises(InputError, match="is not the weights mine: its sha256 is"):
        craft(method, weights=tmp_path)
    with pytest.raises(InputError, match="GeneratorFile: sha256 is 'x'"):
        GeneratorFile(name="mine", file_name="mine.pth", sha256="x")


# --- mistakes ---


@pytest.mark.parametrize(
    "change",
    [
        *({"epsilon": value} for value in (0, 256, float("nan"))),
        *({name: 0} for name in ("trials", "epochs", "generator_width", "held_out")),
        {"batch_size": 1},
        {"held_out": 1.0},
        *({name: -1} for name in ("learning_rate", "generator_rate", "target_offset")),
        {"precision": Precision.BFLOAT16},
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"^DeepConfuse: {next(iter(change))} is "):
        DeepConfuse(**change)


def of_size(size: int, num_classes: int, count: int = 12) -> Split:
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int64) % num_classes
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    return Split.from_samples("train", images, labels, digests)


def context_for(num_classes: int) -> Context:
    return dataclasses.replace(context(), num_classes=num_classes)


def test_images_that_do_not_suit_are_refused() -> None:
    cases = {
        "images are 12 x 12 with 3 channels; its generator takes .* sides are multiples of 8": (12, 2, 12),
        "there is one class only": (16, 1, 12),
        "1 of 3 images are left to learn from, at least 2": (16, 2, 3),
        "target_offset is 4: with 2 classes the target would be the true class": (16, 2, 12),
    }
    for message, (size, num_classes, count) in cases.items():
        method = dataclasses.replace(METHOD, target_offset=4 if "offset" in message else 0)
        with pytest.raises(InputError, match=message):
            method.generate(of_size(size, num_classes, count), context_for(num_classes))


def test_losses_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="a smaller learning_rate helps"):
        craft(dataclasses.replace(METHOD, learning_rate=1e20))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_repeats_on_a_gpu() -> None:
    method = dataclasses.replace(METHOD, classifier="vgg11-neck2")
    first, second = (craft(method, device="cuda") for _ in range(2))
    assert np.array_equal(levels_of(first), levels_of(second))
    assert first.notes == second.notes
