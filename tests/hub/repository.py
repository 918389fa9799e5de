"""What a Hub keeps: blobs by digest, commits that share them, branches and tags; and what it decides about files."""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath

CHUNK = 2**18
MAIN = "main"

_LFS_PATTERNS = """
*.7z *.arrow *.avro *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.lz4 *.mds *.mlmodel *.model *.msgpack *.npy
*.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite
*.tgz *.wasm *.xz *.zip *.zst *tfevents* *.pcm *.sam *.raw *.aac *.flac *.mp3 *.ogg *.wav *.bmp *.gif *.png *.tiff
*.jpg *.jpeg *.webp *.mp4 *.webm
"""
GIT_ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in _LFS_PATTERNS.split())
"""What a new dataset repository holds in its only file."""

_LICENSES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown
other
"""


# --- blobs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Blob:
    """Bytes, in memory or in a file."""

    sha256: str
    size: int
    content: bytes | Path = field(repr=False)

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from ``start`` to before ``stop``, in pieces."""
        stop = self.size if stop is None else min(stop, self.size)
        if isinstance(self.content, bytes):
            for position in range(start, stop, CHUNK):
                yield self.content[position : min(position + CHUNK, stop)]
            return
        with self.content.open("rb") as file:
            file.seek(start)
            while start < stop and (chunk := file.read(min(CHUNK, stop - start))):
                start += len(chunk)
                yield chunk

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes from ``start`` to before ``stop``."""
        return b"".join(self.chunks(start, stop))


class BlobStore:
    """Blobs by SHA-256, each once; those above ``memory_limit`` bytes lie in ``folder``."""

    def __init__(self, folder: Path, memory_limit: int) -> None:
        self.folder = folder
        self.memory_limit = memory_limit
        self.kept: dict[str, Blob] = {}

    def receive(self, chunks: Iterable[bytes]) -> Blob:
        """Collect a blob without keeping it: pass it to ``keep`` or to ``drop`` afterwards."""
        digest, memory, size, source = hashlib.sha256(), bytearray(), 0, iter(chunks)
        for chunk in source:
            digest.update(chunk)
            memory += chunk
            if len(memory) > self.memory_limit:
                break
        else:
            return Blob(digest.hexdigest(), len(memory), bytes(memory))
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
            path = Path(file.name)
            try:
                size = file.write(memory)
                for chunk in source:
                    digest.update(chunk)
                    size += file.write(chunk)
            except BaseException:
                path.unlink()
                raise
        return Blob(digest.hexdigest(), size, path)

    def keep(self, blob: Blob) -> Blob:
        """Store a received blob and return the stored one, which is the older one of two that are equal."""
        if blob.sha256 in self.kept:
            self.drop(blob)
        elif isinstance(blob.content, Path):
            path = blob.content.rename(self.folder / blob.sha256)
            self.kept[blob.sha256] = replace(blob, content=path)
        else:
            self.kept[blob.sha256] = blob
        return self.kept[blob.sha256]

    def drop(self, blob: Blob) -> None:
        """Forget a received blob; no harm if it has been kept."""
        if isinstance(blob.content, Path) and blob != self.kept.get(blob.sha256):
            blob.content.unlink(missing_ok=True)


# --- repositories -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class File:
    """A file of a commit."""

    blob: Blob
    lfs: bool
    since: str = ""
    """The commit that gave it this content."""

    @cached_property
    def pointer(self) -> bytes:
        """What git itself holds for a large file."""
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.blob.sha256}\nsize {self.blob.size}\n"
        return text.encode()

    @cached_property
    def oid(self) -> str:
        """The git blob id: of the content, or of the pointer to it."""
        size, chunks = (len(self.pointer), iter([self.pointer])) if self.lfs else (self.blob.size, self.blob.chunks())
        digest = hashlib.sha1(b"blob %d\0" % size)
        for chunk in chunks:
            digest.update(chunk)
        return digest.hexdigest()

    @property
    def etag(self) -> str:
        """The digest by which clients compare and cache it."""
        return self.blob.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    """A commit: all files of the repository, and where they come from."""

    oid: str
    parent: Commit | None = field(repr=False)
    title: str
    message: str
    author: str
    date: str
    files: Mapping[str, File] = field(repr=False)

    def history(self) -> Iterator[Commit]:
        """This commit and all before it, newest first."""
        commit: Commit | None = self
        while commit:
            yield commit
            commit = commit.parent

    def text(self, path: str) -> str:
        """The text of a small file, empty if there is none."""
        return self.files[path].blob.read().decode() if path in self.files else ""

    def entries(self, folder: str = "", *, recursive: bool = False) -> dict[str, File | None]:
        """The files and folders (None) in a folder by path; empty if there is no such folder."""
        prefix = f"{folder}/" if folder else ""
        found: dict[str, File | None] = {}
        for path, file in sorted(self.files.items()):
            if path.startswith(prefix):
                below = path.removeprefix(prefix).split("/")
                parents = [prefix + parent for parent in itertools.accumulate(below[:-1], "{}/{}".format)]
                found |= dict.fromkeys(parents if recursive else parents[:1])
                if recursive or not parents:
                    found[path] = file
        return found


class Repository:
    """A dataset repository; it begins with a commit of ``.gitattributes``, as on the Hub."""

    def __init__(self, name: str, attributes: Blob, *, private: bool = False, gated: str | bool = False) -> None:
        self.name = name
        self.private = private
        self.gated = gated
        """False, "auto" or "manual"."""
        self.granted: set[str] = set()
        """Users who may read it although it is gated."""
        self.objects: set[str] = set()
        """Digests of the large files that were uploaded to this repository, committed or not."""
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.commit(MAIN, {".gitattributes": File(attributes, lfs=False)}, "initial commit", author="system")

    @property
    def namespace(self) -> str:
        """The user or organization."""
        return self.name.partition("/")[0]

    def head(self, branch: str = MAIN) -> Commit:
        """The newest commit of a branch."""
        return self.commits[self.branches[branch]]

    def find(self, revision: str) -> Commit | None:
        """The commit of a branch, tag, full name of one, commit id, or the first seven or more digits of one."""
        name = re.sub(r"^refs/(heads|tags)/", "", revision)
        oid = self.branches.get(name) or self.tags.get(name) or name
        if len(oid) >= 7:
            oid = next((known for known in self.commits if known.startswith(oid)), oid)
        return self.commits.get(oid)

    def commit(
        self, branch: str, files: Mapping[str, File], title: str, message: str = "", author: str = "unknown"
    ) -> Commit:
        """Make ``files`` the whole content of a branch."""
        parent = self.head(branch) if branch in self.branches else None
        content = sorted((path, file.oid) for path, file in files.items())
        identity = [self.name, parent.oid if parent else None, content, title, message, author]
        oid = hashlib.sha1(json.dumps(identity).encode()).hexdigest()
        before = parent.files if parent else {}
        files = {
            path: before[path] if path in before and before[path].oid == file.oid else replace(file, since=oid)
            for path, file in files.items()
        }
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        self.commits[oid] = Commit(oid, parent, title, message, author, date, files)
        self.branches[branch] = oid
        return self.commits[oid]


# --- what the Hub decides about files ---------------------------------------------------------------------


def is_large(path: str, size: int, sample: bytes, attributes: str, threshold: int) -> bool:
    """Whether a file goes to LFS: by ``.gitattributes``, if it is binary, or above ``threshold`` bytes."""
    lines = (line.split() for line in attributes.splitlines())
    patterns = [words[0] for words in lines if "filter=lfs" in words]
    names = {pattern: path if "/" in pattern else PurePosixPath(path).name for pattern in patterns}
    named = any(fnmatch.fnmatchcase(name, pattern) for pattern, name in names.items())
    return size > 0 and (named or size > threshold or b"\0" in sample)


def is_ignored(path: str, gitignore: str) -> bool:
    """Whether ``.gitignore`` excludes a file; the usual patterns, without ``**`` and escapes."""
    verdict = False
    for line in filter(None, map(str.strip, gitignore.splitlines())):
        pattern = line.removeprefix("!")
        if line.startswith("#"):
            continue
        prefixes = list(itertools.accumulate(path.split("/"), "{}/{}".format))
        if pattern.endswith("/"):
            pattern, prefixes = pattern.rstrip("/"), prefixes[:-1]
        names = prefixes if "/" in pattern else [PurePosixPath(prefix).name for prefix in prefixes]
        if any(fnmatch.fnmatchcase(name, pattern.lstrip("/")) for name in names):
            verdict = not line.startswith("!")
    return verdict


def check_card(content: str) -> tuple[list[str], list[str]]:
    """Errors and warnings about the front matter of README.md: that it is there, and the licence."""
    if not content.startswith("---"):
        return [], ["empty or missing yaml metadata in repo card"]
    found = re.match(r"---[ \t]*\r?\n(.*?)^---[ \t]*$", content, re.DOTALL | re.MULTILINE)
    if not found:
        return ["the metadata between two lines of --- does not end"], []
    if not found[1].strip():
        return [], ["empty or missing yaml metadata in repo card"]
    unknown = [name for name in _licenses(found[1]) if name not in _LICENSES.split()]
    return [f'"license" must be one of the identifiers of the Hub, not {name!r}' for name in unknown], []


def _licenses(metadata: str) -> list[str]:
    """The licence, or several of them, in one line or one a line."""
    found = re.search(r"^license:[ \t]*(.*(?:\n[ \t]*-[ \t].*)*)", metadata, re.MULTILINE)
    lines = re.sub(r"^\s*-\s", "", found[1], flags=re.MULTILINE) if found else ""
    return re.findall(r"[^\s\[\],'\"]+", lines)
