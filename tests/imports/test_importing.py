"""From what others have released to a dataset: by the command, for images of any kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import Samples, class_names, encode, make_splits, run_build, write_image_folder

import ule_datasets
from ule_datasets.base.errors import InputError
from ule_datasets.base.options import PublishOptions
from ule_datasets.cli.verify import main as verify
from ule_datasets.dataset.loading import load
from ule_datasets.imports.reading import release_digest
from ule_datasets.interface.recipes import find_recipe
from ule_datasets.packaging.publication import plan_publication

SPLITS = make_splits(10, 6, 32)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "source", SPLITS, class_names(10))


def released_images(samples: Samples, levels: int = 8) -> np.ndarray:
    noise = np.random.default_rng(0).integers(-levels, levels + 1, samples.images.shape)
    return np.clip(samples.images + noise, 0, 255).astype(np.uint8)


def write_pngs(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir()
    order = np.random.default_rng(1).permutation(len(images))
    for number, image in enumerate(images[order]):
        (folder / f"{number}.png").write_bytes(encode(image))
    return folder


@pytest.fixture
def pngs(tmp_path: Path) -> Path:
    return write_pngs(tmp_path / "released", released_images(SPLITS["train"]))


def test_images_without_labels_become_a_dataset_that_passes_its_checks(
    source: Path, pngs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ULE_CACHE", str(tmp_path / "cache"))
    outcome = run_build("imported", "--import", str(pngs), "--source", str(source))
    assert outcome.code == 0, outcome.stderr
    name = f"imported-{release_digest(pngs)[:8]}"
    folder = tmp_path / "datasets" / name
    assert "import: 60 image files without labels; l_inf 8/255" in outcome.stderr
    assert "Imported perturbation: crafted before, taken from" in outcome.stderr
    train = load(folder)
    images, labels = train.tensors()
    released = released_images(SPLITS["train"])
    assert sorted(map(bytes, images.numpy())) == sorted(map(bytes, released)), "exactly the released pixels"
    labelled = {bytes(image): label for image, label in zip(released, SPLITS["train"].labels.tolist(), strict=True)}
    assert [labelled[bytes(image)] for image in images.numpy()] == labels.tolist(), "with the labels of the originals"

    recipe = json.loads((folder / "recipe.json").read_text())
    assert recipe["methods"] == [{"type": "Imported", "bound": 8, "sha256": release_digest(pngs)}]
    assert recipe["budget"] == [{"levels": 8, "type": "LInf"}]
    (craft,) = json.loads((folder / "manifest.json").read_text())["craft"]
    assert craft["imported"]["file_name"] == "released"
    assert craft["imported"]["not_sure"] == craft["imported"]["clean_without_release"] == 0
    card = (folder / "README.md").read_text(encoding="utf-8")
    for line in ("| file | `released` |", f"| sha256 | `{release_digest(pngs)}` |", "| bound (note) | l_inf 8/255"):
        assert line in card
    assert verify([str(folder), "--integrity-only", "--source", str(source)]) == 0

    again = run_build("imported", "--import", str(pngs), "--source", str(source))
    assert "finished earlier" in again.stdout
    (pngs / "0.png").write_bytes((pngs / "1.png").read_bytes())
    other = run_build("imported", "--import", str(pngs), "--source", str(source))
    assert other.code == 2
    assert "1 of 60 images have no original of their own among the 60 clean ones: 1.png" in other.stderr


def test_some_images_may_be_missing_and_stay_clean(source: Path, pngs: Path, tmp_path: Path) -> None:
    for number in (0, 7):
        (pngs / f"{number}.png").unlink()
    words = ("imported", "--import", str(pngs), "--source", str(source), "--out", str(tmp_path / "out"), "--no-cache")
    outcome = run_build(*words)
    assert outcome.code == 0, outcome.stderr
    clean, found = set(map(bytes, SPLITS["train"].images)), load(tmp_path / "out").tensors()[0].numpy()
    assert sum(bytes(image) in clean for image in found) == 2


def test_a_recipe_that_has_the_digest_takes_no_other_release(source: Path, pngs: Path, tmp_path: Path) -> None:
    text = f"""
