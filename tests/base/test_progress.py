"""What people are told while they wait: how far, how fast, how long; and nothing where they asked for silence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from ule_datasets.base import progress
from ule_datasets.base.progress import Reporter, duration


class Clock:
    """Stands for the module ``time``: ten seconds pass whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 10.0
        return self.now

    perf_counter = monotonic


class Bar:
    """Stands for a bar of tqdm: keeps what it is told."""

    made: list[Bar]

    def __init__(self, **options: Any) -> None:
        self.options, self.done, self.words = options, 0, list[str]()
        self.made.append(self)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.words.append("gone")

    def set_postfix_str(self, text: str, *, refresh: bool) -> None:
        assert not refresh
        self.words.append(text)

    def update(self) -> None:
        self.done += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    stopped = Clock()
    monkeypatch.setattr(progress, "time", stopped)
    return stopped


def taken_one_by_one(taken: list[int]) -> Iterator[int]:
    for item in range(3):
        taken.append(item)
        yield item


@pytest.mark.parametrize("silent", [False, True])
def test_items_pass_through_as_they_are_asked_for(silent: bool) -> None:
    taken: list[int] = []
    tracked = Reporter(silent=silent).track(taken_one_by_one(taken), total=3, label="reading", unit="chunk")
    assert taken == []
    assert next(tracked) == 0
    assert taken == [0]
    assert list(tracked) == [1, 2]


@pytest.mark.usefixtures("clock")
def test_without_a_terminal_lines_say_how_many_how_fast_and_how_long(capsys: pytest.CaptureFixture[str]) -> None:
    items = [100, 300, 200]
    tracked = Reporter().track(items, total=3, label="reading photos", unit="chunk", images=lambda size: size)
    assert list(tracked) == items
    lines = capsys.readouterr().err.splitlines()
    pattern = re.compile(r"reading photos: (\d) of 3 chunks, ([\d,]+) images/s(?:, about (\d+) s left)?")
    found = [pattern.fullmatch(line) for line in lines]
    assert [match[1] for match in found if match] == ["1", "2", "3"]
    assert [int(match[2]) for match in found if match] == [10, 20, 20], "600 images in half a minute"
    assert [match[3] for match in found if match] == ["20", "10", None]


def test_lines_come_ten_seconds_apart(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(Reporter().track(range(1000), total=1000, label="reading", unit="chunk")) == list(range(1000))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(progress, "OF_THE_TIME", 0.0)
    assert list(Reporter().track("ab", total=2, label="reading", unit="chunk")) == ["a", "b"]
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"reading: 1 of 2 chunks, about 1 s left", first)
    assert second == "reading: 2 of 2 chunks"


class Minutes(Clock):
    """A minute passes whenever somebody looks."""

    def monotonic(self) -> float:
        self.now += 60.0
        return self.now


def test_long_work_tells_of_itself_ever_more_rarely(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "time", Minutes())
    reporter, hours = Reporter(), 10
    for label in ("reading", "training"):
        assert len(list(reporter.track(range(30 * hours), total=30 * hours, label=label, unit="step"))) == 30 * hours
    told = [int(line.split()[1]) for line in capsys.readouterr().err.splitlines()]
    assert 40 < len(told) < 50, "an hour's lines are as many as ten hours'"
    assert told[:3] == [1, 2, 3]


def test_what_takes_longer_than_was_said_is_corrected(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "time", Minutes())
    reporter = Reporter()
    reporter.expect(600.0, "training")
    assert len(list(reporter.track(range(30), total=30, label="training", unit="epoch"))) == 30
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 1 of 30 epochs, about 29 min left, 30 min in all, not 10 min as it seemed"
    assert "seemed" not in "".join(lines[1:]), "said once"
    assert list(reporter.track("a", total=1, label="training", unit="epoch")) == ["a"]
    assert "seemed" not in capsys.readouterr().err, "expected once"


def test_a_forecast_is_corrected_when_it_proves_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "time", clock := Clock())
    forecast = progress.Forecast(120.0, 10, "round")
    assert forecast.after(1) == "", "as was said"
    clock.now += 170.0
    assert forecast.after(4) == "a round takes 48 s, not 12 s as it seemed: about 5 min left for 6 rounds"
    assert forecast.after(4) == ""
    clock.now += 1000.0
    assert forecast.after(10) == "a round takes 121 s, not 48 s as it seemed".replace("121 s", "2 min")


@pytest.mark.usefixtures("clock")
def test_on_a_terminal_a_bar_shows_images_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    Bar.made = []
    monkeypatch.setattr("tqdm.tqdm", Bar)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    tracked = Reporter().track([5000, 7000], total=2, label="reading", unit="chunk", images=lambda size: size)
    assert list(tracked) == [5000, 7000]
    [bar] = Bar.made
    assert (bar.options["total"], bar.options["desc"], bar.options["unit"]) == (2, "reading", "chunk")
    assert bar.done == 2
    assert bar.words == ["500 images/s", "600 images/s", "gone"]
    assert list(Reporter().track([1], total=1, label="searching", unit="class")) == [1]
    assert Bar.made[1].words == ["gone"], "no images, no speed"


def test_silence_still_warns(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(silent=True)
    reporter.say("nothing")
    assert list(reporter.track("ab", total=2, label="reading", unit="chunk", images=len)) == ["a", "b"]
    reporter.warn("task 3 lost its worker")
    assert capsys.readouterr().err == "warning: task 3 lost its worker\n"


@pytest.mark.usefixtures("clock")
def test_times_of_a_phase_add_up_even_when_it_fails() -> None:
    reporter = Reporter(silent=True)
    for _ in range(2):
        with reporter.phase("read source"):
            pass
    with pytest.raises(KeyError), reporter.phase("craft"):
        raise KeyError
    assert reporter.seconds == {"read source": 20.0, "craft": 10.0}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.01, "1 s"),
        (2.6, "3 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7000, "117 min"),
        (7200, "2.0 h"),
        (18_900, "5.2 h"),
    ],
)
def test_times_are_for_people(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected
