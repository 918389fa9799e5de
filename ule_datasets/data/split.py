"""Clean images: one split, in canonical order, with stable keys and an order-free digest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from ule_datasets.base.seeds import Seed
from ule_datasets.data.spool import Images, view

KEY_DIGITS = 16
DIGEST_BLOCK = 256
"""Images that are read at a time only to take their digests."""


def sample_digest(image: np.ndarray, label: int) -> bytes:
    """Sha256 of an image's H x W x C uint8 bytes followed by its label.

    The label is one byte below 256, two bytes (big-endian) below 65,536 and four bytes from there on.
    """
    size = 1 if label < 256 else 2 if label < 65_536 else 4
    return hashlib.sha256(image.tobytes() + label.to_bytes(size, "big")).digest()


def order_free_digest(digests: Iterable[bytes]) -> str:
    """Hex sha256 over the sorted sample digests: the same for any order, file format or encoder."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def keys_from_digests(digests: Sequence[bytes]) -> list[str]:
    """Keys made of the first 16 hex digits of each sample digest, in the order given.

    Exact duplicates (and colliding prefixes) get a counter, ``-1``, ``-2``, ...: which of two equal
    samples gets which key makes no difference to anything that is written.
    """
    keys = [""] * len(digests)
    seen: Counter[str] = Counter()
    for index in sorted(range(len(digests)), key=digests.__getitem__):
        prefix = digests[index].hex()[:KEY_DIGITS]
        keys[index] = f"{prefix}-{seen[prefix]}" if seen[prefix] else prefix
        seen[prefix] += 1
    return keys


def canonical_order(keys: Sequence[str]) -> np.ndarray:
    """Indices that sort by a hash of the key: classes come mixed, shards read in order are shuffled."""
    hashes = [hashlib.sha256(key.encode()).digest() for key in keys]
    return np.array(sorted(range(len(keys)), key=hashes.__getitem__), dtype=np.int64)


def share_of(rate: float, count: int) -> int:
    """``int(rate * count)`` without the surprises of binary fractions: 0.29 of 100 is 29."""
    return int(Fraction(str(rate)) * count)


def poisoned_keys(keys: Sequence[str], rate: float, seed: Seed) -> tuple[str, ...] | None:
    """The samples that are perturbed at a poison rate, in the order given; ``None``: all of them.

    Those of a lower rate are among those of a higher one.
    """
    if rate == 1:
        return None
    order = seed.order(keys, "poison rate")
    return tuple(keys[row] for row in sorted(order[: share_of(rate, len(keys))].tolist()))


def first_rows(labels: np.ndarray, count: int) -> np.ndarray:
    """Where the first ``count`` samples of each class stand (int64, ascending)."""
    order = np.argsort(labels, kind="stable")
    classes = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return np.sort(np.concatenate([members[:count] for members in classes]))


def positions_of(keys: Sequence[str], among: Sequence[str]) -> np.ndarray:
    """Where each key stands in another list of keys (int64, [N]); -1 where it does not."""
    place = {key: index for index, key in enumerate(among)}
    return np.array([place.get(key, -1) for key in keys], dtype=np.int64)


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Split:
    """The samples of one split in canonical order."""

    name: str
    images: Images
    """uint8, [N, H, W, 3]; on disk where there may be more than memory holds (``np.asarray`` reads them)."""
    labels: np.ndarray
    """int64, [N]."""
    keys: tuple[str, ...]
    digest: str
    """Order-free digest of pixels and labels (hex)."""
    place: np.ndarray | None = None
    """int64, [N]: which in the order of the source's files each sample is; ``None``: not known."""

    @classmethod
    def from_samples(
        cls, name: str, images: Images, labels: np.ndarray, digests: list[bytes], keys: Sequence[str] | None = None
    ) -> Split:
        """Bring the samples into canonical order, by the keys given or those that their digests make."""
        keys = keys_from_digests(digests) if keys is None else keys
        order = canonical_order(keys)
        return cls(
            name=name,
            images=view(images, order),
            labels=labels[order],
            keys=tuple(keys[i] for i in order),
            digest=order_free_digest(digests),
            place=order,
        )

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, start: int, stop: int) -> Split:
        """Samples ``start`` to ``stop`` of this split; images and labels are views.

        Its ``digest`` stays that of the whole split: a range is a part, not a split of its own.
        """
        part = slice(start, stop)
        place = None if self.place is None else self.place[part]
        images = view(self.images, part)
        return replace(self, images=images, labels=self.labels[part], keys=self.keys[part], place=place)

    def pixels(self, rows: np.ndarray | None = None) -> np.ndarray:
        """Images in memory, all or those of some rows: uint8 [M, H, W, 3]."""
        pixels: np.ndarray = np.asarray(self.images) if rows is None else self.images[rows]
        return pixels

    def batches(self, size: int) -> Iterator[Split]:
        """The split in canonical order, ``size`` samples at a time."""
        for start in range(0, len(self), size):
            yield self.rows(start, start + size)

    def stratified_rows(self, share: float, seed: Seed, *purpose: str) -> np.ndarray:
        """A seeded share of each class, at least one image of it: indices (int64, ascending).

        For one purpose the rows of a smaller share are among those of a larger one.
        """
        order = seed.order(self.keys, *purpose)
        rows = []
        for number in np.unique(self.labels):
            members = order[self.labels[order] == number]
            rows.append(members[: max(1, share_of(share, len(members)))])
        return np.sort(np.concatenate(rows))

    def first_per_class(self, count: int) -> Split:
        """The first ``count`` samples of each class, as a split with a digest of its own."""
        rows = first_rows(self.labels, count)
        keys = tuple(self.keys[row] for row in rows)
        place = None if self.place is None else self.place[rows]
        part = replace(self, images=view(self.images, rows), labels=self.labels[rows], keys=keys, place=place)
        batches = part.batches(DIGEST_BLOCK)
        digests = (d for batch in batches for d in map(sample_digest, batch.pixels(), batch.labels.tolist()))
        return replace(part, digest=order_free_digest(digests))
