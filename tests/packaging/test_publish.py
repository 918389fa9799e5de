"""Publishing and fetching by the command line, in other processes, with the Hub's own unmodified clients.

Almost all of them are forked from a process that has imported what takes long, but nothing of the Hub's clients:
those start afresh in each, with a home of its own.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import pytest
from helpers import Outcome, class_names, data_files, make_splits, run_build, snapshot, write_parquet
from hub import (
    READ_TOKEN,
    STRANGER_TOKEN,
    WRITE_TOKEN,
    Fault,
    HubServer,
    LargeFile,
    Request,
    Settings,
    Token,
    cut_download,
    cut_upload,
    delay,
    disconnect,
    garbage,
    lose_answer,
    status,
)

from builders import RECIPES
from ule_datasets.interface.recipes import find_recipe
from ule_datasets.packaging.publication import PublishOptions, plan_publication

FIRST, SECOND = "ule/ops-digits", "ule/mine"
MANY_SHARDS = """
from dataclasses import replace
from builders import RECIPES

RECIPE = replace(RECIPES["ops-digits"], name="mine", shard_mebibytes=0.25)
"""
"""Version 1.0.0 of a user's dataset."""
FEW_SHARDS = MANY_SHARDS.replace("shard_mebibytes=0.25", 'version="1.1.0"')
OTHER_CONTENT = MANY_SHARDS.replace("shard_mebibytes=0.25", 'version="1.1.0", shard_mebibytes=1')
OWN = """
from dataclasses import replace
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut
from ule_datasets.data.bounds import L0
from ule_datasets.definition import Recipe
from ule_datasets.sources.own_images import OWN_IMAGES

LICENCE = replace(OWN_IMAGES.licence, hub_id="other", redistributable=False)
RECIPE = Recipe(
    name="own", title="Own", summary="Own images.", source=replace(OWN_IMAGES, licence=LICENCE),
    methods=(OnePixelShortcut(),), budget=(L0(pixels=1),), version="1.0.0",
)
"""
"""Images that may not be passed on."""
OWN_PUBLIC = OWN.replace(", redistributable=False", "")
OWN_UNKNOWN_LICENCE = OWN_PUBLIC.replace('"other"', '"no-such-licence"')
MARKER = "hf_MARKERTOKEN123"


# --- other processes -----------------------------------------------------------------------------------------

