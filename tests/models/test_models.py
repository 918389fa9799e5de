"""Reference models: their size is a strict test of their definition, explicit sums test what they compute."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional

from ule_datasets.base.errors import InputError
from ule_datasets.compute.devices import cpu_threads
from ule_datasets.models.architectures import MODELS, build_model, forward_flop, num_parameters
from ule_datasets.models.cifar_resnet import CifarBlock, CifarResNet, shortcut
from ule_datasets.models.compact_transformer import (
    Attention,
    CompactTransformer,
    EncoderLayer,
    add_or_skip,
    cct,
    cvt,
)
from ule_datasets.models.convnet import ConvNet3
from ule_datasets.models.densenet import DenseLayer, DenseNet, Transition
from ule_datasets.models.lenet import LeNet5
from ule_datasets.models.libraries import torchvision_model
from ule_datasets.models.quicknet import QuickNet, haar_filters
from ule_datasets.models.resnet import BasicBlock, ResNet18
from ule_datasets.models.vgg import VGG11
from ule_datasets.models.wide_resnet import WideBlock, WideResNet

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = {name: 100 if name.endswith("-224") else 10 for name in MODELS}
IMAGE_SIZES = {name: 224 if name.endswith("-224") else 32 for name in MODELS}

PARAMETERS = {
    "resnet18": 11_173_962,
    "resnet18-w16": 701_466,
    "resnet18-w8": 176_402,
    "resnet20": 269_722,
    "resnet56": 853_018,
    "convnet3": 373_834,
    "convnet3-w32": 94_762,
    "convnet3-w16": 24_346,
    "quicknet": 790_232,
    "lenet5": 62_006,
    "vgg11-neck2": 9_227_040,
    "densenet121": 6_956_298,
    "cvt-7-4": 3_716_619,
    "cct-7-3x1": 3_760_139,
    "wrn-28-1": 370_506,
    "wrn-28-2": 1_469_642,
    "wrn-28-4": 5_853_098,
    "wrn-28-8": 23_362_922,
    "wrn-28-10": 36_489_290,
    "wrn-28-16": 93_354_218,
    "wrn-28-20": 145_835_690,
    "resnet18-224": 11_227_812,
    "resnet50-224": 23_712_932,
}
"""With 10 outputs, those for 224 x 224 pixels with 100."""

GIGAFLOP = {
    "lenet5": 0.0013,
    "vgg11-neck2": 0.3055,
    "resnet18": 1.111,
    "resnet20": 0.0811,
    "resnet56": 0.251,
    "quicknet": 0.0968,
    "densenet121": 1.777,
    "cvt-7-4": 0.501,
    "cct-7-3x1": 2.363,
    "wrn-28-1": 0.124,
    "wrn-28-2": 0.485,
    "wrn-28-4": 1.918,
    "wrn-28-8": 7.626,
    "wrn-28-10": 11.902,
    "wrn-28-16": 30.418,
    "wrn-28-20": 47.501,
    "resnet18-224": 3.63,
    "resnet50-224": 8.17,
}

NARROW: dict[str, Callable[[int], nn.Module]] = {
    "convnet": partial(ConvNet3, width=8),
    "resnet": partial(ResNet18, width=8),
    "cifar resnet": partial(CifarResNet, blocks=2),
    "lenet": LeNet5,
    "vgg": partial(VGG11, width=8, neck=2),
    "densenet": partial(DenseNet, growth=8, blocks=(2, 1, 2)),
    "cvt": partial(cvt, width=32, num_layers=2, patch=4),
    "cct": partial(cct, width=32, num_layers=2),
    "wide resnet": partial(WideResNet, factor=2, blocks=1),
    "imagenet": partial(torchvision_model, "resnet18"),
}
"""One small model of every family."""

families = pytest.mark.parametrize("family", NARROW)


@pytest.fixture(autouse=True)
def _own_random_state() -> Iterator[None]:
    """Dropout draws from torch's global generator: start it anew, and leave it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def trained_a_little(model: nn.Module) -> nn.Module:
    """Fill statistics and affine parameters of normalisation with values that matter; evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return model.eval()


def test_every_model_has_an_expected_size() -> None:
    assert list(PARAMETERS) == list(MODELS)
    assert set(GIGAFLOP) == {name for name in MODELS if not name.startswith(("resnet18-w", "convnet3"))}


@pytest.mark.parametrize("name", MODELS)
def test_models_have_exactly_the_known_number_of_parameters(name: str) -> None:
    assert num_parameters(name, CLASSES[name]) == PARAMETERS[name]


@pytest.mark.parametrize(("name", "expected"), GIGAFLOP.items())
def test_a_forward_pass_takes_the_known_number_of_operations(name: str, expected: float) -> None:
    assert forward_flop(name, CLASSES[name], IMAGE_SIZES[name]) / 1e9 == pytest.approx(expected, rel=0.02)


def test_operations_are_counted_by_hand_for_the_smallest() -> None:
    convolutions = 28 * 28 * 6 * 75 + 10 * 10 * 16 * 150
    linear = 400 * 120 + 120 * 84 + 84 * 7
    assert forward_flop("lenet5", 7, 32) == 2 * (convolutions + linear)


def test_lenet_pools_before_relu_with_the_bits_of_pooling_after_it() -> None:
    model = build_model("lenet5", 10, seed=0)
    images = torch.rand(64, 3, 32, 32).round(decimals=1)  # with equal values in a window
    logits = model(images)
    features, classifier = model.features, model.classifier
    usual = images
    for convolution in (features[0], features[3]):
        usual = functional.max_pool2d(functional.relu(convolution(usual)), 2)
    usual = classifier(usual.flatten(1))
    assert torch.equal(logits, usual)
    gradients = [torch.autograd.grad(out.square().sum(), list(model.parameters())) for out in (logits, usual)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*gradients, strict=True))


def test_attention_is_among_the_operations() -> None:
    linear = 7 * 64 * 256 * (3 + 1 + 2 + 2) * 256
    attention = 7 * 2 * 64 * 64 * 256
    rest = 64 * 48 * 256 + 64 * 256 + 2560
    assert forward_flop("cvt-7-4", 10, 32) == pytest.approx(2 * (linear + attention + rest), rel=1e-3)


@pytest.mark.parametrize("name", ["resnet18-w8", "lenet5", "cvt-7-4", "wrn-28-1"])
def test_counting_without_memory_agrees_with_the_model_itself(name: str) -> None:
    model = build_model(name, 3, seed=0)
    assert num_parameters(name, 3) == sum(parameter.numel() for parameter in model.parameters())
    assert not any(tensor.is_meta for tensor in model.state_dict().values())


def test_counting_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    num_parameters.__wrapped__("cct-7-3x1", 10)
    forward_flop.__wrapped__("cct-7-3x1", 10, 32)
    assert torch.equal(torch.get_rng_state(), before)


def test_more_classes_change_only_the_head() -> None:
    assert num_parameters("resnet18", 100) - num_parameters("resnet18", 10) == 90 * 513


@pytest.mark.parametrize("name", ["lenet5", "cvt-7-4", "cct-7-3x1", "wrn-28-1", "resnet18-w8"])
def test_the_seed_alone_decides_the_initialisation(name: str) -> None:
    before = torch.get_rng_state()
    first, same, other = (list(build_model(name, 10, seed=seed).parameters()) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_importing_the_models_imports_neither_torchvision_nor_other_libraries_of_models() -> None:
    late = {"torchvision", "timm", "open_clip"}
    code = f"import sys, ule_datasets.models.pretrained; assert not {late} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


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


@families
def test_every_family_gives_finite_logits_that_depend_on_each_image_alone(family: str) -> None:
    model = trained_a_little(NARROW[family](5))
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        logits = model(images)
        assert logits.shape == (4, 5)
        assert torch.isfinite(logits).all()
        assert torch.equal(model(images), logits)
        torch.testing.assert_close(torch.cat([model(image[None]) for image in images]), logits, rtol=1e-4, atol=1e-5)
        assert len(torch.unique(logits, dim=0)) == 4


@families
def test_a_gradient_reaches_every_parameter_and_the_pixels(family: str) -> None:
    model = trained_a_little(NARROW[family](5))
    images = torch.rand(8, 3, 32, 32, requires_grad=True)
    functional.cross_entropy(model(images), torch.arange(8) % 5).backward()
    assert images.grad is not None
    assert images.grad.abs().amax(dim=(1, 2, 3)).min() > 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if name != "scores.bias":  # the same for every token, so the softmax over tokens does not see it
            assert parameter.grad.abs().max() > 0, name


@families
def test_memory_order_does_not_change_the_result(family: str) -> None:
    model = trained_a_little(NARROW[family](5))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)
        model.to(memory_format=torch.channels_last)
        result = model(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


@families
def test_products_in_bfloat16_stay_close(family: str) -> None:
    model = trained_a_little(NARROW[family](5))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = model(images)
    assert torch.isfinite(result).all()
    assert (result.float() - expected).abs().max() < 0.05 * (1 + expected.abs().max())


@families
def test_a_step_of_training_lowers_the_loss(family: str) -> None:
    model = NARROW[family](2).train()
    images, labels = torch.rand(16, 3, 32, 32), torch.arange(16) % 2
    images[labels == 1, 0] = 1
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for _ in range(12):
        loss = functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < sum(losses[:3])


@families
def test_every_family_can_be_a_frozen_surrogate(family: str) -> None:
    model = trained_a_little(NARROW[family](5))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(fuse(model)(images), model(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["lenet5", "cvt-7-4", "cct-7-3x1"])
@pytest.mark.parametrize("size", [(32, 33), (28, 32), (64, 64)])
def test_models_for_one_size_refuse_others(name: str, size: tuple[int, int]) -> None:
    with torch.device("meta"), pytest.raises(InputError, match=f"{size[0]} x {size[1]}, this model takes 32 x 32 only"):
        MODELS[name](10)(torch.empty(1, 3, *size))


@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("lenet5", "cvt-7-4", "cct-7-3x1")])
def test_the_others_take_any_size_from_8(name: str) -> None:
    with torch.device("meta"):
        model = MODELS[name](7).eval()
        for size in ((8, 8), (9, 40)):
            assert model(torch.empty(2, 3, *size)).shape == (2, 7)


def test_operations_for_a_size_that_a_model_does_not_take() -> None:
    with pytest.raises(InputError, match="images are 16 x 16, this model takes 32 x 32 only"):
        forward_flop("lenet5", 10, 16)
    with pytest.raises(InputError, match="images are 4 x 4, must be at least 8 x 8"):
        forward_flop("densenet121", 10, 4)


def test_lenet_agrees_with_explicit_layers() -> None:
    model = LeNet5(4).eval()
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    images = torch.rand(2, 3, 32, 32)
    features = images
    for layer in convolutions:
        windows = functional.unfold(features, 5).transpose(1, 2) @ layer.weight.flatten(1).T + layer.bias
        side = math.isqrt(windows.shape[1])
        features = windows.clamp(min=0).transpose(1, 2).unflatten(2, (side // 2, 2, side // 2, 2)).amax(dim=(3, 5))
    hidden = features.flatten(1)
    for index, layer in enumerate(linear):
        hidden = hidden @ layer.weight.T + layer.bias
        hidden = hidden if index == 2 else hidden.clamp(min=0)
    assert [layer.out_features for layer in linear] == [120, 84, 4]
    torch.testing.assert_close(model(images), hidden)


def normalised(features: Tensor, norm: nn.Module) -> Tensor:
    """Batch norm in evaluation mode, term by term."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance, weight, bias = (
        tensor[:, None, None] for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (features - mean) / (variance + 1e-5).sqrt() * weight + bias


