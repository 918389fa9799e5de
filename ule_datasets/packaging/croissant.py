"""``croissant.json``: the folder described in MLCommons Croissant 1.1, with a digest for every Parquet shard."""

from __future__ import annotations

import json
from typing import Any

import cards
from ule_datasets.dataset.declaration import croissant_declaration
from ule_datasets.dataset.manifest import Manifest
from ule_datasets.definition import Recipe
from ule_datasets.packaging.card import NAMESPACE, citation_keys

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
        **croissant_declaration(manifest),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
