"""SIGTERM ends a command as Ctrl-C does, in one line, with a code of its own."""

from __future__ import annotations

import json
import signal

import pytest

from ule_datasets.cli.running import run


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_in_one_line_and_a_code_of_its_own(
    number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def work(_: list[str]) -> int:
        signal.raise_signal(number)
        return 0

    assert run("ule-verify", work, []) == code
    assert capsys.readouterr().err == "ule-verify: interrupted; the same command continues where it stopped\n"
    assert signal.getsignal(signal.SIGTERM) == before == signal.SIG_DFL


def test_whoever_handles_it_already_goes_on_to() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        assert run("ule-verify", lambda _: signal.raise_signal(signal.SIGTERM) or 0, []) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]


def test_the_answer_for_programs_has_that_code_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ule-verify", lambda _: signal.raise_signal(signal.SIGTERM) or 0, ["--json"]) == 143
    assert json.loads(capsys.readouterr().out)["code"] == 143
