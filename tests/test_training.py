"""The training loop on tiny images: it learns, repeats, keeps to itself, and says when it breaks."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from ule_datasets.augmentation import Augmentation
from ule_datasets.errors import InputError
from ule_datasets.seeds import Seed
from ule_datasets.training import (
    EpochRecord,
    OneCycle,
    RunHistory,
    TrainingData,
    TrainingProtocol,
    _Run,
    deterministic_algorithms,
    pick_device,
    time_run,
    train,
)

CPU = torch.device("cpu")
NONE = Augmentation(crop_padding=0, flip=False)
PROTOCOL = TrainingProtocol(model="resnet18-w8", epochs=2, augmentation=Augmentation(crop_padding=1, flip=True))


pytestmark = pytest.mark.usefixtures("one_thread")


def bright_or_dark(count: int = 96, seed: int = 0) -> TrainingData:
    """Two classes that differ in brightness, 8 x 8 pixels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, count)
    noise = generator.integers(0, 100, (count, 8, 8, 3))
    images = (noise + 120 * labels[:, None, None, None]).astype(np.uint8)
    test = slice(0, 24)
    return TrainingData(images=images, labels=labels, test_images=images[test], test_labels=labels[test], num_classes=2)


def run(data: TrainingData | None = None, *, seed: int = 0, **changes: object) -> RunHistory:
    protocol = dataclasses.replace(PROTOCOL, **changes)  # type: ignore[arg-type]
    data = data or bright_or_dark()
    return train(data, protocol=protocol, seed=seed, device=CPU, on_epoch=lambda record: None)


def test_it_learns_two_easy_classes() -> None:
    history = run(epochs=6, batch_size=16)
    assert history.last.train_accuracy > 95
    assert history.last.test_accuracy > 95
    assert history.epochs[0].train_loss is not None
    assert history.last.train_loss is not None
    assert history.last.train_loss < history.epochs[0].train_loss


def test_shuffled_labels_are_not_learned() -> None:
    data = bright_or_dark(192)
    labels = np.random.default_rng(1).permutation(data.labels)
    history = run(dataclasses.replace(data, labels=labels), epochs=4, batch_size=16)
    assert history.last.train_accuracy < 75


def test_the_same_seed_gives_the_same_history_and_another_seed_another() -> None:
    assert run(seed=3) == run(seed=3)
    assert run(seed=3).epochs != run(seed=4).epochs


def test_no_global_random_state_is_used_or_changed() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = run()
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(2)
    assert run() == first


def test_torch_settings_are_restored() -> None:
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark

    def fail_inside() -> None:
        with deterministic_algorithms():
            assert torch.are_deterministic_algorithms_enabled()
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before


def test_initialisation_and_order_depend_on_the_seed_and_not_on_the_images() -> None:
    data = bright_or_dark()
    other = dataclasses.replace(data, images=255 - data.images)
    first, second = (_Run(d, PROTOCOL, Seed(5), CPU) for d in (data, other))
    pairs = zip(first._model.parameters(), second._model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert all(torch.equal(a, b) for a, b in zip(first.batches(), second.batches(), strict=True))


def test_every_epoch_is_reported_as_it_ends() -> None:
    seen: list[EpochRecord] = []
    history = train(bright_or_dark(), protocol=PROTOCOL, seed=0, device=CPU, on_epoch=seen.append)
    assert tuple(seen) == history.epochs
    assert [record.epoch for record in seen] == [1, 2]


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [(96, 32, [32, 32, 32]), (90, 32, [32, 32, 26]), (65, 32, [32, 33]), (20, 32, [20]), (33, 32, [33])],
)
def test_the_last_batch_is_kept_and_a_single_image_joins_the_one_before(
    count: int, size: int, expected: list[int]
) -> None:
    state = _Run(bright_or_dark(count), dataclasses.replace(PROTOCOL, batch_size=size), Seed(0), CPU)
    batches = state.batches()
    assert [len(batch) for batch in batches] == expected
    assert len(batches) == state._steps_per_epoch
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    assert not torch.equal(torch.cat(batches), torch.cat(state.batches())), "every epoch has its own order"


def test_all_test_images_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bright_or_dark()
    whole = run(data)
    monkeypatch.setattr("ule_datasets.training.EVALUATION_BATCH", 7)
    assert run(data).last.test_accuracy == whole.last.test_accuracy
    assert (whole.last.test_accuracy * 24 / 100) == pytest.approx(round(whole.last.test_accuracy * 24 / 100))


