"""Finished crafts are found again, by the same version for the same images; the cache keeps itself small and intact."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import numpy as np
import pytest

from ule_datasets.base.files import ABANDONED, cache_folder
from ule_datasets.data.perturbation import Additive, Perturbation, Support
from ule_datasets.packaging.crafting import CraftCache

SOURCE, OTHER_SOURCE = "5" * 64, "6" * 64
DAY = 86_400.0


def digest(letter: str) -> str:
    """A craft's digest."""
    return letter * 64


def perturbation(level: int = 1, *, source: str = SOURCE, size: int = 4) -> Perturbation:
    levels = np.full((1, size, size, 3), level, dtype=np.int8)
    layer = Additive(levels=levels, support=Support.UNIVERSAL)
    return Perturbation(layers=(layer,), source_digest=source, about={"level": level})


def used(cache: CraftCache, letter: str, days_ago: float) -> None:
    moment = time.time() - days_ago * DAY
    os.utime(cache.path(digest(letter), SOURCE), (moment, moment))


def letters(cache: CraftCache) -> str:
    """The crafts that are kept."""
    return "".join(sorted(path.name[0] for path in cache.folder.glob("*.safetensors")))


def test_a_craft_is_found_again_under_its_digest_and_its_images(tmp_path: Path) -> None:
    cache = CraftCache(tmp_path / "deep" / "cache")
    assert cache.get(digest("a"), SOURCE) is None
    cache.put(digest("a"), perturbation(3))
    found = CraftCache(cache.folder).get(digest("a"), SOURCE)
    assert found is not None
    assert found.digest == perturbation(3).digest
    assert found.about == {"level": 3}
    assert cache.get(digest("b"), SOURCE) is None
    assert cache.get(digest("a"), OTHER_SOURCE) is None
    assert [path.name for path in cache.folder.iterdir()] == [cache.path(digest("a"), SOURCE).name]


def test_one_method_on_two_sets_of_images_is_kept_twice(tmp_path: Path) -> None:
    cache = CraftCache(tmp_path)
    for level, source in ((1, SOURCE), (2, OTHER_SOURCE)):
        cache.put(digest("a"), perturbation(level, source=source))
    found = [cache.get(digest("a"), source) for source in (SOURCE, OTHER_SOURCE)]
    assert [each.about["level"] for each in found if each] == [1, 2]


def test_a_craft_put_again_replaces_the_one_before(tmp_path: Path) -> None:
    cache = CraftCache(tmp_path)
    for level in (1, 2):
        cache.put(digest("a"), perturbation(level))
    found = cache.get(digest("a"), SOURCE)
    assert found is not None
    assert found.about == {"level": 2}
    assert letters(cache) == "a"


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_file_is_deleted_and_counts_as_absent(tmp_path: Path, damage: str) -> None:
    cache = CraftCache(tmp_path)
    for letter in "ab":
        cache.put(digest(letter), perturbation())
    path = cache.path(digest("a"), SOURCE)
    content = path.read_bytes()
    path.write_bytes({"truncated": content[:-9], "flipped": content[:-1] + b"\x7f", "empty": b""}[damage])
    assert cache.get(digest("a"), SOURCE) is None
    assert letters(cache) == "b"


def test_a_file_for_other_images_under_a_name_of_ours_is_not_taken(tmp_path: Path) -> None:
    cache = CraftCache(tmp_path)
    cache.put(digest("a"), perturbation(source=OTHER_SOURCE))
    cache.path(digest("a"), OTHER_SOURCE).rename(cache.path(digest("a"), SOURCE))
    assert cache.get(digest("a"), SOURCE) is None


def test_a_craft_of_other_settings_under_a_name_of_ours_is_not_taken(tmp_path: Path) -> None:
    cache = CraftCache(tmp_path)
    cache.put(digest("a"), perturbation())
    cache.path(digest("a"), SOURCE).rename(cache.path(digest("b"), SOURCE))
    assert cache.get(digest("b"), SOURCE) is None


def test_what_a_kept_craft_says_about_itself_cannot_be_changed(tmp_path: Path) -> None:
    cache = CraftCache(tmp_path)
    cache.put(digest("a"), perturbation(3))
    path = cache.path(digest("a"), SOURCE)
    path.write_bytes(path.read_bytes().replace(b'level\\": 3', b'level\\": 4'))
    assert Perturbation.load(path).about["level"] == 4
    assert cache.get(digest("a"), SOURCE) is None


