"""What card and Croissant file of a dataset tell loaders: where the samples are, and of what columns and classes.

It follows from the manifest alone, so that a description which points elsewhere is known as such.
"""

from __future__ import annotations

from typing import Any

from ule_datasets.data.perturbation import Perturbation
from ule_datasets.dataset.manifest import Manifest


def card_declaration(manifest: Manifest) -> dict[str, Any]:
    """``configs`` and ``dataset_info`` of the card's front matter; empty for a dataset without Parquet shards.

    Only Parquet is declared: one repository has one file format for ``load_dataset``. ``dataset_info`` is left out
    where the shards are not known yet.
    """
    if "parquet" not in manifest.formats:
        return {}
    data_files = [{"split": name, "path": f"data/{name}-*"} for name in manifest.splits]
    configs = {"configs": [{"config_name": "default", "data_files": data_files}]}
    if not manifest.files:
        return configs
    names = {str(number): name for number, name in enumerate(manifest.class_names)}
    info = {
        "features": [
            {"name": "image", "dtype": "image"},
            {"name": "label", "dtype": {"class_label": {"names": names}}},
            {"name": "key", "dtype": "string"},
            {"name": "poisoned", "dtype": "bool"},
        ],
        "splits": [
            {"name": name, "num_bytes": split.num_bytes, "num_examples": split.num_examples}
            for name, split in manifest.splits.items()
        ],
        "download_size": manifest.download_size,
        "dataset_size": sum(split.num_bytes for split in manifest.splits.values()),
    }
    return {**configs, "dataset_info": info}


def croissant_declaration(manifest: Manifest) -> dict[str, Any]:
    """``distribution`` and ``recordSet`` of ``croissant.json``: every Parquet shard with its digest and columns."""
    shards = manifest.shards("data/")
    return {
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file.path,
                "name": file.path,
                "contentUrl": file.path,
                "contentSize": f"{file.size} B",
                "encodingFormat": "application/x-parquet",
                "sha256": file.sha256,
            }
            for file in shards
        ],
        "recordSet": [_classes(manifest), *(_records(file.path) for file in shards)] if shards else [],
    }


def craft_declaration(perturbation: Perturbation) -> tuple[dict[str, Any], ...]:
    """``craft`` of the manifest: what each method's layers depend on."""
    kept = ("identifier", "repeats", "craft_digest")
    return tuple(
        {
            **{name: record[name] for name in kept},
            "environments": record["notes"].get("environments", []),
            **{name: record["notes"][name] for name in ("imported",) if name in record["notes"]},
        }
        for record in perturbation.about["methods"]
    )


def _classes(manifest: Manifest) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/label"},
        "field": [
            {"@type": "cr:Field", "@id": "classes/label", "name": "label", "dataType": "cr:Int64"},
            {"@type": "cr:Field", "@id": "classes/name", "name": "name", "dataType": "sc:Text"},
        ],
        "data": [{"classes/label": n, "classes/name": name} for n, name in enumerate(manifest.class_names)],
    }


def _records(path: str) -> dict[str, Any]:
    """The samples of one shard (Croissant has no union of files of one split without a glob)."""
    name = path.removeprefix("data/").removesuffix(".parquet")
    image = _field(path, name, "image", "sc:ImageObject")
    image["source"]["transform"] = {"jsonPath": "bytes"}
    label = {**_field(path, name, "label", "cr:Int64"), "references": {"field": {"@id": "classes/label"}}}
    others = _field(path, name, "key", "sc:Text"), _field(path, name, "poisoned", "sc:Boolean")
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": [image, label, *others]}


def _field(path: str, record_set: str, column: str, data_type: str) -> dict[str, Any]:
    source = {"fileObject": {"@id": path}, "extract": {"column": column}}
    identity = f"{record_set}/{column}"
    return {"@type": "cr:Field", "@id": identity, "name": column, "dataType": data_type, "source": source}
