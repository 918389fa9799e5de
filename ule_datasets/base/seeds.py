"""Where every random choice comes from: a seed, a purpose, and a cryptographic hash.

Drawing from a hash instead of from a generator's stream makes a choice depend on nothing but the seed,
the purpose and (where it concerns one sample) that sample's key: not on the order of the samples, the
number of workers, or the version of a random number library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Seed:
    """A recipe's seed; ``purpose`` words keep independent choices independent."""

    value: int

    def bytes(self, count: int, *purpose: str | int) -> bytes:
        """``count`` pseudo-random bytes (SHAKE-256 of the seed and the purpose)."""
        text = "\x1f".join(("ule", str(self.value), *(str(part) for part in purpose)))
        return hashlib.shake_256(text.encode()).digest(count)

    def integer(self, below: int, *purpose: str | int) -> int:
        """An integer in ``range(below)``, exactly uniform (by rejection)."""
        assert below > 0
        limit = (1 << 64) - (1 << 64) % below
        attempt = 0
        while True:
            drawn = int.from_bytes(self.bytes(8, *purpose, attempt), "big")
            if drawn < limit:
                return drawn % below
            attempt += 1

    def order(self, keys: Sequence[str], *purpose: str | int) -> np.ndarray:
        """A seeded permutation of ``keys``: their indices (int64), sorted by a hash of each key.

        It does not depend on the order in which the keys are given, and the order of a subset is the
        order of the whole restricted to that subset, so "the first r N" are nested in r.
        """
        hashes = [self.bytes(16, *purpose, key) for key in keys]
        return np.array(sorted(range(len(keys)), key=hashes.__getitem__), dtype=np.int64)

    def integer32(self, *purpose: str | int) -> int:
        """A 31-bit integer, for seeding a library's own generator."""
        return int.from_bytes(self.bytes(4, *purpose), "big") >> 1
