"""What the documentation shows in fenced blocks: commands, programs and files; and how they are run on next to nothing.

As a program, ``documented.py PAGE``, it goes through a page from top to bottom, as a reader would, in the folder in
which it was started: the catalogue's recipes take few images and little work there, and profiles train for an epoch.
A block whose first line is a comment with a file's name is that file.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from helpers import class_names, encode, make_splits, write_cifar_batches, write_image_folder
from photos import write_broken, write_photos

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w/.-]+\.(?:py|toml))\b")
"""The first line of a block that is a file."""
OURS = ("ule-build", "ule-verify")

NOT_RUN = {
    "python3": "environments are made, and the package installed, by the test of the wheel",
    ".": "the same",
    "pip": "the same",
    "pytest": "the tests do not run themselves",
    "mkdocs": "the site is built by a test of its own; `serve` does not end",
    "hf": "asks for a token; tests have one for a Hub of their own",
    "ray": "starts a service that outlives the command; `--executor ray` starts a private one without it",
    "python": "benchmarks run in test_benchmarks.py; `cards` has tests of its own: test_verify.py, test_leaderboard.py",
}
"""Commands that are not run, by their first word, and why."""
PLANNED = {
    "ule-verify --claims 'ops-t5-*' --profile fast": "dozens of runs of whole networks",
    "ule-verify --claims 'ops-*' --profile paper --executor ray": "hundreds of runs of whole networks",
    "ule-verify ops-cifar10 ops-var-cifar10 --models lenet5 --profile paper --seeds 5 --workers 2": "fifteen runs",
}
"""Commands that are run with ``--dry-run``, and why."""
BEFORE = {
    "docs/opening.md": ("ule-build ops-cifar10",),
    "docs/lenet.md": (),
    "docs/reference/crafting.md": ("ule-build cifar10-s", "ule-build em-cifar10", "ule-build ops-cifar10"),
    "docs/tutorials/own-countermeasure.md": ("ule-build ops-digits",),
    "docs/tutorials/own-claims.md": ("ule-build ops-digits",),
    "docs/tutorials/verify-a-paper.md": ("ule-build ops-cifar10", "ule-build em-cifar10"),
}
"""What a page takes for granted."""


class Block(NamedTuple):
    """A fenced block."""

    page: str
    line: int
    """Of its first line."""
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that it is."""
        found = FILE.match(self.text)
        return found[1] if found and self.language in ("python", "toml") else None