def test_densenet_agrees_with_explicit_layers() -> None:
    """The stem is a bare convolution, transitions have no ReLU, every layer appends ``growth`` channels."""
    model = trained_a_little(DenseNet(3, growth=4, blocks=(2, 1, 2)).double())
    assert isinstance(model, DenseNet)
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    features = functional.conv2d(images, model.stem.weight, padding=1)
    shapes = []
    for layer in model.layers:
        if isinstance(layer, DenseLayer):
            hidden = functional.conv2d(normalised(features, layer.norm1).clamp(min=0), layer.conv1.weight)
            assert hidden.shape[1] == 16
            hidden = functional.conv2d(normalised(hidden, layer.norm2).clamp(min=0), layer.conv2.weight, padding=1)
            features = torch.cat((features, hidden), dim=1)
        else:
            assert isinstance(layer, Transition)
            norm, convolution, _ = layer
            hidden = torch.einsum("bchw,oc->bohw", normalised(features, norm), convolution.weight[:, :, 0, 0])
            features = hidden.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean(dim=(3, 5))
        shapes.append(tuple(features.shape[1:3]))
    assert shapes == [(12, 8), (16, 8), (8, 4), (12, 4), (6, 2), (10, 2), (14, 2)]
    features = normalised(features, model.norm).clamp(min=0).mean(dim=(2, 3))
    torch.testing.assert_close(model(images), features @ model.head.weight.T + model.head.bias)


