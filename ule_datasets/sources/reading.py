"""Clean images from wherever they are: one call, the same samples, keys and order from every form."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.base.regular import open_file
from ule_datasets.base.signatures import HEAD, mistaken
from ule_datasets.compute.executor import Executor
from ule_datasets.data.codec import max_pixels
from ule_datasets.data.split import Split
from ule_datasets.places import hub
from ule_datasets.places.remote_path import RemotePath
from ule_datasets.places.urls import is_remote, shown
from ule_datasets.sources import cifar_batches, digits, image_folder, imagenet, parquet, webdataset
from ule_datasets.sources.collect import Findings, collect, contents
from ule_datasets.sources.decode import UNWANTED, ChunkTask, Decoded, decode_chunk
from ule_datasets.sources.forms import SINGLE_FILES, UNLABELLED, Form, Place, Wanted
from ule_datasets.sources.identity import Identity
from ule_datasets.sources.spec import SourceSpec
from ule_datasets.sources.tree import Tree, walk

LOCATIONS = (
    "hub:OWNER/NAME, digits, or a folder or file (Parquet, WebDataset tar, image folder, cifar-10-batches-py "
    "or its archive), here or (but for cifar-10-batches-py) at a URL such as s3://BUCKET/FOLDER"
)
SUFFIXES_LOOKED_AT = 20
"""At most; a file of each is looked into where there are no images."""
FORMS: dict[str, Callable[[Tree, Wanted], Form | None]] = {
    "cifar batches": cifar_batches.find,
    "parquet": parquet.find,
    "webdataset": webdataset.find,
    "image folder": image_folder.find,
}
"""How each form of files is read."""


@dataclass(frozen=True, slots=True)
class Source:
    """Clean images, checked to be the ones that the recipe names."""

    spec: SourceSpec
    location: str
    kind: str
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    """``train``, and ``test`` where the source has one."""
    findings: Findings = field(default_factory=Findings)
    """What is remarkable about the images."""

    @property
    def train(self) -> Split:
        """The training split."""
        return self.splits["train"]

    @property
    def identity(self) -> Identity:
        """Which images these are, wherever they are."""
        return Identity(
            digests={name: split.digest for name, split in self.splits.items()},
            class_names=self.class_names,
            counts={name: len(split) for name, split in self.splits.items()},
        )

    @property
    def labelled(self) -> bool:
        """Whether the images have labels; if not, they all have label 0, of the one class ``unlabelled``."""
        return self.class_names != UNLABELLED


def read_source(
    spec: SourceSpec,
    location: str | None,
    *,
    executor: Executor,
    reporter: Reporter,
    labels_for: str = "",
    spool: Path | None = None,
    skip_unusable: bool = False,
    form: Form | None = None,
) -> Source:
    """Read a source completely and check that it is the one that ``spec`` names.

    It is read from ``location`` (see ``LOCATIONS``) or the spec's default. ``labels_for`` is what cannot do without
    labels, for the message; empty: images without labels will do. ``spool`` is a folder for the pixels, which all
    workers see, and what an interrupted run left there is taken as it is; ``None``: everything in memory.
    ``skip_unusable`` leaves images out that cannot be used, and lists them in ``findings``, instead of refusing all.
    ``form`` is what ``find_form`` has found there, if it has looked.

    Raises:
        InputError: nothing usable there, no labels, unreadable or unsuitable images, or other images than expected.
    """
    where = location or spec.default_location
    if where is None:
        raise InputError(f"this recipe works on {spec.title}: say where they are with --source ({LOCATIONS})")
    form = form or find_form(where, spec)
    where = shown(where)
    _check_labels(spec, form, labels_for, where)
    if spool is not None:
        _check_space(spec, spool)
    by_split = _decoded(_chunk_tasks(spec, form, where, spool), where, executor, reporter)
    splits, findings = collect(by_split, where, skip_unusable=skip_unusable)
    _check_expected(spec, splits, findings, f"{where} ({form.kind})")
    class_names = _class_names(spec, form, max(int(split.labels.max()) for split in splits.values()))
    for number in sorted(set(range(len(class_names))) - set(splits["train"].labels.tolist())):
        reporter.warn(f"class {class_names[number]!r} has no training images")
    for finding in findings.lines():
        reporter.say(finding)
    return Source(spec, where, form.kind, class_names, splits, findings)


def read_identity(
    spec: SourceSpec,
    where: str,
    form: Form,
    *,
    executor: Executor,
    reporter: Reporter,
    skip_unusable: bool = False,
    limit_per_class: int | None = None,
) -> Identity:
    """Read a source only to learn which images it holds; no pixels are kept.

    Raises:
        InputError: unreadable or unsuitable images.
    """
    place = shown(where)
    tasks = (replace(task, keep=False) for task in _chunk_tasks(spec, form, place, None))
    by_split = _decoded(tasks, place, executor, reporter)
    found = contents(by_split, skip_unusable=skip_unusable, limit_per_class=limit_per_class)
    return Identity(
        digests={name: content.digest for name, content in found.items()},
        class_names=_class_names(spec, form, max((content.highest for content in found.values()), default=-1)),
        counts={name: content.num_images for name, content in found.items()},
    )


def _decoded(
    tasks: Iterable[ChunkTask], where: str, executor: Executor, reporter: Reporter
) -> dict[str, list[tuple[ChunkTask, Decoded]]]:
    """The chunks of each split, decoded."""
    listed = list(tasks)
    results = executor.map(decode_chunk, listed, on_lost=reporter.warn)
    decoded = reporter.track(
        results, total=len(listed), label=f"reading {where}", unit="chunk", images=lambda d: len(d.labels)
    )
    by_split: dict[str, list[tuple[ChunkTask, Decoded]]] = {}
    for task, result in zip(listed, decoded, strict=True):
        by_split.setdefault(task.split, []).append((task, result))
    return by_split


def _class_names(spec: SourceSpec, form: Form, highest: int) -> tuple[str, ...]:
    """The recipe's classes, those of the form, or numbers up to the highest label."""
    return spec.class_names or form.class_names or tuple(str(number) for number in range(highest + 1))


