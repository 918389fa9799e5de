"""One walk lists every file of a source once, and names what it does not go into."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest
from trees import Files, Folder, Link, write_tree

from ule_datasets.sources.tree import HIDDEN, OWN, Listing, in_order, stem_of, walk

LOOP = "links to a folder that they are in"
MANIFEST = '{\n "schema": "ule-datasets manifest 1",\n'
REPORT = '{\n "schema": "ule-datasets report 2",\n'
WALKS: dict[str, tuple[Files, list[str], dict[str, tuple[int, str]]]] = {
    "nothing": ({}, [], {}),
    "files in the order of their parts": (
        {"a.b": "", "a/c": "", "a/b/z": "", "b": ""},
        ["a/b/z", "a/c", "a.b", "b"],
        {},
    ),
    "hidden files": ({".DS_Store": "", "a/._b.png": "", "a/b.png": ""}, ["a/b.png"], {HIDDEN: (2, ".DS_Store")}),
    "hidden folders": ({".git/x": "", "a/.ipynb_checkpoints/b.png": "", "c": ""}, ["c"], {HIDDEN: (2, ".git")}),
    "what systems leave behind": (
        {"__MACOSX/a/._b.png": "", "a/@eaDir/b.png": "", "a/b.png": ""},
        ["a/b.png"],
        {HIDDEN: (2, "__MACOSX")},
    ),
    "a broken link": ({"a": Link("nowhere"), "b": ""}, ["b"], {"broken links": (1, "a")}),
    "a link to a file": ({"a": Link("b"), "b": ""}, ["a", "b"], {}),
    "a link to a folder beside": ({"a": Link("b"), "b/c": ""}, ["a/c", "b/c"], {}),
    "a link to its own folder": (
        {"a/b": Link("."), "a/c": ""},
        ["a/c"],
        {"links to a folder that they are in": (1, "a/b")},
    ),
    "a link to the source": (
        {"a/b": Link(".."), "a/c": ""},
        ["a/c"],
        {"links to a folder that they are in": (1, "a/b")},
    ),
    "links between folders": (
        {"a/b": Link("../b"), "b/a": Link("../a"), "a/x": "", "b/y": ""},
        ["a/b/y", "a/x", "b/a/x", "b/y"],
        {LOOP: (2, "a/b/a")},
    ),
    "a dataset of ours": (
        {"datasets/ops/manifest.json": MANIFEST, "datasets/ops/data/train.parquet": "", "a": ""},
        ["a"],
        {OWN: (1, "datasets/ops")},
    ),
    "an unfinished one": ({"ops/.build/lock": "", "ops/.build/files/x.png": "", "a": ""}, ["a"], {OWN: (1, "ops")}),
    "a report of ours": (
        {"verification/report.json": REPORT, "verification/p.png": ""},
        [],
        {OWN: (1, "verification")},
    ),
    "manifests of others": (
        {"a/manifest.json": "{}", "b/report.json": "[]", "c/manifest.json": Folder()},
        ["a/manifest.json", "b/report.json"],
        {},
    ),
}


@pytest.mark.parametrize("case", WALKS)
def test_a_walk_lists_files_and_names_the_rest(case: str, tmp_path: Path) -> None:
    files, listed, passed_over = WALKS[case]
    tree = walk(write_tree(tmp_path, files))
    assert list(tree.below()) == listed
    assert {each.reason: (each.count, each.example) for each in tree.passed_over} == passed_over


def test_what_is_neither_file_nor_folder_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    tree = walk(tmp_path)
    assert [(each.reason, each.example) for each in tree.passed_over] == [("neither a file nor a folder", "pipe")]


def test_many_links_between_folders_end(tmp_path: Path) -> None:
    for one in range(12):
        write_tree(
            tmp_path, {f"{one}/x": "", **{f"{one}/to{two}": Link(f"../{two}") for two in range(12) if one != two}}
        )
    assert sum(1 for _ in walk(tmp_path).below()) < 12**3


def test_a_single_file_is_a_tree(tmp_path: Path) -> None:
    path = write_tree(tmp_path, {"a.tar": ""}) / "a.tar"
    tree = walk(path)
    assert list(tree.below()) == ["a.tar"]
    assert tree.at("a.tar") == path
    assert tree.first == {".tar": "a.tar"}


def test_thousands_of_folders_within_each_other_are_gone_through() -> None:
    depth = 5_000
    listed = in_order("", "", lambda path: Listing([], ["a"]) if path.count("a") < depth else Listing(["x"], []))
    assert list(listed) == [f"{'a/' * depth}x"]


@pytest.mark.parametrize("path", ["a", "a.png", "x/a.png", "/x.y/a", "a.b.png", ".a", "x/.a.png", "a.", "..a", "a..b"])
def test_stems_are_those_of_paths(path: str) -> None:
    assert stem_of(path) == PurePosixPath(path).stem
