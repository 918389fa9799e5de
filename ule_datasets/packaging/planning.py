"""What a build would do, said before anything is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ule_datasets.base.files import cache_folder
from ule_datasets.base.options import BuildOptions
from ule_datasets.base.shown import few
from ule_datasets.methods.method import Method, Repeats
from ule_datasets.packaging.crafting import CraftCache
from ule_datasets.packaging.folder import STAGING
from ule_datasets.recipe import Recipe
from ule_datasets.sources.look import Look


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildPlan:
    """What a build would do with these images, and where."""

    recipe: Recipe
    look: Look
    out: Path
    place: str
    """The folder, or the URL."""
    formats: tuple[str, ...]
    crafts: tuple[tuple[str, str], ...]
    """Of each method its title, and how its perturbation would be had."""
    finished: bool
    """The dataset is there already, and nothing would be done."""

    @classmethod
    def of(cls, recipe: Recipe, options: BuildOptions, look: Look, place: str, *, finished: bool) -> BuildPlan:
        """With how each perturbation would be had."""
        methods = zip(recipe.methods, recipe.craft_digests, strict=True)
        return cls(
            recipe=recipe,
            look=look,
            out=options.out,
            place=place,
            formats=options.formats,
            crafts=tuple((method.title, _how(method, digest, recipe, options)) for method, digest in methods),
            finished=finished,
        )

    @property
    def begun(self) -> bool:
        """Whether an interrupted build would be continued."""
        return not self.finished and (self.out / STAGING).exists()

    def lines(self) -> list[str]:
        """For people: the images, then what would be made of them."""
        told = f"{self.recipe.name} {self.recipe.version}"
        if self.finished:
            return [*self.look.lines(), f"plan: nothing; {self.place} already holds {told}"]
        reduced = f" [{self.recipe.reduced}]" if self.recipe.reduced else ""
        what = f"plan: {'continue' if self.begun else 'build'} {told}{reduced} in {self.place} ({few(self.formats)})"
        return [*self.look.lines(), what, *(f"plan: {title}: {how}" for title, how in self.crafts)]

    def content(self) -> dict[str, Any]:
        """For programs: JSON values."""
        return {
            "planned": True,
            "name": self.recipe.name,
            "version": self.recipe.version,
            "reduced": self.recipe.reduced,
            "recipe_digest": self.recipe.digest,
            "place": self.place,
            "formats": list(self.formats),
            "finished": self.finished,
            "begun": self.begun,
            "crafts": [{"method": title, "how": how} for title, how in self.crafts],
            "source": self.look.about(),
            "warnings": list(self.look.warnings()),
            "publication": None,
        }


def _how(method: Method, digest: str, recipe: Recipe, options: BuildOptions) -> str:
    """How the perturbation of a method would be had."""
    if options.perturbations:
        return "taken from what is given"
    if method.repeats == Repeats.EXACT:
        return "computed, which takes seconds to minutes"
    train = dict(recipe.source.digests or ()).get("train")
    known = options.cache and train is not None and recipe.limit_per_class is None
    if known and CraftCache(cache_folder()).path(digest, str(train)).exists():
        return "taken from an earlier craft (--no-cache crafts again)"
    on = {"auto": "a GPU if there is one, else the CPU"}.get(options.device, options.device)
    weights = "".join(f", from the weights {weights.name}" for weights in method.weights)
    kept = "" if known else ", unless an earlier craft is kept"
    return f"crafted on {on}{weights}{kept}; how long it takes is said once a few steps were timed"
