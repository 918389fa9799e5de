"""What made-up runs say beside their controls."""

from __future__ import annotations

import pytest
from made_up import make_history

from ule_datasets.experiments.effect import Collapse, Comparison, compare
from ule_datasets.papers.statistics import Estimate


def compared(
    clean: float, poisoned: float, *, chance: float = 10.0, train: float = 100.0, num_test: int = 2_000
) -> Comparison:
    runs = [make_history(clean)], [make_history(poisoned, train=train)]
    return compare(*runs, dataset="d", control="c", chance=chance, num_test=num_test)


@pytest.mark.parametrize(
    ("clean", "poisoned", "expected"),
    [
        (60.0, 10.0, Collapse.SHOWN),
        (60.0, 22.5, Collapse.SHOWN),
        (60.0, 22.6, Collapse.PARTIAL),
        (60.0, 35.0, Collapse.PARTIAL),
        (60.0, 35.1, Collapse.NOT_SHOWN),
        (94.0, 52.0, Collapse.PARTIAL),
        (94.0, 52.1, Collapse.NOT_SHOWN),
        (94.0, 31.0, Collapse.SHOWN),
        (94.0, 31.1, Collapse.PARTIAL),
        (60.0, 60.0, Collapse.NOT_SHOWN),
        (60.0, 99.0, Collapse.NOT_SHOWN),
        (32.5, 10.0, Collapse.NOT_SHOWN),
        (35.0, 10.0, Collapse.SHOWN),
        (35.0, 10.1, Collapse.NOT_SHOWN),
        (32.4, 5.0, Collapse.INCONCLUSIVE),
        (10.0, 10.0, Collapse.INCONCLUSIVE),
        (5.0, 0.0, Collapse.INCONCLUSIVE),
    ],
)
def test_a_collapse_is_far_below_the_control_and_near_chance(clean: float, poisoned: float, expected: Collapse) -> None:
    assert compared(clean, poisoned).collapse is expected


def test_chance_depends_on_the_number_of_classes() -> None:
    assert compared(70.0, 25.0, chance=10.0).collapse is Collapse.SHOWN
    assert compared(70.0, 25.0, chance=1.0).collapse is Collapse.PARTIAL
    assert compared(60.0, 50.0, chance=50.0).collapse is Collapse.INCONCLUSIVE


def test_a_control_that_did_not_learn_is_named() -> None:
    assert compared(20.0, 5.0).notes == (
        "the control did not learn: 20.0 % clean test accuracy, at least 32.5 % needed",
    )


def test_a_shortcut_that_is_not_fitted_is_noted_and_does_not_change_the_outcome() -> None:
    fitted, half = compared(60.0, 10.0, train=90.0), compared(60.0, 10.0, train=89.9)
    assert fitted.collapse is half.collapse is Collapse.SHOWN
    assert fitted.fully_fitted
    assert fitted.notes == ()
    assert not half.fully_fitted
    assert half.notes == ("not fully fitted: 89.9 % training accuracy on the poisoned images, below 90 %",)


def test_nothing_follows_from_few_test_images() -> None:
    assert compared(60.0, 10.0, num_test=100).collapse is compared(60.0, 10.0).collapse is Collapse.SHOWN
    for poisoned in (10.0, 30.0, 60.0):
        few = compared(60.0, poisoned, num_test=99)
        assert few.collapse is Collapse.INCONCLUSIVE
        assert few.notes == ("tested on 99 images: at least 100 are needed for a verdict",)


@pytest.mark.parametrize("kind", ["clean", "poisoned"])
def test_a_run_that_broke_is_never_a_collapse(kind: str) -> None:
    clean = [make_history(60.0), make_history(60.0, seed=1, finite=kind != "clean")]
    poisoned = [make_history(10.0), make_history(10.0, seed=1, finite=kind != "poisoned")]
    comparison = compare(clean, poisoned, dataset="d", control="c", chance=10.0, num_test=2_000)
    assert comparison.collapse is Collapse.INCONCLUSIVE
    assert comparison.notes == ("seed 1: the loss was not finite in epoch 1, training stopped",)


def test_several_seeds_are_judged_on_their_means() -> None:
    clean = [make_history(value, seed=seed) for seed, value in enumerate((58.0, 60.0, 62.0))]
    poisoned = [make_history(value, seed=seed) for seed, value in enumerate((10.0, 10.0, 40.0))]
    comparison = compare(clean, poisoned, dataset="d", control="c", chance=10.0, num_test=2_000)
    assert comparison.collapse is Collapse.SHOWN
    assert (comparison.clean.mean, comparison.clean.sd) == (60.0, 2.0)
    assert comparison.poisoned.mean == 20.0
    assert comparison.clean.percent == "60.0 ± 2.0 %"


def test_the_last_epoch_counts_and_the_best_is_shown_beside_it() -> None:
    clean, poisoned = [make_history(50.0, 60.0)], [make_history(55.0, 12.0, train=[60.0, 99.0], strategy="cutout")]
    comparison = compare(clean, poisoned, dataset="mine", control="theirs", chance=10.0, num_test=2_000)
    assert comparison.collapse is Collapse.SHOWN
    assert (comparison.poisoned.values, comparison.poisoned_best.values) == ((12.0,), (55.0,))
    assert comparison.poisoned_train.values == (99.0,)
    assert (comparison.dataset, comparison.control) == ("mine", "theirs")
    assert (comparison.model, comparison.strategy) == ("resnet18-w8", "cutout")


def test_a_single_run_has_no_deviation() -> None:
    assert Estimate((12.34,)).sd is None
    assert Estimate((12.34,)).percent == "12.3 %"
