"""Trying again what fails in passing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def until_done(action: Callable[[], Result], pause: Callable[[Exception, int], float]) -> Result:
    """Do something until it succeeds.

    ``pause`` is told of an error and of the number of attempts so far; it gives the seconds until the next one, or
    raises what ends the trying.
    """
    attempts = 0
    while True:
        attempts += 1
        try:
            return action()
        except Exception as error:
            seconds = pause(error, attempts)
        time.sleep(seconds)
