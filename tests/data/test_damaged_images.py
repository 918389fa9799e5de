"""Damaged images of every format are an image or one refusal, within bounds of memory and time.

They are decoded in a process of their own, whose memory is limited: a decoder may also take the process with it.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

FEW, MANY = 2_000, 200_000
MEBIBYTES = 1024
"""Of memory, beyond what the process has before it decodes anything; an image may have 16 million pixels here."""
PIXELS = 2**24
SECONDS = 30
"""For one image."""


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_damaged_images_are_an_image_or_one_refusal(count: int, tried: Callable[..., None]) -> None:
    here = Path(__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parents[1]), *sys.path])}
    command = [sys.executable, str(here), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert sum(found["outcomes"].values()) == count
    assert found["outcomes"]["refused"] > count // 2
    assert found["outcomes"]["an image"] > count // 20
    assert found["mebibytes"] < MEBIBYTES
    tried("damaged images of every format", count)


def damaged(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, most of them near the beginning, where headers are; cut, stretched, joined with another."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(min(len(changed), rng.choice((64, 256, len(changed)))))
        match rng.randrange(6):
            case 0:
                changed[place] = rng.randrange(256)
            case 1:
                changed[place] ^= 1 << rng.randrange(8)
            case 2:
                word = rng.choice(
                    (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\xff\xff", b"\0\1", b"\x80\0")
                )
                changed[place : place + len(word)] = word
            case 3:
                del changed[place : place + rng.randrange(1, 32)]
            case 4:
                changed[place:place] = changed[place : place + rng.randrange(1, 32)]
            case 5:
                changed[place:] = (
                    other[place:] if rng.random() < 0.3 else changed[place : place + rng.randrange(1, 999)]
                )
        if not changed:
            break
    return bytes(changed)


def decode_all(count: int) -> None:
    """Print, as JSON, how many damaged images were what, and how much memory that took."""
    from odd_images import NEVER, ODD, PLAIN, TURNABLE, exif

    from ule_datasets.base.errors import InputError
    from ule_datasets.data.codec import FINISHED, Rules, decode_rgb, only_our_bounds

    images = [*PLAIN.values(), *(odd.data for odd in ODD.values()), *(data for data, _ in NEVER.values())]
    images += [make(exif(6)) for make in TURNABLE.values()]
    rules = (Rules(max_pixels=PIXELS), Rules(convert=True, max_pixels=PIXELS), FINISHED)
    for data in images:  # everything is imported
        for rule in rules:
            outcome(decode_rgb, data, rule, InputError)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (virtual + MEBIBYTES * 2**20,) * 2)
    outcomes, slowest, rng = Counter[str](), 0.0, random.Random(0)
    with only_our_bounds(PIXELS):
        for index in range(count):
            data = damaged(images[index % len(images)], rng.choice(images), rng)
            signal.alarm(SECONDS)
            started = time.perf_counter()
            try:
                outcomes[outcome(decode_rgb, data, rules[index % 2], InputError)] += 1
            except BaseException as error:
                print(f"image {index}: {error!r}: {data.hex()}")
                raise
            slowest = max(slowest, time.perf_counter() - started)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"outcomes": outcomes, "mebibytes": grown // 1024, "slowest": round(slowest, 2)}))


def outcome(decode, data, rules, refusal) -> str:  # type: ignore[no-untyped-def]
    try:
        decode(data, "it", rules)
    except refusal:
        return "refused"
    return "an image"


if __name__ == "__main__":
    decode_all(int(sys.argv[1]))
