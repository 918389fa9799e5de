"""The lint finds what is wrong with a release, in every convention, and nothing where nothing is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from released import CONVENTIONS, ORDERED, SPLITS, Poison, class_noise, poison, sample_noise, source_split

from ule_datasets.base.progress import Reporter
from ule_datasets.cli.verify import main as verify
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.split import Split, sample_digest
from ule_datasets.imports.evidence import gather
from ule_datasets.imports.lint import Finding, Severity, lint
from ule_datasets.imports.reading import NOTHING, read_release
from ule_datasets.imports.release import Stated


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return source_split(tmp_path_factory.mktemp("source"))


def test_split() -> Split:
    images, labels = SPLITS["test"]
    digests = [sample_digest(image, label) for image, label in zip(images, labels.tolist(), strict=True)]
    return Split.from_samples("test", images, labels, digests)


test_split.__test__ = False  # type: ignore[attr-defined]


def findings(path: Path, split: Split | None, stated: Stated | None = None) -> tuple[Finding, ...]:
    with LocalExecutor() as executor:
        release = read_release(path, executor, Reporter(silent=True), stated or NOTHING)
    return lint(gather(release, path.name, stated or NOTHING, split, test_split() if split else None))


def bad(found: tuple[Finding, ...]) -> set[str]:
    return {finding.check for finding in found if finding.severity is not Severity.NOTE}


# --- damages ---


def without_signs(good: Poison) -> Poison:
    return again(np.maximum(good.levels, 0), good)


def black_class(good: Poison) -> Poison:
    levels, images = good.levels.copy(), good.images.copy()
    images[good.labels == 3] = 0
    levels[3 if len(levels) == 10 else (good.labels == 3 if len(levels) > 10 else 1)] = 0
    return Poison(levels, images, good.labels)


def outliers(good: Poison) -> Poison:
    levels = good.levels.copy()
    levels[len(levels) // 2] = np.where(levels[len(levels) // 2] >= 0, 40, -40)
    return again(levels, good)


def copies(good: Poison) -> Poison:
    levels, images = good.levels.copy(), good.images.copy()
    levels[1], images[1] = levels[0], images[0]
    return Poison(levels, images, good.labels)


def class_wise(good: Poison) -> Poison:
    return again(class_noise()[good.labels], good)


def in_another_order(good: Poison) -> Poison:
    order = np.random.default_rng(2).permutation(len(good.levels))
    return Poison(good.levels[order], good.images, good.labels)


def rounded_down(good: Poison) -> Poison:
    return again(np.floor(good.levels - 0.5).astype(np.int16), good)


def of_nothing(good: Poison) -> Poison:
    images = good.images.copy()
    images[4] = np.random.default_rng(3).integers(0, 256, images[4].shape)
    return Poison(good.levels, images, good.labels)


def of_a_test_image(good: Poison) -> Poison:
    images = good.images.copy()
    images[4] = np.clip(SPLITS["test"].images[2].astype(int) + good.levels[4], 0, 255)
    return Poison(good.levels, images, good.labels)


def again(levels: np.ndarray, good: Poison) -> Poison:
    return Poison.of(levels) if len(levels) == len(good.images) else Poison(levels, good.images, good.labels)


Damage = tuple[Callable[[Poison], Poison], str]
DAMAGES: dict[str, tuple[Damage, ...]] = {
    "samples": (
        (without_signs, "sign"),
        (black_class, "constant"),
        (outliers, "bound"),
        (class_wise, "support"),
        (in_another_order, "order"),
    ),
    "images": (
        (without_signs, "sign"),
        (black_class, "constant"),
        (class_wise, "support"),
        (of_nothing, "originals"),
        (of_a_test_image, "test images"),
    ),
    "classes": (
        (without_signs, "sign"),
        (black_class, "constant"),
        (outliers, "bound"),
        (copies, "copies"),
        (rounded_down, "rounding"),
    ),
}
DAMAGES["groups"] = DAMAGES["classes"]
CASES = [(name, *damage) for name, convention in CONVENTIONS.items() for damage in DAMAGES[convention.kind]]


@pytest.mark.parametrize("name", CONVENTIONS)
def test_nothing_is_wrong_with_what_is_not_damaged(name: str, split: Split, tmp_path: Path) -> None:
    convention = CONVENTIONS[name]
    found = findings(convention.write(tmp_path, poison(convention.kind)), split, convention.stated)
    assert not bad(found), found
    assert any("l_inf 8/255" in finding.text for finding in found)


@pytest.mark.parametrize(("name", "damage", "check"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_five_damages_are_found_in_every_convention(
    name: str, damage: Callable[[Poison], Poison], check: str, split: Split, tmp_path: Path
) -> None:
    convention = CONVENTIONS[name]
    found = findings(convention.write(tmp_path, damage(poison(convention.kind))), split, convention.stated)
    assert check in bad(found), found
    assert all("\n" not in finding.text for finding in found)


# --- single checks ---


def write(path: Path, array: np.ndarray) -> Path:
    np.save(path / "a.npy", array)
    return path / "a.npy"


def test_numbers_that_are_none_are_named(split: Split, tmp_path: Path) -> None:
    noise = sample_noise() / 255
    noise[5, 0, 0, 0], noise[7, 1, 1, 1] = np.nan, np.inf
    found = findings(write(tmp_path, noise), split)
    text = "NaN or infinities in 2 entries (entry 5, entry 7)"
    assert found[0] == Finding(check="numbers", severity=Severity.ERROR, text=text, entries=(5, 7))


def test_noise_in_bytes_whose_signs_have_wrapped_is_known(tmp_path: Path) -> None:
    found = findings(write(tmp_path, sample_noise().astype(np.int8).view(np.uint8)), None)
    assert "whose negative values have wrapped" in " ".join(finding.text for finding in found)


def test_labels_of_other_classes_are_found(split: Split, tmp_path: Path) -> None:
    labels = ORDERED.labels.copy()
    labels[[3, 9]] = (labels[[3, 9]] + 1) % 10
    np.savez(tmp_path / "a.npz", images=poison("images").images, labels=labels)
    (finding,) = [each for each in findings(tmp_path / "a.npz", split) if each.check == "labels"]
    assert finding.text.startswith("2 images (entry 3, entry 9) with labels of other classes")
    np.savez(tmp_path / "b.npz", images=poison("images").images, labels=(ORDERED.labels + 1) % 10)
    (finding,) = [each for each in findings(tmp_path / "b.npz", split) if each.check == "labels"]
    assert finding.severity is Severity.WARNING
    assert "its classes have other numbers: 0 is 9" in finding.text


def test_what_is_called_class_wise_and_is_not_is_found(split: Split, tmp_path: Path) -> None:
    np.save(tmp_path / "class_wise.npy", sample_noise())
    found = findings(tmp_path / "class_wise.npy", split)
    assert "it is called class-wise, and images of a class have different noise" in found[0].text


def write_test_images(path: Path, images: np.ndarray, *, folders: bool) -> Path:
    """Poisoned training images, and test images beside them."""
    if not folders:
        np.savez(path / "a.npz", x_train=poison("images").images, x_test=images.astype(np.float32) / 255)
        return path / "a.npz"
    CONVENTIONS["class folders"].write(path, poison("images")).rename(path / "train")
    CONVENTIONS["numbered files"].write(path, Poison(images, images, images)).rename(path / "test")
    return path


@pytest.mark.parametrize("folders", [False, True])
def test_test_images_that_were_changed_are_counted(folders: bool, split: Split, tmp_path: Path) -> None:
    images = SPLITS["test"].images.copy()
    good, changed = tmp_path / "good", tmp_path / "changed"
    for folder in (good, changed):
        folder.mkdir()
    found = findings(write_test_images(good, images, folders=folders), split)
    assert not bad(found)
    assert "40 released test images, all as the clean ones" in [finding.text for finding in found]
    images[[2, 7]] ^= 3
    (finding,) = [
        f for f in findings(write_test_images(changed, images, folders=folders), split) if f.check == "test images"
    ]
    assert finding.text == "2 of 40 released test images are not as the clean ones"


def test_images_that_are_missing_are_counted(split: Split, tmp_path: Path) -> None:
    found = findings(write(tmp_path, poison("images").images[3:]), split)
    assert [f.text for f in found if f.severity is Severity.WARNING] == ["3 of 80 clean images not there"]


def test_without_clean_images_the_file_alone_is_checked(tmp_path: Path) -> None:
    assert bad(findings(write(tmp_path, np.maximum(sample_noise(), 0)), None)) == {"sign"}
    images = poison("images").images.copy()
    images[2] = 7
    assert bad(findings(write(tmp_path, images), None)) == {"constant"}


# --- the command ---


def test_the_command_writes_a_page_with_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source_split(tmp_path / "source")
    damaged = black_class(poison("images"))
    path = CONVENTIONS["numbered files"].write(tmp_path, damaged)
    words = ["--lint", str(path), "--source", str(tmp_path / "source"), "--workers", "1"]
    assert verify([*words, "--report", str(tmp_path / "report")]) == 1
    told = capsys.readouterr().out
    assert "pngs: 80 image files without labels, held against " in told
    assert "error   constant: 8 images (3.png" in told or "error   constant: 8 images (" in told
    page = (tmp_path / "report" / "lint.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") > 12
    assert "Something is wrong with it." in page


def test_a_recipe_states_what_the_file_does_not_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source_split(tmp_path / "source")
    path = CONVENTIONS["checkpoint"].write(tmp_path, poison("samples"))
    words = ["--lint", str(path), "--source", str(tmp_path / "source"), "--report", str(tmp_path / "report")]
    assert verify([*words, "--workers", "1"]) == 2
    assert "in units of its bound" in capsys.readouterr().err
    (tmp_path / "mine.py").write_text(
        """
from dataclasses import replace
from builders import RECIPES
from ule_datasets.imports.release import Stated
from ule_datasets.methods.imported import Imported
RECIPE = replace(RECIPES["imported"], name="mine", methods=(Imported(stated=Stated(epsilon=8)),))
"""
    )
    assert verify([str(tmp_path / "mine.py"), *words, "--workers", "1"]) == 0
    assert "l_inf 8/255" in capsys.readouterr().out
    assert verify(["a", "b", *words]) == 2
    assert "--lint checks one release" in capsys.readouterr().err
