"""Measuring the effect: the judgement on made-up histories, and whole measurements of tiny images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from ule_datasets import effect as effect_module
from ule_datasets.augmentation import Augmentation
from ule_datasets.effect import (
    PROFILES,
    DataKind,
    Effect,
    EffectData,
    Judgement,
    Profile,
    RunTask,
    Summary,
    Verdict,
    judge,
    measure_effect,
)
from ule_datasets.errors import InputError
from ule_datasets.executor import LocalExecutor
from ule_datasets.progress import Reporter
from ule_datasets.training import EpochRecord, RunHistory, TrainingProtocol

TINY = Profile(
    name="tiny",
    model="resnet18-w8",
    epochs=2,
    max_train_images=40,
    max_test_images=12,
    num_seeds=1,
    limits="Only for tests.",
)


@pytest.fixture(autouse=True)
def one_thread_per_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """More threads than free processors make tiny models slow."""
    monkeypatch.setattr(effect_module, "available_cpus", lambda: 1)


class Listener(Reporter):
    """Keeps what is said instead of writing it."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.warned: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)


def history(test: float, *, train: float = 100.0, seed: int = 0, finite: bool = True) -> RunHistory:
    """A run of one epoch with this outcome."""
    protocol = TrainingProtocol(model="resnet18-w8", epochs=1, augmentation=Augmentation(crop_padding=0, flip=False))
    record = EpochRecord(
        epoch=1, train_loss=0.1 if finite else None, train_accuracy=train, test_accuracy=test, seconds=1.0
    )
    return RunHistory(protocol=protocol, seed=seed, device="x", threads=1, epochs=(record,), seconds=1.0)


def verdict_of(clean: float, poisoned: float, *, chance: float = 10.0, train: float = 100.0) -> Judgement:
    return judge("none", [history(clean)], [history(poisoned, train=train)], chance=chance)


