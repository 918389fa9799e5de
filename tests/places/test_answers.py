"""Whatever a Hub answers, nothing is written outside its cache, and what cannot be understood is said in a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers import run_python, snapshot

SHA = "0123456789abcdef0123456789abcdef01234567"
FILE = {"type": "file", "path": "manifest.json", "size": 2, "oid": SHA}
FAIR: dict[str, Any] = {"sha": SHA, "commit": SHA, "etag": f'"{SHA}"', "tree": [FILE], "info": {}}
OUT = "../../../../../../escaped"


class Answers(BaseHTTPRequestHandler):
    """A Hub with one repository, as ``given`` says."""

    given: dict[str, Any]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, given = self.path.partition("?")[0], self.given
        if "/tree/" in path:
            return self.answer(json.dumps(given["tree"]))
        if path.startswith("/api/"):
            return self.answer(given.get("raw") or json.dumps({"id": "o/n", "sha": given["sha"], **given["info"]}))
        return self.answer("{}", {"ETag": given["etag"], "X-Repo-Commit": given["commit"]})

    def answer(self, text: str, headers: dict[str, str] | None = None) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


GARBAGE: list[dict[str, Any]] = [
    *({"sha": value} for value in (OUT, "/tmp/x", "a\\b", 3, None, [], "")),
    *({"commit": value} for value in (OUT, "CON", "")),
    *({"etag": value} for value in (f'"{OUT}"', f'W/"{OUT}"', '"/etc/x"', '"a\\b"')),
    *({"tree": value} for value in ({"a": 1}, 3, [3], [{}], [{**FILE, "path": 3}], [{**FILE, "path": OUT}], [None])),
    *({"raw": value} for value in ("[]", "3", "null", "{", "[" * 100_000, "\x1b[2J")),
    *({"info": {"siblings": value}} for value in (3, [3], [{}])),
]
PROGRAM = """
import json, sys
from ule_datasets.cli import running
from ule_datasets.places.hub import download

def work(_):
    download("o/n", None, ["*"])
    return 0

for number in range(int(sys.argv[1])):
    sys.stdin.readline()
    print(json.dumps(running.run("ule-build", work, [])), flush=True)
"""


def test_no_answer_of_a_hub_escapes_or_surprises(
    server: ThreadingHTTPServer, tmp_path: Path, tried: Callable[..., None]
) -> None:
    environment = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "a/b/c/d/home")}
    own = {**os.environ, **environment, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", PROGRAM, str(len(GARBAGE) + 1)]
    with subprocess.Popen(
        command, env=own, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        codes = []
        for number, change in enumerate([*GARBAGE, {}]):
            commit = f"{number:040x}"  # the client keeps what it was told of another one
            Answers.given = {**FAIR, "sha": commit, "commit": commit, **change}
            process.stdin.write("\n")
            process.stdin.flush()
            codes.append(json.loads(process.stdout.readline()))
        _, errors = process.communicate(timeout=60)
    lines = errors.splitlines()
    assert codes[-1] == 0, errors
    assert "unexpected" not in errors, errors
    assert "\x1b" not in errors
    assert all(line.startswith("ule-build: ") for line in lines), errors
    taken = [change for change, code in zip(GARBAGE, codes, strict=False) if code == 0]
    assert len(lines) == codes.count(2) == len(codes) - 1 - len(taken)
    assert taken == [], taken
    found = snapshot(tmp_path) or {}
    assert all(name.startswith("a/b/c/d/home") for name in found if name.count("/") > 3 or found[name]), found
    tried("garbage in the Hub's answers", len(GARBAGE))


def test_a_token_that_is_none_is_refused_before_any_request(tmp_path: Path) -> None:
    program = "from ule_datasets.cli.build import main; import sys; sys.exit(main())"
    own = {"HF_TOKEN": "hf_müller", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    outcome = run_python(program, "ops", "--perturbation", "o/n", environment=own)
    assert outcome.code == 2
    assert "the token for the Hub holds letters that no token has" in outcome.stderr
    assert "müller" not in outcome.stderr
