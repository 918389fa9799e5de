"""Training sets as countermeasures prepare them: made once, kept, and found again by what was made into what."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
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


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PreparedSets:
    """A folder of prepared training sets, an array file for each; a file that is there is whole."""

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
        """The training data as a strategy's parts prepare them, one after the other; made where they are not kept yet.

        The data has a name for people and a digest that identifies it; its test images stay as they are. Parts may
        compute on the device, and look for trained weights in a file or folder before downloading.
        """
        images: Images = data.images
        for part in strategy.having("prepare"):
            digest = _digest(part, digest, device)
            path = self.folder / f"{part.name}-{digest[:32]}.npy"
            if not path.exists():
                self.reporter.say(f"{name}, {part.name}: {len(images):,} images are prepared once for all training")
                self._make(part, images, data.labels, path, device=str(device), weights=weights)
                make_room(path, LARGEST)
            mark_used(path)
            images = np.load(path, mmap_mode="r")
        return dataclasses.replace(data, images=np.asarray(images))

    def _make(self, part: Countermeasure, images: Images, labels: np.ndarray, path: Path, **where: Any) -> None:
        height, width, channels = images.shape[1:]
        pieces = PieceFiles(path.with_suffix(".pieces"), (height, width, channels))
        context = Preparation(pieces=pieces, seed=_SEED, executor=self.executor, reporter=self.reporter, **where)
        try:
            _write(part.prepare(images, labels, context), path)
        except FileNotFoundError:  # another process that made the same set has finished it and removed the pieces
            if not path.exists():
                raise
        shutil.rmtree(pieces.folder, ignore_errors=True)


def _digest(part: Countermeasure, before: str, device: torch.device) -> str:
    """What a prepared set depends on: the images before, what was chosen, the code, the kind of device and torch."""
    made_by = [before, content(part), code_digest(part), device.type, torch.__version__]
    return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()


def _write(images: Images, path: Path) -> None:
    with replacing(path) as partial:
        target = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=images.shape)
        for start in range(0, len(images), _ROWS_AT_ONCE):
            target[start : start + _ROWS_AT_ONCE] = images[start : start + _ROWS_AT_ONCE]
        target.flush()
