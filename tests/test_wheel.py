"""The wheel alone, without the checkout, does what the README shows: recipes, cards and templates travel in it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from documented import OURS, ROOT, blocks, commands

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(pip, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A program of an environment that holds the wheel, and sees the libraries of this one but nothing editable."""
    home = tmp_path_factory.mktemp("home")
    subprocess.run([sys.executable, "-m", "venv", home / "env"], check=True)
    pip = [home / "env/bin/python", "-m", "pip", "--quiet", "install", "--no-deps", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    (packages,) = (home / "env").glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ULE_CACHE")}

    def run(*words: str) -> str:
        done = subprocess.run(
            [str(home / "env/bin" / words[0]), *words[1:]],
            cwd=home,
            env={**kept, "HOME": str(home), "ULE_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    return run


def test_all_that_is_read_at_run_time_is_in_it(wheel: Path) -> None:
    there = set(zipfile.ZipFile(wheel).namelist())
    needed = {
        path.relative_to(ROOT).as_posix()
        for package in ("ule_datasets", "builders", "cards")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert needed <= there, sorted(needed - there)
    assert not [name for name in there if name.startswith(("tests", "docs", "benchmarks"))]


def test_the_commands_of_the_readme_run(run: Callable[..., str]) -> None:
    where = run("python", "-c", "import ule_datasets, builders, cards; print(ule_datasets.__file__, cards.__file__)")
    assert where.count("/env/lib/") == 2, where
    ours = [command.words for command in commands(next(blocks("README.md"))) if command.words[0] in OURS]
    said = ["".join(run(*words)) for words in ours]
    assert "next: ule-verify datasets/digits-s" in said[0]
    assert "checks passed" in said[1]
    assert "collapse shown" in said[1]
    assert "cifar10-s" in said[2]
