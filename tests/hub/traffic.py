"""The network side of a Hub: connections, the log of requests, and the failures that a test orders."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from .repository import CHUNK, Blob

if TYPE_CHECKING:
    from .api import HubApi


@dataclass
class Request:
    """One request, and what became of it."""

    method: str
    path: str
    """As it was sent, with the query."""
    headers: Mapping[str, str] = field(repr=False)
    """By name in lower case."""
    received: int = 0
    """Bytes of its body."""
    status: int | None = None
    """The answer; None if the connection was cut before one."""
    sent: int = 0
    """Bytes of the answer's body that were handed to the network."""
    file: str | None = None
    """The path in the repository, where it downloads a file."""
    fault: Fault | None = None
    """What was made to go wrong."""

    @property
    def token(self) -> str | None:
        """The token that came with it."""
        kind, _, value = self.headers.get("authorization", "").partition(" ")
        return value if kind == "Bearer" else None

    @property
    def range(self) -> str | None:
        """The part of the file that it asks for."""
        return self.headers.get("range")


@dataclass(frozen=True)
class Fault:
    """One failure; the functions below make the usual ones."""

    delay: float = 0
    """Seconds before anything else happens; then it goes on as if nothing were."""
    status: int | None = None
    """Answered instead of doing what was asked."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Go with ``status``."""
    message: str = "out of order"
    """Goes with ``status``."""
    garbage: bytes | None = None
    """Answered instead of doing what was asked, as if all were well."""
    upload_limit: int | None = None
    """Hang up when so many bytes of the body have come, or all if there are fewer."""
    disconnect: bool = False
    """Hang up when the request is complete, and do nothing."""
    lose_answer: bool = False
    """Do what was asked, then hang up."""
    download_limit: int | None = None
    """Hang up after so many bytes of the answer's body."""


def status(code: int, *, retry_after: int | None = None, rate_limit: int | None = None, message: str = "") -> Fault:
    """Answer with an error; ``rate_limit`` is the seconds until the quota is renewed."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if rate_limit is not None:
        headers["RateLimit"] = f'"api";r=0;t={rate_limit}'
        headers["RateLimit-Policy"] = '"fixed window";"api";q=1000;w=300'
    return Fault(status=code, headers=headers, message=message or Fault.message)


def garbage(content: bytes) -> Fault:
    """Do nothing, say that all went well, and answer with this."""
    return Fault(garbage=content)


def disconnect() -> Fault:
    """Take the request and hang up; nothing is done."""
    return Fault(disconnect=True)


def lose_answer() -> Fault:
    """Do what was asked and hang up instead of answering."""
    return Fault(lose_answer=True)


def cut_upload(after: int) -> Fault:
    """Hang up when ``after`` bytes of the body have come."""
    return Fault(upload_limit=after)


def cut_download(after: int) -> Fault:
    """Hang up when ``after`` bytes of the answer's body are sent."""
    return Fault(download_limit=after)


def delay(seconds: float) -> Fault:
    """Wait before doing anything."""
    return Fault(delay=seconds)


Match = str | Callable[[Request], bool]


@dataclass
class Rule:
    """When a fault happens."""

    match: Match
    fault: Fault
    times: int | None
    after: int
    seen: int = 0
    """Matching requests so far."""

    @property
    def hits(self) -> int:
        """How often it has happened."""
        happened = max(0, self.seen - self.after)
        return happened if self.times is None else min(happened, self.times)

    def matches(self, request: Request) -> bool:
        """Whether it is about such requests."""
        if callable(self.match):
            return self.match(request)
        return re.search(self.match, f"{request.method} {request.path}") is not None


class Faults:
    """The failures in force; the first rule that applies to a request decides, and only it."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def add(self, match: Match, fault: Fault, *, times: int | None = 1, after: int = 0) -> Rule:
        """Make something go wrong.

        Args:
            match: a regular expression searched in ``METHOD /path?query`` as sent, or a predicate.
            fault: what goes wrong.
            times: how often (None: always).
            after: how many matching requests go well before.
        """
        rule = Rule(match, fault, times, after)
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Let everything go well again."""
        with self._lock:
            self._rules.clear()

    def take(self, request: Request) -> Fault:
        """What goes wrong with this request: an empty fault if nothing does."""
        with self._lock:
            for rule in self._rules:
                if rule.matches(request):
                    before, rule.seen = rule.hits, rule.seen + 1
                    if rule.hits > before:
                        request.fault = rule.fault
                        return rule.fault
        return Fault()


