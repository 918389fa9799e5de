"""The Hub of the tests (``tests/hub``) under the Hub's own unmodified clients, in processes of their own."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import re
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import hub as hubs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub import READ_TOKEN, STRANGER_TOKEN, WRITE_TOKEN, HubServer, LargeFile, Settings

KIB, MIB = 2**10, 2**20
PART = 256 * KIB
CARD = b"---\nlicense: mit\n---\n# Numbers\n"
FRAME = """
import json, sys, warnings
warnings.simplefilter("ignore")
values, result = json.loads(sys.argv[1]), {}

def attempt(name, act):
    try:
        result[name] = act()
    except Exception as error:
        response = getattr(error, "response", None)
        headers = getattr(response, "headers", {})
        limits = [headers.get("Retry-After"), headers.get("RateLimit")]
        result[name] = [type(error).__name__, getattr(response, "status_code", None), str(error), limits]

"""


needs_xet = pytest.mark.skipif(find_spec("hf_xet") is None, reason="uploads by Xet need hf_xet")


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """A Hub with small parts and pages; every test leaves it without surprises."""
    with HubServer(settings=Settings(part_size=PART, page_size=2), memory_limit=64 * KIB) as server:
        yield server
    assert server.unexpected == []


@pytest.fixture
def xet_hub() -> Iterator[HubServer]:
    """The same, with uploads by Xet."""
    with HubServer(settings=Settings(part_size=PART, page_size=2, xet=True), memory_limit=64 * KIB) as server:
        yield server
    assert server.unexpected == []


def run_client(
    hub: HubServer,
    home: Path,
    program: str,
    token: str | None = None,
    *,
    variables: Mapping[str, str] | None = None,
    **values: object,
) -> Any:
    """Run a program that finds ``values`` and fills ``result``, as a user of ``hub``; return ``result``."""
    source = f"{FRAME}{textwrap.dedent(program)}\nprint()\nprint(json.dumps(result))"
    process = subprocess.run(
        [sys.executable, "-c", source, json.dumps(values, default=str)],
        env=hub.environment(token=token, home=home, **(variables or {})),
        cwd=home.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def noise(name: str, size: int) -> bytes:
    return hashlib.shake_256(name.encode()).digest(size)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def asked(hub: HubServer, pattern: str) -> list[hubs.Request]:
    """The requests that match, in order."""
    return [request for request in hub.requests if re.search(pattern, f"{request.method} {request.path}")]


def shard(*numbers: int) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"number": numbers}), sink)
    return sink.getvalue().to_pybytes()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def test_a_folder_is_published_and_changed(hub: HubServer, tmp_path: Path) -> None:
    files = {
        "README.md": CARD,
        "empty.txt": b"",
        "notes/größe.txt": "größe\n".encode(),
        "data/small.parquet": noise("small", 100 * KIB),
        "data/large.parquet": noise("large", 3 * PART + 7),
        "binary": b"\0\1\2" * 1000,
    }
    program = """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api, repo = HfApi(), "ule/numbers"
    kind = {"repo_id": repo, "repo_type": "dataset"}
    result["who"] = api.whoami()
    result["url"] = api.create_repo(**kind)
    result["again"] = api.create_repo(**kind, exist_ok=True)
    attempt("twice", lambda: api.create_repo(**kind))

    def upload(**more):
        return api.upload_folder(**kind, folder_path=values["folder"], **more).oid

    result["first"] = upload(commit_message="First", commit_description="All of it")
    result["unchanged"] = upload()
    api.create_tag(**kind, tag="v1.0.0", tag_message="First release")
    api.create_tag(**kind, tag="v1.0.0", exist_ok=True)
    attempt("tagged", lambda: api.create_tag(**kind, tag="v1.0.0"))
    result["second"] = upload(
        path_in_repo="copy", allow_patterns="data/*", delete_patterns="none/*", commit_message="Same content elsewhere"
    )
    add = CommitOperationAdd("data/new.csv", b"1,2\\n")
    delete = [CommitOperationDelete("data/small.parquet"), CommitOperationDelete("copy/")]
    made = api.create_commit(**kind, operations=[*delete, add], commit_message="Third", parent_commit=result["second"])
    result["third"], result["commit_url"] = made.oid, made.commit_url
    late = [CommitOperationAdd("late.txt", b"late")]
    old = result["first"]
    attempt("late", lambda: api.create_commit(**kind, operations=late, commit_message="Late", parent_commit=old))
    gone = [CommitOperationDelete("no.txt")]
    attempt("gone", lambda: api.create_commit(**kind, operations=gone, commit_message="Gone"))
    card = [CommitOperationAdd("README.md", b"---\\nlicense: [mit, none-such]\\n---\\n")]
    attempt("card", lambda: api.create_commit(**kind, operations=card, commit_message="Card"))
    api.create_branch(**kind, branch="fix/1", revision="v1.0.0")
    api.upload_file(**kind, path_or_fileobj=b"*.log\\n", path_in_repo=".gitignore", revision="fix/1")
    logs = [CommitOperationAdd("run.log", b"x"), CommitOperationAdd("run.txt", b"y")]
    api.create_commit(**kind, operations=logs, commit_message="Logs", revision="fix/1")
    refs = api.list_repo_refs(**kind)
    result["refs"] = {ref.ref: ref.target_commit for ref in refs.branches + refs.tags}
    result["commits"] = [[c.commit_id, c.title, c.message, c.authors] for c in api.list_repo_commits(**kind)]
    rows = list(api.list_repo_tree(**kind, recursive=True, expand=True))
    result["tree"] = {r.path: [r.lfs.sha256 if r.lfs else r.blob_id, r.size, r.last_commit.title]
                      for r in rows if hasattr(r, "size")}
    result["folders"] = [r.path for r in rows if not hasattr(r, "size")]
    result["paths"] = [r.path for r in api.get_paths_info(repo, ["data", "binary", "none"], repo_type="dataset")]
    info = api.dataset_info(repo, files_metadata=True, revision="v1.0.0")
    result["info"] = [info.sha, info.private, {s.rfilename: s.size for s in info.siblings}]
    result["expanded"] = api.dataset_info(repo, expand=["sha"]).siblings
    api.update_repo_settings(**kind, private=True)
    """
    folder = write(tmp_path / "folder", files)
    result = run_client(hub, tmp_path / "home", program, WRITE_TOKEN, folder=folder)

    assert result["who"]["name"] == "tester"
    assert [row["name"] for row in result["who"]["orgs"]] == ["ule"]
    assert result["url"] == result["again"] == f"{hub.url}/datasets/ule/numbers"
    assert result["twice"][:2] == result["tagged"][:2] == ["HfHubHTTPError", 409]
    assert result["unchanged"] == result["first"]
    assert result["late"][:2] == ["HfHubHTTPError", 412]
    assert result["gone"][:2] == ["RemoteEntryNotFoundError", 404]
    assert result["card"][0] == "ValueError"
    assert "none-such" in result["card"][2]
    assert result["commit_url"].endswith(result["third"])

    large = {name for name in files if name.startswith("data/")} | {"binary"}
    stored = {name: LargeFile(len(c), digest(c)) if name in large else c for name, c in files.items()}
    first = hub.files("ule/numbers", "v1.0.0")
    assert b"*.parquet filter=lfs" in bytes(first.pop(".gitattributes"))
    assert first == stored
    assert all(hub.read("ule/numbers", name, result["first"]) == content for name, content in files.items())
    now = hub.files("ule/numbers")
    assert set(now) == {".gitattributes", "data/new.csv", *files} - {"data/small.parquet"}
    assert {"copy/data/large.parquet", "copy/data/small.parquet"} <= set(hub.files("ule/numbers", result["second"]))
    assert set(hub.files("ule/numbers", "fix/1")) - set(first) == {".gitattributes", ".gitignore", "run.txt"}

    titles = ["Third", "Same content elsewhere", "First", "initial commit"]
    assert [row[1] for row in result["commits"]] == [commit.title for commit in hub.commits("ule/numbers")] == titles
    assert result["commits"][2][2:] == ["All of it", ["tester"]]
    assert result["refs"] == hub.refs("ule/numbers")
    assert set(result["refs"]) == {"refs/heads/main", "refs/heads/fix/1", "refs/tags/v1.0.0"}
    assert result["tree"]["data/new.csv"] == [hashlib.sha1(b"blob 4\0" + b"1,2\n").hexdigest(), 4, "Third"]
    assert result["tree"]["data/large.parquet"] == [*reversed(stored["data/large.parquet"]), "First"]
    assert result["folders"] == ["data", "notes"]
    assert result["paths"] == ["data", "binary"]
    assert result["info"][:2] == [result["first"], False]
    assert result["info"][2].items() >= {name: len(content) for name, content in files.items()}.items()
    assert result["expanded"] is None
    assert hub.repository("ule/numbers").private

    puts = asked(hub, "^PUT /storage")
    assert sorted(request.received for request in puts) == [7, 3000, 100 * KIB, PART, PART, PART]
    assert {request.token for request in puts} == {None}
    assert {request.token for request in asked(hub, " /api/datasets")} == {WRITE_TOKEN}
    assert len(asked(hub, "^POST .*/commit/main")) == 5, "the unchanged folder made no request"
    assert hub.counters.uploads == 3
    assert hub.counters.commits == 5
    regular = sum(len(content) for name, content in files.items() if name not in large)
    assert hub.counters.bytes_uploaded == sum(request.received for request in puts) + regular + len("1,2\n*.log\ny")


def test_a_dataset_is_loaded_streamed_and_downloaded(hub: HubServer, tmp_path: Path) -> None:
    card = b"---\nlicense: mit\nconfigs:\n- config_name: default\n  data_files:\n"
    card += b"  - {split: train, path: data/train-*}\n  - {split: test, path: data/test-*}\n---\n"
    train = "data/train-00000-of-00001.parquet"
    first = {"README.md": card, train: shard(1, 2, 3), "data/test-00000-of-00001.parquet": shard(4)}
    hub.put("tester/numbers", first)
    hub.tag("tester/numbers", "v1")
    old = hub.refs("tester/numbers")["refs/tags/v1"]
    content = noise("raw", 200 * KIB)
    hub.put("tester/numbers", {train: shard(5, 6), "extra/all.parquet": shard(7), "raw.bin": content})
    program = """
    from datasets import Dataset, load_dataset
    from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download

    repo = "tester/numbers"
    def numbers(**more):
        return {name: [row["number"] for row in split] for name, split in load_dataset(repo, **more).items()}

    result["plain"], result["tag"] = numbers(), numbers(revision="v1")
    result["streamed"] = numbers(streaming=True)
    result["streamed tag"] = numbers(streaming=True, revision="v1")
    result["folder"] = numbers(data_dir="extra")
    result["snapshot"] = snapshot_download(repo, repo_type="dataset")
    result["by commit"] = snapshot_download(repo, repo_type="dataset", revision=values["old"][:9])
    result["file"] = hf_hub_download(repo, "raw.bin", repo_type="dataset", local_dir="here")
    attempt("no file", lambda: hf_hub_download(repo, "no.bin", repo_type="dataset"))
    attempt("no tag", lambda: hf_hub_download(repo, "raw.bin", repo_type="dataset", revision="v9"))
    files = HfFileSystem()
    result["listed"] = files.find("datasets/tester/numbers@v1", detail=False)
    result["globbed"] = files.glob("datasets/tester/numbers/**/*.parquet")
    with files.open("datasets/tester/numbers/raw.bin", block_size=1000) as file:
        file.seek(100_000)
        result["middle"] = file.read(10).hex()
    result["tail"] = files.cat_file("datasets/tester/numbers/raw.bin", start=-5).hex()
    result["whole"] = len(files.read_bytes("datasets/tester/numbers/raw.bin"))
    result["exists"] = HfApi().file_exists(repo, "raw.bin", repo_type="dataset")
    Dataset.from_dict({"number": [8, 9]}).push_to_hub("tester/pushed")
    result["pushed"] = load_dataset("tester/pushed", split="train")["number"][:]
    """
    result = run_client(hub, tmp_path / "home", program, WRITE_TOKEN, old=old)

    assert result["plain"] == result["streamed"] == {"train": [5, 6], "test": [4]}
    assert result["tag"] == result["streamed tag"] == {"train": [1, 2, 3], "test": [4]}
    assert result["folder"] == {"train": [7]}
    now = {path: hub.read("tester/numbers", path) for path in hub.files("tester/numbers")}
    for folder, expected in ((result["snapshot"], now), (result["by commit"], {".gitattributes", *first})):
        found = {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
        assert (found if isinstance(expected, dict) else set(found)) == expected
    assert Path(result["by commit"]).name == old
    assert (tmp_path / result["file"]).read_bytes() == content
    assert result["no file"][:2] == ["RemoteEntryNotFoundError", 404]
    assert result["no tag"][:2] == ["RevisionNotFoundError", 404]
    assert result["listed"] == [f"datasets/tester/numbers@v1/{path}" for path in sorted([".gitattributes", *first])]
    assert len(result["globbed"]) == 3
    assert result["middle"] == content[100_000:100_010].hex()
    assert result["tail"] == content[-5:].hex()
    assert result["whole"] == len(content)
    assert result["exists"] is True
    assert result["pushed"] == [8, 9]

    ranges = [part for path, part in hub.downloads if path == "raw.bin" and part]
    assert "bytes=100000-101009" in ranges
    assert {request.token for request in asked(hub, " /storage/")} == {None}
    assert {request.token for request in asked(hub, " /datasets/")} == {WRITE_TOKEN}
    assert asked(hub, "cursor=2"), "listings came in pages"
    uploaded = hub.files("tester/pushed")["data/train-00000-of-00001.parquet"]
    assert isinstance(uploaded, LargeFile)
    assert hub.counters.uploads == 1


def test_private_and_gated_repositories_open_for_those_who_may(hub: HubServer, tmp_path: Path) -> None:
    hub.put("ule/secret", {"a.txt": b"a", "b.bin": b"b"})
    hub.put("ule/gated", {"a.txt": b"a", "b.bin": b"b"})
    hub.put("ule/open", {"a.txt": b"a"})
    hub.repository("ule/secret").private = True
    hub.repository("ule/gated").gated = "auto"
    program = """
    from huggingface_hub import HfApi, hf_hub_download

    for name, token in {"nobody": False, **values["tokens"]}.items():
        api, kind = HfApi(token=token), {"repo_type": "dataset"}
        def read(repo, path):
            path = hf_hub_download(repo, path, **kind, token=token, cache_dir=f"cache-{name}")
            return open(path).read()
        attempt(f"{name} sees secret", lambda: api.dataset_info("ule/secret").private)
        attempt(f"{name} reads secret", lambda: read("ule/secret", "b.bin"))
        attempt(f"{name} sees gated", lambda: api.dataset_info("ule/gated").gated)
        attempt(f"{name} reads gated", lambda: read("ule/gated", "b.bin"))
        attempt(f"{name} sees missing", lambda: api.dataset_info("ule/missing").id)
        tag = dict(kind, tag=f"by-{name}")
        attempt(f"{name} writes open", lambda: api.create_tag("ule/open", **tag))
        attempt(f"{name} writes secret", lambda: api.create_tag("ule/secret", **tag))
        attempt(f"{name} creates", lambda: str(api.create_repo(f"ule/{name}", **kind, private=True)))
        attempt(f"{name} creates again", lambda: str(api.create_repo("ule/open", **kind, exist_ok=True)))
        attempt(f"{name} checks", lambda: api.auth_check("ule/open", **kind))
    attempt("nobody is", lambda: HfApi(token="hf_wrong").whoami())
    api = HfApi(token=values["tokens"]["writer"])
    api.delete_repo("ule/writer", **kind)
    attempt("deleted", lambda: api.dataset_info("ule/writer").id)
    """
    hub.api.tokens["hf_of_a_guest"] = hubs.Token("guest", "read")
    hub.repository("ule/gated").granted.add("guest")
    tokens = {"writer": WRITE_TOKEN, "reader": READ_TOKEN, "stranger": STRANGER_TOKEN, "guest": "hf_of_a_guest"}
    tokens["liar"] = "hf_wrong"
    result = run_client(hub, tmp_path / "home", program, tokens=tokens)

    outcomes = {name: value[:2] if isinstance(value, list) else value for name, value in result.items()}
    missing = {who: ["RepositoryNotFoundError", 401 if who == "nobody" else 404] for who in ("nobody", "stranger")}
    for who in ("nobody", "stranger"):
        for what in ("sees secret", "reads secret", "sees missing", "writes secret"):
            assert outcomes[f"{who} {what}"] == missing[who], f"{who} {what}"
        assert outcomes[f"{who} sees gated"] == "auto"
        assert outcomes[f"{who} reads gated"] == ["GatedRepoError", 401 if who == "nobody" else 403]
        assert outcomes[f"{who} checks"] is None
    assert outcomes["stranger creates again"].endswith("/ule/open"), "it exists, and that is enough"
    for who, code in (("nobody", 401), ("stranger", 403), ("guest", 403), ("reader", 403), ("liar", 401)):
        assert outcomes[f"{who} writes open"] == outcomes[f"{who} creates"] == ["HfHubHTTPError", code]
    for who in ("writer", "reader"):
        assert outcomes[f"{who} sees secret"] is True
        assert outcomes[f"{who} reads secret"] == outcomes[f"{who} reads gated"] == "b"
    assert outcomes["reader writes secret"] == ["HfHubHTTPError", 403]
    assert outcomes["guest reads gated"] == "b"
    assert outcomes["guest sees secret"] == missing["stranger"]
    assert outcomes["liar sees secret"] == outcomes["nobody is"] == ["HfHubHTTPError", 401]
    assert outcomes["writer writes open"] is outcomes["writer writes secret"] is None
    assert outcomes["writer creates"] == f"{hub.url}/datasets/ule/writer"
    assert outcomes["deleted"] == ["RepositoryNotFoundError", 404]
    assert set(hub.refs("ule/open")) == {"refs/heads/main", "refs/tags/by-writer"}


def test_a_client_meets_every_fault_as_the_real_error(hub: HubServer, tmp_path: Path) -> None:
    new, large = noise("new", 3 * PART), noise("large", 100) * 120_000
    assert len(large) > MIB * 11, "the client keeps what it got in steps of 10 MiB"
    for name in ("t/500", "t/503", "t/429", "t/gone", "t/slow", "t/cut", "t/later", "tester/data"):
        hub.put(name, {"a.txt": b"a"})
    hub.put("tester/data", {"large.bin": large})
    hub.faults.add("GET /api/datasets/t/500", hubs.status(500, message="broken"))
    hub.faults.add("GET /api/datasets/t/503", hubs.status(503, retry_after=7), times=None)
    hub.faults.add("GET /api/datasets/t/429", hubs.status(429, rate_limit=55))
    hub.faults.add("GET /api/datasets/t/later", hubs.status(500), after=1, times=2)
    hub.faults.add("GET /api/datasets/t/gone", hubs.disconnect())
    hub.faults.add("GET /api/datasets/t/slow", hubs.delay(5))
    limited = hub.faults.add("POST /api/datasets/tester/data/preupload", hubs.status(429, rate_limit=0))
    lost = hub.faults.add("POST /api/datasets/tester/data/commit", hubs.lose_answer())
    untagged = hub.faults.add(lambda r: r.method == "POST" and "/tag/" in r.path, hubs.disconnect())
    upload = hub.faults.add("PUT /storage", hubs.cut_upload(1000))
    download = hub.faults.add("GET /storage/.*file=large.bin", hubs.cut_download(11 * MIB))
    short = hub.faults.add("GET /datasets/t/cut/resolve/main/a.txt", hubs.cut_download(0), times=None)
    program = """
    import time
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.utils import get_session

    api = HfApi()
    for name in ("500", "500", "503", "503", "429", "gone", "later", "later", "later", "later"):
        attempt(name if name not in result else f"{name} again{len(result)}", lambda: api.dataset_info(f"t/{name}").id)
    start = time.monotonic()
    attempt("slow", lambda: api.dataset_info("t/slow", timeout=0.3).id)
    result["waited"] = time.monotonic() - start
    repo, kind = "tester/data", {"repo_type": "dataset"}
    put = dict(kind, path_or_fileobj=values["new"], path_in_repo="new.bin")
    attempt("lost", lambda: api.upload_file(repo_id=repo, **put).oid)
    attempt("untagged", lambda: api.create_tag(repo, tag="v1", **kind))
    for _ in range(2):  # the first versions of the client do not resume by themselves
        attempt("file", lambda: hf_hub_download(repo, "large.bin", **kind, cache_dir="cache"))
    attempt("cut", lambda: get_session().get(f"{api.endpoint}/datasets/t/cut/resolve/main/a.txt").text)
    """
    result = run_client(hub, tmp_path / "home", program, WRITE_TOKEN, new=write(tmp_path, {"new.bin": new}) / "new.bin")

    assert result["500"][:2] == ["HfHubHTTPError", 500]
    assert "broken" in result["500"][2]
    assert result["500 again1"] == "t/500"
    assert result["503"][:2] == result["503 again3"][:2] == ["HfHubHTTPError", 503]
    assert result["503"][3] == ["7", None]
    assert result["429"][:2] == ["HfHubHTTPError", 429]
    assert result["429"][3] == [None, '"api";r=0;t=55']
    assert result["gone"][0] == "RemoteProtocolError"
    later = [value for name, value in result.items() if name.startswith("later")]
    assert [value if value == "t/later" else value[1] for value in later] == ["t/later", 500, 500, "t/later"]
    assert result["slow"][0] == "ReadTimeout"
    assert result["waited"] < 3

    assert limited.hits == 1
    assert [r.status for r in asked(hub, "/preupload/")] == [429, 200], "tried again by the client"
    assert result["lost"][0] == "RemoteProtocolError"
    assert lost.hits == 1
    assert hub.files("tester/data")["new.bin"] == LargeFile(len(new), digest(new)), "but it was committed"
    assert hub.counters.commits == 1
    assert result["untagged"][0] == "RemoteProtocolError"
    assert untagged.hits == 1
    assert set(hub.refs("tester/data")) == {"refs/heads/main"}, "and nothing was tagged"
    puts = asked(hub, "^PUT /storage")
    assert [(r.received, r.status) for r in puts[:2]] == [(1000, None), (PART, 200)], "a part came twice"
    assert upload.hits == 1
    assert hub.counters.bytes_uploaded == len(new)
    assert (tmp_path / result["file"]).read_bytes() == large
    gets = asked(hub, "^GET /storage")
    assert [(r.range, r.sent) for r in gets] == [
        (None, 11 * MIB),
        (f"bytes={10 * MIB}-", len(large) - 10 * MIB),
    ]
    assert download.hits == 1
    assert result["cut"][0] == "RemoteProtocolError"
    assert short.hits == 1
    assert [request.fault for request in gets] == [download.fault, None]


@needs_xet
def test_files_come_by_xet_whole_and_no_chunk_twice(xet_hub: HubServer, tmp_path: Path) -> None:
    large, chance = noise("large", 4 * MIB), random.Random(0)
    train = "data/train-00000-of-00001.parquet"
    floats = struct.pack("<100001f", *(chance.gauss(0, 0.01) for _ in range(100_001)))
    files = {
        "README.md": CARD,
        "large.bin": large,
        "other.bin": large[: 3 * MIB] + b"another end",
        "text.bin": b"0123456789\0" * 200_000,
        "floats.bin": floats + b"odd",
        "small.bin": b"\0small",
        train: shard(1, 2, 3),
    }
    changed = large[: 2 * MIB] + b"something new" + large[2 * MIB + 7 :]
    bits, late = noise("bits", 300 * KIB), noise("late", 2 * PART)
    program = """
    import io
    from pathlib import Path
    from datasets import load_dataset
    from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download

    api, repo, folder = HfApi(), "tester/numbers", Path(values["folder"])
    kind = {"repo_id": repo, "repo_type": "dataset"}
    if values["upload"]:
        api.create_repo(**kind)
        result["commits"] = [api.upload_folder(**kind, folder_path=folder).oid for _ in range(2)]
        more = folder.with_name("more")
        (more / "changed.bin").replace(folder / "large.bin")
        result["commits"].append(api.upload_folder(**kind, folder_path=folder).oid)
        additions = [
            CommitOperationAdd("bits.bin", str(more / "bits.bin")),
            CommitOperationAdd("again.bin", (folder / "floats.bin").read_bytes()),
        ]
        for addition in additions:
            api.preupload_lfs_files(repo, [addition], repo_type="dataset")
        result["commits"].append(api.create_commit(**kind, operations=additions, commit_message="More").oid)
        buffer = io.BytesIO((more / "late.bin").read_bytes())
        result["commits"].append(api.upload_file(**kind, path_or_fileobj=buffer, path_in_repo="late.bin").oid)
    result["snapshot"] = snapshot_download(repo, repo_type="dataset")
    result["numbers"] = [row["number"] for row in load_dataset(repo, split="train")]
    """
    hub, folder = xet_hub, write(tmp_path / "folder", files)
    write(tmp_path / "more", {"changed.bin": changed, "bits.bin": bits, "late.bin": late})
    result = run_client(hub, tmp_path / "home", program, WRITE_TOKEN, upload=True, folder=folder)
    first, same, second, more, last = result["commits"]
    assert same == first
    assert len({first, second, more, last}) == hub.counters.commits == 4
    assert all(hub.read("tester/numbers", name, first) == content for name, content in files.items())
    now = {**files, "large.bin": changed, "bits.bin": bits, "again.bin": files["floats.bin"], "late.bin": late}
    assert {name: hub.read("tester/numbers", name, last) for name in now} == now
    assert hub.files("tester/numbers")["large.bin"] == LargeFile(len(changed), digest(changed))
    assert hub.files("tester/numbers")["README.md"] == CARD

    sent = [[0, 0]]  # bytes of xorbs, and of LFS, before each commit
    for request in asked(hub, "/v1/xorbs/|^PUT |/commit/"):
        if "/commit/" in request.path:
            sent.append([0, 0])
        else:
            sent[-1][request.method == "PUT"] += request.received
    assert sent.pop() == [0, 0]
    assert sum(map(len, files.values())) > sent[0][0] > len(large), "nothing is missing, and some could be compressed"
    assert 0 < sent[1][0] < len(large) / 4, "little of the changed file"
    assert len(bits) < sent[2][0] < len(bits) + 10 * KIB, "nothing of the other, which was there by another name"
    assert sent[3] == [0, len(late)], "what is not a file comes without Xet"
    assert [lfs for _, lfs in sent[:3]] == [0, 0, 0]
    assert hub.counters.uploads == len(files) - 1 + 3
    assert hub.counters.bytes_uploaded == sum(map(sum, sent)) + len(CARD)
    assert {request.token for request in asked(hub, " /v[12]/")} <= set(hub.api.xet_tokens)

    plain = {"HF_HUB_DISABLE_XET": "1"}
    again = run_client(hub, tmp_path / "other", program, WRITE_TOKEN, variables=plain, upload=False, folder=folder)
    for outcome in (result, again):
        assert outcome["numbers"] == [1, 2, 3]
        assert {name: (Path(outcome["snapshot"]) / name).read_bytes() for name in now} == now


@needs_xet
def test_xet_meets_faults_and_closed_doors(xet_hub: HubServer, tmp_path: Path) -> None:
    hub, content = xet_hub, noise("content", 500 * KIB)
    for name in ("tester/a", "tester/b"):
        hub.create(name)
    token = hub.faults.add("GET /api/datasets/tester/a/xet-write-token/main", hubs.status(503))
    cut = hub.faults.add("POST /v1/xorbs", hubs.cut_upload(100 * KIB))
    broken = hub.faults.add("POST /v1/xorbs", hubs.status(500))
    lost = hub.faults.add("POST /v1/shards", hubs.lose_answer())
    program = """
    from huggingface_hub import HfApi

    def upload(repo, token=None):
        api = HfApi(token=token)
        return api.upload_file(repo_id=repo, repo_type="dataset", path_or_fileobj=values["file"], path_in_repo="a.bin")

    attempt("patient", lambda: upload("tester/a").oid)
    attempt("reader", lambda: upload("tester/b", values["reader"]).oid)
    attempt("stranger", lambda: upload("tester/b", values["stranger"]).oid)
    attempt("shared", lambda: upload("tester/b").oid)
    with open(values["file"], "ab") as file:
        file.write(bytes(range(256)) * 1000)
    attempt("refused", lambda: upload("tester/b").oid)
    """
    refusal = hub.faults.add("POST /v1/xorbs", hubs.status(403), after=1, times=None)
    variables = {"HF_XET_CLIENT_RETRY_BASE_DELAY": "20ms"}
    values = {"file": write(tmp_path, {"a.bin": content}) / "a.bin", "reader": READ_TOKEN, "stranger": STRANGER_TOKEN}
    result = run_client(hub, tmp_path / "home", program, WRITE_TOKEN, variables=variables, **values)
    assert result["patient"] == hub.commits("tester/a")[0].oid
    assert result["shared"] == hub.commits("tester/b")[0].oid
    assert result["reader"][:2] == result["stranger"][:2] == ["HfHubHTTPError", 403]
    assert [fault.hits for fault in (token, cut, broken, lost)] == [1, 1, 1, 1]
    xorbs = asked(hub, "POST /v1/xorbs")
    assert [r.status for r in xorbs] == [None, 500, 200, 403], "what came for tester/a is not sent again for tester/b"
    assert result["refused"][0] == "ConnectionError", "errors of Xet are none of the Hub's"
    assert refusal.hits == 1
    assert hub.counters.bytes_uploaded == xorbs[2].received
    assert hub.counters.uploads == 2
    for name in ("tester/a", "tester/b"):
        assert hub.read(name, "a.bin") == content


def test_unknown_requests_are_remembered(tmp_path: Path) -> None:
    with HubServer() as hub:
        hub.create("t/a")
        program = """
        from huggingface_hub import HfApi
        attempt("model", lambda: HfApi().model_info("t/a").id)
        attempt("pull request", lambda: HfApi().create_pull_request("t/a", title="x", repo_type="dataset").url)
        """
        result = run_client(hub, tmp_path / "home", program, WRITE_TOKEN)
        assert [value[1] for value in result.values()] == [404, 404]
        assert hub.unexpected == ["GET /api/models/t/a", "POST /api/datasets/t/a/discussions"]


def test_the_wire_is_http_with_ranges_and_chunks(hub: HubServer) -> None:
    hub.put("t/a", {"a.txt": b"0123456789", "b.bin": b"0123456789" * 10_000})
    web, storage = (http.client.HTTPConnection(urlsplit(url).netloc) for url in (hub.url, hub.storage_url))

    def ask(connection: http.client.HTTPConnection, method: str, path: str, *, body: Any = None, **headers: str) -> Any:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers

    place = "/datasets/t/a/resolve/main/a.txt"
    for asked_for, status, content in (
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-2", 206, b"89"),
        ("bytes=8-99", 206, b"89"),
        ("bytes=1-2,4-5", 200, b"0123456789"),
    ):
        assert ask(web, "GET", place, Range=asked_for)[:2] == (status, content)
    status, _, headers = ask(web, "GET", place, Range="bytes=10-")
    assert (status, headers["Content-Range"]) == (416, "bytes */10")
    status, body, headers = ask(web, "HEAD", place)
    assert (status, body, headers["Content-Length"]) == (200, b"", "10")
    assert headers["X-Repo-Commit"] == hub.commits("t/a")[0].oid

    status, _, headers = ask(web, "GET", "/datasets/t/a/resolve/main/b.bin")
    link = urlsplit(headers["Location"])
    path = f"{link.path}?{link.query}"
    assert (status, link.netloc, headers["X-Linked-Size"]) == (302, storage.host + f":{storage.port}", "100000")
    assert ask(storage, "GET", path, Range="bytes=99998-")[1] == b"89"
    assert ask(storage, "GET", path.replace("b.bin", "c.bin"))[0] == 403
    assert ask(storage, "GET", path, Authorization=f"Bearer {WRITE_TOKEN}")[0] == 400
    assert hub.unexpected.pop().endswith("came with a token")

    card = json.dumps({"content": "# No metadata"}).encode()
    pieces = (card[start : start + 5] for start in range(0, len(card), 5))
    status, body, _ = ask(web, "POST", "/api/validate-yaml", body=pieces)
    assert (status, json.loads(body)["errors"], len(json.loads(body)["warnings"])) == (200, [], 1)
    assert hub.requests[-1].received == len(card)
    assert {
        len(kept.content) > 64 * KIB for kept in hub.api.blobs.kept.values() if isinstance(kept.content, bytes)
    } == {False}


def test_chunks_are_refused_unless_they_make_the_file(xet_hub: HubServer) -> None:
    hub = xet_hub
    hub.create("tester/a", private=True)
    web, storage = (http.client.HTTPConnection(urlsplit(url).netloc) for url in (hub.url, hub.storage_url))

    def ask(connection: http.client.HTTPConnection, path: str, token: str = "", body: bytes | None = None) -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    access = "/api/datasets/tester/a/xet-{}-token/{}"
    assert [ask(web, access.format("read", "main"), token)[0] for token in ("", STRANGER_TOKEN)] == [401, 404]
    assert ask(web, access.format("write", "main"), READ_TOKEN)[0] == 403
    assert ask(web, access.format("write", "none"), WRITE_TOKEN)[0] == 404
    status, given = ask(web, access.format("write", "main"), WRITE_TOKEN)
    assert (status, given["casUrl"], given["exp"] > time.time() + 600) == (200, hub.storage_url, True)
    assert storage.host in hub.storage_url
    writer, reader = given["accessToken"], ask(web, access.format("read", "main"), READ_TOKEN)[1]["accessToken"]
    assert ask(web, "/api/datasets/tester/a", writer)[0] == 401, "it is for chunks only"

    content = [noise("a", 1000), b"some text " * 300, struct.pack("<301f", *range(301)) + b"odd"]
    grouped = b"".join(content[2][first::4] for first in range(4))
    packed = [content[0], *(pa.compress(part, codec="lz4", asbytes=True) for part in (content[1], grouped))]
    xorb = b"".join(
        b"\0" + struct.pack("<I", len(part))[:3] + bytes([scheme]) + struct.pack("<I", len(whole))[:3] + part
        for scheme, (whole, part) in enumerate(zip(content, packed, strict=True))
    )
    name = "00" * 31 + "0f"
    place = f"/v1/xorbs/default/{name}"
    assert {ask(storage, place, token, xorb)[0] for token in ("", "xet_wrong", WRITE_TOKEN)} == {401}
    assert ask(storage, place, reader, xorb)[0] == 403
    for bad in (xorb[:-1], xorb + b"\0", b"\1" + xorb[1:], xorb[:4] + b"\3" + xorb[5:]):
        assert ask(storage, place, writer, bad)[0] == 400
    assert hub.counters.bytes_uploaded == 0

    def as_stored(digits: str) -> bytes:
        return b"".join(bytes.fromhex(digits[start : start + 16])[::-1] for start in range(0, 64, 16))

    def make(chunks: str, start: int, stop: int, size: int, sha256: str, *, flags: int = 3 << 30) -> int:
        rows = [b"HFRepoMetaData".ljust(32) + struct.pack("<2Q", 2, 0)]
        rows += [as_stored("0" * 64) + struct.pack("<2IQ", flags, 1, 0)]
        rows += [as_stored(chunks) + struct.pack("<4I", 0, size, start, stop), bytes(48)]
        rows += [as_stored(sha256) + bytes(16)] if flags & 1 << 30 else []
        return ask(storage, "/v1/shards", writer, b"".join([*rows, b"\xff" * 32 + bytes(16)]))[0]

    whole = b"".join(content)
    right = (name, 0, 3, len(whole), digest(whole))
    assert make(*right) == 400, "nothing has come"
    assert ask(storage, place, writer, xorb) == (200, {"was_inserted": True})
    assert ask(storage, place, writer, xorb + b"XETBLOB and more") == (200, {"was_inserted": False})
    assert make(*right[:3], len(whole) - 1, digest(whole)) == make(*right[:4], digest(xorb)) == 400
    assert make(name, 0, 4, *right[3:]) == make(name, 2, 2, *right[3:]) == make(*right, flags=1 << 31) == 400
    assert hub.repository("tester/a").objects == set()
    assert [make(*right), make(*right), make(name, 1, 2, len(content[1]), digest(content[1]))] == [200] * 3
    stored = {digest(whole): whole, digest(content[1]): content[1]}
    assert {oid: hub.api.blobs.kept[oid].read() for oid in hub.repository("tester/a").objects} == stored
    assert hub.counters.uploads == 2
    assert hub.counters.bytes_uploaded == 2 * len(xorb) + len("XETBLOB and more")
    assert ask(storage, f"/v1/chunks/default/{name}", reader)[0] == 404
    assert ask(storage, "/v1/telemetry", body=b"{}")[0] == 200

    with HubServer() as other:
        other.create("tester/a")
        connection = http.client.HTTPConnection(urlsplit(other.url).netloc)
        assert ask(connection, access.format("write", "main"), WRITE_TOKEN)[0] == 404
        assert other.unexpected.pop().endswith("/xet-write-token/main"), "without xet=True there is none"


def test_leaving_cuts_idle_and_waiting_connections() -> None:
    threads = len(threading.enumerate())
    with HubServer() as hub:
        hub.faults.add("GET /api/slow", hubs.delay(60))
        idle, waiting = (socket.create_connection(urlsplit(hub.url).netloc.split(":")) for _ in range(2))
        waiting.sendall(b"GET /api/slow HTTP/1.1\r\n\r\n")
        while not hub.requests:
            time.sleep(0.01)
        start = time.monotonic()
    with idle, waiting:
        assert idle.recv(1) == b""
        waiting.settimeout(5)
        while waiting.recv(1000):
            pass
    assert time.monotonic() - start < 5
    assert len(threading.enumerate()) <= threads + 2, "at most the two connections, on their way out"


def test_the_environment_is_the_hubs_alone(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "HUGGING_FACE_HUB_TOKEN", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "of the user")
    environment = hub.environment(home=tmp_path, EXTRA="1")
    assert "of the user" not in environment.values()
    assert environment["HF_ENDPOINT"] == hub.url
    assert environment["EXTRA"] == "1"
    assert hub.environment(home=tmp_path, token="t")["HF_TOKEN"] == "t"
    assert environment["HF_HUB_DISABLE_XET"] == "1"


def test_xet_is_on_where_the_hub_takes_it(xet_hub: HubServer, tmp_path: Path) -> None:
    assert "HF_HUB_DISABLE_XET" not in xet_hub.environment(home=tmp_path)
