"""A perturbation is the same whether crafted at once, joined from parts, continued, or found in the cache."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from helpers import Listening, class_names, make_images, make_recipe

from ule_datasets.base.checkpoint import State
from ule_datasets.base.errors import InputError
from ule_datasets.compute.executor import Executor
from ule_datasets.compute.processes import LocalExecutor
from ule_datasets.data.bounds import L0, Budget, LInf
from ule_datasets.data.perturbation import Additive, Perturbation, Support
from ule_datasets.data.split import Split, sample_digest
from ule_datasets.definition import Recipe
from ule_datasets.methods.engine.settings import SurrogateSettings
from ule_datasets.methods.error_minimizing import ErrorMinimizing
from ule_datasets.methods.method import Context, Crafted, Method
from ule_datasets.methods.one_pixel_shortcut import OnePixelShortcut, Upload
from ule_datasets.packaging.crafting import CraftCache, Workshop, clear_checkpoints, craft, join
from ule_datasets.sources.own_images import OWN_IMAGES
from ule_datasets.sources.reading import Source

NUM_CLASSES = 3
PIXEL = OnePixelShortcut()
NOISE = ErrorMinimizing(
    surrogate=SurrogateSettings(model="convnet3-w16", batch_size=8), num_steps=2, steps_per_round=2, max_rounds=1
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shade(Method):
    """Adds the same to every pixel; stands for a method that is slow and repeats on one device only."""

    identifier: ClassVar[str] = "shade"
    title: ClassVar[str] = "Shade"
    citation: ClassVar[str] = "nobody"
    repeats: ClassVar[str] = "device"
    crafted: ClassVar[list[str]] = []
    """The digest of the images of every call."""

    level: int = 3

    def generate(self, train: Split, context: Context) -> Crafted:
        self.crafted.append(train.digest)
        levels = np.full((1, *train.images.shape[1:]), self.level + context.seed.value, dtype=np.int8)
        notes = {"environments": [{"device": "Abacus 3000"}], "level": self.level}
        return Crafted(layers=(Additive(levels=levels, support=Support.UNIVERSAL),), notes=notes)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactShade(Shade):
    """The same bits anywhere."""

    repeats: ClassVar[str] = "exact"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    Shade.crafted.clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_source(*, seed: int = 0, per_class: int = 5) -> Source:
    images, labels = make_images(NUM_CLASSES, per_class, 8, seed=seed)
    digests = [sample_digest(image, label) for image, label in zip(images, labels.tolist(), strict=True)]
    train = Split.from_samples("train", images, labels, digests)
    return Source(OWN_IMAGES, "/their/images", "parquet", class_names(NUM_CLASSES), {"train": train})


SOURCE = make_source()


def bounds(methods: Sequence[Method]) -> Budget:
    budget: list[LInf | L0] = []
    for method in methods:
        noisy = isinstance(method, OnePixelShortcut) and method.upload is Upload.NOISY
        budget += [LInf(levels=8)] if noisy or not isinstance(method, OnePixelShortcut) else []
        budget += [L0(pixels=1)] if isinstance(method, OnePixelShortcut) else []
    return tuple(budget)


def recipe(*methods: Method, name: str = "tiny", **fields: Any) -> Recipe:
    return make_recipe(name, methods=methods, **{"budget": bounds(methods), **fields})


def workshop(
    *, warnings: list[str] | None = None, said: list[str] | None = None, cache: CraftCache | None = None, **fields: Any
) -> Workshop:
    return Workshop(reporter=Listening(warnings, said), cache=cache, **fields)


def made(which: Recipe, source: Source = SOURCE, **where: Any) -> Perturbation:
    return craft(which, source, workshop(**where))


def saved(perturbation: Perturbation, folder: Path) -> Perturbation:
    """The perturbation after a journey through a file."""
    path = folder / f"{perturbation.digest}.safetensors"
    perturbation.save(path)
    return Perturbation.load(path)


def identifiers(perturbation: Perturbation) -> list[str]:
    return [record["identifier"] for record in perturbation.about["methods"]]


# --- crafting --------------------------------------------------------------------------------------------------


def test_the_layers_of_all_methods_stand_in_the_recipes_order() -> None:
    noisy = OnePixelShortcut(upload=Upload.NOISY)
    for methods, expected in (
        ((NOISE, PIXEL), ["additive", "overwrite"]),
        ((PIXEL, NOISE), ["overwrite", "additive"]),
        ((noisy, NOISE), ["additive", "overwrite", "additive"]),
    ):
        perturbation = made(recipe(*methods))
        assert [type(layer).__name__.lower() for layer in perturbation.layers] == expected
        assert identifiers(perturbation) == [method.identifier for method in methods]
        assert [r["num_layers"] for r in perturbation.about["methods"]] == [len(bounds([m])) for m in methods]


def test_a_perturbation_says_what_it_was_made_of() -> None:
    which = recipe(NOISE, PIXEL, seed=4)
    perturbation = made(which)
    about = json.loads(json.dumps(perturbation.about, allow_nan=False))
    assert perturbation.source_digest == SOURCE.train.digest
    assert about["recipe"] == {"name": "tiny", "version": "1.0.0", "digest": which.digest}
    assert (about["seed"], about["poison_rate"]) == (4, 1.0)
    assert about["budget"] == ["l_inf 8/255", "l_0 1 pixel"]
    noise, pixel = about["methods"]
    assert [record["craft_digest"] for record in (noise, pixel)] == list(which.craft_digests)
    assert [record["repeats"] for record in (noise, pixel)] == ["device", "exact"]
    assert noise["notes"]["rounds"] == 1


def test_seed_executor_and_device_reach_the_method() -> None:
    seen: list[tuple[int, int, Executor, str]] = []

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Watching(Shade):
        def generate(self, train: Split, context: Context) -> Crafted:
            seen.append((context.num_classes, context.seed.value, context.executor, context.device))
            return Shade.generate(self, train, context)

    with LocalExecutor(5) as executor:
        made(recipe(Watching(), seed=3), executor=executor, device="cpu")
        assert seen == [(NUM_CLASSES, 3, executor, "cpu")]


def test_as_many_bounds_as_layers_are_required() -> None:
    with pytest.raises(InputError, match="recipe tiny: 1 bounds in budget for 2 layers"):
        made(recipe(Shade(), PIXEL, budget=(LInf(levels=8),)))


def test_a_poison_rate_below_one_names_its_images() -> None:
    perturbation = made(recipe(Shade(), poison_rate=0.4))
    assert perturbation.poisoned is not None
    assert len(set(perturbation.poisoned)) == 6
    assert set(perturbation.poisoned) < set(SOURCE.train.keys)
    assert made(recipe(Shade())).poisoned is None


# --- joining ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poison_rate", [1.0, 0.5])
@pytest.mark.parametrize("methods", [(NOISE, PIXEL), (PIXEL, NOISE)], ids=["noise-first", "pixel-first"])
def test_joining_saved_parts_in_any_order_equals_crafting_at_once(
    tmp_path: Path, methods: tuple[Method, Method], poison_rate: float
) -> None:
    whole = made(recipe(*methods, poison_rate=poison_rate))
    parts = [saved(made(recipe(m, name=f"part{i}", poison_rate=poison_rate)), tmp_path) for i, m in enumerate(methods)]
    for given in (parts, parts[::-1]):
        joined = join(recipe(*methods, poison_rate=poison_rate), given, SOURCE)
        assert joined.digest == whole.digest
        assert joined.poisoned == whole.poisoned
        assert json.loads(json.dumps(joined.about)) == json.loads(json.dumps(whole.about))
        assert identifiers(joined) == [method.identifier for method in methods]
    images = SOURCE.train.images, SOURCE.train.labels, SOURCE.train.keys
    assert np.array_equal(joined.apply(*images), whole.apply(*images))
    assert not np.array_equal(joined.apply(*images), SOURCE.train.images)


def test_a_part_with_several_layers_and_one_that_holds_several_methods_are_joined(tmp_path: Path) -> None:
    noisy = OnePixelShortcut(upload=Upload.NOISY)
    methods = (Shade(level=1), noisy, Shade(level=2))
    whole = made(recipe(*methods))
    assert len(whole.layers) == 4
    ends, middle = saved(made(recipe(methods[2], methods[0])), tmp_path), saved(made(recipe(noisy)), tmp_path)
    for given in ([ends, middle], [middle, ends]):
        assert join(recipe(*methods), given, SOURCE).digest == whole.digest


def test_one_complete_perturbation_is_taken_as_it_is(tmp_path: Path) -> None:
    whole = saved(made(recipe(NOISE, PIXEL)), tmp_path)
    joined = join(recipe(NOISE, PIXEL), [whole], SOURCE)
    assert joined.digest == whole.digest
    assert joined.about == whole.about


def test_methods_in_another_order_are_brought_into_the_recipes(tmp_path: Path) -> None:
    turned = saved(made(recipe(PIXEL, NOISE)), tmp_path)
    joined = join(recipe(NOISE, PIXEL), [turned], SOURCE)
    assert joined.digest == made(recipe(NOISE, PIXEL)).digest != turned.digest


def test_joining_crafts_nothing(tmp_path: Path) -> None:
    part = saved(made(recipe(Shade())), tmp_path)
    Shade.crafted.clear()
    join(recipe(Shade()), [part], SOURCE)
    assert Shade.crafted == []


def test_a_perturbation_for_other_images_is_refused() -> None:
    other = make_source(seed=1)
    parts = [made(recipe(Shade())), made(recipe(PIXEL), other)]
    message = rf"training images with digest {other.train.digest}, /their/images has {SOURCE.train.digest}"
    with pytest.raises(InputError, match=message):
        join(recipe(Shade(), PIXEL), parts, SOURCE)


OTHERS = {
    "other settings": (recipe(Shade(level=4)), recipe(PIXEL)),
    "another seed": (recipe(Shade()), recipe(PIXEL, seed=1)),
    "a trial": (recipe(Shade()).as_trial(2), recipe(PIXEL)),
    "one missing": (recipe(Shade()),),
    "one too many": (recipe(Shade()), recipe(PIXEL), recipe(Shade(level=4))),
    "one twice": (recipe(Shade()), recipe(PIXEL), recipe(Shade())),
    "one twice, one missing": (recipe(Shade()), recipe(Shade())),
    "nothing": (),
}


@pytest.mark.parametrize("parts", OTHERS.values(), ids=OTHERS)
def test_parts_that_are_not_the_recipes_methods_each_once_are_refused(parts: tuple[Recipe, ...]) -> None:
    message = r"other methods or settings than tiny's \(Shade \+ One-Pixel Shortcut\)"
    with pytest.raises(InputError, match=message):
        join(recipe(Shade(), PIXEL), [made(part) for part in parts], SOURCE)


def test_who_made_the_parts_is_named() -> None:
    parts = [made(recipe(Shade(level=1), name="one")), made(recipe(PIXEL, name="two"))]
    anonymous = dataclasses.replace(parts[1], about={})
    for given, expected in ((parts, "one and two"), ([parts[0], anonymous], "one and something else")):
        with pytest.raises(InputError, match=f"this perturbation was made by {expected}: other methods"):
            join(recipe(Shade(), PIXEL), given, SOURCE)


@pytest.mark.parametrize(
    "methods",
    [["ops"], [{"identifier": "ops"}], [{"identifier": "ops", "num_layers": 1}], [{"craft_digest": "0", "notes": {}}]],
)
def test_a_perturbation_that_does_not_say_which_layers_are_whose_is_refused(methods: list[Any]) -> None:
    stranger = dataclasses.replace(made(recipe(PIXEL)), about={"methods": methods})
    with pytest.raises(InputError, match="this perturbation was made by something else: other methods or settings"):
        join(recipe(PIXEL), [stranger], SOURCE)


def test_layers_that_no_method_claims_are_refused() -> None:
    whole = made(recipe(Shade(), PIXEL))
    partly = dataclasses.replace(whole, about={**whole.about, "methods": whole.about["methods"][:1]})
    with pytest.raises(InputError, match="this perturbation was made by tiny: other methods or settings"):
        join(recipe(Shade()), [partly], SOURCE)


@pytest.mark.parametrize("rates", [(1.0, 0.5), (0.5, 1.0), (0.5, 0.6)])
def test_a_perturbation_of_another_poison_rate_is_refused(rates: tuple[float, float]) -> None:
    wanted, given = rates
    parts = [made(recipe(Shade(), poison_rate=wanted)), made(recipe(PIXEL, poison_rate=given))]
    with pytest.raises(InputError, match="poisons other images than tiny does: another poison rate"):
        join(recipe(Shade(), PIXEL, poison_rate=wanted), parts, SOURCE)


# --- the cache -------------------------------------------------------------------------------------------------


def test_a_craft_is_made_once_and_then_taken_from_the_cache(tmp_path: Path) -> None:
    cache, said = CraftCache(tmp_path / "cache"), list[str]()
    first = made(recipe(Shade(), PIXEL), cache=cache, said=said)
    assert (len(Shade.crafted), said) == (1, [])
    again = made(recipe(Shade(), PIXEL), cache=cache, said=said)
    assert len(Shade.crafted) == 1
    assert again.digest == first.digest
    assert again.about == first.about
    (line,) = said
    assert line.startswith(f"Shade: crafted before on Abacus 3000, taken from {cache.folder} (--no-cache")


def test_noise_from_the_cache_is_what_was_crafted(tmp_path: Path) -> None:
    cache, said = CraftCache(tmp_path / "cache"), list[str]()
    first, again = (made(recipe(NOISE, PIXEL), cache=cache, said=said) for _ in range(2))
    assert again.digest == first.digest == made(recipe(NOISE, PIXEL)).digest
    assert again.about == first.about
    assert sum("crafted before" in line for line in said) == 1


def test_recipes_that_share_a_method_share_its_craft(tmp_path: Path) -> None:
    cache = CraftCache(tmp_path / "cache")
    made(recipe(Shade(), name="one"), cache=cache)
    made(recipe(PIXEL, Shade(), name="two", poison_rate=0.5, version="2.0.0"), cache=cache)
    assert len(Shade.crafted) == 1


def test_everything_that_changes_the_layers_is_crafted_anew(tmp_path: Path) -> None:
    cache = CraftCache(tmp_path / "cache")
    variants = [recipe(Shade()), recipe(Shade(level=4)), recipe(Shade(), seed=1), recipe(Shade()).as_trial(2)]
    digests = [made(variant, cache=cache).digest for variant in variants]
    assert len(Shade.crafted) == 4
    made(variants[0], make_source(seed=1), cache=cache)
    assert len(Shade.crafted) == 5
    assert [made(variant, cache=cache).digest for variant in variants] == digests
    assert len(Shade.crafted) == 5


def test_exact_methods_are_always_crafted_and_never_kept(tmp_path: Path) -> None:
    cache = CraftCache(tmp_path / "cache")
    for _ in range(2):
        made(recipe(ExactShade(), PIXEL), cache=cache)
    assert len(Shade.crafted) == 2
    assert not cache.folder.exists()


def test_without_a_cache_everything_is_crafted(tmp_path: Path) -> None:
    made(recipe(Shade()), cache=CraftCache(tmp_path / "cache"))
    for _ in range(2):
        made(recipe(Shade()), cache=None)
    assert len(Shade.crafted) == 3


def test_a_damaged_craft_in_the_cache_is_made_again_and_replaced(tmp_path: Path) -> None:
    cache = CraftCache(tmp_path / "cache")
    reference = made(recipe(Shade()), cache=cache)
    (path,) = cache.folder.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    for calls in (2, 2):
        assert made(recipe(Shade()), cache=cache).digest == reference.digest
        assert len(Shade.crafted) == calls


def test_a_cache_that_cannot_be_written_to_costs_a_warning_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache, warnings = CraftCache(tmp_path / "file" / "cache"), list[str]()
    perturbation = made(recipe(Shade()), cache=cache, warnings=warnings)
    assert perturbation.digest == made(recipe(Shade())).digest
    assert warnings == [f"the craft is not kept for later: {cache.folder}: Not a directory"]


def test_a_cache_that_can_only_be_read_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = CraftCache(tmp_path / "cache")
    reference = made(recipe(Shade()), cache=cache)

    def refuse(self: Path, *arguments: Any, **options: Any) -> None:
        raise OSError(30, "Read-only file system", str(self))

    for writing in ("touch", "unlink", "write_bytes", "mkdir"):
        monkeypatch.setattr(Path, writing, refuse)
    assert made(recipe(Shade()), cache=cache).digest == reference.digest
    assert len(Shade.crafted) == 1


# --- checkpoints -----------------------------------------------------------------------------------------------


class Interrupted(Exception):  # noqa: N818
    """Stands for Ctrl-C, which would end pytest itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patient(Shade):
    """Needs three calls, each of which is interrupted after one step."""

    def generate(self, train: Split, context: Context) -> Crafted:
        state = context.checkpoint.load()
        done = 1 + (state.facts["done"] if state else 0)
        context.checkpoint.save(State(arrays={}, facts={"done": done}))
        if done < 3:
            raise Interrupted
        return Shade.generate(self, train, context)


