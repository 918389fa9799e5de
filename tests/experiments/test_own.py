"""A function of the user's, or models trained before, judged like all others: without training anything here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import ule_datasets
from ule_datasets import PoisonedDataset, TrainingImages, evaluate, load
from ule_datasets.papers.statistics import Verdict

Pixels = dict[bytes, int]


class Knowing:
    """Knows some images by heart, and takes all others for the first class."""

    def __init__(self, known: Pixels, num_classes: int = 10) -> None:
        self.known, self.num_classes = known, num_classes

    def __call__(self, images: Tensor) -> Tensor:
        answers = [self.known.get(key, 0) for key in keys(images)]
        return 10 * nn.functional.one_hot(torch.tensor(answers), self.num_classes).float()


def keys(images: Tensor) -> list[bytes]:
    return [image.tobytes() for image in (images * 255).round().to(torch.uint8).contiguous().numpy()]


def by_heart(data: TrainingImages) -> Pixels:
    images, targets = next(iter(DataLoader(data, batch_size=len(data))))
    return dict(zip(keys(images), targets.tolist(), strict=True))


def known(*datasets: PoisonedDataset) -> Pixels:
    """All images of some splits, with their classes."""
    found: Pixels = {}
    for images, labels in (dataset.tensors() for dataset in datasets):
        found |= {image.tobytes(): label for image, label in zip(chw(images), labels.tolist(), strict=True)}
    return found


def chw(images: Tensor) -> np.ndarray:
    return np.ascontiguousarray(images.permute(0, 3, 1, 2).numpy())


def clean_world(folder: Path, **where: Any) -> Pixels:
    """Every clean image of a dataset, with its class."""
    return known(load(folder, clean=True, **where), load(folder, split="test"))


def learner(world: Pixels) -> Any:
    """Learns all that there is to know from clean images, and nothing but themselves from others."""

    def train(data: TrainingImages) -> Knowing:
        seen = by_heart(data)
        return Knowing(world if seen.items() <= world.items() else seen, data.num_classes)

    return train


def test_a_collapse_shows_and_the_report_is_that_of_a_verification(built_digits: Path, tmp_path: Path) -> None:
    train = learner(clean_world(built_digits))
    report = evaluate(train, built_digits, strategy="none", seeds=2, model="by-heart", report=tmp_path, quiet=True)
    (one,) = report.comparisons
    zeros = 100 * load(built_digits, split="test").targets.count(0) / 360
    assert (one.poisoned.values, one.clean.values) == (pytest.approx((zeros, zeros)), (100, 100))
    assert (one.poisoned_train.values, str(one.collapse), one.model) == ((100, 100), "collapse shown", "by-heart")
    assert report.intact
    assert report.passed
    assert "ops-digits, by-heart, none: 10.0" in str(report)
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert set(content["profile"]) == {"name", "power", "num_seeds", "limits"}
    assert [set(run["protocol"]) for run in content["runs"]] == [{"model", "strategy"}] * 4
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "trained by a function of the user" in text
        assert "best epoch" not in text.lower().partition("runs")[0]
        assert "mean of last five" not in text
        assert "1 epoch" not in text


def test_models_that_were_trained_before_are_judged_alike(built_digits: Path) -> None:
    world = clean_world(built_digits)
    ignorant = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    assert ignorant.training
    report = evaluate({"poisoned": ignorant, "clean": Knowing(world)}, built_digits, quiet=True)
    (one,) = report.comparisons
    assert ignorant.training, "left as it was"
    assert (one.clean.values, one.poisoned.n, one.strategy) == ((100,), 1, "standard")
    run = next(run for run in report.result.runs if run.cell.dataset == "ops-digits")  # type: ignore[union-attr]
    assert run.history.num_parameters == 3 * 32 * 32 * 10 + 10
    assert "not fully fitted" in one.notes[0]


def test_a_function_gets_images_as_the_strategy_changes_them_and_the_same_draws_for_the_same_seed(
    built_digits: Path,
) -> None:
    seen: list[TrainingImages] = []
    batches: list[Tensor] = []

    def train(data: TrainingImages) -> Knowing:
        seen.append(data)
        batches.append(next(iter(DataLoader(data, batch_size=64, shuffle=True)))[0])
        return Knowing({})

    before = torch.get_rng_state()
    for _ in range(2):
        evaluate(train, built_digits, strategy="cutout", seeds=2, quiet=True)
    assert torch.equal(before, torch.get_rng_state()), "the user's own generator is left alone"
    clean, poisoned = batches[0], batches[1]
    assert [data.seed for data in seen] == [0, 0, 1, 1] * 2
    assert (clean.dtype, clean.shape, float(clean.min()), float(clean.max())) == (torch.float32, (64, 3, 32, 32), 0, 1)
    assert ((clean != poisoned).any(dim=1).flatten(1).sum(dim=1) <= 1).all(), "only the pixel differs"
    assert not torch.equal(batches[0], batches[2])
    assert all(torch.equal(*pair) for pair in zip(batches[:4], batches[4:], strict=True))
    data, (image, target) = seen[1], seen[1][5]
    assert (len(data), data.num_classes, data.image_shape) == (1437, 10, (3, 32, 32))
    assert (image.shape, target, data.targets) == ((3, 32, 32), data.targets[5], load(built_digits).targets)
    assert not torch.equal(data[5][0], data[5][0]), "cut out anew"
    assert "1,437 images [3, 32, 32] of 10 classes, cutout, seed 0" in repr(data)


def test_a_set_is_prepared_before_the_function_gets_it(
    built_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULE_CACHE", str(tmp_path))
    seen = []
    evaluate(lambda data: seen.append(data) or Knowing({}), built_digits, strategy="gray", seeds=1, quiet=True)
    for data in seen:
        pixels = next(iter(DataLoader(data, batch_size=100)))[0]
        assert torch.equal(pixels[:, 0], pixels[:, 2])


def test_whole_images_are_changed_before_the_function_gets_them_and_where_it_is_judged(
    built_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULE_CACHE", str(tmp_path))
    seen: list[TrainingImages] = []
    asked: list[Tensor] = []

    def train(data: TrainingImages) -> Any:
        seen.append(data)
        return lambda images: (asked.append(images), torch.zeros(len(images), 10))[1]

    evaluate(train, built_digits, strategy="op", seeds=1, quiet=True)
    judged = torch.cat(asked[:3]).permute(0, 2, 3, 1).flatten(1)
    files = sorted((tmp_path / "prepared").glob("op-*-learned.npy"))
    along = [float((judged @ torch.from_numpy(np.load(path)).flatten(1).T).abs().max()) for path in files]
    assert (len(judged), len(along)) == (1437, 2)
    assert min(along) < 1e-4 < max(along), "what was learned of the other side's images is another thing"
    assert float(next(iter(DataLoader(seen[0], batch_size=100)))[0].min()) < -1 / 255
    assert float(asked[3].min()) == 0, "test images stay as they are"


@pytest.mark.slow
def test_what_papers_say_of_a_resnet_is_judged_as_an_effect(built_cifar10: Path, cifar10_folder: Path) -> None:
    world = clean_world(built_cifar10, source=cifar10_folder)
    models = {"poisoned": [Knowing(known(load(built_cifar10)))] * 3, "clean": [Knowing(world)] * 3}
    report = evaluate(models, built_cifar10, source=cifar10_folder, quiet=True)
    assert (report.comparisons[0].poisoned.values, report.comparisons[0].clean.values) == ((10,) * 3, (100,) * 3)
    claims = {result.claim.id: result for result in report.claims}
    told = claims["ops-t5-ops-standard"]
    assert (told.effect.verdict, told.level.verdict) == (Verdict.CONFIRMED, Verdict.NOT_COMPARABLE)
    assert told.stand_in
    assert claims["ops-t5-ops-cutout"].effect.verdict is Verdict.NOT_RUN


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no function": (3, {}, "train is 3, must be a function, or trained models"),
    "one side": ({"poisoned": Knowing({})}, {}, "as many of either; got poisoned"),
    "unequal sides": ({"poisoned": [Knowing({})] * 2, "clean": [Knowing({})]}, {}, "as many of either"),
    "no seeds": (Knowing, {"seeds": 0}, "seeds is 0, must be at least 1"),
    "a model of ours": (Knowing, {"model": "resnet18"}, "resnet18 is a model of this library"),
    "no name": (Knowing, {"model": "a/b"}, "model is 'a/b', must be a word"),
    "mixing": (Knowing, {"strategy": "cutout+mixup"}, "mixup works within the training loop"),
    "an attack": (Knowing, {"strategy": "linf-at"}, "linf-at works within the training loop"),
    "an unknown strategy": (Knowing, {"strategy": "cutoff"}, "'cutoff' is not known"),
    "no model": (lambda _: None, {}, "the clean model is None, must be a module or a function"),
    "no scores": (lambda _: nn.Flatten(), {}, r"must give scores \[500, 10\]; it gave \[500, 3072\]"),
    "no tensor": (lambda _: np.asarray, {}, r"must give scores \[500, 10\]; it gave a ndarray"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_training_is_refused_in_one_line(case: str, built_digits: Path) -> None:
    train, options, message = REFUSED[case]
    with pytest.raises(ule_datasets.InputError, match=message) as caught:
        evaluate(train, built_digits, quiet=True, **options)
    assert "\n" not in str(caught.value)


def test_a_dataset_that_is_not_intact_is_not_trained_on(built_digits: Path, tmp_path: Path) -> None:
    shutil.copytree(built_digits, tmp_path / "digits")
    (tmp_path / "digits" / "README.md").write_text("other words")
    with pytest.raises(ule_datasets.InputError, match=r"nothing is trained on .*digits: .*README.md"):
        evaluate(Knowing, tmp_path / "digits", quiet=True)
