"""Models with trained weights: as they are, with a new head, or as a map from images to features.

Every tensor comes from the file or there is an error: nothing is left at its random start.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ule_datasets.base.errors import InputError
from ule_datasets.models.architectures import model_factory
from ule_datasets.models.initialisation import initialised
from ule_datasets.models.libraries import embedding_length, is_tower
from ule_datasets.models.states import expected, misfit_told, misfits, read_state
from ule_datasets.models.weights import Weights


class Normalise(nn.Module):
    """Subtract the mean and divide by the deviation of each channel; not part of a state dict."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] in [0, 1] to the same shape."""
        return (images - self.mean) / self.std


def build_pretrained(weights: Weights, path: Path, num_classes: int | None, *, seed: int, normalise: bool) -> nn.Module:
    """A trained classifier: float32 [B, 3, H, W] in [0, 1] to logits, float32 [B, classes].

    It is made on the CPU, in float32 and in training mode. Torch's global generator is left as it was.

    Args:
        weights: which.
        path: their file, as ``weights.obtain`` found it.
        num_classes: outputs of a new last linear layer with torch's initialisation; ``None``: the trained one.
        seed: of the new layer; the rest does not depend on it.
        normalise: whether a first layer applies the mean and deviation of the weights.

    Raises:
        InputError: the file cannot be read, holds another architecture, other shapes or another number of outputs;
            there is no trained head to keep, or none that can be replaced.
    """
    model = _trained(weights, path)
    if is_tower(weights.architecture):
        if num_classes is None:
            raise InputError(f"the weights {weights.name} have no classes of their own: choose a number of classes")
        model = nn.Sequential(OrderedDict(tower=model, head=_new_head(weights.num_outputs, num_classes, seed)))
    elif num_classes is not None:
        name, head = _head(model, weights)
        model.set_submodule(name, _new_head(head.in_features, num_classes, seed))
    return _with_inputs_of(weights, model, normalise)


def build_features(weights: Weights, path: Path, *, normalise: bool) -> nn.Module:
    """Trained features: float32 [B, 3, H, W] in [0, 1] to float32 [B, D].

    The input of the last linear layer, which becomes the identity; of an architecture without a head for classes
    (a vision tower of open_clip) the embedding itself, not normalised. Made on the CPU, in evaluation mode. Torch's
    global generator is left as it was. With ``normalise`` a first layer applies the mean and deviation of the weights.

    Raises:
        InputError: as from ``build_pretrained``.
    """
    model = _trained(weights, path)
    if not is_tower(weights.architecture):
        name, _ = _head(model, weights)
        model.set_submodule(name, nn.Identity())
    return _with_inputs_of(weights, model, normalise).eval()


def _with_inputs_of(weights: Weights, model: nn.Module, normalise: bool) -> nn.Module:
    if not normalise:
        return model
    return nn.Sequential(OrderedDict(normalise=Normalise(weights.mean, weights.std), model=model))


def _new_head(inputs: int, num_classes: int, seed: int) -> nn.Linear:
    return initialised(partial(nn.Linear, inputs, num_classes), seed=seed)


def _head(model: nn.Module, weights: Weights) -> tuple[str, nn.Linear]:
    """The last linear layer in the order of the modules, with its name; it must be what makes the outputs."""
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    # A library's own word, where it gives one: some models have two heads, or one that is a convolution.
    told = getattr(model, "get_classifier", lambda: None)()
    if not linear or linear[-1][1].out_features != weights.num_outputs or told not in (None, linear[-1][1]):
        raise InputError(f"{weights.architecture} does not end with one linear layer, which could be replaced")
    return linear[-1]


def _trained(weights: Weights, path: Path) -> nn.Module:
    """The architecture with the tensors of the file."""
    if is_tower(weights.architecture) and (length := embedding_length(weights.architecture)) != weights.num_outputs:
        raise InputError(
            f"{weights.architecture} gives embeddings of length {length}, the weights {weights.name} say "
            f"{weights.num_outputs}"
        )
    state = _state(weights, path)
    model = initialised(partial(model_factory(weights.architecture), weights.num_outputs), seed=0)
    wanted = expected(dict(model.state_dict()), state)
    if weights.renamed and len(state) == len(wanted):
        state = dict(zip(wanted, state.values(), strict=True))
    _check(weights, path, state, wanted)
    model.load_state_dict(state)
    return model


def _state(weights: Weights, path: Path) -> dict[str, Tensor]:
    """The tensors of the file that belong to the architecture, by their names there."""
    whole = read_state(path)
    prefix = weights.prefix
    state = {name.removeprefix(prefix): tensor for name, tensor in whole.items() if name.startswith(prefix)}
    if not state:
        raise InputError(
            f"{path} is not {weights.name}: no name in it begins with {prefix!r}, the first is {next(iter(whole))!r}"
        )
    return state


def _check(weights: Weights, path: Path, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Refuse other names, other shapes, and integers in place of floats; floats of any precision are accepted."""
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    wrong = misfits(state, wanted)
    if weights.renamed and len(state) != len(wanted):
        problem = f"it has {len(state)} tensors, the architecture {len(wanted)}"
    elif missing or unexpected:
        problem = " and ".join(
            f"{len(names)} of its tensors {word}, the first {names[0]!r}"
            for word, names in (("are missing", missing), ("do not belong to it", unexpected))
            if names
        )
    elif not wrong:
        return
    else:
        if all(_other_outputs(state[name], wanted[name], weights.num_outputs) for name in wrong):
            raise InputError(
                f"{path} is {weights.architecture} with {len(state[wrong[0]])} outputs, "
                f"the weights {weights.name} have {weights.num_outputs}"
            )
        problem = misfit_told(wrong, state, wanted)
    raise InputError(f"{path} does not hold {weights.architecture} (weights {weights.name}): {problem}")


def _other_outputs(found: Tensor, wanted: Tensor, num_outputs: int) -> bool:
    """Whether a tensor of the head has nothing wrong but its number of outputs."""
    if found.ndim == 0 or found.shape[1:] != wanted.shape[1:]:
        return False
    return len(wanted) == num_outputs != len(found)