def test_a_shortcut_of_a_cifar_resnet_takes_every_second_pixel_and_adds_zeros() -> None:
    features = torch.rand(2, 4, 5, 6)
    result = shortcut(features, 8, 2)
    assert result.shape == (2, 8, 3, 3)
    for row, column in ((0, 0), (1, 2), (2, 1)):
        assert torch.equal(result[:, 2:6, row, column], features[:, :, 2 * row, 2 * column])
    assert not result[:, :2].any()
    assert not result[:, 6:].any()


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 8, 2)])
def test_a_block_of_a_cifar_resnet_agrees_with_explicit_layers(inputs: int, outputs: int, stride: int) -> None:
    block = trained_a_little(CifarBlock(inputs, outputs, stride).double())
    assert isinstance(block, CifarBlock)
    features = torch.randn(2, inputs, 7, 7, dtype=torch.float64)
    hidden = functional.conv2d(features, block.conv1.weight, stride=stride, padding=1)
    hidden = functional.conv2d(block.bn1(hidden).clamp(min=0), block.conv2.weight, padding=1)
    around = features if stride == 1 else shortcut(features, outputs, stride)
    torch.testing.assert_close(block(features), (block.bn2(hidden) + around).clamp(min=0))


def test_cifar_resnets_have_6n_plus_2_layers_and_only_two_blocks_that_change_the_shape() -> None:
    for name, blocks in (("resnet20", 3), ("resnet56", 9)):
        model = build_model(name, 10, seed=0)
        layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        assert len(layers) == 6 * blocks + 2
        assert [layer.bias is not None for layer in layers] == [False] * (6 * blocks + 1) + [True]
        changing = [each.stride for each in model.modules() if isinstance(each, CifarBlock) and not each.same_shape]
        assert changing == [2, 2]
        stem = model.get_submodule("conv1")
        assert isinstance(stem, nn.Conv2d)
        assert stem.weight.std().item() == pytest.approx(math.sqrt(2 / 27), rel=0.15)


