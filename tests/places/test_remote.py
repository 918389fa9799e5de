"""Folders at URLs: files arrive whole or not at all, failures are told in one line, and secrets are never told."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import run_python
from stores import Web, s3_endpoint, s3_store

from ule_datasets.base.errors import InputError
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.places import urls as remote
from ule_datasets.places.urls import TRIES, TRIES_AT_FIRST, RemoteFolder, attempt, is_remote, shown

SECRETS = ("s3cret", "p4ssword", "sig=", "Signature")


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    """An S3 with one bucket."""
    with s3_store() as system:
        system.mkdir("bucket")
        yield system


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.0)


@pytest.fixture(params=["s3", "file"])
def folder(request: pytest.FixtureRequest, store: Any, tmp_path: Path) -> RemoteFolder:
    """An empty folder that is not there yet."""
    name = request.node.name.replace("[", "-").replace("]", "")
    return RemoteFolder(f"s3://bucket/{name}" if request.param == "s3" else f"file://{tmp_path}/there")


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def system_of(folder: RemoteFolder) -> Any:
    """fsspec's file system that the folder uses in this process."""
    return remote._file_system(folder.url, os.getpid())[0]


# --- places ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["s3://b/x", "gs://b", "https://h/x?y", "file:///x", "simplecache::s3://b/x"])
def test_urls_are_remote(where: str) -> None:
    assert is_remote(where)


@pytest.mark.parametrize("where", ["hub:OWNER/NAME", "digits", "/data/x", "data/x", "~/x", "C:x", "a b://x", "", "://"])
def test_paths_names_and_the_hub_are_not_remote(where: str) -> None:
    assert not is_remote(where)
    assert shown(where) == where


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("https://me:p4ssword@host:8/a@b/c.tar", "https://host:8/a@b/c.tar"),
        ("https://me@host/a", "https://host/a"),
        ("https://host/a.tar?X-Amz-Signature=s3cret&b=1#c", "https://host/a.tar"),
        ("simplecache::https://me:p4ssword@host/a?sig=s3cret", "simplecache::https://host/a"),
    ],
)
def test_a_place_is_shown_without_what_is_secret(where: str, expected: str) -> None:
    assert shown(where) == expected


