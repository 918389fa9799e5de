"""A Hub without its network, continued: large files that come in chunks, none of them twice (Xet).

A client cuts files into chunks, uploads those that it has not uploaded before, many in one "xorb", and then a "shard",
which says of which chunks each file consists. The file is put together when its shard comes and is then one like any
other large file: there are no downloads by Xet.
"""

from __future__ import annotations

import secrets
import struct
import time
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from .api import REPOSITORY, REVISION, Call, HubApi, HubError, route
from .repository import Repository
from .traffic import Response
from .transfer import store

LIFETIME = 3600
"""Seconds for which a token for chunks is good."""


class Range(NamedTuple):
    """A part of a file: chunks of one xorb, from ``start`` to before ``stop``."""

    xorb: str
    size: int
    start: int
    stop: int


# --- requests ---------------------------------------------------------------------------------------------


@route("GET", rf"{REPOSITORY}/xet-(?P<access>read)-token/{REVISION}", "read", xet=True)
@route("GET", rf"{REPOSITORY}/xet-(?P<access>write)-token/{REVISION}", "write", xet=True)
def give_token(api: HubApi, call: Call) -> Response:
    """Where chunks are, and a token that opens only that place, and only for this repository."""
    if call.query:
        return api.unknown(call.request, "pull requests")
    api.find(call.repository, call.names["revision"])
    token, expires = f"xet_{secrets.token_hex(8)}", int(time.time()) + LIFETIME
    api.xet_tokens[token] = call.repository.name, call.names["access"]
    headers = {
        "X-Xet-Cas-Url": api.storage_url,
        "X-Xet-Access-Token": token,
        "X-Xet-Token-Expiration": str(expires),
    }
    return Response.of({"casUrl": api.storage_url, "accessToken": token, "exp": expires}, headers=headers)


@route("GET", r"/v1/chunks/[^/]+/(?P<hash>\w{64})", xet=True)
def find_chunk(api: HubApi, call: Call) -> Response:
    """No answer: a client knows what it has sent itself, and learns nothing of what others have."""
    _repository(api, call, "read", "write")
    raise HubError(404, "Chunk not found")


@route("POST", r"/v1/xorb-grants/[^/]+/(?P<hash>\w{64})", xet=True)
@route("POST", r"/v2/shards", xet=True)
def decline(api: HubApi, call: Call) -> Response:
    """Newer ways to upload; clients fall back to the older ones below."""
    _repository(api, call, "write")
    raise HubError(404, "Not found")


@route("POST", r"/v1/xorbs/[^/]+/(?P<hash>\w{64})", xet=True)
def upload_xorb(api: HubApi, call: Call) -> Response:
    """Take chunks. Their digest is BLAKE3 and not checked here; that of the files is."""
    _repository(api, call, "write")
    name, new = call.names["hash"], call.names["hash"] not in api.xorbs
    chunk_bounds(call.body.read())
    api.counters.bytes_uploaded += call.body.size
    if new:
        api.xorbs[name] = api.blobs.keep(call.body)
    return Response.of({"was_inserted": new})


@route("POST", r"/v1/shards", xet=True)
def upload_shard(api: HubApi, call: Call) -> Response:
    """Make files of chunks that have come."""
    repository = _repository(api, call, "write")

    @lru_cache(maxsize=2)
    def chunks(name: str) -> tuple[bytes, list[int]]:
        if name not in api.xorbs:
            raise HubError(400, f"Xorb {name} has not been uploaded")
        content = api.xorbs[name].read()
        return content, chunk_bounds(content)

    def content_of(ranges: list[Range]) -> Iterator[bytes]:
        for xorb, size, start, stop in ranges:
            content, bounds = chunks(xorb)
            if not start < stop < len(bounds):
                raise HubError(400, f"Xorb {xorb} has no chunks from {start} to {stop}")
            part = b"".join(unpack(content[a:b]) for a, b in pairwise(bounds[start : stop + 1]))
            if len(part) != size:
                raise HubError(400, f"Chunks {start} to {stop} of xorb {xorb} are {len(part)} bytes, not {size}")
            yield part

    for sha256, ranges in read_shard(call.body.read()):
        if sha256 not in repository.objects:
            blob = api.blobs.receive(content_of(ranges))
            store(api, repository.name, sha256, sum(part.size for part in ranges), blob)
    return Response.of({"result": 1})


@route("POST", r"/v1/telemetry", xet=True)
def hear_telemetry(api: HubApi, call: Call) -> Response:
    """Thank you."""
    return Response.of({})


def _repository(api: HubApi, call: Call, *access: str) -> Repository:
    """The repository for which the token was given, if it was given for one of these."""
    name, given = api.xet_tokens.get(call.request.token or "", ("", ""))
    if name not in api.repositories:
        raise HubError(401, "Invalid or expired token")
    if given not in access:
        raise HubError(403, f"The token is for {given}")
    return api.repositories[name]


# --- formats (https://huggingface.co/docs/xet) ------------------------------------------------------------


def chunk_bounds(xorb: bytes) -> list[int]:
    """Where each chunk of a xorb begins, and where the last one ends; a table of contents may follow."""
    bounds = [0]
    while bounds[-1] < len(xorb) and not xorb.startswith(b"XETBLOB", bounds[-1]):
        header = xorb[bounds[-1] : bounds[-1] + 8]
        bounds.append(bounds[-1] + 8 + int.from_bytes(header[1:4], "little"))
        if len(header) < 8 or header[0] or header[4] > 2 or bounds[-1] > len(xorb):
            raise HubError(400, f"Malformed chunk {len(bounds) - 2}")
    return bounds


def unpack(chunk: bytes) -> bytes:
    """The content of a chunk: plain, LZ4, or LZ4 of every first byte of four, every second, and so on."""
    scheme, size, packed = chunk[4], int.from_bytes(chunk[5:8], "little"), chunk[8:]
    if scheme == 0:
        return packed
    import pyarrow as pa  # what needs it brings it: nothing else here is outside of the standard library

    content = bytes(pa.decompress(packed, size, codec="lz4", asbytes=True))
    if scheme == 1:
        return content
    grouped, start = bytearray(size), 0
    for first in range(4):
        stop = start + len(range(first, size, 4))
        grouped[first::4], start = content[start:stop], stop
    return bytes(grouped)


def read_shard(shard: bytes) -> list[tuple[str, list[Range]]]:
    """SHA-256 and parts of each file; the rest of a shard only repeats what xorbs tell."""
    rows = [shard[start : start + 48] for start in range(0, len(shard), 48)]
    if int.from_bytes(rows[0][32:40], "little") != 2:
        raise HubError(400, "Unknown version of a shard")
    files, row = [], 1
    while rows[row][:32] != b"\xff" * 32:
        flags, count = struct.unpack_from("<2I", rows[row], 32)
        parts = [Range(_hex(part), *struct.unpack_from("<3I", part, 36)) for part in rows[row + 1 : row + 1 + count]]
        row += 1 + count * (2 if flags & 1 << 31 else 1)
        if not flags & 1 << 30:
            raise HubError(400, "A file without its SHA-256")
        files.append((_hex(rows[row]), parts))
        row += 1
    return files


def _hex(row: bytes) -> str:
    """The digest with which it begins, as text: four numbers, each with its lowest byte first."""
    return "".join(f"{number:016x}" for number in struct.unpack_from("<4Q", row))
