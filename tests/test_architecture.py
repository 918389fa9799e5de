"""Imports point one way, in every room and between all modules, and the cheap entry points stay cheap."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import ule_datasets

ROOT = Path(ule_datasets.__file__).parent
ROOMS = (
    "__main__",
    "cli",
    "interface",
    "verifying",
    "building",
    "verification",
    "analyses",
    "experiments",
    "packaging",
    "dataset",
    "definition",
    "methods",
    "countermeasures",
    "victims",
    "models",
    "imports",
    "sources",
    "papers",
    "data",
    "compute",
    "places",
    "base",
)
"""A module imports from its own room and from those below it; typing imports count like others."""
MODULES = {
    ".".join(("ule_datasets", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


def imported_modules(module: str) -> set[str]:
    """Modules of ule_datasets, and the package builders, that a module names in an import anywhere."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else str(node.module) for name in names}
    return {name for name in found if name in MODULES or name.partition(".")[0] == "builders"} - {module}


def room_of(module: str) -> str:
    return module.split(".")[1]


def test_every_module_is_in_a_room() -> None:
    assert {room_of(module) for module in MODULES if module != "ule_datasets"} == set(ROOMS)


@pytest.mark.parametrize("module", [module for module in MODULES if module != "ule_datasets"])
def test_a_module_imports_only_from_its_own_room_and_those_below(module: str) -> None:
    for imported in imported_modules(module):
        if imported.partition(".")[0] == "builders":
            assert room_of(module) in ("cli", "interface"), f"only what people call may import builders, not {module}"
        elif imported != "ule_datasets":
            assert ROOMS.index(room_of(imported)) >= ROOMS.index(room_of(module)), f"{module} imports {imported}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    imports = {module: imported_modules(module) for module in MODULES if module != "ule_datasets"}
    for module, names in imports.items():  # a package's module may import its siblings
        names.difference_update({"ule_datasets", *(name for name in names if module.startswith(f"{name}."))})
    tuple(graphlib.TopologicalSorter(imports).static_order())


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_imports_neither_torch_nor_pyarrow() -> None:
    assert not {"torch", "pyarrow", "numpy", "datasets"} & modules_after("import ule_datasets")


def test_help_and_list_import_neither_torch_nor_pyarrow() -> None:
    heavy = {"torch", "torchvision", "pyarrow", "sklearn", "datasets", "PIL", "huggingface_hub", "tqdm"}
    for argument in ("--help", "--list"):
        loaded = modules_after(f"from ule_datasets.cli.build import main; main(['{argument}'])")
        assert not heavy & loaded, argument


def test_help_loads_little_more_than_the_command_and_listing_reads_no_source() -> None:
    by_argument = {
        argument: modules_after(f"from ule_datasets.cli.build import main; main(['{argument}'])")
        for argument in ("--help", "--list")
    }
    ours = {module for module in by_argument["--help"] if module in MODULES}
    assert "numpy" not in by_argument["--help"]
    assert {module for module in ours if module != "ule_datasets" and room_of(module) not in ("cli", "base")} == set()
    assert "ule_datasets.sources.reading" not in by_argument["--list"]


def test_building_and_integrity_import_no_torch_and_nothing_imports_torchvision() -> None:
    for modules in ("building, ule_datasets.dataset.integrity", "countermeasures, ule_datasets.methods.purified"):
        assert "torch" not in modules_after(f"import ule_datasets.{modules}")
    everything = modules_after("import ule_datasets.dataset.loading, ule_datasets.verifying")
    assert "torch" in everything
    assert "torchvision" not in everything


def test_every_test_file_has_a_name_of_its_own() -> None:
    """Pytest imports test files by their names alone."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
