"""Trying again what fails in passing."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def until_done(action: Callable[[], Result], pause: Callable[[Exception, int], float]) -> Result:
    """Do something until it succeeds.

    Args:
        action: what to do.
        pause: told of an error and of the number of attempts so far; gives the seconds until the next one, or raises
            what ends the trying.
    """
    for attempts in itertools.count(1):
        try:
            return action()
        except Exception as error:
            seconds = pause(error, attempts)
        time.sleep(seconds)
    raise AssertionError("unreachable")
