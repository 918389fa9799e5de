"""Trained weights of a network that takes no time, registered for as long as a test lasts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from ule_datasets.models.architectures import build_model
from ule_datasets.models.weights import WEIGHTS, Weights, WeightsFile
from ule_datasets.victims.fine_tuned import FineTuned
from ule_datasets.victims.table import VICTIMS

TINY = "convnet3-w16@tiny"
ARCHITECTURE, NUM_OUTPUTS, FILE = "convnet3-w16", 3, "tiny.pt"


def save_tiny_weights(folder: Path, *, seed: int = 5) -> tuple[Weights, Path]:
    """Save the weights as ``torch.save`` does."""
    path = folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(build_model(ARCHITECTURE, NUM_OUTPUTS, seed=seed).state_dict(), path)
    weights = Weights(
        name=TINY,
        architecture=ARCHITECTURE,
        num_outputs=NUM_OUTPUTS,
        origin=f"file:{FILE}",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        mean=(0.4, 0.5, 0.6),
        std=(0.1, 0.2, 0.3),
    )
    return weights, path


def register_tiny_weights(monkeypatch: pytest.MonkeyPatch, folder: Path, *, seed: int = 5) -> WeightsFile:
    """Save the weights and make ``TINY`` a name for them."""
    weights, path = save_tiny_weights(folder, seed=seed)
    monkeypatch.setitem(WEIGHTS, TINY, weights)
    monkeypatch.setitem(VICTIMS, TINY, FineTuned(weights=weights))
    return WeightsFile(path=path, sha256=weights.sha256)
