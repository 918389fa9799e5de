"""Finding datasets and perturbations by name, and patience with the Hub; without any network."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import hf_raise_for_status

from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.data.perturbation import FILE_NAME as PERTURBATION
from ule_datasets.dataset.fetching import (
    FoundPerturbation,
    find_dataset,
    find_perturbation,
    in_hub_cache,
    require_images,
)
from ule_datasets.dataset.manifest import FILE_NAME as MANIFEST
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.places import hub

Download = tuple[str, str | None, list[str]]


class FakeHub:
    """Stands for ``download``: notes what is asked for, and gives a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[Download] = []

    def __call__(self, repository: str, revision: str | None, patterns: Sequence[str], *, elsewhere: str = "") -> Path:
        assert elsewhere, "the message of an error says what else to do"
        self.asked.append((repository, revision, list(patterns)))
        return self.folder


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeHub:
    """A Hub whose only repository has a manifest and a perturbation; the working folder is empty."""
    folder, here = tmp_path / "snapshot", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    (folder / PERTURBATION).touch()
    monkeypatch.chdir(here)
    made = FakeHub(folder)
    monkeypatch.setattr("ule_datasets.dataset.fetching.download", made)
    return made


@pytest.fixture
def manifest(built_digits: Path) -> Manifest:
    return Manifest.read(built_digits)


@pytest.fixture
def fake_with_manifest(fake: FakeHub, built_digits: Path) -> FakeHub:
    shutil.copy(built_digits / MANIFEST, fake.folder / MANIFEST)
    return fake


# --- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ule/ops-digits", ("ule/ops-digits", None)),
        ("hub:ule/ops-digits", ("ule/ops-digits", None)),
        ("ule/ops-digits@v1.0.0", ("ule/ops-digits", "v1.0.0")),
        ("hub:a.b/c_d@refs/pr/1", ("a.b/c_d", "refs/pr/1")),
        ("ule/ops-digits@0123abc", ("ule/ops-digits", "0123abc")),
        ("ops-digits", None),
        ("hub:ops-digits", None),
        ("a/b/c", None),
        ("/a/b", None),
        ("~/b", None),
        ("a b/c", None),
        ("a/b@", None),
        ("a/", None),
        ("/b", None),
        ("", None),
        ("https://huggingface.co/datasets/a/b", None),
        ("ule/ops-digits\n", None),
    ],
)
def test_a_repository_is_an_owner_and_a_name_and_perhaps_a_revision(text: str, found: Any) -> None:
    assert hub.parse_repository(text) == found


@pytest.mark.parametrize("text", ["./x", "../x", "../x@y"])
def test_a_relative_path_is_no_repository(text: str) -> None:
    assert hub.parse_repository(text) is None


# --- perturbations -------------------------------------------------------------------------------------------


def test_a_perturbation_is_a_file_or_that_of_a_folder(fake: FakeHub, tmp_path: Path) -> None:
    file = tmp_path / "noise.safetensors"
    file.touch()
    assert find_perturbation(str(file)) == FoundPerturbation(path=file)
    (tmp_path / PERTURBATION).touch()
    assert find_perturbation(str(tmp_path)) == FoundPerturbation(path=tmp_path / PERTURBATION)
    assert fake.asked == []


def test_the_home_folder_may_be_written_as_a_tilde(
    fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "noise.safetensors").touch()
    assert find_perturbation("~/noise.safetensors").path == tmp_path / "noise.safetensors"
    assert fake.asked == []


@pytest.mark.parametrize("where", ["ule/ops-digits", "hub:ule/ops-digits"])
def test_a_perturbation_on_the_hub_comes_with_its_manifest(
    fake_with_manifest: FakeHub, manifest: Manifest, where: str
) -> None:
    found = find_perturbation(where)
    assert found.path == fake_with_manifest.folder / PERTURBATION
    assert (found.repository, found.published) == ("ule/ops-digits", manifest)
    assert find_perturbation(f"{where}@v1.0.0").repository == "ule/ops-digits"
    files = [PERTURBATION, MANIFEST]
    assert fake_with_manifest.asked == [("ule/ops-digits", None, files), ("ule/ops-digits", "v1.0.0", files)]