def find_form(where: str, spec: SourceSpec | None = None) -> Form:
    """Recognise how the images at a location are stored; of a larger folder only the classes that ``spec`` names.

    Raises:
        InputError: nothing there, nothing that looks like images, or images in several forms.
    """
    if where == "digits":
        return digits.find()
    root: Place
    wanted = Wanted() if spec is None else spec.wanted
    if is_remote(where):
        root = RemotePath.at(where, SINGLE_FILES)
    elif where.startswith(hub.PREFIX):
        root, wanted = _downloaded(where), replace(wanted, form="parquet")
    else:
        root = Path(where).expanduser()
        if not root.exists():
            raise InputError(f"--source {where}: no such file or folder; give {LOCATIONS}")
    tree = walk(root, wanted.only)
    found = _the_form(tree, wanted, f"--source {shown(where)}")
    form = None if found is None else FORMS[found](tree, wanted)
    if form is None:
        raise InputError(f"--source {shown(where)}: no images found there{_instead(tree)}; give {LOCATIONS}")
    return form


def _instead(tree: Tree) -> str:
    """What is there that could be images, if it were not packed, pointed to, or the like."""
    for path in list(tree.first.values())[:SUFFIXES_LOOKED_AT]:
        place = tree.at(path)
        with contextlib.suppress(OSError):
            with place.open("rb") if isinstance(place, RemotePath) else open_file(place) as file:
                head = file.read(HEAD)
            if head and (kind := mistaken(head)) is not None:
                return f", but {path} is {kind}"
    return ""


def _the_form(tree: Tree, wanted: Wanted, place: str) -> str | None:
    """Which of ``FORMS`` a source comes in, by the names of its files; ``None``: it has no images."""
    examples = {
        "cifar batches": cifar_batches.example(tree),
        "parquet": tree.first.get(parquet.SUFFIX),
        "webdataset": webdataset.example(tree),
        "image folder": image_folder.example(tree),
    }
    there = {name: example for name, example in examples.items() if example is not None}
    if wanted.form is not None:
        return wanted.form if wanted.form in there else None
    if "image folder" in there and image_folder.expected(tree, wanted):
        return "image folder"
    if len(there) > 1:
        raise InputError(
            f"{place} has images in {len(there)} forms: {', '.join(f'{n} ({e})' for n, e in there.items())}; give "
            "the file or the folder of one of them, or a recipe whose source says which (form=...)"
        )
    return next(iter(there), None)


def _downloaded(where: str) -> Path:
    """The Parquet files of ``hub:OWNER/NAME[@REVISION]``, in the Hub's own cache."""
    elsewhere = "or give a local copy with --source FOLDER"
    repository, _, revision = where.removeprefix(hub.PREFIX).partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repository):
        raise InputError(f"{where!r} does not name a dataset: use hub:OWNER/NAME, {elsewhere}")
    folder = hub.download(repository, revision or None, ["*.parquet", "**/*.parquet"], elsewhere=elsewhere)
    if not any(folder.rglob("*.parquet")):
        raise InputError(f"{repository} has no Parquet files; download it and use --source FOLDER")
    return folder


