"""What a dataset's card says of its files: which are the data of which split, and what the classes are called.

``configs`` and ``dataset_info`` in the front matter of a ``README.md`` are read as ``load_dataset`` reads them.
A card comes with a folder or repository from anywhere: whatever leads out of it is refused.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
import reprlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

import yaml

from ule_datasets.base.errors import InputError
from ule_datasets.places.urls import is_remote

FILE_NAME = "README.md"
NEVER_DATA = (
    "README.md",
    "config.json",
    "dataset_info.json",
    "dataset_infos.json",
    "dummy_data.zip",
    "dataset_dict.json",
)
"""Files that a pattern does not mean unless it names them."""
SPLIT_NAME = re.compile(r"\w+(\.\w+)*")
FRONT_MATTER = re.compile(r"---[ \t\r]*\n(.*?)^---[ \t\r]*$", re.DOTALL | re.MULTILINE)
OF_FILES = re.compile(r"""^["']?(configs|dataset_info)["']?[ \t]*:""", re.MULTILINE)
"""Only with one of these does a card concern us."""
LARGEST = 8 * 2**20
"""Characters; a card of ImageNet has 50,000."""
SHOWN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """What a card says of one of its configurations."""

    config: str = ""
    """Its name; empty: the card has none."""
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By split, in the card's own words: paths below the folder of the card. Empty: it leaves that to whoever looks."""
    folder: str = ""
    """Where to look for files that are not named; empty: everywhere."""
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By column, in label order."""


def declared(text: str, paths: Iterable[str], config: str | None, where: str) -> Declared | None:
    """What a card says about the files of its folder; ``None``: nothing.

    ``paths`` are all files there, relative and with ``/``, looked at only if need be; ``config`` is what the user
    chose, and ``where`` names the folder or repository in messages.

    Raises:
        InputError: no such configuration, several and no default, something that is not as the format has it, or
            files that are not there or would be elsewhere.
    """
    about = _front_matter(text, where)
    configs, infos = _configs(about, where), _infos(about, where)
    if not configs and not infos and config is None:
        return None
    name = _chosen(configs, infos, config, where)
    chosen, info = configs.get(name, {}), infos.get(name, {})
    folder = _inside(chosen.get("data_dir") or "", where)
    patterns = _patterns(chosen.get("data_files"), where)
    there = frozenset(paths if patterns else ())
    return Declared(
        config=name,
        files={split: _resolved(split, listed, folder, there, where) for split, listed in patterns.items()},
        folder=folder,
        class_names=dict(_class_names(info.get("features") or chosen.get("features") or [], where)),
    )


def _front_matter(text: str, where: str) -> dict[str, Any]:
    """The card's metadata; empty where it says nothing of files."""
    found = FRONT_MATTER.match(text.lstrip("\ufeff \t\r\n"))
    if found is None or OF_FILES.search(found[1]) is None:
        return {}
    if len(text) > LARGEST:
        raise _wrong(where, f"has more than {LARGEST:,} characters")
    try:
        about = yaml.safe_load(found[1])
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise _wrong(where, f"has front matter that is not YAML ({reason})") from error
    return about if isinstance(about, dict) else {}


def _configs(about: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """The configurations by name."""
    listed = about.get("configs") or []
    if not isinstance(listed, list):
        raise _wrong(where, "has 'configs' that are no list")
    found: dict[str, dict[str, Any]] = {}
    for each in listed:
        if not isinstance(each, dict) or not isinstance(each.get("config_name"), str):
            raise _wrong(where, f"has a configuration without a config_name: {_brief(each)}")
        found[each["config_name"]] = each
    return found


def _infos(about: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """What is said of the content of each configuration, by its name."""
    listed = about.get("dataset_info") or []
    infos = listed if isinstance(listed, list) else [listed]
    if any(not isinstance(info, dict) or not isinstance(info.get("config_name", ""), str) for info in infos):
        raise _wrong(where, f"has a 'dataset_info' that is none: {_brief(listed)}")
    return {info.get("config_name", "default"): info for info in infos}


def _chosen(configs: Mapping[str, dict[str, Any]], infos: Collection[str], config: str | None, where: str) -> str:
    """The name of the configuration that is meant."""
    known = configs or infos
    if config is not None:
        if config not in known:
            raise InputError(f"{where} has no configuration {config!r}; it has {_some(known) or 'none'}")
        return config
    default = [n for n, each in configs.items() if len(configs) == 1 or n == "default" or each.get("default")]
    if len(default) > 1:
        raise _wrong(where, f"has several default configurations: {_some(default)}")
    if not default and len(infos) == 1:  # the only one that is described, as load_dataset takes it
        default = [name for name in infos if not configs or name in configs]
    if not default and configs:
        folder = "a copy of it, --source FOLDER" if is_remote(where) else where
        raise InputError(f"{where} has several configurations; say which one with {folder}:CONFIG: {_some(configs)}")
    return default[0] if default else ""


def _patterns(data_files: Any, where: str) -> dict[str, list[str]]:
    """The patterns of each split, as a card may write them in three ways."""
    if data_files is None:
        return {}
    listed = data_files if isinstance(data_files, list) else [data_files]
    if all(isinstance(each, str) for each in listed):
        return {"train": listed}
    found: dict[str, list[str]] = {}
    for each in listed:
        both = isinstance(each, dict) and len(each) == 2
        split, path = (each.get("split"), each.get("path")) if both else (None, None)
        paths: list[Any] = path if isinstance(path, list) else [path]
        if not isinstance(split, str) or any(not isinstance(one, str) for one in paths):
            raise _wrong(where, f"has data_files that are neither patterns nor {{split, path}}: {_brief(each)}")
        if not SPLIT_NAME.fullmatch(split) or split in found:
            raise _wrong(where, f"names the split {split!r}, which is {'there twice' if split in found else 'no name'}")
        found[split] = paths
    return found


def _resolved(split: str, patterns: Sequence[str], folder: str, paths: Collection[str], where: str) -> tuple[str, ...]:
    """The files that patterns stand for, each once."""
    found = dict.fromkeys(path for pattern in patterns for path in _matching(pattern, folder, paths, where))
    if not found:
        raise _wrong(where, f"says that the files of its {split} split are {_some(patterns)}, and there are none")
    return tuple(found)


def _matching(pattern: str, folder: str, paths: Collection[str], where: str) -> list[str]:
    """The files that a pattern stands for; of a folder, all that are in it."""
    full = posixpath.join(folder, _inside(pattern, where))
    magic = re.search(r"[*?[]", full)
    if magic is None and full in paths:
        return [full]
    if magic is None:
        full = f"{full}/**"  # a folder, which load_dataset takes as data_dir only
    parts = full.split("/")
    if any("**" in part and part != "**" for part in parts):
        raise _wrong(where, f"has the pattern {pattern!r}, where '**' is not a whole part of the path")
    fixed = posixpath.dirname(full if magic is None else full[: magic.start()])
    candidates = (path for path in paths if path.startswith(fixed))
    found = sorted(path for path in candidates if _fits(path.split("/"), parts) and _meant(path, full))
    if magic is None and not found:
        raise _wrong(where, f"names {pattern}, which is not there")
    return found


def _fits(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches, part by part: ``**`` is any number of them, at the end at least one."""
    reached = {0}
    for part in pattern[:-1]:
        if part == "**":
            reached = set(range(min(reached, default=len(path)), len(path)))
        else:
            reached = {at + 1 for at in reached if at < len(path) and _part(part).match(path[at])}
    if pattern[-1] == "**":
        return any(at < len(path) for at in reached)
    return len(path) - 1 in reached and _part(pattern[-1]).match(path[-1]) is not None


@lru_cache(maxsize=256)
def _part(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))


def _meant(path: str, pattern: str) -> bool:
    """Whether a file that matches is meant: hidden and special ones only where the pattern says so itself."""
    inner, asked = PurePosixPath(path), PurePosixPath(pattern)

    def count(parts: Sequence[str], mark: str) -> int:
        return sum(part.startswith(mark) for part in parts)

    return (
        (inner.name == asked.name or inner.name not in NEVER_DATA)
        and count(inner.parts, ".") == count(asked.parts, ".")
        and count(inner.parts[:-1], "__") == count(asked.parts[:-1], "__")
    )


def _inside(path: Any, where: str) -> str:
    """A path or pattern below the folder of the card, without what means nothing."""
    if not isinstance(path, str):
        raise _wrong(where, f"has a path that is no text: {_brief(path)}")
    if "://" in path or "::" in path or "\\" in path or path.startswith("/") or ".." in path.split("/"):
        raise _wrong(where, f"names files outside of it ({_brief(path)}); download them and use --source FOLDER")
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def _class_names(features: Any, where: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Columns of class numbers, with the names."""
    if not isinstance(features, list):
        raise _wrong(where, f"has features that are no list: {_brief(features)}")
    for feature in features:
        kind = feature.get("dtype", feature) if isinstance(feature, dict) else None
        label = kind.get("class_label") if isinstance(kind, dict) else None
        if isinstance(label, dict) and "names" in label and isinstance(column := feature.get("name"), str):
            yield column, _in_order(label.get("names"), where)


def _in_order(names: Any, where: str) -> tuple[str, ...]:
    """Class names in label order, from a list or from names by number."""
    if not isinstance(names, list | dict) or not names:
        raise _wrong(where, f"has no list of class names where one belongs: {_brief(names)}")
    if isinstance(names, dict):
        numbers = {str(number): name for number, name in names.items()}
        names = [numbers.get(str(number), "") for number in range(len(numbers))]
    listed = tuple(str(name) for name in names if isinstance(name, str | int | float))
    if len(set(listed)) < len(names) or "" in listed:
        raise _wrong(where, "has class names that are incomplete or not all different")
    return listed


def _wrong(where: str, what: str) -> InputError:
    return InputError(f"the card ({FILE_NAME}) of {where} {what}")


def _brief(value: Any) -> str:
    return reprlib.repr(value)[:100]


def _some(names: Collection[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:SHOWN]) + (f", and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")
