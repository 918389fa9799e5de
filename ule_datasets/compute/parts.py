"""What changes while something is trained, as named arrays for a checkpoint, and given back to the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ule_datasets.base.lazy import lazy

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    Part: TypeAlias = Tensor | nn.Module | torch.optim.Optimizer | torch.Generator
else:
    torch, Part = lazy("torch"), Any


def arrays_of(parts: Mapping[str, Part]) -> dict[str, np.ndarray]:
    """All that the parts consist of: ``NAME`` for a tensor or generator, ``NAME.KEY`` for what has several.

    Arrays of what is on a CPU share its memory: keep them, or copies, before the parts change again.

    A model is its parameters and persistent buffers, an optimiser what it remembers of each parameter (its settings
    are whose who made it), a generator its state.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, part in parts.items():
        for key, tensor in _tensors(part).items():
            arrays[f"{name}.{key}" if key else name] = tensor.detach().cpu().numpy()
    return arrays


def restore(parts: Mapping[str, Part], arrays: Mapping[str, np.ndarray]) -> None:
    """Make the parts what they were when ``arrays_of`` was asked, in place; arrays of other names are left alone."""
    for name, part in parts.items():
        own = {key: value for key, value in arrays.items() if key == name or key.startswith(f"{name}.")}
        _restore(part, {key.removeprefix(name)[1:]: torch.as_tensor(value) for key, value in own.items()})


def _tensors(part: Part) -> dict[str, Tensor]:
    """What a part consists of, by name; a tensor has none."""
    if isinstance(part, torch.Tensor):
        return {"": part}
    if isinstance(part, torch.Generator):
        return {"": part.get_state()}
    if isinstance(part, torch.nn.Module):
        return dict(part.state_dict())
    states: dict[int, dict[str, Any]] = part.state_dict()["state"]
    return {f"{number}.{name}": value for number, state in states.items() for name, value in state.items()}


def _restore(part: Part, tensors: Mapping[str, Tensor]) -> None:
    """Give a part what ``_tensors`` returned."""
    if isinstance(part, torch.Tensor):
        part.copy_(tensors[""])
    elif isinstance(part, torch.Generator):
        part.set_state(tensors[""])
    elif isinstance(part, torch.nn.Module):
        part.load_state_dict(tensors)
    else:
        content = part.state_dict()
        content["state"] = {}
        parameters = [parameter for group in part.param_groups for parameter in group["params"]]
        for key, value in tensors.items():
            number, _, name = key.partition(".")
            like = torch.empty_like(parameters[int(number)]) if value.ndim else value  # their order in memory
            content["state"].setdefault(int(number), {})[name] = like.copy_(value)
        part.load_state_dict(content)