def data(*, poison: bool = True, flippable: bool = True, fingerprint: str = "a") -> EffectData:
    """Noise in two classes; poisoned images carry their label in a pixel."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 50)
    clean = generator.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    poisoned = clean.copy()
    if poison:
        poisoned[:, 0, 0] = 255 * labels[:, None]
    return EffectData(
        poisoned_images=poisoned,
        clean_images=clean,
        labels=labels,
        test_images=clean[:20],
        test_labels=labels[:20],
        num_classes=2,
        flippable=flippable,
        fingerprint=fingerprint,
    )


def measure(
    folder: Path, given: EffectData | None = None, *, seeds: Sequence[int] = (0,), workers: int = 1
) -> tuple[Effect, Listener]:
    listener = Listener()
    with LocalExecutor(workers, preload=("ule_datasets.training",)) as executor:
        effect = measure_effect(
            given or data(),
            profile=TINY,
            seeds=seeds,
            device=torch.device("cpu"),
            executor=executor,
            reporter=listener,
            runs_folder=folder,
            collapse_expected=True,
        )
    return effect, listener


@pytest.mark.parametrize(
    ("clean", "poisoned", "expected"),
    [
        (60.0, 10.0, Verdict.SHOWN),
        (60.0, 22.5, Verdict.SHOWN),
        (60.0, 22.6, Verdict.PARTIAL),
        (60.0, 35.0, Verdict.PARTIAL),
        (60.0, 35.1, Verdict.NOT_SHOWN),
        (94.0, 52.0, Verdict.PARTIAL),
        (94.0, 52.1, Verdict.NOT_SHOWN),
        (94.0, 31.0, Verdict.SHOWN),
        (94.0, 31.1, Verdict.PARTIAL),
        (60.0, 60.0, Verdict.NOT_SHOWN),
        (32.5, 10.0, Verdict.NOT_SHOWN),
        (35.0, 10.0, Verdict.SHOWN),
        (35.0, 10.1, Verdict.NOT_SHOWN),
        (32.4, 5.0, Verdict.INCONCLUSIVE),
        (10.0, 10.0, Verdict.INCONCLUSIVE),
    ],
)
def test_a_collapse_is_far_below_the_control_and_near_chance(clean: float, poisoned: float, expected: Verdict) -> None:
    assert verdict_of(clean, poisoned).verdict is expected


def test_chance_depends_on_the_number_of_classes() -> None:
    assert verdict_of(70.0, 25.0, chance=10.0).verdict is Verdict.SHOWN
    assert verdict_of(70.0, 25.0, chance=1.0).verdict is Verdict.PARTIAL
    assert verdict_of(60.0, 50.0, chance=50.0).verdict is Verdict.INCONCLUSIVE


def test_a_control_that_did_not_learn_is_named() -> None:
    assert verdict_of(20.0, 5.0).notes == (
        "the control did not learn: 20.0 % clean test accuracy, at least 32.5 % needed",
    )


def test_a_shortcut_that_is_not_fitted_is_noted_and_does_not_change_the_verdict() -> None:
    fitted, half = verdict_of(60.0, 10.0, train=90.0), verdict_of(60.0, 10.0, train=89.9)
    assert fitted.verdict is half.verdict is Verdict.SHOWN
    assert fitted.fully_fitted
    assert fitted.notes == ()
    assert not half.fully_fitted
    assert half.notes == ("not fully fitted: 89.9 % training accuracy on the poisoned images, below 90 %",)


@pytest.mark.parametrize("kind", ["clean", "poisoned"])
def test_a_run_that_broke_is_never_a_collapse(kind: str) -> None:
    clean = [history(60.0), history(60.0, seed=1, finite=kind != "clean")]
    poisoned = [history(10.0), history(10.0, seed=1, finite=kind != "poisoned")]
    judgement = judge("none", clean, poisoned, chance=10.0)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.notes == ("seed 1: the loss was not finite in epoch 1, training stopped",)


def test_several_seeds_are_judged_on_their_means() -> None:
    clean = [history(value, seed=seed) for seed, value in enumerate((58.0, 60.0, 62.0))]
    poisoned = [history(value, seed=seed) for seed, value in enumerate((10.0, 10.0, 40.0))]
    judgement = judge("crop", clean, poisoned, chance=10.0)
    assert judgement.verdict is Verdict.SHOWN
    assert (judgement.clean.mean, judgement.clean.sd) == (60.0, 2.0)
    assert judgement.poisoned.mean == 20.0
    assert str(judgement.clean) == "60.0 ± 2.0 %"


def test_a_single_run_has_no_deviation() -> None:
    assert Summary(values=(12.34,)).sd is None
    assert str(Summary(values=(12.34,))) == "12.3 %"


def test_the_smoke_profile_trains_without_augmentation_and_with_the_usual_one() -> None:
    smoke = PROFILES["smoke"]
    assert [str(p.augmentation) for p in smoke.protocols(flippable=True)] == ["none", "crop+flip"]
    assert [str(p.augmentation) for p in smoke.protocols(flippable=False)] == ["none", "crop"]
    usual = smoke.protocols(flippable=True)[1]
    assert (usual.augmentation.crop_padding, usual.epochs, usual.batch_size, usual.model) == (4, 10, 128, "resnet18-w8")


def test_poisoned_images_and_control_are_trained_under_every_augmentation_and_seed(tmp_path: Path) -> None:
    effect, listener = measure(tmp_path, seeds=(0, 7))
    found = [(run.kind.value, run.augmentation, run.history.seed) for run in effect.runs]
    assert sorted(found) == sorted(
        (k, a, s) for k in ("clean", "poisoned") for a in ("none", "crop+flip") for s in (0, 7)
    )
    assert (effect.num_train, effect.num_test, effect.chance) == (40, 12, 50.0)
    assert (effect.augmentations, effect.seeds) == (("none", "crop+flip"), (0, 7))
    assert [len(effect.histories(DataKind.CLEAN, name)) for name in effect.augmentations] == [2, 2]
    assert all(len(run.history.epochs) == TINY.epochs for run in effect.runs)
    assert "8 runs of resnet18-w8, 2 epochs on 40 images each" in listener.said[0]
    assert "going by the time of a few steps" in listener.said[1]
    assert len(listener.said) == 2 + 8


def test_equal_images_give_equal_histories_because_seeds_are_shared(tmp_path: Path) -> None:
    effect, _ = measure(tmp_path, data(poison=False))
    for name in effect.augmentations:
        assert effect.histories(DataKind.CLEAN, name) == effect.histories(DataKind.POISONED, name)


def test_finished_runs_are_used_again_and_only_missing_ones_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = measure(tmp_path)
    files = sorted(tmp_path.iterdir())
    assert [path.suffix for path in files] == [".json"] * 4
    files[0].unlink()
    trained: list[str] = []
    original = effect_module.run_task

    def counting(task: RunTask) -> RunHistory:
        trained.append(task.result.name)
        return original(task)

    monkeypatch.setattr(effect_module, "run_task", counting)
    second, listener = measure(tmp_path)
    assert trained == [files[0].name]
    assert sum(run.reused for run in second.runs) == 3
    assert sum("reusing a finished run" in line for line in listener.said) == 3
    assert [run.history for run in second.runs] == [run.history for run in first.runs]


def test_an_interruption_keeps_the_runs_that_were_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = effect_module.run_task

    def interrupted(task: RunTask) -> RunHistory:
        if len(list(tmp_path.glob("*.json"))) == 2:
            raise KeyboardInterrupt
        return original(task)

    monkeypatch.setattr(effect_module, "run_task", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 2
    assert not list(tmp_path.glob("*.log"))
    monkeypatch.setattr(effect_module, "run_task", original)
    effect, _ = measure(tmp_path)
    assert [run.reused for run in effect.runs] == [True, True, False, False]


def test_a_damaged_run_is_named_and_trained_again(tmp_path: Path) -> None:
    first, _ = measure(tmp_path)
    damaged = min(tmp_path.iterdir())
    damaged.write_text(damaged.read_text()[:100])
    second, listener = measure(tmp_path)
    assert len(listener.warned) == 1
    assert damaged.name in listener.warned[0]
    assert [run.history for run in second.runs] == [run.history for run in first.runs]
    assert sum(run.reused for run in second.runs) == 3


def test_runs_of_other_data_or_seeds_are_not_used(tmp_path: Path) -> None:
    measure(tmp_path)
    for given, seeds in ((data(fingerprint="b"), (0,)), (data(), (1,))):
        effect, _ = measure(tmp_path, given, seeds=seeds)
        assert not any(run.reused for run in effect.runs)


def test_runs_in_other_processes_show_their_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(effect_module, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr("ule_datasets.progress.SECONDS_BETWEEN_LINES", 0.0)
    effect, listener = measure(tmp_path, workers=2)
    assert [len(run.history.epochs) for run in effect.runs] == [2] * 4
    assert any(line.startswith("training: ") and " of 8 epochs" in line for line in listener.said)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json"] * 4


def test_the_callers_number_of_threads_is_left_alone(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    measure(tmp_path)
    assert torch.get_num_threads() == before


def made_up(poisoned: dict[str, float], *, expected: bool) -> Effect:
    """Controls at 60 %, poisoned models as given for each augmentation."""
    augmentations = {
        "none": Augmentation(crop_padding=0, flip=False),
        "crop+flip": Augmentation(crop_padding=4, flip=True),
    }
    runs = []
    for name, accuracy in poisoned.items():
        for kind, value in ((DataKind.CLEAN, 60.0), (DataKind.POISONED, accuracy)):
            run = history(value)
            protocol = dataclasses.replace(run.protocol, augmentation=augmentations[name])
            runs.append(effect_module.Run(kind=kind, history=dataclasses.replace(run, protocol=protocol), reused=False))
    return Effect(profile=TINY, num_classes=10, num_train=1, num_test=1, collapse_expected=expected, runs=tuple(runs))


def test_the_summary_says_what_was_shown_where() -> None:
    effect = made_up({"none": 10.0, "crop+flip": 50.0}, expected=True)
    assert effect.summary == "Collapse shown under no augmentation; collapse not shown under crop+flip."
    assert effect.under(Verdict.SHOWN) == ("none",)
    assert effect.as_expected
    both = made_up({"none": 10.0, "crop+flip": 12.0}, expected=True)
    assert both.summary == "Collapse shown under no augmentation and crop+flip."


def test_an_expected_collapse_that_is_not_shown_anywhere_fails() -> None:
    assert not made_up({"none": 50.0, "crop+flip": 50.0}, expected=True).as_expected
    assert made_up({"none": 50.0, "crop+flip": 50.0}, expected=False).as_expected


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_seeds_are_given_and_distinct(seeds: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give at least one, each once"):
        measure(tmp_path, seeds=seeds)


def test_poisoned_and_clean_images_must_be_the_same_rows() -> None:
    given = data()
    with pytest.raises(InputError, match="the control needs the same rows"):
        dataclasses.replace(given, clean_images=given.clean_images[:-1])