def test_a_loss_that_is_not_finite_ends_the_run_and_shows_in_its_history() -> None:
    history = run(epochs=3, batch_size=16, peak_learning_rate=1e30)
    assert not history.finite
    assert history.last.train_loss is None
    assert len(history.epochs) < 3
    assert "NaN" not in history.to_json()
    assert RunHistory.from_json(history.to_json(), history.protocol) == history


def test_one_cycle_rises_to_the_peak_and_falls_to_nearly_nothing() -> None:
    factors = [OneCycle().factor(step, 1000) for step in range(1001)]
    assert factors[0] == pytest.approx(1 / 25)
    assert factors[300] == 1.0
    assert factors[1000] == pytest.approx(1 / 250_000)
    assert factors[150] == pytest.approx((1 + 1 / 25) / 2)
    assert factors[:301] == sorted(factors[:301])
    assert factors[300:] == sorted(factors[300:], reverse=True)


def test_one_cycle_is_the_one_of_torch() -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=101, cycle_momentum=False)
    for step in range(101):
        # torch counts its warm-up to step 0.3 * 101 - 1, and ends at the last step instead of after it
        assert OneCycle().factor(step, 100) == pytest.approx(theirs.get_last_lr()[0] / 0.1, abs=0.03)
        optimiser.step()
        theirs.step() if step < 100 else None


def test_a_history_survives_json() -> None:
    history = run()
    again = RunHistory.from_json(history.to_json(), PROTOCOL)
    assert again == history
    assert again.seconds == history.seconds
    assert json.loads(history.to_json())["protocol"]["augmentation"] == {"crop_padding": 1, "flip": True}


@pytest.mark.parametrize("text", ["{}", "[]", "torn", '{"protocol": 1}'])
def test_something_else_is_not_read_as_a_history(text: str) -> None:
    with pytest.raises(InputError, match="not the history of such a run"):
        RunHistory.from_json(text, PROTOCOL)


def test_a_history_of_another_protocol_is_refused() -> None:
    other = dataclasses.replace(PROTOCOL, epochs=3)
    with pytest.raises(InputError, match="another protocol"):
        RunHistory.from_json(run().to_json(), other)


def test_last_and_best_epoch_are_told_apart() -> None:
    accuracies = (20.0, 60.0, 60.0, 30.0)
    epochs = tuple(
        EpochRecord(epoch=i, train_loss=1.0, train_accuracy=50.0, test_accuracy=a, seconds=0.0)
        for i, a in enumerate(accuracies, start=1)
    )
    history = RunHistory(protocol=PROTOCOL, seed=0, device="x", threads=1, epochs=epochs, seconds=0.0)
    assert (history.last.epoch, history.best.epoch) == (4, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((96, 8, 8, 3), np.float32)}, r"training images are float32 \[96, 8, 8, 3\]"),
        ({"labels": np.zeros(5, np.int64)}, r"96 training images with labels int64 \[5\]"),
        ({"labels": np.full(96, 2)}, r"training labels lie in 2 .. 2; expected 0 .. 1"),
        ({"test_images": np.zeros((0, 8, 8, 3), np.uint8), "test_labels": np.zeros(0, np.int64)}, "0 test images"),
    ],
)
def test_unsuitable_data_is_refused(changes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(bright_or_dark(), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("field", "value"), [("epochs", 0), ("batch_size", 1)])
def test_an_impossible_protocol_is_refused(field: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{field} is {value}, must be at least"):
        TrainingProtocol(**{"model": "resnet18-w8", "epochs": 1, "augmentation": NONE, field: value})  # type: ignore[arg-type]


def test_an_unknown_device_names_the_known_ones() -> None:
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type in ("cpu", "cuda")
    with pytest.raises(InputError, match=r"device 'tpu': on this machine it can be auto, cpu"):
        pick_device("tpu")


def test_a_run_is_timed_before_it_starts() -> None:
    data, once = bright_or_dark(), dataclasses.replace(PROTOCOL, epochs=1)
    short = time_run(data, protocol=once, device=CPU)
    long = time_run(data, protocol=dataclasses.replace(PROTOCOL, epochs=1000), device=CPU)
    assert 0 < short < 5
    assert long > 100 * short


@pytest.mark.gpu
def test_a_gpu_repeats_itself() -> None:
    device, data = torch.device("cuda"), bright_or_dark()
    first, second = (
        train(data, protocol=PROTOCOL, seed=0, device=device, on_epoch=lambda record: None) for _ in range(2)
    )
    assert first == second
