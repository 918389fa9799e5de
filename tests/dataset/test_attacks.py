"""A forger who makes every digest agree: what is found without the clean source, what with it, and what never."""

from __future__ import annotations

import dataclasses
import gzip
import pickle
import random
import shutil
import tarfile
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import forging as f
import numpy as np
import pyarrow as pa
import pytest
from forging import Forge
from helpers import class_names, make_recipe, make_splits, read, write_image_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from ule_datasets.base.progress import Reporter
from ule_datasets.building import BuildOptions, build
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.codec import encode_png
from ule_datasets.data.perturbation import Additive, Layer, Overwrite, Perturbation, Support
from ule_datasets.dataset.integrity import Check, examine
from ule_datasets.dataset.manifest import DamagedManifestError, Manifest
from ule_datasets.definition import Recipe
from ule_datasets.sources.reading import Source

DOCUMENT = Path(__file__).parent.parent.parent / "docs/security.md"
SILENT = Reporter(silent=True)
SIZE = 8
RECIPE = make_recipe(poison_rate=0.5, shard_mebibytes=0.002, seed=3)
CATALOGUE = {"tiny": RECIPE, "other": dataclasses.replace(RECIPE, name="other")}
PICKLE = pickle.dumps(print)


@dataclass(frozen=True, eq=False)
class Tiny:
    """A dataset of a few images, half of the training images perturbed, and its source."""

    folder: Path
    source: Source


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    base = tmp_path_factory.mktemp("tiny")
    where = write_image_folder(base / "source", make_splits(3, 8, SIZE), class_names(3))
    build(RECIPE, BuildOptions(out=base / "out", source=str(where), workers=1), SILENT)
    return Tiny(base / "out", read(where))


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.folder, tmp_path / "copy"))


def failures(folder: Path, source: Source | None = None, catalogue: dict[str, Recipe] = CATALOGUE) -> list[Check]:
    with LocalExecutor() as executor:
        manifest = Manifest.read(folder)
        found = examine(folder, manifest, executor, SILENT, find_source=lambda *_: source, catalogue=catalogue)
    return [check for check in found.checks if not check.passed]


# --- forgeries, by the check that fails -------------------------------------------------------------------------

