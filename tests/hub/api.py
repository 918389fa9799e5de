"""A Hub without its network: who may do what, repositories, references and listings."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode

from .repository import GIT_ATTRIBUTES, MAIN, Blob, BlobStore, Commit, File, Repository, check_card, is_large
from .traffic import Request, Response

REPOSITORY = r"/api/datasets/(?P<name>[^/]+/[^/]+)"
REVISION = r"(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+)"


@dataclass(frozen=True)
class Token:
    """Whose token it is, and what for."""

    user: str
    role: str = "write"
    """"read" or "write"."""
    organizations: Mapping[str, str] = field(default_factory=dict)
    """The user's role ("admin", "write" or "read") in each."""

    def reads(self, namespace: str) -> bool:
        """Whether it opens private repositories of a user or organization."""
        return namespace == self.user or namespace in self.organizations

    def writes(self, namespace: str) -> bool:
        """Whether its owner, with a token for writing, may change repositories of a user or organization."""
        return namespace == self.user or self.organizations.get(namespace, "read") != "read"


@dataclass
class Counters:
    """What clients have brought; what a test puts there itself does not count."""

    uploads: int = 0
    """Large files stored."""
    commits: int = 0
    bytes_uploaded: int = 0
    """Bytes of large files, or parts or xorbs of them, that came whole, each time; of regular files in commits made."""


@dataclass(frozen=True)
class Settings:
    """Sizes that tests make small, and what they choose."""

    lfs_threshold: int = 10_000_000
    """Larger files go to LFS whatever they are."""
    part_size: int = 2**24
    """Large files above it are uploaded in parts of it."""
    page_size: int = 1000
    """Rows of one page of a listing; a twentieth of it where rows are expanded."""
    xet: bool = False
    """Take large files by Xet too; downloads are by HTTP in any case."""


