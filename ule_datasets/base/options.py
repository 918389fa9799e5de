"""What the commands, and the functions behind them, can be told: each option is declared once, with its help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ule_datasets.base.choices import (
    ANALYSES,
    DEVICES,
    EXECUTORS,
    PRECISIONS,
    PROFILES,
    RANDOM_MODELS,
    STRATEGIES,
    TRAINED_MODELS,
)

FORMATS = ("parquet", "webdataset")
VERIFICATION = "verification"
"""The folder of reports."""
REPLACED_VERIFICATION = "verification-of-replaced"
"""In a dataset folder: reports on datasets that stood there before, a folder for each of these."""
TRAINED, IMAGES, PLACE = "What is trained", "Images and formats", "Files and places"
HOW, PUBLISHING = "How it runs", "Publishing"
PANELS = ("", TRAINED, IMAGES, PLACE, HOW, PUBLISHING)
"""Under which headings help lists options, in this order."""


def option(
    help: str,
    metavar: str | None = None,
    *,
    default: Any = None,
    name: str = "",
    panel: str = "",
    rank: int = 1,
    choices: tuple[str, ...] = (),
    formerly: tuple[str, ...] = (),
) -> Any:
    """A field that the command line has too: as ``name``, else as the field's own.

    It is listed under the heading ``panel``, lower ranks before higher ones. ``choices`` are the words that it takes,
    for completion; ``formerly`` are other names by which it is known as well, and which nobody is told of.
    """
    about = {"help": help, "metavar": metavar, "name": name, "panel": panel, "rank": rank}
    return dataclasses.field(default=default, metadata={**about, "choices": choices, "formerly": formerly})


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """What every command can be told about what it tells."""

    json: bool = option("Print the result as JSON and nothing else (docs/reference/json.md).", default=False)
    quiet: bool = option("No progress, only the result.", default=False)
    debug: bool = option("Show tracebacks.", default=False, rank=2)
    version: bool = option("Show the version and stop.", default=False, rank=2)


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
        "[NAME=]WHERE",
        panel=PLACE,
        rank=0,
    )
    weights: Path | None = option(
        "Pretrained weights of methods that start from some, instead of a download. Default: $ULE_WEIGHTS.",
        "FILE|FOLDER",
        panel=PLACE,
    )
    release: Path | None = option(
        "What others have released, for recipes that import it: a file, or a folder of images.",
        "FILE|FOLDER",
        name="--import",
        panel=PLACE,
    )
    scratch: Path | None = option(
        "Where decoded images stand during the build. Default: within --out.", "DIR", panel=PLACE
    )
    device: str = option(
        "Where noise is crafted. Default: a GPU if there is one.", DEVICES, default="auto", panel=HOW, rank=0
    )
    executor: str = option(
        "Where the workers are: on this machine, or on a Ray cluster whose machines all see --out and --source. "
        "Never changes the result.",
        "local|ray",
        default="local",
        panel=HOW,
        choices=EXECUTORS,
    )
    overwrite: bool = option(
        f"Replace an older dataset in the same folder. Reports on it are kept, in {REPLACED_VERIFICATION}/.",
        default=False,
        panel=HOW,
    )
    skip_unusable: bool = option(
        "Leave out images that cannot be decoded, list them in left-out.txt, and go on. "
        "Default: name them and build nothing.",
        default=False,
        panel=IMAGES,
        rank=2,
    )


@dataclass(frozen=True, kw_only=True)
class PublishOptions:
    """Where and what to publish; no images in any case where the source forbids to pass them on."""

    repo_id: str | None = option("Where to publish. Default: ule/NAME.", "OWNER/NAME", panel=PUBLISHING)
    private: bool = option("Make a new repository private.", default=False, panel=PUBLISHING)
    revision: str | None = option(
        "Publish on this branch. Default: main, and a tag for the version.", "BRANCH", panel=PUBLISHING
    )
    perturbation_only: bool = option(
        "Publish no images: perturbation, recipe, digests and card.", default=False, panel=PUBLISHING
    )

    def only_publishing(self) -> str | None:
        """The first of these options that was given; ``None``: none was."""
        for field in dataclasses.fields(PublishOptions):
            if getattr(self, field.name) != field.default:
                return f"--{field.name.replace('_', '-')}"
        return None


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """What to verify, and where and how."""

    folders: tuple[Path, ...] = ()
    """Dataset folders; none: the datasets that the claims speak of."""
    integrity_only: bool = option("Train nothing.", default=False)
    profile: str = option(
        "How much is trained: smoke (minutes on two CPU cores, shows a collapse), quick (a small network on all "
        "images, judges effects: recommended without a GPU), fast (a GPU, judges effects), paper (the printed "
        "protocol, judges numbers).",
        "|".join(PROFILES),
        default="smoke",
        panel=TRAINED,
        choices=PROFILES,
    )
    claims: tuple[str, ...] = option(
        "Run what these claims need, e.g. 'ops-t5-*'; several joined by commas, or one by one.",
        "GLOB",
        default=(),
        panel=TRAINED,
    )
    claims_file: Path | None = option(
        "A TOML file with claims of your own, besides the papers'.", "FILE", panel=TRAINED
    )
    models: tuple[str, ...] = option(
        f"Models to train on every dataset. From random weights: {', '.join(RANDOM_MODELS)}. From trained ones, "
        f"fine-tuned as in BAIT: {', '.join(TRAINED_MODELS)}. Default: resnet18, or what stands for it in the profile.",
        "A,B",
        default=(),
        panel=TRAINED,
        choices=(*RANDOM_MODELS, *TRAINED_MODELS),
        formerly=("--victims",),
    )
    strategies: tuple[str, ...] = option(
        f"Training strategies: {', '.join(STRATEGIES)}; the number of "
        "l2-at-eps0.5 is its radius, and parts are joined by '+', as in cutout+mixup. Default: the profile's.",
        "A,B",
        default=(),
        panel=TRAINED,
        choices=STRATEGIES,
    )
    analyses: tuple[str, ...] = option(
        f"{', '.join(ANALYSES)} (with classes put into groups). Claims bring their own.",
        "A,B",
        default=(),
        panel=TRAINED,
        choices=ANALYSES,
    )
    num_seeds: int | None = option("Runs of each kind. Default: the profile's.", "N", name="--seeds", panel=TRAINED)
    compiled: bool = option("Train through torch.compile.", default=False, name="--compile", panel=TRAINED)
    source: list[str] | None = option(
        "The clean images, in any form that ule-build takes. Where several sources are needed, once for each with its "
        "name: cifar10=WHERE. Default: where the build took them from, else the recipe's own source.",
        "[NAME=]WHERE",
        panel=PLACE,
        rank=0,
    )
    report: Path | None = option(
        "Where the report goes. Default: FOLDER/verification; ./verification for several datasets, "
        "./verification/NAME for one from the Hub.",
        "DIR",
        panel=PLACE,
    )
    weights: Path | None = option(
        "The weights that models start from, instead of a download; where runs go to other machines, "
        "a place that all of them see. Default: $ULE_WEIGHTS.",
        "FILE|FOLDER",
        panel=PLACE,
    )
    scratch: Path | None = option(
        "Where images are decoded to that are too many for memory. Default: in the cache folder.", "DIR", panel=PLACE
    )
    device: str = option("Where to train. Default: a GPU if there is one.", DEVICES, default="auto", panel=HOW, rank=0)
    workers: int | None = option(
        "Runs at a time. Default: one per CPU; on a GPU one, more share it.", "N", panel=HOW, rank=0
    )
    executor: str = option(
        "Where the workers are: on this machine, or on a Ray cluster. Never changes the result.",
        "local|ray",
        default="local",
        panel=HOW,
        choices=EXECUTORS,
    )
    gpus_per_run: float = option("With Ray on GPUs: what a run takes, e.g. 0.25.", "SHARE", default=1.0, panel=HOW)
    precision: str | None = option(
        "Of convolutions and matrix products, where the profile leaves it to the machine (quick), so that machines "
        "train alike. Default: what is faster here.",
        "|".join(PRECISIONS),
        panel=HOW,
        choices=PRECISIONS,
    )
    threads: int = option("Of torch, for each run on a CPU.", "N", default=1, panel=HOW)
    ranks: int = option(
        "Processes, each on a GPU of its own, that share one run (large models).", "N", default=1, panel=HOW
    )

    @property
    def report_folder(self) -> Path:
        """Where the report goes."""
        return self.report or (self.folders[0] if len(self.folders) == 1 else Path()) / VERIFICATION
