"""``python -m cards.looks FOLDER ...``: how visible the perturbations of built datasets are, and what they cost.

Writes ``cards/looks/NAME.json`` for the leaderboard; no number there is typed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]

import ule_datasets
from builders import RECIPES
from ule_datasets.base.errors import InputError
from ule_datasets.dataset.manifest import Manifest

FOLDER = Path(__file__).parent / "looks"
IMAGES = 1000
"""The first perturbed training images of a dataset, in its order, which is a fixed random one."""
SIGMA, RADIUS, K1, K2 = 1.5, 5, 0.01, 0.03
"""Of structural similarity: the window, and the two constants, as in Wang et al., IEEE TIP 2004."""


def main(arguments: list[str]) -> None:
    """Look at each folder."""
    FOLDER.mkdir(exist_ok=True)
    for folder in arguments:
        found = look(Path(folder))
        path = FOLDER / f"{found['dataset']}.json"
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{found['dataset']}: PSNR {found['psnr']:.1f} dB, SSIM {found['ssim']:.4f}")


def look(folder: Path) -> dict[str, Any]:
    """Mean PSNR (dB) and SSIM of perturbed images against their clean originals, and the seconds of the craft.

    Raises:
        InputError: the folder is not a dataset that the catalogue's recipe makes, or its clean images are not there.
    """
    manifest = Manifest.read(folder)
    name = str(manifest.name)
    if name not in RECIPES or RECIPES[name].digest != manifest.recipe_digest:
        raise InputError(f"{folder} holds {name}, which is not what the catalogue's recipe of this name makes")
    change = ule_datasets.load_perturbation(folder)
    rows = np.flatnonzero(change.difference.any(axis=(1, 2, 3)))[:IMAGES]
    poisoned = ule_datasets.load(folder).tensors()[0].numpy()[rows].astype(np.float64)
    clean = poisoned - change.difference[rows]
    return {
        "dataset": name,
        "version": manifest.version,
        "perturbation_digest": manifest.perturbation_digest,
        "images": len(rows),
        "psnr": float(psnr(clean, poisoned).mean()),
        "ssim": float(ssim(clean, poisoned).mean()),
        "lpips": None,
        "craft_seconds": manifest.timings["craft"],
        "craft_device": _device(manifest),
    }


def _device(manifest: Manifest) -> str | None:
    """Where noise was crafted, if that took a model; the last place, if it went on elsewhere."""
    places = [place for craft in manifest.craft for place in craft["environments"]]
    return str(places[-1]["device"]) if places else None


def psnr(clean: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each image: float64 [N, H, W, 3] in 0 .. 255, twice, to dB [N]."""
    return np.asarray(10 * np.log10(255**2 / ((clean - other) ** 2).mean(axis=(1, 2, 3))))


def ssim(clean: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Structural similarity of each image, the mean over pixels and channels: float64 [N, H, W, 3] twice, to [N].

    Windows are Gaussian, 11 x 11; at the borders images are mirrored.
    """

    def local(values: np.ndarray) -> np.ndarray:
        return np.asarray(gaussian_filter(values, SIGMA, axes=(1, 2), radius=RADIUS))

    c1, c2 = (K1 * 255) ** 2, (K2 * 255) ** 2
    mean, mean2 = local(clean), local(other)
    variance, variance2 = local(clean**2) - mean**2, local(other**2) - mean2**2
    covariance = local(clean * other) - mean * mean2
    likeness = (2 * mean * mean2 + c1) * (2 * covariance + c2)
    return np.asarray((likeness / ((mean**2 + mean2**2 + c1) * (variance + variance2 + c2))).mean(axis=(1, 2, 3)))


if __name__ == "__main__":
    main(sys.argv[1:])
