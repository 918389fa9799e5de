"""What the commands, and the functions behind them, can be told: each option is declared once, with its help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMATS = ("parquet", "webdataset")
VERIFICATION = "verification"
"""The folder of reports."""


def option(help: str, metavar: str | None = None, *, default: Any = None, name: str = "", after: str = "") -> Any:
    """A field that the command line has too: as ``name``, else as the field's own; listed in the help ``after`` one."""
    metadata = {"help": help, "metavar": metavar, "name": name, "after": after}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Where and how to build; nothing here changes the pixels."""

    out: Path
    """The dataset folder; where it is delivered elsewhere, the folder that it is made in, which is deleted then."""
    deliver_to: str | None = None
    """A URL that the files are sent to as they are written, instead of staying in ``out``."""
    formats: tuple[str, ...] = FORMATS
    perturbations: tuple[Path, ...] = ()
    """Assemble from these saved perturbations instead of crafting: one, or one for each method."""
    workers: int = 1
    cache: bool = True
    """Take crafts that were finished before from the cache folder, and keep new ones there."""
    source: str | None = option(
        "The clean images: hub:OWNER/NAME, digits, or a folder or file in any supported form. "
        "Default: the recipe's own source.",
        "WHERE",
    )
    device: str = option("Where noise is crafted. Default: a GPU if there is one.", "auto|cpu|cuda[:I]", default="auto")
    weights: Path | None = option(
        "Pretrained weights of methods that start from some, instead of a download. Default: $ULE_WEIGHTS.",
        "FILE|FOLDER",
    )
    executor: str = option(
        "Where they run: on this machine, or on a Ray cluster whose machines all see --out and --source. "
        "Never changes the result.",
        "local|ray",
        default="local",
    )
    scratch: Path | None = option("Where decoded images stand during the build. Default: within --out.", "DIR")
    skip_unusable: bool = option(
        "Leave out images that cannot be decoded, list them in left-out.txt, and go on. "
        "Default: name them and build nothing.",
        default=False,
    )
    overwrite: bool = option("Replace an older dataset in the same folder.", default=False)


@dataclass(frozen=True, kw_only=True)
class PublishOptions:
    """Where and what to publish; no images in any case where the source forbids to pass them on."""

    repo_id: str | None = option("Where to publish. Default: ule/NAME.", "OWNER/NAME", after="skip_unusable")
    private: bool = option("Make a new repository private.", default=False)
    revision: str | None = option("Publish on this branch. Default: main, and a tag for the version.")
    perturbation_only: bool = option("Publish no images: perturbation, recipe, digests and card.", default=False)


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """What to verify, and where and how."""

    folders: tuple[Path, ...] = ()
    """Dataset folders; none: the datasets that the claims speak of."""
    profile: str = option(
        "How much is trained: smoke (minutes on two CPU cores, shows a collapse), quick (a small network on all "
        "images, judges effects: recommended without a GPU), fast (a GPU, judges effects), paper (the printed "
        "protocol, judges numbers).",
        default="smoke",
    )
    claims: str | None = option("Run what these claims need, e.g. 'ops-t5-*'; several joined by commas.", "GLOB")
    claims_file: Path | None = option("A TOML file with claims of your own, besides the papers'.", "FILE")
    models: tuple[str, ...] = option(
        "Models to train on every dataset. ARCHITECTURE@DATA (e.g. resnet20@cifar10, "
        "resnet18@imagenet) starts from trained weights, as in BAIT. Default: resnet18's part.",
        "A,B",
        default=(),
    )
    strategies: tuple[str, ...] = option(
        "Training strategies, e.g. standard,mixup,linf-at. Default: the profile's.", "A,B", default=()
    )
    analyses: tuple[str, ...] = option(
        "shuffled, landscape, finetune (claims bring their own); relabelled: with classes put into groups.",
        "A,B",
        default=(),
    )
    num_seeds: int | None = option("Runs of each kind. Default: the profile's.", "N", name="--seeds")
    device: str = option("Where to train.", "auto|cpu|cuda[:i]", default="auto")
    workers: int | None = option("Runs at a time. Default: one per CPU; on a GPU one, more share it.")
    executor: str = option("Where runs go: processes here, or a Ray cluster.", "local|ray", default="local")
    gpus_per_run: float = option("With Ray on GPUs: what a run takes, e.g. 0.25.", "SHARE", default=1.0)
    threads: int = option("Of torch, for each run on a CPU.", "N", default=1)
    ranks: int = option("Processes, each on a GPU of its own, that share one run (large models).", "N", default=1)
    compiled: bool = option("Train through torch.compile.", default=False, name="--compile")
    dry_run: bool = option("Say what would be trained and how long it may take, and train nothing.", default=False)
    integrity_only: bool = option("Train nothing.", default=False)
    source: str | None = option(
        "The clean images, in any form that ule-build takes. Default: where the build took them from, "
        "else the recipe's own source.",
        "WHERE",
    )
    scratch: Path | None = option(
        "Where images are decoded to that are too many for memory. Default: in the cache folder.", "DIR"
    )
    weights: Path | None = option(
        "The weights that models start from, instead of a download; where runs go to other machines, "
        "a place that all of them see. Default: $ULE_WEIGHTS.",
        "FILE|FOLDER",
    )
    report: Path | None = option(
        "Where the report goes. Default: FOLDER/verification; ./verification for several datasets, "
        "./verification/NAME for one from the Hub.",
        "DIR",
    )

    @property
    def report_folder(self) -> Path:
        """Where the report goes."""
        return self.report or (self.folders[0] if len(self.folders) == 1 else Path()) / VERIFICATION
