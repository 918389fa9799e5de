"""All victims by name.

Each is a frozen dataclass in a module of its own beside this one, and a row here; ``Victim`` says what it promises, and
``tests/victims/test_victim_contract.py`` holds it to that.
"""

from __future__ import annotations

from ule_datasets.models.architectures import MODELS
from ule_datasets.models.weights import WEIGHTS
from ule_datasets.victims.fine_tuned import FineTuned
from ule_datasets.victims.protocol import AdamW, Sgd
from ule_datasets.victims.supervised import Supervised
from ule_datasets.victims.victim import Victim

QUICK = Sgd(learning_rate=0.2, momentum=0.85, weight_decay=1.33e-3, nesterov=True)
"""Of the quick reference network, chosen with it (``benchmarks/quick_study.py``)."""

_ROWS: tuple[Victim, ...] = (
    *(Supervised(name=name) for name in MODELS),
    # The OPS paper trains these with another batch size or optimiser than all others.
    Supervised(name="wrn-28-10", batch_size=64),
    Supervised(name="cvt-7-4", optimiser=AdamW()),
    Supervised(name="cct-7-3x1", optimiser=AdamW()),
    Supervised(name="quicknet", batch_size=256, optimiser=QUICK),
    *(FineTuned(weights=weights) for weights in WEIGHTS.values()),
)

VICTIMS: dict[str, Victim] = {victim.name: victim for victim in _ROWS}
"""Every victim by its name; of two rows with one name the later counts."""


def starts_trained(name: str) -> bool:
    """Whether a victim of that name starts from trained weights; not so where there is none."""
    return name in VICTIMS and VICTIMS[name].weights is not None


def known_victims() -> str:
    """The names, for people."""
    random = [name for name in VICTIMS if not starts_trained(name)]
    return f"{', '.join(random)}, or from trained weights {', '.join(filter(starts_trained, VICTIMS))}"
