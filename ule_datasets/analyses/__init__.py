"""What trained models and their histories say beyond an accuracy: a module per analysis, each a row in ``ANALYSES``."""

from __future__ import annotations

from typing import Any, Final

from ule_datasets.analyses.analysis import Analysis
from ule_datasets.analyses.displacement import Displacement
from ule_datasets.analyses.ending import Ending
from ule_datasets.analyses.finetuning import Finetuning
from ule_datasets.analyses.fitting import Fitting
from ule_datasets.analyses.landscape import Landscape
from ule_datasets.analyses.relabelled import Relabelled
from ule_datasets.analyses.shuffled import Shuffled

__all__ = ["ANALYSES"]

ANALYSES: Final[dict[str, Analysis[Any]]] = {
    analysis.name: analysis
    for analysis in (Displacement(), Fitting(), Ending(), Shuffled(), Landscape(), Finetuning(), Relabelled())
}
"""By name, in the order in which a report tells of them."""
