"""A file that has its name is on the disk; how often anyone waited for the disk is counted, and bounded."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ule_datasets.base import files
from ule_datasets.base.errors import InputError
from ule_datasets.base.files import (
    ABANDONED,
    Syncs,
    make_folder,
    refuse_unwritable,
    remove_tree,
    replacing,
    sweep,
    sync,
    write_atomically,
)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes | list[str]]]:
    """Name and content (of a folder: the names in it) of what is synced, as it was then."""
    seen: list[tuple[str, bytes | list[str]]] = []
    plain = os.fsync

    def watched(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        seen.append((path.name, sorted(entry.name for entry in path.iterdir()) if folder else path.read_bytes()))
        plain(handle)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(files, "SYNCS", Syncs())
    return seen


def test_content_is_on_the_disk_before_the_name_and_the_name_before_what_follows(
    tmp_path: Path, synced: list[tuple[str, bytes | list[str]]]
) -> None:
    write_atomically(tmp_path / "note", "text")
    assert synced == [(f".note.{os.getpid()}.partial", b"text"), (tmp_path.name, ["note"])]
    assert (files.SYNCS.files, files.SYNCS.folders) == (1, 1)
    assert files.SYNCS.seconds > 0


def test_folders_that_are_made_are_on_the_disk_from_the_top_down(
    tmp_path: Path, synced: list[tuple[str, bytes | list[str]]]
) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert synced == [(tmp_path.name, ["a"]), ("a", ["b"])]


def test_files_that_go_with_the_process_wait_for_no_disk(
    tmp_path: Path, synced: list[tuple[str, bytes | list[str]]]
) -> None:
    with replacing(tmp_path / "x", lasting=False) as partial:
        partial.write_bytes(b"1")
    assert synced == []
    assert (tmp_path / "x").read_bytes() == b"1"


def test_what_nobody_needs_any_more_is_swept_and_nothing_else(tmp_path: Path) -> None:
    for name in (".old.1.partial", ".young.1.partial", "old.partial", "ule-1/x", "other/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    long_ago = time.time() - ABANDONED - 60
    for path in (tmp_path / ".old.1.partial", tmp_path / "old.partial", tmp_path / "ule-1", tmp_path / "other"):
        os.utime(path, (long_ago, long_ago))
    sweep(tmp_path)
    sweep(tmp_path, "ule-*")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".young.1.partial", "old.partial", "other"]


def failing(number: int, *, folders: bool) -> Callable[[int], None]:
    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode) == folders:
            raise OSError(number, os.strerror(number))

    return fsync


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES])
def test_systems_that_cannot_sync_folders_are_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", failing(number, folders=True))
    write_atomically(tmp_path / "a" / "b", "text")
    assert (tmp_path / "a" / "b").read_text() == "text"


@pytest.mark.parametrize("folders", [True, False])
def test_a_disk_that_fails_is_an_error_and_leaves_the_old_content_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: bool
) -> None:
    write_atomically(tmp_path / "x", "old")
    monkeypatch.setattr(os, "fsync", failing(errno.EIO, folders=folders))
    with pytest.raises(OSError, match="Input/output error"):
        write_atomically(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == ("new" if folders else "old")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    monkeypatch.undo()
    sync(tmp_path / "x")


def test_folders_that_nothing_can_be_written_to_are_refused_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_unwritable(tmp_path / "new" / "folder", "--report")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(InputError, match="file is no folder; choose another folder with --report"):
            refuse_unwritable(place, "--report")
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)  # who runs the tests may write anywhere
    with pytest.raises(InputError, match=f"nothing can be written to {tmp_path}/new: {tmp_path} is read-only"):
        refuse_unwritable(tmp_path / "new", "--report")


def test_nothing_is_deleted_where_nothing_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    remove_tree(tmp_path / "link")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: pytest.fail("a read-only disk would refuse that"))
    remove_tree(tmp_path / "absent")
