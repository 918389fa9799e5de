"""A run is another one when what it used changes, and stays the same whatever else comes or goes."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import run_python
from made_up import PROTOCOL, make_task

from ule_datasets.countermeasures import COUNTERMEASURES, parse_strategy
from ule_datasets.experiments import identity
from ule_datasets.models.architectures import MODELS

LENET, FINE_TUNED = ("lenet5", "cutout"), ("resnet20@cifar10", "standard")


def identity_of(model: str, strategy: str) -> str:
    protocol = dataclasses.replace(PROTOCOL, model=model, strategy=parse_strategy(strategy))
    return make_task(protocol=protocol).identity


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the code that is digested."""
    folder = shutil.copytree(identity.ROOT, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(identity, "ROOT", folder)
    identity._code.cache_clear()
    yield folder
    identity._code.cache_clear()


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    identity._code.cache_clear()


def test_code_is_the_same_wherever_it_is(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = identity_of(*LENET)
    monkeypatch.undo()
    identity._code.cache_clear()
    assert identity_of(*LENET) == there


@pytest.mark.parametrize(
    ("place", "old", "new"),
    [
        ("victims/loop.py", "WINDOWS = 5\n", "WINDOWS = 5  # five\n"),
        ("victims/loop.py", "WINDOWS = 5\n", "\n\n# of them\nWINDOWS = 5\n"),
        ("victims/loop.py", '"""The one training loop', '"""Our training loop'),
        ("victims/loop.py", "Train a model from where it is", "Makes a model"),
        ("victims/history.py", "Whether the loss stayed finite", "If it is finite"),
        ("victims/history.py", '"""Counted from 1."""', ""),
        ("countermeasures/cutout.py", "Side of the square in pixels", "How wide"),
        ("models/lenet.py", '"""', '"""Five layers. '),
    ],
)
def test_comments_and_docstrings_make_no_other_run(copy: Path, place: str, old: str, new: str) -> None:
    before = identity_of(*LENET)
    change(copy / place, old, new)
    assert identity_of(*LENET) == before


@pytest.mark.parametrize(
    ("place", "old", "new"),
    [
        ("victims/loop.py", "WINDOWS = 5\n", "WINDOWS = 6\n"),
        ("victims/loop.py", "losses.sum() * (self.ranks / whole)", "losses.sum() / whole"),
        ("victims/protocol.py", "end + (start - end)", "end - (start - end)"),
        ("victims/augmentation.py", "pad, pad, pad, pad", "pad, pad, pad, 0"),
        ("base/seeds.py", '"ule"', '"ulf"'),
        ("compute/devices.py", "cudnn.benchmark = False", "cudnn.benchmark = True"),
        ("models/initialisation.py", "manual_seed(seed)", "manual_seed(seed + 1)"),
        ("countermeasures/cutout.py", "size: int = 16", "size: int = 8"),
        ("models/lenet.py", "nn.Conv2d(3, 6, 5)", "nn.Conv2d(3, 8, 5)"),
        ("models/sizes.py", "SMALL: Final = 32", "SMALL: Final = 0"),
    ],
)
def test_other_code_that_was_used_makes_another_run(copy: Path, place: str, old: str, new: str) -> None:
    before = identity_of(*LENET)
    change(copy / place, old, new)
    assert identity_of(*LENET) != before


@pytest.mark.parametrize(
    ("place", "old", "new"),
    [
        ("countermeasures/mixing.py", "alpha: float = 1.0", "alpha: float = 0.5"),
        ("countermeasures/adversarial.py", "steps: int = 10", "steps: int = 7"),
        ("models/densenet.py", "nn.Linear(", "nn.Bilinear("),
        ("models/pretrained.py", "(images - self.mean)", "(images + self.mean)"),
        ("victims/fine_tuned.py", "learning_rate=0.001", "learning_rate=0.002"),
        ("base/progress.py", "SECONDS_BETWEEN_LINES", "SECONDS"),
        ("compute/executor.py", "AHEAD = 16", "AHEAD = 8"),
        ("compute/pauses.py", '_OWN = "own."', '_OWN = "mine."'),
        ("compute/parts.py", "part.copy_(", "part.add_("),
        ("base/checkpoint.py", "BETWEEN_CHECKPOINTS = 60.0", "BETWEEN_CHECKPOINTS = 6.0"),
        ("experiments/unfinished.py", "FORMAT = 1", "FORMAT = 2"),
    ],
)
def test_code_that_was_not_used_makes_no_other_run(copy: Path, place: str, old: str, new: str) -> None:
    before = identity_of(*LENET)
    change(copy / place, old, new)
    assert identity_of(*LENET) == before


@pytest.mark.parametrize(
    ("place", "old", "new"),
    [
        ("models/pretrained.py", "(images - self.mean)", "(images + self.mean)"),
        ("models/states.py", "weights_only=True", "weights_only=False"),
        ("models/cifar_resnet.py", "bias=False", "bias=True"),
        ("victims/victim.py", "functional.cross_entropy(", "functional.nll_loss("),
    ],
)
def test_a_fine_tuned_run_used_its_architecture_and_what_reads_weights(
    copy: Path, place: str, old: str, new: str
) -> None:
    before = identity_of(*FINE_TUNED)
    change(copy / place, old, new)
    assert identity_of(*FINE_TUNED) != before


LATER = [
    ("victims/strategy.py", "return np.empty(0, dtype=np.float32)", "return np.ones(1, dtype=np.float32)"),
    ("victims/loop.py", "self._images = Seen(", "self._images = 1 * Seen("),
    ("victims/seen.py", "images.round()", "images.floor()"),
    ("countermeasures/projection.py", "_EPOCHS, _MILESTONES, _DROP = 20", "_EPOCHS, _MILESTONES, _DROP = 2"),
]


@pytest.mark.parametrize(("place", "old", "new"), LATER)
def test_a_hook_that_came_later_belongs_to_runs_that_have_it(copy: Path, place: str, old: str, new: str) -> None:
    """Others are filed as before it came: neither its default nor what is done for it is their code."""
    runs = [("lenet5", strategy) for strategy in ("none", "cutout", "jpeg+mixup", "op", "op-released+cutout")]
    before = [identity_of(*run) for run in runs]
    change(copy / place, old, new)
    after = [identity_of(*run) for run in runs]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, True, True, False, False]


def test_runs_without_later_hooks_are_filed_as_if_there_were_none(copy: Path) -> None:
    before = identity_of(*LENET)
    for place, old in (
        ("victims/strategy.py", re.compile(r"    def (learn|on_levels)\(.*?return [^\n]*\n\n", re.DOTALL)),
        (
            "victims/loop.py",
            re.compile(r"        if protocol.strategy.having\(\"on_levels\"\):\n.*?\n(?=        self)"),
        ),
        ("victims/loop.py", re.compile(r"from ule_datasets.victims.seen import Seen\n")),
    ):
        text, count = old.subn("", (copy / place).read_text())
        assert count
        (copy / place).write_text(text)
    (copy / "victims" / "seen.py").unlink()
    identity._code.cache_clear()
    assert identity_of(*LENET) == before
    assert identity_of("lenet5", "op") != before


@pytest.mark.parametrize(
    ("place", "field", "more"),
    [
        ("countermeasures/cutout.py", "    size: int = 16\n", "    colour: float = 0.0\n"),
        ("victims/protocol.py", "    batch_size: int = 128\n", "    more: str | None = None\n"),
        ("victims/strategy.py", "    augmentation: Augmentation\n", "    off: bool = False\n"),
    ],
)
def test_a_field_that_is_off_by_default_is_no_other_code(copy: Path, place: str, field: str, more: str) -> None:
    before = identity_of(*LENET)
    change(copy / place, field, field + more)
    assert identity_of(*LENET) == before


ALL = """
import sys
sys.path[:0] = [{copy!r}, {tests!r}]
from made_up import PROTOCOL, make_task
import dataclasses
from ule_datasets.countermeasures import COUNTERMEASURES, parse_strategy
from ule_datasets.victims.table import VICTIMS
for model in VICTIMS:
    if model.endswith(("@imagenet", "@openai")):
        continue
    for kind in COUNTERMEASURES:
        strategy = kind.word + ("-eps1" if kind.word == "l2-at" else "")
        protocol = dataclasses.replace(PROTOCOL, model=model, strategy=parse_strategy(strategy))
        print(model, strategy, make_task(protocol=protocol).identity)
"""

NEW_COUNTERMEASURE = """
from dataclasses import dataclass
from ule_datasets.victims.strategy import Countermeasure

@dataclass(frozen=True, kw_only=True, slots=True)
class Noise(Countermeasure):
    word, source = "noise", "nobody"
"""

NEW_WEIGHTS = """
        Weights(
            name="resnet20@digits", architecture="resnet20", num_outputs=10, origin="file:a", sha256="01234567",
            mean=IMAGENET_MEAN, std=IMAGENET_STD,
        ),
"""

NEW_VICTIM = """
from dataclasses import dataclass
from ule_datasets.victims.supervised import Supervised

@dataclass(frozen=True, kw_only=True, slots=True)
class Gentle(Supervised):
    def losses(self, outputs, labels):
        return Supervised.losses(self, outputs, labels) / 2

    @property
    def architecture(self):
        return "lenet5"
"""


def test_new_countermeasures_models_and_victims_change_no_other_run(tmp_path: Path) -> None:
    """Each in a file of its own and a row in the table of its room; fields of the protocol that are off."""
    library = shutil.copytree(identity.ROOT, tmp_path / "ule_datasets", ignore=shutil.ignore_patterns("__pycache__"))
    program = ALL.format(copy=str(tmp_path), tests=str(Path(__file__).parents[1]))

    def identities() -> list[str]:
        done = run_python(program)
        assert done.code == 0, done.stderr
        return done.stdout.splitlines()

    before = identities()
    assert len({line.split()[-1] for line in before}) == len(before) == (len(MODELS) + 2) * len(COUNTERMEASURES)
    (library / "countermeasures" / "noise.py").write_text(NEW_COUNTERMEASURE)
    table = library / "countermeasures" / "__init__.py"
    change(table, "import Final\n", "import Final\nfrom ule_datasets.countermeasures.noise import Noise\n")
    change(table, "    CutMix,\n", "    CutMix,\n    Noise,\n")
    (library / "models" / "tiny.py").write_text("from torch import nn\n\nclass Tiny(nn.Linear):\n    pass\n")
    table = library / "models" / "architectures.py"
    change(table, "import torch\n", "import torch\nfrom ule_datasets.models.tiny import Tiny\n")
    change(table, "ModelFactory] = {", "ModelFactory] = {'tiny': Tiny,")
    table = library / "models" / "weights.py"
    row = '        _as_imagenet(\n            name="resnet20@cifar10",\n'
    change(table, row, NEW_WEIGHTS + row)
    (library / "victims" / "gentle.py").write_text(NEW_VICTIM)
    table = library / "victims" / "table.py"
    change(table, "import AdamW, Sgd\n", "import AdamW, Sgd\nfrom ule_datasets.victims.gentle import Gentle\n")
    change(table, "_ROWS: tuple[Victim, ...] = (\n", "_ROWS: tuple[Victim, ...] = (\n    Gentle(name='gentle'),\n")
    field = "    batch_size: int = 128\n"
    change(library / "victims" / "protocol.py", field, field + "    probe: int = 0\n")
    after = identities()
    assert set(before) < set(after)
    assert len(after) == (len(MODELS) + 5) * (len(COUNTERMEASURES) + 1)
