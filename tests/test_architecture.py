"""Imports point one way, and the cheap entry points stay cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ule_datasets

ROOT = Path(ule_datasets.__file__).parent
LAYERS = (
    ("version", "errors", "files"),
    (
        "seeds",
        "spool",
        "split",
        "progress",
        "precision",
        "executor",
        "ray_executor",
        "launch",
        "images",
        "checkpoint",
        "quantization",
        "hub",
        "remote",
        "claims",
    ),
    ("recipe", "perturbation", "devices", "weights"),
    ("sources", "models", "augmentation", "countermeasures", "shards", "cache", "separability", "verdicts"),
    ("protocol", "profiles"),
    ("training",),
    ("analyses", "effect", "runs"),
    ("crafting",),
    ("methods",),
    ("manifest", "figures"),
    ("perturb", "fetch", "delivery"),
    ("folder", "card", "croissant", "loading", "integrity"),
    ("grid", "studies", "judging", "subjects", "plots", "report"),
    ("build", "verify", "publish"),
    ("cli",),
)
"""A module imports from its own layer and those above it."""


def imported_modules(path: Path) -> set[str]:
    """First-level modules of ule_datasets that a file imports when it runs (not for type checking)."""
    found = set()
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in typing_only:
            module = node.module or ""
            if module == "ule_datasets":
                found |= {alias.name for alias in node.names if (ROOT / f"{alias.name}.py").exists()}
            elif module.startswith("ule_datasets."):
                found.add(module.split(".")[1])
            elif module.split(".")[0] == "builders":
                found.add("builders")
    return found


def layer_of(module: str) -> int:
    return next(index for index, layer in enumerate(LAYERS) if module in layer)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_from_its_own_layer_and_above(path: Path) -> None:
    relative = path.relative_to(ROOT)
    module = relative.parts[0].removesuffix(".py")
    if module == "__init__":
        return
    for imported in imported_modules(path):
        if imported == "builders":
            assert module == "cli", f"only the command line may import builders, not {relative}"
        else:
            assert layer_of(imported) <= layer_of(module), f"{relative} imports {imported}"


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_neither_torch_nor_pyarrow() -> None:
    assert not {"torch", "pyarrow", "numpy", "datasets"} & modules_after("import ule_datasets")


def test_help_and_list_import_neither_torch_nor_pyarrow() -> None:
    heavy = {"torch", "torchvision", "pyarrow", "sklearn", "datasets", "PIL", "huggingface_hub"}
    for argument in ("--help", "--list"):
        loaded = modules_after(f"from ule_datasets.cli.build import main; main(['{argument}'])")
        assert not heavy & loaded, argument


def test_building_and_integrity_import_no_torch_and_nothing_imports_torchvision() -> None:
    assert "torch" not in modules_after("import ule_datasets.build, ule_datasets.dataset.integrity")
    everything = modules_after("import ule_datasets.dataset.loading, ule_datasets.verify, ule_datasets.victims.loop")
    assert "torch" in everything
    assert "torchvision" not in everything
