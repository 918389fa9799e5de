"""Every random choice depends on seed, purpose and key alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ule_datasets.base.seeds import Seed


@given(st.integers(0, 10**9), st.integers(1, 1000))
def test_integers_lie_below_their_bound_and_repeat(value: int, below: int) -> None:
    drawn = Seed(value).integer(below, "test")
    assert 0 <= drawn < below
    assert drawn == Seed(value).integer(below, "test")


def test_integers_are_uniform() -> None:
    counts = np.bincount([Seed(0).integer(5, "uniform", index) for index in range(5000)], minlength=5)
    assert counts.min() > 900


def test_purposes_and_seeds_are_independent() -> None:
    assert Seed(0).bytes(8, "a") != Seed(0).bytes(8, "b")
    assert Seed(0).bytes(8, "a") != Seed(1).bytes(8, "a")
    assert Seed(1).bytes(8, "1") != Seed(11).bytes(8, "")


def test_known_values_never_change() -> None:
    """A published dataset depends on them."""
    assert Seed(0).bytes(8, "golden").hex() == "fda6f144f7935191"
    assert Seed(7).integer(1000, "golden") == 379


@given(st.lists(st.text("abcdef0123456789", min_size=1, max_size=4), unique=True, max_size=30), st.randoms())
def test_order_of_keys_does_not_depend_on_how_they_are_given(keys: list[str], random: object) -> None:
    shuffled = list(keys)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    order = [keys[i] for i in Seed(0).order(keys, "p")]
    assert [shuffled[i] for i in Seed(0).order(shuffled, "p")] == order
    half = keys[::2]
    assert [half[i] for i in Seed(0).order(half, "p")] == [key for key in order if key in half]
