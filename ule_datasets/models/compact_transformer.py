"""Compact vision transformers, for images of 32 x 32 pixels.

Ali Hassani et al., "Escaping the Big Data Paradigm with Compact Transformers", 2021: CVT cuts the image into
patches, CCT has a convolution with pooling in place of that. Both average the tokens with learned weights
instead of adding a class token.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional

from ule_datasets.models.sizes import SMALL, small_images

torch.fx.wrap("small_images")

HEADS: Final = 4
ATTENTION_DROPOUT: Final = 0.1
"""Probability that a weight of the attention is zeroed in training; the only dropout there is."""
LARGEST_DROP: Final = 0.1
"""Probability that the last layer skips a residual of an image in training; from 0 in the first, linearly."""
_POSITION_DEVIATION: Final = 0.2
_LINEAR_DEVIATION: Final = 0.02


def add_or_skip(stream: Tensor, residual: Tensor, *, rate: float, training: bool) -> Tensor:
    """Stochastic depth: in training the residual of each image is left out with probability ``rate`` (below 1).

    Drawn like dropout, from torch's generator of the device; kept residuals are divided by 1 - ``rate``. Stream,
    residual and the sum are float [B, tokens, width].
    """
    if not training or rate == 0:
        return stream + residual
    return stream + residual * functional.dropout(stream.new_ones(len(stream), 1, 1), rate)


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values without bias, the output with one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Float [B, tokens, width] to the same shape."""
        queries, keys, values = self.qkv(tokens).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4).unbind()
        mixed = functional.scaled_dot_product_attention(
            queries, keys, values, dropout_p=ATTENTION_DROPOUT if self.training else 0.0
        )
        result: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return result


class EncoderLayer(nn.Module):
    """Attention and a perceptron of twice the width, each added to the stream of tokens.

    Between the two the stream itself is normalised: the perceptron's result is added to what it has read.
    """

    def __init__(self, width: int, drop: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.drop = drop

    def forward(self, stream: Tensor) -> Tensor:
        """Float [B, tokens, width] to the same shape."""
        attended = self.attention(self.norm1(stream))
        stream = self.norm2(add_or_skip(stream, attended, rate=self.drop, training=self.training))
        return add_or_skip(stream, self.perceptron(stream), rate=self.drop, training=self.training)


class CompactTransformer(nn.Module):
    """Tokenizer, positional embedding, ``num_layers`` encoder layers, sequence pooling, one linear layer.

    Args:
        num_classes: outputs.
        tokenizer: from float [B, 3, 32, 32] to float [B, width, 32 / stride, 32 / stride].
        stride: of the tokens, in pixels.
        width: of a token; a multiple of ``HEADS``.
        num_layers: encoder layers.
    """

    def __init__(self, num_classes: int, *, tokenizer: nn.Module, stride: int, width: int, num_layers: int) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.positions = nn.Parameter(torch.empty(1, (SMALL // stride) ** 2, width))
        drops = [LARGEST_DROP * index / max(1, num_layers - 1) for index in range(num_layers)]
        self.layers = nn.Sequential(*[EncoderLayer(width, drop) for drop in drops])
        self.norm = nn.LayerNorm(width)
        self.scores = nn.Linear(width, 1)
        self.head = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.positions, std=_POSITION_DEVIATION)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, 32, 32] to logits, float [B, num_classes].

        Raises:
            InputError: the images have another size.
        """
        tokens = self.tokenizer(small_images(images)).flatten(2).transpose(1, 2)
        tokens = self.norm(self.layers(tokens + self.positions))
        weights = self.scores(tokens).softmax(dim=1)
        logits: Tensor = self.head((weights * tokens).sum(dim=1))
        return logits


def _initialise(module: nn.Module) -> None:
    """Initialise a linear layer or a convolution in place; leave others as they are."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=_LINEAR_DEVIATION)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)


def cvt(num_classes: int, *, width: int, num_layers: int, patch: int) -> CompactTransformer:
    """CVT: one token per patch of ``patch`` x ``patch`` pixels, a linear map of them.

    Width 256, 7 layers and patches of 4 are CVT-7/4: 3,716,619 parameters for 10 classes.
    """
    tokenizer = nn.Conv2d(3, width, patch, stride=patch)
    return CompactTransformer(num_classes, tokenizer=tokenizer, stride=patch, width=width, num_layers=num_layers)


def cct(num_classes: int, *, width: int, num_layers: int) -> CompactTransformer:
    """CCT: 16 x 16 tokens from one 3 x 3 convolution without bias, ReLU, and 3 x 3 max pooling of stride 2.

    Width 256 and 7 layers are CCT-7/3x1: 3,760,139 parameters for 10 classes.
    """
    tokenizer = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)
    )
    return CompactTransformer(num_classes, tokenizer=tokenizer, stride=2, width=width, num_layers=num_layers)
