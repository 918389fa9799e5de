"""How much memory what comes from outside may ask for, before any is taken for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache

from ule_datasets.base.errors import InputError


def number_given(variable: str, otherwise: int, unit: str) -> int:
    """The number that a variable of the environment says.

    Raises:
        InputError: it is none, or none that makes sense.
    """
    return _number(variable, os.environ.get(variable, "").strip() or str(otherwise), unit)


@lru_cache
def _number(variable: str, text: str, unit: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:13]) <= 2**40:
        raise InputError(f"{variable} is {text[:40]!r}, must be a number of {unit}")
    return int(text[:13])


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound that a variable of the environment moves."""

    variable: str
    mebibytes: int
    """Unless the variable says otherwise."""

    @property
    def bytes(self) -> int:
        """The bound as it is now.

        Raises:
            InputError: the variable is no number of mebibytes.
        """
        return 2**20 * number_given(self.variable, self.mebibytes, "mebibytes")

    def problem(self, size: int) -> str:
        """Why so many bytes are refused, to follow a subject ("the member"); empty: they are not."""
        most = self.bytes
        if size <= most:
            return ""
        return f"takes {size / 2**20:,.0f} MiB, allowed are {most >> 20:,}: {self.variable} (in MiB) allows more"


IMAGE_FILE = Limit("ULE_MAX_IMAGE_FILE", 256)
"""One encoded image, in an archive or a table."""
LABEL_FILE = Limit("ULE_MAX_LABEL_FILE", 1)
"""What says which class an image is of, in an archive."""
BATCH_FILE = Limit("ULE_MAX_BATCH_FILE", 256)
"""One of the original batches of CIFAR-10, which have 31 MB, or of CIFAR-100, with up to 155 MB."""
TABLE_PAGE = Limit("ULE_MAX_TABLE_PAGE", 1024)
"""One page of a Parquet file, unpacked."""
TABLE_FOOTER = Limit("ULE_MAX_TABLE_FOOTER", 8)
"""What a Parquet file says of itself, at its end."""
