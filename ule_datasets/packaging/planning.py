"""What a build would do, said before anything is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ule_datasets.base.files import cache_folder
from ule_datasets.base.options import BuildOptions
from ule_datasets.base.shown import counted, few
from ule_datasets.definition import Recipe
from ule_datasets.methods.method import Method, Repeats
from ule_datasets.models.weights import Weights, at_hand
from ule_datasets.packaging.crafting import CraftCache, check_amount, rounds_kept
from ule_datasets.packaging.folder import STAGING
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
        """With how each perturbation would be had.

        Raises:
            InputError: a method would refuse so few images, or weights that it starts from are not to be had.
        """
        checking = not (finished or options.perturbations or look.refusal)
        if checking:
            _check_amount(recipe, look)
        crafts = []
        for index, (method, digest) in enumerate(zip(recipe.methods, recipe.craft_digests, strict=True)):
            how, weights = _how(method, index, digest, recipe, options)
            for one in weights if checking else ():
                at_hand(one, options.weights)
            crafts.append((method.title, how))
        return cls(
            recipe=recipe,
            look=look,
            out=options.out,
            place=place,
            formats=options.formats,
            crafts=tuple(crafts),
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


def _check_amount(recipe: Recipe, look: Look) -> None:
    """Refuse too few images as the build would: it has no more of them than these."""
    classes = look.classes.get("train")
    if classes is None:
        return
    limit = recipe.limit_per_class
    num_images = sum(count if limit is None else min(count, limit) for count in classes.values())
    check_amount(recipe, num_images)


def _how(
    method: Method, index: int, digest: str, recipe: Recipe, options: BuildOptions
) -> tuple[str, Sequence[Weights]]:
    """How the perturbation of a method would be had, and the weights that are needed for that."""
    if options.perturbations:
        return "taken from what is given", ()
    if method.repeats == Repeats.EXACT:
        return "computed, which takes seconds to minutes", method.weights
    train = recipe.source.known_digests.get("train")
    known = options.cache and train is not None and recipe.limit_per_class is None
    if known and CraftCache(cache_folder()).path(digest, str(train)).exists():
        return "taken from an earlier craft (--no-cache crafts again)", ()
    on = {"auto": "a GPU if there is one, else the CPU"}.get(options.device, options.device)
    weights = "".join(f", from the weights {weights.name}" for weights in method.weights)
    kept = "" if known else ", unless an earlier craft is kept"
    rounds = None if options.overwrite else rounds_kept(options.out / STAGING, index, digest)
    if rounds is not None:
        done = counted(rounds, getattr(method, "round_name", "round"))
        how = f"continued after {done} on {on}{weights}{kept}; how long the rest takes"
    else:
        how = f"crafted on {on}{weights}{kept}; how long it takes"
    return f"{how} is said once a few steps were timed", method.weights