def test_no_convolution_of_densenet_has_a_bias() -> None:
    convolutions = [module for module in NARROW["densenet"](10).modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 1 + 2 * 5 + 2
    assert all(convolution.bias is None for convolution in convolutions)


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 4, 1), (4, 8, 1), (4, 8, 2), (4, 4, 2)])
def test_a_block_of_a_wide_resnet_agrees_with_explicit_layers(inputs: int, outputs: int, stride: int) -> None:
    block = trained_a_little(WideBlock(inputs, outputs, stride).double())
    assert isinstance(block, WideBlock)
    features = torch.randn(2, inputs, 6, 6, dtype=torch.float64)
    hidden = functional.conv2d(
        normalised(features, block.norm1).clamp(min=0), block.conv1.weight, block.conv1.bias, padding=1
    )
    hidden = functional.conv2d(
        normalised(hidden, block.norm2).clamp(min=0), block.conv2.weight, block.conv2.bias, stride=stride, padding=1
    )
    if (inputs, stride) == (outputs, 1):
        assert isinstance(block.shortcut, nn.Identity)
        shortcut = features
    else:
        assert isinstance(block.shortcut, nn.Conv2d)
        shortcut = torch.einsum("bchw,oc->bohw", features, block.shortcut.weight[:, :, 0, 0])[:, :, ::stride, ::stride]
        shortcut = shortcut + block.shortcut.bias[:, None, None]
    torch.testing.assert_close(block(features), hidden + shortcut)


