"""``python -m cards.render [--out DIR] [NAME ...]``: the cards of the catalogue, without building anything.

What only a build can know (digests, figures, how a craft went) is said to be missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from builders import RECIPES
from ule_datasets.base.errors import InputError
from ule_datasets.base.names import DatasetName
from ule_datasets.base.options import FORMATS
from ule_datasets.data.perturbation import Perturbation
from ule_datasets.data.split import share_of
from ule_datasets.dataset.manifest import Manifest, SplitRecord
from ule_datasets.definition import Recipe
from ule_datasets.packaging.card import write_card

UNKNOWN = "(known once it is built)"


def main(arguments: list[str] | None = None) -> None:
    """Write DIR/NAME.md for every name, or for the whole catalogue."""
    options = argparse.ArgumentParser(prog="python -m cards.render", description="Render cards without building.")
    options.add_argument("names", nargs="*", metavar="NAME")
    options.add_argument("--out", type=Path, default=Path("rendered-cards"), metavar="DIR")
    chosen = options.parse_args(arguments)
    unknown = sorted(set(chosen.names) - set(RECIPES))
    if unknown:
        raise InputError(f"no recipe {unknown[0]!r}; known: {', '.join(RECIPES)}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in chosen.names or RECIPES:
        (chosen.out / f"{name}.md").write_text(preview(RECIPES[name]), encoding="utf-8")
    print(f"{len(chosen.names or RECIPES)} cards in {chosen.out}")


def preview(recipe: Recipe) -> str:
    """A card as far as the recipe alone determines it."""
    poisoned = {"train": share_of(recipe.poison_rate, recipe.num_images.get("train", 0))}
    manifest = Manifest(
        name=DatasetName(recipe.name),
        version=recipe.version,
        reduced=recipe.reduced,
        recipe_digest=recipe.digest,
        source_name=recipe.source.name,
        source_digests=recipe.source.known_digests,
        source_about={},
        perturbation_digest=UNKNOWN,
        craft=(),
        class_names=recipe.source.class_names or (),
        image_shape=(0, 0, 3),
        formats=FORMATS,
        splits={
            name: SplitRecord(num_examples=count, num_poisoned=poisoned.get(name, 0), digest=UNKNOWN, num_bytes=0)
            for name, count in recipe.num_images.items()
        },
        files=(),
        environment={},
        timings={},
    )
    nothing = Perturbation(layers=(), source_digest=UNKNOWN, about={"methods": []})
    return write_card(recipe, manifest, nothing, ())


if __name__ == "__main__":
    main()
