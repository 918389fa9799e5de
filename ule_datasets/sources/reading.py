"""Clean images from wherever they are: one call, the same samples, keys and order from every form."""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.base.regular import open_file
from ule_datasets.base.shown import counted
from ule_datasets.base.signatures import HEAD, mistaken
from ule_datasets.compute.executor import Executor
from ule_datasets.data.codec import max_pixels
from ule_datasets.data.split import Split
from ule_datasets.places.remote_path import RemotePath
from ule_datasets.places.urls import shown
from ule_datasets.sources import digits, image_folder, imagenet, matlab, parquet, webdataset
from ule_datasets.sources.cifar_batches import CIFAR10, CIFAR100
from ule_datasets.sources.collect import Findings, collect, contents, left_out
from ule_datasets.sources.decode import UNWANTED, ChunkTask, Decoded, decode_chunk
from ule_datasets.sources.forms import UNLABELLED, Form, Wanted
from ule_datasets.sources.identity import Identity
from ule_datasets.sources.look import Look, glance
from ule_datasets.sources.own import refuse_perturbed
from ule_datasets.sources.place import LOCATIONS, open_place, without
from ule_datasets.sources.spec import EMBEDDED, SourceSpec
from ule_datasets.sources.splits import TRAIN, UnknownSplitError
from ule_datasets.sources.tree import Tree
from ule_datasets.sources.wanted import ANYTHING

SUFFIXES_LOOKED_AT = 20
"""At most; a file of each is looked into where there are no images."""
ALL_NUMBERS = 65_536
"""Class numbers below it are all classes, with or without images; beyond it only those that images have."""


@dataclass(frozen=True, slots=True)
class Reader:
    """How one form of files is recognised and read."""

    example: Callable[[Tree], str | None]
    """The first of its files in a source, by names alone; ``None``: there is none."""
    find: Callable[[Tree, Wanted], Form | None]
    """What a source holds in this form; ``None``: nothing."""
    of: str = ""
    """The name of the source whose owners give it out like this; empty: anybody does."""
    kind: str = ""
    """What such a form is called, where it is the owners'."""


READERS: dict[str, Reader] = {
    "cifar batches": Reader(CIFAR10.example, CIFAR10.find, of="cifar10", kind=CIFAR10.kind),
    "cifar-100 batches": Reader(CIFAR100.example, CIFAR100.find, of="cifar100", kind=CIFAR100.kind),
    "svhn": Reader(matlab.example, matlab.find, of="svhn", kind=matlab.KIND),
    "parquet": Reader(parquet.example, parquet.find),
    "webdataset": Reader(webdataset.example, webdataset.find),
    "image folder": Reader(image_folder.example, image_folder.find),
}
"""Every form of files."""
FORMS: dict[str, Callable[[Tree, Wanted], Form | None]] = {name: reader.find for name, reader in READERS.items()}
"""How each is read."""


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
    look: Look | None = None
    """How it was taken, and what is in it."""

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
    where = _location(spec, location)
    form = form or find_form(where, spec)
    where = shown(where)
    _check_labels(spec, form, labels_for, where)
    look = Look.of(form)
    for line in look.of_form():
        reporter.say(line)
    if spool is not None:
        _check_space(spec, spool)
    by_split, class_names = _read(spec, form, where, executor, reporter, work=decode_chunk, spool=spool)
    splits, findings = collect(by_split, where, skip_unusable=skip_unusable)
    _check_expected(spec, splits, findings, f"{where} ({form.kind})")
    look = look.with_content(class_names, by_split)
    for line in (*look.of_content(), *findings.lines()):
        reporter.say(line)
    for warning in look.warnings():
        reporter.warn(warning)
    return Source(spec, where, form.kind, class_names, splits, findings, look)


