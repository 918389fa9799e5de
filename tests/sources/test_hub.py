"""Reading from the Hub, with the Hub's own unmodified client against a small server on this machine."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

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
    run_python,
    write_parquet,
)
from hub import HubServer, cut_download, status
from huggingface_hub.utils import filter_repo_objects

from ule_datasets.base.errors import InputError
from ule_datasets.places.hub import EXACT, Snapshot
from ule_datasets.places.hub import _patterns as asked_for

REPOSITORY = "somebody/images"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four Parquet files, and files that nobody needs."""
    folder = tmp_path_factory.mktemp("repository")
    write_parquet(folder / "plain", make_splits(3, 30, 32), class_names(3), rows_per_group=100)
    (folder / "README.md").write_text("# Images")
    (folder / "archive.zip").write_bytes(b"large and useless")
    return folder


@pytest.fixture
def hub(repository: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        server.put(REPOSITORY, files_of(repository))
        yield server
        assert server.unexpected == []


def files_of(folder: Path) -> dict[str, bytes | Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def build_from(environment: Mapping[str, str], out: Path, where: str = f"hub:{REPOSITORY}", **more: str) -> Outcome:
    """``ule-build ops --source hub:...`` in a process of its own."""
    arguments = ("ops", "--source", where, "--out", out, "--quiet", "--workers", "1")
    return run_build_process(*arguments, environment={**environment, **more})


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """An environment whose Hub has closed."""
    with HubServer() as server:
        return server.environment(home=tmp_path / "home")


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
    hub: HubServer, repository: Path, tmp_path: Path
) -> None:
    outcome = build_from(hub.environment(home=tmp_path / "home"), tmp_path / "online")
    assert outcome.code == 0, outcome.stderr
    needed = [name for name in files_of(repository) if name.endswith((".parquet", "README.md"))]
    assert sorted(hub.downloads) == [(name, None) for name in needed], "the card and every Parquet file once, no more"
    asked = len(hub.requests)
    again = build_from(hub.environment(home=tmp_path / "home"), tmp_path / "offline", HF_HUB_OFFLINE="1")
    assert again.code == 0, again.stderr
    assert len(hub.requests) == asked
    local = run_build("ops", "--source", repository, "--out", tmp_path / "local")
    assert local.code == 0, local.stderr
    assert data_files(tmp_path / "online") == data_files(tmp_path / "offline") == data_files(tmp_path / "local")


def test_a_cache_without_a_listing_will_do_and_one_without_all_of_the_data_will_not(
    hub: HubServer, tmp_path: Path
) -> None:
    program = "import sys; from ule_datasets.sources.reading import find_form; print(find_form(sys.argv[1]).kind)"
    environment = hub.environment(home=tmp_path / "home")

    def found(offline: str) -> Outcome:
        return run_python(program, f"hub:{REPOSITORY}", environment={**environment, "HF_HUB_OFFLINE": offline})

    assert found("0").stdout == "Parquet shards\n"
    shard = next((tmp_path / "home" / "hub").glob("*/snapshots/*/plain/train-00001*"))
    kept = shard.readlink()
    shard.unlink()
    assert f"cannot download {REPOSITORY} (" in found("1").stderr
    shard.symlink_to(kept)
    (listing,) = (tmp_path / "home" / "hub").glob("*/trees")
    shutil.rmtree(listing)
    listing.write_text("a file where the client would make a folder")
    assert [found(offline).stdout for offline in "01"] == ["Parquet shards\n"] * 2


def test_more_than_there_is_room_for_is_refused_before_it_is_fetched(tmp_path: Path) -> None:
    snapshot = Snapshot("somebody/images", tmp_path / "absent", {"a.parquet": 10**18, "b.parquet": 1})
    with pytest.raises(InputError, match=r"somebody/images takes 1000000000.0 GB more, .* has room for .*: free some"):
        snapshot.fetch(["a.parquet"], "or give a local copy")


def test_many_files_are_asked_for_by_few_patterns_which_mean_all_of_them() -> None:
    few = [f"data/[{number}]*.parquet" for number in range(EXACT)]
    assert set(filter_repo_objects([*few, "data/0.parquet"], allow_patterns=asked_for(few))) == set(few)
    many = [
        f"a/{split}/{number % 7}/{number}.{end}"
        for split in ("x", "y")
        for number in range(EXACT)
        for end in ("png", "jpg")
    ]
    patterns = asked_for([*many, "top.png"])
    assert len(patterns) <= 3
    assert set(filter_repo_objects([*many, "top.png", "a/x/notes.txt"], allow_patterns=patterns)) == {*many, "top.png"}


def test_offline_without_a_cached_copy_is_refused(elsewhere: dict[str, str], tmp_path: Path) -> None:
    outcome = build_from(elsewhere, tmp_path / "out", HF_HUB_OFFLINE="1")
    assert_refused_in_one_line(outcome, rf"cannot download {REPOSITORY} .*or give a local copy with --source FOLDER")
    assert not (tmp_path / "out").exists()


def test_a_hub_that_cannot_be_reached_is_refused(elsewhere: dict[str, str], tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        outcome = build_from(elsewhere, tmp_path / "out", HF_ENDPOINT=endpoint)
    assert_refused_in_one_line(
        outcome, rf"cannot download {REPOSITORY} \(.*\); run the same command again to resume, or .* --source FOLDER"
    )
    assert not (tmp_path / "out").exists()


def test_a_repository_that_does_not_exist_is_refused(hub: HubServer, tmp_path: Path) -> None:
    outcome = build_from(hub.environment(home=tmp_path / "home"), tmp_path / "out", "hub:somebody/imagse")
    message = "the Hub has no dataset 'somebody/imagse' that you may read; check the name, or .* --source FOLDER"
    assert_refused_in_one_line(outcome, message)
    assert not (tmp_path / "out").exists()


def test_a_revision_that_does_not_exist_is_refused(hub: HubServer, tmp_path: Path) -> None:
    outcome = build_from(hub.environment(home=tmp_path / "home"), tmp_path / "out", f"hub:{REPOSITORY}@v9")
    assert_refused_in_one_line(outcome, f"{REPOSITORY} has no revision 'v9'")


def test_a_repository_without_parquet_files_is_refused(hub: HubServer, repository: Path, tmp_path: Path) -> None:
    hub.put(REPOSITORY, {}, delete=[name for name in files_of(repository) if name.endswith(".parquet")])
    outcome = build_from(hub.environment(home=tmp_path / "home"), tmp_path / "out")
    assert_refused_in_one_line(
        outcome,
        f"{REPOSITORY} holds no Parquet files, tar shards or images: name another, or .* --source FOLDER",
    )


def test_a_dropped_connection_is_resumed_where_it_broke(hub: HubServer, tmp_path: Path) -> None:
    name, path = "train-large.parquet", tmp_path / "local" / "train-large.parquet"
    path.parent.mkdir()
    write_large_parquet(path)
    assert path.stat().st_size > 24 * 2**20, "the client of the Hub keeps what it got in steps of 10 MiB"
    commit = hub.put("somebody/large", {name: path})
    hub.faults.add(f"GET /storage/.*file={name}", cut_download(12 * 2**20))
    outcome = build_from(hub.environment(home=tmp_path / "home"), tmp_path / "out", f"hub:somebody/large@{commit}")
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
    hub: HubServer, repository: Path, tmp_path: Path
) -> None:
    name = next(name for name in files_of(repository) if "train-00001" in name)
    hub.faults.add(f"GET /storage/.*{Path(name).name}", cut_download(1000))
    hub.faults.add(f"GET /storage/.*{Path(name).name}", status(500), times=None)
    outcome = build_from(hub.environment(home=tmp_path / "home"), tmp_path / "out")
    assert_refused_in_one_line(outcome, rf"cannot download {REPOSITORY} \(.*\); run the same command again to resume")
    assert not (tmp_path / "out").exists()
    finished = {path.name for path in (tmp_path / "home" / "hub").rglob("*.parquet")}
    hub.faults.clear()
    before = len(hub.downloads)
    outcome = build_from(hub.environment(home=tmp_path / "home"), tmp_path / "out")
    assert outcome.code == 0, outcome.stderr
    fetched = {Path(path).name for path, _ in hub.downloads[before:]}
    assert Path(name).name in fetched
    assert not fetched & finished, "a file that had arrived was fetched again"
    assert run_build("ops", "--source", repository, "--out", tmp_path / "local").code == 0
    assert data_files(tmp_path / "out") == data_files(tmp_path / "local")