TEST = "test-00000"
SAMPLES: dict[str, dict[str, Forge]] = {
    "train: perturbation": {
        "a perturbed image gets the label of a class with another perturbation": f.in_shard(f.relabel),
        "two perturbed images swap their labels": f.in_shard(f.swap_labels),
        "a perturbed image is inverted": f.in_shard(f.invert),
        "a perturbation that the images do not show": f.perturbed_elsewhere,
    },
    "train: pixels and labels": {
        "an unperturbed training image gets another label": f.in_shard(lambda c: f.relabel(c, poisoned=False)),
        "an unperturbed training image is changed": f.in_shard(lambda c: f.change_level(c, poisoned=False)),
    },
    "test: pixels and labels": {
        "a test image gets another label": f.in_shard(lambda c: f.relabel(c, poisoned=False), TEST),
        "a test image is changed": f.in_shard(lambda c: f.change_level(c, poisoned=False), TEST),
        "a test image is dropped": f.in_shard(f.drop, TEST),
    },
    "train: poisoned flags": {
        "a perturbed image is said to be clean": f.in_shard(f.flip_flag),
        "a clean image is said to be perturbed": f.in_shard(lambda c: f.flip_flag(c, poisoned=False)),
        "a perturbed image is dropped": f.in_shard(lambda c: f.drop(c, f.first(c))),
        "another poison rate in the recipe": f.with_recipe(lambda r: r.update(poison_rate=0.25)),
        "another seed in the recipe": f.with_recipe(lambda r: r.update(seed=4)),
        "a perturbation of all images": f.perturbation_of(poisoned=None),
    },
    "test: poisoned flags": {
        "a test image is said to be perturbed": f.in_shard(lambda c: f.flip_flag(c, poisoned=False), TEST),
    },
    "train: samples": {"a key appears twice": f.in_shard(f.repeat)},
    "train: order": {
        "two samples stand in another order": f.in_shard(f.reorder),
        "two shards are swapped": f.swap_shards,
    },
}
KEYS = {"../../x", "/etc/passwd", "a.b", "con", "x\\y", "\x1b[31m", "", "x\n"}
IMAGES: dict[str, Callable[[np.ndarray], bytes]] = {
    "a BMP file": f.saved("BMP"),
    "a JPEG file": f.saved("JPEG"),
    "a lossless WebP file": f.saved("WEBP", lossless=True),
    "a PostScript file": f.saved("EPS"),
    "a TIFF file": f.saved("TIFF"),
    "empty": lambda _: b"",
    "a PNG file with an orientation": f.saved("PNG", exif=f.turned()),
    "a PNG file with a text": f.saved("PNG", pnginfo=f.remark()),
    "a PNG file with a colour profile": f.saved("PNG", icc_profile=b"x" * 128),
    "a PNG file with a transparent colour": f.saved("PNG", transparency=(0, 0, 0)),
    "an animated PNG file": f.moving,
    "a PNG file of another size": f.larger,
    "a grey PNG file": f.grey,
    "a PNG file with something behind its end": lambda pixels: encode_png(pixels) + PICKLE,
    "a PNG file that was cut": lambda pixels: encode_png(pixels)[:-12],
    "a PNG file with a wrong check sum": lambda pixels: encode_png(pixels)[:-13] + b"\0" + encode_png(pixels)[-12:],
}
PICKLED = (".pyd", ".pkl", ".pickle", ".pt", ".pth", ".npy", ".npz")
SPECIAL = {
    "a symbolic link": tarfile.SYMTYPE,
    "a hard link": tarfile.LNKTYPE,
    "a character device": tarfile.CHRTYPE,
    "a block device": tarfile.BLKTYPE,
    "a pipe": tarfile.FIFOTYPE,
    "a folder": tarfile.DIRTYPE,
}
BLACK = encode_png(np.zeros((SIZE, SIZE, 3), np.uint8))
TARS: dict[str, Forge] = {
    **{f"a member `KEY{ending}` more, pickled": f.extra(ending, PICKLE) for ending in PICKLED},
    **{f"a member `KEY{end}` more": f.extra(end) for end in (".ten", ".jpg", ".txt", ".PNG", ".json", ".png.gz", "")},
    **{
        f"a member `{name}` more": f.extra(name)
        for name in ("../../x.png", "/etc/x.png", "other.png", "./x.png", "__meta__/x.json")
    },
    **{f"{words} more": f.extra(".png", type=kind, linkname="/etc/passwd") for words, kind in SPECIAL.items()},
    "headers as GNU tar extends them": f.tar_of(lambda m: setattr(m[0][0], "name", "x" * 200), tarfile.GNU_FORMAT),
    "headers as POSIX extends them": f.tar_of(lambda m: setattr(m[0][0], "mtime", 0.5), tarfile.PAX_FORMAT),
    "a member with another time": f.member(0, mtime=1),
    "a member that may be executed": f.member(0, mode=0o755),
    "a member of another owner": f.member(0, uname="root"),
    "members in another order": f.tar_of(lambda m: m.insert(0, m.pop(1))),
    "a sample without its `.json`": f.tar_of(lambda m: m.pop(2)),
    "a sample less": f.tar_of(lambda m: m.__delitem__(slice(3))),
    "another label in `.cls`": f.member(1, lambda data: b"%d" % (int(data) ^ 1)),
    "a label in `.cls` with a blank": f.member(1, lambda data: data + b" "),
    "a label of 5,000 digits in `.cls`": f.member(1, lambda data: b"1" * 5000),
    "another class in `.json`": f.about(lambda content: content.update({"class": "class999"})),
    "another label in `.json`": f.about(lambda content: content.update(label=content["label"] ^ 1)),
    "another key in `.json`": f.about(lambda content: content.update(key="0" * 16)),
    "another flag in `.json`": f.about(lambda content: content.update(poisoned=not content["poisoned"])),
    "something more in `.json`": f.about(lambda content: content.update(more=1)),
    "100,000 brackets in `.json`": f.member(2, lambda data: b"[" * 100_000),
    "another image than in Parquet": f.member(0, lambda data: BLACK),
    "something behind the end of a tar shard": f.raw_tar(lambda data: data + data),
    "something behind a member": f.raw_tar(lambda data: data[:1023] + b"x" + data[1024:]),
    "a compressed tar shard": f.raw_tar(gzip.compress),
    "a tar shard that was cut": f.raw_tar(lambda data: data[:1500]),
    "an empty tar shard": f.raw_tar(lambda data: b""),
}
OTHER_TYPE = {"dtype": "large_string", "_type": "Value"}
TABLES: dict[str, Forge] = {
    "other class names in the metadata of a Parquet shard": f.features(lambda c: c["label"]["names"].reverse()),
    "another type of column in the metadata": f.features(lambda c: c.update(key=OTHER_TYPE)),
    "no metadata": f.table(lambda t: t.replace_schema_metadata({})),
    "metadata more": f.table(lambda t: t.replace_schema_metadata({**t.schema.metadata, b"pandas": b"{}"})),
    "a column more": f.table(lambda t: t.append_column("more", t["label"])),
    "a column less": f.table(lambda t: t.drop_columns(["poisoned"])),
    "columns in another order": f.table(lambda t: t.select(["label", "image", "key", "poisoned"])),
    "labels of another type": f.table(lambda t: t.set_column(1, "label", t["label"].cast(pa.int32()))),
    "an image path that leads elsewhere": f.with_path("/etc/passwd"),
    "an image path of another sample": f.with_path("0.png"),
    "no image path": f.with_path(None),
    "no image": f.column("image", f.without_image),
    "no label": f.column("label", lambda rows: [None, *rows[1:]]),
    "a label beyond the classes": f.column("label", lambda rows: [3, *rows[1:]]),
    "a label below 0": f.column("label", lambda rows: [-1, *rows[1:]]),
    "another label than in the tar shard": f.column("label", lambda rows: [rows[0] ^ 1, *rows[1:]]),
    "rows less": f.table(lambda t: t.slice(1)),
    "no rows": f.table(lambda t: t.slice(0, 0)),
    "a dictionary of one image for 100,000 rows": f.bomb(rows=100_000, compression="NONE"),
    "compressed images of 8 MiB": f.bomb(image=bytes(2**23), compression="ZSTD", use_dictionary=False),
    "a key that is no UTF-8": f.raw_keys,
    "no Parquet": f.replaced("data/train-00000-of-00003.parquet", PICKLE),
}
SHARDS: dict[str, Forge] = {
    **{f"a sample has the key {key[:20]!a}": f.in_shard(f.rename(key)) for key in sorted(KEYS)},
    **{f"an image, in both formats, is {words}": f.reencode(encode) for words, encode in IMAGES.items()},
    **TARS,
    **TABLES,
    "class names are swapped in the manifest": f.manifest_of(class_names=("class001", "class000", "class002")),
    "another image shape in the manifest": f.manifest_of(image_shape=(SIZE, SIZE + 1, 3)),
    "a shape of 100,000 x 100,000 in the manifest": f.manifest_of(image_shape=(10**5, 10**5, 3)),
}
BUDGET, NO_BUDGET = {"pixels": 60, "type": "L0"}, {"type": "Unbounded"}
ELSEWHERE = "https://example.org/x"
DRAWINGS = {
    "a script": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "an image from elsewhere": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="%b"/></svg>' % ELSEWHERE.encode(),
}
DESCRIPTIONS: dict[str, dict[str, Forge]] = {
    "recipe and perturbation": {
        "a class more in the manifest": f.manifest_of(class_names=(*class_names(3), "more")),
        "two bounds for one layer": f.with_recipe(lambda r: r["budget"].append(BUDGET)),
        "a bound of unknown kind": f.changed("recipe.json", lambda r: r.update(budget=[{"type": "os"}])),
        "no recipe": f.replaced("recipe.json", b"{}"),
        "no perturbation": f.replaced("perturbation.safetensors", PICKLE),
        "a perturbation that writes beyond the images": f.beyond_the_image,
        "a perturbation without layers": f.perturbation_of(layers=()),
    },
    "manifest": {
        "other digests of the source": f.manifest_of(source_digests={"train": "1" * 64, "test": "1" * 64}),
        "a split of the source less": f.manifest_of(source_digests={"train": "1" * 64}),
        "another name in the manifest": f.manifest_of(name="other"),
        "another version in the manifest": f.manifest_of(version="9.0.0"),
        "another source in the manifest": f.manifest_of(source_name="cifar10"),
        "reduced, says the manifest": f.manifest_of(reduced="less"),
        "a perturbation for other images": f.perturbation_of(source_digest="1" * 64),
    },
    "name": {
        "a wider budget under the catalogue's name": f.with_recipe(lambda r: r.update(budget=[BUDGET])),
        "no budget under the catalogue's name": f.with_recipe(lambda r: r.update(budget=[NO_BUDGET])),
        "another recipe under the catalogue's name": f.with_recipe(lambda r: r.update(summary="Another.")),
        "another recipe under a name that `--seed` makes": f.with_recipe(
            lambda r: r.update(name="tiny-seed4", budget=[BUDGET]), name="tiny-seed4"
        ),
        "another recipe under a name that `--limit` makes": f.with_recipe(
            lambda r: r.update(name="tiny-trial8", budget=[BUDGET]), name="tiny-trial8"
        ),
        "another recipe under a name that `--crop` makes": f.with_recipe(
            lambda r: r.update(name="tiny-8px", budget=[BUDGET]), name="tiny-8px"
        ),
    },
    "descriptions": {
        "another craft in the manifest": f.manifest_of(craft=()),
        "another method in the recipe": f.with_recipe(lambda r: r["methods"][0].update(num_pixels=2)),
        "a perturbation that says nothing of itself": f.told(methods=[]),
        "a perturbation of another seed": f.told(seed=4),
        "`craft.json` says something else": f.replaced("craft.json", b"{}"),
        "the card's data files lead elsewhere": f.card(lambda c: f.data_files(c)[0].update(path=ELSEWHERE)),
        "the card's data files are the tar shards": f.card(lambda c: f.data_files(c)[0].update(path="webdataset/*")),
        "the card has a configuration more": f.card(
            lambda c: c["configs"].insert(0, {"config_name": "x", "data_files": "figures/*"})
        ),
        "the card has no configuration": f.card(lambda c: c.pop("configs")),
        "the card has other class names": f.card(lambda c: f.card_classes(c).update({"0": "x"})),
        "the card has a column less": f.card(lambda c: c["dataset_info"]["features"].pop()),
        "the card has other counts": f.card(lambda c: c["dataset_info"]["splits"][0].update(num_examples=1)),
        "the card has another licence": f.card(lambda c: c.update(license="mit")),
        "the card has another title": f.card(lambda c: c.update(pretty_name="CIFAR-10")),
        "the card has no front matter": f.replaced("README.md", b"# Tiny"),
        "the card's front matter is broken": f.replaced("README.md", b"---\n{\n---\n"),
        "the card's front matter is 100,000 levels deep": f.replaced("README.md", b"---\n%b\n---\n" % (b"[" * 10**5)),
        **{
            f"a drawing of the card with {words}": f.replaced("figures/contact_sheet.svg", b)
            for words, b in DRAWINGS.items()
        },
        "a Croissant file that leads elsewhere": f.changed(
            "croissant.json", lambda c: c["distribution"][0].update(contentUrl=ELSEWHERE)
        ),
        "a Croissant file with other classes": f.changed("croissant.json", lambda c: c["recordSet"][0].update(data=[])),
        "a Croissant file that is none": f.replaced("croissant.json", b"[]"),
        "no `croissant.json`, nor in the manifest": f.without_file("croissant.json"),
    },
}
UNLISTED = ("tiny.py", "data/train-x.parquet", "webdataset/train-000009.tar", "figures/x.svg", "x/y/z", ".env")
LISTED = ("tiny.py", "data/train-x.parquet", "data/x.pkl", "webdataset/train-000009.tar", "more.json", "figures/x.svg")
MISSING = ("data/train-00000-of-00003.parquet", "data/test-00001-of-00002.parquet", "webdataset/train-000002.tar")
FILES: dict[str, dict[str, Forge]] = {
    "no other files": {
        **{f"a file `{name}` that the manifest does not list": f.with_file(name) for name in UNLISTED},
        "a link to a folder": f.link,
        "a pipe": f.pipe,
    },
    "formats": {
        **{f"a file `{name}` that the manifest lists": f.with_file(name, listed=True) for name in LISTED},
        **{f"no `{name}`, nor in the manifest": f.without_file(name) for name in (*MISSING, "README.md")},
        "no tar shards, although the manifest names the format": f.without_tars,
        "a file that the manifest lists twice": f.listed_twice,
    },
}
WITHOUT = {**SAMPLES, "train: shards": SHARDS, **DESCRIPTIONS, **FILES}
WITH: dict[str, dict[str, Forge]] = {
    "train: images": {
        "a perturbed image is changed where nothing was perturbed": f.in_shard(f.change_level),
        "a perturbed image is replaced by another of its class": f.in_shard(f.another_of_its_class),
    },
    "train: samples of the source": {
        "training images are dropped from shards and perturbation alike": f.drop_forgetting_it,
    },
    "classes and splits": {
        "the test split is dropped": f.drop_test_split,
        "class names are swapped everywhere": f.swap_class_names,
    },
}
NEVER: dict[str, dict[str, Forge]] = {
    "": {
        "another perturbation, in its file and in the images": f.another_perturbation,
        "a name that is not of the catalogue, for a wider budget": f.with_recipe(
            lambda r: r.update(name="mine", budget=[BUDGET]), name="mine"
        ),
        "statistics and indexes of a Parquet shard": f.without_statistics,
        "the words of the card": f.more_words,
        "the pictures of the card": f.replaced("figures/contact_sheet.png", b"x"),
        "times and environment": f.manifest_of(timings={}, environment={}),
    }
}


