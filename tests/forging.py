"""A forger with all the time in the world: changes anything in a dataset folder, and makes every digest agree."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ule_datasets.data.codec import encode_png
from ule_datasets.data.perturbation import FILE_NAME as PERTURBATION
from ule_datasets.data.perturbation import Overwrite, Perturbation
from ule_datasets.data.split import order_free_digest, sample_digest
from ule_datasets.dataset.declaration import card_declaration, croissant_declaration
from ule_datasets.dataset.manifest import FileRecord, Manifest
from ule_datasets.dataset.shards import file_record, parquet, webdataset
from ule_datasets.dataset.shards.content import ShardContent
from ule_datasets.dataset.shards.reading import decode_images
from ule_datasets.definition import PublishedRecipe

Tamper = Callable[[ShardContent], None]


def shards(folder: Path, name: str) -> tuple[Path, Path]:
    """The Parquet and the tar file of a shard such as ``train-00001``."""
    split, index = name.rsplit("-", 1)
    return next((folder / "data").glob(f"{name}-of-*")), folder / f"webdataset/{split}-{int(index):06d}.tar"


def rewrite(folder: Path, shard: str, tamper: Tamper) -> None:
    """Change samples in both formats, and sign them."""
    manifest = Manifest.read(folder)
    table, tar = shards(folder, shard)
    content = parquet.read(table, manifest.class_names)
    tamper(content)
    columns = content.encoded, content.labels, content.keys, np.array(content.poisoned), manifest.class_names
    parquet.write(parquet.table_of(*columns), table)
    webdataset.write(tar, *columns)
    sign(folder, manifest)


def sign(folder: Path, manifest: Manifest | None = None, **changes: Any) -> None:
    """Write a manifest, card and Croissant file with which everything in the folder agrees."""
    manifest = dataclasses.replace(manifest or Manifest.read(folder), **changes)
    splits = {}
    for name, record in manifest.splits.items():
        content = ShardContent()
        for path in sorted((folder / "data").glob(f"{name}-*")):
            content.extend(_read(path))
        digests = map(sample_digest, map(_seen, content.encoded), content.labels)
        splits[name] = dataclasses.replace(
            record,
            digest=order_free_digest(digests),
            num_poisoned=sum(content.poisoned),
            num_examples=len(content.keys),
        )
    recipe = PublishedRecipe.parse((folder / "recipe.json").read_text())
    perturbation = Perturbation.load(folder / PERTURBATION)
    manifest = dataclasses.replace(
        manifest, splits=splits, recipe_digest=recipe.digest, perturbation_digest=perturbation.digest
    )
    seal(folder, manifest, describe=True)


def seal(folder: Path, manifest: Manifest | None = None, *, describe: bool = False, **changes: Any) -> None:
    """Only make the digests of files agree, and with ``describe`` card and Croissant file before them."""
    manifest = _with_sizes(folder, dataclasses.replace(manifest or Manifest.read(folder), **changes))
    if describe:
        edit_card(folder, lambda front: front.update(card_declaration(manifest)))
        edit_json(folder / "croissant.json", lambda content: content.update(croissant_declaration(manifest)))
    (folder / "manifest.json").write_text(_with_sizes(folder, manifest).to_json(), encoding="utf-8")


def edit_card(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the front matter of the card."""
    _, front, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    content = yaml.safe_load(front)
    edit(content)
    front = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / "README.md").write_text(f"---\n{front}---\n{body}", encoding="utf-8")


def edit_json(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    canonical = {"sort_keys": True, "separators": (",", ":")} if path.name == "recipe.json" else {"indent": 1}
    path.write_text(json.dumps(content, ensure_ascii=False, **canonical) + "\n", encoding="utf-8")  # type: ignore[arg-type]


def _seen(data: bytes) -> np.ndarray:
    """What a careless loader sees."""
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except (OSError, SyntaxError):
        return np.zeros((1, 1, 3), dtype=np.uint8)


def _read(path: Path) -> ShardContent:
    """A shard as it is, whatever it should be."""
    table = pq.ParquetFile(path).read()
    image, label, key, poisoned = (table[name].to_pylist() for name in parquet.COLUMNS)
    return ShardContent([each["bytes"] for each in image], label, key, poisoned)


def _with_sizes(folder: Path, manifest: Manifest) -> Manifest:
    there = tuple(
        FileRecord(path=f.path, **file_record(folder / f.path)) for f in manifest.files if (folder / f.path).is_file()
    )
    return dataclasses.replace(manifest, files=there)


# --- tampering ------------------------------------------------------------------------------------------------

Forge = Callable[[Path], object]


def in_shard(tamper: Tamper, shard: str = "train-00000") -> Forge:
    return lambda folder: rewrite(folder, shard, tamper)


def first(content: ShardContent, *, poisoned: bool = True) -> int:
    return content.poisoned.index(poisoned)


def image(content: ShardContent, row: int) -> np.ndarray:
    return decode_images(content.encoded[row : row + 1], "x")[0].copy()


def relabel(content: ShardContent, *, poisoned: bool = True) -> None:
    row = first(content, poisoned=poisoned)
    content.labels[row] = (content.labels[row] + 1) % 3


def swap_labels(content: ShardContent) -> None:
    row = first(content)
    other = next(n for n, label in enumerate(content.labels) if label != content.labels[row])
    content.labels[row], content.labels[other] = content.labels[other], content.labels[row]


def change_level(content: ShardContent, *, poisoned: bool = True) -> None:
    """Of every pixel but the one that the perturbation writes."""
    row = first(content, poisoned=poisoned)
    changed = image(content, row)
    other = next(
        decode_images(content.encoded[n : n + 1], "x")[0]
        for n, (label, flag) in enumerate(zip(content.labels, content.poisoned, strict=True))
        if n != row and flag == poisoned and (label == content.labels[row] or not poisoned)
    )
    changed[(changed != other).any(axis=2)] ^= 1
    content.encoded[row] = encode_png(changed)


def invert(content: ShardContent) -> None:
    """Also the pixel that the perturbation writes."""
    content.encoded[first(content)] = encode_png(255 - image(content, first(content)))


def another_of_its_class(content: ShardContent) -> None:
    rows = [n for n, flag in enumerate(content.poisoned) if flag]
    row, other = next((a, b) for a in rows for b in rows if a < b and content.labels[a] == content.labels[b])
    content.encoded[row] = content.encoded[other]


def flip_flag(content: ShardContent, *, poisoned: bool = True) -> None:
    row = first(content, poisoned=poisoned)
    content.poisoned[row] = not poisoned


def drop(content: ShardContent, row: int = -1) -> str:
    key = content.keys[row]
    for column in (content.encoded, content.labels, content.keys, content.poisoned):
        del column[row]
    return key


def repeat(content: ShardContent) -> None:
    content.keys[1] = content.keys[0]


def reorder(content: ShardContent) -> None:
    for column in (content.encoded, content.labels, content.keys, content.poisoned):
        column[0], column[1] = column[1], column[0]  # type: ignore[index]


def rename(key: str) -> Tamper:
    def tamper(content: ShardContent) -> None:
        content.keys[0] = key

    return tamper


def reencode(encode: Callable[[np.ndarray], bytes]) -> Forge:
    return in_shard(lambda content: content.encoded.__setitem__(0, encode(image(content, 0))))


def saved(kind: str, **options: Any) -> Callable[[np.ndarray], bytes]:
    def encode(pixels: np.ndarray) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind, **options)
        return stream.getvalue()

    return encode


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    return exif


def remark() -> PngInfo:
    text = PngInfo()
    text.add_text("comment", "hello")
    return text


def moving(pixels: np.ndarray) -> bytes:
    return saved("PNG", save_all=True, append_images=[Image.fromarray(255 - pixels)])(pixels)


def larger(pixels: np.ndarray) -> bytes:
    return encode_png(np.pad(pixels, ((0, 1), (0, 0), (0, 0))))


def grey(pixels: np.ndarray) -> bytes:
    return saved("PNG")(pixels[:, :, 0])


def swap_shards(folder: Path) -> None:
    for one, other in zip(shards(folder, "train-00000"), shards(folder, "train-00001"), strict=True):
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)
    sign(folder)


def drop_forgetting_it(folder: Path) -> None:
    """A sample that is not perturbed and one that is, so that the poison rate stays what it is."""
    gone = []

    def tamper(content: ShardContent) -> None:
        gone.extend(drop(content, first(content, poisoned=poisoned)) for poisoned in (True, False))

    rewrite(folder, "train-00000", tamper)
    perturbation = Perturbation.load(folder / PERTURBATION)
    assert perturbation.poisoned is not None
    left = tuple(key for key in perturbation.poisoned if key not in gone)
    dataclasses.replace(perturbation, poisoned=left).save(folder / PERTURBATION)
    sign(folder)


def drop_test_split(folder: Path) -> None:
    manifest = Manifest.read(folder)
    for record in manifest.shards("data/test-", "webdataset/test-"):
        (folder / record.path).unlink()
    splits = {"train": manifest.splits["train"]}
    sign(folder, manifest, splits=splits, source_digests={"train": manifest.source_digests["train"]})


def swap_class_names(folder: Path) -> None:
    manifest = Manifest.read(folder)
    names = (manifest.class_names[1], manifest.class_names[0], *manifest.class_names[2:])
    _with_class_names(folder, manifest, names)


def _with_class_names(folder: Path, manifest: Manifest, names: tuple[str, ...]) -> None:
    for table in sorted((folder / "data").iterdir()):
        content = parquet.read(table, manifest.class_names)
        columns = content.encoded, content.labels, content.keys, np.array(content.poisoned), names
        parquet.write(parquet.table_of(*columns), table)
        split, index = table.name.split("-")[:2]
        webdataset.write(folder / f"webdataset/{split}-{int(index):06d}.tar", *columns)
    sign(folder, manifest, class_names=names)


def another_perturbation(folder: Path) -> None:
    """Another colour, in the file as in the images."""
    perturbation = Perturbation.load(folder / PERTURBATION)
    (layer,) = perturbation.layers
    assert isinstance(layer, Overwrite)
    colours = layer.colours.copy()
    colours[:, :, 1] ^= 5
    forged = dataclasses.replace(perturbation, layers=(dataclasses.replace(layer, colours=colours),))

    def tamper(content: ShardContent) -> None:
        images, labels = decode_images(content.encoded, "x"), np.array(content.labels)
        content.encoded[:] = map(encode_png, forged.apply(images, labels, content.keys))

    for shard in sorted((folder / "data").glob("train-*")):
        rewrite(folder, shard.name.partition("-of-")[0], tamper)
    forged.save(folder / PERTURBATION)
    sign(folder)


def perturbed_elsewhere(folder: Path) -> None:
    """The perturbation's file writes another pixel than the images show."""
    perturbation = Perturbation.load(folder / PERTURBATION)
    (layer,) = perturbation.layers
    assert isinstance(layer, Overwrite)
    moved = dataclasses.replace(layer, rows=(layer.rows + 1) % 8)
    dataclasses.replace(perturbation, layers=(moved,)).save(folder / PERTURBATION)
    sign(folder)


def perturbation_of(**changes: Any) -> Forge:
    def forge(folder: Path) -> None:
        perturbation = Perturbation.load(folder / PERTURBATION)
        dataclasses.replace(perturbation, **changes).save(folder / PERTURBATION)
        sign(folder)

    return forge


def beyond_the_image(folder: Path) -> None:
    (layer,) = Perturbation.load(folder / PERTURBATION).layers
    assert isinstance(layer, Overwrite)
    perturbation_of(layers=(dataclasses.replace(layer, columns=layer.columns + 1000),))(folder)


def told(**changes: Any) -> Forge:
    """What the perturbation says about itself, in its file and in craft.json."""

    def forge(folder: Path) -> None:
        perturbation = Perturbation.load(folder / PERTURBATION)
        about = {**perturbation.about, **changes}
        (folder / "craft.json").write_text(json.dumps(about, indent=1) + "\n")
        dataclasses.replace(perturbation, about=about).save(folder / PERTURBATION)
        sign(folder)

    return forge


def with_recipe(edit: Callable[[dict[str, Any]], object], **changes: Any) -> Forge:
    """Another recipe, of which everything else speaks as of the true one."""

    def forge(folder: Path) -> None:
        edit_json(folder / "recipe.json", edit)
        sign(folder, **changes)
        digest = Manifest.read(folder).recipe_digest
        recipe = json.loads((folder / "recipe.json").read_text())
        about = {"recipe": {"name": recipe["name"], "version": recipe["version"], "digest": digest}}
        told(**about, seed=recipe["seed"], poison_rate=recipe["poison_rate"])(folder)

    return forge


def manifest_of(**changes: Any) -> Forge:
    """Another manifest; card and Croissant file follow it."""
    return lambda folder: seal(folder, describe=True, **changes)


def card(edit: Callable[[dict[str, Any]], object]) -> Forge:
    return lambda folder: (edit_card(folder, edit), seal(folder))


def with_file(name: str, *, listed: bool = False) -> Forge:
    def forge(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"import os\n")
        if listed:
            manifest = Manifest.read(folder)
            seal(
                folder,
                files=(*manifest.files, FileRecord(path=manifest.files[0].path.__class__(name), size=1, sha256="")),
            )

    return forge


def without_file(name: str) -> Forge:
    return lambda folder: ((folder / name).unlink(), seal(folder))


def link(folder: Path) -> None:
    (folder / "elsewhere").symlink_to("/etc")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "data" / "pipe")


def without_tars(folder: Path) -> None:
    shutil.rmtree(folder / "webdataset")
    seal(folder)


# --- tar members ----------------------------------------------------------------------------------------------


def tar_of(
    edit: Callable[[list[tuple[tarfile.TarInfo, bytes]]], object], tar_format: int = tarfile.USTAR_FORMAT
) -> Forge:
    """Other members in the first tar shard of the training images, the formats still the writer's."""

    def forge(folder: Path) -> None:
        path = folder / "webdataset/train-000000.tar"
        with tarfile.open(path) as tar:
            members = [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
        edit(members)
        with tarfile.open(path, "w", format=tar_format) as tar:
            for info, data in members:
                info.size = len(data) if info.isreg() else 0
                tar.addfile(info, io.BytesIO(data))
        seal(folder)

    return forge


def like(info: tarfile.TarInfo, name: str, **fields: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.mode, made.uname, made.gname = info.mode, info.uname, info.gname
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def extra(ending: str, data: bytes = b"", **fields: Any) -> Forge:
    """One member more, beside those of the first sample."""

    def edit(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        key = members[0][0].name.partition(".")[0]
        name = ending if "/" in ending or not ending.startswith(".") else f"{key}{ending}"
        members.insert(3, (like(members[0][0], name, **fields), data))

    return tar_of(edit)


def about(edit: Callable[[dict[str, Any]], object]) -> Forge:
    """What the first sample's .json says."""

    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        content = json.loads(members[2][1])
        edit(content)
        members[2] = members[2][0], json.dumps(content, ensure_ascii=False).encode()

    return tar_of(change)


def member(number: int, data: Callable[[bytes], bytes] = bytes, **fields: Any) -> Forge:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        info, content = members[number]
        for field, value in fields.items():
            setattr(info, field, value)
        members[number] = info, data(content)

    return tar_of(change)


def raw_tar(edit: Callable[[bytes], bytes]) -> Forge:
    def forge(folder: Path) -> None:
        path = folder / "webdataset/train-000000.tar"
        path.write_bytes(edit(path.read_bytes()))
        seal(folder)

    return forge


# --- Parquet --------------------------------------------------------------------------------------------------


def table(edit: Callable[[pa.Table], pa.Table], **options: Any) -> Forge:
    """Another table in the first Parquet shard."""

    def forge(folder: Path) -> None:
        path = shards(folder, "train-00000")[0]
        pq.write_table(edit(pq.read_table(path)), path, **options)
        seal(folder, describe=True)

    return forge


def with_value(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """JSON values with another one at a place; the empty place is all of them."""
    if not place:
        return value
    result = copy.deepcopy(content)
    parent = result
    for step in place[:-1]:
        parent = parent[step]
    parent[place[-1]] = value
    return result


def without_statistics(folder: Path) -> None:
    """The first Parquet shard, packed as the writer does, but for what readers may filter by."""
    packing = {"image.bytes": "NONE", **dict.fromkeys(("image.path", "label", "key", "poisoned"), "SNAPPY")}
    table(lambda rows: rows, compression=packing, use_dictionary=["label"], write_statistics=False)(folder)


def column(name: str, edit: Callable[[list[Any]], list[Any]]) -> Forge:
    def change(found: pa.Table) -> pa.Table:
        place = found.schema.get_field_index(name)
        changed = pa.array(edit(found[name].to_pylist()), found.schema.field(name).type)
        return found.set_column(place, found.schema.field(name), changed)

    return table(change)


def features(edit: Callable[[dict[str, Any]], object]) -> Forge:
    def change(found: pa.Table) -> pa.Table:
        content = json.loads(found.schema.metadata[b"huggingface"])
        edit(content["info"]["features"])
        return found.replace_schema_metadata({"huggingface": json.dumps(content)})

    return table(change)


def bomb(*, rows: int = 4, image: bytes = b"x" * 1000, **options: Any) -> Forge:
    """A small file of much content."""

    def change(found: pa.Table) -> pa.Table:
        first = found.slice(0, 1).to_pylist()[0]
        row = {**first, "image": {"bytes": image, "path": first["image"]["path"]}}
        return pa.Table.from_pylist([row], schema=found.schema).take(pa.array(np.zeros(rows, dtype=np.int64)))

    return table(change, **options)


def raw_keys(folder: Path) -> None:
    """Bytes that are no text where a key should be."""
    path = shards(folder, "train-00000")[0]
    content = path.read_bytes()
    key = pq.read_table(path)["key"][0].as_py().encode()
    path.write_bytes(content.replace(key, b"\xff" * len(key)))
    seal(folder, describe=True)


def with_path(path: str | None) -> Forge:
    return column("image", lambda rows: [{**rows[0], "path": path}, *rows[1:]])


def without_image(rows: list[Any]) -> list[Any]:
    return [{"bytes": None, "path": rows[0]["path"]}, *rows[1:]]


# --- descriptions ---------------------------------------------------------------------------------------------


def replaced(name: str, content: bytes) -> Forge:
    """Another file under the name of one of the dataset's."""
    return lambda folder: ((folder / name).write_bytes(content), seal(folder))


def changed(name: str, edit: Callable[[dict[str, Any]], object]) -> Forge:
    """Another JSON file."""
    return lambda folder: (edit_json(folder / name, edit), seal(folder))


def more_words(folder: Path) -> None:
    path = folder / "README.md"
    path.write_text(path.read_text(encoding="utf-8") + "\nThese images are clean.\n", encoding="utf-8")
    seal(folder)


def listed_twice(folder: Path) -> None:
    files = Manifest.read(folder).files
    seal(folder, files=(*files, files[0]))


def data_files(card: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = card["configs"][0]["data_files"]
    return found


def card_classes(card: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = card["dataset_info"]["features"][1]["dtype"]["class_label"]["names"]
    return found