def test_what_is_here_comes_before_the_hub(fake: FakeHub) -> None:
    Path("ule").mkdir()
    Path("ule/noise").touch()
    assert find_perturbation("ule/noise").path == Path("ule/noise")
    assert fake.asked == []


@pytest.mark.parametrize("where", ["missing", "missing.safetensors", "/no/such/file", "a/b/c"])
def test_a_perturbation_that_is_nowhere_is_refused_without_asking_the_hub(fake: FakeHub, where: str) -> None:
    with pytest.raises(InputError, match=f"--perturbation {where}: no such file or folder, and not OWNER/NAME"):
        find_perturbation(where)
    assert fake.asked == []


def test_a_repository_without_a_perturbation_or_a_manifest_is_refused(fake: FakeHub, built_digits: Path) -> None:
    message = "ule/other is not a dataset of ours: it has no perturbation.safetensors or no manifest.json"
    with pytest.raises(InputError, match=message):
        find_perturbation("ule/other")
    shutil.copy(built_digits / MANIFEST, fake.folder / MANIFEST)
    (fake.folder / PERTURBATION).unlink()
    with pytest.raises(InputError, match=message):
        find_perturbation("ule/other")


# --- what was built from a published perturbation ---------------------------------------------------------------


@pytest.fixture
def found(manifest: Manifest) -> FoundPerturbation:
    return FoundPerturbation(path=Path(PERTURBATION), repository="ule/ops-digits", published=manifest)


def with_digest(manifest: Manifest, split: str, digest: str) -> Manifest:
    changed = dataclasses.replace(manifest.splits[split], digest=digest)
    return dataclasses.replace(manifest, splits={**manifest.splits, split: changed})


def test_the_same_pixels_and_labels_are_no_difference(found: FoundPerturbation, manifest: Manifest) -> None:
    other_encoder = dataclasses.replace(manifest, files=manifest.files[:1], formats=("parquet",), timings={})
    assert found.differences(manifest) == found.differences(other_encoder) == []


def test_other_pixels_are_a_difference_that_names_split_and_digests(
    found: FoundPerturbation, manifest: Manifest
) -> None:
    (line,) = found.differences(with_digest(manifest, "test", "f" * 64))
    published = manifest.splits["test"].digest
    assert line == (f"FAILED test: pixels and labels have digest {'f' * 64}, those of ule/ops-digits have {published}")
    both = with_digest(with_digest(manifest, "test", "f" * 64), "train", "e" * 64)
    assert [line.split(":")[0] for line in found.differences(both)] == ["FAILED train", "FAILED test"]


def test_a_split_that_is_missing_is_a_difference(found: FoundPerturbation, manifest: Manifest) -> None:
    only_train = dataclasses.replace(manifest, splits={"train": manifest.splits["train"]})
    (line,) = found.differences(only_train)
    assert line.startswith("FAILED test: ")


def test_another_recipe_and_a_perturbation_from_here_promise_nothing(
    found: FoundPerturbation, manifest: Manifest
) -> None:
    other = dataclasses.replace(with_digest(manifest, "train", "f" * 64), recipe_digest="0" * 64)
    assert found.differences(other) == []
    assert found.proof(dataclasses.replace(other, name="both")) == (
        "the perturbation of ule/ops-digits (ops-digits) is part of both"
    )
    assert FoundPerturbation(path=Path(PERTURBATION)).differences(with_digest(manifest, "train", "f" * 64)) == []