class Command(NamedTuple):
    """One command of a block of shell."""

    block: Block
    words: tuple[str, ...]

    @property
    def line(self) -> str:
        """As it stands on the page, without its comment."""
        return shlex.join(self.words)


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        yield Block(page, text.count("\n", 0, found.start()) + 2, found[1], found[2])


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block of shell, also those that ``&&`` joins."""
    for line in block.text.splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                words.append(word)
            elif words:
                yield Command(block, tuple(words))
                words = []


# --- running ------------------------------------------------------------------------------------------------


def main(page: str) -> None:
    """Go through a page."""
    with ExitStack() as stack:
        make_little(stack, Path.cwd(), page)
        for line in BEFORE.get(page, ()):
            run(Command(Block(page, 0, "bash", line), tuple(shlex.split(line))))
        scope: dict[str, Any] = {"my_transform": None}
        for block in blocks(page):
            print(f"--- {page}:{block.line}", flush=True)
            if block.file:
                write(block)
            elif block.language == "python":
                exec(compile(here(block.text), f"{page}:{block.line}", "exec"), scope)
            elif block.language == "bash":
                for command in commands(block):
                    if command.words[0] not in NOT_RUN:
                        run(command)


def write(block: Block) -> None:
    """The file that a block is; one of the library is imported, and gets its row."""
    name = str(block.file)
    path = Path(name).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text, encoding="utf-8")
    if name.startswith("ule_datasets/countermeasures/"):
        from ule_datasets import countermeasures
        from ule_datasets.victims.strategy import Countermeasure

        module = imported(path)
        rows = [kind for kind in vars(module).values() if isinstance(kind, type) and Countermeasure in kind.__bases__]
        countermeasures.COUNTERMEASURES += tuple(rows)  # type: ignore[misc]


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(command: Command) -> None:
    """In this process, with one worker; a network that was trained for an epoch may fail to show a collapse."""
    from ule_datasets.cli import build, verify

    program, *arguments = (os.path.expanduser(here(word)) for word in command.words)  # noqa: PTH111 - as a shell does
    assert program in OURS, f"{command.block.page}: {command.line} is no command of ours"
    if command.line in PLANNED:
        arguments.append("--dry-run")
    if "--workers" in arguments:
        del arguments[arguments.index("--workers") : arguments.index("--workers") + 2]
    if "--list" not in arguments:
        arguments += ["--workers", "1"]
    print(f"$ {command.line}", flush=True)
    code = (build if program == "ule-build" else verify).main(arguments)
    assert code in ((0,) if program == "ule-build" else (0, 1)), f"{command.line} ended with {code}"


def here(text: str) -> str:
    """A text with its absolute folders below this one, and shards as many as there are here."""
    text = re.sub(r"(?<![\w.~:/*])/(shared|fast)\b", lambda found: str(Path.cwd() / found[1]), text)
    return text.replace("{000000..000009}", "{000000..000000}")


def make_little(stack: ExitStack, home: Path, page: str) -> None:
    """Few images, little work, and all that the pages say is on somebody's machine."""
    from tiny_recipes import on_small_images, tiny_weights

    from builders import RECIPES
    from ule_datasets.experiments.profiles import PROFILES
    from ule_datasets.models.weights import WEIGHTS
    from ule_datasets.sources.digits import DIGITS
    from ule_datasets.victims.fine_tuned import FineTuned
    from ule_datasets.victims.table import VICTIMS

    brief = {"epochs": 1, "fine_tuning_epochs": 1, "max_train_images": 48, "max_test_images": 24, "num_seeds": 1}
    for name, profile in PROFILES.items():
        narrow = "resnet18-w8" if name == "fast" else profile.stand_in
        PROFILES[name] = dataclasses.replace(profile, stand_in=narrow, **brief)
    weights, file = tiny_weights()
    for name in ("resnet18@imagenet", "resnet20@cifar10"):
        WEIGHTS[name] = dataclasses.replace(weights, name=name)
        VICTIMS[name] = FineTuned(weights=WEIGHTS[name])
    for name, recipe in RECIPES.items():
        if recipe.source.name != DIGITS.name:
            any_classes = {"class_names": None, "subset": None}
            where = recipe.source.default_location
            RECIPES[name] = on_small_images(recipe, default_location=where, **any_classes)
        else:
            RECIPES[name] = dataclasses.replace(recipe, methods=on_small_images(recipe).methods)
    copies(home, file)
    if "s3://" in (ROOT / page).read_text(encoding="utf-8"):
        from stores import s3_store, upload

        store = stack.enter_context(s3_store())
        store.mkdir("bucket")
        upload(store, write_image_folder(home / "large", make_splits(3, 2, 240), class_names(3)), "bucket/photos")


def copies(home: Path, weights: Path) -> None:
    """Images and weights, in the forms and folders that pages speak of."""
    splits, names = make_splits(per_class=12), class_names(10)
    write_cifar_batches(home / "data", splits, names)
    for folder in ("photos", "imagenet", "shared/imagenet"):
        write_image_folder(home / folder, splits, names)
    for folder in ("camera", "phone"):
        write_photos(home / folder)
    write_broken(home / "phone")
    for folder in ("pile", "released"):
        (home / folder).mkdir()
        for number, image in enumerate(splits["train"].images):
            (home / folder / f"{number}.png").write_bytes(encode(image))
    for place in (f"weights/{weights.name}", "Downloads/resnet18-f37072fd.pth"):
        (home / place).parent.mkdir(exist_ok=True)
        (home / place).write_bytes(weights.read_bytes())


if __name__ == "__main__":
    main(sys.argv[1])