class HubError(Exception):
    """An answer that refuses; ``code`` is what the client's exceptions depend on."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        plain = message.encode("ascii", "backslashreplace").decode()
        self.headers = {"X-Error-Message": plain, **({"X-Error-Code": code} if code else {}), **(headers or {})}


@dataclass
class Call:
    """A request on its way to the function that answers it."""

    request: Request
    body: Blob
    names: dict[str, str]
    """The variable parts of the path, decoded."""
    token: Token | None
    repository: Repository = field(init=False)
    """Set where the route says what it takes to open it."""

    def __post_init__(self) -> None:
        self.path, _, query = self.request.path.partition("?")
        self.query = parse_qs(query, keep_blank_values=True)

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body.read() or b"{}")

    def flag(self, name: str) -> bool:
        """Whether the query says yes."""
        return self.query.get(name, ["false"])[0].lower() in ("true", "1")


class HubApi:
    """All state of a Hub; ``answer`` does what is asked."""

    def __init__(self, blobs: BlobStore, tokens: Mapping[str, Token], settings: Settings) -> None:
        self.url = self.storage_url = ""
        """The two origins, known when they listen."""
        self.blobs = blobs
        self.tokens = dict(tokens)
        self.settings = settings
        self.repositories: dict[str, Repository] = {}
        self.parts: dict[tuple[str, str, int], Blob] = {}
        """Parts of large files on their way, by repository, digest of the whole, and number."""
        self.xorbs: dict[str, Blob] = {}
        """Chunks of large files, many in each, by a digest of Xet's own."""
        self.xet_tokens: dict[str, tuple[str, str]] = {}
        """The repository, and "read" or "write", for which each token for chunks was given."""
        self.counters = Counters()
        self.unexpected: list[str] = []
        self.lock = threading.RLock()
        self._secret = secrets.token_hex(8)

    def answer(self, request: Request, body: Blob) -> Response:
        """Do what is asked and say how it went."""
        try:
            with self.lock:
                return self._dispatch(request, body)
        except HubError as error:
            return Response.of({"error": str(error)}, error.status, error.headers)
        except Exception:
            self.unexpected.append(f"{request.method} {request.path} failed: {traceback.format_exc()}")
            return Response.of({"error": "a bug of the server for tests"}, 500)

    def _dispatch(self, request: Request, body: Blob) -> Response:
        for route in ROUTES:
            match = route.pattern.fullmatch(request.path.partition("?")[0])
            if match and re.fullmatch(route.method, request.method) and (self.settings.xet or not route.xet):
                names = {key: unquote(value) for key, value in match.groupdict(default="").items()}
                call = Call(request, body, names, self._who(request))
                if route.access:
                    call.repository = self.open(names["name"], call.token, route.access)
                return route.answer(self, call)
        return self.unknown(request)

    def unknown(self, request: Request, why: str = "") -> Response:
        """Refuse what this server has not learned, and remember it."""
        self.unexpected.append(f"{request.method} {request.path}{why and f': {why}'}")
        return Response.of({"error": "Sorry, we can't find the page you are looking for."}, 404)

    def _who(self, request: Request) -> Token | None:
        if request.token is None or request.token in self.xet_tokens:
            return None  # the latter opens nothing but what asks for it
        if request.token not in self.tokens:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.tokens[request.token]

    def open(self, name: str, token: Token | None, access: str) -> Repository:
        """The repository, if the owner of the token may do that with it."""
        repository = self.repositories.get(name)
        if repository is None or (repository.private and not (token and token.reads(repository.namespace))):
            raise HubError(404 if token else 401, "Repository not found", "RepoNotFound")
        if access == "write":
            self.may_write(token, repository.namespace)
        elif access == "read" and not self._passes_gate(token, repository):
            message = f"Access to dataset {name} is restricted. You must have access to it and be authenticated."
            raise HubError(403 if token else 401, message, "GatedRepo")
        return repository

    def may_write(self, token: Token | None, namespace: str) -> Token:
        """The token, if it may be used to write there."""
        if token is None:
            raise HubError(401, "Invalid username or password.")
        if token.role != "write":
            raise HubError(403, "Forbidden: you must use a write token")
        if not token.writes(namespace):
            raise HubError(403, f'You don\'t have the rights to change datasets under the namespace "{namespace}"')
        return token

    def _passes_gate(self, token: Token | None, repository: Repository) -> bool:
        if not repository.gated:
            return True
        return token is not None and (token.reads(repository.namespace) or token.user in repository.granted)

    def find(self, repository: Repository, revision: str) -> Commit:
        """The commit that a revision names."""
        commit = repository.find(revision)
        if commit is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def page(self, call: Call, rows: Sequence[Any], size: int) -> Response:
        """One page of a listing, with the address of the next one."""
        start = int(call.query.get("cursor", ["0"])[0])
        headers = {}
        if len(rows) > start + size:
            query = urlencode({**call.query, "cursor": [str(start + size)]}, doseq=True)
            headers["Link"] = f'<{self.url}{call.path}?{query}>; rel="next"'
        return Response.of(rows[start : start + size], headers=headers)

    def create(self, name: str, *, private: bool = False, gated: str | bool = False) -> Repository:
        """Make a repository with its first commit."""
        attributes = self.blobs.keep(self.blobs.receive([GIT_ATTRIBUTES.encode()]))
        self.repositories[name] = Repository(name, attributes, private=private, gated=gated)
        return self.repositories[name]

    def is_large(self, repository: Repository, path: str, size: int, sample: bytes) -> bool:
        """Whether a new file of the repository goes to LFS."""
        return is_large(path, size, sample, repository.head().text(".gitattributes"), self.settings.lfs_threshold)

    def sign(self, url: str, **query: object) -> str:
        """A link that opens without a token."""
        link = f"{url}?{urlencode(query, safe='/', quote_via=quote)}"
        return f"{link}&signature={self._signature(link.partition('://')[2].partition('/')[2])}"

    def signed(self, call: Call) -> dict[str, str]:
        """The query of a link that this server signed; a token has no business there."""
        link, _, signature = call.request.path.removeprefix("/").rpartition("&signature=")
        if call.request.token is not None:
            self.unexpected.append(f"{call.request.method} {call.request.path} came with a token")
            raise HubError(400, "Only one auth mechanism allowed")
        if signature != self._signature(link):
            raise HubError(403, "Request has an invalid signature")
        return {key: values[0] for key, values in call.query.items()}

    def _signature(self, link: str) -> str:
        return hashlib.sha256(f"{self._secret}{link}".encode()).hexdigest()[:16]


# --- routes -----------------------------------------------------------------------------------------------

Answer = Callable[[HubApi, Call], Response]


@dataclass(frozen=True)
class Route:
    """Which requests a function answers, and who may ask."""

    method: str
    pattern: re.Pattern[str]
    access: str
    answer: Answer
    xet: bool


ROUTES: list[Route] = []