def test_wide_resnets_have_biases_and_a_last_norm_that_follows_the_latest_batch() -> None:
    model = WideResNet(10, factor=2, blocks=4)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 1 + 3 * 4 * 2 + 3
    assert all(convolution.bias is not None for convolution in convolutions)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [norm.momentum for norm in norms] == [0.1] * 24 + [0.9]
    features = model.stem(torch.rand(1, 3, 32, 32))
    shapes = []
    for block in model.blocks:
        features = block(features)
        shapes.append(tuple(features.shape[1:3]))
    assert shapes == [(32, 32)] * 4 + [(64, 16)] * 4 + [(128, 8)] * 4


def layer_normalised(vector: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = vector - vector.mean()
    return centred / (centred.square().mean() + 1e-5).sqrt() * norm.weight + norm.bias


def encoded_slowly(layer: EncoderLayer, stream: Tensor) -> Tensor:
    """One image's tokens, float64 [tokens, width], through a layer: a loop over heads, products of matrices."""
    width = stream.shape[1]
    size = width // 4
    attention, perceptron = layer.attention, layer.perceptron
    read = torch.stack([layer_normalised(token, layer.norm1) for token in stream])
    queries, keys, values = (read @ part.T for part in attention.qkv.weight.split(width))
    heads = []
    for head in range(4):
        own = slice(head * size, (head + 1) * size)
        exponentials = (queries[:, own] @ keys[:, own].T / math.sqrt(size)).exp()
        heads.append(exponentials / exponentials.sum(dim=1, keepdim=True) @ values[:, own])
    stream = stream + torch.cat(heads, dim=1) @ attention.output.weight.T + attention.output.bias
    stream = torch.stack([layer_normalised(token, layer.norm2) for token in stream])
    first, _, second = perceptron
    hidden = stream @ first.weight.T + first.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return stream + hidden @ second.weight.T + second.bias


def test_an_encoder_layer_agrees_with_plain_products_of_matrices() -> None:
    layer = trained_a_little(EncoderLayer(16, 0.1).double())
    assert isinstance(layer, EncoderLayer)
    stream = torch.randn(3, 9, 16, dtype=torch.float64)
    expected = torch.stack([encoded_slowly(layer, tokens) for tokens in stream])
    torch.testing.assert_close(layer(stream), expected)


@pytest.mark.parametrize("family", ["cvt", "cct"])
def test_a_transformer_agrees_with_plain_products_of_matrices(family: str) -> None:
    model = trained_a_little(NARROW[family](3).double())
    assert isinstance(model, CompactTransformer)
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    expected = []
    for image in images:
        if family == "cvt":
            assert isinstance(model.tokenizer, nn.Conv2d)
            patches = image.unflatten(2, (8, 4)).unflatten(1, (8, 4)).permute(1, 3, 0, 2, 4).reshape(64, 48)
            tokens = patches @ model.tokenizer.weight.flatten(1).T + model.tokenizer.bias
        else:
            assert isinstance(model.tokenizer, nn.Sequential)
            features = functional.conv2d(image[None], model.tokenizer[0].weight, padding=1)[0].clamp(min=0)
            padded = functional.pad(features, (1, 1, 1, 1))  # zeros never win over what ReLU has left
            tokens = padded.unfold(1, 3, 2).unfold(2, 3, 2).amax(dim=(3, 4)).flatten(1).T
        tokens = tokens + model.positions[0]
        for layer in model.layers:
            assert isinstance(layer, EncoderLayer)
            tokens = encoded_slowly(layer, tokens)
        tokens = torch.stack([layer_normalised(token, model.norm) for token in tokens])
        scores = (tokens @ model.scores.weight.T + model.scores.bias).exp()
        expected.append(model.head.weight @ (scores / scores.sum() * tokens).sum(dim=0) + model.head.bias)
    torch.testing.assert_close(model(images), torch.stack(expected))


def test_transformers_start_from_truncated_normal_weights_and_no_bias_where_they_should() -> None:
    model = build_model("cct-7-3x1", 10, seed=0)
    assert isinstance(model, CompactTransformer)
    assert model.positions.std().item() == pytest.approx(0.2, rel=0.02)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.2)
            assert module.bias is None or not module.bias.any()
    assert isinstance(model.tokenizer, nn.Sequential)
    assert model.tokenizer[0].bias is None
    assert model.tokenizer[0].weight.std().item() == pytest.approx(math.sqrt(2 / 27), rel=0.05)
    assert all(layer.attention.qkv.bias is None for layer in model.layers)
    assert [layer.drop for layer in model.layers] == pytest.approx([index / 60 for index in range(7)])


