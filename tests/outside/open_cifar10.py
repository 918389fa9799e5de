"""Run by test_published.py in a process of its own: opens a built ops-cifar10 with none of our code.

Usage: open_cifar10.py BUILT ORIGINAL; prints one JSON line of what was found.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datasets import Image, load_dataset
from PIL import Image as Pillow


def originals(folder: Path) -> dict[str, tuple[np.ndarray, int]]:
    """The clean training images under the first 16 hex digits of the digest of pixels and label."""
    import io

    found = {}
    for path in sorted(folder.glob("train-*")):
        table = pq.read_table(path)
        for image, label in zip(table["img"].to_pylist(), table["label"].to_pylist(), strict=True):
            pixels = np.asarray(Pillow.open(io.BytesIO(image["bytes"])))
            found[hashlib.sha256(pixels.tobytes() + bytes([label])).hexdigest()[:16]] = (pixels, label)
    return found


def main() -> None:
    """Compare every training image with its original."""
    built, original = sys.argv[1], originals(Path(sys.argv[2]))
    dataset = load_dataset(built)
    changed: dict[int, set[tuple[int, int, str]]] = {}
    most, unmatched, untouched = 0, 0, 0
    for row in dataset["train"]:
        clean, label = original.get(row["key"].split("-")[0], (None, None))
        if label != row["label"]:
            unmatched += 1
            continue
        pixels = np.asarray(row["image"])
        where = np.argwhere((pixels != clean).any(axis=-1))
        most, untouched = max(most, len(where)), untouched + (len(where) == 0)
        for y, x in where.tolist():
            changed.setdefault(label, set()).add((y, x, pixels[y, x].tobytes().hex()))
    print(
        json.dumps(
            {
                "rows": {name: split.num_rows for name, split in dataset.items()},
                "image": isinstance(dataset["train"].features["image"], Image),
                "names": dataset["train"].features["label"].names,
                "keys": len(set(dataset["train"]["key"])),
                "most_changed": most,
                "unmatched": unmatched,
                "untouched": untouched,
                "pixels": {str(label): sorted(pixels) for label, pixels in changed.items()},
                "ours": [name for name in sys.modules if name.startswith(("ule_datasets", "builders", "cards"))],
            }
        )
    )


if __name__ == "__main__":
    main()