def _check_labels(spec: SourceSpec, form: Form, labels_for: str, where: str) -> None:
    """Refuse images without labels where there should be some, or where something needs them."""
    if form.labelled:
        return
    if spec.class_names is not None:
        raise InputError(f"{where} ({form.kind}) has no labels, but {spec.title} has them: {form.advice}")
    if labels_for:
        raise no_labels(f"{where} ({form.kind})", labels_for, form.advice)


def no_labels(where: str, labels_for: str, advice: str = "give a source with labels") -> InputError:
    """The error for a source without labels where something needs them."""
    return InputError(
        f"{where} has no labels, and {labels_for} needs them: {advice}, or use a method that needs no labels: uc"
    )


def _label_map(spec: SourceSpec, form: Form, where: str) -> tuple[int, ...] | None:
    """The recipe's number of each of the form's classes, or ``None`` where they agree."""
    found = form.class_names
    if spec.class_names is None or found == spec.class_names:
        return None
    if spec.class_names == imagenet.WNIDS[: len(spec.class_names)]:
        found = imagenet.WNIDS if found is None else imagenet.wnids_for(found) or found
    if found is None:
        return None
    number = {name: index for index, name in enumerate(spec.class_names)}
    unknown = sorted(set(found) - set(number))
    if unknown and not spec.subset:
        raise InputError(
            f"{where} has classes that {spec.title} does not have: {', '.join(unknown[:5])}; "
            f"expected {', '.join(spec.class_names)}"
        )
    if len(unknown) == len(set(found)):
        raise InputError(f"{where} has none of the classes of {spec.title} ({', '.join(spec.class_names[:3])}, ...)")
    return tuple(number.get(name, UNWANTED) for name in found)


def _chunk_tasks(spec: SourceSpec, form: Form, where: str, spool: Path | None) -> Iterator[ChunkTask]:
    """The pieces in which the images are decoded."""
    remap, names = _label_map(spec, form, where), spec.class_names or form.class_names
    num_classes = len(names) if names else None
    most = max_pixels()
    for split, chunks in form.chunks.items():
        for index, chunk in enumerate(chunks):
            pixels = None if spool is None else spool / f"{split}-{index:06d}.rgb"
            yield ChunkTask(split, chunk, remap, num_classes, spec, pixels, most)


def _check_space(spec: SourceSpec, spool: Path) -> None:
    """Where it is known how much there will be to decode, refuse a disk that cannot take it."""
    if spec.num_images is None or spec.preprocess is None:
        return
    needed = sum(count for _, count in spec.num_images) * 3 * spec.preprocess.crop**2
    there = next(folder for folder in (spool, *spool.parents) if folder.exists())
    done = sum(path.stat().st_size for path in spool.glob("*.rgb"))
    free = shutil.disk_usage(there).free
    if needed - done > free:
        raise InputError(
            f"{spec.title} takes {needed / 1e9:.1f} GB decoded, {there} has room for {(free + done) / 1e9:.1f} GB: "
            "free some, or give a folder with more as --scratch"
        )


def _check_expected(spec: SourceSpec, splits: dict[str, Split], findings: Findings, place: str) -> None:
    """Refuse other images than the expected: by their digests, or where these are not known by their number."""
    if "train" not in splits:
        raise InputError(f"{place} has no training images")
    other = f"For other images use a recipe of your own, or: ule-build ops --source {place.rpartition(' (')[0]}"
    digests = dict(spec.digests or ())
    missing = sorted(set(digests) - set(splits))
    if missing:
        raise InputError(f"{place} has no {missing[0]} split; {spec.title} has {', '.join(digests)}")
    for name, digest in digests.items():
        if splits[name].digest != digest:
            raise InputError(
                f"{place} is not {spec.title}: its {name} split of {len(splits[name])} images has digest "
                f"{splits[name].digest}, expected {digest}.\n{other}"
            )
    for name, expected in (spec.num_images or ()) if spec.digests is None else ():
        found = len(splits[name]) if name in splits else 0
        if found + len(findings.left_out_of(name)) != expected:
            raise InputError(
                f"{place} is not {spec.title}: {found:,} images in its {name} split, expected {expected:,}.\n{other}"
            )