def look_at(
    spec: SourceSpec,
    location: str | None,
    *,
    executor: Executor,
    reporter: Reporter,
    labels_for: str = "",
    skip_unusable: bool = False,
) -> Look:
    """What a source looks like, by labels and the heads of its images: none is decoded, and nothing is written.

    What ``read_source`` would refuse once it has read the images is its ``refusal``, as far as that can be told.

    Raises:
        InputError: as ``read_source`` does before it reads images.
    """
    where = _location(spec, location)
    form = find_form(where, spec)
    where = shown(where)
    _check_labels(spec, form, labels_for, where)
    by_split, class_names = _read(spec, form, where, executor, reporter, work=glance)
    look = Look.of(form).with_content(class_names, by_split)
    try:
        omitted = Counter(split for split, _ in left_out(by_split, skip_unusable=skip_unusable))
        counts = {name: sum(decoded.num_usable for _, decoded in pairs) for name, pairs in by_split.items()}
        place = f"{where} ({form.kind})"
        _check_splits(spec, {name: count for name, count in counts.items() if count}, place)
        _check_counts(spec, counts, omitted, place)
    except InputError as error:
        return replace(look, refusal=tuple(map(str, error.args)))
    return look


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
    by_split, class_names = _read(spec, form, place, executor, reporter, work=decode_chunk, keep=False)
    found = contents(by_split, skip_unusable=skip_unusable, limit_per_class=limit_per_class)
    return Identity(
        digests={name: content.digest for name, content in found.items()},
        class_names=class_names,
        counts={name: content.num_images for name, content in found.items()},
    )


def _location(spec: SourceSpec, location: str | None) -> str:
    where = location or spec.default_location
    if where is None:
        raise InputError(f"this recipe works on {spec.title}: say where they are with --source ({LOCATIONS})")
    return where


def _read(
    spec: SourceSpec,
    form: Form,
    where: str,
    executor: Executor,
    reporter: Reporter,
    *,
    work: Callable[[ChunkTask], Decoded],
    spool: Path | None = None,
    keep: bool = True,
) -> tuple[dict[str, list[tuple[ChunkTask, Decoded]]], tuple[str, ...]]:
    """What ``work`` makes of every chunk, by split, and the names of the classes that its labels are numbers of."""

    def done(label_map: Mapping[int, int] | None) -> dict[str, list[tuple[ChunkTask, Decoded]]]:
        tasks = list(_chunk_tasks(spec, form, label_map, spool, keep=keep))
        results = executor.map(work, tasks, on_lost=reporter.warn)
        seen = reporter.track(
            results, total=len(tasks), label=f"reading {where}", unit="chunk", images=lambda d: len(d.labels)
        )
        by_split: dict[str, list[tuple[ChunkTask, Decoded]]] = {}
        for task, result in zip(tasks, seen, strict=True):
            by_split.setdefault(task.split, []).append((task, result))
        return by_split

    names = spec.class_names or form.class_names or ()
    if broken := [name for name in names if not _is_text(name)]:
        raise InputError(f"{where}: the class {broken[0]} has a name that is not UTF-8; rename it")
    by_split = done(_label_map(spec, form, where))
    if names:
        return by_split, names
    numbers = _class_numbers(label for pairs in by_split.values() for _, decoded in pairs for label in decoded.labels)
    if numbers and numbers[-1] >= len(numbers):
        reporter.say(f"source: {len(numbers):,} class numbers up to {numbers[-1]:,}: read again without gaps")
        by_split = done({number: index for index, number in enumerate(numbers)})
    return by_split, tuple(map(str, numbers))