def test_a_folder_shows_nothing_secret_however_it_is_printed() -> None:
    folder = RemoteFolder("sftp://me:p4ssword@host/a")
    assert str(folder) == "sftp://host/a"
    assert not any(secret in repr(folder) + str(folder) for secret in SECRETS)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("/data/x", "'/data/x' is not a URL such as s3://bucket/folder"),
        ("https://me:p4ssword@host/x", "https://host/x cannot be written to: give s3://, gs:// or another store"),
    ],
)
def test_what_cannot_be_sent_to_is_refused_at_once(where: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        RemoteFolder(where)
    assert str(error.value) == message


# --- sending and reading back ---------------------------------------------------------------------------------


def test_a_file_that_was_sent_is_there_with_its_size_its_content_and_its_name(
    folder: RemoteFolder, tmp_path: Path
) -> None:
    assert folder.names() == []
    assert folder.size("a.bin") is None
    assert folder.size("data/b c#%.bin") is None
    assert folder.read("a.bin") is None
    folder.send(write(tmp_path / "1", b"first"), "a.bin")
    folder.send(write(tmp_path / "2", b""), "data/deep/empty")
    folder.send(write(tmp_path / "3", bytes(range(256)) * 999), "data/b c#%.bin")
    assert folder.names() == ["a.bin", "data/b c#%.bin", "data/deep/empty"]
    assert (folder.size("a.bin"), folder.size("data/deep/empty"), folder.size("data")) == (5, 0, None)
    assert folder.read("data/b c#%.bin") == bytes(range(256)) * 999
    assert folder.read("data/deep/empty") == b""


def test_sending_again_replaces_and_removing_removes_just_that_file(folder: RemoteFolder, tmp_path: Path) -> None:
    for content in (b"a long first version", b"short"):
        folder.send(write(tmp_path / "x", content), "x/y")
        assert folder.read("x/y") == content
    folder.send(tmp_path / "x", "x/yz")
    folder.remove("x/y")
    assert folder.names() == ["x/yz"]
    folder.remove("x/y")
    assert folder.names() == ["x/yz"]


def test_a_folder_does_not_see_its_neighbours(store: Any, tmp_path: Path) -> None:
    RemoteFolder("s3://bucket/near").send(write(tmp_path / "x", b"1"), "x")
    RemoteFolder("s3://bucket/nearby").send(tmp_path / "x", "y")
    assert RemoteFolder("s3://bucket/near").names() == ["x"]
    assert RemoteFolder("s3://bucket/near/").names() == ["x"]


def test_checking_leaves_nothing_behind(folder: RemoteFolder) -> None:
    folder.check()
    assert folder.names() == []


class Send:
    """One file, sent by a worker."""

    def __init__(self, folder: RemoteFolder, source: Path) -> None:
        self.folder, self.source = folder, source

    def __call__(self, name: str) -> int | None:
        self.folder.send(self.source, name)
        return self.folder.size(name)


def test_workers_send_and_this_process_sees_it(store: Any, tmp_path: Path) -> None:
    folder = RemoteFolder("s3://bucket/from-workers")
    program = """
import sys
from pathlib import Path
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.places.urls import RemoteFolder
from tests.places.test_remote import Send
if __name__ == "__main__":
    folder = RemoteFolder(sys.argv[1])
    folder.names()  # connections of this process are no use to its workers
    with LocalExecutor(2) as executor:
        assert list(executor.map(Send(folder, Path(sys.argv[2])), [f"w{n}" for n in range(6)])) == [4] * 6
"""
    source = write(tmp_path / "x", b"four")
    paths = os.pathsep.join(map(str, Path(__file__).parents[1:3]))
    done = run_python(program, folder.url, source, environment={"PYTHONPATH": paths})
    assert done.code == 0, done.stderr
    assert folder.names() == [f"w{number}" for number in range(6)]
    assert pickle.loads(pickle.dumps(folder)) == folder


def test_with_one_worker_tasks_run_in_this_process_too(folder: RemoteFolder, tmp_path: Path) -> None:
    with LocalExecutor(1) as executor:
        assert list(executor.map(Send(folder, write(tmp_path / "x", b"four")), ["a"])) == [4]


def test_a_killed_upload_leaves_what_was_there_and_the_next_one_completes(store: Any, tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
import s3fs.core
from ule_datasets.places.urls import RemoteFolder
call = s3fs.core.S3FileSystem._call_s3
async def killed_after_one_part(self, method, *arguments, **options):
    answer = await call(self, method, *arguments, **options)
    if method == "upload_part":
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
s3fs.core.S3FileSystem._call_s3 = killed_after_one_part
s3fs.core.calculate_chunksize = lambda size, **_: 5 * 2**20
RemoteFolder("s3://bucket/killed").send(Path(sys.argv[1]), sys.argv[2])
"""
    folder = RemoteFolder("s3://bucket/killed")
    large = write(tmp_path / "large", b"new" * 4 * 2**20)
    folder.send(write(tmp_path / "small", b"old"), "old.tar")
    for name in ("old.tar", "new.tar"):
        assert run_python(program, large, name).code == -signal.SIGKILL
    assert folder.names() == ["old.tar"]
    assert folder.read("old.tar") == b"old"
    for name in ("old.tar", "new.tar"):
        folder.send(large, name)
        assert folder.read(name) == large.read_bytes()


def test_half_a_file_is_no_success_and_is_sent_again(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RemoteFolder("s3://bucket/half")
    system = system_of(folder)
    put, times = system.put_file, []

    def put_half_at_first(local: str, target: str) -> None:
        times.append(target)
        if len(times) <= 2:
            system.pipe_file(target, Path(local).read_bytes()[:4])
        else:
            put(local, target)

    monkeypatch.setattr(system, "put_file", put_half_at_first)
    folder.send(write(tmp_path / "x", b"whole thing"), "x")
    assert folder.read("x") == b"whole thing"
    assert len(times) == 3


def test_a_file_that_never_arrives_whole_is_an_error(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RemoteFolder("s3://bucket/never")
    system = system_of(folder)
    monkeypatch.setattr(system, "put_file", lambda local, target: system.pipe_file(target, b"half"))
    with pytest.raises(InputError) as error:
        folder.send(write(tmp_path / "x", b"whole thing"), "x")
    assert str(error.value) == (
        f"cannot write to s3://bucket/never/x: no success in {TRIES} attempts "
        "([Errno 5] 4 bytes of 11 have arrived); the same command continues"
    )


# --- failures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["check", "send"])
def test_a_bucket_that_is_not_there_is_named_and_not_made(action: str, store: Any, tmp_path: Path) -> None:
    folder = RemoteFolder("s3://no-such-bucket/x")
    with pytest.raises(InputError, match=r"cannot write to s3://no-such-bucket/x\S*: nothing is there \(.*bucket"):
        folder.check() if action == "check" else folder.send(write(tmp_path / "x", b"1"), "y")
    assert not store.exists("no-such-bucket")


def test_a_server_that_does_not_let_us_is_named(tmp_path: Path) -> None:
    with Web(tmp_path) as web, s3_endpoint(web.url):
        web.status_for = lambda path, times: 403
        folder = RemoteFolder("s3://bucket/x")
        for action in (folder.check, lambda: folder.size("y"), lambda: folder.send(write(tmp_path / "x", b"1"), "y")):
            with pytest.raises(InputError, match=r"s3://bucket/x\S*: no permission \(.*environment variables") as error:
                action()
            assert "\n" not in str(error.value)
        assert len(web.requests) == 3, "a refusal was tried again"


def test_a_server_that_is_overloaded_is_asked_again_with_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(remote, "FIRST_PAUSE", 1.0)
    monkeypatch.setattr(remote.time, "sleep", pauses.append)
    write(tmp_path / "x", b"content")
    with Web(tmp_path) as web:
        web.status_for = lambda path, times: (503, 429, 500, None)[times - 1]
        assert attempt(web.url, "x", "read", lambda system, path: system.cat_file(path)) == b"content"
        assert pauses == [1.0, 2.0, 4.0]
        web.status_for = lambda path, times: 503
        with pytest.raises(InputError, match=rf"cannot read {web.url}/x: no success in {TRIES} attempts \(503"):
            attempt(web.url, "x", "read", lambda system, path: system.cat_file(path))
    assert len(web.requests) == 4 + TRIES


@pytest.mark.parametrize(
    ("error", "tried"),
    [
        (ConnectionResetError("reset by peer"), TRIES),
        (TimeoutError(), TRIES),
        (EOFError("cut"), TRIES),
        (OSError(errno.EBUSY, "slow down"), TRIES),
        (OSError(errno.EINVAL, "bad request"), 1),
        (FileNotFoundError("x"), 1),
        (PermissionError("no"), 1),
        (ValueError("no such option"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_what_may_pass_is_tried_again(error: Exception, tried: int, tmp_path: Path) -> None:
    times = []

    def fail(system: Any, path: str) -> None:
        times.append(path)
        raise error

    with pytest.raises(InputError, match=f"cannot list file://{tmp_path}/x"):
        attempt(f"file://{tmp_path}", "x", "list", fail)
    assert times == [f"{tmp_path}/x"] * tried


def test_our_own_mistakes_are_not_dressed_up_as_failures_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        attempt(f"file://{tmp_path}", "x", "read", lambda system, path: len(3))  # type: ignore[arg-type]


def test_nobody_at_the_other_end(store: Any) -> None:
    url = "http://me:p4ssword@127.0.0.1:9/x?sig=s3cret"
    with pytest.raises(
        InputError, match=r"^cannot list http://127.0.0.1:9/x: no success in 2 attempts \(.*onnect"
    ) as e:
        attempt(url, "", "list", lambda system, path: system.ls(path), tries=TRIES_AT_FIRST)
    assert not any(secret in str(e.value) for secret in SECRETS)
    assert e.value.__cause__ is None


def test_what_a_client_says_is_cleared_of_secrets() -> None:
    url = "https://me:p4ss%40word@host/a?X-Amz-Signature=s3cret%2Fx&v=1"
    said = "bad p4ss@word or p4ss%40word for s3cret/x: https://me:p4ss%40word@host/a?X-Amz-Signature=s3cret%2Fx&v=1"
    words = remote._words(OSError(f"{said}\nsecond line"), url)
    assert words == "bad *** or *** for ***: https://host/a"


def test_credentials_in_the_wrong_place_are_not_repeated(store: Any) -> None:
    with pytest.raises(InputError, match="cannot read s3://bucket/x") as error:
        attempt("s3://me:p4ssword@bucket/x", "", "read", lambda system, path: system.cat_file(path))
    assert "p4ssword" not in str(error.value)


def test_a_backend_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.registry import known_implementations

    made_up = {"class": "no_such_package.FileSystem", "err": "Install no-such-package to open made-up places"}
    monkeypatch.setitem(known_implementations, "madeup", made_up)
    with pytest.raises(InputError) as error:
        RemoteFolder("madeup://x/y").names()
    assert str(error.value).startswith(
        "madeup://x/y needs a package that is not installed: Install no-such-package to open made-up places (pip"
    )


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(InputError, match=r"s3://no-fsspec/x needs fsspec: pip install 'ule-datasets\[remote\]'"):
        RemoteFolder("s3://no-fsspec/x").names()


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(InputError, match=r"cannot list nonsense://x \(Protocol not known: nonsense\)"):
        RemoteFolder("nonsense://x").names()
