"""Reading from the Hub, with the Hub's own unmodified client against a small server on this machine."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    Outcome,
    class_names,
    data_files,
    encode,
    make_images,
    make_splits,
    run_build,
    run_build_process,
    write_parquet,
)

REPOSITORY = "somebody/images"
COMMIT = "1234567890abcdef1234567890abcdef12345678"


class Hub(ThreadingHTTPServer):
    """Serves the files of one dataset repository; ``cut`` and ``broken`` name files that it fails to deliver."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {
            p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
        }
        self.cut: set[str] = set()
        """The next download ends half-way, with the connection."""
        self.broken: set[str] = set()
        """Every download after the first half fails."""
        self.downloads: list[tuple[str, str | None]] = []
        """Path and ``Range`` header of every GET of a file."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """The few requests of ``snapshot_download``."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if re.fullmatch(rf"/api/datasets/{REPOSITORY}(/revision/(main|{COMMIT}))?", path):
            siblings = [{"rfilename": name} for name in self.server.files]
            self._json(200, {"id": REPOSITORY, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})
        elif path.startswith(f"/api/datasets/{REPOSITORY}/revision/"):
            self._json(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        elif path == f"/api/datasets/{REPOSITORY}/tree/{COMMIT}":
            files = self.server.files.items()
            self._json(200, [{"type": "file", "path": n, "size": len(c), "oid": _etag(c)} for n, c in files])
        elif path.startswith(f"/datasets/{REPOSITORY}/resolve/{COMMIT}/"):
            self._file(path.removeprefix(f"/datasets/{REPOSITORY}/resolve/{COMMIT}/"))
        else:
            self._json(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})

    def _json(self, code: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self._answer(code, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _file(self, name: str) -> None:
        content = self.server.files[name]
        headers = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if self.command == "HEAD":
            self._answer(200, content, headers)
            return
        wanted = self.headers.get("Range")
        first = name not in {path for path, _ in self.server.downloads}
        self.server.downloads.append((name, wanted))
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        if name in self.server.broken and not first:
            self._json(500, {"error": "out of order"})
            return
        part = content[start:]
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if name in self.server.cut | self.server.broken:
            self.server.cut.discard(name)
            self._answer(206 if wanted else 200, part, headers, sent=len(part) // 2)
            return
        self._answer(206 if wanted else 200, part, headers)

    def _answer(self, code: int, content: bytes, headers: dict[str, str], sent: int | None = None) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[:sent])
        if sent is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four Parquet files, and files that nobody needs."""
    folder = tmp_path_factory.mktemp("repository")
    write_parquet(folder / "plain", make_splits(3, 30, 32), class_names(3), rows_per_group=100)
    (folder / "README.md").write_text("# Images")
    (folder / "archive.zip").write_bytes(b"large and useless")
    return folder


@pytest.fixture
def hub(repository: Path) -> Iterator[Hub]:
    server = Hub(repository)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def build_from(endpoint: str, home: Path, out: Path, where: str = f"hub:{REPOSITORY}", **environment: str) -> Outcome:
    """``ule-build ops --source hub:...`` in a process whose Hub is at ``endpoint``."""
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        **environment,
    }
    arguments = ("ops", "--source", where, "--out", out, "--quiet", "--workers", "1")
    return run_build_process(*arguments, environment=settings)


def last_words(outcome: Outcome) -> list[str]:
    """What the command itself says on stderr; the client of the Hub logs and draws there too."""
    return [line for line in outcome.stderr.splitlines() if line.startswith("ule-build: ")]


def assert_refused_in_one_line(outcome: Outcome, message: str) -> None:
    assert outcome.code == 2, outcome
    assert len(last_words(outcome)) == 1
    assert outcome.stderr.splitlines()[-1] == last_words(outcome)[0], "something follows the last line"
    assert re.search(message, last_words(outcome)[0]), outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert "ule-build: unexpected" not in outcome.stderr


def test_a_repository_is_downloaded_once_and_then_read_from_the_cache(
    hub: Hub, repository: Path, tmp_path: Path
) -> None:
    outcome = build_from(hub.endpoint, tmp_path / "home", tmp_path / "online")
    assert outcome.code == 0, outcome.stderr
    parquet = [name for name in hub.files if name.endswith(".parquet")]
    assert sorted(hub.downloads) == [(name, None) for name in parquet], "every Parquet file once, and nothing else"
    hub.downloads.clear()
    again = build_from("http://127.0.0.1:9", tmp_path / "home", tmp_path / "offline", HF_HUB_OFFLINE="1")
    assert again.code == 0, again.stderr
    assert hub.downloads == []
    local = run_build("ops", "--source", repository, "--out", tmp_path / "local")
    assert local.code == 0, local.stderr
    assert data_files(tmp_path / "online") == data_files(tmp_path / "offline") == data_files(tmp_path / "local")


def test_offline_without_a_cached_copy_is_refused(tmp_path: Path) -> None:
    outcome = build_from("http://127.0.0.1:9", tmp_path / "home", tmp_path / "out", HF_HUB_OFFLINE="1")
    assert_refused_in_one_line(outcome, rf"cannot download {REPOSITORY} .*or give a local copy with --source FOLDER")
    assert not (tmp_path / "out").exists()


def test_a_hub_that_cannot_be_reached_is_refused(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        outcome = build_from(endpoint, tmp_path / "home", tmp_path / "out")
    assert_refused_in_one_line(
        outcome, rf"cannot download {REPOSITORY} \(.*\); run the same command again to resume, or .* --source FOLDER"
    )
    assert not (tmp_path / "out").exists()


def test_a_repository_that_does_not_exist_is_refused(hub: Hub, tmp_path: Path) -> None:
    outcome = build_from(hub.endpoint, tmp_path / "home", tmp_path / "out", "hub:somebody/imagse")
    message = "the Hub has no dataset 'somebody/imagse' that you may read; check the name, or .* --source FOLDER"
    assert_refused_in_one_line(outcome, message)
    assert not (tmp_path / "out").exists()


def test_a_revision_that_does_not_exist_is_refused(hub: Hub, tmp_path: Path) -> None:
    outcome = build_from(hub.endpoint, tmp_path / "home", tmp_path / "out", f"hub:{REPOSITORY}@v9")
    assert_refused_in_one_line(outcome, f"{REPOSITORY} has no revision 'v9'")


def test_a_repository_without_parquet_files_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"README.md": b"# Nothing here"}
    outcome = build_from(hub.endpoint, tmp_path / "home", tmp_path / "out")
    assert_refused_in_one_line(outcome, f"{REPOSITORY} has no Parquet files; download it and use --source FOLDER")


def test_a_dropped_connection_is_resumed_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    name, path = "train-large.parquet", tmp_path / "local" / "train-large.parquet"
    path.parent.mkdir()
    write_large_parquet(path)
    hub.files, hub.cut = {name: path.read_bytes()}, {name}
    assert len(hub.files[name]) > 24 * 2**20, "the client of the Hub keeps what it got in steps of 10 MiB"
    outcome = build_from(hub.endpoint, tmp_path / "home", tmp_path / "out", f"hub:{REPOSITORY}@{COMMIT}")
    assert outcome.code == 0, outcome.stderr
    (_, first), (_, second) = hub.downloads
    assert first is None
    assert re.fullmatch(r"bytes=[1-9]\d*-", second or ""), "the second try starts where the first one broke"
    assert run_build("ops", "--source", path, "--out", tmp_path / "from file").code == 0
    assert data_files(tmp_path / "out") == data_files(tmp_path / "from file")


def write_large_parquet(path: Path) -> None:
    """Six small images, and a column of 24 MiB that nobody reads."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    images, labels = make_images(3, 2, 8)
    table = pa.table(
        {
            "image": [{"bytes": encode(image), "path": None} for image in images],
            "label": labels,
            "padding": [bytes([number]) * (4 * 2**20 + 1) for number in range(len(labels))],
        }
    )
    pq.write_table(table, path, compression="NONE", use_dictionary=False)


def test_a_failed_download_is_refused_and_the_same_command_fetches_the_rest(
    hub: Hub, repository: Path, tmp_path: Path
) -> None:
    name = next(name for name in hub.files if "train-00001" in name)
    hub.broken = {name}
    outcome = build_from(hub.endpoint, tmp_path / "home", tmp_path / "out")
    assert_refused_in_one_line(outcome, rf"cannot download {REPOSITORY} \(.*\); run the same command again to resume")
    assert not (tmp_path / "out").exists()
    finished = {path.name for path in (tmp_path / "home" / "hub").rglob("*.parquet")}
    hub.broken = set()
    hub.downloads.clear()
    outcome = build_from(hub.endpoint, tmp_path / "home", tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    fetched = {Path(path).name for path, _ in hub.downloads}
    assert Path(name).name in fetched
    assert not fetched & finished, "a file that had arrived was fetched again"
    assert run_build("ops", "--source", repository, "--out", tmp_path / "local").code == 0
    assert data_files(tmp_path / "out") == data_files(tmp_path / "local")
