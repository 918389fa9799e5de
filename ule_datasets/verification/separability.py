"""Whether a linear classifier tells the classes apart by the perturbation alone.

Da Yu, Huishuai Zhang, Wei Chen, Jian Yin, Tie-Yan Liu, "Availability Attacks Create Shortcuts", KDD 2022, found it of
every perturbation they looked at: it is what makes a perturbation a shortcut.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ule_datasets.data.perturbation import Additive, Perturbation
from ule_datasets.data.split import positions_of

MOST_SAMPLES = 10_000
"""A fixed random subset is enough; the canonical order makes the first rows one."""
REGULARISATION = 100.0
"""Weight of the squared coefficients, for differences in units of 1/255."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Separability:
    """Accuracy (percent) of a linear classifier that sees ``poisoned - clean`` and nothing else."""

    fitted: float
    """On the samples it was fitted to: every other one."""
    held_out: float
    """On the others."""
    num_samples: int
    """Both together."""

    @property
    def summary(self) -> str:
        """One sentence for the report."""
        return (
            f"a linear classifier on the perturbation alone is right about {self.held_out:.1f} % of samples it was not "
            f"fitted to ({self.fitted:.1f} % of those it was)"
        )


def linear_separability(clean: np.ndarray, poisoned: np.ndarray, labels: np.ndarray) -> Separability | None:
    """Fit a ridge classifier to half of the differences and test it on the other half; unchanged images do not count.

    ``None`` where a half of the changed images has fewer than two classes. Images are uint8 [N, H, W, C].
    """
    from scipy.linalg import LinAlgWarning  # type: ignore[import-untyped]
    from sklearn.linear_model import RidgeClassifier

    difference = (poisoned[:MOST_SAMPLES].astype(np.float32) - clean[:MOST_SAMPLES]).reshape(-1, clean[0].size)
    changed = difference.any(axis=1)
    difference, labels = difference[changed], labels[:MOST_SAMPLES][changed]
    halves = (slice(0, None, 2), slice(1, None, 2))
    if min(len(np.unique(labels[half])) for half in halves) < 2:
        return None
    with warnings.catch_warnings():
        # A perturbation that is the same in whole classes has few directions: that is no fault of the data, and the
        # digits that the solution lacks then do not show in a share of samples.
        warnings.simplefilter("ignore", LinAlgWarning)
        model = RidgeClassifier(alpha=REGULARISATION).fit(difference[halves[0]], labels[halves[0]])
    fitted, held_out = (100 * float(model.score(difference[half], labels[half])) for half in halves)
    return Separability(fitted=fitted, held_out=held_out, num_samples=len(labels))


def cluster_separability(
    clean: np.ndarray, poisoned: np.ndarray, perturbation: Perturbation, keys: Sequence[str]
) -> Separability | None:
    """Fit and test a ridge classifier for the clusters of the first layer that has some; samples in none do not count.

    ``None`` where the perturbation has no clusters, or a half of the changed images fewer than two.
    """
    for layer in perturbation.layers:
        if isinstance(layer, Additive) and layer.members is not None:
            with_none = np.append(layer.members.astype(np.int64), -1)  # place -1 is the end
            clusters = with_none[positions_of(keys, layer.keys)]
            inside = clusters >= 0
            return linear_separability(clean[inside], poisoned[inside], clusters[inside])
    return None
