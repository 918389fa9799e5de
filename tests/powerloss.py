"""Loss of power, simulated: folders are watched while something works in them, and what would be left is made again.

After every operation on names, and around every sync, a ``Disk`` compares the folders with what it knew. From that
follow the states in which a loss of power at that moment may leave them, by the rules of POSIX at their worst:

- what was written to a file since it was synced may be there, zeros, cut, or missing altogether;
- what was done to names (made, renamed, removed) since their folder was synced may be done or not, each for itself; a
  rename is never half done.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

Tree = dict[str, bytes | None]
"""What folders hold: content by path below the root, ``None`` for a folder."""
Change = tuple[int, str, int | None]
"""In a folder a name stands for something else now, or for nothing."""
Operation = tuple[Change, ...]
HOW = ("as written", "zeroed", "cut", "empty")
WATCHED = ("replace", "rename", "unlink", "remove", "mkdir", "rmdir")
ROOT = 0


class State(NamedTuple):
    """What a loss of power may leave."""

    words: str
    tree: Tree


@dataclass
class Disk:
    """A folder under watch; files and folders have numbers that outlast their names."""

    root: Path
    states: dict[int, State] = field(default_factory=dict)
    """By what is in them: each once."""
    moments: int = 0
    on_moment: Callable[[], Any] = lambda: None
    """What else is to be remembered with every state."""
    remembered: dict[int, Any] = field(default_factory=dict)
    _now: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    _kept: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    """The names of every folder that would outlast a loss of power, but for those that are pending."""
    _pending: list[Operation] = field(default_factory=list)
    _content: dict[int, bytes] = field(default_factory=dict)
    _synced: dict[int, bytes] = field(default_factory=dict)
    _numbers: dict[int, int] = field(default_factory=dict)
    """By inode, which the system gives to others when it is free."""
    _fresh: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def tree(self) -> Tree:
        """What is there now."""
        self._look()
        return self._tree(self._now, HOW[0])

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Everything that is there at first is on the disk."""
        self._look()
        for number in list(self._content):
            self._synced[number] = self._content[number]
        self._kept = {number: dict(names) for number, names in self._now.items()}
        self._pending.clear()
        with pytest.MonkeyPatch.context() as patch:
            for name in WATCHED:
                patch.setattr(os, name, self._watched(getattr(os, name)))
            patch.setattr(os, "fsync", self._fsync)
            yield
        self._moment()

    def _watched(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            self._moment()
            try:
                return plain(*arguments, **options)
            finally:
                self._moment()

        return operation

    def _fsync(self, handle: int) -> None:
        self._moment()
        state = os.fstat(handle)
        number = self._numbers.get(state.st_ino)
        if stat.S_ISDIR(state.st_mode):
            self._settle(ROOT if Path(f"/proc/self/fd/{handle}").readlink() == self.root else number)
        elif number is not None:
            self._synced[number] = self._content[number]
        self._moment()

    def _settle(self, folder: int | None) -> None:
        """What was done to the names of a folder will last."""
        waiting: list[Operation] = []
        for operation in self._pending:
            if operation[-1][0] != folder:  # a rename counts where it leads to
                waiting.append(operation)
                continue
            _apply(self._kept, operation)
            overtaken = {(place, name) for place, name, _ in operation}
            waiting = [tuple(c for c in each if (c[0], c[1]) not in overtaken) for each in waiting]
        self._pending = [operation for operation in waiting if operation]

    # What is there

    def _look(self) -> None:
        """Find out what has changed."""
        found = dict[int, dict[str, int]]()
        self._scan(self.root, ROOT, found)
        gone = {(f, n): i for f, names in self._now.items() for n, i in names.items() if found.get(f, {}).get(n) != i}
        made = {(f, n): i for f, names in found.items() for n, i in names.items() if self._now.get(f, {}).get(n) != i}
        for (folder, name), number in made.items():
            before = next((place for place, each in gone.items() if each == number), None)
            moved = () if before is None else ((*before, None),)
            self._pending.append((*moved, (folder, name, number)))
            gone.pop(before, None)  # type: ignore[arg-type]
            gone.pop((folder, name), None)
        self._pending += [((folder, name, None),) for folder, name in gone]
        self._now = found
        alive = {number for names in found.values() for number in names.values()}
        self._numbers = {inode: number for inode, number in self._numbers.items() if number in alive}

    def _scan(self, path: Path, number: int, found: dict[int, dict[str, int]]) -> None:
        names = found[number] = {}
        if not path.exists():
            return
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            inode = entry.inode()
            if inode not in self._numbers:
                self._numbers[inode] = next(self._fresh)
            names[entry.name] = inner = self._numbers[inode]
            if entry.is_dir():
                self._kept.setdefault(inner, {})
                self._scan(Path(entry.path), inner, found)
            else:
                self._content[inner] = Path(entry.path).read_bytes()

    # What may be left

    def _moment(self) -> None:
        self._look()
        self.moments += 1
        for words, operations in self._choices():
            names = {number: dict(inner) for number, inner in self._kept.items()}
            for operation in operations:
                _apply(names, operation)
            for how in HOW:
                state = State(f"moment {self.moments}, {words}, {how}", self._tree(names, how))
                key = hash(tuple(sorted(state.tree.items(), key=lambda item: item[0])))
                if key not in self.states:
                    self.states[key] = state
                    self.remembered[key] = self.on_moment()

    def _choices(self) -> Iterator[tuple[str, list[Operation]]]:
        """Which of the pending operations were done: all, none, all but one, only one."""
        yield "all done", self._pending
        yield "none done", []
        chosen = range(len(self._pending))
        if len(chosen) > 8:  # many files are removed at a time: the first and the last of them
            chosen = (*chosen[:3], *chosen[-4:])  # type: ignore[assignment]
        for index in chosen:
            yield f"all but {index} done", self._pending[:index] + self._pending[index + 1 :]
            yield f"only {index} done", [self._pending[index]]

    def _tree(self, names: dict[int, dict[str, int]], how: str) -> Tree:
        tree: Tree = {}

        def add(folder: int, path: str) -> None:
            for name, number in names.get(folder, {}).items():
                if number in self._kept:
                    tree[f"{path}{name}"] = None
                    add(number, f"{path}{name}/")
                else:
                    tree[f"{path}{name}"] = self._left(number, how)

        add(ROOT, "")
        return tree

    def _left(self, number: int, how: str) -> bytes:
        content = self._content[number]
        if content == self._synced.get(number):
            return content
        return {"as written": content, "zeroed": bytes(len(content)), "cut": content[: len(content) // 2]}.get(how, b"")


def _apply(names: dict[int, dict[str, int]], operation: Operation) -> None:
    for folder, name, number in operation:
        inner = names.setdefault(folder, {})
        if number is None:
            inner.pop(name, None)
        else:
            inner[name] = number


def restore(tree: Tree, root: Path) -> None:
    """Make a state again, in place of what is there."""
    if root.exists():
        shutil.rmtree(root)
    root.mkdir()
    for path, content in tree.items():
        if content is None:
            (root / path).mkdir(parents=True, exist_ok=True)
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)


def some(states: dict[int, State], count: int | None, *, seed: int = 15) -> list[tuple[int, State]]:
    """All states, or a number of them drawn evenly from beginning to end."""
    listed = list(states.items())
    if count is None or count >= len(listed):
        return listed
    generator = random.Random(seed)
    bounds = [len(listed) * index // count for index in range(count + 1)]
    return [listed[generator.randrange(start, stop)] for start, stop in itertools.pairwise(bounds)]


@contextmanager
def without_syncs() -> Iterator[None]:
    """Nobody waits for the disk meanwhile: the power will not be lost again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield
