"""Layers apply exactly, in order; files come back as they were; budgets are checked on final bytes."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ule_datasets.base.errors import InputError
from ule_datasets.data.bounds import L0, L2, Budget, LInf, Unbounded
from ule_datasets.data.perturbation import (
    NOWHERE,
    Additive,
    Layer,
    Overwrite,
    Perturbation,
    Support,
)
from ule_datasets.data.split import share_of

KEYS = tuple(f"{n:016x}" for n in range(12))


def images_and_labels(seed: int = 0, shape: tuple[int, int, int] = (3, 4, 3)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (len(KEYS), *shape), dtype=np.uint8), rng.integers(0, 3, len(KEYS))


def additive(seed: int = 0, bound: int = 8, keys: tuple[str, ...] = KEYS) -> Additive:
    rng = np.random.default_rng(seed)
    levels = rng.integers(-bound, bound + 1, (len(keys), 3, 4, 3)).astype(np.int8)
    return Additive(levels=levels, support=Support.SAMPLE, keys=keys)


def class_pixel(num_pixels: int = 1) -> Overwrite:
    rows = np.array([[0], [2], [1]], dtype=np.int32).repeat(num_pixels, axis=1)
    columns = np.arange(num_pixels, dtype=np.int32)[None].repeat(3, axis=0)
    colours = np.array([[255, 0, 255], [0, 0, 0], [255] * 3], dtype=np.uint8)[:, None].repeat(num_pixels, axis=1)
    return Overwrite(rows=rows, columns=columns, colours=colours, support=Support.CLASS)


def cluster_wise(members: tuple[int, ...] = (2, 0, 1, 1, 0, 2, 2, 0), kind: type = np.int64) -> Additive:
    """Three entries for the first eight samples; the others belong to no cluster."""
    levels = np.random.default_rng(3).integers(-16, 17, (3, 3, 4, 3)).astype(np.int8)
    return Additive(
        levels=levels, support=Support.CLUSTER, keys=KEYS[: len(members)], members=np.array(members, dtype=kind)
    )


def perturbation(*layers: Layer, poisoned: tuple[str, ...] | None = None) -> Perturbation:
    return Perturbation(layers=layers, source_digest="0" * 64, poisoned=poisoned, about={"seed": 0})


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 127))
def test_additive_is_clipped_integer_addition(seed: int, bound: int) -> None:
    images, labels = images_and_labels(seed)
    layer = additive(seed, bound)
    result = perturbation(layer).apply(images, labels, KEYS)
    expected = np.clip(images.astype(int) + layer.levels, 0, 255)
    assert result.dtype == np.uint8
    assert np.array_equal(result, expected)


def test_class_wise_overwrite_writes_the_pixel_of_the_label_and_nothing_else() -> None:
    images, labels = images_and_labels()
    layer = class_pixel()
    result = perturbation(layer).apply(images, labels, KEYS)
    for index, label in enumerate(labels):
        expected = images[index].copy()
        expected[layer.rows[label, 0], layer.columns[label, 0]] = layer.colours[label, 0]
        assert np.array_equal(result[index], expected)


def test_the_clean_images_are_never_changed_in_place() -> None:
    images, labels = images_and_labels()
    before = images.copy()
    perturbation(additive(), class_pixel()).apply(images, labels, KEYS)
    assert np.array_equal(images, before)


def test_layers_apply_in_order_so_an_overwritten_pixel_is_exact_on_top_of_noise() -> None:
    images, labels = images_and_labels()
    noise, pixel = additive(), class_pixel()
    result = perturbation(noise, pixel).apply(images, labels, KEYS)
    at = result[np.arange(len(KEYS)), pixel.rows[labels, 0], pixel.columns[labels, 0]]
    assert np.array_equal(at, pixel.colours[labels, 0])
    other = perturbation(pixel, noise).apply(images, labels, KEYS)
    assert not np.array_equal(result, other)


def test_sample_wise_layers_follow_the_key_not_the_position() -> None:
    images, labels = images_and_labels()
    whole = perturbation(additive()).apply(images, labels, KEYS)
    order = np.random.default_rng(1).permutation(len(KEYS))
    shuffled = perturbation(additive()).apply(images[order], labels[order], [KEYS[i] for i in order])
    assert np.array_equal(shuffled, whole[order])


def test_samples_without_an_entry_and_samples_outside_the_poisoned_subset_stay_clean() -> None:
    images, labels = images_and_labels()
    some = additive(keys=KEYS[:5])
    result = perturbation(some).apply(images, labels, KEYS)
    assert np.array_equal(result[5:], images[5:])
    assert not np.array_equal(result[:5], images[:5])
    subset = perturbation(class_pixel(), poisoned=KEYS[:3])
    assert subset.is_poisoned(KEYS).tolist() == [True] * 3 + [False] * 9
    assert np.array_equal(subset.apply(images, labels, KEYS)[3:], images[3:])


def test_a_universal_layer_changes_every_image_alike_and_nowhere_means_nothing() -> None:
    images, labels = images_and_labels()
    layer = Additive(levels=np.full((1, 3, 4, 3), 5, dtype=np.int16), support=Support.UNIVERSAL)
    assert np.array_equal(perturbation(layer).apply(images, labels, KEYS), np.minimum(images.astype(int) + 5, 255))
    nowhere = class_pixel()
    nowhere.rows[:] = NOWHERE
    assert np.array_equal(perturbation(nowhere).apply(images, labels, KEYS), images)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_cluster_wise_layers_find_the_entry_by_the_sample_s_key(kind: type) -> None:
    images, labels = images_and_labels()
    layer = cluster_wise(kind=kind)
    assert layer.members is not None
    result = perturbation(layer).apply(images, labels, KEYS)
    expected = np.clip(images[:8].astype(int) + layer.levels[layer.members], 0, 255)
    assert np.array_equal(result[:8], expected)
    assert np.array_equal(result[8:], images[8:]), "samples of no cluster are left alone"
    order = np.random.default_rng(1).permutation(len(KEYS))
    shuffled = perturbation(layer).apply(images[order], labels[order], [KEYS[i] for i in order])
    assert np.array_equal(shuffled, result[order])
    assert np.array_equal(perturbation(layer).apply(images, labels[::-1], KEYS), result), "labels play no part"
    some = perturbation(layer, poisoned=KEYS[1:3]).apply(images, labels, KEYS)
    assert np.array_equal(some[1:3], result[1:3])
    assert np.array_equal(np.delete(some, [1, 2], axis=0), np.delete(images, [1, 2], axis=0))


def test_the_part_of_a_cluster_wise_layer_keeps_its_entries_and_only_the_needed_samples() -> None:
    images, labels = images_and_labels()
    whole = perturbation(cluster_wise())
    part, none = whole.parts([KEYS[6:10], KEYS[8:]])
    (layer,) = part.layers
    assert isinstance(layer, Additive)
    assert layer.members is not None
    assert (layer.keys, layer.members.tolist(), len(layer.levels)) == (KEYS[6:8], [2, 0], 3)
    assert np.array_equal(part.apply(images[6:10], labels[6:10], KEYS[6:10]), whole.apply(images, labels, KEYS)[6:10])
    assert np.array_equal(none.apply(images[8:], labels[8:], KEYS[8:]), images[8:])


@pytest.mark.parametrize(
    "layer", [cluster_wise(), cluster_wise(kind=np.int32), cluster_wise(())], ids=["int64", "int32", "of nobody"]
)
def test_a_saved_cluster_wise_layer_comes_back_with_its_digest(tmp_path: Path, layer: Additive) -> None:
    original = perturbation(layer, class_pixel())
    original.save(tmp_path / "p.safetensors")
    loaded = Perturbation.load(tmp_path / "p.safetensors")
    assert loaded.digest == original.digest
    images, labels = images_and_labels()
    assert np.array_equal(loaded.apply(images, labels, KEYS), original.apply(images, labels, KEYS))


def test_the_digest_depends_on_who_is_in_which_cluster() -> None:
    layers = [cluster_wise(), cluster_wise((0, 0, 1, 1, 0, 2, 2, 0)), cluster_wise((2, 0, 1, 1, 0, 2, 2))]
    assert len({perturbation(layer).digest for layer in layers}) == 3


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        (None, "members are int32 or int64 .N., one for each key, not none|8 keys for 3 entries"),
        (np.zeros(8), "not float64 .8."),
        (np.zeros((8, 1), dtype=np.int64), "not int64 .8, 1."),
        (np.full(8, 3), "members are in 0 .. 2, not 3 .. 3"),
        (np.arange(-1, 7), "members are in 0 .. 2, not -1 .. 6"),
        (np.zeros(7, dtype=np.int64), "7 distinct keys, not 8|8 keys for 7 entries"),
    ],
)
def test_damaged_members_are_refused(tmp_path: Path, members: np.ndarray | None, complaint: str) -> None:
    fields = {"levels": cluster_wise().levels, "support": Support.CLUSTER, "keys": KEYS[:8]}
    with pytest.raises(InputError, match=complaint):
        Additive(**fields, members=members)  # type: ignore[arg-type]
    damaged = cluster_wise()
    object.__setattr__(damaged, "members", members)
    perturbation(damaged).save(tmp_path / "p.safetensors")
    with pytest.raises(InputError, match=complaint):
        Perturbation.load(tmp_path / "p.safetensors")


def test_only_cluster_wise_noise_has_members() -> None:
    with pytest.raises(InputError, match="sample layer: only a cluster layer has members"):
        Additive(levels=additive().levels, support=Support.SAMPLE, keys=KEYS, members=np.zeros(12, dtype=np.int64))
    pixel = class_pixel()
    with pytest.raises(InputError, match="support is cluster, must be sample, class or universal"):
        Overwrite(rows=pixel.rows, columns=pixel.columns, colours=pixel.colours, support=Support.CLUSTER)


def test_perturbations_made_before_there_were_clusters_keep_their_digest() -> None:
    levels = (np.arange(12 * 36) % 17 - 8).reshape(12, 3, 4, 3).astype(np.int8)
    noise = Additive(levels=levels, support=Support.SAMPLE, keys=KEYS)
    golden = perturbation(noise, class_pixel(2), poisoned=KEYS[:3])
    assert golden.digest == "a49773e6bb57f51ea45d22f704ca31b2802a704a7cdc56765787184d8181de95"


def test_the_part_for_some_samples_gives_the_same_pixels() -> None:
    images, labels = images_and_labels()
    whole = perturbation(additive(), class_pixel(), poisoned=KEYS[2:9])
    [part] = whole.parts([KEYS[4:11]])
    expected = whole.apply(images, labels, KEYS)[4:11]
    assert np.array_equal(part.apply(images[4:11], labels[4:11], KEYS[4:11]), expected)
    assert len(part.layers[0].keys) == 7


@pytest.mark.parametrize("poisoned", [None, KEYS[1:4], ()])
def test_a_saved_perturbation_comes_back_with_its_digest(tmp_path: Path, poisoned: tuple[str, ...] | None) -> None:
    original = perturbation(additive(), class_pixel(2), poisoned=poisoned)
    original.save(tmp_path / "p.safetensors")
    loaded = Perturbation.load(tmp_path / "p.safetensors")
    assert loaded.digest == original.digest
    assert loaded.poisoned == original.poisoned
    assert loaded.about == original.about
    images, labels = images_and_labels()
    assert np.array_equal(loaded.apply(images, labels, KEYS), original.apply(images, labels, KEYS))


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        perturbation(additive(), class_pixel()).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_digest_depends_on_content_order_and_subset_but_not_on_provenance() -> None:
    base = perturbation(additive(), class_pixel())
    others = [
        perturbation(class_pixel(), additive()),
        perturbation(additive(1), class_pixel()),
        perturbation(additive(), class_pixel(), poisoned=KEYS[:2]),
        Perturbation(layers=base.layers, source_digest="1" * 64),
    ]
    assert len({base.digest, *(other.digest for other in others)}) == 5
    assert Perturbation(layers=base.layers, source_digest=base.source_digest, about={"x": 1}).digest == base.digest


@pytest.mark.parametrize("damage", ["truncate", "flip", "pickle", "empty"])
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "p.safetensors"
    perturbation(additive()).save(path)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
    replacements = {"truncate": content[:-10], "flip": content, "pickle": b"\x80\x04N.", "empty": b""}
    path.write_bytes(replacements[damage])
    with pytest.raises(InputError, match="not an intact perturbation file"):
        Perturbation.load(path)


def test_safetensors_of_others_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3)}, tmp_path / "p.safetensors", metadata={"ule": json.dumps({"format": 99})})
    with pytest.raises(InputError, match="this version reads format 1"):
        Perturbation.load(tmp_path / "p.safetensors")
    with pytest.raises(InputError, match="not an intact perturbation file"):
        Perturbation.load(tmp_path / "absent.safetensors")


def exceeding(clean: np.ndarray, final: np.ndarray, which: Perturbation, budget: Budget) -> list[int]:
    _, labels = images_and_labels()
    return which.exceeding(clean, final, labels, KEYS, budget)


def test_budget_bounds_noise_and_pixels_separately() -> None:
    images, labels = images_and_labels()
    both = perturbation(additive(), class_pixel())
    final = both.apply(images, labels, KEYS)
    budget = (LInf(levels=8), L0(pixels=1))
    assert exceeding(images, final, both, budget) == []
    assert exceeding(images, final, both, (LInf(levels=7), L0(pixels=1))) != []
    spoiled = final.copy()
    row, column = 2, 3  # no class's pixel
    spoiled[4, row, column] = np.where(images[4, row, column] > 100, images[4, row, column] - 9, 255)
    assert exceeding(images, spoiled, both, budget) == [4]


def test_budget_finds_a_pixel_that_no_layer_may_write() -> None:
    images, labels = images_and_labels()
    pixel = perturbation(class_pixel())
    final = pixel.apply(images, labels, KEYS)
    assert exceeding(images, final, pixel, (L0(pixels=1),)) == []
    final[7, 2, 3, 1] ^= 1
    assert exceeding(images, final, pixel, (L0(pixels=1),)) == [7]


def test_budget_counts_pixels_of_an_overwriting_layer() -> None:
    images, labels = images_and_labels()
    two = perturbation(class_pixel(2))
    final = two.apply(images, labels, KEYS)
    assert exceeding(images, final, two, (L0(pixels=2),)) == []
    assert len(exceeding(images, final, two, (L0(pixels=1),))) > 0
    with pytest.raises(InputError, match="1 bounds for 2 layers"):
        exceeding(images, final, perturbation(additive(), class_pixel()), (L0(pixels=1),))


def test_every_additive_layer_is_held_against_what_it_made_of_the_images_before_it() -> None:
    images, labels = images_and_labels()
    three = perturbation(additive(0, 8), class_pixel(), additive(1, 20))
    final = three.apply(images, labels, KEYS)
    pixel = L0(pixels=1)
    assert exceeding(images, final, three, (LInf(levels=8), pixel, LInf(levels=20))) == []
    assert exceeding(images, final, three, (LInf(levels=8), pixel, Unbounded())) == []
    assert exceeding(images, final, three, (LInf(levels=8), pixel, L2(levels=20 * 36**0.5))) == []
    assert exceeding(images, final, three, (LInf(levels=7), pixel, Unbounded())) != []
    assert exceeding(images, final, three, (LInf(levels=8), pixel, LInf(levels=19))) != []
    spoiled = final.copy()
    spoiled[4, 2, 3] = np.where(images[4, 2, 3] > 100, 0, 255)  # no class's pixel
    assert exceeding(images, spoiled, three, (LInf(levels=8), pixel, LInf(levels=20))) == [4]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 20), st.integers(1, 3), st.booleans())
def test_layers_that_keep_their_bounds_make_images_that_do(seed: int, bound: int, num_pixels: int, first: bool) -> None:
    images, labels = images_and_labels(seed)
    pairs: list[tuple[Layer, LInf | L0]] = [(additive(seed, bound), LInf(levels=bound))]
    pairs.insert(0 if first else 1, (class_pixel(num_pixels), L0(pixels=num_pixels)))
    both = perturbation(*(layer for layer, _ in pairs))
    final = both.apply(images, labels, KEYS)
    assert both.exceeding(images, final, labels, KEYS, tuple(limit for _, limit in pairs)) == []


def test_two_pixels_in_one_place_count_once() -> None:
    images, labels = images_and_labels()
    twice = class_pixel(2)
    twice.columns[:] = 0
    final = perturbation(twice).apply(images, labels, KEYS)
    assert exceeding(images, final, perturbation(twice), (L0(pixels=1),)) == []


def test_wrong_shapes_dtypes_and_keys_are_refused() -> None:
    images, labels = images_and_labels(shape=(4, 4, 3))
    with pytest.raises(InputError, match="made for images of shape"):
        perturbation(additive()).apply(images, labels, KEYS)
    with pytest.raises(InputError, match="int8 or int16"):
        Additive(levels=np.zeros((1, 2, 2, 3)), support=Support.UNIVERSAL)
    with pytest.raises(InputError, match="12 distinct keys, not 3"):
        Additive(levels=additive().levels, support=Support.SAMPLE, keys=KEYS[:3])
    with pytest.raises(InputError, match="overwrite layer"):
        Overwrite(
            rows=np.zeros((2, 1)),
            columns=np.zeros((2, 2)),
            colours=np.zeros((2, 1, 3), dtype=np.uint8),
            support=Support.CLASS,
        )


@given(st.integers(0, 1000), st.integers(0, 100))
def test_shares_follow_decimal_arithmetic(count: int, percent: int) -> None:
    assert share_of(percent / 100, count) == percent * count // 100
