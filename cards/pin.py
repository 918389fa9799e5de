"""``python -m cards.pin FOLDER``: note the digests of a source, from a dataset that was made of its official files.

From then on that source is recognised by them in every form. Recipes keep their digests.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ule_datasets.base.errors import InputError
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.definition import PublishedRecipe
from ule_datasets.sources.known import KNOWN
from ule_datasets.sources.reading import READERS
from ule_datasets.sources.spec import PINS, SourceSpec, pinned


def main(arguments: list[str]) -> None:
    """Pin the source of each dataset folder."""
    for folder in arguments:
        print(f"pinned {pin(Path(folder), KNOWN)}")


def pin(folder: Path, known: dict[str, SourceSpec], pins: Path = PINS) -> str:
    """Write the digests of the source of a dataset to ``pins``; returns its name.

    Raises:
        InputError: the source has digests, or the dataset was not made from all of its official files.
    """
    manifest, recipe = Manifest.read(folder), PublishedRecipe.read(folder)
    spec = known.get(manifest.source_name)
    if spec is None or not spec.unpinned:
        raise InputError(f"{manifest.source_name} is no source whose digests are missing")
    if recipe.source.sums != spec.sums or recipe.limit_per_class is not None or "left_out" in manifest.source_about:
        raise InputError(f"{folder} was made from other images than all of {spec.title}")
    kind = str(manifest.look.get("form", "an unknown form"))
    if kind not in {reader.kind for reader in READERS.values() if reader.of == spec.name}:
        raise InputError(f"{folder} was made from {kind}; only official files, by their md5, tell what {spec.title} is")
    found = {**pinned(), spec.name: dict(sorted(manifest.source_digests.items(), reverse=True))}
    pins.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    pinned.cache_clear()
    return spec.name


if __name__ == "__main__":
    main(sys.argv[1:])
