"""``croissant.json``: the folder described in MLCommons Croissant 1.1, with a digest for every Parquet shard."""

from __future__ import annotations

import json
from typing import Any

import cards
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.packaging.card import NAMESPACE, citation_keys
from ule_datasets.recipe import Recipe

_TERMS = """
arrayShape citeAs column containedIn equivalentProperty extract field fileObject fileProperty fileSet format includes
isArray isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace samplingRate
separator source subField transform
"""
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{term: f"cr:{term}" for term in _TERMS.split()},
}
"""The vocabulary of Croissant 1.1."""


def croissant_json(recipe: Recipe, manifest: Manifest) -> str:
    """Croissant metadata of a folder; record sets for every shard of the Parquet form."""
    shards = manifest.shards("data/")
    content: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": recipe.name,
        "description": recipe.summary,
        "license": recipe.source.licence.hub_id,
        "url": f"https://huggingface.co/datasets/{NAMESPACE}/{recipe.name}",
        "version": recipe.version,
        "creator": {"@type": "Organization", "name": "The ule-datasets authors"},
        "citeAs": "\n".join(cards.citation(key) for key in citation_keys(recipe)),
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
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


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
