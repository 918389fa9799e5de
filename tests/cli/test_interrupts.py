"""Ctrl-C ends a command in one line and with code 130, whenever it comes and whoever else hears it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ule_datasets.cli.interrupts import ONE_PRESS, Interrupts
from ule_datasets.cli.running import INTERRUPTED, run

BUILD = ("build", "digits-s", "--workers", "2", "--no-cache", "--out")
VERIFY = ("verify", "--workers", "2", "--seeds", "3", "--report")


class Ended(NamedTuple):
    """How a command ended that was told to stop: ``None`` if it was done before."""

    code: int
    lines: list[str]
    seconds: float


def press(words: tuple[str, ...], moment: float, folder: Path, *, ignored: bool = False) -> Ended | None:
    """Start a command as its console script does; so many seconds later, its terminal sends Ctrl-C to all of it.

    ``ignored``: in the background of a shell, which lets its jobs ignore the signal, and a signal to it alone.
    """
    name, *arguments = words
    script = folder / f"ule-{name}"
    script.write_text(
        f"import sys\nfrom ule_datasets.cli.start import {name}\n"
        f"if __name__ == '__main__':\n    print('started', flush=True)\n    sys.exit({name}())\n"
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=environment,
    )
    signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    try:
        process.wait(moment)
        process.stdout.close()
    except subprocess.TimeoutExpired:
        pressed = time.monotonic()
        (os.kill if ignored else os.killpg)(process.pid, signal.SIGINT)
        lines = process.communicate(timeout=60)[0].splitlines()  # also of workers, as long as there are any
        return Ended(process.returncode, lines, time.monotonic() - pressed)
    else:
        return None


def check(name: str, ended: Ended) -> None:
    assert ended.code == INTERRUPTED, ended
    assert ended.lines[-1].startswith(f"ule-{name}: interrupted"), ended
    for line in ended.lines[:-1]:  # what it told of its work before
        assert line.strip(), ended
        assert not line.startswith((" ", "Traceback", "Exception", f"ule-{name}:")), ended
        assert "Error" not in line, ended
        assert "KeyboardInterrupt" not in line, ended


@pytest.mark.parametrize(("moment", "ignored"), [(0.02, False), (0.6, True), (1.5, False)])
def test_ctrl_c_in_the_first_seconds_ends_in_one_line(tmp_path: Path, moment: float, ignored: bool) -> None:
    ended = press((*BUILD, str(tmp_path / "x")), moment, tmp_path, ignored=ignored)
    assert ended is not None
    check("build", ended)


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [False, True], ids=["terminal", "background"])
@pytest.mark.parametrize("words", [BUILD, VERIFY], ids=lambda words: words[0])
def test_ctrl_c_at_any_moment_ends_in_one_line(
    built_digits: Path, tmp_path: Path, words: tuple[str, ...], ignored: bool, tried: Callable[..., None]
) -> None:
    dataset = [str(built_digits)] if words is VERIFY else []
    for number in range(50):
        place = tmp_path / str(number)
        place.mkdir()
        ended = press((*words, str(place / "x"), *dataset), 0.02 + number * 8 / 49, place, ignored=ignored)
        if ended is not None:
            check(words[0], ended)
            tried("Ctrl-C between 0 and 8 s")


# --- what is raised, and when --------------------------------------------------------------------------------


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def wait() -> int:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        time.sleep(0.01)
    return 0


def swallowed_by_a_handler() -> int:
    with contextlib.suppress(BaseException):
        ctrl_c()
    return wait()


def swallowed_while_something_is_deleted() -> int:
    class Deleted:
        def __del__(self) -> None:
            ctrl_c()

    Deleted()
    return wait()


def turned_into_another_error() -> int:
    try:
        ctrl_c()
    except BaseException as error:
        raise ImportError("numpy is not there") from error
    return wait()


def while_a_library_is_imported(folder: Path) -> int:
    (folder / "interrupted_library.py").write_text(
        "import signal\ntry:\n    signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt:\n    print('heard')\n"
    )
    sys.path.insert(0, str(folder))
    try:
        import interrupted_library  # type: ignore[import-not-found]  # noqa: F401
    finally:
        sys.path.remove(str(folder))
    return wait()


def when_all_is_done() -> int:
    try:
        ctrl_c()
    except KeyboardInterrupt:
        return 0
    return 0


@pytest.mark.parametrize(
    "work",
    [
        swallowed_by_a_handler,
        swallowed_while_something_is_deleted,
        turned_into_another_error,
        while_a_library_is_imported,
        when_all_is_done,
    ],
)
def test_nobody_swallows_it(work: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    code = run("ule-x", lambda _: work(tmp_path) if work is while_a_library_is_imported else work(), [])
    assert code == INTERRUPTED
    assert time.monotonic() - started < 5
    out, err = capfd.readouterr()
    assert (out, err) == ("", "ule-x: interrupted; the same command continues where it stopped\n")


@pytest.fixture
def pressed_before() -> Iterator[list[int]]:
    """Signals that came to whoever listened before the command."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    yield pressed
    signal.signal(signal.SIGINT, before)


def test_what_is_busy_with_its_end_is_left_in_peace_until_a_second_ctrl_c(pressed_before: list[int]) -> None:
    ended = []
    with pytest.raises(KeyboardInterrupt), Interrupts():  # noqa: PT012
        try:
            ctrl_c()
        finally:
            ctrl_c()  # one press may come as several signals
            assert pressed_before == []
            time.sleep(ONE_PRESS + 0.1)
            ctrl_c()
            assert pressed_before == [signal.SIGINT]
            ended.append(True)
    assert ended
    ctrl_c()
    assert pressed_before == [signal.SIGINT, signal.SIGINT], "all is as before"