# --- connections ------------------------------------------------------------------------------------------


@dataclass
class Response:
    """An answer: short, or a part of a blob."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    blob: Blob | None = None
    span: tuple[int, int] = (0, 0)
    """From where to before where in the blob."""

    @classmethod
    def of(cls, content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """An answer in JSON."""
        plain = {"Content-Type": "application/json; charset=utf-8"}
        return cls(status, json.dumps(content).encode(), {**plain, **(headers or {})})


class Traffic:
    """What passes between clients and a Hub."""

    def __init__(self, api: HubApi) -> None:
        self.api = api
        self.faults = Faults()
        self.requests: list[Request] = []
        self.closing = threading.Event()


class Origin(ThreadingHTTPServer):
    """One of the addresses of a Hub."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        """Remember the connection and serve it."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        """Close a connection."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Close the address and all connections, also those that a client keeps for later."""
        super().server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        """Record what went wrong outside of an answer, unless it is the client that left."""
        if not self.traffic.closing.is_set() and not isinstance(sys.exc_info()[1], ConnectionError):
            self.traffic.api.unexpected.append(traceback.format_exc())


class Hangup(Exception):  # noqa: N818 - not an error: it is what the test wants
    """The connection is to end here."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    wbufsize = 2**16
    disable_nagle_algorithm = True
    server: Origin

    def _serve(self) -> None:
        traffic = self.server.traffic
        request = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        traffic.requests.append(request)
        fault = traffic.faults.take(request)
        try:
            traffic.closing.wait(fault.delay)
            body = traffic.api.blobs.receive(self._body(request, fault.upload_limit))
            try:
                if fault.disconnect or fault.upload_limit is not None:
                    raise Hangup
                self._send(request, self._answer(request, body, fault), fault.download_limit)
            finally:
                traffic.api.blobs.drop(body)
        except Hangup:
            self._hang_up()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _serve  # noqa: N815

    def _answer(self, request: Request, body: Blob, fault: Fault) -> Response:
        if fault.status is not None:
            return Response.of({"error": fault.message}, fault.status, fault.headers)
        if fault.garbage is not None:
            return Response(200, fault.garbage, {"Content-Type": "application/json; charset=utf-8"})
        response = self.server.traffic.api.answer(request, body)
        if fault.lose_answer:
            raise Hangup
        return response

    def _body(self, request: Request, limit: int | None) -> Iterator[bytes]:
        """The body of the request, in pieces; to the limit and no further."""
        for size in self._sizes():
            while size:
                room = CHUNK if limit is None else limit - request.received
                if not room:
                    raise Hangup
                chunk = self.rfile.read1(min(size, room, CHUNK))
                if not chunk:
                    raise ConnectionAbortedError("the client left")
                request.received += len(chunk)
                size -= len(chunk)
                yield chunk

    def _sizes(self) -> Iterator[int]:
        """The lengths of the stretches of which the body consists."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            yield int(self.headers.get("Content-Length", 0))
            return
        while size := int(self.rfile.readline().partition(b";")[0] or b"0", 16):
            yield size
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _send(self, request: Request, response: Response, limit: int | None) -> None:
        start, stop = response.span if response.blob else (0, len(response.body))
        request.status = response.status
        self.send_response(response.status)
        for name, value in {**response.headers, "Content-Length": str(stop - start)}.items():
            self.send_header(name, value)
        self.send_header("X-Request-Id", f"test-{len(self.server.traffic.requests)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        end = stop if limit is None else min(stop, start + limit)
        for chunk in response.blob.chunks(start, end) if response.blob else [response.body[:end]]:
            request.sent += len(chunk)
            self.wfile.write(chunk)
        if limit is not None:
            raise Hangup

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
