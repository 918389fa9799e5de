"""Fixtures for all tests: real data where it is, the command line, and datasets that are built once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from helpers import Outcome, run_build


def _folder_from(variable: str, what: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"needs {what}: set {variable} to its folder")
    folder = Path(value).expanduser().resolve()
    assert folder.is_dir(), f"{variable} is {value}, which is not a folder"
    return folder


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Finished crafts go to a folder of this test run, never to the user's."""
    os.environ["ULE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small models on one of torch's threads: quicker where tests run side by side."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever asks torch for float32 gets float64, for tests that compare many steps with others' arithmetic.

    How float32 rounds depends on the processor and on torch's kernels, and signs of gradients, Adam and clamping make
    that larger step by step; in float64 it stays far below any tolerance, so that a difference is one of the steps.
    """
    import torch
    from torch import Tensor

    before, convert = torch.get_default_dtype(), Tensor.to

    def wider(tensor: Tensor, *arguments: object, **options: object) -> Tensor:
        double = [torch.float64 if each is torch.float32 else each for each in (*arguments, *options.values())]
        return convert(tensor, *double[: len(arguments)], **dict(zip(options, double[len(arguments) :], strict=True)))

    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    monkeypatch.setattr(Tensor, "to", wider)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def cifar10_folder() -> Path:
    """CIFAR-10 as Parquet shards, where ``ULE_TEST_CIFAR10`` says; read only."""
    return _folder_from("ULE_TEST_CIFAR10", "CIFAR-10 as Parquet shards")


@pytest.fixture(scope="session")
def imagenet_folder() -> Path:
    """One ImageNet image of each of 100 classes, where ``ULE_TEST_IMAGENET`` says; read only."""
    return _folder_from("ULE_TEST_IMAGENET", "the ImageNet sample")


@pytest.fixture(scope="session")
def weights_folder() -> Path:
    """Published CIFAR-10 classifiers, where ``ULE_TEST_WEIGHTS`` says; read only."""
    return _folder_from("ULE_TEST_WEIGHTS", "pretrained weights")


@pytest.fixture
def run_cli() -> Callable[..., Outcome]:
    """``run_cli(*arguments) -> (code, stdout, stderr)``: ``ule-build`` in this process.

    One worker, unless ``--workers`` is among the arguments; ``.complaint`` is stderr without progress and warnings.
    """
    return run_build


@pytest.fixture(scope="session")
def built_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The complete ops-digits folder, built once per test run through the command line (about 2 s).

    Shared by all tests and by all pytest-xdist workers: never write to it, change a copy
    (``shutil.copytree(built_digits, tmp_path / "digits")``).
    """
    return _built_once(tmp_path_factory, "ops-digits")


@pytest.fixture(scope="session")
def built_cifar10(tmp_path_factory: pytest.TempPathFactory, cifar10_folder: Path) -> Path:
    """The complete ops-cifar10 folder (428 MiB), built once per test run from ``ULE_TEST_CIFAR10`` (about 10 s).

    Skips where that is unset. Shared by all tests and by all pytest-xdist workers: never write to it; to
    change something, copy the few files that matter.
    """
    return _built_once(tmp_path_factory, "ops-cifar10", "--source", str(cifar10_folder), "--workers", "2")


def _built_once(tmp_path_factory: pytest.TempPathFactory, name: str, *arguments: str) -> Path:
    """Build into a folder that all workers of this run see; who comes second waits and finds it complete."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / "built" / name
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.with_name(f"{name}.lock")):
        if not (folder / "manifest.json").exists():
            outcome = run_build(name, "--out", folder, *arguments)
            assert outcome.code == 0, outcome.stderr
    return folder


ATTACKS = pytest.StashKey[Counter[str]]()


@pytest.fixture
def tried(request: pytest.FixtureRequest) -> Callable[..., None]:
    """``tried("flipped bytes", 392)``: attacks that a test has withstood; all of a kind are counted at the end."""
    counts = request.config.stash.setdefault(ATTACKS, Counter())

    def count(kind: str, number: int = 1) -> None:
        counts[kind] += number

    return count


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """A line for every kind of attack, as docs/security.md quotes them."""
    for kind, number in config.stash.get(ATTACKS, Counter()).items():
        terminalreporter.write_line(f"attack: {kind}: {number:,} tried, none got through")
