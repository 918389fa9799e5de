"""What results are filed under says what was chosen, and nothing of what is off."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ule_datasets.base.content import content


@dataclass
class Inner:
    size: int
    flip: bool = True


@dataclass
class Outer:
    inner: Inner | None
    rate: float = 0.5
    more: float = 0.0
    name: str = ""
    clip: float | None = None
    parts: tuple[Inner, ...] = ()


def test_fields_that_are_off_by_default_are_left_out_and_all_others_are_written() -> None:
    assert content(Outer(Inner(3))) == {"is": "Outer", "inner": {"is": "Inner", "size": 3, "flip": True}, "rate": 0.5}
    assert content(Outer(None)) == {"is": "Outer", "inner": None, "rate": 0.5}


def test_what_was_chosen_is_written_though_it_is_off() -> None:
    assert content(Inner(0, flip=False)) == {"is": "Inner", "size": 0, "flip": False}
    assert content(Outer(None, rate=0.0, clip=0.0)) == {"is": "Outer", "inner": None, "rate": 0.0, "clip": 0.0}


def test_functions_are_their_names_with_what_they_are_given() -> None:
    made = content(partial(Inner, 3, flip=False))
    assert made == {"is": "Inner", "arguments": [3], "flip": False}
    assert content({"parts": (Inner, 1)}) == {"parts": ["Inner", 1]}