BUILD = "from ule_datasets.cli.build import main; sys.exit(main(words))"
VERIFY = "from ule_datasets.cli.verify import main; sys.exit(main(words))"
SHORT_WAITS = """
import time
import ule_datasets.places.hub

def sleep(seconds, really=time.sleep):
    with open("waits", "a") as file:
        print(seconds, file=file)
    really(min(seconds, 0.01))

time.sleep = sleep
ule_datasets.places.hub.TRIES = 3
"""
"""Goes before a program: waits are noted instead of waited."""
FORKING = """
import contextlib, importlib, json, os, sys, traceback
import ule_datasets.building, ule_datasets.interface.recipes, ule_datasets.dataset.loading, ule_datasets.verifying
import ule_datasets.packaging.publish

for name in ("filelock", "fsspec", "httpx", "httpx2", "pandas", "requests", "yaml"):  # which, depends on versions
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
assert "huggingface_hub" not in sys.modules
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.chdir(job["folder"])
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.environ.clear()
            os.environ.update(job["environment"])
            exec(job["program"], {"__name__": "__main__", "sys": sys, "words": job["words"]})
            code = 0
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(child, flush=True)
    sys.stdin.readline()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Desk:
    """Where processes are started, one after the other."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORKING], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._folder = Path()
        self._child = 0

    def start(self, program: str, words: Iterable[str | Path], folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        job = {"program": program, "words": [*map(str, words)], "folder": str(folder), "environment": environment}
        self._child = int(self._ask(json.dumps(job)))

    def kill(self) -> None:
        """No harm if it has ended: it is not forgotten before ``finish``."""
        os.kill(self._child, signal.SIGKILL)

    def finish(self) -> Outcome:
        code = int(self._ask(""))
        return Outcome(code, *((self._folder / name).read_text() for name in ("stdout", "stderr")))

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        return self._process.stdout.readline()


class User:
    """Somebody with a home of their own, at first empty, and perhaps a token."""

    def __init__(self, desk: Desk, hub: HubServer, folder: Path, token: str | None = None) -> None:
        folder.mkdir()
        self.desk, self.hub, self.folder, self.token = desk, hub, folder, token

    def environment(self, **more: str) -> dict[str, str]:
        return self.hub.environment(token=self.token, home=self.folder / "home", OMP_NUM_THREADS="1", **more)

    def start(self, *words: str | Path, before: str = "", **more: str) -> None:
        self.desk.start(before + BUILD, ["--workers", "1", *words], self.folder, self.environment(**more))

    def build(self, *words: str | Path, before: str = "", **more: str) -> Outcome:
        self.start(*words, before=before, **more)
        return self.desk.finish()

    def verify(self, *words: str | Path, before: str = "", **more: str) -> Outcome:
        self.desk.start(before + VERIFY, ["--workers", "1", *words], self.folder, self.environment(**more))
        return self.desk.finish()

    def run(self, program: str, *words: str | Path, **more: str) -> Any:
        """What a program of one's own prints as JSON in its last line."""
        self.desk.start(textwrap.dedent(program), words, self.folder, self.environment(**more))
        outcome = self.desk.finish()
        assert outcome.code == 0, outcome.stderr
        return json.loads(outcome.stdout.splitlines()[-1])

    def command(self, module: str, *words: str | Path) -> Outcome:
        """``python -m``, from the very beginning."""
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, words)],
            env=self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    @property
    def waits(self) -> list[float]:
        """Seconds, after programs with ``SHORT_WAITS``."""
        path = self.folder / "waits"
        return [float(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.close()


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server
    assert server.unexpected == []


@pytest.fixture
def owner(desk: Desk, hub: HubServer, tmp_path: Path) -> User:
    """Who may write to ``ule`` and ``tester``."""
    return User(desk, hub, tmp_path / "owner", WRITE_TOKEN)


@pytest.fixture
def reader(desk: Desk, hub: HubServer, tmp_path: Path) -> User:
    """Without a token."""
    return User(desk, hub, tmp_path / "reader")


@pytest.fixture
def digits(built_digits: Path, tmp_path: Path) -> Path:
    """A finished ops-digits."""
    return Path(shutil.copytree(built_digits, tmp_path / "digits"))


class Published(NamedTuple):
    """ops-digits as it is on a Hub and in the folder that it came from; not to be changed."""

    hub: HubServer
    folder: Path


@pytest.fixture(scope="module")
def published(desk: Desk, built_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    base = tmp_path_factory.mktemp("published")
    folder = Path(shutil.copytree(built_digits, base / "digits"))
    with HubServer() as server:
        owner = User(desk, server, base / "owner", WRITE_TOKEN)
        outcome = owner.command("ule_datasets.cli.build", "ops-digits", "--out", folder, "--push-to-hub")
        assert outcome.code == 0, outcome.stderr
        files = sum(path.is_file() for path in folder.rglob("*"))
        assert f"published ops-digits 1.0.0 as ule/ops-digits: {files} files uploaded (commit " in outcome.stdout
        yield Published(server, folder)
    assert server.unexpected == []


class Version(NamedTuple):
    """A recipe file of ``mine`` and the finished dataset."""

    recipe: Path
    folder: Path

    @property
    def push(self) -> tuple[str | Path, ...]:
        return (self.recipe, "--out", self.folder, "--push-to-hub")


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Version]:
    """``old`` 1.0.0 in many shards, ``new`` 1.1.0 in few, and ``other``: 1.1.0 in yet another way."""
    base, made = tmp_path_factory.mktemp("versions"), {}
    for name, text in (("old", MANY_SHARDS), ("new", FEW_SHARDS), ("other", OTHER_CONTENT)):
        (base / f"{name}.py").write_text(text)
        made[name] = Version(base / f"{name}.py", base / name)
        outcome = run_build(base / f"{name}.py", "--out", base / name)
        assert outcome.code == 0, outcome.stderr
    return made


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# --- looking -------------------------------------------------------------------------------------------------


def held(hub: HubServer, repo: str, revision: str = "main") -> str | None:
    """The version that a reader finds, whole and without anything else; None where there is nothing."""
    if repo not in hub.api.repositories:
        return None
    files = {path: file for path, file in hub.files(repo, revision).items() if path != ".gitattributes"}
    if not files:
        return None
    found = {
        path: file if isinstance(file, LargeFile) else LargeFile(len(file), hashlib.sha256(file).hexdigest())
        for path, file in files.items()
    }
    assert "manifest.json" in found, f"{sorted(found)} without a manifest"
    manifest = json.loads(hub.read(repo, "manifest.json", revision))
    del found["manifest.json"]
    assert found == {file["path"]: LargeFile(file["size"], file["sha256"]) for file in manifest["files"]}
    return str(manifest["version"])


def assert_published(hub: HubServer, repo: str, version: str = "1.0.0", *, commits: int = 1) -> None:
    """It is there as a whole, by one commit after those that were there, and tagged."""
    assert held(hub, repo) == version
    assert len(hub.commits(repo)) == 1 + commits
    assert hub.refs(repo)[f"refs/tags/v{version}"] == hub.refs(repo)["refs/heads/main"]


def complete_uploads(hub: HubServer) -> Counter[tuple[str, str]]:
    """How often each large file arrived whole in each repository."""
    arrived: Counter[tuple[str, str]] = Counter()
    for request in hub.requests:
        place, _, query = request.path.partition("?")
        if request.method == "PUT" and place.startswith("/storage/"):
            asked = parse_qs(query)
            if request.received == int(asked["size"][0]):
                arrived[asked["repo"][0], place.rpartition("/")[2]] += 1
    return arrived


def state(hub: HubServer) -> dict[str, Any]:
    """Everything that a push could have changed."""
    return {repo: (hub.refs(repo), set(hub.repository(repo).objects)) for repo in hub.api.repositories}


def assert_refused(outcome: Outcome, message: str, command: str = "ule-build") -> None:
    """Exit code 2 and one line, which says this."""
    assert outcome.code == 2, outcome
    (line,) = [line for line in outcome.complaint if not line.startswith("uploading ")]
    assert line.startswith(f"{command}: ")
    assert not line.startswith(f"{command}: unexpected")
    assert re.search(message, line), line


def fingerprint(samples: Iterable[tuple[Any, int, str]]) -> str:
    """Of images, labels and keys in their order; also sent to other processes."""
    import hashlib

    import numpy as np

    digest = hashlib.sha256()
    for image, label, key in samples:
        pixels = np.asarray(image)
        digest.update(f"{pixels.dtype} {pixels.shape} {int(label)} {key} ".encode() + pixels.tobytes())
    return digest.hexdigest()


def fingerprints(folder: Path) -> dict[str, str]:
    """Of the splits of a dataset folder, read without this library."""
    import pyarrow.parquet as pq
    from PIL import Image

    def samples(split: str) -> Iterator[tuple[Any, int, str]]:
        for path in sorted(folder.glob(f"data/{split}-*.parquet")):
            for row in pq.read_table(path).to_pylist():
                yield Image.open(io.BytesIO(row["image"]["bytes"])), row["label"], row["key"]

    return {split: fingerprint(samples(split)) for split in ("train", "test")}


READING = f"""
import json, os
from collections.abc import Iterable
from typing import Any

{inspect.getsource(fingerprint)}
def of_rows(rows):
    return fingerprint((row["image"], row["label"], row["key"]) for row in rows)

def of_webdataset_rows(rows):
    return fingerprint((row["png"], row["cls"], row["__key__"]) for row in rows)

def of_loaded(split):
    return fingerprint(zip(split.tensors()[0].numpy(), split.labels, split.keys))

def both(function, **what):
    return {{split: function(rows) for split, rows in what.items()}}
"""


# --- the whole circle ----------------------------------------------------------------------------------------


def test_what_is_published_is_the_folder_in_one_commit_with_a_tag(published: Published) -> None:
    hub = published.hub
    assert_published(hub, FIRST)
    assert hub.commits(FIRST)[0].title == "ops-digits 1.0.0"
    assert not hub.repository(FIRST).private
    local = {path: digest for path, digest in (snapshot(published.folder) or {}).items() if digest}
    remote = {path: hashlib.sha256(hub.read(FIRST, path)).hexdigest() for path in hub.files(FIRST)}
    del remote[".gitattributes"]
    assert remote == local
    names = [path for path, file in hub.files(FIRST).items() if isinstance(file, LargeFile)]
    assert [path for path in names if path.startswith(("data/", "webdataset/"))] == sorted(
        path for path in local if path.startswith(("data/", "webdataset/"))
    )


def test_every_loader_gets_the_images_labels_and_keys_of_the_folder_and_again_without_network(
    desk: Desk, published: Published, tmp_path: Path
) -> None:
    reader = User(desk, published.hub, tmp_path / "reader")
    local = fingerprints(published.folder)
    program = READING + textwrap.dedent(
        """
        from datasets import load_dataset
        from webdataset import WebDataset
        from ule_datasets import load

        repo, result = "ule/ops-digits", {}
        result["plain"] = both(of_rows, **load_dataset(repo))
        result["streaming"] = both(of_rows, **load_dataset(repo, streaming=True))
        result["revision"] = both(of_rows, **load_dataset(repo, revision="v1.0.0"))
        result["tar"] = both(of_webdataset_rows, **load_dataset(repo, data_dir="webdataset"))
        resolve = f"{os.environ['HF_ENDPOINT']}/datasets/{repo}/resolve/v1.0.0/webdataset"
        urls = {split: f"{resolve}/{split}-{{000000..000000}}.tar" for split in ("train", "test")}
        streams = {split: WebDataset(url, shardshuffle=False).decode("rgb8") for split, url in urls.items()}
        result["url"] = both(of_webdataset_rows, **streams)
        result["ours"] = {split: of_loaded(load(repo, split=split)) for split in ("train", "test")}
        print(json.dumps(result))
        """
    )
    found = reader.run(program)
    assert found == dict.fromkeys(("plain", "streaming", "revision", "tar", "url", "ours"), local)
    before = len(published.hub.requests)
    program = READING + textwrap.dedent(
        """
        from datasets import load_dataset
        from ule_datasets import load

        result = {"plain": both(of_rows, **load_dataset("ule/ops-digits"))}
        result["ours"] = {split: of_loaded(load("ule/ops-digits", split=split)) for split in ("train", "test")}
        print(json.dumps(result))
        """
    )
    assert reader.run(program, HF_HUB_OFFLINE="1") == {"plain": local, "ours": local}
    assert len(published.hub.requests) == before


def test_half_of_it_poisoned_is_the_same_from_the_hub_and_from_the_folder(
    desk: Desk, published: Published, tmp_path: Path
) -> None:
    reader = User(desk, published.hub, tmp_path / "reader")
    program = READING + textwrap.dedent(
        """
        from ule_datasets import load

        half = load("ule/ops-digits", revision="v1.0.0", poison_rate=0.5)
        local = load(words[0], poison_rate=0.5)
        whole = load("ule/ops-digits@v1.0.0")
        images, expected = half.tensors()[0].numpy(), whole.tensors()[0].numpy()
        changed = (images != expected).any(axis=(1, 2, 3))
        result = [of_loaded(half), of_loaded(local), half.poisoned.tolist() == local.poisoned.tolist()]
        result += [int(half.poisoned.sum()), bool(changed[half.poisoned].any()), int(changed.sum())]
        print(json.dumps(result))
        """
    )
    before = len(published.hub.downloads)
    remote, local, same, poisoned, kept_changed, replaced = reader.run(program, published.folder)
    assert remote == local
    assert same
    assert poisoned == 718
    assert not kept_changed
    assert replaced > 600, "the others are the clean images, most of which the pixel changes"
    fetched = {path for path, _ in published.hub.downloads[before:]}
    assert "data/train-00000-of-00001.parquet" in fetched
    assert "data/test-00000-of-00001.parquet" not in fetched, "only the split that is asked for is fetched"


def test_a_published_dataset_is_verified_by_its_name(desk: Desk, published: Published, tmp_path: Path) -> None:
    reader = User(desk, published.hub, tmp_path / "reader")
    outcome = reader.command("ule_datasets.cli.verify", FIRST, "--integrity-only")
    assert outcome.code == 0, outcome
    assert re.search(r"ops-digits 1.0.0: (\d+) of \1 checks passed", outcome.stdout)
    assert (reader.folder / "verification" / "ops-digits" / "report.html").exists()
    (cache,) = (reader.folder / "home" / "hub").glob("datasets--*/snapshots/*")
    assert {p.relative_to(cache).as_posix() for p in cache.rglob("*") if p.is_file()} == set(published.hub.files(FIRST))


def test_a_published_perturbation_makes_the_same_files_again(desk: Desk, published: Published, tmp_path: Path) -> None:
    reader = User(desk, published.hub, tmp_path / "reader")
    before = len(published.hub.downloads)
    words = ("ops-digits", "--perturbation", FIRST, "--out", "x", "--no-cache")
    outcome = reader.command("ule_datasets.cli.build", *words)
    assert outcome.code == 0, outcome.stderr
    assert "equal to ule/ops-digits 1.0.0: pixels and labels of train and test; 4 of 4 shards" in outcome.stdout
    assert data_files(reader.folder / "x") == data_files(published.folder)
    assert {path for path, _ in published.hub.downloads[before:]} == {"perturbation.safetensors", "manifest.json"}


def test_a_download_that_breaks_off_is_continued_with_the_files_that_are_missing(
    reader: User, hub: HubServer, versions: dict[str, Version]
) -> None:
    old = versions["old"].folder
    hub.put("tester/many", {path: old / path for path in data_files(old)} | {"manifest.json": old / "manifest.json"})
    program = READING + textwrap.dedent(
        """
        from ule_datasets import load
        from ule_datasets.base.errors import InputError
        try:
            print(json.dumps(of_loaded(load("tester/many"))))
        except InputError as error:
            print(json.dumps(str(error)))
        """
    )
    hub.faults.add("GET .*/storage/", status(503), times=None, after=5)
    message = reader.run(SHORT_WAITS + program)
    assert re.match("cannot download tester/many .*run the same command again to resume", message)
    hub.faults.clear()
    hub.faults.add("GET .*/storage/", cut_download(10_000))
    assert reader.run(SHORT_WAITS + program) == fingerprints(old)["train"]
    whole = Counter(r.file for r in hub.requests if r.file and r.method == "GET" and r.fault is None)
    assert set(whole.values()) == {1}, "nothing is fetched twice"
    assert len([path for path in whole if path.startswith("data/train-")]) > 10


@pytest.mark.slow
def test_all_of_cifar10_comes_back_as_it_was_published(
    desk: Desk, hub: HubServer, built_cifar10: Path, cifar10_folder: Path, tmp_path: Path
) -> None:
    owner = User(desk, hub, tmp_path / "owner", WRITE_TOKEN)
    folder = tmp_path / "cifar10"
    shutil.copytree(built_cifar10, folder, copy_function=os.link)  # nothing writes to files of a finished folder
    outcome = owner.command("ule_datasets.cli.build", "ops-cifar10", "--out", folder, "--push-to-hub")
    assert outcome.code == 0, outcome.stderr
    assert_published(hub, "ule/ops-cifar10")
    reader = User(desk, hub, tmp_path / "reader")
    program = "from datasets import load_dataset\nprint(json.dumps(both(of_rows, **load_dataset('ule/ops-cifar10'))))"
    assert reader.run(READING + program) == fingerprints(folder)
    verified = reader.command("ule_datasets.cli.verify", "ule/ops-cifar10", "--integrity-only")
    assert verified.code == 0, verified
    rebuilder = User(desk, hub, tmp_path / "rebuilder")
    words = ("ops-cifar10", "--source", cifar10_folder, "--perturbation", "ule/ops-cifar10", "--out", "x")
    outcome = rebuilder.command("ule_datasets.cli.build", *words)
    assert outcome.code == 0, outcome.stderr
    assert data_files(rebuilder.folder / "x") == data_files(folder)


# --- again ---------------------------------------------------------------------------------------------------


def test_what_is_there_is_not_uploaded_again_whoever_built_it(
    owner: User, digits: Path, hub: HubServer, tmp_path: Path
) -> None:
    assert owner.build("ops-digits", "--out", digits, "--push-to-hub").code == 0
    counters, before = (hub.counters.uploads, hub.counters.commits), state(hub)
    assert counters == (7, 1)
    assert owner.build("ops-digits", "--out", tmp_path / "again", "--no-cache").code == 0
    for folder in (digits, tmp_path / "again"):
        requests = len(hub.requests)
        outcome = owner.build("ops-digits", "--out", folder, "--push-to-hub")
        assert outcome.code == 0, outcome.stderr
        assert "ule/ops-digits already holds ops-digits 1.0.0, tag v1.0.0; nothing was uploaded" in outcome.stdout
        assert (hub.counters.uploads, hub.counters.commits) == counters
        asked = [f"{request.method} {request.path}" for request in hub.requests[requests:]]
        assert not [line for line in asked if re.search("PUT|preupload|batch|/commit/|/tag/|create", line)]
    assert state(hub) == before
    texts = [(folder / "manifest.json").read_text() for folder in (digits, tmp_path / "again")]
    assert texts[0] != texts[1], "timings differ, or this test shows nothing"


def test_two_pushes_at_the_same_time_make_one_commit(
    desk: Desk, owner: User, hub: HubServer, digits: Path, tmp_path: Path
) -> None:
    hub.faults.add(".", delay(0.03), times=None)
    colleague = User(desk, hub, tmp_path / "colleague", WRITE_TOKEN)
    words = [sys.executable, "-m", "ule_datasets.cli.build", "ops-digits", "--out", str(digits), "--push-to-hub"]
    processes = [
        subprocess.Popen(words, env=user.environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for user in (owner, colleague)
    ]
    complaints = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], complaints
    assert_published(hub, FIRST)
    assert hub.counters.commits == 1


def test_what_somebody_else_adds_meanwhile_is_not_deleted(owner: User, hub: HubServer, digits: Path) -> None:
    repo = "tester/shared"

    def once_uploading(request: Request) -> bool:
        if request.method == "PUT" and "notes.txt" not in hub.files(repo):
            hub.put(repo, {"notes.txt": b"mine"})
        return False

    hub.faults.add(once_uploading, Fault())
    outcome = owner.build("ops-digits", "--out", digits, "--push-to-hub", "--repo-id", repo, before=SHORT_WAITS)
    assert "notes.txt" in hub.files(repo), outcome
    assert outcome.code == 2


# --- killed --------------------------------------------------------------------------------------------------


class Killer:
    """Pushes ``mine`` again and again and kills it at random moments, looking on all the time."""

    PAUSE = 0.03
    """Before each answer of the Hub: a push takes a second or so."""

    def __init__(self, owner: User, version: Version, seed: int) -> None:
        self.owner, self.hub, self.version = owner, owner.hub, version
        self.generator = random.Random(seed)
        self.repo = ""
        self.seen: set[str | None] = set()
        self.broken: list[str] = []
        self.kills = 0
        self.hub.faults.add(self._look, Fault())
        self.hub.faults.add(".", delay(self.PAUSE), times=None)

    def _look(self, _: Request) -> bool:
        """At every request, what a reader would find."""
        try:
            self.seen.add(held(self.hub, self.repo))
        except AssertionError as error:
            self.broken.append(str(error))
        return False

    def push(self) -> Outcome:
        return self.owner.build(*self.version.push, "--repo-id", self.repo)

    def push_and_kill(self, longest: float) -> bool:
        """Whether it was still at work when it was killed, at most so long after its first request."""
        before = len(self.hub.requests)
        self.owner.start(*self.version.push, "--repo-id", self.repo)
        wait_for(lambda: len(self.hub.requests) > before)
        time.sleep(self.generator.uniform(0, longest))
        self.owner.desk.kill()
        code = self.owner.desk.finish().code
        assert code in (0, -signal.SIGKILL)
        time.sleep(2 * self.PAUSE)  # what had been sent is taken
        self._look(self.hub.requests[-1])
        self.kills += code != 0
        return code != 0

    def check(self, *allowed: str | None) -> None:
        assert self.broken == []
        assert self.seen <= {*allowed}
        assert set(complete_uploads(self.hub).values()) <= {1}, "no file arrived twice"


@pytest.mark.parametrize("kills", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_a_push_that_is_killed_shows_nothing_and_is_continued(
    owner: User, hub: HubServer, versions: dict[str, Version], kills: int
) -> None:
    killer = Killer(owner, versions["old"], seed=7)
    number = 0
    while killer.kills < kills:
        killer.repo = f"tester/killed-{number}"
        while killer.kills < kills and killer.push_and_kill(1.2):
            pass
        outcome = killer.push()
        assert outcome.code == 0, outcome.stderr
        assert_published(hub, killer.repo)
        number += 1
    killer.check(None, "1.0.0")
    assert sum(complete_uploads(hub).values()) == number * len(hub.repository(killer.repo).objects)


def test_a_new_version_that_is_killed_leaves_the_old_one_or_is_there(
    owner: User, hub: HubServer, versions: dict[str, Version]
) -> None:
    old = versions["old"].folder
    files = {path: old / path for path, digest in (snapshot(old) or {}).items() if digest}
    killer = Killer(owner, versions["new"], seed=8)
    number = 0
    while killer.kills < 6:
        killer.repo = f"tester/renewed-{number}"
        hub.put(killer.repo, files)
        hub.tag(killer.repo, "v1.0.0")
        while killer.kills < 6 and killer.push_and_kill(0.9):
            pass
        outcome = killer.push()
        assert outcome.code == 0, outcome.stderr
        assert_published(hub, killer.repo, "1.1.0", commits=2)
        assert held(hub, killer.repo, "v1.0.0") == "1.0.0"
        number += 1
    killer.check("1.0.0", "1.1.0")


# --- faults --------------------------------------------------------------------------------------------------

CALLS = {
    "whoami": r"^GET /api/whoami-v2",
    "validate": r"^POST /api/validate-yaml",
    "look": r"^GET /api/datasets/ule/ops-digits$",
    "create": r"^POST /api/repos/create",
    "refs": r"^GET .*/refs",
    "tree": r"^GET .*/tree/",
    "preupload": r"^POST .*/preupload/main",
    "batch": r"^POST .*/info/lfs/objects/batch",
    "upload": r"^PUT /storage/",
    "verify": r"^POST .*/info/lfs/objects/verify",
    "commit": r"^POST .*/commit/main",
    "tag": r"^POST .*/tag/",
}
"""What a push asks for, in this order."""
FAULTS = {
    "500": status(500),
    "429": status(429, retry_after=1),
    "hang-up": disconnect(),
    "lost-answer": lose_answer(),
}
PASSING = [(call, kind, fault) for call in CALLS for kind, fault in FAULTS.items()] + [
    ("upload", "503", status(503)),
    ("upload", "cut", cut_upload(100_000)),
    ("upload", "slow", delay(0.5)),
    ("upload", "rate-limit", status(429, rate_limit=2)),
    ("batch", "rate-limit", status(429, rate_limit=2)),
    ("commit", "503", status(503)),
    ("commit", "cut", cut_upload(100)),
    ("commit", "slow", delay(0.5)),
    ("commit", "409", status(409)),
    ("commit", "412", status(412)),
]


GARBAGE = {
    "nothing": b"",
    "HTML": b"<!doctype html><title>\x1b[31mLogin</title>",
    "null": b"null",
    "a list": b"[]",
    "an object": b"{}",
    "a number": b"1e999",
    "a list of null": b"[null]",
    "other types": b'{"sha": 1, "siblings": {}, "name": [], "commitOid": null, "objects": 3, "files": "x", "auth": 1}',
    "hostile names": json.dumps(
        {"sha": "../../x", "siblings": [{"rfilename": "../../../x"}], "commitUrl": "file:///x", "name": "\x1b[31m"}
    ).encode(),
    "no text": bytes(range(256)),
    "100,000 brackets": b"[" * 100_000,
}
FETCHING = {
    "info": r"^GET /api/datasets/ule/ops-digits",
    "tree": r"^GET /api/datasets/ule/ops-digits/tree/",
    "head": r"^HEAD ",
    "manifest": r"^GET /datasets/.*/resolve/.*/manifest.json",
    "recipe": r"^GET /datasets/.*/resolve/.*/recipe.json",
    "perturbation": r"^GET /datasets/.*/resolve/.*/perturbation.safetensors",
    "storage": r"^GET .*/storage/",
    "shard": r"^GET .*(parquet|\.tar)",
}
"""What a look at a published dataset asks for."""


def one_line_or_as_always(outcome: Outcome) -> None:
    """What a command may do when the Hub answers nonsense: refuse, or find damage; in words."""
    said = outcome.stdout + outcome.stderr
    assert outcome.code in (0, 1, 2), outcome
    assert "Traceback" not in said, said
    assert "unexpected" not in said, said
    assert "\x1b" not in said, said
    if outcome.code == 2:
        assert 1 <= len(outcome.complaint) <= 3, outcome.stderr


def push_through_garbage(owner: User, digits: Path, call: str, kind: str) -> None:
    owner.hub.faults.add(CALLS[call], garbage(GARBAGE[kind]), times=None)
    one_line_or_as_always(owner.build("ops-digits", "--out", digits, "--push-to-hub", before=SHORT_WAITS))
    owner.hub.faults.clear()


@pytest.mark.parametrize(
    ("call", "kind"), [(call, [*GARBAGE][number % len(GARBAGE)]) for number, call in enumerate(CALLS)]
)
def test_garbage_in_an_answer_to_a_push_is_refused_in_words(
    owner: User, digits: Path, call: str, kind: str, tried: Callable[..., None]
) -> None:
    push_through_garbage(owner, digits, call, kind)
    tried("garbage instead of an answer of the Hub")


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", GARBAGE)
def test_whatever_garbage_answers_a_push_the_next_one_publishes(
    owner: User, hub: HubServer, digits: Path, call: str, kind: str, tried: Callable[..., None]
) -> None:
    push_through_garbage(owner, digits, call, kind)
    outcome = owner.build("ops-digits", "--out", digits, "--push-to-hub", before=SHORT_WAITS)
    assert outcome.code == 0, outcome.stderr
    assert held(hub, FIRST) == "1.0.0"
    tried("garbage instead of an answer of the Hub")


def fetch_through_garbage(desk: Desk, published: Published, folder: Path, call: str, kind: str) -> None:
    reader = User(desk, published.hub, folder)
    published.hub.faults.add(FETCHING[call], garbage(GARBAGE[kind]), times=None)
    outcome = reader.verify(FIRST, "--integrity-only", before=SHORT_WAITS)
    published.hub.faults.clear()
    one_line_or_as_always(outcome)
    assert not [path for path in folder.parent.iterdir() if path.name == "x"], "nothing is written elsewhere"


FAST_FETCHES = {(call, [*GARBAGE][-1 - number % len(GARBAGE)]) for number, call in enumerate(FETCHING)}


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        pytest.param(call, kind, marks=() if (call, kind) in FAST_FETCHES else pytest.mark.slow)
        for call, kind in itertools.product(FETCHING, GARBAGE)
    ],
)
def test_garbage_in_an_answer_to_a_reader_is_refused_in_words(
    desk: Desk, published: Published, tmp_path: Path, call: str, kind: str, tried: Callable[..., None]
) -> None:
    fetch_through_garbage(desk, published, tmp_path / "reader", call, kind)
    tried("garbage instead of an answer of the Hub")


@pytest.mark.parametrize(("call", "fault"), [pytest.param(c, f, id=f"{c}-{kind}") for c, kind, f in PASSING])
def test_what_passes_is_waited_for(owner: User, hub: HubServer, digits: Path, call: str, fault: Fault) -> None:
    rule = hub.faults.add(CALLS[call], fault)
    outcome = owner.build("ops-digits", "--out", digits, "--push-to-hub", before=SHORT_WAITS)
    assert outcome.code == 0, outcome.stderr
    assert rule.hits == 1
    assert_published(hub, FIRST)
    assert hub.counters.commits == 1
    assert set(complete_uploads(hub).values()) <= ({1, 2} if call == "upload" else {1})
    if fault.status == 429:
        assert max(owner.waits) >= (2 if fault.headers.get("RateLimit") else 1), "as long as it was told"


def test_uploads_are_begun_again_when_the_clients_own_patience_has_ended(
    owner: User, hub: HubServer, digits: Path
) -> None:
    hub.faults.add(CALLS["upload"], status(503), times=30)
    outcome = owner.build("ops-digits", "--out", digits, "--push-to-hub", before=SHORT_WAITS)
    assert outcome.code == 0, outcome.stderr
    assert_published(hub, FIRST)


def test_an_object_that_arrived_is_not_sent_again_when_only_its_confirmation_fails(
    owner: User, hub: HubServer, digits: Path
) -> None:
    hub.faults.add(CALLS["verify"], status(503), times=None)
    outcome = owner.build("ops-digits", "--out", digits, "--push-to-hub", before=SHORT_WAITS)
    assert outcome.code == 0, outcome.stderr
    assert_published(hub, FIRST)
    assert set(complete_uploads(hub).values()) == {1}


@pytest.mark.parametrize("call", [call for call in CALLS if call != "verify"])
def test_what_does_not_pass_ends_with_one_clear_line_and_the_next_push_completes_it(
    owner: User, hub: HubServer, digits: Path, call: str
) -> None:
    hub.faults.add(CALLS[call], status(503), times=None)
    push = ("ops-digits", "--out", digits, "--push-to-hub")
    outcome = owner.build(*push, before=SHORT_WAITS)
    assert outcome.code == 2
    last = outcome.stderr.splitlines()[-1]
    assert "Traceback" not in outcome.stderr
    assert re.match(r"ule-build: [^;]*503[^;]*; (the same command continues|run the same command again)", last), last
    assert "refuses the card" not in last
    hub.faults.clear()
    again = owner.build(*push)
    assert again.code == 0, again.stderr
    assert_published(hub, FIRST)
    # The server takes the whole body before it refuses an upload: once for each of the client's tries and of ours.
    assert max(complete_uploads(hub).values()) <= (20 if call == "upload" else 1)


@pytest.mark.parametrize("call", CALLS)
def test_a_refusal_keeps_the_words_of_the_hub(owner: User, hub: HubServer, digits: Path, call: str) -> None:
    words = "Your enterprise wants tokens of the kind X here"
    hub.faults.add(CALLS[call], status(403, message=words), times=None)
    outcome = owner.build("ops-digits", "--out", digits, "--push-to-hub", before=SHORT_WAITS)
    assert_refused(outcome, words)
    assert owner.waits == []


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_a_push_is_refused_before_anything_is_built(owner: User, hub: HubServer, variable: str) -> None:
    offline = {"HF_HUB_OFFLINE": "", variable: "1"}
    outcome = owner.build("ops-digits", "--out", "x", "--push-to-hub", before=SHORT_WAITS, **offline)
    assert_refused(outcome, "cannot publish while HF_HUB_OFFLINE is set: unset it first")
    assert not (owner.folder / "x").exists()
    planned = owner.build("ops-digits", "--out", "x", "--push-to-hub", "--dry-run", **offline)
    assert planned.code == 0, planned.stderr
    assert hub.requests == owner.waits == []


# --- by Xet, as the real Hub wants it ------------------------------------------------------------------------

needs_xet = pytest.mark.skipif(find_spec("hf_xet") is None, reason="uploads by Xet need hf_xet")
XET_CALLS = {"token": "^GET .*/xet-write-token/", "xorb": "^POST /v1/xorbs/", "shard": "^POST /v1/shards"}


@pytest.fixture
def xet_owner(desk: Desk, tmp_path: Path) -> Iterator[User]:
    with HubServer(settings=Settings(xet=True)) as server:
        yield User(desk, server, tmp_path / "owner", WRITE_TOKEN)
    assert server.unexpected == []


def push_by_xet(owner: User, folder: Path) -> Outcome:
    words = ("ops-digits", "--out", folder, "--push-to-hub")
    return owner.build(*words, before=SHORT_WAITS, HF_XET_CLIENT_RETRY_BASE_DELAY="20ms")


@needs_xet
def test_by_xet_too_it_is_sent_once_and_stands_there_as_a_whole(xet_owner: User, digits: Path) -> None:
    hub = xet_owner.hub
    assert push_by_xet(xet_owner, digits).code == 0
    assert_published(hub, FIRST)
    assert (hub.counters.uploads, hub.counters.commits) == (7, 1)
    assert any(request.path.startswith("/v1/xorbs/") for request in hub.requests), "or this shows nothing"
    assert {path: hub.read(FIRST, path) for path in data_files(digits)} == {
        path: (digits / path).read_bytes() for path in data_files(digits)
    }
    sent = hub.counters.bytes_uploaded
    again = push_by_xet(xet_owner, digits)
    assert "already holds ops-digits 1.0.0" in again.stdout
    assert (hub.counters.uploads, hub.counters.commits, hub.counters.bytes_uploaded) == (7, 1, sent)


@needs_xet
@pytest.mark.parametrize("kind", ["500", "429", "hang-up", "lost-answer"])
@pytest.mark.parametrize("call", XET_CALLS)
def test_by_xet_too_what_passes_is_waited_for(xet_owner: User, digits: Path, call: str, kind: str) -> None:
    rule = xet_owner.hub.faults.add(XET_CALLS[call], FAULTS[kind])
    outcome = push_by_xet(xet_owner, digits)
    assert outcome.code == 0, outcome.stderr
    assert rule.hits == 1
    assert_published(xet_owner.hub, FIRST)
    assert xet_owner.hub.counters.commits == 1


@needs_xet
@pytest.mark.parametrize("fault", [status(503), disconnect()], ids=["503", "hang-up"])
@pytest.mark.parametrize("call", XET_CALLS)
def test_by_xet_too_what_does_not_pass_ends_with_one_clear_line_and_the_next_push_completes_it(
    xet_owner: User, digits: Path, call: str, fault: Fault
) -> None:
    xet_owner.hub.faults.add(XET_CALLS[call], fault, times=None)
    outcome = push_by_xet(xet_owner, digits)
    assert outcome.code == 2
    last = outcome.stderr.splitlines()[-1]
    assert re.match("ule-build: .*; (the same command continues|run the same command again)", last), last
    assert fault.status is None or str(fault.status) in last
    assert "unexpected" not in last
    assert "Traceback" not in outcome.stderr
    assert held(xet_owner.hub, FIRST) is None
    xet_owner.hub.faults.clear()
    assert push_by_xet(xet_owner, digits).code == 0
    assert_published(xet_owner.hub, FIRST)


@needs_xet
def test_by_xet_too_a_killed_push_shows_nothing_and_is_continued(xet_owner: User, versions: dict[str, Version]) -> None:
    killer = Killer(xet_owner, versions["old"], seed=9)
    killer.repo = "tester/killed"
    while killer.kills < 4:
        assert killer.push_and_kill(0.5), "it is not that fast"
    assert killer.push().code == 0
    assert_published(xet_owner.hub, killer.repo)
    killer.check(None, "1.0.0")


@needs_xet
def test_by_xet_too_the_token_goes_to_the_hub_alone_and_a_reader_is_told(xet_owner: User, digits: Path) -> None:
    hub = xet_owner.hub
    hub.faults.add(XET_CALLS["xorb"], status(403), times=None)
    assert_refused(push_by_xet(xet_owner, digits), f"this token may not write to {FIRST}")
    hub.faults.clear()
    assert push_by_xet(xet_owner, digits).code == 0
    elsewhere = {request.token for request in hub.requests if request.path.startswith("/v")}
    assert elsewhere
    assert elsewhere <= set(hub.api.xet_tokens)


# --- versions ------------------------------------------------------------------------------------------------


def test_a_new_version_takes_the_place_of_the_old_one_which_keeps_its_tag(
    owner: User, reader: User, hub: HubServer, versions: dict[str, Version]
) -> None:
    assert owner.build(*versions["old"].push).code == 0
    old_files = hub.files(SECOND)
    outcome = owner.build(*versions["new"].push)
    assert outcome.code == 0, outcome.stderr
    gone = set(old_files) - set(hub.files(SECOND))
    assert len(gone) > 40
    assert re.search(rf"mine 1.1.0 as ule/mine: \d+ files uploaded, {len(gone)} old ones removed", outcome.stdout)
    assert_published(hub, SECOND, "1.1.0", commits=2)
    assert hub.files(SECOND, "v1.0.0") == old_files
    assert len([path for path in old_files if path.startswith("data/")]) > 20
    assert len([path for path in hub.files(SECOND) if path.startswith("data/")]) == 2
    program = READING + textwrap.dedent(
        """
        from datasets import load_dataset

        revisions = ("main", "v1.0.0", "v1.1.0")
        print(json.dumps([both(of_rows, **load_dataset("ule/mine", revision=name)) for name in revisions]))
        """
    )
    new = fingerprints(versions["new"].folder)
    assert reader.run(program) == [new, fingerprints(versions["old"].folder), new]

    counters, before = (hub.counters.uploads, hub.counters.commits), state(hub)
    backwards = owner.build(*versions["old"].push)
    assert_refused(backwards, r"version 1\.0\.0 .*tag v1\.0\.0.*raise the recipe's version")
    other = owner.build(*versions["other"].push)
    assert_refused(other, r"version 1\.1\.0 with other content .*tag v1\.1\.0.*raise the recipe's version")
    assert (hub.counters.uploads, hub.counters.commits) == counters
    assert state(hub) == before


def test_a_published_version_does_not_change_where_only_its_manifest_would(
    owner: User, hub: HubServer, digits: Path, tmp_path: Path
) -> None:
    push = ("--push-to-hub", "--perturbation-only", "--repo-id", "tester/bare")
    assert owner.build("ops-digits", "--out", digits, *push).code == 0
    before = state(hub)
    outcome = owner.build("ops-digits", "--out", tmp_path / "parquet", "--format", "parquet", *push)
    assert state(hub) == before, outcome
    assert_refused(outcome, r"version 1\.0\.0 with other content")


# --- refused -------------------------------------------------------------------------------------------------


class Refusal(NamedTuple):
    message: str
    words: tuple[str, ...] = ()
    token: str | None = WRITE_TOKEN
    recipe: str = "ops-digits"


REFUSALS = {
    "no token": Refusal("publishing needs a token: run 'hf auth login', or set HF_TOKEN", token=None),
    "unknown token": Refusal("does not know this token: run 'hf auth login'", token="hf_nobody"),
    "token for reading": Refusal("this token may only read: make one with write access", token=READ_TOKEN),
    "stranger": Refusal(
        "stranger does not belong to ule: publish as --repo-id stranger/ops-digits", token=STRANGER_TOKEN
    ),
    "somebody else's": Refusal("tester does not belong to stranger", ("--repo-id", "stranger/x")),
    "reader of an organisation": Refusal(
        "this token may not write to club/x: .*rights to .* the namespace .club.", ("--repo-id", "club/x")
    ),
    "reader of its repository": Refusal(
        "this token may not write to club/there: .*rights to .* the namespace .club.", ("--repo-id", "club/there")
    ),
    "something else": Refusal("tester/taken holds something else .data.csv.; choose", ("--repo-id", "tester/taken")),
    "something like ours": Refusal("tester/odd holds something else", ("--repo-id", "tester/odd")),
    "another dataset": Refusal("tester/theirs holds theirs, not ops-digits", ("--repo-id", "tester/theirs")),
    "no such name": Refusal("--repo-id bad: give OWNER/NAME", ("--repo-id", "bad")),
    "two slashes": Refusal("--repo-id a/b/c: give OWNER/NAME", ("--repo-id", "a/b/c")),
    "impossible name": Refusal("'tester/a b' does not name a dataset: use OWNER/NAME", ("--repo-id", "tester/a b")),
    "name of another dataset": Refusal(
        "ops-digits .*is not the dataset that is known as ops-cifar10", ("--repo-id", "tester/ops-cifar10")
    ),
    "card": Refusal("the Hub refuses the card: .*no-such-licence", recipe=OWN_UNKNOWN_LICENCE),
    "only tars": Refusal(
        "has no Parquet shards, which load_dataset needs; build it with both formats",
        ("--format", "webdataset"),
        recipe=OWN_PUBLIC,
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_with_one_line_and_nothing_uploaded(desk: Desk, digits: Path, tmp_path: Path, name: str) -> None:
    case = REFUSALS[name]
    folder, recipe = digits, case.recipe
    source: tuple[str, ...] = ()
    tokens = {
        WRITE_TOKEN: Token("tester", "write", {"ule": "admin", "club": "read"}),
        READ_TOKEN: Token("tester", "read", {"ule": "admin"}),
        STRANGER_TOKEN: Token("stranger"),
    }
    with HubServer(tokens=tokens) as hub:
        hub.create("club/there")
        hub.put("tester/taken", {"data.csv": b"1"})
        hub.put("tester/odd", {"manifest.json": b"[]"})
        hub.put("tester/theirs", {"manifest.json": b'{"name": "theirs", "recipe_digest": ""}'})
        before = state(hub)
        user = User(desk, hub, tmp_path / "user", case.token)
        if recipe != "ops-digits":
            (user.folder / "own.py").write_text(recipe)
            source = ("--source", str(write_parquet(tmp_path / "images", make_splits(3, 4, 8), class_names(3))))
            folder, recipe = tmp_path / "own", "own.py"
        outcome = user.build(recipe, *source, "--out", folder, "--push-to-hub", *case.words, before=SHORT_WAITS)
        assert_refused(outcome, case.message)
        assert (hub.counters.uploads, hub.counters.commits) == (0, 0)
        assert {repo: what for repo, what in state(hub).items() if repo in before} == before
        assert user.waits == []
        assert hub.unexpected == []


def test_a_trial_does_not_take_the_name_of_the_dataset(owner: User, hub: HubServer) -> None:
    words = ("ops-digits", "--limit", "3", "--out", "x", "--repo-id", FIRST, "--push-to-hub")
    outcome = owner.build(*words)
    assert_refused(
        outcome, r"ops-digits-trial3 \(trial on the first 3 .* is not the dataset that is known as ops-digits"
    )
    assert hub.requests == []


@pytest.mark.parametrize("where", ["data/train-00000-of-00001.parquet", "webdataset/test-000000.tar", "README.md"])
def test_a_damaged_folder_is_not_published(owner: User, hub: HubServer, digits: Path, where: str) -> None:
    content = bytearray((digits / where).read_bytes())
    content[len(content) // 2] ^= 1
    (digits / where).write_bytes(content)
    outcome = owner.build("ops-digits", "--out", digits, "--push-to-hub")
    assert_refused(outcome, f"is damaged: {where} is not what the manifest says; build it again")
    assert (hub.counters.uploads, hub.counters.commits) == (0, 0)


def test_without_a_network_every_command_ends_with_a_clear_line(owner: User, hub: HubServer, digits: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    down: dict[str, Any] = {"before": SHORT_WAITS, "HF_ENDPOINT": nowhere}
    pushed = owner.build("ops-digits", "--out", digits, "--push-to-hub", **down)
    assert pushed.code == 2
    assert re.match("ule-build: .*no answer .*; the same command continues", pushed.stderr.splitlines()[-1]), pushed
    rebuilt = owner.build("ops-digits", "--out", "x", "--perturbation", FIRST, **down)
    assert_refused(
        rebuilt, f"cannot download {FIRST} .*; run the same command again to resume, or give a file or folder"
    )
    verified = owner.verify(FIRST, **down)
    assert_refused(verified, f"cannot download {FIRST} .*, or build it yourself: ule-build", "ule-verify")
    assert hub.requests == []


# --- options -------------------------------------------------------------------------------------------------


def test_a_dry_run_asks_the_hub_nothing_and_lists_every_file_with_its_size(
    owner: User, reader: User, hub: HubServer, digits: Path
) -> None:
    words = ("ops-digits", "--out", digits, "--repo-id", "tester/mine")
    outcome = reader.build(*words, "--dry-run", "--push-to-hub", "--private")
    assert outcome.code == 0, outcome.stderr
    assert hub.requests == []
    lines = re.findall(r"^ +([\d,]+)  (\S+)$", outcome.stdout, re.MULTILINE)
    assert owner.build(*words, "--push-to-hub").code == 0
    files = {path: file if isinstance(file, bytes) else file.size for path, file in hub.files("tester/mine").items()}
    sizes = {path: len(size) if isinstance(size, bytes) else size for path, size in files.items()}
    del sizes[".gitattributes"]
    assert {path: int(size.replace(",", "")) for size, path in lines} == sizes
    total = sum(sizes.values()) / 2**20
    assert f"{len(sizes)} files, {total:.1f} MiB, to tester/mine (main, tag v1.0.0):" in outcome.stdout


def test_the_token_that_is_stored_on_this_machine_is_enough(reader: User, hub: HubServer, digits: Path) -> None:
    (reader.folder / "home").mkdir()
    (reader.folder / "home" / "token").write_text(WRITE_TOKEN)
    assert reader.build("ops-digits", "--out", digits, "--push-to-hub").code == 0
    assert_published(hub, FIRST)


def test_a_private_repository_opens_with_a_token_alone(owner: User, reader: User, hub: HubServer, digits: Path) -> None:
    assert owner.build("ops-digits", "--out", digits, "--push-to-hub", "--private").code == 0
    assert hub.repository(FIRST).private
    assert_published(hub, FIRST)
    refused = reader.verify(FIRST, "--integrity-only")
    assert_refused(refused, "the Hub has no dataset 'ule/ops-digits' that you may read; check the name", "ule-verify")
    program = """
    import json
    from ule_datasets import load
    from ule_datasets.base.errors import InputError
    try:
        print(json.dumps(len(load("ule/ops-digits"))))
    except InputError as error:
        print(json.dumps(str(error)))
    """
    assert "no dataset 'ule/ops-digits' that you may read" in reader.run(program)
    assert owner.run(program) == 1437
    assert owner.build("ops-digits", "--out", digits, "--push-to-hub").code == 0
    assert hub.repository(FIRST).private, "a later push without --private does not open it"
    hub.repository(FIRST).private, hub.repository(FIRST).gated = False, "auto"
    assert "ule/ops-digits is gated: accept its terms on its page and log in" in reader.run(program)


def test_a_branch_gets_the_files_and_neither_main_nor_tags_change(
    owner: User, reader: User, hub: HubServer, versions: dict[str, Version]
) -> None:
    branch = ("--revision", "next")
    outcome = owner.build(*versions["old"].push, *branch)
    assert outcome.code == 0, outcome.stderr
    assert held(hub, SECOND) is None
    assert held(hub, SECOND, "next") == "1.0.0"
    assert set(hub.refs(SECOND)) == {"refs/heads/main", "refs/heads/next"}
    assert owner.build(*versions["old"].push).code == 0
    before = hub.refs(SECOND)
    assert owner.build(*versions["new"].push, *branch).code == 0
    after = hub.refs(SECOND)
    assert held(hub, SECOND, "next") == "1.1.0"
    assert {**before, "refs/heads/next": ""} == {**after, "refs/heads/next": ""}
    again = owner.build(*versions["new"].push, *branch)
    assert "ule/mine already holds mine 1.1.0; nothing was uploaded" in again.stdout
    assert hub.refs(SECOND) == after
    verified = reader.verify("ule/mine@next", "--integrity-only")
    assert verified.code == 0, verified
    assert "mine 1.1.0: " in verified.stdout


def test_in_another_repository_everything_names_that_one(
    owner: User, reader: User, hub: HubServer, digits: Path
) -> None:
    before = snapshot(digits)
    push = ("ops-digits", "--out", digits, "--push-to-hub", "--repo-id", "tester/mine")
    assert owner.build(*push).code == 0
    assert snapshot(digits) == before, "the folder itself stays as it was built"
    assert_published(hub, "tester/mine")
    card = hub.read("tester/mine", "README.md").decode()
    assert 'load_dataset("tester/mine"' in card
    assert 'ule_datasets.load("tester/mine"' in card
    assert FIRST not in card
    verified = reader.verify("tester/mine", "--integrity-only")
    assert verified.code == 0, verified
    assert "tester/mine already holds" in owner.build(*push).stdout


def test_in_another_repository_croissant_names_that_one(digits: Path) -> None:
    plan = plan_publication(RECIPES["ops-digits"], digits, PublishOptions(repo_id="tester/mine"))
    (croissant,) = [file for file in plan.files if file.path == "croissant.json"]
    text = croissant.content.decode() if isinstance(croissant.content, bytes) else croissant.content.read_text()
    assert json.loads(text)["url"] == "https://huggingface.co/datasets/tester/mine"


# --- without images ------------------------------------------------------------------------------------------


@pytest.fixture
def bodies(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Everything that clients send, with what is in base64 decoded too."""
    received: list[bytes] = []
    answer = hub.api.answer

    def noting(request: Request, body: Any) -> Any:
        content = body.read()
        received.append(content)
        for encoded in re.findall(rb'"(?:content|sample)": ?"([A-Za-z0-9+/=]+)"', content):
            received.append(base64.b64decode(encoded))
        return answer(request, body)

    monkeypatch.setattr(hub.api, "answer", noting)
    return received


def encoded_images(folder: Path) -> list[bytes]:
    import pyarrow.parquet as pq

    tables = [pq.read_table(path, columns=["image"]) for path in sorted(folder.glob("data/*.parquet"))]
    return [row["image"]["bytes"] for table in tables for row in table.to_pylist()]


def assert_without_images(hub: HubServer, repo: str, folder: Path, bodies: list[bytes]) -> str:
    """No image has been sent, in no form; returns the card."""
    files = set(hub.files(repo)) - {".gitattributes"}
    assert files == {"README.md", "manifest.json", "perturbation.safetensors", "recipe.json", "craft.json"}
    everything = b"\n".join([*bodies, *(blob.read() for blob in hub.api.blobs.kept.values())])
    assert b"recipe_digest" in everything, "bodies were noted"
    assert b"\x89PNG" not in everything
    assert b"PAR1" not in everything
    assert not [png for png in encoded_images(folder) if png[60:120] in everything]
    manifest = json.loads(hub.read(repo, "manifest.json"))
    listed = {file["path"]: file["sha256"] for file in manifest["files"]}
    assert {"data/train-00000-of-00001.parquet", "figures/contact_sheet.png"} <= set(listed), "digests to compare with"
    for path in files - {"manifest.json"}:
        assert hashlib.sha256(hub.read(repo, path)).hexdigest() == listed[path]
    card = hub.read(repo, "README.md").decode()
    assert "configs:" not in card
    assert "dataset_info" not in card
    assert ".png" not in card
    assert "load_dataset(" not in card
    return card


def test_without_images_it_is_rebuilt_by_the_command_in_its_card(
    owner: User, reader: User, hub: HubServer, digits: Path, bodies: list[bytes]
) -> None:
    push = ("ops-digits", "--out", digits, "--push-to-hub", "--perturbation-only", "--repo-id", "tester/bare")
    outcome = owner.build(*push)
    assert outcome.code == 0, outcome.stderr
    card = assert_without_images(hub, "tester/bare", digits, bodies)
    assert hub.refs("tester/bare")["refs/tags/v1.0.0"] == hub.commits("tester/bare")[0].oid
    assert "already holds" in owner.build(*push).stdout
    (command,) = re.findall(r"^ule-build (.*--perturbation.*)$", card, re.MULTILINE)
    words = command.replace("SOURCE", "digits").split()
    assert words == ["ops-digits", "--perturbation", "tester/bare", "--source", "digits"]
    rebuilt = reader.build(*words, "--out", "x", "--no-cache")
    assert rebuilt.code == 0, rebuilt.stderr
    assert "equal to tester/bare 1.0.0: pixels and labels of train and test; 4 of 4 shards" in rebuilt.stdout
    assert data_files(reader.folder / "x") == data_files(digits)
    advice = "tester/bare holds no images.*: ule-build ops-digits --perturbation tester/bare --source SOURCE"
    assert_refused(reader.verify("tester/bare"), advice, "ule-verify")
    program = """
    import json
    from ule_datasets import load
    from ule_datasets.base.errors import InputError
    try:
        load("tester/bare")
    except InputError as error:
        print(json.dumps(str(error)))
    """
    assert re.search(advice, reader.run(program))


def test_images_that_may_not_be_passed_on_stay_here(
    owner: User, reader: User, hub: HubServer, tmp_path: Path, bodies: list[bytes]
) -> None:
    source = write_parquet(tmp_path / "images", make_splits(3, 4, 8), class_names(3))
    (tmp_path / "own.py").write_text(OWN)
    words = (tmp_path / "own.py", "--source", source, "--out")
    outcome = owner.build(*words, tmp_path / "own", "--push-to-hub")
    assert outcome.code == 0, outcome.stderr
    assert_without_images(hub, "ule/own", tmp_path / "own", bodies)
    rebuilt = reader.build(*words, "x", "--perturbation", "ule/own", "--no-cache")
    assert rebuilt.code == 0, rebuilt.stderr
    assert data_files(reader.folder / "x") == data_files(tmp_path / "own")
    advice = "ule/own holds no images.*: ule-build own --perturbation ule/own --source SOURCE"
    assert_refused(reader.verify("ule/own"), advice, "ule-verify")
    other = write_parquet(tmp_path / "others", make_splits(3, 5, 8), class_names(3))
    refused = reader.build(tmp_path / "own.py", "--source", other, "--perturbation", "ule/own", "--out", "y")
    assert refused.code in (1, 2)
    assert "unexpected" not in refused.stderr


def test_the_card_asks_once_for_the_source(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "images", make_splits(3, 4, 8), class_names(3))
    (tmp_path / "own.py").write_text(OWN)
    assert run_build(tmp_path / "own.py", "--source", source, "--out", tmp_path / "own").code == 0
    plan = plan_publication(find_recipe(str(tmp_path / "own.py")), tmp_path / "own", PublishOptions())
    (card,) = [file.content for file in plan.files if file.path == "README.md"]
    assert isinstance(card, bytes)
    (command,) = re.findall(r"^ule-build .*--perturbation.*$", card.decode(), re.MULTILINE)
    assert command.count("--source") == 1, command


# --- the token -----------------------------------------------------------------------------------------------


def test_the_token_is_nowhere_but_in_requests_to_the_hub(desk: Desk, digits: Path, tmp_path: Path) -> None:
    with HubServer(tokens={MARKER: Token("tester", "write", {"ule": "admin"})}) as hub:
        user = User(desk, hub, tmp_path / "user", MARKER)
        push = ("ops-digits", "--out", digits, "--push-to-hub", "--debug")
        outcomes = []
        for call, fault in itertools.product(("whoami", "upload", "commit"), (status(503), disconnect())):
            hub.faults.add(CALLS[call], fault, times=None)
            outcomes.append(user.build(*push, before=SHORT_WAITS))
            assert outcomes[-1].code == 2
            assert "Traceback" in outcomes[-1].stderr
            hub.faults.clear()
        outcomes.append(user.build(*push))
        assert outcomes[-1].code == 0, outcomes[-1].stderr
        outcomes.append(user.verify(FIRST, "--integrity-only", "--debug"))
        assert outcomes[-1].code == 0, outcomes[-1].stderr
        assert {request.token for request in hub.requests} == {MARKER, None}, "it was used"
        for outcome in outcomes:
            assert MARKER not in outcome.stdout + outcome.stderr
        for folder in (digits, user.folder):
            for path in folder.rglob("*"):
                assert not path.is_file() or MARKER.encode() not in path.read_bytes(), path
        for blob in hub.api.blobs.kept.values():
            assert MARKER.encode() not in blob.read()
        assert hub.unexpected == []
