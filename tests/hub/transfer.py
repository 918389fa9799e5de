"""A Hub without its network, continued: uploads, commits and downloads."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from .api import REPOSITORY, REVISION, Call, HubApi, HubError, route
from .repository import Blob, File, Repository, is_ignored
from .traffic import Response

GIT = r"/datasets/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects"

# --- uploads ----------------------------------------------------------------------------------------------


@route("POST", rf"{REPOSITORY}/preupload/{REVISION}", "write")
def choose_upload_modes(api: HubApi, call: Call) -> Response:
    """How to upload each file, whether at all, and what is there now."""
    commit, wanted = api.find(call.repository, call.names["revision"]), call.json()
    gitignore = wanted.get("gitIgnore") or commit.text(".gitignore")
    rows = []
    for file in wanted["files"]:
        path = file["path"]
        large = api.is_large(call.repository, path, file["size"], base64.b64decode(file["sample"]))
        row = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": is_ignored(path, gitignore)}
        rows.append(row | ({"oid": commit.files[path].etag} if path in commit.files else {}))
    return Response.of({"files": rows})


@route("POST", rf"{GIT}/batch", "write")
def start_uploads(api: HubApi, call: Call) -> Response:
    """Where to upload large files."""
    wanted = call.json()
    if wanted["operation"] != "upload" or wanted.get("hash_algo", "sha256") != "sha256":
        raise HubError(422, "only uploads of SHA-256")
    multipart = "multipart" in wanted.get("transfers", ["basic"])
    objects = [_place(api, call.repository, row["oid"], row["size"], multipart) for row in wanted["objects"]]
    in_parts = any("header" in row.get("actions", {}).get("upload", {}) for row in objects)
    answer = {"transfer": "multipart" if in_parts else "basic", "objects": objects}
    return Response.of(answer, headers={"Content-Type": "application/vnd.git-lfs+json"})


def _place(api: HubApi, repository: Repository, oid: str, size: int, multipart: bool) -> dict[str, Any]:
    """Where to upload a large file; no word of it if the repository has it."""
    if oid in repository.objects:
        return {"oid": oid, "size": size}
    place, name, part_size = f"{api.storage_url}/storage/{oid}", repository.name, api.settings.part_size
    upload: dict[str, Any] = {"href": api.sign(place, repo=name, size=size)}
    if multipart and size > part_size:
        parts = {f"{n:05}": api.sign(f"{place}/{n}", repo=name) for n in range(1, -(-size // part_size) + 1)}
        finish = api.sign(f"{api.url}/api/complete_multipart", repo=name, size=size)
        upload = {"href": finish, "header": {"chunk_size": str(part_size), **parts}}
    verify = {"href": f"{api.url}/datasets/{name}.git/info/lfs/objects/verify"}
    return {"oid": oid, "size": size, "authenticated": True, "actions": {"upload": upload, "verify": verify}}


@route("PUT", r"/storage/(?P<oid>\w+)")
def upload_object(api: HubApi, call: Call) -> Response:
    """Take a large file."""
    query = api.signed(call)
    api.counters.bytes_uploaded += call.body.size
    store(api, query["repo"], call.names["oid"], int(query["size"]), call.body)
    return Response(headers={"ETag": f'"{call.body.sha256}"'})


@route("PUT", r"/storage/(?P<oid>\w+)/(?P<part>\d+)")
def upload_part(api: HubApi, call: Call) -> Response:
    """Take a part of a large file."""
    query = api.signed(call)
    api.counters.bytes_uploaded += call.body.size
    api.parts[query["repo"], call.names["oid"], int(call.names["part"])] = api.blobs.keep(call.body)
    return Response(headers={"ETag": f'"{call.body.sha256}"'})


@route("POST", r"/api/complete_multipart")
def join_parts(api: HubApi, call: Call) -> Response:
    """Make a large file of its parts."""
    query, wanted = api.signed(call), call.json()
    parts = []
    for row in sorted(wanted["parts"], key=lambda row: row["partNumber"]):
        part = api.parts.get((query["repo"], wanted["oid"], row["partNumber"]))
        if part is None or f'"{part.sha256}"' != row["etag"]:
            raise HubError(400, "One or more of the specified parts could not be found")
        parts.append(part)
    whole = api.blobs.receive(chunk for part in parts for chunk in part.chunks())
    store(api, query["repo"], wanted["oid"], int(query["size"]), whole)
    return Response.of({"success": True})


def store(api: HubApi, name: str, oid: str, size: int, blob: Blob) -> None:
    """Give a repository a large file that has come, if it is the announced one."""
    if (blob.sha256, blob.size) != (oid, size):
        api.blobs.drop(blob)
        raise HubError(400, "The content does not have the announced digest and size")
    api.blobs.keep(blob)
    api.repositories[name].objects.add(oid)
    api.counters.uploads += 1


@route("POST", rf"{GIT}/verify", "write")
def verify_upload(api: HubApi, call: Call) -> Response:
    """Whether a large file has arrived."""
    wanted = call.json()
    if wanted["oid"] not in call.repository.objects or api.blobs.kept[wanted["oid"]].size != wanted["size"]:
        raise HubError(404, "Object not found")
    return Response.of({})


# --- commits ----------------------------------------------------------------------------------------------


@route("POST", rf"{REPOSITORY}/commit/{REVISION}", "write")
def commit(api: HubApi, call: Call) -> Response:
    """Change a branch, in all its files or not at all."""
    repository, branch = call.repository, call.names["revision"]
    if call.query:
        return api.unknown(call.request, "pull requests")
    if branch not in repository.branches:
        raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
    lines = [json.loads(line) for line in call.body.read().splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    head = repository.head(branch)
    if header.get("parentCommit", head.oid) != head.oid:
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    files, received = _apply(api, repository, head.files, [line for line in lines if line["key"] != "header"])
    author = call.token.user if call.token else ""
    made = repository.commit(branch, files, header["summary"], header.get("description", ""), author)
    api.counters.commits += 1
    api.counters.bytes_uploaded += received
    url = f"{api.url}/datasets/{repository.name}/commit/{made.oid}"
    return Response.of({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})


def _apply(
    api: HubApi, repository: Repository, before: Mapping[str, File], lines: Iterable[Mapping[str, Any]]
) -> tuple[dict[str, File], int]:
    """The files after the operations of a commit, and the bytes that came with it."""
    files, received = dict(before), 0
    for line in lines:
        key, value, path = line["key"], line["value"], line["value"].get("path", "")
        if {"", ".", "..", ".git"} & set(path.removesuffix("/").split("/")):
            raise HubError(400, f"Invalid path {path!r}")
        if key == "file":
            encoded = value.get("encoding", "utf-8") == "base64"
            content = base64.b64decode(value["content"]) if encoded else value["content"].encode()
            files[path] = File(api.blobs.keep(api.blobs.receive([content])), lfs=False)
            received += len(content)
        elif key == "lfsFile":
            files[path] = File(_uploaded(api, repository, value), lfs=True)
        elif key in ("deletedFile", "deletedFolder"):
            _remove(files, path, folder=key == "deletedFolder")
        else:
            api.unexpected.append(f"a commit with {key}")
            raise HubError(400, f"Unknown operation {key!r}")
    return files, received


def _uploaded(api: HubApi, repository: Repository, wanted: Mapping[str, Any]) -> Blob:
    blob = api.blobs.kept.get(wanted["oid"])
    if blob is None or wanted["oid"] not in repository.objects or wanted.get("size", blob.size) != blob.size:
        raise HubError(400, f"LFS pointer pointed to a file that does not exist: {wanted['path']}")
    return blob


def _remove(files: dict[str, File], path: str, *, folder: bool) -> None:
    prefix = f"{path.removesuffix('/')}/"
    gone = [name for name in files if name.startswith(prefix)] if folder else [path] * (path in files)
    if not gone:
        what = "folder" if folder else "file"
        raise HubError(404, f"A {what} with this name doesn't exist: {path}", "EntryNotFound")
    for name in gone:
        del files[name]


# --- downloads --------------------------------------------------------------------------------------------


@route("GET|HEAD", rf"/datasets/(?P<name>[^/]+/[^/]+)/resolve/{REVISION}/(?P<path>.+)", "read")
def resolve(api: HubApi, call: Call) -> Response:
    """A regular file, or where to find a large one."""
    revision, path = api.find(call.repository, call.names["revision"]), call.names["path"]
    headers = {"X-Repo-Commit": revision.oid, "Accept-Ranges": "bytes"}
    file = revision.files.get(path)
    if file is None:
        raise HubError(404, "Entry not found", "EntryNotFound", headers)
    if not file.lfs:
        return _download(call, file.blob, path, {**headers, "ETag": f'"{file.etag}"'})
    place = api.sign(f"{api.storage_url}/storage/{file.blob.sha256}", file=path)
    headers |= {"X-Linked-ETag": f'"{file.etag}"', "X-Linked-Size": str(file.blob.size), "Location": place}
    return Response(302, f"Found. Redirecting to {place}".encode(), headers)


@route("GET|HEAD", r"/storage/(?P<oid>\w+)")
def download_object(api: HubApi, call: Call) -> Response:
    """A large file."""
    path, blob = api.signed(call)["file"], api.blobs.kept[call.names["oid"]]
    return _download(call, blob, path, {"ETag": f'"{blob.sha256}"', "Accept-Ranges": "bytes"})


def _download(call: Call, blob: Blob, path: str, headers: dict[str, str]) -> Response:
    """A whole file, or the part that the request asks for."""
    call.request.file = path
    name = quote(path.rpartition("/")[2])
    headers |= {"Content-Type": "application/octet-stream", "Content-Disposition": f'inline; filename="{name}";'}
    asked = re.fullmatch(r"bytes=(?:(\d+)-(\d*)|-(\d+))", (call.request.range or "").replace(" ", ""))
    if asked is None:
        return Response(200, b"", headers, blob, (0, blob.size))
    first, last, tail = asked.groups()
    start = int(first) if first else max(0, blob.size - int(tail))
    stop = min(blob.size, int(last) + 1) if last else blob.size
    if start >= stop:
        raise HubError(416, "Range not satisfiable", headers={"Content-Range": f"bytes */{blob.size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.size}"
    return Response(206, b"", headers, blob, (start, stop))
