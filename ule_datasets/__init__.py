"""Unlearnable-example datasets: build, load and verify them.

Importing this package is cheap: torch, pyarrow and the rest are imported by the functions that need them.
"""

from ule_datasets.base.errors import InputError
from ule_datasets.base.version import __version__

TYPE_CHECKING = False  # type checkers know the name; typing takes longer to import than all of this
if TYPE_CHECKING:
    from ule_datasets.dataset.loading import PoisonedDataset, load

__all__ = ["InputError", "PoisonedDataset", "__version__", "load"]


def __getattr__(name: str) -> object:
    if name in ("PoisonedDataset", "load"):
        from ule_datasets.dataset import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
