"""Training sets as countermeasures prepare them, and what these learn of them: made once, and found again.

Both are filed by what was made into what.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ule_datasets.base.content import content
from ule_datasets.base.files import make_room, mark_used, replacing
from ule_datasets.base.progress import Reporter
from ule_datasets.base.seeds import Seed
from ule_datasets.compute.executor import Executor
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.spool import Images
from ule_datasets.experiments.identity import code_digest
from ule_datasets.victims.data import TrainingData
from ule_datasets.victims.preparation import PieceFiles, Preparation
from ule_datasets.victims.strategy import Countermeasure, Strategy

_SEED = Seed(0)  # of every preparation: what comes out belongs to the training set, not to one of the runs on it
LARGEST = 50 * 2**30
"""Bytes; beyond, the sets that were not used for longest are deleted."""
_ROWS_AT_ONCE = 1024
_Hook = Callable[[Images, np.ndarray, Preparation], Images]


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PreparedSets:
    """A folder of prepared training sets and of what was learned of some, an array file for each.

    A file that is there is whole.
    """

    folder: Path
    executor: Executor = field(default_factory=LocalExecutor)
    reporter: Reporter = field(default_factory=Reporter)

    def of(
        self,
        name: str,
        data: TrainingData,
        digest: str,
        strategy: Strategy,
        *,
        device: torch.device,
        weights: Path | None = None,
    ) -> TrainingData:
        """The training data as a strategy's parts prepare them, one after the other, and what others learn of them.

        What is not kept yet is made. The data has a name for people and a digest that identifies it; its test images
        stay as they are. Parts may compute on the device, and look for trained weights in a file or folder before
        downloading.
        """
        images: Images = data.images
        for part in strategy.having("prepare"):
            digest = _digest(part, digest, device)
            path = self.folder / f"{part.name}-{digest[:32]}.npy"
            if not path.exists():
                self.reporter.say(f"{name}, {part.name}: {len(images):,} images are prepared once for all training")
                self._make(part.prepare, images, data.labels, path, device=str(device), weights=weights)
            images = _kept(path)
        learned = []
        for part in strategy.having("on_levels"):
            path = self.folder / f"{part.name}-{_digest(part, digest, device)[:32]}-learned.npy"
            if not path.exists():
                self.reporter.say(f"{name}, {part.name}: learns of {len(images):,} images once for all training")
                self._make(part.learn, images, data.labels, path, device=str(device), weights=weights)
            learned.append(_kept(path))
        return dataclasses.replace(data, images=np.asarray(images), learned=tuple(learned))

    def _make(self, hook: _Hook, images: Images, labels: np.ndarray, path: Path, **where: Any) -> None:
        height, width, channels = images.shape[1:]
        pieces = PieceFiles(path.with_suffix(".pieces"), (height, width, channels))
        context = Preparation(pieces=pieces, seed=_SEED, executor=self.executor, reporter=self.reporter, **where)
        try:
            _write(hook(images, labels, context), path)
        except FileNotFoundError:  # another process that made the same set has finished it and removed the pieces
            if not path.exists():
                raise
        shutil.rmtree(pieces.folder, ignore_errors=True)
        make_room(path, LARGEST)


def _kept(path: Path) -> np.ndarray:
    """What a file holds, which is read where it is needed."""
    mark_used(path)
    return np.asarray(np.load(path, mmap_mode="r"))


def _digest(part: Countermeasure, before: str, device: torch.device) -> str:
    """What a prepared set depends on: the images before, what was chosen, the code, the kind of device and torch."""
    made_by = [before, content(part), code_digest(part), device.type, torch.__version__]
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()


def _write(array: Images, path: Path) -> None:
    with replacing(path) as partial:
        target = np.lib.format.open_memmap(partial, mode="w+", dtype=array.dtype, shape=array.shape)
        for start in range(0, len(array), _ROWS_AT_ONCE):
            target[start : start + _ROWS_AT_ONCE] = array[start : start + _ROWS_AT_ONCE]
        target.flush()