from ule_datasets.methods.imported import Imported
from builders import RECIPES
from dataclasses import replace
RECIPE = replace(RECIPES["imported"], name="theirs", methods=(Imported(sha256="{release_digest(pngs)}", bound=8),))
"""
    (tmp_path / "theirs.py").write_text(text)
    words = (str(tmp_path / "theirs.py"), "--source", str(source), "--out", str(tmp_path / "out"), "--no-cache")
    missing = run_build(*words)
    assert missing.code == 2
    assert "give the released file or folder with --import" in missing.stderr
    assert run_build(*words, "--import", str(pngs)).code == 0
    (pngs / "0.png").unlink()
    other = run_build(*words, "--import", str(pngs), "--overwrite")
    assert other.code == 2
    assert "is not what this recipe imports: its sha256 is" in other.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["imported"], "imported is for what others have released: name the file or folder with --import"),
        (["imported", "--import", "nowhere"], "--import nowhere: no such file or folder"),
        (["imported", "--import", "empty"], "nothing that is read here; there are readers for image files"),
        (["imported", "--import", "words"], "nothing that is read here, but a.txt"),
        (["lsp", "--import", "empty"], "lsp imports nothing; --import is for imported-cifar10"),
        (["imported", "--import", "broken"], "cannot be decoded"),
        (["imported", "--import", "sizes"], "1.png has 16 x 16 pixels, others 32 x 32"),
        (["imported", "--import", "small"], "has images of 16 x 16 x 3 values, the clean images have 32 x 32 x 3"),
    ],
)
def test_what_cannot_be_imported_is_refused_in_a_line(
    words: list[str], told: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image, small = (np.zeros((size, size, 3), np.uint8) for size in (32, 16))
    files: dict[str, dict[str, bytes]] = {
        "empty": {},
        "words": {"a.txt": b"a"},
        "broken": {"0.png": encode(image)[:60]},
        "sizes": {"0.png": encode(image), "1.png": encode(small)},
        "small": {"0.png": encode(small)},
    }
    for name, content in files.items():
        (tmp_path / name).mkdir()
        for file, data in content.items():
            (tmp_path / name / file).write_bytes(data)
    outcome = run_build(*words, "--source", str(source), "--out", str(tmp_path / "out"))
    assert outcome.code == 2
    assert told in outcome.stderr
    assert len(outcome.complaint) == 1
    assert not (tmp_path / "out").exists()


def test_it_is_not_published_without_a_licence(source: Path, pngs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("imported", "--import", str(pngs), "--source", str(source), "--out", str(out), "--no-cache")
    assert run_build(*words).code == 0
    digest = release_digest(pngs)
    text = f"""
from ule_datasets.methods.imported import Imported
from builders import RECIPES
RECIPE = RECIPES["imported"].with_settled(0, Imported(sha256="{digest}", bound=8), "{digest}")
"""
    (tmp_path / "mine.py").write_text(text)
    recipe = find_recipe(str(tmp_path / "mine.py"))
    with pytest.raises(InputError, match="is not published: nothing says that what others released may be passed on"):
        plan_publication(recipe, out, PublishOptions())


def test_the_digest_of_a_folder_is_that_of_what_sha256sum_prints(tmp_path: Path) -> None:
    import hashlib

    (tmp_path / "b").mkdir()
    for name in ("b/1", "a"):
        (tmp_path / name).write_bytes(name.encode())
    before = release_digest(tmp_path)
    lines = [f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n" for name in ("a", "b/1")]
    assert before == hashlib.sha256("".join(lines).encode()).hexdigest()
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert release_digest(tmp_path) == before
    assert release_digest(tmp_path / "a") == hashlib.sha256(b"a").hexdigest()


def test_it_is_imported_from_python_too(
    source: Path, pngs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ULE_CACHE", str(tmp_path / "cache"))
    result = ule_datasets.build("imported", source=source, release=pngs, quiet=True)
    assert result.place == f"datasets/imported-{release_digest(pngs)[:8]}"
    assert "bound" in str(result.manifest.craft[0]["imported"]["lint"])
