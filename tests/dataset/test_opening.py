"""The lines that documentation and cards show: they open a built dataset, and run nothing that a hostile one brings."""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ule_datasets
from ule_datasets.base.errors import InputError

ROOT = Path(__file__).parent.parent.parent


class Mark:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def blocks(text: str) -> Iterator[str]:
    """Blocks of Python that open tar shards with webdataset."""
    yield from (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "WebDataset(" in block)


def webdataset_lines(block: str) -> str:
    """From the import of webdataset to the line that opens the shards."""
    lines = block.splitlines()
    first = next(n for n, line in enumerate(lines) if re.match(r"import .*\bwebdataset\b", line))
    last = next(n for n, line in enumerate(lines) if "WebDataset(" in line)
    return "\n".join(lines[first : last + 1])


def documented(dataset: Path, where: str) -> str:
    """The lines of the documentation or of the dataset's own card, for this dataset's shards."""
    page = dataset / "README.md" if where == "card" else ROOT / "docs/opening.md"
    (block,) = blocks(page.read_text(encoding="utf-8"))
    lines = webdataset_lines(block)
    shown = re.findall(r'"([^"]*\.tar)"', lines)
    assert len(shown) == 1, lines
    return lines.replace(shown[0], f"{dataset}/webdataset/train-{{000000..000000}}.tar")


def opened(lines: str) -> list[tuple[Any, ...]]:
    scope: dict[str, Any] = {}
    exec(lines, scope)
    return list(scope["train"])


def add_hostile_members(tar_path: Path, marks: Path) -> None:
    """A pickle beside every sample's own members, under each ending that some loader unpickles."""
    with tarfile.open(tar_path) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    with tarfile.open(tar_path, "w") as tar:
        for number, (name, data) in enumerate(members):
            extra = []
            if name.endswith(".json") and number < 30:
                key = name.partition(".")[0]
                extra = [
                    (f"{key}.{ending}", pickle.dumps(Mark(marks / f"{key}.{ending}")))
                    for ending in ("pyd", "pkl", "pickle", "pth", "pt", "npy", "npz", "ten", "jpg")
                ]
            for each, content in [(name, data), *extra]:
                info = tarfile.TarInfo(each)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("where", ["documentation", "card"])
def test_the_documented_lines_give_the_images_of_a_built_dataset(built_digits: Path, where: str) -> None:
    samples = opened(documented(built_digits, where))
    ours = ule_datasets.load(built_digits)
    assert [key for _, _, key in samples] == list(ours.keys)
    assert [label for _, label, _ in samples] == ours.labels
    assert all(np.array_equal(np.asarray(image), np.asarray(ours[n][0])) for n, (image, _, _) in enumerate(samples))


@pytest.mark.parametrize("where", ["documentation", "card"])
def test_the_documented_lines_unpickle_nothing(
    built_digits: Path, tmp_path: Path, where: str, tried: Callable[..., None]
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    dataset = Path(shutil.copytree(built_digits, tmp_path / "digits"))
    add_hostile_members(dataset / "webdataset/train-000000.tar", marks)
    lines = documented(dataset, where)
    assert len(opened(lines)) == 1437
    assert list(marks.iterdir()) == []
    tried(f"pickled members beside those that the lines of the {where} name", 90)
    careless = re.sub(r"\.map_dict\(.*", ".decode()", lines)
    with pytest.raises(Exception, match=r".*"):  # what was unpickled is no image
        opened(careless)
    assert list(marks.iterdir()), "the pickles do what they are made for"


@pytest.mark.parametrize("where", ["documentation", "card"])
def test_the_documented_lines_open_nothing_but_png(built_digits: Path, tmp_path: Path, where: str) -> None:
    dataset = Path(shutil.copytree(built_digits, tmp_path / "digits"))
    path = dataset / "webdataset/train-000000.tar"
    stream = io.BytesIO()
    Image.new("RGB", (32, 32)).save(stream, "EPS")
    with tarfile.open(path, "w") as tar:
        for name, data in (("a.png", stream.getvalue()), ("a.cls", b"0"), ("a.json", b"{}")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(OSError, match="cannot identify image file"):
        opened(documented(dataset, where))


def test_our_own_loader_refuses_hostile_members_and_says_which(built_digits: Path, tmp_path: Path) -> None:
    dataset = Path(shutil.copytree(built_digits, tmp_path / "digits"))
    add_hostile_members(dataset / "webdataset/train-000000.tar", tmp_path)
    with pytest.raises(InputError, match=r"is damaged: files: webdataset/train-000000\.tar has") as caught:
        ule_datasets.load(dataset, verify=True)
    assert "\n" not in str(caught.value)
    assert len(ule_datasets.load(dataset)) == 1437, "it reads the Parquet shards, and does not verify"
    assert len(ule_datasets.load(built_digits, split="test", verify=True)) == 360