@pytest.mark.parametrize(("craft", "taken"), [("a", True), ("b", False), ("", False)])
def test_a_craft_without_a_seal_is_taken_where_it_says_that_it_is_this_one(
    tmp_path: Path, craft: str, taken: bool
) -> None:
    """As earlier versions kept them: hours of work."""
    cache = CraftCache(tmp_path)
    methods = [{"identifier": "x", "craft_digest": digest(craft), "num_layers": 1, "repeats": "device", "notes": {}}]
    kept = dataclasses.replace(perturbation(), about={"methods": methods} if craft else {})
    kept.save(cache.path(digest("a"), SOURCE))
    assert (cache.get(digest("a"), SOURCE) is not None) == taken


def test_another_version_of_the_library_crafts_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = CraftCache(tmp_path)
    cache.put(digest("a"), perturbation(1))
    with monkeypatch.context() as patched:
        patched.setattr("ule_datasets.packaging.crafting.__version__", "99.0.0")
        assert cache.get(digest("a"), SOURCE) is None
        cache.put(digest("a"), perturbation(2))
    found = cache.get(digest("a"), SOURCE)
    assert found is not None
    assert found.about == {"level": 1}
    assert letters(cache) == "aa"


def size_of_one(folder: Path) -> int:
    cache = CraftCache(folder / "measured")
    cache.put(digest("a"), perturbation())
    return cache.path(digest("a"), SOURCE).stat().st_size


def test_what_was_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    cache = CraftCache(tmp_path / "cache", largest=3 * size_of_one(tmp_path))
    for letter, days_ago in (("a", 3.0), ("b", 2.0), ("c", 1.0)):
        cache.put(digest(letter), perturbation())
        used(cache, letter, days_ago)
    assert letters(cache) == "abc"
    cache.put(digest("d"), perturbation())
    assert letters(cache) == "bcd"


def test_being_found_counts_as_use(tmp_path: Path) -> None:
    cache = CraftCache(tmp_path / "cache", largest=2 * size_of_one(tmp_path))
    for letter, days_ago in (("a", 2.0), ("b", 1.0)):
        cache.put(digest(letter), perturbation())
        used(cache, letter, days_ago)
    assert cache.get(digest("a"), SOURCE) is not None
    cache.put(digest("c"), perturbation())
    assert letters(cache) == "ac"


def test_the_newest_is_kept_even_where_it_is_larger_than_the_cache(tmp_path: Path) -> None:
    cache = CraftCache(tmp_path, largest=10)
    for letter in "ab":
        cache.put(digest(letter), perturbation(size=32))
        assert letters(cache) == letter
        assert cache.get(digest(letter), SOURCE) is not None


def test_the_newest_is_kept_even_where_the_clock_was_set_back(tmp_path: Path) -> None:
    cache = CraftCache(tmp_path / "cache", largest=size_of_one(tmp_path))
    cache.put(digest("a"), perturbation())
    used(cache, "a", days_ago=-30)
    cache.put(digest("b"), perturbation())
    assert letters(cache) == "b"


def test_files_left_half_written_are_removed_once_they_are_old(tmp_path: Path) -> None:
    cache = CraftCache(tmp_path)
    old, young = (tmp_path / f".{name}.safetensors.123.partial" for name in ("old", "young"))
    for path, age in ((old, ABANDONED + 60), (young, ABANDONED - 60)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age, time.time() - age))
    cache.put(digest("a"), perturbation())
    assert not old.exists()
    assert young.exists(), "its process may still be writing"


def test_files_of_others_are_left_alone_when_room_is_made(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine" * 1000)
    CraftCache(tmp_path, largest=10).put(digest("a"), perturbation())
    assert (tmp_path / "notes.txt").exists()


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = CraftCache(tmp_path)
    write = Path.write_bytes

    def fail_half_way(self: Path, content: bytes) -> int:
        write(self, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail_half_way)
    with pytest.raises(OSError, match="No space left"):
        cache.put(digest("a"), perturbation())
    assert list(tmp_path.iterdir()) == []
    assert cache.get(digest("a"), SOURCE) is None


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"ULE_CACHE": "/some/where", "XDG_CACHE_HOME": "/xdg"}, Path("/some/where")),
        ({"ULE_CACHE": "~/mine"}, Path("/home/me/mine")),
        ({"XDG_CACHE_HOME": "/xdg"}, Path("/xdg/ule-datasets")),
        ({"ULE_CACHE": "", "XDG_CACHE_HOME": ""}, Path("/home/me/.cache/ule-datasets")),
        ({}, Path("/home/me/.cache/ule-datasets")),
    ],
)
def test_the_folder_is_the_one_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: Path
) -> None:
    for name in ("ULE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == expected