def test_the_proof_counts_the_shards_that_are_the_same_file(found: FoundPerturbation, manifest: Manifest) -> None:
    start = "equal to ule/ops-digits 1.0.0: pixels and labels of train and test; "
    assert found.proof(manifest) == start + "4 of 4 shards byte for byte"
    first, *others = sorted(manifest.files, key=lambda file: not file.path.startswith("data/"))
    changed = dataclasses.replace(first, sha256="f" * 64)
    assert found.proof(dataclasses.replace(manifest, files=(changed, *others))).endswith("3 of 4 shards byte for byte")
    tables = tuple(file for file in manifest.files if not file.path.startswith("webdataset/"))
    assert found.proof(dataclasses.replace(manifest, files=tables)).endswith("2 of 2 shards byte for byte")


# --- datasets ------------------------------------------------------------------------------------------------


def test_a_dataset_is_a_folder_or_a_name_in_the_folder_of_datasets(fake: FakeHub, built_digits: Path) -> None:
    assert find_dataset(built_digits) == find_dataset(str(built_digits)) == built_digits
    named = Path("datasets") / "ops-digits"
    named.mkdir(parents=True)
    shutil.copy(built_digits / MANIFEST, named / MANIFEST)
    assert find_dataset("ops-digits") == named
    Path("ops-digits").mkdir()
    assert find_dataset("ops-digits") == named, "a folder that is no dataset does not hide it"
    shutil.copy(built_digits / MANIFEST, Path("ops-digits") / MANIFEST)
    assert find_dataset("ops-digits") == Path("ops-digits")
    assert fake.asked == []


def test_a_dataset_on_the_hub_is_fetched_as_far_as_it_is_wanted(fake_with_manifest: FakeHub) -> None:
    fake = fake_with_manifest
    assert find_dataset("ule/ops-digits") == fake.folder
    find_dataset("hub:ule/ops-digits@v1.0.0", patterns=("data/test-*",))
    find_dataset("ule/ops-digits@v1.0.0", "v1.1.0")
    find_dataset("ule/ops-digits", "v1.1.0")
    described = [MANIFEST, "recipe.json"]
    assert fake.asked == [
        ("ule/ops-digits", None, [*described, "*"]),
        ("ule/ops-digits", "v1.0.0", [*described, "data/test-*"]),
        ("ule/ops-digits", "v1.1.0", [*described, "*"]),
        ("ule/ops-digits", "v1.1.0", [*described, "*"]),
    ]


@pytest.mark.parametrize("where", ["ops-digits", "/no/such/ops-digits", "here/is/no/ops-digits"])
def test_a_dataset_that_is_nowhere_is_refused_with_the_command_that_builds_it(fake: FakeHub, where: str) -> None:
    message = rf"no dataset at {where}: there is no such folder.*; build it with: ule-build ops-digits"
    with pytest.raises(InputError, match=message):
        find_dataset(where)
    assert fake.asked == []


@pytest.mark.parametrize("where", ["datasets/none", "photos/none", "./photos/none", "ops-digits"])
def test_a_folder_that_is_not_here_is_said_to_be_missing_and_not_asked_for(fake: FakeHub, where: str) -> None:
    Path("photos").mkdir()
    with pytest.raises(InputError, match=rf"no dataset at {where}: there is no such folder"):
        find_dataset(where)
    if "/" in where:
        with pytest.raises(InputError, match=f"--perturbation {where}: no such file or folder"):
            find_perturbation(where)
    assert fake.asked == []


def test_a_name_that_is_not_there_is_told_what_is_like_it() -> None:
    known = ["ops-digits", *(f"other-{number}" for number in range(9))]
    for given, told in (
        ("ops-digts", "nor ./datasets/ops-digts; did you mean ops-digits?"),
        ("ops-digits", "; build it with: ule-build ops-digits"),
        ("zzz", "; ule-build --list shows what can be built"),
    ):
        with pytest.raises(InputError, match=re.escape(told)):
            find_dataset(given, buildable=known)
    Path("datasets/mine-1").mkdir(parents=True)
    Path("datasets/mine-1/manifest.json").write_text("{}")
    with pytest.raises(InputError, match=r"in \./datasets there is mine-1$"):
        find_dataset("mine-2", buildable=known)


