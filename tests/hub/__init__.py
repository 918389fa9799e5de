"""A Hub on this machine, for tests with the Hub's own unmodified clients.

    with HubServer() as hub:
        subprocess.run([...], env=hub.environment(token=WRITE_TOKEN, home=tmp_path))
        assert hub.files("tester/digits")["README.md"] == ...
        assert hub.unexpected == []

Two HTTP origins, as the real one has; dataset repositories only; uploads by Xet with ``Settings(xet=True)``.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Self

from . import transfer, xet  # noqa: F401 - they register routes
from .api import Counters, HubApi, Settings, Token
from .repository import CHUNK, MAIN, BlobStore, Commit, File, Repository
from .traffic import (
    Fault,
    Origin,
    Request,
    Rule,
    Traffic,
    cut_download,
    cut_upload,
    delay,
    disconnect,
    garbage,
    lose_answer,
    status,
)

__all__ = [
    "READ_TOKEN",
    "STRANGER_TOKEN",
    "TOKENS",
    "WRITE_TOKEN",
    "Commit",
    "Counters",
    "Fault",
    "HubServer",
    "LargeFile",
    "Repository",
    "Request",
    "Rule",
    "Settings",
    "Token",
    "cut_download",
    "cut_upload",
    "delay",
    "disconnect",
    "garbage",
    "lose_answer",
    "status",
]

WRITE_TOKEN, READ_TOKEN, STRANGER_TOKEN = "hf_for_writing", "hf_for_reading", "hf_of_a_stranger"
TOKENS = {
    WRITE_TOKEN: Token("tester", "write", {"ule": "admin"}),
    READ_TOKEN: Token("tester", "read", {"ule": "admin"}),
    STRANGER_TOKEN: Token("stranger"),
}
"""The tokens of a Hub for which a test does not give its own."""


class LargeFile(NamedTuple):
    """A file in LFS."""

    size: int
    sha256: str


class HubServer:
    """A Hub for dataset repositories, for unmodified clients with ``HF_ENDPOINT`` at ``url``.

    Large files come from and go to a second origin, ``storage_url``, by signed links, as on the real Hub; with
    ``Settings(xet=True)``, clients that have Xet upload them there in chunks instead, each only once.
    """

    def __init__(
        self, *, tokens: Mapping[str, Token] = TOKENS, settings: Settings | None = None, memory_limit: int = 2**20
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hub-", ignore_cleanup_errors=True)
        self.api = HubApi(BlobStore(Path(self._folder.name), memory_limit), tokens, settings or Settings())
        self._traffic = Traffic(self.api)
        self.faults = self._traffic.faults
        self.requests = self._traffic.requests
        """All requests in the order in which they came, to both origins."""
        self._origins = [Origin(self._traffic), Origin(self._traffic)]
        self.api.url, self.api.storage_url = (origin.url for origin in self._origins)

    def __enter__(self) -> Self:
        """Begin to answer."""
        self._threads = [threading.Thread(target=origin.serve_forever, args=(0.05,)) for origin in self._origins]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and cut all connections."""
        self._traffic.closing.set()
        for origin in self._origins:
            origin.shutdown()
            origin.server_close()
        for thread in self._threads:
            thread.join()
        self._folder.cleanup()

    @property
    def url(self) -> str:
        """What ``HF_ENDPOINT`` must be."""
        return self.api.url

    @property
    def storage_url(self) -> str:
        """Where large files are."""
        return self.api.storage_url

    @property
    def counters(self) -> Counters:
        """What clients have brought."""
        return self.api.counters

    @property
    def unexpected(self) -> list[str]:
        """Requests that this server does not know, and its own mistakes: empty after every test."""
        return self.api.unexpected

    @property
    def downloads(self) -> list[tuple[str, str | None]]:
        """Path and ``Range`` header of every GET of a file."""
        gets = [request for request in self.requests if request.file is not None and request.method == "GET"]
        return [(str(request.file), request.range) for request in gets]

    def environment(self, *, token: str | None = None, home: Path, **more: str) -> dict[str, str]:
        """The environment of a process whose Hub this is; ``home`` holds its caches and nothing of the user's."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not re.match(r"HF_|HUGGING_?FACE|.*_proxy$", name, re.IGNORECASE)
        }
        return {
            **inherited,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_DATASETS_CACHE": str(home / "datasets"),
            "HF_TOKEN": token or "",
            **({"HF_XET_CACHE": str(home / "xet")} if self.api.settings.xet else {"HF_HUB_DISABLE_XET": "1"}),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "NO_PROXY": "*",
            "no_proxy": "*",
            **more,
        }

    # --- looking and changing without HTTP

    def repository(self, repo: str) -> Repository:
        """All that is kept of a repository: privacy, gate, objects, commits."""
        return self.api.repositories[repo]

    def create(self, repo: str, *, private: bool = False, gated: str | bool = False) -> Repository:
        """Make an empty repository, of any owner."""
        with self.api.lock:
            return self.api.create(repo, private=private, gated=gated)

    def put(
        self, repo: str, files: Mapping[str, bytes | Path], *, delete: Iterable[str] = (), branch: str = MAIN
    ) -> str:
        """Commit files, into a new repository if there is none, and return the commit id."""
        with self.api.lock:
            blobs = self.api.blobs
            received = {path: blobs.keep(blobs.receive(_chunks(source))) for path, source in files.items()}
            repository = self.api.repositories.get(repo) or self.api.create(repo)
            content = dict(repository.head(branch).files)
            for path in delete:
                del content[path]
            for path, blob in received.items():
                large = self.api.is_large(repository, path, blob.size, blob.read(0, 512))
                content[path] = File(blob, lfs=large)
                repository.objects |= {blob.sha256} if large else set()
            return repository.commit(branch, content, "put by a test", author="test").oid

    def tag(self, repo: str, name: str, revision: str = MAIN) -> None:
        """Tag a revision, or move the tag."""
        with self.api.lock:
            self.repository(repo).tags[name] = self._commit(repo, revision).oid

    def files(self, repo: str, revision: str = MAIN) -> dict[str, bytes | LargeFile]:
        """What a revision holds: the bytes of regular files; size and SHA-256 of those in LFS."""
        files = self._commit(repo, revision).files
        return {
            path: LargeFile(file.blob.size, file.blob.sha256) if file.lfs else file.blob.read()
            for path, file in sorted(files.items())
        }

    def read(self, repo: str, path: str, revision: str = MAIN) -> bytes:
        """The bytes of a file, wherever they are."""
        return self._commit(repo, revision).files[path].blob.read()

    def commits(self, repo: str, revision: str = MAIN) -> list[Commit]:
        """The history of a revision, newest first; the last one is the Hub's own."""
        return list(self._commit(repo, revision).history())

    def refs(self, repo: str) -> dict[str, str]:
        """Commit ids by ``refs/heads/BRANCH`` and ``refs/tags/TAG``."""
        repository = self.repository(repo)
        branches = {f"refs/heads/{name}": oid for name, oid in repository.branches.items()}
        return branches | {f"refs/tags/{name}": oid for name, oid in repository.tags.items()}

    def _commit(self, repo: str, revision: str) -> Commit:
        commit = self.repository(repo).find(revision)
        if commit is None:
            raise KeyError(f"{repo} has no revision {revision!r}")
        return commit


def _chunks(source: bytes | Path) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
