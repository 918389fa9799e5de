"""Pauses of work that one process does, or several of a group together: its state is kept, and it goes on from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributed

from ule_datasets.base.checkpoint import Keeper, State
from ule_datasets.compute.parts import Part, arrays_of, restore

_OWN = "own."
"""How the names of arrays begin that have a row for each process."""


class Pauses:
    """When and how the state of some work is kept. All processes of a group must ask the same at the same places."""

    def __init__(self, keeper: Keeper, *, device: torch.device, ranks: int, rank: int) -> None:
        """The keeper of the first process (``rank`` 0) counts; tensors that are exchanged go through the device."""
        self._keeper, self._device, self._ranks, self._rank = keeper, device, ranks, rank

    def due(self) -> bool:
        """Whether to call ``take`` now; in a group this waits for the others."""
        due = self._keeper.due()
        return due if self._ranks == 1 else bool(self._of_all(torch.tensor(int(due)))[0])

    def take(self, parts: Mapping[str, Part], own: Mapping[str, Part], facts: dict[str, Any]) -> None:
        """Keep the state; the keeper may end the work.

        Args:
            parts: what all processes have alike.
            own: what each process has for itself.
            facts: JSON values that all of them have alike.
        """
        rows = {_OWN + name: self._of_all(torch.from_numpy(array)) for name, array in arrays_of(own).items()}
        if self._rank == 0:
            self._keeper.save(State(arrays=arrays_of({**parts, **rows}), facts=facts))

    def resume(self, parts: Mapping[str, Part], own: Mapping[str, Part]) -> dict[str, Any] | None:
        """Make the parts what they were when they were kept, in place, and give the facts; ``None``: none were."""
        state = self._keeper.load()
        facts = "" if state is None else json.dumps(state.facts, sort_keys=True)
        place = int.from_bytes(hashlib.sha256(facts.encode()).digest()[:7])
        alike = len({*self._of_all(torch.tensor(place)).tolist()}) == 1  # or else it was replaced while they looked
        if state is None or not alike:
            return None
        restore(parts, state.arrays)
        rows = {name.removeprefix(_OWN): array for name, array in state.arrays.items() if name.startswith(_OWN)}
        restore(own, {name: array[self._rank] for name, array in rows.items()})
        return state.facts

    def _of_all(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, on the CPU: [ranks, ...]."""
        if self._ranks == 1:
            return tensor[None]
        mine = tensor.to(self._device)
        tensors = [torch.empty_like(mine) for _ in range(self._ranks)]
        distributed.all_gather(tensors, mine)
        return torch.stack(tensors).cpu()