def test_a_folder_that_looks_like_a_repository_is_a_folder(fake: FakeHub) -> None:
    Path("ule/unfinished").mkdir(parents=True)
    with pytest.raises(InputError, match="no dataset at ule/unfinished"):
        find_dataset("ule/unfinished")
    assert fake.asked == []


def test_a_repository_without_a_manifest_is_refused(fake: FakeHub) -> None:
    with pytest.raises(InputError, match=r"ule/other is not a dataset of ours: it has no manifest\.json"):
        find_dataset("ule/other")


@pytest.mark.parametrize("kept", [(), ("webdataset/test-000000.tar",), ("data/train-00000-of-00001.parquet",)])
def test_images_are_required_and_any_shard_shows_that_they_are_published(
    manifest: Manifest, tmp_path: Path, kept: tuple[str, ...]
) -> None:
    for path in ("README.md", PERTURBATION, *kept):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    if kept:
        require_images(tmp_path, manifest, "ule/bare")
        return
    command = "ule-build ops-digits --perturbation ule/bare --source SOURCE"
    with pytest.raises(InputError, match=f"ule/bare holds no images, only what is needed to make them: {command}"):
        require_images(tmp_path, manifest, "ule/bare")


def test_only_what_is_in_the_hubs_cache_is_remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, inside = tmp_path / "cache", tmp_path / "cache" / "datasets--a--b" / "snapshots" / "1"
    inside.mkdir(parents=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    assert in_hub_cache(inside)
    (tmp_path / "link").symlink_to(inside)
    assert in_hub_cache(tmp_path / "link")
    assert not in_hub_cache(tmp_path)
    assert not in_hub_cache(tmp_path / "cache2")


# --- errors in words -----------------------------------------------------------------------------------------

http = importlib.import_module(hub.http_error().__module__.split(".")[0])
"""The HTTP library of the client: which one, depends on its version."""


def refusal(code: int, headers: dict[str, str] | None = None, kind: type[HfHubHTTPError] = HfHubHTTPError) -> Any:
    """An error of the client about an answer."""
    return kind(f"answer {code}", response=answer(code, headers))


def answer(code: int, headers: dict[str, str] | None = None, **more: Any) -> Any:
    request = http.Request("POST", "http://hub/api/datasets/a/b/preupload/main")
    return http.Response(code, headers=headers or {}, request=request, **more)


def no_answer() -> Exception:
    error: Exception = http.ConnectError("connection refused")
    return error


def raised_by(error: Exception, monkeypatch: pytest.MonkeyPatch) -> str:
    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(InputError) as caught:
        hub.download("a/b", "v1", ["*"], elsewhere="or build it")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_error_of_a_download_becomes_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = "the Hub has no dataset 'a/b' that you may read; check the name, or build it"
    assert raised_by(refusal(404, kind=RepositoryNotFoundError), monkeypatch) == missing
    gated = raised_by(refusal(403, kind=GatedRepoError), monkeypatch)
    assert gated.startswith("a/b is gated: accept its terms on its page and log in with 'hf auth login'")
    assert raised_by(refusal(404, kind=RevisionNotFoundError), monkeypatch) == "a/b has no revision 'v1'"
    assert raised_by(HFValidationError("no"), monkeypatch).startswith("'a/b' does not name a dataset: use OWNER/NAME")
    for error in (LocalEntryNotFoundError("not cached"), OSError("disk"), no_answer(), refusal(500)):
        line = raised_by(error, monkeypatch)
        assert line == f"cannot download a/b ({error}); run the same command again to resume, or build it"


@pytest.mark.parametrize("code", [400, 403, 409, 429, 500])
def test_an_answer_that_refuses_is_told_in_the_servers_words(code: int) -> None:
    response = answer(code, {"X-Request-Id": "1-2-3"}, json={"error": "The quota of club is used up"})
    with pytest.raises(HfHubHTTPError) as caught:
        hf_raise_for_status(response)
    told = hub.first_line(caught.value)
    assert str(code) in told or "quota" in told, told


def test_an_error_without_words_is_told_by_its_name() -> None:
    assert hub.first_line(ValueError("one\ntwo")) == "one"
    assert hub.first_line(ValueError("  \n")) == "ValueError"


# --- patience ------------------------------------------------------------------------------------------------


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been waited."""
    made: list[float] = []
    monkeypatch.setattr("ule_datasets.places.patience.time.sleep", made.append)
    return made


def failing(*errors: Exception) -> Callable[[], str]:
    """Raises them one after the other, then returns."""
    left = list(errors)

    def act() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return act


def patiently(action: Callable[[], str], reporter: Reporter | None = None) -> str:
    return hub.patiently(action, what="committing", reporter=reporter or Reporter(silent=True))


@pytest.mark.parametrize(
    ("code", "headers", "seconds"),
    [
        (429, {"Retry-After": "7"}, 7),
        (503, {"Retry-After": "30"}, 30),
        (429, {"retry-after": "7"}, 7),
        (429, {"RateLimit": '"api";r=0;t=55'}, 55),
        (429, {"RateLimit": '"api";r=0;t=55', "Retry-After": "3"}, 3),
        (503, {"RateLimit": '"api";r=10;t=55'}, None),
        (429, {"RateLimit": "nonsense"}, None),
        (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        (429, {"Retry-After": "-1"}, None),
        (429, {}, None),
    ],
)
def test_the_wait_is_the_one_that_the_server_asks_for(
    code: int, headers: dict[str, str], seconds: float | None
) -> None:
    assert hub._told_to_wait(refusal(code, headers)) == seconds


def test_who_gives_no_answer_asks_for_no_wait() -> None:
    assert hub._told_to_wait(no_answer()) is None
    assert hub._told_to_wait(ValueError()) is None


def test_what_succeeds_is_not_repeated(waits: list[float]) -> None:
    assert patiently(failing()) == "done"
    assert waits == []


@pytest.mark.parametrize("code", sorted(hub.PASSING))
def test_passing_trouble_is_waited_out_longer_each_time(
    waits: list[float], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert patiently(failing(refusal(code), no_answer(), refusal(code)), Reporter()) == "done"
    assert waits == [1, 2, 4]
    assert capsys.readouterr().err.splitlines() == [
        f"committing: the Hub answers {code}; trying again in 1 s",
        "committing: no answer (connection refused); trying again in 2 s",
        f"committing: the Hub answers {code}; trying again in 4 s",
    ]


def test_told_waits_are_kept_but_not_for_ever(waits: list[float]) -> None:
    told = [refusal(429, {"Retry-After": "9"}), refusal(429, {"Retry-After": "86400"}), refusal(503)]
    assert patiently(failing(*told)) == "done"
    assert waits == [9, hub.LONGEST_WAIT, 4]


def test_patience_ends_with_a_line_that_says_how_to_continue(waits: list[float]) -> None:
    tries: list[int] = []

    def fail() -> str:
        tries.append(1)
        raise refusal(503)

    with pytest.raises(InputError) as caught:
        patiently(fail)
    assert str(caught.value) == "committing: the Hub answers 503; the same command continues where it stopped"
    assert len(tries) == hub.TRIES
    assert waits == [2.0**attempt for attempt in range(hub.TRIES - 1)], "and does not wait for nothing at the end"
    with pytest.raises(InputError, match=r"committing: no answer \(connection refused\); the same command continues"):
        patiently(failing(*[no_answer()] * hub.TRIES))


@pytest.mark.parametrize("code", [400, 401, 403, 404, 413, 422])
def test_what_will_not_pass_is_raised_at_once(waits: list[float], code: int) -> None:
    error = refusal(code)
    with pytest.raises(HfHubHTTPError) as caught:
        patiently(failing(error))
    assert caught.value is error
    assert waits == []


def test_mistakes_of_our_own_are_raised_at_once(waits: list[float]) -> None:
    for error in (ValueError("x"), InputError("y"), KeyError("z")):
        with pytest.raises(type(error)):
            patiently(failing(error))
    assert waits == []