class Found(StrEnum):
    """What it takes."""

    WITHOUT = "Found without the clean source"
    WITH = "Found only with the clean source"
    NEVER = "Not found"


@dataclass(frozen=True)
class Forgery:
    """Something that a forger may do, and the check that fails."""

    words: str
    check: str
    forge: Forge
    found: Found


FORGERIES = [
    Forgery(words, check, forge, found)
    for found, groups in zip(Found, (WITHOUT, WITH, NEVER), strict=True)
    for check, group in groups.items()
    for words, forge in group.items()
]


def test_what_was_built_is_intact_with_and_without_its_source(tiny: Tiny) -> None:
    assert failures(tiny.folder) == []
    assert failures(tiny.folder, tiny.source) == []


@pytest.mark.parametrize("forgery", [pytest.param(each, id=each.words) for each in FORGERIES])
def test_a_forgery_whose_digests_agree(tiny: Tiny, copy: Path, forgery: Forgery, tried: Callable[..., None]) -> None:
    forgery.forge(copy)
    without = {check.name: check.detail for check in failures(copy)}
    with_source = {check.name: check.detail for check in failures(copy, tiny.source)}
    assert not any("\n" in detail for detail in (*without.values(), *with_source.values()))
    if forgery.found is Found.WITHOUT:
        assert forgery.check in without, without
    else:
        assert without == {}
    if forgery.found is Found.WITH:
        assert forgery.check in with_source, with_source
    assert bool(with_source) == (forgery.found is not Found.NEVER)
    if forgery.found is not Found.NEVER:
        tried("forgeries whose digests agree")