def _is_text(name: str) -> bool:
    """Whether a name can be written down: one of a folder may be bytes that are no text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _class_numbers(labels: Iterable[int]) -> list[int]:
    """The classes of a source that has numbers and no names: all up to the highest, or if that is far, those there."""
    there = set(labels)
    highest = max(there, default=-1)
    return list(range(highest + 1)) if highest < ALL_NUMBERS else sorted(there)


def find_form(where: str, spec: SourceSpec | None = None) -> Form:
    """Recognise how the images at a location are stored; of a larger folder only the classes that ``spec`` names.

    Raises:
        InputError: nothing there, nothing that looks like images, or images in several forms.
    """
    wanted = ANYTHING if spec is None else spec.wanted
    if where == EMBEDDED:
        return digits.find(wanted)
    try:
        tree = open_place(where, wanted)
        refuse_perturbed(tree.root, f"--source {shown(where)}")
        found = _the_form(tree, wanted, f"--source {shown(where)}")
        form = None if found is None else FORMS[found](tree, wanted)
    except UnknownSplitError as error:
        raise InputError(f"{error}, or {without(where, error.word)}") from error
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
    examples = ((name, reader.example(tree)) for name, reader in READERS.items())
    there = {name: example for name, example in examples if example is not None}
    if wanted.form is not None:
        return wanted.form if wanted.form in there else None
    if own := [name for name in there if wanted.source and READERS[name].of == wanted.source]:
        return own[0]
    if "image folder" in there and image_folder.expected(tree, wanted):
        return "image folder"
    if len(there) > 1:
        raise InputError(
            f"{place} has images in {len(there)} forms: {', '.join(f'{n} ({e})' for n, e in there.items())}; give "
            "the file or the folder of one of them, or a recipe whose source says which (form=...)"
        )
    return next(iter(there), None)


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


def _label_map(spec: SourceSpec, form: Form, where: str) -> dict[int, int] | None:
    """The recipe's number of each of the form's classes, or ``None`` where they agree."""
    found = form.class_names
    if spec.class_names is None or found == spec.class_names:
        return None
    if spec.class_names == imagenet.WNIDS[: len(spec.class_names)]:
        found = imagenet.WNIDS if found is None else imagenet.wnids_for(found) or found
    if found is None:
        return None
    number = {name: index for index, name in enumerate(spec.class_names)}
    number |= {alias: number[name] for alias, name in spec.aliases}
    unknown = sorted(set(found) - set(number))
    if unknown and not spec.subset:
        raise InputError(
            f"{where} has classes that {spec.title} does not have: {', '.join(unknown[:5])}; "
            f"expected {', '.join(spec.class_names)}"
        )
    if len(unknown) == len(set(found)):
        raise InputError(f"{where} has none of the classes of {spec.title} ({', '.join(spec.class_names[:3])}, ...)")
    return {index: number.get(name, UNWANTED) for index, name in enumerate(found)}


def _chunk_tasks(
    spec: SourceSpec, form: Form, label_map: Mapping[int, int] | None, spool: Path | None, *, keep: bool
) -> Iterator[ChunkTask]:
    """The pieces in which the images are decoded."""
    names = spec.class_names or form.class_names
    num_classes = len(names) if names else None
    most = max_pixels()
    for split, chunks in form.chunks.items():
        for index, chunk in enumerate(chunks):
            pixels = None if spool is None else spool / f"{split}-{index:06d}.rgb"
            yield ChunkTask(split, chunk, label_map, num_classes, spec, pixels, most, keep=keep)


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
    _check_splits(spec, splits, place)
    known = spec.known_digests
    if not known:
        omitted = Counter(split for split, _ in findings.left_out)
        _check_counts(spec, {name: len(split) for name, split in splits.items()}, omitted, place)
    for name, digest in known.items():
        if splits[name].digest != digest:
            images = counted(len(splits[name]), "image")
            raise InputError(
                f"{place} is not {spec.title}: its {name} split of {images} has digest {splits[name].digest}, "
                f"expected {digest}; {_for_others(place)}"
            )


def _check_splits(spec: SourceSpec, names: Collection[str], place: str) -> None:
    """Refuse a source that lacks a split; ``names`` are those with images that can be used."""
    if TRAIN not in names:
        raise InputError(f"{place} has no training images")
    expected = list(spec.known_digests)
    if missing := sorted(set(expected) - set(names)):
        raise InputError(f"{place} has no {missing[0]} split; {spec.title} has {', '.join(expected)}")


def _check_counts(spec: SourceSpec, counts: Mapping[str, int], omitted: Mapping[str, int], place: str) -> None:
    """Refuse other numbers of images than the expected; those that were left out count."""
    for name, expected in spec.num_images or ():
        found = counts.get(name, 0)
        if found + omitted.get(name, 0) != expected:
            raise InputError(
                f"{place} is not {spec.title}: {counted(found, 'image')} in its {name} split, expected {expected:,}; "
                f"{_for_others(place)}"
            )


def _for_others(place: str) -> str:
    return f"for other images use a recipe of your own, or: ule-build ops --source {place.rpartition(' (')[0]}"