def interrupted(which: Recipe, source: Source = SOURCE, **where: Any) -> None:
    with pytest.raises(Interrupted):
        made(which, source, **where)


def test_an_interrupted_craft_continues_where_it_was(tmp_path: Path) -> None:
    for _ in range(2):
        interrupted(recipe(PIXEL, Patient()), checkpoints=tmp_path)
    assert made(recipe(PIXEL, Patient()), checkpoints=tmp_path).digest == made(recipe(PIXEL, Shade())).digest


def test_without_a_folder_for_checkpoints_it_starts_again(tmp_path: Path) -> None:
    for _ in range(4):
        interrupted(recipe(Patient()))
    assert list(tmp_path.iterdir()) == []


def test_the_state_of_another_craft_is_not_continued(tmp_path: Path) -> None:
    def steps_done(which: Recipe, source: Source = SOURCE) -> int:
        interrupted(recipe(Patient()), checkpoints=tmp_path)
        interrupted(recipe(Patient()), checkpoints=tmp_path)
        try:
            made(which, source, checkpoints=tmp_path)
        except Interrupted:
            clear_checkpoints(recipe(Patient()), workshop(checkpoints=tmp_path))
            return 1
        return 3

    assert steps_done(recipe(Patient(), seed=1)) == 1
    assert steps_done(recipe(Patient(level=9))) == 1
    assert steps_done(recipe(Patient()), make_source(seed=1)) == 1
    assert steps_done(recipe(Patient(), name="another-name")) == 3


def test_two_methods_of_a_recipe_do_not_share_their_state(tmp_path: Path) -> None:
    both = recipe(Patient(), Patient(level=5))
    for _ in range(4):
        interrupted(both, checkpoints=tmp_path)
    continued = made(both, checkpoints=tmp_path)
    assert continued.digest == made(recipe(Shade(), Shade(level=5))).digest
    assert len(list(tmp_path.iterdir())) == 2


def test_clearing_deletes_what_an_interrupted_craft_left(tmp_path: Path) -> None:
    both = recipe(PIXEL, Patient())
    interrupted(both, checkpoints=tmp_path)
    (tmp_path / ".craft-1.safetensors.77.partial").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    assert (tmp_path / "craft-1.safetensors").exists()
    clear_checkpoints(both, workshop(checkpoints=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    clear_checkpoints(both, workshop())