def test_stochastic_depth_skips_whole_images_and_keeps_the_mean() -> None:
    stream, residual = torch.zeros(20_000, 2, 3), torch.ones(20_000, 2, 3)
    skipped = add_or_skip(stream, residual, rate=0.1, training=True)
    assert torch.equal(skipped, skipped[:, :1, :1].expand_as(skipped))
    kept = skipped[:, 0, 0]
    assert torch.isin(kept, torch.tensor([0, 1 / 0.9])).all()
    assert kept.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(add_or_skip(stream, residual, rate=0.1, training=False), residual)
    assert torch.equal(add_or_skip(stream, residual, rate=0, training=True), residual)


def test_both_residuals_of_a_layer_are_skipped_independently() -> None:
    """With attention and perceptron that return constants, the result tells which of the two was skipped."""
    layer = EncoderLayer(4, 0.5).train()
    layer.attention, layer.norm2 = nn.Sequential(nn.Identity()), nn.Identity()  # type: ignore[assignment]
    layer.norm1 = layer.perceptron = _Constant()  # type: ignore[assignment]
    result = layer(torch.zeros(4000, 1, 4))[:, 0, 0]
    values, counts = result.unique(return_counts=True)
    assert values.tolist() == [0, 2, 4]
    assert counts.tolist() == pytest.approx([1000, 2000, 1000], rel=0.1)


