"""Unlearnable-example datasets: build, load and verify them.

Importing this package is cheap: torch, pyarrow and the rest are imported by the functions that need them.
"""

from ule_datasets.base.errors import InputError
from ule_datasets.base.version import __version__

TYPE_CHECKING = False  # type checkers know the names; typing takes longer to import than all of this
if TYPE_CHECKING:
    from ule_datasets.dataset.loading import AppliedPerturbation, PoisonedDataset, load, load_perturbation
    from ule_datasets.definition import Recipe
    from ule_datasets.experiments.own import TrainingImages
    from ule_datasets.interface.building import build
    from ule_datasets.interface.catalogue import recipe, recipes
    from ule_datasets.interface.claims import claims
    from ule_datasets.interface.evaluating import evaluate
    from ule_datasets.interface.results import results
    from ule_datasets.interface.verifying import verify

__all__ = [
    "AppliedPerturbation",
    "InputError",
    "PoisonedDataset",
    "Recipe",
    "TrainingImages",
    "__version__",
    "build",
    "claims",
    "evaluate",
    "load",
    "load_perturbation",
    "recipe",
    "recipes",
    "results",
    "verify",
]

_MODULES = {
    "dataset.loading": ("AppliedPerturbation", "PoisonedDataset", "load", "load_perturbation"),
    "definition": ("Recipe",),
    "experiments.own": ("TrainingImages",),
    "interface.building": ("build",),
    "interface.catalogue": ("recipe", "recipes"),
    "interface.claims": ("claims",),
    "interface.evaluating": ("evaluate",),
    "interface.results": ("results",),
    "interface.verifying": ("verify",),
}
"""Where the names are that are imported when they are first asked for."""


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