def route(method: str, pattern: str, access: str = "", *, xet: bool = False) -> Callable[[Answer], Answer]:
    """Register a function; ``access`` is what it takes to ask: "see", "read" or "write", or nothing.

    Without ``Settings.xet``, there is nothing at routes with ``xet``.
    """

    def register(answer: Answer) -> Answer:
        ROUTES.append(Route(method, re.compile(pattern), access, answer, xet))
        return answer

    return register


# --- accounts and repositories ----------------------------------------------------------------------------


@route("GET", r"/api/whoami-v2")
def who_am_i(api: HubApi, call: Call) -> Response:
    """The owner of the token."""
    token = call.token
    if token is None:
        raise HubError(401, "Invalid username or password.")
    user = {"type": "user", "id": token.user, "name": token.user, "fullname": token.user}
    organizations = [{"name": name, "roleInOrg": role} for name, role in token.organizations.items()]
    access = {"accessToken": {"displayName": "test", "role": token.role}}
    return Response.of({**user, "email": f"{token.user}@example.org", "orgs": organizations, "auth": access})


@route("POST", r"/api/validate-yaml")
def validate_card(api: HubApi, call: Call) -> Response:
    """What is wrong with the front matter of README.md."""
    errors, warnings = ([{"message": line} for line in lines] for lines in check_card(call.json()["content"]))
    return Response.of({"errors": errors, "warnings": warnings}, 400 if errors else 200)


@route("POST", r"/api/repos/create")
def create_repository(api: HubApi, call: Call) -> Response:
    """Make an empty repository."""
    wanted = call.json()
    if wanted.get("type") != "dataset":
        return api.unknown(call.request, f"type {wanted.get('type')}")
    namespace = wanted.get("organization") or (call.token.user if call.token else "")
    api.may_write(call.token, namespace)
    name = f"{namespace}/{wanted['name']}"
    answer = {"url": f"{api.url}/datasets/{name}", "name": name}
    if name in api.repositories:
        return Response.of({"error": "You already created this dataset repo", **answer}, 409)
    api.create(name, private=wanted.get("visibility") == "private" or bool(wanted.get("private")))
    return Response.of(answer)


@route("DELETE", r"/api/repos/delete")
def delete_repository(api: HubApi, call: Call) -> Response:
    """Remove a repository."""
    wanted = call.json()
    name = f"{wanted.get('organization') or (call.token.user if call.token else '')}/{wanted['name']}"
    api.open(name, call.token, "write")
    del api.repositories[name]
    return Response.of({})


@route("PUT", rf"{REPOSITORY}/settings", "write")
def change_settings(api: HubApi, call: Call) -> Response:
    """Change who may see and read it."""
    wanted, repository = call.json(), call.repository
    private = wanted["visibility"] == "private" if "visibility" in wanted else wanted.get("private")
    repository.private = repository.private if private is None else private
    repository.gated = wanted.get("gated", repository.gated)
    return Response.of({"private": repository.private, "gated": repository.gated})


@route("GET", rf"{REPOSITORY}/auth-check", "read")
@route("GET", rf"{REPOSITORY}/auth-check/write", "write")
def check_access(api: HubApi, call: Call) -> Response:
    """Nothing: who comes here may do it."""
    return Response.of({})


@route("GET", rf"{REPOSITORY}(?:/revision/{REVISION})?", "see")
def repository_info(api: HubApi, call: Call) -> Response:
    """The repository at a revision, with its files."""
    repository = call.repository
    commit = api.find(repository, call.names["revision"] or MAIN)
    info = {
        "id": repository.name,
        "author": repository.namespace,
        "sha": commit.oid,
        "lastModified": commit.date,
        "createdAt": list(commit.history())[-1].date,
        "private": repository.private,
        "gated": repository.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "usedStorage": sum(api.blobs.kept[oid].size for oid in repository.objects),
        "siblings": [_sibling(path, file, call.flag("blobs")) for path, file in sorted(commit.files.items())],
    }
    wanted = call.query.get("expand", []) + call.query.get("expand[]", [])
    return Response.of({key: value for key, value in info.items() if not wanted or key in ("id", *wanted)})


def _sibling(path: str, file: File, with_blobs: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"rfilename": path}
    if with_blobs:
        row |= {"size": file.blob.size, "blobId": file.oid}
        if file.lfs:
            row["lfs"] = {"sha256": file.blob.sha256, "size": file.blob.size, "pointerSize": len(file.pointer)}
    return row


# --- references and listings ------------------------------------------------------------------------------


