"""What a file is by its first bytes, where it is not what its name says: for messages that say what to do."""

from __future__ import annotations

import re

GZIP = b"\x1f\x8b"
HEAD = 512
"""Bytes that ``mistaken`` looks at."""
_UNPACK = "unpack it, and give what it holds"
_AT_START = (
    (b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS, not the file itself: run git lfs pull"),
    (b"PK\x03\x04", f"a zip archive: {_UNPACK}"),
    (b"PK\x05\x06", "an empty zip archive"),
    (GZIP, f"compressed with gzip: {_UNPACK}"),
    (b"BZh", f"compressed with bzip2: {_UNPACK}"),
    (b"\xfd7zXZ\x00", f"compressed with xz: {_UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"compressed with zstd: {_UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7-Zip archive: {_UNPACK}"),
    (b"Rar!\x1a\x07", f"a RAR archive: {_UNPACK}"),
    (b"PAR1", "a Parquet file: call it .parquet"),
    (b"ARROW1", "an Arrow file: write it as Parquet"),
    (b"\x89HDF", "an HDF5 file: write its images as files or Parquet"),
    (b"\x93NUMPY", "a NumPy array: write its images as files or Parquet"),
    (b"%PDF", "a PDF document"),
)
_PAGE = re.compile(rb"\s*(\xef\xbb\xbf)?\s*<(!doctype html|html|\?xml)", re.IGNORECASE)
_ANNEX = re.compile(rb"(/|\.\./)*(\.git/)?annex/objects/")


def mistaken(head: bytes) -> str | None:
    """What else a file is, and what to do about it, by its first ``HEAD`` bytes; ``None``: nothing that is known."""
    if not head:
        return "empty: an incomplete download?"
    for signature, what in _AT_START:
        if head.startswith(signature):
            return what
    if head[257:262] == b"ustar":
        return "a tar archive: call it .tar"
    if _PAGE.match(head):
        return "a web page, perhaps of an error or a login: download the file again"
    if _ANNEX.match(head):
        return "a pointer of git-annex, not the file itself: run git annex get"
    return None
