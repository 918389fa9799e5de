"""Unlearnable-example datasets: build, load and verify them.

Importing this package is cheap: torch, pyarrow and the rest are imported by the functions that need them.
"""

from typing import TYPE_CHECKING, Any

from ule_datasets.base.errors import InputError
from ule_datasets.base.version import __version__

if TYPE_CHECKING:
    from ule_datasets.dataset.loading import PoisonedDataset, load

__all__ = ["InputError", "PoisonedDataset", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in ("PoisonedDataset", "load"):
        from ule_datasets.dataset import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