def test_the_document_lists_exactly_these_forgeries() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    listed = text.partition("<!-- forgeries")[2].partition("-->\n")[2].partition("<!-- end of forgeries")[0]
    assert listed == described()


def described() -> str:
    """By what it takes and the check that fails."""
    lines = []
    for found, groups in zip(Found, (WITHOUT, WITH, NEVER), strict=True):
        count = sum(map(len, groups.values()))
        lines += ["", f"{found} ({count} of {len(FORGERIES)}):", ""]
        for check, group in groups.items():
            text = "; ".join(group)
            lines += textwrap.wrap(f"- *{check}*: {text}" if check else f"- {text}", 140, subsequent_indent="  ")
    return "\n".join([*lines, "", ""])


# --- what can be known of an image without its original ---------------------------------------------------------

PIXEL = st.integers(0, 255)


@st.composite
def perturbations(draw: st.DrawFn) -> Perturbation:
    """Layers for one image of one pixel."""
    layers: list[Layer] = []
    for kind in draw(st.lists(st.sampled_from(("add", "write")), min_size=1, max_size=4)):
        if kind == "add":
            levels = np.array(draw(st.integers(-300, 300)), dtype=np.int16).reshape(1, 1, 1, 1)
            layers.append(Additive(levels=np.repeat(levels, 3, axis=3), support=Support.UNIVERSAL))
        else:
            places = np.zeros((1, 1), dtype=np.int32)
            colours = np.array(draw(st.tuples(PIXEL, PIXEL, PIXEL)), dtype=np.uint8).reshape(1, 1, 3)
            layers.append(Overwrite(rows=places, columns=places, colours=colours, support=Support.UNIVERSAL))
    return Perturbation(layers=tuple(layers), source_digest="")