@route("GET", rf"{REPOSITORY}/refs", "see")
def list_references(api: HubApi, call: Call) -> Response:
    """Branches and tags."""

    def rows(kind: str, names: Mapping[str, str]) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in names.items()]

    branches, tags = rows("heads", call.repository.branches), rows("tags", call.repository.tags)
    return Response.of({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})


@route("POST", rf"{REPOSITORY}/branch/(?P<branch>[^/]+)", "write")
def create_branch(api: HubApi, call: Call) -> Response:
    """Begin a branch."""
    start = api.find(call.repository, call.json().get("startingPoint") or MAIN)
    return _add_reference(call.repository.branches, call.names["branch"], start)


@route("POST", rf"{REPOSITORY}/tag/{REVISION}", "write")
def create_tag(api: HubApi, call: Call) -> Response:
    """Tag a revision."""
    start = api.find(call.repository, call.names["revision"])
    return _add_reference(call.repository.tags, call.json()["tag"], start)


def _add_reference(names: dict[str, str], name: str, commit: Commit) -> Response:
    if name in names:
        raise HubError(409, f"Reference already exists: {name}")
    names[name] = commit.oid
    return Response.of({})


@route("DELETE", rf"{REPOSITORY}/(?P<kind>branch|tag)/(?P<reference>[^/]+)", "write")
def delete_reference(api: HubApi, call: Call) -> Response:
    """Remove a branch or tag."""
    kind, name = call.names["kind"], call.names["reference"]
    names = call.repository.tags if kind == "tag" else call.repository.branches
    if (kind, name) == ("branch", MAIN):
        raise HubError(403, "The main branch cannot be deleted")
    if name not in names:
        raise HubError(404, f"Invalid rev id: {name}", "RevisionNotFound")
    del names[name]
    return Response.of({})


@route("GET", rf"{REPOSITORY}/commits/{REVISION}", "see")
def list_commits(api: HubApi, call: Call) -> Response:
    """The history of a revision, newest first."""
    rows = [
        {
            "id": commit.oid,
            "title": commit.title,
            "message": commit.message,
            "date": commit.date,
            "authors": [{"user": commit.author}],
        }
        for commit in api.find(call.repository, call.names["revision"]).history()
    ]
    return api.page(call, rows, api.settings.page_size)


@route("GET", rf"{REPOSITORY}/tree/{REVISION}(?:/(?P<folder>.*))?", "see")
def list_tree(api: HubApi, call: Call) -> Response:
    """The files and folders in a folder."""
    commit = api.find(call.repository, call.names["revision"])
    folder, expand = call.names["folder"].strip("/"), call.flag("expand")
    entries = commit.entries(folder, recursive=call.flag("recursive"))
    if folder and not entries:
        raise HubError(404, f'"{folder}" does not exist on "{commit.oid}"', "EntryNotFound")
    rows = [_row(commit, path, file, expand) for path, file in entries.items()]
    return api.page(call, rows, max(1, api.settings.page_size // (20 if expand else 1)))


@route("POST", rf"{REPOSITORY}/paths-info/{REVISION}", "see")
def list_paths(api: HubApi, call: Call) -> Response:
    """Those of the given files and folders that exist."""
    commit = api.find(call.repository, call.names["revision"])
    if "json" in call.request.headers.get("content-type", ""):
        wanted = call.json()
        paths, expand = wanted["paths"], bool(wanted.get("expand"))
    else:
        form = parse_qs(call.body.read().decode())
        paths, expand = form["paths"], form.get("expand", ["false"])[0].lower() == "true"
    entries = commit.entries(recursive=True)
    return Response.of([_row(commit, path, entries[path], expand) for path in paths if path in entries])


def _row(commit: Commit, path: str, file: File | None, expand: bool) -> dict[str, Any]:
    """A file or folder as listings describe it."""
    files = [file] if file else [below for name, below in sorted(commit.files.items()) if name.startswith(f"{path}/")]
    if file:
        row: dict[str, Any] = {"type": "file", "path": path, "size": file.blob.size, "oid": file.oid}
    else:
        oid = hashlib.sha1("".join(below.oid for below in files).encode()).hexdigest()
        row = {"type": "directory", "path": path, "size": 0, "oid": oid}
    if file and file.lfs:
        row["lfs"] = {"oid": file.blob.sha256, "size": file.blob.size, "pointerSize": len(file.pointer)}
    if expand:
        since = {below.since for below in files}
        last = next(older for older in commit.history() if older.oid in since)
        row["lastCommit"] = {"id": last.oid, "title": last.title, "date": last.date}
    return row