class _Constant(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return torch.ones_like(tokens)


def test_attention_drops_weights_in_training_only_and_keeps_the_mean() -> None:
    attention = Attention(8)
    tokens = torch.randn(1, 5, 8).expand(20_000, -1, -1)
    with torch.no_grad():
        expected = attention.eval()(tokens[:1])
        dropped = attention.train()(tokens)
    assert len(torch.unique(dropped[:50], dim=0)) > 40
    deviation = dropped.std(dim=0) / math.sqrt(len(dropped))
    assert ((dropped.mean(dim=0) - expected[0]).abs() < 5 * deviation).all()


def test_attention_drops_one_weight_in_ten() -> None:
    """Uniform attention over 100 tokens whose value is 1 gives the share of weights that is left, over 0.9."""
    attention = Attention(4).train()
    with torch.no_grad():
        attention.qkv.weight.zero_()
        attention.qkv.weight[8:].fill_(0.25)
        attention.output.weight.copy_(torch.eye(4))
        attention.output.bias.zero_()
        shares = attention(torch.ones(20, 100, 4)) * 90
    assert torch.allclose(shares, shares.round(), atol=1e-3)
    assert shares.mean().item() == pytest.approx(90, abs=0.2)
    assert shares.std().item() == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("family", ["cvt", "cct"])
def test_what_a_transformer_draws_in_training_follows_torchs_seed(family: str) -> None:
    model = NARROW[family](5).train()
    images = torch.rand(4, 3, 32, 32)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(model(images))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("count", [build_model, num_parameters, forward_flop])
def test_an_unknown_model_names_the_known_ones(count: Callable[..., object]) -> None:
    more = {"seed": 0} if count is build_model else {"image_size": 32} if count is forward_flop else {}
    with pytest.raises(InputError) as caught:
        count("vgg", 10, **more)
    known = ", ".join(PARAMETERS)
    assert str(caught.value) == f"no model 'vgg'; the models are {known}, timm:NAME, open_clip:NAME"


def test_every_factory_makes_a_new_model() -> None:
    with torch.device("meta"):
        for factory in MODELS.values():
            assert factory(10) is not factory(10)


def test_fixed_filters_answer_alike_to_what_natural_images_have_and_are_not_trained() -> None:
    """Grey, the two opponent colours, and edges, as strong as they are usual, give answers of size 1."""
    filters = haar_filters()
    assert filters.shape == (24, 3, 2, 2)
    assert torch.equal(filters[12:], -filters[:12])
    flat = filters[:12].flatten(1)
    assert torch.allclose(flat @ flat.T, torch.diag((flat * flat).sum(dim=1)), atol=1e-3), "orthogonal"
    grey = torch.full((1, 3, 2, 2), 0.8 / math.sqrt(12))  # one deviation from the middle
    model = QuickNet(10, fixed=True)
    first = model.features[0]
    assert first(grey + 0.5).flatten().tolist() == pytest.approx([1.0] + [0.0] * 11 + [-1.0] + [0.0] * 11, abs=1e-5)
    assert [name for name, _ in first.named_parameters()] == ["bias"]
    trained = sum(parameter.numel() for parameter in QuickNet(10, fixed=False).parameters())
    assert trained - sum(parameter.numel() for parameter in model.parameters()) == filters.numel()


def test_the_quick_network_hands_its_input_on_at_first_and_learns_its_shifts_faster() -> None:
    plain, own = (QuickNet(10, identity=identity, shift_rate=rate) for identity, rate in ((False, 1.0), (True, 8.0)))
    images = torch.rand(2, 24, 9, 9)
    convolution = own.features[2][0]
    assert torch.equal(convolution(images)[:, :24], images)
    assert not torch.equal(plain.features[2][0](images)[:, :24], images)
    for model, rate in ((plain, 1.0), (own, 8.0)):
        norm = model.features[2][2]
        trained = next(parameter for name, parameter in norm.named_parameters() if "bias" in name)
        with torch.no_grad():
            trained.fill_(0.5)
        assert norm.bias.tolist() == pytest.approx([0.5 * rate] * 64)


def test_a_copy_of_the_quick_network_is_another_one_and_answers_alike() -> None:
    model, images = QuickNet(3).eval(), torch.rand(2, 3, 32, 32)
    copied = copy.deepcopy(model)
    assert torch.equal(copied(images), model(images))
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(1)
    assert not torch.equal(copied(images), model(images))


def test_the_quick_network_takes_small_and_large_images() -> None:
    model = QuickNet(3).eval()
    assert any(isinstance(module, nn.ReLU) for module in QuickNet(3, relu=True).modules())
    for size in (8, 32, 100):
        assert model(torch.rand(2, 3, size, size)).shape == (2, 3)


@pytest.mark.parametrize("inputs", [4, 8, 15])
@pytest.mark.parametrize("threads", [1, 2])
def test_narrow_shortcuts_have_the_gradients_of_a_strided_convolution(inputs: int, threads: int) -> None:
    torch.manual_seed(0)
    ours = BasicBlock(inputs, 16, 2).shortcut[0].to(memory_format=torch.channels_last)  # type: ignore[index]
    plain = nn.Conv2d(inputs, 16, 1, stride=2, bias=False).double()
    plain.weight.data.copy_(ours.weight.data)
    images = torch.randn(29, inputs, 33, 32).to(memory_format=torch.channels_last).requires_grad_()
    exact = images.detach().double().requires_grad_()
    with cpu_threads(threads):
        answers = ours(images)
        gradients = torch.randn_like(answers)
        answers.backward(gradients)
    expected = plain(exact)
    expected.backward(gradients.double())
    for one, other in ((answers, expected), (ours.weight.grad, plain.weight.grad), (images.grad, exact.grad)):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-4)
