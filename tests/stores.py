"""Remote stores on this machine: an S3 of moto's, and a web server that can be made to misbehave."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ule_datasets.places import urls as remote


@contextmanager
def s3_endpoint(url: str) -> Iterator[None]:
    """What speaks S3 in this process and those it starts, speaks to the server there."""
    from s3fs import S3FileSystem

    settings = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "not-so-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        _forget(S3FileSystem)
        yield
        _forget(S3FileSystem)


def _forget(kind: Any) -> None:
    remote._file_system.cache_clear()
    kind.clear_instance_cache()


@contextmanager
def s3_store() -> Iterator[Any]:
    """An empty S3 on 127.0.0.1; yields fsspec's file system for it."""
    import s3fs
    from moto.backends import get_backend
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    get_backend("s3").reset()  # its buckets outlive a server
    try:
        with s3_endpoint(f"http://{host}:{port}"):
            yield s3fs.S3FileSystem(use_listings_cache=False)
    finally:
        server.stop()


def upload(store: Any, folder: Path, place: str) -> str:
    """Copy a local folder into the store by other means than ours; returns its URL."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.pipe_file(f"{place}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return f"s3://{place}"


class Web:
    """A web server for a folder: lists folders, answers ranged requests, and fails as told."""

    def __init__(self, folder: Path, *, ranges: bool = True) -> None:
        self.folder, self.ranges = folder, ranges
        self.status_for: Callable[[str, int], int | None] = lambda path, times: None
        """From a path and how often it has been asked for, to the status of a failure."""
        self.requests: list[tuple[str, str, tuple[int, int] | None]] = []
        """(method, path with query, range of bytes)."""
        self._times = Counter[str]()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))

    @property
    def host(self) -> str:
        """Name and port."""
        return f"127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        """Of the folder."""
        return f"http://{self.host}"

    def failure(self, path: str) -> int | None:
        """The status to fail with now."""
        self._times[path] += 1
        return self.status_for(path, self._times[path])

    def __enter__(self) -> Web:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, web: Web, *arguments: Any) -> None:
        self.web = web
        super().__init__(*arguments, directory=os.fspath(web.folder))

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        span = (int(asked[1]), int(asked[2]) + 1) if asked else None
        self.web.requests.append((method, self.path, span))
        status = self.web.failure(self.path)
        path = Path(self.translate_path(self.path))
        if status is not None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif method == "GET" and span and self.web.ranges and path.is_file():
            data = path.read_bytes()[slice(*span)]
            self.send_response(HTTPStatus.PARTIAL_CONTENT)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        elif method == "GET":
            super().do_GET()
        else:
            super().do_HEAD()

    def log_message(self, *_: Any) -> None:
        """Silent."""