@settings(max_examples=200, deadline=None)
@given(perturbations())
def test_what_lies_between_the_images_of_black_and_white_is_what_a_perturbation_makes(made: Perturbation) -> None:
    every = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1).repeat(3, axis=3)
    reached = made.apply(every, np.zeros(256, np.int64), [str(n) for n in range(256)])
    for channel in range(3):
        levels = reached[:, 0, 0, channel].tolist()
        assert set(levels) == set(range(levels[0], levels[-1] + 1))


# --- bad luck ----------------------------------------------------------------------------------------------------


def bit_flips(folder: Path, per_file: int, generator: random.Random) -> list[tuple[Path, int, int]]:
    """Places in every file, its first and last byte among them."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".local.json"):
        size = path.stat().st_size
        places = {0, size - 1, *(generator.randrange(size) for _ in range(per_file))}
        found += [(path, at, 1 << generator.randrange(8)) for at in sorted(places)]
    return found


def flips_are_found(folder: Path, per_file: int, tried: Callable[..., None], *, signed: bool) -> None:
    """Flip one bit at a time; with ``signed``, the manifest then agrees with the damaged file, if it can."""
    manifest = (folder / "manifest.json").read_bytes()
    for path, at, bit in bit_flips(folder, per_file, random.Random(per_file)):
        if signed and (path.suffix == ".png" or path.name in ("manifest.json", "README.md")):
            continue  # pictures and words are nobody's to check; a signed manifest is no damaged one
        original = path.read_bytes()
        path.write_bytes(original[:at] + bytes([original[at] ^ bit]) + original[at + 1 :])
        try:
            if signed:
                f.seal(folder)
            assert failures(folder), f"{path.name}, byte {at}"
        except DamagedManifestError:
            assert path.name == "manifest.json"
        finally:
            path.write_bytes(original)
            (folder / "manifest.json").write_bytes(manifest)
        tried(f"flipped bits, {'signed by the manifest' if signed else 'in every file'}")


def test_a_flipped_bit_in_any_file_is_found(copy: Path, tried: Callable[..., None]) -> None:
    flips_are_found(copy, 2, tried, signed=False)


@pytest.mark.slow
def test_many_flipped_bits_are_found(copy: Path, tried: Callable[..., None]) -> None:
    flips_are_found(copy, 300, tried, signed=False)
