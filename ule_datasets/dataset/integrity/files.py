"""Whether the files of a dataset folder are those of its manifest, and nothing besides."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ule_datasets.base.options import FORMATS, REPLACED_VERIFICATION, VERIFICATION
from ule_datasets.compute.executor import Executor
from ule_datasets.data.perturbation import FILE_NAME as PERTURBATION_FILE
from ule_datasets.dataset.integrity.check import Check
from ule_datasets.dataset.manifest import FILE_NAME, LEFT_OUT, FileRecord, Manifest
from ule_datasets.dataset.shards import file_record, shard_path

DESCRIPTIONS = ("README.md", "recipe.json", "craft.json", PERTURBATION_FILE)
"""Files that every dataset has besides the manifest."""
POSSIBLE = re.compile(rf"croissant\.json|{re.escape(LEFT_OUT)}|figures/[\w.-]+\.png")
"""Files that it may have as well, and drawings beside pictures; a manifest with anything else is not of our making."""
BESIDE = {
    VERIFICATION: "reports of ule-verify",
    REPLACED_VERIFICATION: "reports on datasets that were here before",
    ".local.json": "where this machine has the source",
    ".build": "a build at work",
    ".gitattributes": "of the Hub",
    ".cache": "of the Hub's client",
    ".git": "of git",
    ".DS_Store": "of macOS",
}
"""What may stand in a dataset folder without being of the dataset: no loader reads it."""


def check_files(root: Path, manifest: Manifest, executor: Executor) -> list[Check]:
    """Every listed file is there with its size and sha256, every format is whole, and nothing else is there."""
    tasks = [(root, record) for record in manifest.files]
    wrong = [problem for problem in executor.map(_file_problem, tasks) if problem]
    beside = sorted(path.name for path in root.iterdir() if path.name in BESIDE)
    strays = [f"{path} is not in the manifest" for path in unlisted(root, manifest)]
    apart = "".join(f"; beside it {name} ({BESIDE[name]})" for name in beside)
    whole = f"{' and '.join(manifest.formats)}, every shard of every split"
    return [
        Check.of("files", wrong, f"{len(manifest.files)} files have the size and sha256 of the manifest"),
        Check.of("no other files", strays, f"the folder holds nothing else{apart}"),
        Check.of("formats", _format_problems(manifest), whole),
    ]


def unlisted(root: Path, manifest: Manifest) -> list[str]:
    """Paths of what is in a dataset folder and is neither in its manifest nor of those that may stand beside it."""
    listed = {record.path for record in manifest.files} | {FILE_NAME}
    return [path for path in _entries(root) if path not in listed]


def _entries(root: Path) -> Iterator[str]:
    """Paths of everything below a dataset folder but of folders, and of what may stand beside the dataset.

    Links are not followed, and nothing is opened.
    """
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        if here == root:
            folders[:] = [name for name in folders if name not in BESIDE]
            files = [name for name in files if name not in BESIDE]
        links = [name for name in folders if (here / name).is_symlink()]
        yield from ((here / name).relative_to(root).as_posix() for name in sorted([*files, *links]))


def _format_problems(manifest: Manifest) -> list[str]:
    """Whether the manifest lists every file once, and of every split the same shards in every format that it names."""
    paths = Counter(record.path for record in manifest.files)
    problems = [f"the manifest lists {path} {count} times" for path, count in paths.items() if count > 1]
    problems += [f"the manifest does not list {name}" for name in DESCRIPTIONS if name not in paths]
    others = paths.keys() - {record.path for record in manifest.shards()} - set(DESCRIPTIONS)
    drawn = {f"{path.removesuffix('.png')}.svg" for path in others if path.endswith(".png")}
    strange = [path for path in sorted(others - drawn) if not POSSIBLE.fullmatch(path)]
    problems += [f"the manifest lists {path}" for path in strange]
    if not manifest.formats or list(manifest.formats) != [name for name in FORMATS if name in manifest.formats]:
        return [*problems, f"formats are {list(manifest.formats)}, which must be among {list(FORMATS)}, each once"]
    if "train" not in manifest.splits:
        return [*problems, "the manifest has no train split"]
    expected = set()
    for split in manifest.splits:
        names = {f: shards_of(manifest, f, split) for f in manifest.formats}
        count = max(map(len, names.values()))
        expected |= {shard_path(f, split, index, count) for f in manifest.formats for index in range(max(1, count))}
    found = {record.path for record in manifest.shards()}
    problems += [f"{path} is missing from the manifest" for path in sorted(expected - found)]
    return problems + [f"{path} belongs to no split of the manifest" for path in sorted(found - expected)]


def shards_of(manifest: Manifest, file_format: str, split: str) -> list[str]:
    """Paths of the shards of a split in one format, in order."""
    prefix = shard_path(file_format, split, 0, 0).partition(f"{split}-")[0]
    return sorted(record.path for record in manifest.shards(f"{prefix}{split}-"))


def _file_problem(task: tuple[Path, FileRecord]) -> str | None:
    root, record = task
    path = root / record.path
    if not path.is_file():
        return f"{record.path} is {'not a plain file' if path.exists() else 'missing'}"
    found = file_record(path)
    if found["size"] != record.size:
        return f"{record.path} has {found['size']} bytes, the manifest says {record.size}"
    return None if found["sha256"] == record.sha256 else f"{record.path} has another sha256 than the manifest says"
