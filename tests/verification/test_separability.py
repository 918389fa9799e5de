"""A linear classifier on differences: by class, and by cluster where the perturbation has clusters."""

from __future__ import annotations

import numpy as np
import pytest
from made_up import make_subject

from ule_datasets.data.perturbation import Additive, Perturbation, Support
from ule_datasets.verification.separability import cluster_separability, linear_separability

COUNT, CLUSTERS = 240, 4


@pytest.fixture
def clustered() -> tuple[np.ndarray, np.ndarray, np.ndarray, Perturbation, tuple[str, ...]]:
    """Clean and poisoned images, labels, a perturbation by clusters that have nothing to do with them, and keys."""
    generator = np.random.default_rng(0)
    clean = generator.integers(40, 200, (COUNT, 8, 8, 3), dtype=np.uint8)
    labels = generator.integers(0, 2, COUNT)
    keys = tuple(f"{index:04d}" for index in range(COUNT))
    order = generator.permutation(COUNT)[: COUNT - 40]
    layer = Additive(
        levels=generator.integers(-8, 9, (CLUSTERS, 8, 8, 3)).astype(np.int8),
        support=Support.CLUSTER,
        keys=tuple(keys[index] for index in sorted(order)),
        members=generator.integers(0, CLUSTERS, len(order)).astype(np.int32),
    )
    perturbation = Perturbation(layers=(layer,), source_digest="s")
    return clean, perturbation.apply(clean, labels, keys), labels, perturbation, keys


def test_clusters_are_told_apart_where_classes_are_not(
    clustered: tuple[np.ndarray, np.ndarray, np.ndarray, Perturbation, tuple[str, ...]],
) -> None:
    clean, poisoned, labels, perturbation, keys = clustered
    by_cluster = cluster_separability(clean, poisoned, perturbation, keys)
    assert by_cluster is not None
    assert (by_cluster.fitted, by_cluster.held_out, by_cluster.num_samples) == (100.0, 100.0, COUNT - 40)
    by_class = linear_separability(clean, poisoned, labels)
    assert by_class is not None
    assert by_class.held_out < 65


def test_clusters_belong_to_keys_and_not_to_rows(
    clustered: tuple[np.ndarray, np.ndarray, np.ndarray, Perturbation, tuple[str, ...]],
) -> None:
    clean, poisoned, _, perturbation, keys = clustered
    rows = np.random.default_rng(1).permutation(COUNT)[:150]
    found = cluster_separability(clean[rows], poisoned[rows], perturbation, [keys[row] for row in rows])
    assert found is not None
    assert found.held_out == 100.0
    wrong = cluster_separability(clean, poisoned, perturbation, keys[1:] + keys[:1])
    assert wrong is not None
    assert wrong.held_out < 50


def test_without_clusters_there_is_nothing_to_tell_apart() -> None:
    subject = make_subject(num_classes=3)
    samples = subject.samples()
    images = samples.clean, samples.poisoned
    assert cluster_separability(*images, samples.perturbation, samples.keys) is None
    assert linear_separability(*images, samples.labels) is not None


@pytest.mark.filterwarnings("error")
def test_a_perturbation_of_few_directions_is_no_cause_for_a_warning() -> None:
    clean, labels = np.zeros((40, 64, 64, 3), dtype=np.uint8), np.arange(40) // 2 % 2
    poisoned = clean.copy()
    poisoned[labels == 1, :32] = 100
    poisoned[labels == 0, 32:] = 100
    found = linear_separability(clean, poisoned, labels)
    assert found is not None
    assert found.held_out == 100.0
