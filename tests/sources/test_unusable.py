"""What is wrong with images: grouped by cause, most frequent first, with what helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import class_names, encode, make_splits, run_build, write_image_folder

from ule_datasets.sources.unusable import CAUSES_SHOWN, Misfit, Unusable, by_cause, refusal, summary

FIRST = Misfit("a.png", 640, 480)


def problems(**counts: int) -> list[Unusable]:
    return [
        Unusable(f"{what}{n}.png", f" is {what}, {n} bytes") for what, count in counts.items() for n in range(count)
    ]


def test_causes_are_told_from_the_most_frequent_on() -> None:
    groups = by_cause(problems(grey=1, cut=3, empty=2))
    assert [(str(first), count) for first, count in groups] == [
        ("cut0.png is cut, 0 bytes", 3),
        ("empty0.png is empty, 0 bytes", 2),
        ("grey0.png is grey, 0 bytes", 1),
    ]
    assert summary(groups).startswith("cut0.png is cut, 0 bytes (and 2 more like it); empty0.png ")
    many = by_cause(problems(**{letter * 2: 1 for letter in "abcdefg"}))
    assert summary(many).endswith(f"; and {7 - CAUSES_SHOWN} others of other kinds")


def test_a_problem_is_the_message_and_knows_its_origin() -> None:
    assert Unusable.of("x.png", "x.png is grey") == Unusable("x.png", " is grey")
    assert str(Unusable.of("x.png", "there is no memory")) == "there is no memory"


@pytest.mark.parametrize(
    ("first", "other", "own", "cure"),
    [
        (FIRST, (300, 400), True, "--crop 224 --resize 256 brings all to one size, or resize them first"),
        (FIRST, (100, 400), True, "--crop 100 --resize 100 brings all to one size, or resize them first"),
        (FIRST, (300, 400), False, "resize all images to one size first"),
    ],
)
def test_images_of_several_sizes_are_told_how_they_come_to_have_one(
    first: Misfit, other: tuple[int, int], own: bool, cure: str
) -> None:
    told = refusal([], first, [Misfit("b.png", *other)], own=own)
    assert told == f"1 unusable sample: b.png is {other[0]}x{other[1]} pixels, a.png is 640x480; {cure}"


def test_the_cure_that_is_told_helps(tmp_path: Path) -> None:
    source = write_image_folder(tmp_path / "source", make_splits(3, 8, 8), class_names(3))
    paths = sorted((source / "train").rglob("*.png"))
    for path in paths[5:12]:
        path.write_bytes(encode(np.zeros((9, 12, 3), dtype=np.uint8)))
    for path in paths[:2]:
        path.write_text("no image")
    refused = run_build("ops", "--source", source, "--out", tmp_path / "x")
    [line] = refused.complaint
    assert line.startswith(f"ule-build: 9 unusable samples: {paths[5]} is 12x9 pixels, "), "the most frequent cause"
    assert "(and 6 more like it); " in line
    assert f"{paths[0]} is not a readable image: unknown image format (and 1 more like it); --crop 8 " in line
    assert line.endswith("; --skip-unusable leaves out the images that are not of a wrong size but broken")
    cure = ("--crop", "8", "--resize", "8", "--skip-unusable")
    built = run_build("ops", "--source", source, "--out", tmp_path / "x", *cure)
    assert built.code == 0, built.stderr
    assert "left out 2 unusable images" in built.stderr
